//! One function for each kind of node. `None` means that an error in a part was added.

use arrow::datatypes::DataType;
use datafusion_expr::Operator;
use pseidon_dsl::expr::{BinaryOp, Expr, IsPredicate, UnaryOp};
use pseidon_dsl::{Diagnostic, Span};

use super::{Compiler, cast, check_not_aggregate};
use crate::operand::Operand;
use crate::operator::LikeOptions;
use crate::{function, operator};

impl Compiler<'_> {
    pub(super) fn unary(
        &mut self,
        op: UnaryOp,
        operand: &Expr,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        Some(operator::unary(op, self.operand(operand)?, span))
    }

    pub(super) fn binary(
        &mut self,
        left: &Expr,
        op: BinaryOp,
        right: &Expr,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let (left, right) = self.pair(left, op, right)?;
        Some(operator::binary(left, op, right, span))
    }

    pub(super) fn between(
        &mut self,
        parts: [&Expr; 3],
        negated: bool,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let [operand, low, high] = parts.map(|part| self.operand(part));
        Some(operator::between(operand?, low?, high?, negated, span))
    }

    pub(super) fn is_in(
        &mut self,
        expr: &Expr,
        list: &[Expr],
        negated: bool,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let (operand, list) = (self.operand(expr), self.operands(list));
        let schema = self.schema();
        Some(operator::is_in(operand?, list?, negated, &schema, span))
    }

    pub(super) fn like(
        &mut self,
        expr: &Expr,
        pattern: &Expr,
        options: LikeOptions,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let (operand, pattern) = (self.operand(expr), self.operand(pattern));
        Some(operator::like(operand?, pattern?, options, span))
    }

    pub(super) fn is(
        &mut self,
        expr: &Expr,
        predicate: IsPredicate,
        negated: bool,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        Some(operator::is(self.operand(expr)?, predicate, negated, span))
    }

    pub(super) fn cast(
        &mut self,
        expr: &Expr,
        (to, to_span): (&str, Span),
        try_cast: bool,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let (operand, to) = (self.operand(expr), self.cast_type(to, to_span));
        Some(cast(operand?, &to?, try_cast, span))
    }

    pub(super) fn case(
        &mut self,
        operand: Option<&Expr>,
        whens: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        let operand = operand.map(|operand| self.operand(operand));
        let branches: Vec<_> = whens
            .iter()
            .map(|(when, then)| (self.operand(when), self.operand(then)))
            .collect();
        let otherwise = otherwise.map(|otherwise| self.operand(otherwise));
        let branches = branches.into_iter().map(|(when, then)| when.zip(then));
        let branches = branches.collect::<Option<Vec<_>>>()?;
        // An operand that was not written is valid.
        let operand = operand.map_or(Some(None), |operand| operand.map(Some))?;
        let otherwise = otherwise.map_or(Some(None), |otherwise| otherwise.map(Some))?;
        Some(operator::case(operand, branches, otherwise, span))
    }

    pub(super) fn call(
        &mut self,
        (name, name_span): (&str, Span),
        distinct: bool,
        args: &[Expr],
        span: Span,
    ) -> Option<Result<Operand, Diagnostic>> {
        self.value(check_not_aggregate(name, name_span, distinct))?;
        let args = self.operands(args);
        if function::CONDITIONAL.contains(&name) {
            return Some(operator::conditional(name, args?, span));
        }
        if function::is_of_values(name) {
            return Some(function::call_of_values(name, args?, span));
        }
        let function = self.value(function::find(name, name_span));
        let args = args?;
        let extreme = match name {
            "greatest" => Some(Operator::GtEq),
            "least" => Some(Operator::LtEq),
            _ => None,
        };
        let is_interval = |arg: &Operand| matches!(arg.data_type, DataType::Interval(_));
        if let Some(op) = extreme
            && args.iter().any(|arg| arg.json || is_interval(arg))
        {
            return Some(operator::extreme(op, args, span));
        }
        Some(function::call(name, function?, args, span))
    }
}
