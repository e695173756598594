//! Looks up the offsets of partitions: those of the group, of another program, of `:start` and of
//! the end.

use std::collections::{HashMap, HashSet};

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::super::Topics;
use super::super::failure::{ErrorClass, denied};
use super::super::identity::TopicId;
use super::super::start::{
    self, BEGINNING, END, OnMissingState, REQUEST_TIMEOUT, StartOption, list_of, offsets_at,
};
use super::worker::LookupWorker;
use super::{LookupError, LookupResult, PartitionOffsets, PartitionQuery};
use crate::native::{CommittedOffset, NativeError, TopicPartition};

impl LookupWorker {
    /// The offsets of the partitions that have a leader. One without does not delay the others.
    pub(super) fn look_up(
        &mut self,
        wanted: Vec<PartitionQuery>,
    ) -> Vec<(PartitionQuery, LookupResult)> {
        let brokers = self.source.connection.brokers.clone();
        let failed = |wanted: Vec<PartitionQuery>, error: &NativeError| -> Vec<_> {
            let refused = |error: &NativeError| match ErrorClass::of(error.code) {
                ErrorClass::Denied => LookupError::Fatal(denied(&brokers, error.clone())),
                _ => LookupError::Retryable(error.clone()),
            };
            wanted
                .into_iter()
                .map(|one| (one, Err(refused(error))))
                .collect()
        };
        let names: HashSet<String> = wanted.iter().map(|one| one.at.topic.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let found =
            match Topics::names(&names).map(|topics| start::partitions(&self.client, &topics)) {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return failed(wanted, &error),
                Err(_) => return Vec::new(),
            };
        let with_leader: HashSet<TopicPartition> = found
            .into_iter()
            .filter(|found| found.has_leader)
            .map(|found| found.at)
            .collect();
        let (ready, leaderless): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|one| with_leader.contains(&one.at));
        let code = RDKafkaErrorCode::LeaderNotAvailable;
        let mut answered = failed(
            leaderless,
            &NativeError {
                code,
                text: "no broker leads it".to_owned(),
            },
        );
        if !ready.is_empty() {
            match self.look_up_led(&ready, &names) {
                Ok(places) => answered.extend(ready.into_iter().zip(places)),
                Err(error) => answered.extend(failed(ready, &error)),
            }
        }
        answered
    }

    fn look_up_led(
        &mut self,
        wanted: &[PartitionQuery],
        topics: &[String],
    ) -> Result<Vec<LookupResult>, NativeError> {
        let ids = self.ids(topics)?.unwrap_or_default();
        let is_unknown = |one: &&PartitionQuery| one.known.is_none();
        let new: Vec<&PartitionQuery> = wanted.iter().filter(is_unknown).collect();
        let unknown: Vec<TopicPartition> = new.iter().map(|one| one.at.clone()).collect();
        let external = self.external_offsets(&unknown);
        let all: Vec<TopicPartition> = wanted.iter().map(|one| one.at.clone()).collect();
        let committed = self.committed(&all)?;
        let starts: HashMap<_, _> = unknown.iter().zip(self.offsets_at_start(&new)?).collect();
        let ends = if self.source.until_latest {
            Some(self.ends(&all)?)
        } else {
            None
        };
        let place = |(index, one): (usize, &PartitionQuery)| {
            let start = match starts.get(&one.at) {
                Some(Err(error)) => return Err(LookupError::Retryable(error.clone())),
                Some(Ok(start)) => *start,
                None => 0,
            };
            let end = match ends.as_ref().map(|ends| &ends[index]) {
                Some(Err(error)) => return Err(LookupError::Retryable(error.clone())),
                Some(Ok(end)) => Some(*end),
                None => None,
            };
            Ok(PartitionOffsets {
                committed: committed.as_ref().map(|committed| committed[index].clone()),
                external: match external.get(&one.at.topic) {
                    Some(Err(error)) => return Err(LookupError::Fatal(error.clone())),
                    Some(Ok(offsets)) => offsets.get(&one.at.partition).copied(),
                    None => None,
                },
                start,
                end,
                too_short: self.too_short(one, end).map_err(LookupError::Retryable)?,
                topic_id: TopicId(ids.get(&one.at.topic).cloned().unwrap_or_default()),
            })
        };
        Ok(wanted.iter().enumerate().map(place).collect())
    }

    /// A topic that ends below the position up to which it was read has lost records. Only a finite
    /// run has to check: otherwise the brokers report it when that position is fetched.
    fn too_short(
        &self,
        wanted: &PartitionQuery,
        end: Option<Position>,
    ) -> Result<Option<Position>, NativeError> {
        let (Some(known), Some(end)) = (wanted.known, end) else {
            return Ok(None);
        };
        if end >= known {
            return Ok(None);
        }
        let (_, high) = self.client.watermarks(&wanted.at, REQUEST_TIMEOUT)?;
        Ok(Position::try_from(high).ok().filter(|high| *high < known))
    }

    /// Where another program stopped, by topic and partition. Each topic is looked up separately,
    /// so that an error with one does not affect the others.
    fn external_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> HashMap<String, Result<HashMap<i32, Position>, SourceError>> {
        let Some(ask) = &self.source.external_offsets else {
            return HashMap::new();
        };
        let mut asked: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for at in partitions {
            asked
                .entry(at.topic.clone())
                .or_default()
                .push((at.topic.clone(), at.partition));
        }
        let offsets = |(topic, asked): (String, Vec<(String, i32)>)| {
            let found = ask(&asked).map(|found| {
                let known = asked
                    .iter()
                    .zip(found)
                    .filter_map(|((_, partition), offset)| Some((*partition, offset?)));
                known.collect()
            });
            (topic, found)
        };
        asked.into_iter().map(offsets).collect()
    }

    fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Option<Vec<CommittedOffset>>, NativeError> {
        if self.source.on_missing_state == OnMissingState::Start {
            return Ok(None);
        }
        self.client
            .committed(
                &mut list_of(partitions, |_| Offset::Invalid),
                REQUEST_TIMEOUT,
            )
            .map(Some)
    }

    fn ends(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Position, NativeError>>, NativeError> {
        let ends = offsets_at(&self.client, partitions, |_| END)?;
        Ok(ends
            .into_iter()
            .map(|end| end.map(|end| end.unwrap_or(0)))
            .collect())
    }

    /// The offsets of `:start` for these new partitions.
    fn offsets_at_start(
        &self,
        new: &[&PartitionQuery],
    ) -> Result<Vec<Result<Position, NativeError>>, NativeError> {
        let partitions: Vec<TopicPartition> = new.iter().map(|one| one.at.clone()).collect();
        let appeared = new.iter().filter(|one| !one.existed);
        let appeared: HashSet<&TopicPartition> = appeared.map(|one| &one.at).collect();
        let times = |at: &TopicPartition| match self.source.start {
            StartOption::Earliest => BEGINNING,
            StartOption::Latest if appeared.contains(at) => BEGINNING,
            StartOption::Latest => END,
            StartOption::At(millis) => millis,
        };
        // Looked up first, so that a record that arrives between the two requests is not skipped.
        let ends = if matches!(self.source.start, StartOption::At(_)) {
            self.ends(&partitions)?
        } else {
            vec![Ok(0); partitions.len()]
        };
        let found = offsets_at(&self.client, &partitions, times)?;
        Ok(found
            .into_iter()
            .zip(ends)
            .map(|(offset, end)| Ok(offset?.unwrap_or(end?)))
            .collect())
    }
}
