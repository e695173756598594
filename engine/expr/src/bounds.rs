//! Bounds: what a condition requires of the smallest and the largest value of a field.
//!
//! A file may say, for a group of its rows, between which values those of a column are. If a
//! condition begins with comparisons of fields with constants, that can show that no row of the
//! group satisfies it, before a row is read. It is the comparison itself that is evaluated, with
//! the smallest or the largest value in place of the field's, so that it means the same.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::DataType;
use pseidon_dsl::expr::{BinaryOp, Expr, ExprKind, IsPredicate, Path, PathStep};

use crate::compile::{Column, CompiledExpr, Scope, compile};
use crate::types::is_json;

/// The comparisons that all rows pass that satisfy a condition.
#[derive(Clone, Debug, Default)]
pub struct Bounds(Vec<Bound>);

/// A comparison of an extreme value of a field with a constant. If it is false, no value passes the
/// comparison that it is made of.
#[derive(Clone, Debug)]
struct Bound {
    /// The name of the field, and its type.
    field: (String, DataType),
    extreme: Extreme,
    comparison: CompiledExpr,
}

/// An extreme of the values of a field in a group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// A value that none of them is less than.
    Smallest,
    /// A value that none of them is greater than.
    Largest,
}

impl Bounds {
    /// The bounds of records with these columns that must satisfy all of the conditions, which are
    /// evaluated in this order.
    pub fn of(conditions: &[&Expr], columns: &[Column]) -> Bounds {
        let mut collected = Vec::new();
        let mut collector = Collector {
            columns,
            bounds: &mut collected,
        };
        // Behind an operand that may be an error of a record, nothing may exclude the record.
        for condition in conditions {
            if !collector.condition(condition) {
                break;
            }
        }
        Bounds(collected)
    }

    /// Whether there are none, so that every group may pass.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each of a number of groups may have a row that satisfies the condition. `values`
    /// returns the extreme values of a field, one for each group, in the type of the field: NULL,
    /// or `None` for all, if they are not known.
    pub fn may_pass(
        &self,
        groups: usize,
        values: impl Fn(&str, &DataType, Extreme) -> Option<ArrayRef>,
    ) -> Vec<bool> {
        let mut may_pass = vec![true; groups];
        for bound in &self.0 {
            let (name, data_type) = &bound.field;
            let Some(values) = values(name, data_type, bound.extreme) else {
                continue;
            };
            let Ok(passes) = bound.comparison.evaluate(vec![values], groups) else {
                continue;
            };
            let Some(passes) = passes.as_boolean_opt() else {
                continue;
            };
            for (may_pass, passes) in may_pass.iter_mut().zip(passes) {
                *may_pass &= passes.unwrap_or(true);
            }
        }
        may_pass
    }
}

/// Collects the bounds of conditions.
struct Collector<'a> {
    columns: &'a [Column],
    bounds: &'a mut Vec<Bound>,
}

impl<'a> Collector<'a> {
    /// Adds the bounds of a condition. Returns whether it is never an error of a record.
    fn condition(&mut self, condition: &Expr) -> bool {
        match &condition.kind {
            ExprKind::Binary(left, BinaryOp::And, right) => {
                self.condition(left) && self.condition(right)
            }
            ExprKind::Binary(left, op, right) => self.comparison(left, *op, right),
            ExprKind::Between {
                expr,
                low,
                high,
                negated: false,
            } => {
                self.comparison(expr, BinaryOp::GtEq, low)
                    && self.comparison(expr, BinaryOp::LtEq, high)
            }
            ExprKind::Is {
                expr,
                predicate: IsPredicate::Null,
                ..
            } => matches!(expr.kind, ExprKind::Path(_)),
            _ => false,
        }
    }

    /// Adds the bounds of a comparison. Returns whether it is one of a field with a constant.
    fn comparison(&mut self, left: &Expr, op: BinaryOp, right: &Expr) -> bool {
        let (path, is_first) = match (&left.kind, &right.kind) {
            (ExprKind::Path(path), _) if is_constant(right) => (path, true),
            (_, ExprKind::Path(path)) if is_constant(left) => (path, false),
            _ => return false,
        };
        let Some(needed) = needed(op, is_first) else {
            return false;
        };
        if let Some((name, column)) = self.ordered_column(path) {
            let bounds = needed.iter().filter_map(|(extreme, op)| {
                let kind = ExprKind::Binary(left.clone().into(), *op, right.clone().into());
                let span = left.span.to(right.span);
                Bound::new(name.clone(), column, *extreme, &Expr { kind, span })
            });
            self.bounds.extend(bounds);
        }
        true
    }

    /// The field of a path with its column, if the order of its values is that of every file. Floats
    /// are not: some programs leave NaN out of the extremes.
    fn ordered_column(&self, path: &Path) -> Option<(String, &'a Column)> {
        let [PathStep::Field(name)] = path.0.as_slice() else {
            return None;
        };
        let column = self.columns.iter().find(|column| column.path == *path)?;
        let data_type = column.field.data_type();
        let is_ordered = data_type.is_integer()
            || matches!(
                data_type,
                DataType::Utf8
                    | DataType::Date32
                    | DataType::Timestamp(..)
                    | DataType::Decimal128(..)
            );
        (is_ordered && !is_json(&column.field)).then(|| (name.clone(), column))
    }
}

impl Bound {
    fn new(name: String, column: &Column, extreme: Extreme, comparison: &Expr) -> Option<Bound> {
        let columns = vec![column.clone()];
        Some(Bound {
            field: (name, column.field.data_type().clone()),
            extreme,
            comparison: compile(comparison, &Scope { columns }).ok()?,
        })
    }
}

/// The comparisons of extremes that a comparison of a field needs: all must be true for a value
/// that passes it. `is_first`: whether the field is the left operand. `None` if this does not
/// compare values by their order.
fn needed(op: BinaryOp, is_first: bool) -> Option<&'static [(Extreme, BinaryOp)]> {
    use Extreme::{Largest, Smallest};
    Some(match (op, is_first) {
        (BinaryOp::Eq, true) => &[(Smallest, BinaryOp::LtEq), (Largest, BinaryOp::GtEq)],
        (BinaryOp::Eq, false) => &[(Smallest, BinaryOp::GtEq), (Largest, BinaryOp::LtEq)],
        (BinaryOp::Lt, true) => &[(Smallest, BinaryOp::Lt)],
        (BinaryOp::LtEq, true) => &[(Smallest, BinaryOp::LtEq)],
        (BinaryOp::Gt, true) => &[(Largest, BinaryOp::Gt)],
        (BinaryOp::GtEq, true) => &[(Largest, BinaryOp::GtEq)],
        (BinaryOp::Lt, false) => &[(Largest, BinaryOp::Lt)],
        (BinaryOp::LtEq, false) => &[(Largest, BinaryOp::LtEq)],
        (BinaryOp::Gt, false) => &[(Smallest, BinaryOp::Gt)],
        (BinaryOp::GtEq, false) => &[(Smallest, BinaryOp::GtEq)],
        (BinaryOp::NotEq, _) => &[],
        _ => return None,
    })
}

/// Whether an expression is a constant, also of another type than its literal has.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Literal(_) => true,
        ExprKind::Cast { expr, .. } => matches!(expr.kind, ExprKind::Literal(_)),
        _ => false,
    }
}
