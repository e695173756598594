//! The language of pipeline files: from text to [`Document`].
//!
//! A pipeline file is EDN, or the same map in TOML. It is parsed in small steps. Each step keeps
//! the source position of every piece, so that an error found in any later step can be shown in the
//! user's own text:
//!
//! 1. [`edn`] or [`toml`] parses the text into [`Node`]s.
//! 2. [`document`] interprets the top-level map: settings, stages, the flow, the tests. [`joined`]
//!    adds what the file includes.
//! 3. [`interpolate`] substitutes `${env:NAME}` with a lookup that the caller provides.
//! 4. [`expr`] parses the SQL expressions inside stages, and expands named ones, [`template`]
//!    parses the path templates, and [`units`] sizes and durations.
//!
//! [`diagnostic`] renders errors, and [`print`](mod@print) writes EDN; [`printable`](mod@printable)
//! escapes text from outside, and [`conceal`](mod@conceal) replaces the values that were
//! substituted. [`class`] recognizes the class names that older pipelines use as
//! stages.
//!
//! This crate does no I/O and does not depend on connectors. Whether `kafka` exists, and which
//! options it accepts, is checked in `pseidon-plan`.

#![forbid(unsafe_code)]

pub mod class;
pub mod conceal;
pub mod diagnostic;
pub mod document;
pub mod edn;
pub mod encoding;
mod escape;
pub mod expr;
pub mod filled_string;
mod grammar;
pub mod interpolate;
pub mod joined;
mod nearest;
pub mod node;
pub mod print;
pub mod printable;
pub mod span;
pub mod template;
pub mod toml;
pub mod units;

pub use diagnostic::Diagnostic;
pub use document::{Call, Document, Flow, Stage};
pub use nearest::nearest;
pub use node::{Name, Node, NodeKind};
pub use printable::printable;
pub use span::Span;
