//! The meaning of paths at a point of the flow: the fields of the source's record that they name.

use arrow::datatypes::SchemaRef;
use pseidon_dsl::Span;
use pseidon_dsl::expr::{Assignment, Expr, ExprKind, Literal, Path, PathStep, PlacedPath};

use crate::edits::{FieldEdit, apply, field};

/// A column with its name and, unless it was computed, its path in the source's record.
pub(super) type NamedColumn = (String, Option<Path>);

/// What the paths of expressions mean at a point of the flow.
#[derive(Clone)]
pub(super) enum Names {
    /// Paths are paths of the source's record, after the edits of these stages.
    Record(Vec<Vec<FieldEdit>>),
    /// Paths begin with a column of the last `select`.
    Columns(Vec<NamedColumn>),
}

/// What a path names.
pub(super) enum Origin {
    /// This path of the source's record.
    Path(Path),
    /// A computed, removed or unknown value.
    Computed,
    /// A value of the source's record of which this part was changed.
    Partial(Path),
}

impl Origin {
    /// The path in the source's record.
    pub(super) fn into_path(self) -> Option<Path> {
        match self {
            Origin::Path(path) => Some(path),
            Origin::Computed | Origin::Partial(_) => None,
        }
    }
}

impl Names {
    /// The names after a source.
    pub(super) fn of_source() -> Names {
        Names::Record(Vec::new())
    }

    /// Whether the record is still the source's, except for edits.
    pub(super) fn are_of_record(&self) -> bool {
        matches!(self, Names::Record(_))
    }

    /// Whether they differ from those after the source.
    pub(super) fn are_changed(&self) -> bool {
        !matches!(self, Names::Record(stages) if stages.is_empty())
    }

    /// The names after a stage with these edits.
    pub(super) fn after(self, edits: &[FieldEdit]) -> Names {
        match self {
            Names::Record(mut stages) => {
                stages.push(edits.to_vec());
                Names::Record(stages)
            }
            Names::Columns(columns) => Names::Columns(apply(edits, columns, |_| None)),
        }
    }

    /// The names after a step that adds computed columns.
    pub(super) fn with_computed(self, columns: &[&str]) -> Names {
        let set = |column: &&str| {
            let to = PlacedPath {
                path: field(column),
                span: Span::default(),
            };
            let value = Expr {
                kind: ExprKind::Literal(Literal::Null),
                span: Span::default(),
            };
            FieldEdit::Set(Assignment { to, value })
        };
        self.after(&columns.iter().map(set).collect::<Vec<_>>())
    }

    /// What a path names.
    pub(super) fn origin(&self, path: &Path) -> Origin {
        match self {
            Names::Record(stages) => {
                stages
                    .iter()
                    .rev()
                    .fold(Origin::Path(path.clone()), |origin, edits| match origin {
                        Origin::Path(path) => before(edits, path),
                        other => other,
                    })
            }
            Names::Columns(columns) => {
                let Some(PathStep::Field(first)) = path.0.first() else {
                    return Origin::Computed;
                };
                let found = columns.iter().find(|(name, _)| name == first);
                match found.and_then(|(_, origin)| origin.as_ref()) {
                    Some(origin) => Origin::Path(below(origin, path, 1)),
                    None => Origin::Computed,
                }
            }
        }
    }

    /// All columns: those of the last `select`, or the fields of the record, if they are known.
    pub(super) fn columns(&self, schema: Option<&SchemaRef>) -> Option<Vec<NamedColumn>> {
        match self {
            Names::Columns(columns) => Some(columns.clone()),
            Names::Record(stages) => {
                let fields = schema?.fields().iter();
                let fields = fields.map(|known| (known.name().clone(), Some(field(known.name()))));
                Some(stages.iter().fold(fields.collect(), |columns, edits| {
                    apply(edits, columns, |_| None)
                }))
            }
        }
    }
}

/// What a path after a stage with these edits names before it.
fn before(edits: &[FieldEdit], path: Path) -> Origin {
    for edit in edits {
        if let FieldEdit::Rename(renaming) = edit
            && path.0.starts_with(&renaming.to.path.0)
        {
            let moved = below(&renaming.from.path, &path, renaming.to.path.0.len());
            return Origin::Path(moved);
        }
        for changed in edit.paths() {
            if path.0.starts_with(&changed.path.0) {
                return Origin::Computed;
            }
            if changed.path.0.starts_with(&path.0) {
                return Origin::Partial(changed.path.clone());
            }
        }
    }
    Origin::Path(path)
}

/// The path below `origin` that the steps of `path` from number `from` on name.
fn below(origin: &Path, path: &Path, from: usize) -> Path {
    let mut steps = origin.0.clone();
    steps.extend_from_slice(&path.0[from..]);
    Path(steps)
}
