//! Damage: the place at which a file cannot be read further, as a record in the quarantine.
//!
//! The file itself stays where it is: other programs may read it, the process may not be allowed to
//! change its folder, and a file that is repaired in place is continued where reading stopped. So
//! the quarantine gets a record without content, with the reason, the path and the position.
//!
//! The record has a split of its own, whose name contains the file's split and the position, and
//! which has no other record. A run that finds the same damage again takes this split over, and
//! finds it finished. The positions of the file's own split do not depend on it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pseidon_delivery::{Position, Reason, SplitId, WithCauses};
use pseidon_plugin::batch::{NO_PAYLOAD, SplitEnd};
use pseidon_plugin::source::{SourceHandle, Stopped};
use pseidon_plugin::{Batch, Payloads, Split};

use super::identity::{FileKey, file_id, file_of, path_id};

/// A file that cannot be read further.
pub(super) struct Damage {
    split: Arc<Split>,
    position: Position,
    reason: String,
}

/// Whether the split is that of a record in the quarantine, and not that of a file.
pub(super) fn is_damage(split: &SplitId) -> bool {
    let file = file_of(split).len();
    split.as_str()[file..].contains('!')
}

impl Damage {
    /// The damage of a file that is read as this split, at this position.
    pub(super) fn of_split(file: &Split, position: Position, reason: &Reason) -> Damage {
        let id = SplitId::from(format!("{}!{position}", file.id));
        Damage::new(id, file.topic.clone(), position, reason)
    }

    /// The damage of a file or a folder of which nothing can be read.
    pub(super) fn of_path(stage: &str, path: &Path, topic: String, reason: &Reason) -> Damage {
        let file = match fs::metadata(path) {
            Ok(metadata) => file_id(stage, &FileKey::of(&metadata)),
            Err(_) => path_id(stage, path),
        };
        Damage::new(SplitId::from(format!("{file}.!0")), topic, 0, reason)
    }

    fn new(id: SplitId, topic: String, position: Position, reason: &Reason) -> Damage {
        let partition = 0;
        let split = Arc::new(Split {
            id,
            topic,
            partition,
        });
        Damage {
            split,
            position,
            reason: WithCauses(reason).to_string(),
        }
    }

    /// The split of the record in the quarantine.
    pub(super) fn split(&self) -> &SplitId {
        &self.split.id
    }

    /// Quarantines the record, unless an earlier run has. It is committed when this returns. The
    /// caller holds the file's split, or was granted [`Damage::split`].
    pub(super) fn quarantine(&self, handle: &SourceHandle) -> Result<(), Stopped> {
        let split = &self.split;
        let known = handle.take(vec![split.clone()])?.pop().flatten();
        if !known.is_some_and(|known| known.is_finished) {
            handle.begin(vec![(split.clone(), self.position)])?;
            handle.emit(self.record())?;
        }
        handle.release(vec![split.clone()])
    }

    /// The only batch of the split.
    fn record(&self) -> Batch {
        let payloads = Payloads::new(Bytes::new(), [(0, NO_PAYLOAD)], false);
        let (split, next) = (self.split.clone(), self.position.saturating_add(1));
        let mut batch = Batch::from_payloads(split, payloads, vec![self.position], next);
        batch.invalid = vec![(0, self.reason.clone())];
        batch.end = Some(SplitEnd::Read);
        batch
    }
}
