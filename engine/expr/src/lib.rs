//! SQL expressions onto Arrow, through DataFusion's expression crates.
//!
//! [`types`] has the names of types as users write them; [`demand`] finds out which type an
//! expression wants of each payload path; [`compile()`] turns an expression into something that can
//! be evaluated over Arrow columns; [`time`] writes times into path templates.
//!
//! What an expression means is SQL's, and DataFusion's where SQL leaves it open, with these
//! decisions:
//! - NULL is unknown. A division of whole numbers by zero, an overflow and a cast that fails are
//!   errors of the record; `try_cast` gives NULL.
//! - A path that nothing types is JSON (`types::json_field`). Passed on alone it stays as it is. In
//!   an operator or a function it is its text (a string without quotes and escapes, NULL for
//!   `null`), which is read as what it meets: `any = 12` reads a number, and a text that is none is
//!   an error of the record.
//! - Constants take the type of what they meet once, at compile time; a text that is no such value
//!   (`status = 'ok'`) is a mistake in the file. Text and numbers that are not constants are not
//!   compared without a cast.
//! - Lists count from 0. Timestamps are in UTC. `now()` is the time at which the batch is looked
//!   at.
//! - `and`, `or` and `case` need not compute what cannot matter for a row, but only `case` promises
//!   that.

pub mod compile;
pub mod demand;
mod function;
mod growth;
mod json;
mod length;
mod nested;
mod operand;
mod operator;
pub mod panics;
pub mod time;
pub mod types;

pub use compile::{Column, Compiled, Input, Scope, compile};
