//! The partitions as an operator sees them, looked up without joining the group.

use std::collections::BTreeMap;

use pseidon_delivery::{Reason, SplitId};
use pseidon_plugin::source::{KnownSplit, SourceError, SourceSetup, SplitStatus};

use super::KafkaSource;
use super::assignment::split;
use super::start::{self, END, offsets_at};
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
