//! The limit for what open lanes buffer.

use pseidon_delivery::LaneId;
use pseidon_plugin::lane::Room;
use pseidon_plugin::sink::SinkError;

use super::failed::without_panic;
use super::{Lanes, SEALED_AT_ONCE};

impl Lanes {
    /// Frees memory until the limit is met: the largest buffers are written out first; if that is
    /// not enough, lanes are sealed.
    pub(super) fn free_memory(&mut self) -> Result<(), SinkError> {
        if !self.has_too_much() {
            return Ok(());
        }
        let mut by_size: Vec<(usize, LaneId)> = self
            .open
            .iter()
            .map(|(lane, open)| (open.memory, lane.clone()))
            .collect();
        by_size.sort_by(|one, other| other.cmp(one));
        for (_, lane) in by_size {
            let Some(open) = self.open.get_mut(&lane) else {
                continue;
            };
            let room = match without_panic(|| open.lane.shed()) {
                Ok(room) => room,
                Err(error) => {
                    let accepted = open.ranges();
                    return Err(self.note_failed(&lane, accepted, None, error));
                }
            };
            self.memory -= open.memory;
            open.memory = open.lane.memory();
            self.memory += open.memory;
            if let Room::Blocked(reason) = room {
                self.backoff.block(&reason);
                return Ok(());
            }
            if !self.has_too_much() {
                return Ok(());
            }
        }
        while self.has_too_much() && self.open.len() > 1 && !self.sealed.are_stuck() {
            if !self.seal_oldest((self.open.len() / SEALED_AT_ONCE).max(1), None)? {
                break;
            }
            self.commit_if_many()?;
        }
        Ok(())
    }

    fn has_too_much(&mut self) -> bool {
        self.share.set(self.memory);
        self.share.is_too_much()
    }
}
