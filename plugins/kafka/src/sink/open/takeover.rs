//! Taking splits over from their earlier owners.
//!
//! The state store names every instance that may still be writing records of a split: those that
//! took it since it was last released or last known to be fenced off. The broker fences off each of
//! them, and only then the positions are read: from then on only this instance can add to them. An
//! instance opens its own producer before it takes any split, so that fencing it off is final.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::{Position, Reason, SplitId};
use pseidon_plugin::sink::{SinkError, TakenSplit, TargetPosition};

use super::super::positions::StoredPosition;
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
    let keys = &sink.run.keys;
    let mut search = PositionSearch {
        sink,
        wanted: splits
            .iter()
            .map(|taken| (keys.key(&taken.split), &taken.split))
            .collect(),
        last: HashMap::new(),
        has_grown: false,
    };
    let scanner = Scanner::new(&sink.run.sink, &sink.stage, &sink.base, sink.stop.clone())?;
    if scanner.partition_count() != keys.partitions() {
        // Other instances may have stored newer positions in another partition already.
        let topic = &sink.run.sink.positions_topic;
        let what = format!("the number of partitions of {topic} has changed");
        return Err(SinkError::Transient(what.into()));
    }
    let own = keys.partition();
    search.read(&scanner, ScanExtent::WithOpenTransactions, |partition| {
        partition == own
    })?;
    if !search.is_complete() {
        search.read(&scanner, ScanExtent::Readable, |partition| partition != own)?;
        if search.has_grown {
            let extent = ScanExtent::WithOpenTransactions;
            search.read(&scanner, extent, |partition| partition != own)?;
        }
    }
    // The sink has a single lane, so its positions are the low positions.
    let held = |(split, low): (&SplitId, Position)| {
        let ahead = HashMap::new();
        (split.clone(), TargetPosition { low, ahead })
    };
    Ok(search.highest().into_iter().map(held).collect())
}

/// A search for the positions of splits in the positions topic.
struct PositionSearch<'a> {
    sink: &'a OpenKafkaSink,
    wanted: HashMap<String, &'a SplitId>,
    /// The last position of each split in each partition.
    last: HashMap<(&'a SplitId, i32), StoredPosition>,
    /// Whether a position was stored when the topic had another number of partitions. Then open
    /// transactions in other partitions may hide newer ones.
    has_grown: bool,
}

impl<'a> PositionSearch<'a> {
    fn read(
        &mut self,
        scanner: &Scanner,
        extent: ScanExtent,
        partitions: impl Fn(i32) -> bool,
    ) -> Result<(), SinkError> {
        scanner.read(extent, partitions, |partition, key, value| {
            let Some(value) = value else {
                return Ok(());
            };
            let (keys, stored) = (&self.sink.run.keys, StoredPosition::parse(value));
            let key = String::from_utf8_lossy(key);
            if let Ok(stored) = &stored {
                self.has_grown |= !keys.is_current(&key, partition, stored);
            }
            let Some(split) = self.wanted.get(&*key) else {
                return Ok(());
            };
            let stored = stored.map_err(|reason| {
                let topic = &self.sink.run.sink.positions_topic;
                let what = format!("the position of {split} in {topic} is invalid");
                SinkError::Fatal(Reason::caused_by(what, reason))
            })?;
            // A partition may be read twice, so an older message may follow a newer one.
            let last = self.last.entry((*split, partition)).or_insert(stored);
            if stored.position >= last.position {
                *last = stored;
            }
            Ok(())
        })
    }

    /// Whether the sink's own partition has the newest position of each split. Otherwise it may be
    /// in another partition, where it was stored when the topic had fewer.
    fn is_complete(&self) -> bool {
        let keys = &self.sink.run.keys;
        self.wanted.values().all(|split| {
            let own = self.last.get(&(*split, keys.partition()));
            own.is_some_and(|own| own.partitions == Some(keys.partitions()))
        })
    }

    /// The newest position of each split. Positions only rise, so it is the highest.
    fn highest(self) -> HashMap<&'a SplitId, Position> {
        let mut highest = HashMap::new();
        for ((split, _), stored) in self.last {
            let known = highest.entry(split).or_insert(stored.position);
            *known = stored.position.max(*known);
        }
        highest
    }
}
