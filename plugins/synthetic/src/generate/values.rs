//! Expressions over record numbers.

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::Expr;
use pseidon_expr::{CompiledExpr, Input, compile};

use super::numbers::{RandomValues, scope};

/// An expression over a record's number: `n`, and the random values `r` and `h` that depend on it,
/// as the source `generate` provides them.
pub struct NumberExpr {
    compiled: CompiledExpr,
    random: RandomValues,
}

impl NumberExpr {
    /// Compiles the expression. Different seeds generate different values of `r` and `h`.
    pub fn new(expr: &Expr, seed: u64) -> Result<NumberExpr, Vec<Diagnostic>> {
        let compiled = compile(expr, &scope())?;
        if compiled
            .inputs()
            .iter()
            .any(|input| matches!(input, Input::Meta(_)))
        {
            let error = Diagnostic::new(
                expr.span,
                "metadata is not available to expressions that generate records",
                "expected n, r, h and constants only",
            );
            return Err(vec![error.with_help(
                "n is the record's number, r a random number in [0, 1), h a random integer",
            )]);
        }
        Ok(NumberExpr {
            compiled,
            random: RandomValues::new(seed),
        })
    }

    /// The type of the value. Its name is the expression's text.
    pub fn field(&self) -> &FieldRef {
        self.compiled.field()
    }

    /// Whether the value for a number is always the same.
    pub fn is_deterministic(&self) -> bool {
        self.compiled.is_deterministic()
    }

    /// Evaluates the expression for these numbers. An error is caused by at least one of them, or
    /// by evaluating too many at once ([`ArrowError::MemoryError`]).
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
            Input::Column(column) => self.random.column(*column, numbers),
            Input::Meta(_) => None,
        };
        column.ok_or_else(|| {
            ArrowError::InvalidArgumentError(
                "this input is not available to expressions that generate records".to_owned(),
            )
        })
    }
}
