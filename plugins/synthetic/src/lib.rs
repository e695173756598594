//! Synthetic input and output: the source `generate`, which creates records, and the sink `drop`,
//! which discards them. Both are for trying out pipelines and for measuring them.

#![forbid(unsafe_code)]

pub mod discard;
pub mod generate;

pub use discard::DropPlugin;
pub use generate::{GeneratePlugin, NumberExpr, Pace};
