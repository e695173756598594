//! Standard input and output: the source `stdin` and the sink `stdout`.
//!
//! With them a pipeline stands in a shell's pipe like any other tool: it ends when its input ends,
//! and it ends without a word when whoever reads its output has had enough (`pseidon run … |
//! head`).

mod poll;
pub mod stdin;
pub mod stdout;

pub use stdin::StdinPlugin;
pub use stdout::StdoutPlugin;
