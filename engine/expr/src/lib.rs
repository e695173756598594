//! A compiler from SQL expressions to Arrow kernels, built on DataFusion's expression crates.
//!
//! [`types`] defines the names of types as users write them. [`demand`] finds the type that an
//! expression requires of each payload path. [`compile()`] compiles an expression for evaluation
//! over Arrow columns. [`bounds`] shows which groups of rows a condition excludes. [`aggregate`]
//! computes aggregate functions over groups of rows. [`time`] formats times for path templates,
//! [`unnest`] returns the elements of lists, [`floats`] finds numbers that are too large for a
//! float, and [`ranges`] values that are outside of their type.
//!
//! Expressions have the semantics of SQL, and those of DataFusion where SQL leaves a choice, with
//! these decisions:
//! - NULL means unknown. An integer division by zero, an overflow and a failed cast are errors of
//!   the record. `try_cast` returns NULL instead.
//! - A path without a known type is JSON (`types::json_field`). Selected alone, it is passed on
//!   unchanged. In an operator or a function it is converted to a string (without quotes and
//!   escapes, NULL for `null`), which is then cast to the type of the other operands: `any + 0.5`
//!   casts it to a number, and a value that is not a number is an error of the record. Computed with
//!   an integer or another such value, it stays JSON, and each value decides whether the result is
//!   an integer.
//! - Comparing such a value is never an error. It is compared in the type of the other operand:
//!   with a number as a number, whatever its digits, and a value that is not of this type is NULL.
//!   Two of them are compared as numbers if both are JSON numbers, else as strings.
//! - A constant is cast once, at compile time, to the type of the other operands. A string that is
//!   not a valid value of that type (`status = 'ok'`) is an error in the file. Strings and numbers
//!   that are not constants are not compared without a cast.
//! - List indexes start at 0. Timestamps are in UTC. `now()` is the time at which the batch is
//!   evaluated.
//! - `& | # ~ << >>` compute with int64, or with uint64 if an operand is one, which the integers in
//!   `flags & ~4` and `flags & (1 << 63)` then are too. A number of bits that is negative
//!   or not less than 64 is an error of the record; bits that are shifted out are lost.
//! - A constant fraction beside a decimal is a decimal with its digits. A float and a decimal are
//!   combined as floats.
//! - Rounding a JSON value, and alternatives to one that are numbers, leave each value its kind.
//! - As text, lists and structs are JSON.
//! - `and`, `or` and `case` may skip operands that cannot affect the result for a row, but only
//!   `case` guarantees that.

#![forbid(unsafe_code)]

pub mod aggregate;
mod arithmetic;
mod bits;
pub mod bounds;
mod comparison;
pub mod compile;
mod constants;
mod decimal;
pub mod demand;
mod equality;
pub mod floats;
mod function;
mod growth;
mod intervals;
mod json;
mod length;
mod names;
mod nested;
pub mod new_fields;
mod operand;
mod operator;
pub mod panics;
pub mod ranges;
mod scalar;
pub mod time;
pub mod types;
pub mod unnest;

pub use compile::{Column, CompiledExpr, Input, Scope, compile};
pub use function::{FunctionExample, FunctionReference, at_one_time, functions};
pub use json::text_of as json_text;
pub use names::function_names;
