//! From a document to a plan.
//!
//! A [`Document`](pseidon_dsl::Document) says what the user wrote; a [`Plan`] says what will be
//! done. Between them lie five steps, each a module, and every mistake that any of them finds is
//! shown in the user's text, all at once:
//!
//! 1. [`resolve`]: names become plugins, arguments become checked options, the flow becomes chains
//!    that each begin with a source.
//! 2. [`columns`]: which payload paths are named anywhere, and of which type each is. Only those
//!    are ever decoded.
//! 3. [`chain`]: expressions are compiled, sinks prepared for the columns that reach them.
//! 4. [`guarantee`]: what every path from a source to a sink delivers, and why.
//! 5. [`fingerprint`]: a digest of what decides lanes and contents, by which a changed plan is
//!    recognized after a crash.

pub mod chain;
pub mod columns;
pub mod fingerprint;
pub mod guarantee;
pub mod quarantine;
pub mod resolve;
pub mod settings;
pub mod transforms;

mod plan;

pub use chain::{Chain, Operator, PlannedSink, PlannedSource, Step};
pub use guarantee::{Guarantee, PathGuarantee};
pub use plan::{Context, Infer, Plan, plan};
pub use settings::Settings;
