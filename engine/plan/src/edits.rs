//! Edits: changes of some fields of a record, which leave the others as they are.
//!
//! `set`, `remove` and `rename` are edits, and so is a `select` with `*` of records whose fields
//! are not known ([`in_place`](crate::in_place)). All edits of a stage see the record before it.

use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{Assignment, Path, PathStep, PlacedPath, Renaming};

/// A change of one field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldEdit {
    /// Sets a field, and adds it if it is missing.
    Set(Assignment),
    /// Removes a field; a record without it is not changed.
    Remove(PlacedPath),
    /// Moves a field to another name or object, where it replaces the field that has the name.
    Rename(Renaming),
}

impl FieldEdit {
    /// The paths of the fields that it changes.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PlacedPath> {
        let (one, other) = match self {
            FieldEdit::Set(assignment) => (&assignment.to, None),
            FieldEdit::Remove(path) => (path, None),
            FieldEdit::Rename(renaming) => (&renaming.from, Some(&renaming.to)),
        };
        std::iter::once(one).chain(other)
    }

    /// The path of the field that is removed or renamed.
    pub(crate) fn expected_path(&self) -> Option<&PlacedPath> {
        match self {
            FieldEdit::Set(_) => None,
            FieldEdit::Remove(path) => Some(path),
            FieldEdit::Rename(renaming) => Some(&renaming.from),
        }
    }

    /// A description for the digest of the plan.
    pub(crate) fn describe(&self) -> [String; 3] {
        match self {
            FieldEdit::Set(Assignment { to, value }) => {
                ["set".to_owned(), to.path.to_string(), value.to_string()]
            }
            FieldEdit::Remove(path) => ["remove".to_owned(), path.path.to_string(), String::new()],
            FieldEdit::Rename(Renaming { from, to }) => [
                "rename".to_owned(),
                from.path.to_string(),
                to.path.to_string(),
            ],
        }
    }
}

/// Checks that the edits of a stage are of different fields, none of which is inside another.
pub(crate) fn check(edits: &[FieldEdit]) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut earlier: Vec<&PlacedPath> = Vec::new();
    for place in edits.iter().flat_map(FieldEdit::paths) {
        if place.path.0.iter().any(is_index) {
            errors.push(
                Diagnostic::new(
                    place.span,
                    format!("`{}` is an element of a list", place.path),
                    "expected a field",
                )
                .with_help("set the whole list"),
            );
        }
        let overlaps = |known: &&&PlacedPath| {
            known.path.0.starts_with(&place.path.0) || place.path.0.starts_with(&known.path.0)
        };
        if let Some(known) = earlier.iter().find(overlaps) {
            let message = if known.path == place.path {
                format!("`{}` is changed twice", place.path)
            } else {
                format!("`{}` and `{}` overlap", known.path, place.path)
            };
            errors.push(
                Diagnostic::new(place.span, message, "second change")
                    .with_help("make the second change in a stage of its own"),
            );
        }
        earlier.push(place);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Columns after edits, in their order, each with what is known of it; `set` returns that of a
/// column that is set. An edit inside a column leaves it as it is.
pub(crate) fn apply<T>(
    edits: &[FieldEdit],
    mut columns: Vec<(String, T)>,
    mut set: impl FnMut(&Assignment) -> T,
) -> Vec<(String, T)> {
    for edit in edits {
        match edit {
            FieldEdit::Set(assignment) => {
                let (name, value) = (column(&assignment.to), set(assignment));
                match columns
                    .iter_mut()
                    .find(|(known, _)| Some(known.as_str()) == name)
                {
                    Some((_, known)) => *known = value,
                    None => columns.extend(name.map(|name| (name.to_owned(), value))),
                }
            }
            FieldEdit::Remove(path) => {
                columns.retain(|(known, _)| Some(known.as_str()) != column(path));
            }
            FieldEdit::Rename(renaming) => {
                let (from, to) = (column(&renaming.from), column(&renaming.to));
                let is_from = |(known, _): &(String, T)| Some(known.as_str()) == from;
                if columns.iter().any(is_from) {
                    columns.retain(|(known, _)| Some(known.as_str()) != to);
                }
                match (columns.iter().position(is_from), to) {
                    (Some(at), Some(to)) => columns[at].0 = to.to_owned(),
                    (Some(at), None) => _ = columns.remove(at),
                    (None, _) => {}
                }
            }
        }
    }
    columns
}

/// The column that a path names; `None` for a part of one.
fn column(place: &PlacedPath) -> Option<&str> {
    match place.path.0.as_slice() {
        [PathStep::Field(name)] => Some(name),
        _ => None,
    }
}

fn is_index(step: &PathStep) -> bool {
    matches!(step, PathStep::Index(_))
}

/// The names of a path without list elements.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let name = |step: &PathStep| match step {
        PathStep::Field(name) => Some(name.clone()),
        PathStep::Index(_) => None,
    };
    path.0.iter().filter_map(name).collect()
}

/// The path of a field of the record itself.
pub(crate) fn field(name: &str) -> Path {
    Path(vec![PathStep::Field(name.to_owned())])
}
