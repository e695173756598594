//! Standard input and output: the source `stdin` and the sink `stdout`.
//!
//! With them a pipeline works in a shell pipe like any other tool: it exits when its input ends,
//! and it exits without an error when the reader of its output closes the pipe (`pseidon run … |
//! head`).

#![forbid(unsafe_code)]

mod poll;
pub mod stdin;
pub mod stdout;

pub use stdin::StdinPlugin;
pub use stdout::StdoutPlugin;
