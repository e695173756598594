//! A `group` of a flow, as the planner and the plugin that keeps the groups see it.
//!
//! The stage is a sink that collects groups, and a source that reads their results when everything
//! in front of it has been read. The registry's [`GroupFactory`](crate::registry::GroupFactory)
//! creates both.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use pseidon_dsl::Span;
use pseidon_expr::aggregate::{AggregateCall, Grouping};

use crate::options::ParseResult;

/// A `group` of a flow.
#[derive(Debug)]
pub struct GroupStage {
    /// The position of the stage's definition.
    pub span: Span,
    /// How many of the first columns of its input are the keys.
    pub keys: usize,
    /// The aggregate functions, each with the name of its results.
    pub calls: Vec<(String, AggregateCall)>,
    /// Set when the columns of its input are known.
    grouping: OnceLock<Arc<Grouping>>,
}

impl GroupStage {
    /// A stage whose input is not known yet.
    pub fn new(span: Span, keys: usize, calls: Vec<(String, AggregateCall)>) -> GroupStage {
        GroupStage {
            span,
            keys,
            calls,
            grouping: OnceLock::new(),
        }
    }

    /// Sets the columns of its input.
    ///
    /// # Errors
    /// Functions that do not exist or do not accept their arguments.
    pub fn prepare(&self, input: &SchemaRef) -> ParseResult<Arc<Grouping>> {
        let grouping = Arc::new(Grouping::new(input, self.keys, &self.calls)?);
        Ok(self.grouping.get_or_init(|| grouping).clone())
    }

    /// The grouping, if the columns of the input are known and valid.
    pub fn grouping(&self) -> Option<&Arc<Grouping>> {
        self.grouping.get()
    }

    /// The aggregate functions as written, without the keys: two stages with the same keys compute
    /// the same results if these are equal.
    pub fn describe(&self) -> String {
        let calls = self.calls.iter().map(|(_, call)| call.to_string());
        calls.collect::<Vec<_>>().join(", ")
    }
}
