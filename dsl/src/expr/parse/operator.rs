//! Operators: unary, binary, and the tests that follow their operand.

use pest::iterators::Pair;

use super::name::unquoted;
use super::operand::{fraction, is_integer};
use super::{ParsedExpr, Reader, leaf, null};
use crate::Span;
use crate::expr::grammar::Rule;
use crate::expr::{BinaryOp, Expr, ExprKind, IsPredicate, Literal, UnaryOp};

impl<'a> Reader<'a> {
    pub(super) fn unary(&self, op: &Pair<'a, Rule>, operand: ParsedExpr<'a>) -> ParsedExpr<'a> {
        let span = self.span(op).to(operand.expr.span);
        match (op.as_rule(), operand.number) {
            (Rule::not, _) => self.node(
                operand.levels,
                ExprKind::Unary(UnaryOp::Not, Box::new(operand.expr)),
                span,
            ),
            (Rule::bit_not, _) => self.node(
                operand.levels,
                ExprKind::Unary(UnaryOp::BitNot, Box::new(operand.expr)),
                span,
            ),
            (_, Some(digits)) => leaf(ExprKind::Literal(self.negative(digits, span)), span),
            (_, None) => self.node(
                operand.levels,
                ExprKind::Unary(UnaryOp::Neg, Box::new(operand.expr)),
                span,
            ),
        }
    }

    pub(super) fn binary(
        &self,
        left: ParsedExpr<'a>,
        op: &Pair<'a, Rule>,
        right: ParsedExpr<'a>,
    ) -> ParsedExpr<'a> {
        let op = match op.as_rule() {
            Rule::or => BinaryOp::Or,
            Rule::and => BinaryOp::And,
            Rule::eq => BinaryOp::Eq,
            Rule::not_eq => BinaryOp::NotEq,
            Rule::lt => BinaryOp::Lt,
            Rule::lt_eq => BinaryOp::LtEq,
            Rule::gt => BinaryOp::Gt,
            Rule::gt_eq => BinaryOp::GtEq,
            Rule::regex_match => BinaryOp::RegexMatch,
            Rule::regex_not_match => BinaryOp::RegexNotMatch,
            Rule::regex_imatch => BinaryOp::RegexIMatch,
            Rule::regex_not_imatch => BinaryOp::RegexNotIMatch,
            Rule::distinct => BinaryOp::Distinct,
            Rule::not_distinct => BinaryOp::NotDistinct,
            Rule::concat => BinaryOp::Concat,
            Rule::bit_and => BinaryOp::BitAnd,
            Rule::bit_or => BinaryOp::BitOr,
            Rule::bit_xor => BinaryOp::BitXor,
            Rule::shift_left => BinaryOp::ShiftLeft,
            Rule::shift_right => BinaryOp::ShiftRight,
            Rule::add => BinaryOp::Add,
            Rule::sub => BinaryOp::Sub,
            Rule::mul => BinaryOp::Mul,
            Rule::div => BinaryOp::Div,
            rule => {
                debug_assert_eq!(
                    rule,
                    Rule::rem,
                    "every other operator of the grammar has an arm above"
                );
                BinaryOp::Mod
            }
        };
        let span = left.expr.span.to(right.expr.span);
        self.node(
            left.levels.max(right.levels),
            ExprKind::Binary(Box::new(left.expr), op, Box::new(right.expr)),
            span,
        )
    }

    /// A test such as `is null`, or a cast with `::`.
    pub(super) fn postfix(&self, operand: ParsedExpr<'a>, op: Pair<'a, Rule>) -> ParsedExpr<'a> {
        let span = operand.expr.span.to(self.span(&op));
        let expr = Box::new(operand.expr);
        let (parts, part_levels) = self.inner_exprs(op.clone());
        let kind = match op.as_rule() {
            Rule::cast_to => Some(self.cast_to(expr, op)),
            Rule::is => Some(is(expr, op)),
            Rule::in_list => Some(ExprKind::In {
                expr,
                list: parts,
                negated: has(&op, Rule::not),
            }),
            Rule::like => self.like(expr, parts, &op),
            rule => {
                debug_assert_eq!(
                    rule,
                    Rule::between,
                    "every other postfix operator of the grammar has an arm above"
                );
                between(expr, parts, &op)
            }
        };
        match kind {
            Some(kind) => self.node(operand.levels.max(part_levels), kind, span),
            None => null(span),
        }
    }

    /// The negative number with these digits. A number that is too large has already been reported.
    fn negative(&self, digits: &str, span: Span) -> Literal {
        let text = format!("-{digits}");
        if let Ok(value) = text.parse() {
            return Literal::Int(value);
        }
        if !is_integer(digits) {
            let value = text.parse();
            return value.map_or(Literal::Null, |value| fraction(&text, value));
        }
        if digits.parse::<u64>().is_ok() {
            let label = format!("expected at least {}", i64::MIN);
            self.report(span, "integer too small", label);
        }
        Literal::Null
    }

    fn like(&self, expr: Box<Expr>, mut parts: Vec<Expr>, op: &Pair<'a, Rule>) -> Option<ExprKind> {
        let escape = op
            .clone()
            .into_inner()
            .find(|part| part.as_rule() == Rule::string);
        let escape = escape.and_then(|text| self.escape(&text));
        let pattern = parts.pop().map(Box::new)?;
        Some(ExprKind::Like {
            expr,
            pattern,
            escape,
            case_insensitive: has(op, Rule::kw_ilike),
            negated: has(op, Rule::not),
        })
    }

    /// The character in the string after `escape`.
    fn escape(&self, pair: &Pair<'a, Rule>) -> Option<char> {
        let value = unquoted(pair.as_str(), '\'');
        let mut characters = value.chars();
        let first = characters.next();
        if first.is_none() || characters.next().is_some() {
            self.report(
                self.span(pair),
                "`escape` requires a single character",
                "expected a string of one character",
            );
        }
        first
    }
}

fn has(op: &Pair<'_, Rule>, rule: Rule) -> bool {
    op.clone().into_inner().any(|part| part.as_rule() == rule)
}

fn is(expr: Box<Expr>, op: Pair<'_, Rule>) -> ExprKind {
    let negated = has(&op, Rule::not);
    let word = op.into_inner().last().map_or("", |last| last.as_str());
    let predicate = match word {
        word if word.eq_ignore_ascii_case("true") => IsPredicate::True,
        word if word.eq_ignore_ascii_case("false") => IsPredicate::False,
        _ => IsPredicate::Null,
    };
    ExprKind::Is {
        expr,
        predicate,
        negated,
    }
}

fn between(expr: Box<Expr>, mut parts: Vec<Expr>, op: &Pair<'_, Rule>) -> Option<ExprKind> {
    let high = parts.pop().map(Box::new)?;
    let low = parts.pop().map(Box::new)?;
    Some(ExprKind::Between {
        expr,
        low,
        high,
        negated: has(op, Rule::not),
    })
}
