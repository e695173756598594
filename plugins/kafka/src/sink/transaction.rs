//! The open transaction: what it holds, for its commit, and to know which record the broker means
//! when it refuses one.

use std::time::{Duration, Instant};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::Rows;

use super::refusals::Refusal;
use super::reports::Undelivered;

/// An open transaction.
pub(super) struct TransactionContent {
    since: Instant,
    /// What was sent, in order.
    sent: Vec<Sent>,
    records: usize,
}

/// The records of one chunk.
struct Sent {
    /// The number of its first record in the transaction.
    first: usize,
    split: SplitId,
    positions: Vec<Position>,
}

impl TransactionContent {
    /// One that begins now.
    pub(super) fn new() -> TransactionContent {
        TransactionContent {
            since: Instant::now(),
            sent: Vec::new(),
            records: 0,
        }
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How many records it holds. The next one gets this number.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// These rows are sent under the next numbers.
    pub(super) fn add(&mut self, rows: &Rows) {
        let positions: Vec<Position> = (0..rows.len()).map(|row| rows.position(row)).collect();
        let first = self.records;
        self.records += positions.len();
        self.sent.push(Sent {
            first,
            split: rows.batch().split.id.clone(),
            positions,
        });
    }

    /// What the reports say about its records; `alone` where each was a batch of its own.
    pub(super) fn refusals(&self, undelivered: &Undelivered, alone: bool) -> Vec<Refusal> {
        let refusal = |refused: &super::reports::Refused| {
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
