//! A collector for the errors of all planning steps, so that they are reported together.

use pseidon_dsl::Diagnostic;

/// The errors that were found so far, in order.
#[derive(Default)]
pub(crate) struct Errors(Vec<Diagnostic>);

impl From<Diagnostic> for Errors {
    fn from(error: Diagnostic) -> Errors {
        Errors(vec![error])
    }
}

impl From<Vec<Diagnostic>> for Errors {
    fn from(errors: Vec<Diagnostic>) -> Errors {
        Errors(errors)
    }
}

impl Errors {
    /// Adds an error.
    pub(crate) fn add(&mut self, error: Diagnostic) {
        self.0.push(error);
    }

    /// Adds these errors, also if there are others at the same places.
    pub(crate) fn extend(&mut self, errors: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(errors);
    }

    /// Adds the errors that are at places without an error so far.
    pub(crate) fn extend_elsewhere(&mut self, errors: Errors) {
        let places: Vec<_> = self.0.iter().map(|error| error.span).collect();
        let elsewhere = |error: &Diagnostic| !places.contains(&error.span);
        self.0.extend(errors.0.into_iter().filter(elsewhere));
    }

    /// The value of a step that succeeded. The errors of a step that failed are added.
    pub(crate) fn value<T>(&mut self, result: Result<T, impl Into<Errors>>) -> Option<T> {
        result.map_err(|errors| self.0.extend(errors.into().0)).ok()
    }

    /// Whether there is no error.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The errors without duplicates.
    pub(crate) fn into_unique(self) -> Vec<Diagnostic> {
        let mut unique: Vec<Diagnostic> = Vec::new();
        for error in self.0 {
            if !unique.contains(&error) {
                unique.push(error);
            }
        }
        unique
    }
}
