//! A step of a resolved chain.

use std::sync::Arc;

use pseidon_dsl::Span;
use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::{Expr, SelectItem};
use pseidon_plugin::options::OnError;
use pseidon_plugin::stage::SinkStage;

use crate::edits::FieldEdit;
use crate::lookup::LookupTable;
use crate::percent::Percent;
use crate::rate::Rate;

/// One step of a chain.
#[derive(Clone)]
pub struct ResolvedStep {
    /// The name of the stage, made unique if it is used several times (`lake`, `lake#2`).
    pub stage: String,
    /// The position in the flow.
    pub span: Span,
    /// The operation of the step.
    pub kind: ResolvedStepKind,
    /// The handling of records that are invalid in this step.
    pub on_error: OnError,
}

/// The operation of a step.
#[derive(Clone)]
pub enum ResolvedStepKind {
    /// `where`, with its condition.
    Where(Expr),
    /// `select`, with its columns.
    Select(Vec<SelectItem>),
    /// `set`, `remove` or `rename`.
    Edit(Vec<FieldEdit>),
    /// The first step of `unnest`: each record is repeated once for each element of this list.
    Unnest(Expr),
    /// The first step of `lookup`: the row of this table that has this key, a string.
    Lookup(Expr, Arc<LookupTable>),
    /// `sample`: a share of the records, chosen by this key, a string, or by their positions.
    Sample(Percent, Option<Expr>),
    /// `limit`, with its number of records.
    Limit(u64),
    /// `throttle`, with its rate.
    Throttle(Rate),
    /// `all`: each chain receives the same input, and the input is passed on.
    All(Vec<Vec<ResolvedStep>>),
    /// `match`: a record goes to the first chain whose pattern matches. The records that match no
    /// pattern, and the output of the chains, are passed on.
    Match {
        /// The patterns with their chains, in order.
        branches: Vec<(Pattern, Vec<ResolvedStep>)>,
        /// The chain of `:else`.
        otherwise: Option<Vec<ResolvedStep>>,
    },
    /// `route`: a record goes to the first chain whose condition is true. All chains end with
    /// sinks; the other records are passed on.
    Route {
        /// The conditions with their chains, in order.
        branches: Vec<(Expr, Vec<ResolvedStep>)>,
        /// The chain of `:else`, which ends with sinks too.
        otherwise: Option<Vec<ResolvedStep>>,
    },
    /// A sink. Its input is passed on.
    Sink(Arc<SinkStage>),
}

impl ResolvedStepKind {
    /// The chains of its branches, in order; none if it has no branches.
    pub(crate) fn chains(&self) -> Vec<&[ResolvedStep]> {
        match self {
            ResolvedStepKind::All(branches) => branches.iter().map(Vec::as_slice).collect(),
            ResolvedStepKind::Match {
                branches,
                otherwise,
            } => {
                let chains = branches.iter().map(|(_, chain)| chain.as_slice());
                chains.chain(otherwise.as_deref()).collect()
            }
            ResolvedStepKind::Route {
                branches,
                otherwise,
            } => {
                let chains = branches.iter().map(|(_, chain)| chain.as_slice());
                chains.chain(otherwise.as_deref()).collect()
            }
            ResolvedStepKind::Where(_)
            | ResolvedStepKind::Select(_)
            | ResolvedStepKind::Edit(_)
            | ResolvedStepKind::Unnest(_)
            | ResolvedStepKind::Lookup(..)
            | ResolvedStepKind::Sample(..)
            | ResolvedStepKind::Limit(_)
            | ResolvedStepKind::Throttle(_)
            | ResolvedStepKind::Sink(_) => Vec::new(),
        }
    }
}

/// Whether every record that goes through the chain reaches a sink.
pub(super) fn reaches_sink(chain: &[ResolvedStep]) -> bool {
    match chain.last().map(|step| &step.kind) {
        Some(ResolvedStepKind::Sink(..)) => true,
        Some(ResolvedStepKind::All(branches)) => {
            !branches.is_empty() && branches.iter().all(|branch| reaches_sink(branch))
        }
        Some(ResolvedStepKind::Match {
            branches,
            otherwise,
        }) => {
            branches.iter().all(|(_, chain)| reaches_sink(chain))
                && otherwise.as_ref().is_none_or(|chain| reaches_sink(chain))
        }
        // The branches do, as was checked.
        Some(ResolvedStepKind::Route { otherwise, .. }) => otherwise.is_some(),
        Some(
            ResolvedStepKind::Where(_)
            | ResolvedStepKind::Select(_)
            | ResolvedStepKind::Edit(_)
            | ResolvedStepKind::Unnest(_)
            | ResolvedStepKind::Lookup(..)
            | ResolvedStepKind::Sample(..)
            | ResolvedStepKind::Limit(_)
            | ResolvedStepKind::Throttle(_),
        )
        | None => false,
    }
}
