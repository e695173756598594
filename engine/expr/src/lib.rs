//! SQL expressions onto Arrow, through DataFusion's expression crates.
//!
//! [`types`] has the names of types as users write them; [`demand`] finds out which type an expression wants of each payload path;
//! [`compile`] turns an expression into something that can be evaluated over Arrow columns.

pub mod compile;
pub mod demand;
mod function;
mod json;
mod length;
mod nested;
mod operand;
mod operator;
pub mod time;
pub mod types;

pub use compile::{Column, Compiled, Input, Scope, compile};
