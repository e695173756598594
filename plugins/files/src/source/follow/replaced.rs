//! Plain files that replace others, with `:on-replaced-file :continue`.
//!
//! The file that is gone is read to its end through its open handle, and released. Then the state
//! has its last position, at which the new file is continued. Until then the new file waits, as
//! long as it begins with the same bytes.

use std::collections::HashSet;

use pseidon_delivery::SplitId;
use pseidon_plugin::source::Stopped;

use super::super::identity::FileKey;
use super::super::recognition::{Continuation, assign, head_of};
use super::super::tail::Mark;
use super::Follower;
use super::candidate::Candidate;

impl Follower<'_> {
    /// Looks up each new plain file, one of `new`, that the state may know as a file that is gone.
    /// Removes those that wait. `copies` are compressed files, which may continue such a file too.
    pub(super) fn recognize_replaced(
        &mut self,
        candidates: &mut Vec<Candidate>,
        new: &HashSet<FileKey>,
        copies: &[Candidate],
    ) -> Result<(), Stopped> {
        candidates.retain(|file| !new.contains(&file.key) || !self.waits_for_replaced(file));
        let of_new = candidates.iter().filter(|file| new.contains(&file.key));
        let heads: HashSet<String> = of_new.map(|file| file.head.to_string()).collect();
        if heads.is_empty() {
            return Ok(());
        }
        let mut known = self.known_files(move |_, head| heads.contains(head))?;
        let taken = |split: &SplitId| {
            let mut used = copies.iter().flat_map(|copy| [&copy.known_as, &copy.ended]);
            used.any(|used| used.as_ref() == Some(split))
        };
        known.retain(|entry| !taken(&entry.split));
        let mut matches = Vec::new();
        for (index, file) in candidates.iter().enumerate() {
            if !new.contains(&file.key) {
                continue;
            }
            let head = file.head.to_string();
            let entries = known.iter().filter(|entry| entry.head() == head);
            let found = entries.filter_map(|entry| self.match_of(file, entry, candidates));
            matches.extend(found.map(|it| (index, it)));
        }
        for (index, continuation) in assign(matches) {
            let file = &mut candidates[index];
            match continuation {
                Continuation::As(split) => file.known_as = Some(split),
                Continuation::From(position, split) => {
                    (file.starts_at, file.ended) = (position, Some(split));
                }
                // The file that began alike is still there, so this one is another file.
                Continuation::After(_) => {}
            }
        }
        Ok(())
    }

    /// Whether this file begins with what was read of one that is gone and still followed. That one
    /// is given up as soon as it is read to its end.
    fn waits_for_replaced(&mut self, file: &Candidate) -> bool {
        let (scan, head) = (self.scans, file.head.to_string());
        let Ok(Some(content)) = file.open() else {
            return false;
        };
        let begins_with = |mark: Mark| match mark.upto() {
            // Nothing was read of it yet.
            0 => true,
            _ => mark.covers_all() && mark.is_in(&content).unwrap_or(false),
        };
        let mut tracked = self.tracked.values_mut();
        let replaced = tracked.find(|tracked| {
            let is_gone = !tracked.was_seen_in(scan) && head_of(&tracked.split().id) == head;
            is_gone && tracked.mark().is_some_and(begins_with)
        });
        let Some(replaced) = replaced else {
            return false;
        };
        replaced.give_up();
        self.waits_for_copies = true;
        true
    }
}
