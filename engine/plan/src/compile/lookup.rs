//! The step of a `lookup` that finds the row of each record.

use std::sync::Arc;

use pseidon_dsl::expr::{Expr, ExprKind};

use super::flow_point::FlowPoint;
use super::{ChainCompiler, chain_step};
use crate::chain::{ChainStep, Operator};
use crate::edits::field;
use crate::lookup::LookupTable;
use crate::resolve::ResolvedStep;

impl ChainCompiler<'_> {
    /// Compiles the key of a table at this point. `None` if an error was added.
    pub(super) fn lookup_step(
        &mut self,
        step: &ResolvedStep,
        key: &Expr,
        table: &Arc<LookupTable>,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        // The key is cast to a string. It is shown as it is written.
        let written = match &key.kind {
            ExprKind::Cast { expr, .. } => expr,
            _ => key,
        };
        let compiled = self.expr(key, point)?;
        let compiled = compiled.named(&self.substituted.shown(written));
        let policy = self.policy(&step.on_error)?;
        for column in table.schema().fields() {
            point.add_column(field(column.name()), column.clone());
        }
        let operator = Operator::Lookup(compiled, table.clone(), point.columns());
        Some(chain_step(step, operator, policy))
    }
}
