//! Taking splits over from whoever had them.
//!
//! The state store names the previous owner of each split, but not those before it: an instance may take a split and die before it has
//! fenced its predecessor off, which may be frozen and wake. So the positions topic is the second witness. An instance *claims* a split
//! there, in a committed transaction, after it has fenced off the store's previous owner and the last one that claimed the split; only
//! then it writes records. Whoever may have a transaction with records of the split open has therefore claimed it, and whoever comes
//! later finds that claim, and fences its author.
//!
//! Two instances that take one split at the same time see each other: after its own claim each reads on, and fences off everybody that
//! has written about the split in the meantime. Then at most one of them can still commit.

use std::collections::{HashMap, HashSet};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::sink::SinkError;
use rdkafka::producer::BaseRecord;

use super::open::{OpenSink, claims_id, transactional_id};
use super::positions::Told;
use super::producer::meaning;
use super::scan::Scanner;

/// Fences off whoever had the splits, claims them, and gives where each stands.
pub(super) fn take_over(sink: &OpenSink, splits: &[(SplitId, String)]) -> Result<Vec<Option<Position>>, SinkError> {
    let mut scanner = Scanner::new(&sink.prepared, &sink.stage, &sink.base, sink.stop.clone())?;
    let mut fenced = HashSet::from([sink.owner.instance.clone()]);
    // A split without an owner was released: everything of it is committed, and who released it goes on with other splits.
    let unreleased: HashSet<&SplitId> = splits.iter().filter(|(_, previous)| !previous.is_empty()).map(|(split, _)| split).collect();
    fence(sink, splits.iter().map(|(_, previous)| previous.clone()).filter(|previous| !previous.is_empty()), &mut fenced)?;

    let wanted: HashSet<&SplitId> = splits.iter().map(|(split, _)| split).collect();
    let mut standing: HashMap<SplitId, Told> = HashMap::new();
    read(sink, &mut scanner, &wanted, |split, told| drop(standing.insert(split, told)))?;
    let last_writers = standing.iter().filter(|(split, _)| unreleased.contains(split)).map(|(_, told)| told.instance.clone());
    let mut suspects: Vec<String> = last_writers.filter(|instance| !fenced.contains(instance)).collect();

    let mut claimed = false;
    loop {
        if suspects.is_empty() {
            if claimed {
                return Ok(splits.iter().map(|(split, _)| standing.get(split).and_then(|told| told.position)).collect());
            }
            claim(sink, splits, &standing)?;
            claimed = true;
        }
        fence(sink, suspects.drain(..), &mut fenced)?;
        read(sink, &mut scanner, &wanted, |split, told| {
            if !fenced.contains(&told.instance) {
                suspects.push(told.instance.clone());
            }
            standing.insert(split, told);
        })?;
    }
}

/// After this none of these instances can commit anything, ever.
fn fence(sink: &OpenSink, instances: impl Iterator<Item = String>, fenced: &mut HashSet<String>) -> Result<(), SinkError> {
    for instance in instances {
        if fenced.contains(&instance) {
            continue;
        }
        tracing::info!(sink = sink.stage, instance, "fencing off the previous owner");
        for id in [transactional_id(&sink.pipeline, &sink.stage, &instance), claims_id(&sink.pipeline, &sink.stage, &instance)] {
            drop(sink.producers.open(&id)?);
        }
        fenced.insert(instance);
    }
    Ok(())
}

fn read(sink: &OpenSink, scanner: &mut Scanner, wanted: &HashSet<&SplitId>, mut each: impl FnMut(SplitId, Told)) -> Result<(), SinkError> {
    scanner.read_to_end(|key, value| {
        let Some(split) = sink.owner.split(key).filter(|split| wanted.contains(split)) else { return Ok(()) };
        let Some(value) = value else { return Ok(()) };
        let told = Told::parse(value)
            .map_err(|reason| SinkError::Fatal(format!("the position of {split} in {} cannot be read: {reason}", sink.prepared.positions_topic)))?;
        each(split, told);
        Ok(())
    })
}

/// Says that the splits are ours, where they stand.
fn claim(sink: &OpenSink, splits: &[(SplitId, String)], standing: &HashMap<SplitId, Told>) -> Result<(), SinkError> {
    let claims = sink.claims.lock();
    let write = || {
        claims.begin()?;
        for (split, _) in splits {
            let value = sink.owner.value(standing.get(split).and_then(|told| told.position));
            claims.send(BaseRecord::to(&sink.prepared.positions_topic).key(&sink.owner.key(split)).payload(&value))?;
        }
        claims.commit()
    };
    write().map_err(|error| {
        claims.abort();
        meaning(&error, splits.iter().map(|(split, _)| split.clone()))
    })
}
