//! The execution engine: runs a plan.
//!
//! A record passes the modules in this order:
//!
//! 1. `run` and `lifecycle`: attempts at running the plan, one after another, until one completes.
//!    After a temporary failure, or after the loss of splits to another instance, the next attempt
//!    starts from the state in the store.
//!    An attempt reads the sources of the file first, and then, in a phase for each, the results of
//!    `group`s.
//! 2. `intake`: handles the events of each source in order: splits are distributed ([`sharing`]),
//!    taken over ([`takeover`]) and released; batches are numbered and queued.
//! 3. `etl`: threads take batches from the `queue`, in any order, decode them and pass them through
//!    the whole chain ([`process`]).
//! 4. `order`: the results are put back in order for each split, entered into the sinks' ledgers
//!    ([`dispatch`]) and handed to writers.
//! 5. `writers`: threads that fill the sinks' open [`lanes`], seal and commit them.
//!
//! All threads except those of sources belong to [`Pools`], which runs may share: the threads of 3
//! and 5 (`resources`), one that watches all runs (`watch`), and threads for other work that may
//! block (`blocking`), such as 2. A [`View`] shows a run to an observer.
//!
//! The engine uses plain threads and channels. One memory budget bounds what is in flight: sources
//! pause when it is used up.

#![forbid(unsafe_code)]

mod actor;
mod answer;
mod attempt;
mod bad_records;
mod blocking;
mod catch_up;
mod control;
mod culprits;
pub mod dispatch;
mod etl;
mod failure;
mod fields;
mod instance;
mod intake;
pub mod lanes;
mod lifecycle;
mod limits;
mod opening;
mod order;
mod outcome;
mod pools;
pub mod process;
mod quarantined;
mod queue;
mod resources;
mod restarts;
mod run;
mod running;
mod setup;
pub mod sharing;
mod state_check;
mod sync;
pub mod takeover;
mod tap;
mod throttles;
mod view;
mod watch;
mod writers;

pub use bad_records::{BadRecordExample, BadRecordReason, BadRecordReasons, RecentBadRecord};
pub use control::Control;
pub use failure::PlanChanged;
pub use fields::MissingField;
pub use fields::added::AddedFields;
pub use outcome::{Finished, RunError};
pub use pools::Pools;
pub use run::Run;
pub use view::{Pulse, SinkPositions, View};
