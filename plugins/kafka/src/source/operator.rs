//! The partitions as an operator sees them, looked up without joining the group.

use std::collections::BTreeMap;

use pseidon_delivery::{Reason, SplitId};
use pseidon_plugin::source::{
    KnownSplit, MoveTo, NewPlace, SourceError, SourceSetup, SplitStatus, SplitTarget,
};
use rdkafka::Offset;

use super::KafkaSource;
use super::assignment::split;
use super::identity::{PartitionIdentity, TopicId};
use super::start::{self, BEGINNING, END, REQUEST_TIMEOUT, list_of, offsets_at};
use crate::logs::ClientLogs;
use crate::native::{Consumer, NativeError, TopicPartition};

/// A client of the source's cluster that is not a member of the group.
fn connect(source: &KafkaSource, setup: &SourceSetup) -> Result<Consumer, SourceError> {
    let mut config = source.config(setup);
    config.remove("group.instance.id");
    Consumer::new(&config, ClientLogs::new(&setup.stage)).map_err(SourceError::Fatal)
}

/// The partition of a split of this stage.
fn partition_of(stage: &str, split: &SplitId) -> Option<TopicPartition> {
    let name = split.as_str().strip_prefix(stage)?.strip_prefix(':')?;
    let (topic, partition) = name.rsplit_once('/')?;
    Some(TopicPartition {
        topic: topic.to_owned(),
        partition: partition.parse().ok()?,
    })
}

/// The partitions that the topics have now, and those that the state knows, with their ends.
pub(super) fn describe(
    source: &KafkaSource,
    setup: &SourceSetup,
    known: &[KnownSplit],
) -> Result<Vec<SplitStatus>, SourceError> {
    let client = connect(source, setup)?;
    let failed = |error: NativeError| {
        let what = format!("cannot look up the partitions of `{}`", setup.stage);
        SourceError::Transient(Reason::caused_by(what, error))
    };
    let found = start::partitions(&client, &source.topics).map_err(failed)?;
    let with_leader: Vec<TopicPartition> = found
        .iter()
        .filter(|found| found.has_leader)
        .map(|found| found.at.clone())
        .collect();
    let ends = offsets_at(&client, &with_leader, |_| END).map_err(failed)?;
    let mut all: BTreeMap<TopicPartition, SplitStatus> = BTreeMap::new();
    let status = |at: &TopicPartition, is_gone| SplitStatus {
        split: split(&setup.stage, at).id.clone(),
        name: format!("{}/{}", at.topic, at.partition),
        end: None,
        is_gone,
    };
    let of_state = known
        .iter()
        .filter_map(|known| partition_of(&setup.stage, &known.split));
    all.extend(of_state.map(|at| (at.clone(), status(&at, true))));
    all.extend(
        found
            .iter()
            .map(|found| (found.at.clone(), status(&found.at, false))),
    );
    for (at, end) in with_leader.iter().zip(ends) {
        if let Some(one) = all.get_mut(at) {
            one.end = end.map_err(failed)?;
        }
    }
    Ok(all.into_values().collect())
}

/// The offset of each partition to which an operator moves it.
pub(super) fn find_places(
    source: &KafkaSource,
    setup: &SourceSetup,
    to: MoveTo,
) -> Result<Vec<SplitTarget>, SourceError> {
    let client = connect(source, setup)?;
    let failed = |error: NativeError| {
        let what = format!("cannot look up the offsets of `{}`", setup.stage);
        SourceError::Transient(Reason::caused_by(what, error))
    };
    let found = start::partitions(&client, &source.topics).map_err(failed)?;
    let found: Vec<TopicPartition> = found.into_iter().map(|found| found.at).collect();
    let mut topics: Vec<String> = found.iter().map(|at| at.topic.clone()).collect();
    topics.dedup();
    // Brokers without topic ids answer with an error.
    let ids = client
        .topic_ids(&topics, REQUEST_TIMEOUT)
        .unwrap_or_default();
    let firsts = offsets_at(&client, &found, |_| BEGINNING).map_err(failed)?;
    // Looked up first, so that a record that arrives between the two requests is not skipped.
    let ends = offsets_at(&client, &found, |_| END).map_err(failed)?;
    let times = match to {
        MoveTo::Time(millis) => offsets_at(&client, &found, |_| millis).map_err(failed)?,
        _ => vec![Ok(None); found.len()],
    };
    let bounds = firsts.into_iter().zip(ends).zip(times);
    let mut targets = Vec::new();
    for (at, ((first, end), time)) in found.iter().zip(bounds) {
        let first = first.map_err(failed)?.unwrap_or(0);
        let end = end.map_err(failed)?.unwrap_or(first);
        let position = match to {
            MoveTo::Earliest => Ok(first),
            MoveTo::Latest => Ok(end),
            MoveTo::Time(_) => Ok(time.map_err(failed)?.unwrap_or(end)),
            MoveTo::Position(position) if (first..=end).contains(&position) => Ok(position),
            MoveTo::Position(position) => Err(format!(
                "offset {position} is not between {first} and {end}"
            )),
        };
        let identity = PartitionIdentity {
            topic: TopicId(ids.get(&at.topic).cloned().unwrap_or_default()),
            leader_epoch: None,
        };
        targets.push(SplitTarget {
            split: split(&setup.stage, at).id.clone(),
            name: format!("{}/{}", at.topic, at.partition),
            place: position.map(|position| NewPlace {
                position,
                resume: identity.to_resume(),
                is_finished: false,
            }),
        });
    }
    Ok(targets)
}

/// Deletes the group's offsets of these partitions: they are evidence of what the state has held.
/// The brokers refuse that while a member of the group reads the topics.
pub(super) fn withdraw(
    source: &KafkaSource,
    setup: &SourceSetup,
    splits: &[SplitId],
) -> Result<(), SourceError> {
    let partitions: Vec<TopicPartition> = splits
        .iter()
        .filter_map(|split| partition_of(&setup.stage, split))
        .collect();
    if partitions.is_empty() {
        return Ok(());
    }
    let client = connect(source, setup)?;
    let group = source.group(setup);
    let list = list_of(&partitions, |_| Offset::Invalid);
    client.delete_offsets(group, &list, REQUEST_TIMEOUT).map_err(|error| {
        let what = format!(
            "cannot delete the offsets of the group {group}: a member may be reading, or may have \
             stopped less than its session timeout ago"
        );
        SourceError::Transient(Reason::caused_by(what, error))
    })
}
