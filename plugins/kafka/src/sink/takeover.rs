//! Taking splits over from whoever had them.
//!
//! The state store names every instance that may still be at work on a split: those that took it since it was last released or last known
//! to be cut off. Each is fenced off by the broker, and only then the positions are read: nobody can add to them any more but us. An
//! instance opens its own producer before it takes any split, so that whoever fences it off later does so for good.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::sink::{Held, SinkError, Taken};

use super::open::{OpenSink, transactional_id};
use super::positions;
use super::producer::Batching;
use super::scan::Scanner;

/// Fences off the earlier owners of the splits, and returns what the target holds of each.
pub(super) fn take_over(sink: &OpenSink, splits: &[Taken]) -> Result<Vec<Option<Held>>, SinkError> {
    let previous: BTreeSet<&String> = splits.iter().flat_map(|taken| &taken.owners).filter(|owner| **owner != sink.instance).collect();
    for instance in previous {
        fence(sink, instance)?;
    }
    let wanted: HashMap<String, &SplitId> = splits.iter().map(|taken| (sink.keys.key(&taken.split), &taken.split)).collect();
    let mut found: HashMap<&SplitId, Position> = HashMap::new();
    let scanner = Scanner::new(&sink.prepared, &sink.stage, &sink.base, sink.stop.clone())?;
    scanner.read_to_end(|key, value| {
        let split = std::str::from_utf8(key).ok().and_then(|key| wanted.get(key));
        let (Some(split), Some(value)) = (split, value) else { return Ok(()) };
        let position = positions::parse(value).map_err(|reason| {
            SinkError::Fatal(format!("the position of {split} in {} cannot be read: {reason}", sink.prepared.positions_topic))
        })?;
        // The newest counts.
        found.insert(split, position);
        Ok(())
    })?;
    // With a single lane, what the lane holds is all there is.
    let held = |taken: &Taken| found.get(&taken.split).map(|low| Held { low: *low, ahead: HashMap::new() });
    Ok(splits.iter().map(held).collect())
}

/// After this the instance can commit nothing, ever: the broker has aborted its transaction and refuses its producer.
fn fence(sink: &OpenSink, instance: &str) -> Result<(), SinkError> {
    tracing::info!(sink = sink.stage, instance, "fencing off a previous owner");
    sink.producers.open(&transactional_id(&sink.pipeline, &sink.stage, instance), Batching::default()).map(drop)
}
