//! Running a plan.
//!
//! A reader follows a record from the top to the bottom of this list:
//!
//! 1. [`run`] and `course`: attempts at running the plan, one after another, until one comes to its
//!    end; a failure that may pass, or splits that were lost to another instance, start the next
//!    attempt from what the store has.
//! 2. `intake`: the events of each source are taken in their order: splits are shared with other
//!    instances ([`sharing`]), taken over ([`takeover`]) and given back, batches numbered and
//!    queued.
//! 3. `etl`: threads take batches from the `queue`, in any order, decode them and take them through
//!    the whole chain ([`process`]).
//! 4. `order`: what comes out is put back in order for each split, entered into the sinks' ledgers
//!    ([`dispatch`]) and handed to writers.
//! 5. `writers`: threads that fill the sinks' open [`lanes`], seal and commit them.
//!
//! All threads but those of sources belong to [`Pools`], which runs may share: those of 3 and 5,
//! one that watches all runs (`watch`), and some for all that may block beside that (`blocking`),
//! such as 2. [`View`] is a window onto a run.
//!
//! Everything here is plain threads and channels. What is in flight is bounded by one memory
//! budget: sources pause when it is used up.

mod actor;
mod answer;
mod attempt;
mod blocking;
mod course;
pub mod dispatch;
mod etl;
mod failure;
mod intake;
pub mod lanes;
mod opening;
mod order;
mod pools;
pub mod process;
mod queue;
mod restarts;
mod run;
mod running;
pub mod sharing;
mod sync;
pub mod takeover;
mod view;
mod watch;
mod writers;

pub use failure::PlanChanged;
pub use pools::Pools;
pub use view::{BadSeen, Pulse, SinkPositions, View};

pub use run::{Control, Finished, Run, RunError};
