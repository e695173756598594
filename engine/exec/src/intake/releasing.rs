//! How splits are released: what was read of them is committed before, and what was not read is left
//! as it was.

use pseidon_delivery::{CommitRecord, SplitId, failpoint};

use super::{CHECK_INTERVAL, Intake, SourceSplits};
use crate::failure::Failure;

impl Intake {
    /// Makes everything of these splits durable and releases them.
    pub(super) fn release(
        &self,
        ids: &[SplitId],
        splits: &mut SourceSplits,
    ) -> Result<(), Failure> {
        if let Some(catch_up) = &self.attempt.catch_up {
            ids.iter().for_each(|id| catch_up.release(id));
        }
        let unread: Vec<(SplitId, Vec<CommitRecord>)> = ids
            .iter()
            .filter_map(|id| splits.taken.remove_entry(id))
            .collect();
        let is_aside = |(id, _): &(SplitId, Vec<CommitRecord>)| splits.aside.contains(id);
        let (aside, held): (Vec<_>, Vec<_>) = unread.into_iter().partition(is_aside);
        ids.iter().for_each(|id| _ = splits.aside.remove(id));
        self.release_unbegun(&held)?;
        self.release_free(&aside)?;
        let unread = held.iter().chain(&aside);
        let unread: Vec<SplitId> = unread.map(|(split, _)| split.clone()).collect();
        splits.sharing.release(&unread);
        let mut read = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(split) = splits.open.remove(id) else {
                continue;
            };
            // Records that wait for a throttle may take long.
            while !split.wait_until_dispatched(CHECK_INTERVAL) {
                splits.sharing.renew()?;
                self.report_durable();
                self.check_caught_up();
                if self.attempt.stop.leaving_now() {
                    return Err(Failure::Stopped);
                }
                if self.attempt.stop.reading_stopped() {
                    self.queue.lift(self.attempt.id);
                }
            }
            read.push(id.clone());
        }
        let ids = read;
        if ids.is_empty() {
            return Ok(());
        }
        let sinks = &self.planned().sinks;
        let flushed = self.writers.flush(self.attempt.id, sinks, Some(&ids));
        loop {
            match flushed.wait_for(CHECK_INTERVAL) {
                Some(true) => break,
                // The failure that prevented it was reported already, and decides.
                Some(false) => return Err(Failure::Gone("what was read was not flushed")),
                None if self.attempt.stop.leaving_now() => return Err(Failure::Stopped),
                None => splits.sharing.renew()?,
            }
        }
        failpoint::reach("flushed");
        // What has become durable is passed on now, since nothing is known of these splits
        // afterwards.
        self.commit_idle()?;
        self.report_durable();
        for open in self.sinks() {
            open.committer.release(&ids)?;
        }
        splits.sharing.release(&ids);
        failpoint::reach("released");
        Ok(())
    }

    /// Releases splits that are held and of which nothing was read.
    fn release_unbegun(&self, unread: &[(SplitId, Vec<CommitRecord>)]) -> Result<(), Failure> {
        let (even, uneven): (Vec<_>, Vec<_>) = unread
            .iter()
            .cloned()
            .partition(|(_, records)| are_even(records));
        for (number, open) in self.sinks().enumerate() {
            let epoch = |(split, records): &(SplitId, Vec<CommitRecord>)| {
                Some((split.clone(), records.get(number)?.epoch))
            };
            open.committer
                .release_unbegun(&even.iter().filter_map(epoch).collect::<Vec<_>>())?;
        }
        self.release_free(&uneven)
    }

    /// Releases splits of which something may be left, as far as they were free before.
    fn release_free(&self, taken: &[(SplitId, Vec<CommitRecord>)]) -> Result<(), Failure> {
        for (number, open) in self.sinks().enumerate() {
            let of_sink = taken
                .iter()
                .filter_map(|(split, records)| Some((split, records.get(number)?)));
            open.committer.release_free(of_sink)?;
        }
        Ok(())
    }
}

/// Whether the sinks of a plan that holds a split are at one position, as after a graceful stop: then
/// nothing is left that only this plan could finish.
fn are_even(records: &[CommitRecord]) -> bool {
    let mut lows = records.iter().filter_map(|record| record.low);
    let first = lows.next();
    lows.all(|low| Some(low) == first) && records.iter().all(|record| record.ahead.is_empty())
}
