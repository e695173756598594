//! Where `limit` may be used: it ends the reading of its source, and so of all that is behind it.

use pseidon_dsl::{Diagnostic, Span};

use super::{ResolvedStep, ResolvedStepKind};

/// The error for a `limit` of this chain that is in a branch, or not the only one.
pub(super) fn misplaced_limit(chain: &[ResolvedStep]) -> Option<Diagnostic> {
    let is_limit = |step: &&ResolvedStep| matches!(step.kind, ResolvedStepKind::Limit(_));
    if let Some(second) = chain.iter().filter(is_limit).nth(1) {
        let message = "`limit` is used twice after a source";
        let label = "the smaller one ends the run";
        let error = Diagnostic::new(second.span, message, label);
        return Some(error.with_help("use it once, with the smaller number"));
    }
    let inner = chain.iter().flat_map(|step| step.kind.chains());
    let place = inner.into_iter().find_map(limit_in)?;
    let message = "`limit` cannot be used in a branch";
    let error = Diagnostic::new(place, message, "it would end the reading for all branches");
    let help = "put it in front of the branches, or make a pipeline of its own for this branch";
    Some(error.with_help(help))
}

/// The place of a `limit` anywhere in a chain.
fn limit_in(chain: &[ResolvedStep]) -> Option<Span> {
    chain.iter().find_map(|step| match step.kind {
        ResolvedStepKind::Limit(_) => Some(step.span),
        _ => step.kind.chains().into_iter().find_map(limit_in),
    })
}
