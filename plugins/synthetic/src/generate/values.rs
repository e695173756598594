//! What an expression makes of record numbers.

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::Expr;
use pseidon_expr::{Compiled, Input, compile};

use super::numbers::{Draw, scope};

/// An expression over a record's number: `n`, and the values `r` and `h` that are drawn from it, as
/// the source `generate` offers them.
pub struct NumberExpr {
    compiled: Compiled,
    draw: Draw,
}

impl NumberExpr {
    /// Compiles the expression. Another seed gives other values of `r` and `h`.
    pub fn new(expr: &Expr, seed: u64) -> Result<NumberExpr, Vec<Diagnostic>> {
        let compiled = compile(expr, &scope())?;
        if compiled
            .inputs()
            .iter()
            .any(|input| matches!(input, Input::Meta(_)))
        {
            let mistake = Diagnostic::new(
                expr.span,
                "a record has no metadata before it is made",
                "expected n, r, h and constants only",
            );
            return Err(vec![mistake.with_help(
                "n is the record's number, r a random number in [0, 1), h a random whole number",
            )]);
        }
        Ok(NumberExpr {
            compiled,
            draw: Draw::new(seed),
        })
    }

    /// The value's type; its name is the expression's text.
    pub fn field(&self) -> &FieldRef {
        self.compiled.field()
    }

    /// Whether a number's value is always the same.
    pub fn is_deterministic(&self) -> bool {
        self.compiled.is_deterministic()
    }

    /// The values of these numbers. An error concerns at least one of them, or says that there are
    /// too many of them ([`ArrowError::MemoryError`]).
    pub fn evaluate(&self, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
        let inputs = self
            .compiled
            .inputs()
            .iter()
            .map(|input| self.input(input, numbers))
            .collect::<Result<_, _>>()?;
        self.compiled.evaluate(inputs, numbers.len())
    }

    fn input(&self, input: &Input, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
        let column = match input {
            Input::Column(column) => self.draw.column(*column, numbers),
            Input::Meta(_) => None,
        };
        column.ok_or_else(|| {
            ArrowError::InvalidArgumentError(
                "an input that no record has before it is made".to_owned(),
            )
        })
    }
}
