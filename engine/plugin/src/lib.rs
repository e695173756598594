//! The plugin interface: how a plugin declares itself, and what the engine provides to it.
//!
//! A plugin declares itself with a [`PluginSpec`], and its options as a struct that derives
//! [`Options`](options::Options). Parsing, checks, defaults and the reference pages are all derived
//! from these declarations. The planner finds plugins in a [`PluginRegistry`] and configures
//! [stages](stage) of them.
//!
//! - A [`Source`](source::Source) emits [`Batch`]es: consecutive records of one split, their bytes
//!   in one shared buffer.
//! - A [`Format`](format::Format) decodes the fields that the plan needs, and only those, into
//!   Arrow columns.
//! - A [`Sink`](sink::Sink) decides which lane each of the [`Rows`] goes to, and opens
//!   [`Lane`](lane::Lane)s, which the engine fills, seals, commits and publishes.
//!
//! The engine's side of these interfaces (threads, queues, order, commits) is `pseidon-exec`.

#![forbid(unsafe_code)]

// The code that the derive macros generate names this crate.
extern crate self as pseidon_plugin;

pub mod batch;
pub mod budget;
pub mod format;
pub mod framing;
pub mod group;
pub mod lane;
pub mod memory;
pub mod metrics;
pub mod options;
pub mod outbox;
pub mod places;
pub mod raw_headers;
pub mod registry;
pub mod rollover;
pub mod rows;
pub mod secret;
pub mod sink;
pub mod source;
pub mod spec;
pub mod stage;
pub mod stop;
pub mod threads;
pub mod unchecked;
pub mod waiting;

pub use batch::{Batch, BatchBuilder, Payloads, Split};
pub use budget::{Budget, LaneMemory};
pub use outbox::Outbox;
pub use registry::PluginRegistry;
pub use rows::{BadRow, Rows};
pub use secret::Secret;
pub use spec::{OptionKind, OptionSpec, PluginSpec};
pub use stop::{Pause, Stop};
