//! Records that a sink cannot write, as was found after they were read before: those that make a lane
//! fail, and those that the target has refused. They are invalid records of the sink.

use pseidon_delivery::Committer;
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::RoutedRows;

use crate::lanes::Suspects;

/// The records of a batch that a sink cannot write.
#[derive(Debug, Default)]
pub(crate) struct Culprits(Vec<(String, usize)>);

impl Culprits {
    /// Adds the record with this number, which the stage cannot write.
    pub(crate) fn add(&mut self, stage: &str, number: usize) {
        self.0.push((stage.to_owned(), number));
    }

    /// Whether the stage cannot write the record with this number.
    pub(crate) fn contain(&self, stage: &str, number: u32) -> bool {
        let mut known = self.0.iter();
        known.any(|(of, at)| of == stage && *at == number as usize)
    }
}

/// Those of the refused records that the sink has not passed. The others are with the error policy
/// already, or in the target.
pub(crate) fn not_passed(refused: Vec<BadRow>, rows: &Rows, committer: &Committer) -> Vec<BadRow> {
    let low = committer.ledger().low(&rows.batch().split.id);
    let mut left = refused;
    left.retain(|bad| low.is_none_or(|low| rows.position(bad.row as usize) >= low));
    left
}

/// The same with the records that their lanes cannot write as refused ones. `rows` were routed.
///
/// A record that the sink has passed stays in its chunk, which drops it: it is with the error policy
/// already, and a reader may have taken it from there.
pub(crate) fn without_culprits(
    routed: RoutedRows,
    rows: &Rows,
    suspects: &Suspects,
    committer: &Committer,
) -> RoutedRows {
    let RoutedRows {
        chunks,
        bad,
        mut refused,
    } = routed;
    let mut left = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let split = &chunk.rows.batch().split.id;
        let mut known = suspects.culprits(&chunk.lane, split);
        if !known.is_empty() {
            let held = committer.ledger().already_held(split, &chunk.lane);
            known.retain(|(at, _)| *at >= held);
        }
        if known.is_empty() {
            left.push(chunk);
            continue;
        }
        let reason_of = |row: usize| {
            let at = chunk.rows.position(row);
            let mut known = known.iter().filter(|(culprit, _)| *culprit == at);
            known.next().map(|(_, reason)| reason.clone())
        };
        let culprits: Vec<BadRow> = (0..chunk.rows.len())
            .filter_map(|row| {
                Some(BadRow {
                    row: row as u32,
                    reason: reason_of(row)?,
                })
            })
            .collect();
        if culprits.is_empty() {
            left.push(chunk);
            continue;
        }
        let kept = match chunk.rows.without(&culprits) {
            Ok(kept) => kept,
            Err(error) => return RoutedRows::all_bad(rows.len(), &error),
        };
        for BadRow { row, reason } in culprits {
            let number = chunk.rows.number(row as usize);
            let row = (0..rows.len()).find(|row| rows.number(*row) == number);
            let row = row.unwrap_or_default() as u32;
            // A record may have several rows in the lane.
            if !bad.iter().chain(&refused).any(|bad| bad.row == row) {
                let reason = format!("the sink cannot write the record: {reason}");
                refused.push(BadRow { row, reason });
            }
        }
        if !kept.is_empty() {
            left.push(chunk.with_rows(kept));
        }
    }
    RoutedRows {
        chunks: left,
        bad,
        refused,
    }
}
