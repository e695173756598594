//! Which splits of a source are this instance's to read, where instances share them through the
//! store.
//!
//! The simulation of the protocol runs this code too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::{Claims, Round, SplitId, StateStore, StoreError};
use pseidon_plugin::source::SplitShare;
use thiserror::Error;

/// A lease is renewed that often before it runs out.
const RENEWALS: u32 = 3;

/// Why an instance cannot go on sharing.
#[derive(Debug, Error)]
pub enum SharingError {
    /// Another instance has a split that this one holds.
    #[error("another instance has claimed {0}: this one was silent for longer than :lease")]
    Lost(SplitId),
    /// The store refuses.
    #[error("{0}")]
    Store(String),
}

/// The claims of one source. Dropping it gives them back.
pub struct Sharing {
    store: Arc<dyn StateStore>,
    /// The source's stage.
    source: String,
    /// The instance.
    owner: String,
    lease: Duration,
    held: HashSet<SplitId>,
    /// How many splits there are to share.
    total: usize,
    /// When claims are renewed next; `None` for a source that does not share.
    renew_at: Option<Instant>,
}

impl Sharing {
    /// Nothing is claimed yet. `source` is the source's stage, and `owner` the instance.
    pub fn new(
        store: Arc<dyn StateStore>,
        source: String,
        owner: String,
        lease: Duration,
    ) -> Sharing {
        Sharing {
            store,
            source,
            owner,
            lease,
            held: HashSet::new(),
            total: 0,
            renew_at: None,
        }
    }

    /// A round: claims what is free of the splits that were found, up to the fair share.
    pub fn share(&mut self, found: &[SplitId]) -> Result<SplitShare, SharingError> {
        self.total = found.len();
        let wanted: Vec<SplitId> = found
            .iter()
            .filter(|split| !self.held.contains(*split))
            .cloned()
            .collect();
        let Some(claims) = self.round(&wanted)? else {
            return Ok(SplitShare::default());
        };
        self.held.extend(claims.granted.iter().cloned());
        Ok(SplitShare {
            excess: self.held.len().saturating_sub(claims.fair_share),
            granted: claims.granted,
        })
    }

    /// Renews the claims when it is time.
    pub fn renew(&mut self) -> Result<(), SharingError> {
        if self.renew_at.is_some_and(|at| Instant::now() >= at) {
            self.round(&[])?;
        }
        Ok(())
    }

    /// A round with the store; `None` if it does not answer now. Then the claims may run out, and
    /// epochs keep the records safe.
    fn round(&mut self, wanted: &[SplitId]) -> Result<Option<Claims>, SharingError> {
        let held: Vec<SplitId> = self.held.iter().cloned().collect();
        let round = Round {
            owner: &self.owner,
            lease: self.lease,
            held: &held,
            wanted,
            total: self.total,
        };
        let claims = match self.store.claim(&self.source, &round) {
            Ok(claims) => claims,
            Err(StoreError::Unavailable(_)) => return Ok(None),
            Err(StoreError::Failed(reason)) => return Err(SharingError::Store(reason)),
        };
        self.renew_at = Some(Instant::now() + self.lease / RENEWALS);
        match claims.lost.first() {
            Some(lost) => Err(SharingError::Lost(lost.clone())),
            None => Ok(Some(claims)),
        }
    }

    /// These splits are given back.
    pub fn release(&mut self, splits: &[SplitId]) {
        let given_back: Vec<SplitId> = splits
            .iter()
            .filter(|split| self.held.remove(*split))
            .cloned()
            .collect();
        self.unclaim(&given_back, false);
    }

    fn unclaim(&self, splits: &[SplitId], leaves: bool) {
        if splits.is_empty() && !leaves {
            return;
        }
        // Where the store does not hear of it, the lease runs out.
        if let Err(error) = self
            .store
            .unclaim(&self.source, splits, &self.owner, leaves)
        {
            tracing::debug!(source = self.source, %error, "claims were not given back; they run out");
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if self.renew_at.is_some() {
            self.unclaim(&self.held.iter().cloned().collect::<Vec<_>>(), true);
        }
    }
}
