//! Taking splits over from their earlier owners.
//!
//! The state store names every instance that may still be writing records of a split: those that
//! took it since it was last released or last known to be fenced off. The broker fences off each of
//! them, and only then the positions are read: from then on only this instance can add to them. An
//! instance opens its own producer before it takes any split, so that fencing it off is final.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::{Position, Reason, SplitId};
use pseidon_plugin::sink::{SinkError, TakenSplit, TargetPosition};

use super::super::positions;
use super::super::producer::Batching;
use super::super::scan::{ScanExtent, Scanner};
use super::OpenKafkaSink;

/// Fences off the earlier owners of the splits, and returns the positions of the splits in the
/// target.
pub(super) fn take_over(
    sink: &OpenKafkaSink,
    splits: &[TakenSplit],
) -> Result<HashMap<SplitId, TargetPosition>, SinkError> {
    let previous: BTreeSet<String> = splits
        .iter()
        .flat_map(|taken| &taken.owners)
        .map(|owner| sink.ids.id_of(owner))
        .collect();
    // Earlier attempts of this process were fenced off when this one opened its producer.
    for id in previous.iter().filter(|id| **id != sink.own_id) {
        tracing::info!(sink = sink.stage, id, "fencing off a previous owner");
        // After this the owner can never commit again: the broker has aborted its transaction and
        // refuses its producer.
        sink.producers.open(id, Batching::default())?;
    }
    let mut search = PositionSearch {
        sink,
        wanted: splits
            .iter()
            .map(|taken| (sink.run.keys.key(&taken.split), &taken.split))
            .collect(),
        found: HashMap::new(),
    };
    let scanner = Scanner::new(&sink.run.sink, &sink.stage, &sink.base, sink.stop.clone())?;
    let own = sink.run.keys.partition();
    search.read(&scanner, ScanExtent::WithOpenTransactions, |partition| {
        partition == own
    })?;
    if search.found.len() < splits.len() {
        // The positions may be in another partition, if the topic had fewer partitions once.
        search.read(&scanner, ScanExtent::Readable, |partition| partition != own)?;
    }
    // The sink has a single lane, so its positions are the low positions.
    let held = |(split, low): (&SplitId, Position)| {
        let ahead = HashMap::new();
        (split.clone(), TargetPosition { low, ahead })
    };
    Ok(search.found.into_iter().map(held).collect())
}

/// A search for the positions of splits in the positions topic.
struct PositionSearch<'a> {
    sink: &'a OpenKafkaSink,
    wanted: HashMap<String, &'a SplitId>,
    found: HashMap<&'a SplitId, Position>,
}

impl PositionSearch<'_> {
    fn read(
        &mut self,
        scanner: &Scanner,
        extent: ScanExtent,
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
                let topic = &self.sink.run.sink.positions_topic;
                let what = format!("the position of {split} in {topic} is invalid");
                SinkError::Fatal(Reason::caused_by(what, reason))
            })?;
            // A later value replaces an earlier one.
            newer.insert(*split, position);
            Ok(())
        })?;
        for (split, position) in newer {
            self.found.entry(split).or_insert(position);
        }
        Ok(())
    }
}
