//! Constants beside a uint64 in `& | #`: they are uint64 too, as in `flags & ~4`.
//!
//! An integer alone is simply cast. But the bits of `~4` and of `1 << 63` depend on the type in which
//! they are computed, so the type of the other operand must be known before they are compiled.

use arrow::datatypes::DataType;
use pseidon_dsl::expr::{BinaryOp, Expr, ExprKind, Literal, UnaryOp};

use super::Compiler;
use crate::operand::Operand;

impl Compiler<'_> {
    /// Compiles the operands of an operator. Both are compiled before an error returns.
    pub(super) fn pair(
        &mut self,
        left: &Expr,
        op: BinaryOp,
        right: &Expr,
    ) -> Option<(Operand, Operand)> {
        if is_bitwise(op) && is_constant(left) {
            let right = self.operand(right);
            let left = self.operand_beside(left, right.as_ref());
            return left.zip(right);
        }
        let left = self.operand(left);
        let right = match is_bitwise(op) && is_constant(right) {
            true => self.operand_beside(right, left.as_ref()),
            false => self.operand(right),
        };
        left.zip(right)
    }

    /// A constant beside another operand.
    fn operand_beside(&mut self, constant: &Expr, other: Option<&Operand>) -> Option<Operand> {
        if other.is_none_or(|other| other.data_type != DataType::UInt64) {
            return self.operand(constant);
        }
        let mut constant = constant.clone();
        make_unsigned(&mut constant);
        self.operand(&constant)
    }
}

fn is_bitwise(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor)
}

/// Whether these are operators of bits on integers without a type. How many bits are shifted may be
/// any expression.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Literal(Literal::Int(value)) => *value >= 0,
        ExprKind::Unary(UnaryOp::BitNot, operand) => is_constant(operand),
        ExprKind::Binary(left, BinaryOp::ShiftLeft | BinaryOp::ShiftRight, _) => is_constant(left),
        ExprKind::Binary(left, op, right) => {
            is_bitwise(*op) && is_constant(left) && is_constant(right)
        }
        _ => false,
    }
}

/// Makes the integers of a constant uint64.
fn make_unsigned(constant: &mut Expr) {
    match &mut constant.kind {
        ExprKind::Literal(literal) => {
            if let Literal::Int(value) = *literal {
                *literal = Literal::UInt(value.unsigned_abs());
            }
        }
        ExprKind::Unary(_, operand) => make_unsigned(operand),
        ExprKind::Binary(left, op, right) => {
            make_unsigned(left);
            if is_bitwise(*op) {
                make_unsigned(right);
            }
        }
        _ => {}
    }
}
