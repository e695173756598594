//! Text to document: the language of pipeline files.
//!
//! A pipeline file is EDN, or the same map in TOML. Reading it is a chain of small steps, each of
//! which keeps the place every piece came from, so that a mistake found at any later time can be
//! shown in the user's own text:
//!
//! 1. [`edn`] or [`toml`] turns the text into [`Node`]s.
//! 2. [`document`] gives the top-level map its meaning: settings, stages, the flow, the tests.
//! 3. [`interpolate`] fills in `${env:NAME}`, by the caller's own lookup.
//! 4. [`expr`] reads the SQL expressions inside stages, [`template`] the path templates, [`units`]
//!    sizes and durations.
//!
//! [`diagnostic`] draws the mistakes, [`print`](mod@print) writes EDN. [`legacy`] turns the files
//! of older systems into pipeline files.
//!
//! This crate does no I/O and knows no connector: whether `kafka` exists and which options it takes
//! is `pseidon-plan`'s business.

pub mod diagnostic;
pub mod document;
pub mod edn;
pub mod expr;
mod grammar;
pub mod interpolate;
pub mod legacy;
mod nearest;
pub mod node;
pub mod print;
pub mod span;
pub mod template;
pub mod toml;
pub mod units;

pub use diagnostic::Diagnostic;
pub use document::{Call, Document, Flow, Stage};
pub use nearest::nearest;
pub use node::{Name, Node, NodeKind};
pub use span::Span;
