//! The claims by which instances share splits: the answers of a store that several processes use.

use std::collections::BTreeMap;

use pseidon_delivery::{ClaimRound, Claims, InstanceId, SplitId};

/// The claims of one source. Times are on the store's clock, in milliseconds.
#[derive(Clone, Default)]
pub struct SharedSource {
    /// Until when each instance counts.
    members: BTreeMap<InstanceId, u64>,
    /// The owner of each split, and until when.
    claims: BTreeMap<SplitId, (InstanceId, u64)>,
}

impl SharedSource {
    /// [`StateStore::claim`](pseidon_delivery::StateStore::claim)
    pub fn claim(&mut self, round: &ClaimRound<'_>, now: u64) -> Claims {
        let until = now + round.lease.as_millis() as u64;
        self.members.retain(|_, until| *until > now);
        self.claims.retain(|_, (_, until)| *until > now);
        self.members.insert(round.owner.clone(), until);
        let mut claims = Claims {
            fair_share: round.total.div_ceil(self.members.len()),
            ..Claims::default()
        };
        let mut mine = 0;
        for (split, is_held) in round
            .held
            .iter()
            .map(|split| (split, true))
            .chain(round.wanted.iter().map(|split| (split, false)))
        {
            let is_free = self
                .claims
                .get(split)
                .is_none_or(|(owner, _)| owner == round.owner);
            let is_granted = is_free && (is_held || mine < claims.fair_share);
            if is_granted {
                self.claims
                    .insert(split.clone(), (round.owner.clone(), until));
                mine += 1;
            }
            match (is_held, is_granted) {
                (true, false) => claims.lost.push(split.clone()),
                (false, true) => claims.granted.push(split.clone()),
                _ => {}
            }
        }
        claims
    }

    /// Whether no other instance has the split.
    pub fn is_free_for(&self, owner: &InstanceId, split: &SplitId, now: u64) -> bool {
        self.claims
            .get(split)
            .is_none_or(|(holder, until)| holder == owner || *until <= now)
    }

    /// [`StateStore::unclaim`](pseidon_delivery::StateStore::unclaim)
    pub fn unclaim(&mut self, splits: &[SplitId], owner: &InstanceId, leaves: bool) {
        self.claims
            .retain(|split, (holder, _)| holder != owner || !splits.contains(split));
        if leaves {
            self.members.remove(owner);
        }
    }
}
