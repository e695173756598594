//! Entering the results of a batch into the ledgers of the sinks.
//!
//! The order of the steps is part of the argument in `docs/delivery.md`, so the protocol simulation
//! runs this code too.

use pseidon_delivery::{Committer, Position, ResumePoint, SplitId};
use pseidon_plan::SinkIndex;
use pseidon_plugin::batch::SplitEnd;
use pseidon_plugin::sink::Chunk;

/// The results of a batch, or of a part of it.
pub struct BatchOutput {
    /// The first position that is not complete with it.
    pub next: Position,
    /// What the source stored beside the batch's positions.
    pub resume: Option<ResumePoint>,
    /// How the split ends with it, if it does.
    pub end: Option<SplitEnd>,
    /// Chunks, each with its sink.
    pub chunks: Vec<(SinkIndex, Chunk)>,
}

/// Enters chunks into the ledgers of their sinks and moves the frontier in all `sinks` that the
/// source reaches. Returns what is left to write: rows that are already durable in their lane are
/// left out. Results of one split come in order, and what is returned must reach the lanes in the
/// same order.
pub fn enter<'c>(
    committer: &dyn Fn(SinkIndex) -> &'c Committer,
    sinks: &[SinkIndex],
    split: &SplitId,
    outcome: BatchOutput,
) -> Vec<(SinkIndex, Chunk)> {
    let mut to_write = Vec::with_capacity(outcome.chunks.len());
    for (sink, chunk) in outcome.chunks {
        let mut ledger = committer(sink).ledger();
        let held = ledger.already_held(split, &chunk.lane);
        let Some(mut chunk) = trim(chunk, held) else {
            continue;
        };
        let (first, last) = (
            chunk.rows.position(0),
            chunk.rows.position(chunk.rows.len() - 1),
        );
        ledger.dispatch(split, &chunk.lane, first, last);
        chunk.next = outcome.next;
        to_write.push((sink, chunk));
    }
    let frontier = match outcome.end {
        // What a lane or another sink has of it above is not read again, so it ends in all of them at
        // one position, and no lane stays ahead.
        Some(SplitEnd::Gone) => {
            let highest = |sink: &SinkIndex| committer(*sink).ledger().highest(split);
            sinks
                .iter()
                .filter_map(highest)
                .fold(outcome.next, Position::max)
        }
        Some(SplitEnd::Read) | None => outcome.next,
    };
    for sink in sinks {
        let mut ledger = committer(*sink).ledger();
        ledger.advance(split, frontier, outcome.resume.as_ref());
        if outcome.end.is_some() {
            ledger.end(split);
        }
    }
    to_write
}

/// The rows from position `held` on; the earlier ones are in the lane already.
fn trim(chunk: Chunk, held: Position) -> Option<Chunk> {
    let rows = chunk.rows.len();
    let mut first = 0;
    while first < rows && chunk.rows.position(first) < held {
        first += 1;
    }
    match first {
        0 => Some(chunk),
        _ if first == rows => None,
        _ => {
            let rest = chunk.rows.slice(first, rows - first);
            Some(chunk.with_rows(rest))
        }
    }
}
