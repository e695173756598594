//! The content of the open transaction: needed for its commit, and to identify the record that the
//! broker refuses.

use std::time::{Duration, Instant};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::Rows;

use super::refusals::Refusal;
use super::reports::UndeliveredRecords;

/// The records of an open transaction.
pub(super) struct TransactionContent {
    since: Instant,
    /// The chunks that were sent, in order.
    sent: Vec<SentChunk>,
    records: usize,
}

/// The records of one chunk.
struct SentChunk {
    /// The number of its first record in the transaction.
    first: usize,
    split: SplitId,
    positions: Vec<Position>,
}

impl TransactionContent {
    /// An empty transaction that is opened now.
    pub(super) fn new() -> TransactionContent {
        TransactionContent {
            since: Instant::now(),
            sent: Vec::new(),
            records: 0,
        }
    }

    /// The time since it was opened.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The number of its records, which is also the number of the next record.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Records that these rows are sent, numbered from [`TransactionContent::records`].
    pub(super) fn add(&mut self, rows: &Rows) {
        let positions: Vec<Position> = (0..rows.len()).map(|row| rows.position(row)).collect();
        let first = self.records;
        self.records += positions.len();
        self.sent.push(SentChunk {
            first,
            split: rows.batch().split.id.clone(),
            positions,
        });
    }

    /// The positions of its records, by split.
    pub(super) fn sent(&self) -> impl Iterator<Item = (&SplitId, &[Position])> {
        let sent = self.sent.iter();
        sent.map(|chunk| (&chunk.split, chunk.positions.as_slice()))
    }

    /// The refusals of its records; `alone` means that each record was in a batch of its own.
    pub(super) fn refusals(&self, undelivered: &UndeliveredRecords, alone: bool) -> Vec<Refusal> {
        let refusal = |refused: &super::reports::RefusedRecord| {
            let sent = &self.sent[self
                .sent
                .partition_point(|sent| sent.first <= refused.number)
                .checked_sub(1)?];
            let position = *sent.positions.get(refused.number - sent.first)?;
            let is_certain = undelivered.is_certain(refused, alone);
            Some(Refusal {
                split: sent.split.clone(),
                position,
                reason: refused.reason.clone(),
                is_certain,
            })
        };
        undelivered.refused.iter().filter_map(refusal).collect()
    }
}
