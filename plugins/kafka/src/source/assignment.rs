//! The assigned partitions, and the batches that are being built for them.

use std::collections::HashMap;
use std::sync::Arc;

use pseidon_delivery::{Position, ResumePoint, SplitId};
use pseidon_plugin::batch::RecordMeta;
use pseidon_plugin::{Batch, BatchBuilder, Split};

use super::identity::PartitionIdentity;
use super::outlet::Outlet;
use crate::native::{Message, MessageBatch, TopicPartition};

/// The number of bytes or records at which a batch is emitted.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 16 << 10;

/// All assigned partitions whose start offset is known.
#[derive(Default)]
pub(super) struct Assignment {
    partitions: Vec<AssignedPartition>,
    /// The index of a message's partition, by librdkafka's address of its topic and by its number.
    /// Cleared on every rebalance, since an address stands for the same topic only as long as a
    /// partition of that topic stays assigned.
    places: HashMap<(usize, i32), usize>,
}

/// A partition whose start offset is known.
pub(super) struct ReadySplit {
    pub(super) at: TopicPartition,
    pub(super) split: Arc<Split>,
    /// The run that receives its records.
    pub(super) outlet: Arc<Outlet>,
    /// The topic and the leader epoch that `start` belongs to.
    pub(super) identity: PartitionIdentity,
    pub(super) start: Position,
    /// Where reading ends, in a finite run.
    pub(super) until: Option<Position>,
}

/// An assigned partition, with how far it was read.
pub(super) struct AssignedPartition {
    pub(super) at: TopicPartition,
    pub(super) split: Arc<Split>,
    /// The run that receives its records.
    pub(super) outlet: Arc<Outlet>,
    /// The topic when the partition was assigned, and the epoch of the record before `next`.
    pub(super) identity: PartitionIdentity,
    /// The offset after the last record that was appended to a batch.
    pub(super) next: Position,
    /// The value of `next` when the open batch was started.
    batch_from: Position,
    /// The offset up to which records are known to be durable.
    pub(super) durable: Position,
    /// Where reading ends, in a finite run.
    pub(super) until: Option<Position>,
    /// Whether the end of the partition was reached.
    pub(super) done: bool,
    builder: Option<BatchBuilder>,
}

impl AssignedPartition {
    /// The maximum number of records that were read and may not be durable yet.
    pub(super) fn not_durable(&self) -> u64 {
        self.next.saturating_sub(self.durable)
    }

    /// Whether everything was read.
    pub(super) fn is_done(&self) -> bool {
        self.done || self.until.is_some_and(|until| self.next >= until)
    }

    /// Closes the open batch, if any.
    pub(super) fn finish(&mut self) -> Option<Batch> {
        let mut batch = self.builder.take()?.finish(self.next);
        batch.resume = self.resume_after(self.batch_from);
        Some(batch)
    }

    /// The resume value of every position above this one. Positions below it may be of an earlier
    /// epoch, which does no harm: of two epochs the later one ends at the higher offset.
    fn resume_after(&self, position: Position) -> Option<ResumePoint> {
        Some(ResumePoint {
            position: position + 1,
            resume: self.identity.to_resume()?,
        })
    }

    /// Moves to `next` because there is no record below it, and returns an empty batch that records
    /// the new position and its epoch. Returns `None` if that is not news or if a batch is open.
    pub(super) fn skip_to(&mut self, next: Position, leader_epoch: Option<i32>) -> Option<Batch> {
        if self.builder.is_some()
            || next <= self.next
            || self.until.is_some_and(|until| next > until)
        {
            return None;
        }
        self.identity.leader_epoch = leader_epoch;
        let mut batch = Batch::without_records(self.split.clone(), next);
        batch.resume = self.resume_after(self.next);
        self.next = next;
        Some(batch)
    }
}

impl Assignment {
    /// Adds a partition, to be read from its start offset.
    pub(super) fn add(&mut self, begun: ReadySplit) {
        let ReadySplit {
            at,
            split,
            outlet,
            identity,
            start,
            until,
        } = begun;
        self.places.clear();
        self.partitions.push(AssignedPartition {
            at,
            split,
            outlet,
            identity,
            next: start,
            batch_from: start,
            durable: start,
            until,
            done: false,
            builder: None,
        });
    }

    /// Removes partitions. Their open batches are dropped.
    pub(super) fn remove(
        &mut self,
        gone: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<AssignedPartition> {
        self.places.clear();
        self.partitions
            .extract_if(.., |assigned| gone(&assigned.at))
            .collect()
    }

    /// The partitions.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, AssignedPartition> {
        self.partitions.iter()
    }

    /// The partitions, mutably.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, AssignedPartition> {
        self.partitions.iter_mut()
    }

    /// The names of the partitions.
    pub(super) fn names(&self) -> Vec<TopicPartition> {
        self.partitions
            .iter()
            .map(|assigned| assigned.at.clone())
            .collect()
    }

    /// Whether everything was read of every partition.
    pub(super) fn is_done(&self) -> bool {
        self.partitions.iter().all(AssignedPartition::is_done)
    }

    /// Appends messages from index `from` to batches until a batch is full or a message is not a
    /// record.
    pub(super) fn append(&mut self, fetched: &MessageBatch, from: usize) -> AppendOutcome {
        // Most messages follow one of the same partition, so most need no lookup in the map.
        let mut run: Option<((usize, i32), usize)> = None;
        for (index, message) in fetched
            .iter_from(from)
            .enumerate()
            .map(|(count, message)| (from + count, message))
        {
            if message.is_error() {
                return AppendOutcome::Stopped { at: index };
            }
            let key = (message.topic_handle(), message.partition());
            let place = match run {
                Some((of, place)) if of == key => place,
                _ => match self.place(&message) {
                    Some(place) => {
                        run = Some((key, place));
                        place
                    }
                    // Skip messages of a partition that was just revoked.
                    None => continue,
                },
            };
            if let Some(batch) = self.push(place, message, fetched, index) {
                let outlet = self.partitions[place].outlet.clone();
                return AppendOutcome::Full {
                    batch: Box::new(batch),
                    outlet,
                    next: index + 1,
                };
            }
        }
        AppendOutcome::All
    }

    /// Appends one record. Returns the batch that it completes, or that it does not fit into.
    #[inline]
    fn push(
        &mut self,
        place: usize,
        message: Message<'_>,
        fetched: &MessageBatch,
        index: usize,
    ) -> Option<Batch> {
        let assigned = &mut self.partitions[place];
        let offset = Position::try_from(message.offset()).unwrap_or(0);
        if offset < assigned.next {
            return None;
        }
        if assigned.until.is_some_and(|until| offset >= until) {
            assigned.done = true;
            return None;
        }
        let payload = message.payload();
        let size = payload.map_or(0, |payload| payload.len() + 1);
        let leader_epoch = message.leader_epoch();
        let before = match &assigned.builder {
            Some(builder)
                if builder.bytes() + size > BATCH_BYTES
                    || leader_epoch != assigned.identity.leader_epoch =>
            {
                assigned.finish()
            }
            _ => None,
        };
        let wanted = assigned.outlet.wanted;
        let builder = assigned.builder.get_or_insert_with(|| {
            assigned.identity.leader_epoch = leader_epoch;
            assigned.batch_from = assigned.next;
            BatchBuilder::new(
                assigned.split.clone(),
                wanted,
                capacity(fetched, index).max(size),
            )
        });
        let mut meta = RecordMeta::default();
        if wanted.timestamp {
            meta.timestamp = message.timestamp();
        }
        if wanted.key || wanted.raw {
            meta.key = message.key();
        }
        let raw_headers = if wanted.raw {
            message.raw_headers()
        } else {
            None
        };
        meta.raw_headers = raw_headers.as_deref();
        let headers = if wanted.headers {
            message.headers_as_json()
        } else {
            Ok(None)
        };
        match &headers {
            Ok(headers) => meta.headers = headers.as_deref(),
            Err(reason) => meta.bad_metadata = Some(reason),
        }
        builder.push(offset, payload, meta);
        assigned.next = offset + 1;
        if before.is_none() && builder.len() >= BATCH_RECORDS {
            return assigned.finish();
        }
        before
    }

    fn place(&mut self, message: &Message<'_>) -> Option<usize> {
        let key = (message.topic_handle(), message.partition());
        if let Some(place) = self.places.get(&key) {
            return Some(*place);
        }
        let topic = message.topic();
        let place = self.partitions.iter().position(|assigned| {
            assigned.at.partition == message.partition() && assigned.at.topic == topic
        })?;
        self.places.insert(key, place);
        Some(place)
    }
}

/// The outcome of appending fetched messages.
pub(super) enum AppendOutcome {
    /// All are in open batches.
    All,
    /// A batch is full; continue with the message at `next`.
    Full {
        batch: Box<Batch>,
        outlet: Arc<Outlet>,
        next: usize,
    },
    /// The message at `at` is not a record.
    Stopped { at: usize },
}

/// The split of a partition, named after the stage.
pub(super) fn split(stage: &str, at: &TopicPartition) -> Arc<Split> {
    let id = SplitId::from(format!("{stage}:{}/{}", at.topic, at.partition));
    Arc::new(Split {
        id,
        topic: at.topic.clone(),
        partition: at.partition,
    })
}

/// The number of bytes to allocate for a batch that starts with this message.
fn capacity(fetched: &MessageBatch, index: usize) -> usize {
    if fetched.is_full() {
        return BATCH_BYTES;
    }
    let Some(first) = fetched.get(index) else {
        return 0;
    };
    let same = |message: &Message<'_>| {
        message.topic_handle() == first.topic_handle() && message.partition() == first.partition()
    };
    let mut bytes = 0;
    for message in fetched.iter_from(index).take_while(same) {
        bytes += message.payload().map_or(0, |payload| payload.len() + 1);
        if bytes >= BATCH_BYTES {
            return BATCH_BYTES;
        }
    }
    bytes
}
