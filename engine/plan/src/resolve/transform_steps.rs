//! The steps of a transform.

use std::sync::Arc;

use pseidon_dsl::expr::Expr;
use pseidon_plugin::options::{OnError, ParseResult};

use super::ResolvedStepKind;
use crate::group::{self, GroupSteps};
use crate::lookup::{Lookup, LookupSteps};
use crate::tables::TableCache;
use crate::transforms::{InvalidRecords, Keep, TransformOptions};
use crate::{parse, unnest};

/// What a transform is, and what happens to invalid records in it.
pub(super) enum TransformSteps {
    /// Steps of the chain.
    Chain(Vec<ResolvedStepKind>, InvalidRecords),
    /// A `group` or a `dedupe`, which ends the chain.
    Group(Box<GroupSteps>, InvalidRecords),
}

/// For a transform in which no record is invalid.
const NEVER_INVALID: InvalidRecords = InvalidRecords {
    on_error: OnError::Noop,
};

/// The steps of a transform with these options.
///
/// # Errors
/// Options that do not fit together, and tables that cannot be used.
pub(super) fn transform_steps(
    options: TransformOptions,
    tables: &TableCache<'_>,
) -> ParseResult<TransformSteps> {
    let (kinds, invalid) = match options {
        TransformOptions::Where(options) => {
            one(ResolvedStepKind::Where(options.condition), options.invalid)
        }
        TransformOptions::Select(options) => {
            one(ResolvedStepKind::Select(options.columns), options.invalid)
        }
        TransformOptions::Edit(edits, invalid) => (vec![ResolvedStepKind::Edit(edits)], invalid),
        TransformOptions::Parse(options) => {
            let keep = options.keep.unwrap_or_default();
            let selects = parse::selects(&options.text, &options.pattern, &keep);
            let selects = selects.map_err(|error| vec![error])?;
            let kinds = selects.map(ResolvedStepKind::Select);
            (kinds.into(), options.invalid)
        }
        TransformOptions::Unnest(options) => {
            let steps = unnest::steps(&options.list, options.span);
            let (list, edits) = steps.map_err(|error| vec![error])?;
            let kinds = [
                ResolvedStepKind::Unnest(list),
                ResolvedStepKind::Edit(edits),
            ];
            (kinds.into(), options.invalid)
        }
        TransformOptions::Lookup(options) => {
            let lookup = Lookup {
                span: options.span,
                path: &options.table,
                on: &options.on,
                fields: &options.fields,
                reload: options.reload,
            };
            let steps = lookup.steps(tables).map_err(|error| vec![error])?;
            let LookupSteps { key, table, edits } = steps;
            let kinds = [
                ResolvedStepKind::Lookup(key, Arc::new(table)),
                ResolvedStepKind::Edit(edits),
            ];
            (kinds.into(), options.invalid)
        }
        TransformOptions::Sample(options) => {
            let by = options.by.map(Expr::as_text);
            one(ResolvedStepKind::Sample(options.share, by), options.invalid)
        }
        TransformOptions::Limit(options) => one(
            ResolvedStepKind::Limit(options.records.get()),
            NEVER_INVALID,
        ),
        TransformOptions::Throttle(options) => {
            one(ResolvedStepKind::Throttle(options.rate), NEVER_INVALID)
        }
        TransformOptions::Group(options) => {
            let aggregates = options.aggregates.as_deref();
            let steps = group::steps(&options.keys, aggregates, options.span)?;
            return Ok(TransformSteps::Group(Box::new(steps), options.invalid));
        }
        TransformOptions::Dedupe(options) => {
            let last = options.keep == Keep::Last;
            let steps = group::dedupe(&options.keys, last, options.span)?;
            return Ok(TransformSteps::Group(Box::new(steps), options.invalid));
        }
    };
    Ok(TransformSteps::Chain(kinds, invalid))
}

/// A transform of one step.
fn one(kind: ResolvedStepKind, invalid: InvalidRecords) -> (Vec<ResolvedStepKind>, InvalidRecords) {
    (vec![kind], invalid)
}
