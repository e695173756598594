//! Further errors of a file with invalid keys: those of its stages and of its flow.

use pseidon_dsl::{Diagnostic, Document, Span, document, interpolate};

use super::variables::Variables;
use super::{PipelineText, TextKind, infer, is_template};
use crate::registry::registry;

impl PipelineText {
    /// These errors of the document's keys, with those that planning the rest of it finds.
    pub(super) fn with_further(&self, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let partial = match self.kind {
            TextKind::Edn => document::partial_from_edn(&self.text),
            TextKind::Toml => document::partial_from_toml(&self.text),
            TextKind::Flow => None,
        };
        let known = partial.filter(|found| found.includes.is_empty() && !is_template(found));
        let Some(found) = known else {
            return errors;
        };
        let overlaps = |one: Span, other: Span| one.start < other.end && other.start < one.end;
        let places: Vec<Span> = errors.iter().map(|error| error.span).collect();
        let further = self.errors_of(found).into_iter();
        let elsewhere = |error: &Diagnostic| !places.iter().any(|it| overlaps(*it, error.span));
        errors.extend(further.filter(elsewhere));
        errors
    }

    fn errors_of(&self, mut document: Document) -> Vec<Diagnostic> {
        let mut variables = Variables::new(&self.parameters, &self.base, None);
        let filled = interpolate::document(&mut document, &mut |kind, name| {
            variables.look_up(kind, name)
        });
        match filled {
            Err(errors) => errors,
            Ok(()) => self
                .plan_in(&registry(), &document, &|_, source, format| {
                    infer(source, format, &self.base)
                })
                .err()
                .unwrap_or_default(),
        }
    }
}
