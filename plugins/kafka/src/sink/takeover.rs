//! Taking splits over from whoever had them.
//!
//! The state store names every instance that may still be at work on a split: those that took it
//! since it was last released or last known to be cut off. Each is fenced off by the broker, and
//! only then the positions are read: nobody can add to them any more but us. An instance opens its
//! own producer before it takes any split, so that whoever fences it off later does so for good.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::sink::{SinkError, TakenSplit, TargetPosition};

use super::open::OpenSink;
use super::positions;
use super::producer::Batching;
use super::scan::{Extent, Scanner};

/// Fences off the earlier owners of the splits, and returns what the target holds of each.
pub(super) fn take_over(
    sink: &OpenSink,
    splits: &[TakenSplit],
) -> Result<Vec<Option<TargetPosition>>, SinkError> {
    let previous: BTreeSet<String> = splits
        .iter()
        .flat_map(|taken| &taken.owners)
        .map(|owner| sink.ids.of(owner))
        .collect();
    // Earlier attempts of this process were cut off when this one opened its producer.
    for id in previous.iter().filter(|id| **id != sink.own_id) {
        tracing::info!(sink = sink.stage, id, "fencing off a previous owner");
        // After this the owner can commit nothing, ever: the broker has aborted its transaction and
        // refuses its producer.
        sink.producers.open(id, Batching::default())?;
    }
    let mut search = Search {
        sink,
        wanted: splits
            .iter()
            .map(|taken| (sink.run.keys.key(&taken.split), &taken.split))
            .collect(),
        found: HashMap::new(),
    };
    let scanner = Scanner::new(&sink.run.sink, &sink.stage, &sink.base, sink.stop.clone())?;
    let own = sink.run.keys.partition();
    search.read(&scanner, Extent::WithOpenTransactions, |partition| {
        partition == own
    })?;
    if search.found.len() < splits.len() {
        // The topic had fewer partitions once.
        search.read(&scanner, Extent::Readable, |partition| partition != own)?;
    }
    // With a single lane, what the lane holds is all there is.
    let held = |taken: &TakenSplit| {
        search.found.get(&taken.split).map(|low| TargetPosition {
            low: *low,
            ahead: HashMap::new(),
        })
    };
    Ok(splits.iter().map(held).collect())
}

/// A search for the positions of splits.
struct Search<'a> {
    sink: &'a OpenSink,
    wanted: HashMap<String, &'a SplitId>,
    found: HashMap<&'a SplitId, Position>,
}

impl Search<'_> {
    fn read(
        &mut self,
        scanner: &Scanner,
        extent: Extent,
        partitions: impl Fn(i32) -> bool,
    ) -> Result<(), SinkError> {
        let mut newer = HashMap::new();
        scanner.read(extent, partitions, |key, value| {
            let split = std::str::from_utf8(key)
                .ok()
                .and_then(|key| self.wanted.get(key));
            let (Some(split), Some(value)) = (split, value) else {
                return Ok(());
            };
            let position = positions::parse(value).map_err(|reason| {
                SinkError::Fatal(format!(
                    "the position of {split} in {} cannot be read: {reason}",
                    self.sink.run.sink.positions_topic
                ))
            })?;
            // The newest counts.
            newer.insert(*split, position);
            Ok(())
        })?;
        for (split, position) in newer {
            self.found.entry(split).or_insert(position);
        }
        Ok(())
    }
}
