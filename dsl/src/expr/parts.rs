//! The operands of an expression.

use super::{Expr, ExprKind};

/// The operands of a form, in the order in which they are written. The last three arguments are the
/// methods that turn a box, an option and a vector into references, shared or mutable.
macro_rules! parts {
    ($kind:expr, $as_ref:ident, $as_deref:ident, $iter:ident) => {
        match $kind {
            ExprKind::Literal(_) | ExprKind::Path(_) | ExprKind::Meta(_) => Vec::new(),
            ExprKind::Unary(_, expr) | ExprKind::Is { expr, .. } | ExprKind::Cast { expr, .. } => {
                vec![expr.$as_ref()]
            }
            ExprKind::Binary(left, _, right) => vec![left.$as_ref(), right.$as_ref()],
            ExprKind::Between {
                expr, low, high, ..
            } => vec![expr.$as_ref(), low.$as_ref(), high.$as_ref()],
            ExprKind::In { expr, list, .. } => std::iter::once(expr.$as_ref())
                .chain(list.$iter())
                .collect(),
            ExprKind::Like { expr, pattern, .. } => vec![expr.$as_ref(), pattern.$as_ref()],
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => operand
                .$as_deref()
                .into_iter()
                .chain(whens.$iter().flat_map(|(when, then)| [when, then]))
                .chain(otherwise.$as_deref())
                .collect(),
            ExprKind::Call { args, .. } => args.$iter().collect(),
        }
    };
}

impl Expr {
    /// The operands, in the order in which they are written.
    pub fn parts(&self) -> Vec<&Expr> {
        parts!(&self.kind, as_ref, as_deref, iter)
    }

    /// Like [`Expr::parts`], to change them.
    pub fn parts_mut(&mut self) -> Vec<&mut Expr> {
        parts!(&mut self.kind, as_mut, as_deref_mut, iter_mut)
    }
}
