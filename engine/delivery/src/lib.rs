//! How nothing is lost and nothing is doubled.
//!
//! The story, in the order in which a record lives through it:
//!
//! 1. A source reads a **split** (a Kafka partition, a file) whose records have [`Position`]s that
//!    never decrease ([`id`]).
//! 2. Whoever starts to read a split *takes* it: its **epoch** is raised in the [`store`], so that
//!    everybody who had it before can no longer commit, and its **commit record** ([`record`]) says
//!    where to read from.
//! 3. Records go into **lanes**: an open file of a bucket, a producer's transaction. The [`ledger`]
//!    of a sink knows which positions of which split wait in which lane, and so the *low* position:
//!    everything below it is durable.
//! 4. When a lane's records are durable where no reader looks yet, its [`Committer`] changes the
//!    commit records of all its splits in one atomic step that fails if one epoch is not ours any
//!    more. Only then is the lane published.
//! 5. After a crash the record is all there is: publish what it names, throw away the rest, read on
//!    from the low positions, and skip in each lane what it already holds.
//!
//! `docs/delivery.md` has the argument why this is exactly once; [`embedded`] is the store that
//! needs no server.

pub mod claims;
pub mod committer;
#[cfg(feature = "conformance")]
pub mod conformance;
mod copies;
pub mod embedded;
pub mod failpoint;
pub mod group_commit;
pub mod id;
pub mod ledger;
pub mod random;
pub mod record;
pub mod scoped;
pub mod store;

pub use claims::{Claims, Round};
pub use committer::Committer;
pub use copies::position_in_target;
pub use group_commit::GroupCommit;
pub use id::{LaneId, Position, SinkId, SplitId};
pub use ledger::Ledger;
pub use record::{
    Claimant, Commit, CommitRecord, LaneCommit, Resume, ResumeFrom, SplitCommit, Staged,
};
pub use scoped::ScopedStore;
pub use store::{CommitError, StateStore, StoreError, StoredPlan};
