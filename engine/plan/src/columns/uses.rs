//! The uses of a field in the branches of a flow.
//!
//! A flow is a tree: `all`, `match` and `route` have branches, and what follows them, or a sink, is
//! another one. What a branch requires of a field holds for the records that reach its sinks, and for no
//! others: a field is decoded with a type only if it is used with this type on the way to each sink.
//! Otherwise it is JSON, and is cast where it is used, so that no branch changes what another one
//! writes, or finds its records invalid.

use arrow::datatypes::DataType;
use pseidon_dsl::Span;

/// A part of a flow, as the branches that lead to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Branch(Vec<usize>);

impl Branch {
    /// Whether the records of the other branch have passed this one.
    fn leads_to(&self, other: &Branch) -> bool {
        other.0.starts_with(&self.0)
    }
}

/// The branches of a flow while it is walked.
#[derive(Default)]
pub(super) struct Branches {
    current: Branch,
    /// The number of branches so far.
    count: usize,
    /// The branch of each sink.
    sinks: Vec<Branch>,
}

impl Branches {
    /// The branch of the step that is visited.
    pub(super) fn current(&self) -> &Branch {
        &self.current
    }

    /// Enters a new branch. [`Branches::leave_to`] leaves it.
    pub(super) fn enter(&mut self) {
        self.current.0.push(self.count);
        self.count += 1;
    }

    /// The number of branches around the step that is visited.
    pub(super) fn depth(&self) -> usize {
        self.current.0.len()
    }

    /// Leaves the innermost branches until there are this many.
    pub(super) fn leave_to(&mut self, depth: usize) {
        self.current.0.truncate(depth);
    }

    /// Notes that the step that is visited is a sink.
    pub(super) fn add_sink(&mut self) {
        self.sinks.push(self.current.clone());
    }
}

/// A use of a field with a type.
#[derive(Clone, Debug)]
pub(super) struct TypedUse {
    wanted: DataType,
    span: Span,
    branch: Branch,
}

impl TypedUse {
    pub(super) fn new(wanted: DataType, span: Span, branch: &Branch) -> TypedUse {
        TypedUse {
            wanted,
            span,
            branch: branch.clone(),
        }
    }
}

/// Two uses of a field, on the way to one sink, whose types conflict.
#[derive(Debug, PartialEq)]
pub(super) struct TypeConflict {
    /// The type of the first use.
    pub(super) first: DataType,
    /// The type of the other use.
    pub(super) other: DataType,
    /// The later place of the two.
    pub(super) span: Span,
}

/// The type with which a field is decoded. `None` if it stays JSON.
///
/// # Errors
/// Uses on the way to one sink conflict. The type is that of the first use.
pub(super) fn decoded_type(
    uses: &[TypedUse],
    branches: &Branches,
) -> Result<Option<DataType>, TypeConflict> {
    let of_sink = |sink| agreed(uses.iter().filter(|used| used.branch.leads_to(sink)));
    let wanted: Vec<_> = branches
        .sinks
        .iter()
        .map(of_sink)
        .collect::<Result<_, _>>()?;
    let is_same = wanted.windows(2).all(|pair| pair[0] == pair[1]);
    Ok(wanted.into_iter().next().flatten().filter(|_| is_same))
}

/// The type that satisfies all of these uses. `None` if there are none.
fn agreed<'u>(
    mut uses: impl Iterator<Item = &'u TypedUse>,
) -> Result<Option<DataType>, TypeConflict> {
    let Some(first) = uses.next() else {
        return Ok(None);
    };
    let mut agreed = first.wanted.clone();
    for other in uses {
        agreed = common_type(&agreed, &other.wanted).ok_or_else(|| TypeConflict {
            first: first.wanted.clone(),
            other: other.wanted.clone(),
            span: if other.span.start >= first.span.start {
                other.span
            } else {
                first.span
            },
        })?;
    }
    Ok(Some(agreed))
}

/// The common type of two uses. `None` if they conflict.
fn common_type(one: &DataType, other: &DataType) -> Option<DataType> {
    match (one, other) {
        _ if one == other => Some(one.clone()),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => {
            Some(DataType::Float64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The branches `[0]` and `[1]`, which end with sinks, after a common part.
    fn two_sinks() -> Branches {
        let mut branches = Branches::default();
        for _ in 0..2 {
            branches.enter();
            branches.add_sink();
            branches.leave_to(0);
        }
        branches
    }

    fn used(wanted: DataType, branch: &[usize]) -> TypedUse {
        TypedUse::new(wanted, Span::default(), &Branch(branch.to_vec()))
    }

    #[test]
    fn each_sink_must_require_the_type() {
        let (int, text) = (DataType::Int64, DataType::Utf8);
        for (uses, expected) in [
            (vec![], None),
            (vec![used(int.clone(), &[])], Some(int.clone())),
            (vec![used(int.clone(), &[0])], None),
            (
                vec![used(int.clone(), &[0]), used(int.clone(), &[1])],
                Some(int.clone()),
            ),
            // Each casts the value for itself.
            (
                vec![used(int.clone(), &[0]), used(text.clone(), &[1])],
                None,
            ),
            (
                vec![used(int.clone(), &[]), used(DataType::Float64, &[1])],
                None,
            ),
        ] {
            assert_eq!(decoded_type(&uses, &two_sinks()), Ok(expected), "{uses:?}");
        }
    }

    #[test]
    fn uses_on_the_way_to_one_sink_may_conflict() {
        for first in [&[][..], &[1]] {
            let uses = [used(DataType::Int64, first), used(DataType::Utf8, &[1])];
            let conflict = decoded_type(&uses, &two_sinks()).unwrap_err();
            assert_eq!(
                (conflict.first, conflict.other),
                (DataType::Int64, DataType::Utf8)
            );
        }
    }
}
