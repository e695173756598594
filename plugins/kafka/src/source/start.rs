//! Where a partition that was never read begins.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;
use rdkafka::{Offset, TopicPartitionList};

use super::failure::{Leave, Meaning, denied};
use super::outlet::Outlets;
use super::{KafkaSource, Topics};
use crate::native::{Consumer, NativeError, TopicPartition};

/// How long one question to a broker may take, and the pause before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);
/// The times that mean the first and the last offset in Kafka's protocol.
const BEGINNING: i64 = -2;
const END: i64 = -1;

/// `:start`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the first record that there is.
    Earliest,
    /// After the last one.
    Latest,
    /// With the first record that is not older: milliseconds since 1970.
    At(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            _ => {
                let millis = text.parse().ok().or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()));
                let not_before_1970 = millis.filter(|millis: &i64| *millis >= 0).map(Start::At);
                not_before_1970.ok_or_else(|| "expected :earliest, :latest, or a time such as \"2026-01-31T00:00:00Z\"".to_owned())
            }
        }
    }
}

/// Checks the text of `:start`.
pub(super) fn check(text: &str) -> Result<(), String> {
    text.parse::<Start>().map(drop)
}

/// `:on-missing-state`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnMissingState {
    /// Say so and stop.
    Stop,
    /// Read on from the group's offset.
    Group,
    /// Begin at `:start`.
    Start,
}

/// Finds out where partitions begin.
pub(super) struct Starts<'a> {
    source: &'a KafkaSource,
    consumer: &'a Consumer,
    group: &'a str,
    /// With `:start :latest`, the subscriptions that were looked at,
    looked_at: HashSet<String>,
    /// and the partitions that were there when their topic was subscribed to.
    there_before: HashSet<TopicPartition>,
}

/// For more topics than that the broker is asked for all it has, instead of for one after another.
const FEW: usize = 8;

impl<'a> Starts<'a> {
    /// Nothing is known yet.
    pub(super) fn new(source: &'a KafkaSource, consumer: &'a Consumer, group: &'a str) -> Self {
        Starts { source, consumer, group, looked_at: HashSet::new(), there_before: HashSet::new() }
    }

    /// These topics are about to be subscribed to. With `:latest` the broker is asked which partitions they have: a record in one that is
    /// made later must not be left out.
    pub(super) fn note_present(&mut self, topics: &Topics, outlets: &Outlets) -> Result<(), Leave> {
        if self.source.start != Start::Latest {
            return Ok(());
        }
        let new: Vec<String> = topics.subscription().iter().filter(|name| !self.looked_at.contains(*name)).cloned().collect();
        if let Ok(topics) = Topics::names(&new) {
            let present = self.ask(outlets, || partitions(self.consumer, &topics))?;
            self.there_before.extend(present);
        }
        self.looked_at.extend(new);
        Ok(())
    }

    /// The offsets at which the group has stopped reading these partitions, of which the state knows nothing, where that is to be looked at.
    pub(super) fn group_offsets(&self, partitions: &[TopicPartition], outlets: &Outlets) -> Result<Vec<Option<Position>>, Leave> {
        if self.source.on_missing_state == OnMissingState::Start || partitions.is_empty() {
            return Ok(vec![None; partitions.len()]);
        }
        self.ask(outlets, || {
            let mut list = list_of(partitions, |_| Offset::Invalid);
            self.consumer.committed(&mut list, PATIENCE)?;
            offsets_of(&list)
        })
    }

    /// Replaces the starts of partitions that another program has read before. Gives which those are.
    pub(super) fn stopped_elsewhere<'p>(
        &self,
        partitions: impl Iterator<Item = (&'p TopicPartition, &'p mut Position)>,
    ) -> Result<Vec<TopicPartition>, SourceError> {
        let Some(ask) = &self.source.stopped_elsewhere else { return Ok(Vec::new()) };
        let (names, starts): (Vec<_>, Vec<_>) = partitions.unzip();
        let asked: Vec<_> = names.iter().map(|at| (at.topic.clone(), at.partition)).collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut taken_over = Vec::new();
        for ((at, start), offset) in names.into_iter().zip(starts).zip(ask(&asked)?) {
            if let Some(offset) = offset {
                tracing::info!(topic = at.topic, partition = at.partition, offset, "read on where another program has stopped");
                *start = offset;
                taken_over.push(at.clone());
            }
        }
        Ok(taken_over)
    }

    /// A group that has read what the state does not know of: the state may have been lost.
    pub(super) fn refuse_known(&self, by_group: &[(TopicPartition, Option<Position>)]) -> Result<(), SourceError> {
        if self.source.on_missing_state != OnMissingState::Stop {
            return Ok(());
        }
        let known = by_group.iter().find_map(|(at, offset)| offset.map(|offset| (at, offset)));
        let Some((at, offset)) = known else { return Ok(()) };
        Err(SourceError::Fatal(format!(
            "the state does not know {}/{}, but the group {} has read it up to offset {offset}: the state may have been lost. Bring it back, \
             or say :on-missing-state :group to read on from the group's offsets, or :on-missing-state :start to begin at :start",
            at.topic, at.partition, self.group
        )))
    }

    /// The offset after the last record that can be read now of each partition.
    pub(super) fn ends(&self, partitions: &[TopicPartition], outlets: &Outlets) -> Result<Vec<Position>, Leave> {
        let ends = self.offsets_for(partitions, outlets, |_| END)?;
        Ok(ends.into_iter().map(|end| end.unwrap_or(0)).collect())
    }

    /// Where `:start` says that these partitions begin.
    pub(super) fn offsets_at_start(&self, partitions: &[TopicPartition], outlets: &Outlets) -> Result<Vec<Position>, Leave> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let is_new = |at: &TopicPartition| !self.there_before.contains(at);
        let times = |at: &TopicPartition| match self.source.start {
            Start::Earliest => BEGINNING,
            Start::Latest if is_new(at) => BEGINNING,
            Start::Latest => END,
            Start::At(millis) => millis,
        };
        // Asked first: a record that arrives between the two questions must not fall between them.
        let ends = if matches!(self.source.start, Start::At(_)) { self.ends(partitions, outlets)? } else { vec![0; partitions.len()] };
        let found = self.offsets_for(partitions, outlets, times)?;
        Ok(found.into_iter().zip(ends).map(|(offset, end)| offset.unwrap_or(end)).collect())
    }

    fn offsets_for(
        &self,
        partitions: &[TopicPartition],
        outlets: &Outlets,
        time: impl Fn(&TopicPartition) -> i64,
    ) -> Result<Vec<Option<Position>>, Leave> {
        self.ask(outlets, || {
            let mut list = list_of(partitions, |at| Offset::from_raw(time(at)));
            self.consumer.offsets_for_times(&mut list, PATIENCE)?;
            offsets_of(&list)
        })
    }

    /// Asks until there is an answer, or the run ends, or it is clear that there will be none.
    fn ask<T>(&self, outlets: &Outlets, mut question: impl FnMut() -> Result<T, NativeError>) -> Result<T, Leave> {
        let brokers = self.source.connection.brokers.as_str();
        let mut told = false;
        loop {
            match question() {
                Ok(answer) => return Ok(answer),
                Err(error) if Meaning::of(error.code) == Meaning::Denied => return Err(denied(brokers, &error)),
                Err(error) if !told => {
                    tracing::warn!(brokers, %error, "kafka does not tell where partitions begin; trying on");
                    told = true;
                }
                Err(_) => {}
            }
            outlets.sleep(PAUSE)?;
        }
    }
}

/// The partitions that topics have now; a topic that does not exist has none.
pub(super) fn partitions(consumer: &Consumer, topics: &Topics) -> Result<Vec<TopicPartition>, NativeError> {
    if topics.has_pattern() || topics.subscription().len() > FEW {
        let all = consumer.all_partitions(PATIENCE)?;
        return Ok(all.into_iter().filter(|at| topics.contain(&at.topic)).collect());
    }
    let mut found = Vec::new();
    for topic in topics.subscription() {
        match consumer.partitions_of(topic, PATIENCE) {
            Ok(partitions) => found.extend(partitions),
            Err(error) if is_missing_topic(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_missing_topic(error: &NativeError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(error.code, UnknownTopic | UnknownTopicOrPartition)
}

/// A list for librdkafka.
pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    offset: impl Fn(&TopicPartition) -> Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        let mut element = list.add_partition(&at.topic, at.partition);
        // It fails for offsets that have no number, which ours have.
        let _ = element.set_offset(offset(at));
    }
    list
}

/// The offsets that librdkafka has filled in, in the order of the list; `None` where there is none.
fn offsets_of(list: &TopicPartitionList) -> Result<Vec<Option<Position>>, NativeError> {
    let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error().map_err(|error| {
            let code = error.rdkafka_error_code().unwrap_or(rdkafka::types::RDKafkaErrorCode::Unknown);
            NativeError { code, text: format!("{}/{}: {code}", element.topic(), element.partition()) }
        })?;
        Ok(element.offset().to_raw().and_then(|raw| Position::try_from(raw).ok()))
    };
    list.elements().iter().map(offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_or_times() {
        for (text, start) in [
            ("earliest", Some(Start::Earliest)),
            ("latest", Some(Start::Latest)),
            ("1769817600000", Some(Start::At(1_769_817_600_000))),
            ("2026-01-31T00:00:00Z", Some(Start::At(1_769_817_600_000))),
            ("2026-01-31T01:00:00.500+01:00", Some(Start::At(1_769_817_600_500))),
            ("-1", None),
            ("yesterday", None),
            ("2026-01-31", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), start, "{text}");
        }
    }
}
