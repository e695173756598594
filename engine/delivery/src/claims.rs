//! Sharing the splits of a source that has no group protocol of its own.
//!
//! Instances that read the same folder, or the same table, agree in the store on who reads which
//! split: a **claim** belongs to one instance until its **lease** runs out, and each instance
//! claims no more than its fair share. Claims only save work. What makes records exactly once are
//! the epochs: an instance whose claim ran out while it was frozen is fenced like any other, so a
//! wrong clock costs reading and never a record.

use std::time::Duration;

use crate::SplitId;

/// What an instance asks for in a round of sharing. A round also renews its claims.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The instance.
    pub owner: &'a str,
    /// How long its claims last without another round.
    pub lease: Duration,
    /// The splits that it holds.
    pub held: &'a [SplitId],
    /// Splits that it would read as well, in this order.
    pub wanted: &'a [SplitId],
    /// How many splits there are to share, with those of other instances.
    pub total: usize,
}

/// The outcome of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// How many splits the instance should hold at most, so that every instance has its part.
    pub fair_share: usize,
    /// Those of the wanted splits that the instance holds now.
    pub granted: Vec<SplitId>,
    /// Splits that it held and that another instance has claimed meanwhile.
    pub lost: Vec<SplitId>,
}

impl Claims {
    /// Everything that was wanted: for a store that belongs to one process.
    pub fn all(round: &Round<'_>) -> Claims {
        Claims {
            fair_share: usize::MAX,
            granted: round.wanted.to_vec(),
            lost: Vec::new(),
        }
    }
}
