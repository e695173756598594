//! A `group` or a `dedupe` of a flow, as the planner and the plugin that keeps the groups see it.
//!
//! The stage is a sink that collects groups, and a source that reads their results when everything
//! in front of it has been read. The registry's [`GroupFactory`](crate::registry::GroupFactory)
//! creates both.

use std::sync::{Arc, OnceLock};

use arrow::error::ArrowError;
use pseidon_dsl::Span;
use pseidon_dsl::expr::Expr;
use pseidon_expr::aggregate::AggregateCall;

use crate::batch::{Batch, Split};
use crate::rows::Rows;

/// A `group` or a `dedupe` of a flow.
pub struct GroupStage {
    /// The position of the stage's definition.
    pub span: Span,
    /// What its results are.
    pub content: GroupContent,
    /// The keys and the results as written. Stages with different ones do not continue each other.
    pub written: String,
    preview: OnceLock<Preview>,
}

/// What the result of a group is.
#[derive(Clone, Debug)]
pub enum GroupContent {
    /// A new record of the keys and the results of functions.
    Results {
        /// How many of the first columns of the input are the keys.
        keys: usize,
        /// The functions, each with the name of its results.
        calls: Vec<(String, AggregateCall)>,
    },
    /// One of the group's records as it is.
    Record {
        /// The keys.
        keys: Vec<Expr>,
        /// Whether it is the last record that was read, and not the first.
        last: bool,
    },
}

/// Computes the results of rows in front of a stage, as a batch of this split.
pub type Preview = Box<dyn Fn(&Rows, Arc<Split>) -> Result<Batch, ArrowError> + Send + Sync>;

impl GroupStage {
    /// A stage whose input is not known yet.
    pub fn new(span: Span, content: GroupContent, written: String) -> GroupStage {
        GroupStage {
            span,
            content,
            written,
            preview: OnceLock::new(),
        }
    }

    /// Sets how results are computed, when the columns of the input are known.
    pub fn set_preview(&self, preview: Preview) {
        // The input of a stage does not change.
        let _ = self.preview.set(preview);
    }

    /// The results of rows in front of the stage that fit into memory, for tests. `None` if the
    /// columns of its input are not known.
    pub fn preview(&self, rows: &Rows, split: Arc<Split>) -> Option<Result<Batch, ArrowError>> {
        Some(self.preview.get()?(rows, split))
    }
}
