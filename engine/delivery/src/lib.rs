//! Exactly-once delivery: how no record is lost and no record is duplicated.
//!
//! The story, in the order in which a record lives through it:
//!
//! 1. A source reads a **split** (a partition of a topic, a file) whose records have
//!    [`Position`]s that never decrease ([`id`]).
//! 2. The instance that starts to read a split *takes* it: its **epoch** is raised in the
//!    [`store`], so that no earlier owner can commit any more, and its **commit record**
//!    ([`record`]) says where to read from.
//! 3. Records go into **lanes**: an open file of a bucket, a producer's transaction. The [`ledger`]
//!    of a sink tracks which positions of which split wait in which lane, and from that the *low*
//!    position: everything below it is durable.
//! 4. When a lane's records are durable where no reader looks yet, its [`Committer`] changes the
//!    commit records of all its splits in one atomic step, which fails if this instance no longer
//!    has the current epoch of one of them. Only then is the lane published.
//! 5. After a crash the commit records are the only input: the next instance publishes what they
//!    name, discards the rest, resumes reading at the low positions, and skips in each lane what
//!    the lane already holds.
//!
//! `docs/delivery.md` has the argument why this is exactly once; [`embedded`] is the store that
//! needs no server.

#![forbid(unsafe_code)]

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
pub mod operator;
pub mod random;
pub mod reason;
pub mod record;
pub mod scoped;
pub mod signed;
pub mod store;
pub mod unfinished;

pub use claims::{ClaimRound, Claims};
pub use committer::Committer;
pub use copies::position_in_target;
pub use group_commit::GroupCommit;
pub use id::{InstanceId, LaneId, Position, SinkId, SplitId, StagedId};
pub use ledger::Ledger;
pub use operator::{OperatorError, OperatorStore, SplitMove};
pub use reason::{Reason, WithCauses};
pub use record::{
    Claimant, Commit, CommitRecord, LaneCommit, ResumePoint, ResumeToken, SplitCommit, StagedEntry,
};
pub use scoped::ScopedStore;
pub use signed::{SignedStore, StateKey};
pub use store::{CommitError, StateStore, StoreError, StoredPlan};
pub use unfinished::{LeftWork, UnfinishedSplit, UnfinishedWork};
