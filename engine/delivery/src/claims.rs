//! Distributing the splits of a source that has no group protocol of its own.
//!
//! Instances that read the same folder, or the same table, agree in the store on which instance
//! reads which split: a **claim** belongs to one instance until its **lease** expires, and each
//! instance claims no more than its fair share. Claims only avoid duplicate work. Exactly-once
//! delivery rests on the epochs: an instance whose claim expired while it was frozen is fenced like
//! any other, so a wrong clock costs extra reading and never a record.

use std::time::Duration;

use crate::{InstanceId, SplitId};

/// The request of an instance in one round of distribution. A round also renews its claims.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRound<'a> {
    /// The requesting instance, as in [`Claimant::owner`](crate::Claimant::owner).
    pub owner: &'a InstanceId,
    /// How long its claims last without another round.
    pub lease: Duration,
    /// The splits that it holds.
    pub held: &'a [SplitId],
    /// Further splits that it would read, in order of preference.
    pub wanted: &'a [SplitId],
    /// The number of splits to distribute, including those of other instances.
    pub total: usize,
}

/// The result of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// How many splits the instance should hold at most, so that every instance gets its share.
    pub fair_share: usize,
    /// The wanted splits that the instance holds now.
    pub granted: Vec<SplitId>,
    /// Splits that it held and that another instance has claimed meanwhile.
    pub lost: Vec<SplitId>,
}

impl Claims {
    /// Grants everything that was wanted: for a store that belongs to one process.
    pub fn all(round: &ClaimRound<'_>) -> Claims {
        Claims {
            fair_share: usize::MAX,
            granted: round.wanted.to_vec(),
            lost: Vec::new(),
        }
    }
}
