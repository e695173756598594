//! Records out of nothing, and into nothing: the source `generate` and the sink `drop`, for trying
//! pipelines out and for measuring them.

pub mod discard;
pub mod generate;

pub use discard::DropPlugin;
pub use generate::{GeneratePlugin, NumberExpr, Pace};
