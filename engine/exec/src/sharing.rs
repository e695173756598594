//! Which splits of a source this instance may read, if instances share them through the store.
//!
//! The protocol simulation runs this code too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::{
    ClaimRound, Claims, InstanceId, Reason, SplitId, StateStore, StoreError, WithCauses,
};
use pseidon_plugin::source::SplitShare;
use thiserror::Error;

/// How many times a lease is renewed before it would expire.
const RENEWALS: u32 = 3;

/// Why an instance cannot continue to share.
#[derive(Debug, Error)]
pub enum SharingError {
    /// Another instance has claimed a split that this one holds.
    #[error("another instance has claimed {0}: this one was silent for longer than :lease")]
    Lost(SplitId),
    /// The store refuses the request.
    #[error(transparent)]
    Store(Reason),
}

/// The claims of one source. Dropping it releases them.
pub struct Sharing {
    store: Arc<dyn StateStore>,
    /// The stage of the source.
    source: String,
    /// This instance.
    owner: InstanceId,
    lease: Duration,
    held: HashSet<SplitId>,
    /// The number of splits to distribute.
    total: usize,
    /// When claims are renewed next; `None` for a source that is not shared.
    renew_at: Option<Instant>,
}

impl Sharing {
    /// Creates it without claims. `source` is the source's stage, and `owner` the instance.
    pub fn new(
        store: Arc<dyn StateStore>,
        source: String,
        owner: InstanceId,
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

    /// Runs a round: claims free ones of the found splits, up to the fair share.
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

    /// Renews the claims if it is time.
    pub fn renew(&mut self) -> Result<(), SharingError> {
        if self.renew_at.is_some_and(|at| Instant::now() >= at) {
            self.round(&[])?;
        }
        Ok(())
    }

    /// Runs a round in the store; `None` if it does not answer now. Then the claims may expire, and
    /// epochs keep the records safe.
    fn round(&mut self, wanted: &[SplitId]) -> Result<Option<Claims>, SharingError> {
        let held: Vec<SplitId> = self.held.iter().cloned().collect();
        let round = ClaimRound {
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

    /// Releases the claims of these splits.
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
        // If the store does not learn of it, the lease expires.
        if let Err(error) = self
            .store
            .unclaim(&self.source, splits, &self.owner, leaves)
        {
            tracing::debug!(
                source = self.source,
                error = %WithCauses(&error),
                "claims were not released; they will expire"
            );
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
