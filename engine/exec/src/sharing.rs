//! Which splits of a source are this instance's to read, where instances share them through the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::{Claims, Round, SplitId, StateStore, StoreError};
use pseidon_plugin::source::SplitShare;

use crate::failure::Failure;

/// A lease is renewed that often before it runs out.
const RENEWALS: u32 = 3;

/// The claims of one source.
pub(crate) struct Sharing {
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
    /// Nothing is claimed yet.
    pub(crate) fn new(store: Arc<dyn StateStore>, source: String, owner: String, lease: Duration) -> Sharing {
        Sharing { store, source, owner, lease, held: HashSet::new(), total: 0, renew_at: None }
    }

    /// A round: claims what is free of the splits that were found, up to the fair share.
    pub(crate) fn share(&mut self, found: &[SplitId]) -> Result<SplitShare, Failure> {
        self.total = found.len();
        let wanted: Vec<SplitId> = found.iter().filter(|split| !self.held.contains(*split)).cloned().collect();
        let Some(claims) = self.round(&wanted)? else { return Ok(SplitShare::default()) };
        self.held.extend(claims.granted.iter().cloned());
        Ok(SplitShare { excess: self.held.len().saturating_sub(claims.fair_share), granted: claims.granted })
    }

    /// Renews the claims when it is time.
    pub(crate) fn renew(&mut self) -> Result<(), Failure> {
        if self.renew_at.is_some_and(|at| Instant::now() >= at) {
            self.round(&[])?;
        }
        Ok(())
    }

    /// A round with the store; `None` if it does not answer now. Then the claims may run out, and epochs keep the records safe.
    fn round(&mut self, wanted: &[SplitId]) -> Result<Option<Claims>, Failure> {
        let held: Vec<SplitId> = self.held.iter().cloned().collect();
        let round = Round { owner: &self.owner, lease: self.lease, held: &held, wanted, total: self.total };
        let claims = match self.store.claim(&self.source, &round) {
            Ok(claims) => claims,
            Err(StoreError::Unavailable(_)) => return Ok(None),
            Err(StoreError::Failed(reason)) => return Err(Failure::State(reason)),
        };
        self.renew_at = Some(Instant::now() + self.lease / RENEWALS);
        if let Some(lost) = claims.lost.first() {
            return Err(Failure::Fenced(format!("another instance has claimed {lost}: this one was silent for longer than :lease")));
        }
        Ok(Some(claims))
    }

    /// These splits are given back.
    pub(crate) fn release(&mut self, splits: &[SplitId]) {
        let given_back: Vec<SplitId> = splits.iter().filter(|split| self.held.remove(*split)).cloned().collect();
        self.unclaim(&given_back, false);
    }

    fn unclaim(&self, splits: &[SplitId], leaves: bool) {
        if splits.is_empty() && !leaves {
            return;
        }
        // Where the store does not hear of it, the lease runs out.
        if let Err(error) = self.store.unclaim(&self.source, splits, &self.owner, leaves) {
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
