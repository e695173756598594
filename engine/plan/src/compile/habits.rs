//! Conditions that are valid and not meant: those of other languages.

use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{BinaryOp, Expr, ExprKind, Literal, Substitutions, UnaryOp};

/// The error for a condition, or a part of one that `and`, `or` and `not` combine, that has another
/// meaning here than in other languages.
pub(super) fn habit(condition: &Expr, text: &Substitutions) -> Option<Diagnostic> {
    match &condition.kind {
        ExprKind::Binary(left, BinaryOp::And | BinaryOp::Or, right) => {
            habit(left, text).or_else(|| habit(right, text))
        }
        ExprKind::Unary(UnaryOp::Not, inner) => habit(inner, text),
        ExprKind::Binary(left, op, right) if op.is_comparison() => {
            comparison(condition, (left, *op, right), text)
        }
        _ => None,
    }
}

fn comparison(
    whole: &Expr,
    (left, op, right): (&Expr, BinaryOp, &Expr),
    text: &Substitutions,
) -> Option<Diagnostic> {
    let is_null = |expr: &Expr| is_null(expr, text);
    let is_equality = matches!(op, BinaryOp::Eq | BinaryOp::NotEq);
    if is_equality && [left, right].iter().any(|side| is_null(side)) {
        let compared = if is_null(left) { right } else { left };
        let not = if op == BinaryOp::NotEq { "not " } else { "" };
        let message = "a comparison with `null` is never true";
        let error = Diagnostic::new(whole.span, message, "the result is NULL");
        return Some(error.with_help(format!("write `{compared} is {not}null`")));
    }
    match &right.kind {
        ExprKind::Unary(UnaryOp::BitNot, pattern) if op == BinaryOp::Eq && is_string(pattern) => {
            let message = "`=~` is not an operator";
            let error = Diagnostic::new(whole.span, message, "`~` inverts bits here");
            return Some(error.with_help(format!("write `{left} ~ {pattern}`")));
        }
        _ => {}
    }
    // `a = 1 || b = 2` is `(a = (1 || b)) = 2`.
    let ExprKind::Binary(first, inner, joined) = &left.kind else {
        return None;
    };
    let ExprKind::Binary(one, BinaryOp::Concat, other) = &joined.kind else {
        return None;
    };
    inner.is_comparison().then(|| {
        let error = Diagnostic::new(joined.span, "`||` joins strings", "not a condition");
        let (inner, op) = (inner.symbol(), op.symbol());
        error.with_help(format!(
            "write `{first} {inner} {one} or {other} {op} {right}`"
        ))
    })
}

/// Whether an expression is written as `null`. An invalid expression is replaced by one too.
fn is_null(expr: &Expr, text: &Substitutions) -> bool {
    matches!(expr.kind, ExprKind::Literal(Literal::Null))
        && text.written(expr.span).eq_ignore_ascii_case("null")
}

fn is_string(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Literal(Literal::Str(_)))
}
