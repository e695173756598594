//! The planner: from a parsed document to an executable plan.
//!
//! A [`Document`](pseidon_dsl::Document) is what the user wrote; a [`Plan`] is what a run executes.
//! Planning has five steps, each in its own module. All errors of all steps are reported together,
//! in the user's text:
//!
//! 1. [`resolve`] replaces names by plugins and arguments by checked options, and turns the flow
//!    into chains that each begin with a source.
//! 2. [`columns`] collects the payload paths that are used anywhere, and their types. Only these
//!    are decoded.
//! 3. `compile` turns these chains into the [`chain`]s of the plan: it compiles expressions and
//!    prepares each sink for the columns that reach it.
//! 4. [`guarantee`] computes the delivery guarantee of every path from a source to a sink, with
//!    reasons.
//! 5. [`fingerprint`] computes a digest of everything that determines lanes and their contents, by
//!    which a changed plan is detected after a crash.
//!
//! [`replay`] restricts a planned flow to what quarantined records have to pass.

#![forbid(unsafe_code)]

pub mod chain;
pub mod columns;
pub mod edits;
pub mod fingerprint;
pub mod guarantee;
pub mod index;
pub mod percent;
pub mod quarantine;
pub mod rate;
pub mod replay;
pub mod resolve;
pub mod sample;
pub mod settings;
pub mod tables;
pub mod transforms;

mod compile;
mod errors;
mod group;
mod in_place;
mod lookup;
mod parse;
mod plan;
mod prepare;
mod unnest;

pub use chain::{Chain, ChainStep, Operator, PlannedSink, PlannedSource};
pub use guarantee::{Guarantee, PathGuarantee};
pub use index::{PerSink, SinkIndex, SourceIndex};
pub use lookup::LookupTable;
pub use plan::{Plan, PlanContext, StoredText, plan};
pub use prepare::SchemaInference;
pub use settings::{MaxInvalid, Settings};
pub use tables::{PlannedTable, Table, TableCache, TableReader};
