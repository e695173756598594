//! The partitions that are ours, and the batches that are being put together for them.

use std::collections::HashMap;
use std::sync::Arc;

use pseidon_delivery::{Position, ResumeFrom, SplitId};
use pseidon_plugin::batch::RecordMeta;
use pseidon_plugin::{Batch, BatchBuilder, Split};

use super::identity::LogIdentity;
use super::outlet::Outlet;
use crate::native::{Fetched, Message, TopicPartition};

/// A batch is handed on when it has that many bytes or records.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 16 << 10;

/// All partitions that are ours.
#[derive(Default)]
pub(super) struct Assignment {
    partitions: Vec<Assigned>,
    /// Where the partition of a message is, by librdkafka's address of its topic and its number:
    /// found anew after every rebalance, since an address means the same topic only as long as a
    /// partition of it stays assigned.
    places: HashMap<(usize, i32), usize>,
}

/// A partition of which it is known where to read.
pub(super) struct ReadySplit {
    pub(super) at: TopicPartition,
    pub(super) split: Arc<Split>,
    /// Who gets its records.
    pub(super) outlet: Arc<Outlet>,
    /// The log that `start` belongs to.
    pub(super) log: LogIdentity,
    pub(super) start: Position,
    /// Where reading ends, in a finite run.
    pub(super) until: Option<Position>,
}

/// A partition that is ours.
pub(super) struct Assigned {
    pub(super) at: TopicPartition,
    pub(super) split: Arc<Split>,
    /// Who gets its records.
    pub(super) outlet: Arc<Outlet>,
    /// The log that is read; its topic is the one that was there when the partition was assigned.
    pub(super) log: LogIdentity,
    /// The offset after the last record that was taken in.
    pub(super) next: Position,
    /// The same when the batch that is open was begun.
    batch_from: Position,
    /// The offset up to which records are known to be durable.
    pub(super) durable: Position,
    /// Where reading ends, in a finite run.
    pub(super) until: Option<Position>,
    /// Whether it has ended.
    pub(super) done: bool,
    builder: Option<BatchBuilder>,
}

impl Assigned {
    /// How many records were read and may not be durable yet, at most.
    pub(super) fn not_durable(&self) -> u64 {
        self.next.saturating_sub(self.durable)
    }

    /// Whether there is nothing more to read.
    pub(super) fn is_done(&self) -> bool {
        self.done || self.until.is_some_and(|until| self.next >= until)
    }

    /// The batch that is open, if any.
    pub(super) fn finish(&mut self) -> Option<Batch> {
        let mut batch = self.builder.take()?.finish(self.next);
        batch.resume = self.resume_after(self.batch_from);
        Some(batch)
    }

    /// What belongs to every position above this one, up to the next. That below them may be of an
    /// earlier epoch does no harm: of two epochs the later one ends at the higher offset.
    fn resume_after(&self, position: Position) -> Option<ResumeFrom> {
        Some(ResumeFrom {
            position: position + 1,
            resume: self.log.to_resume()?,
        })
    }

    /// Positions below `next` hold no further record, and what is there is of this epoch: a batch
    /// that says so, if that is news. Nothing may be open.
    pub(super) fn skip_to(&mut self, next: Position, leader_epoch: Option<i32>) -> Option<Batch> {
        if self.builder.is_some()
            || next <= self.next
            || self.until.is_some_and(|until| next > until)
        {
            return None;
        }
        self.log.leader_epoch = leader_epoch;
        let mut batch = Batch::without_records(self.split.clone(), next);
        batch.resume = self.resume_after(self.next);
        self.next = next;
        Some(batch)
    }
}

impl Assignment {
    /// The partition is ours, to be read from `next`.
    pub(super) fn add(&mut self, begun: ReadySplit) {
        let ReadySplit {
            at,
            split,
            outlet,
            log,
            start,
            until,
        } = begun;
        self.places.clear();
        self.partitions.push(Assigned {
            at,
            split,
            outlet,
            log,
            next: start,
            batch_from: start,
            durable: start,
            until,
            done: false,
            builder: None,
        });
    }

    /// These are ours no longer. What was not handed on of them is dropped.
    pub(super) fn remove(&mut self, gone: impl Fn(&TopicPartition) -> bool) -> Vec<Assigned> {
        self.places.clear();
        self.partitions
            .extract_if(.., |assigned| gone(&assigned.at))
            .collect()
    }

    /// The partitions.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Assigned> {
        self.partitions.iter()
    }

    /// The partitions, to be changed.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Assigned> {
        self.partitions.iter_mut()
    }

    /// The names of the partitions.
    pub(super) fn names(&self) -> Vec<TopicPartition> {
        self.partitions
            .iter()
            .map(|assigned| assigned.at.clone())
            .collect()
    }

    /// Whether everything of every partition was read.
    pub(super) fn is_done(&self) -> bool {
        self.partitions.iter().all(Assigned::is_done)
    }

    /// Takes in messages from number `from` on until a batch is full or a message is not a record.
    /// Says which, and the number to go on with.
    pub(super) fn take_in(&mut self, fetched: &Fetched, from: usize) -> TakenIn {
        // Messages come in runs of one partition, so most need no look into the map.
        let mut run: Option<((usize, i32), usize)> = None;
        for (index, message) in fetched
            .iter_from(from)
            .enumerate()
            .map(|(count, message)| (from + count, message))
        {
            if message.is_error() {
                return TakenIn::Stopped { at: index };
            }
            let key = (message.topic_handle(), message.partition());
            let place = match run {
                Some((of, place)) if of == key => place,
                _ => match self.place(&message) {
                    Some(place) => {
                        run = Some((key, place));
                        place
                    }
                    // Of a partition that was just given back.
                    None => continue,
                },
            };
            if let Some(batch) = self.push(place, message, fetched, index) {
                let outlet = self.partitions[place].outlet.clone();
                return TakenIn::Full {
                    batch: Box::new(batch),
                    outlet,
                    next: index + 1,
                };
            }
        }
        TakenIn::All
    }

    /// Adds one record. Gives the batch that it completes, or that it does not fit into.
    #[inline]
    fn push(
        &mut self,
        place: usize,
        message: Message<'_>,
        fetched: &Fetched,
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
                    || leader_epoch != assigned.log.leader_epoch =>
            {
                assigned.finish()
            }
            _ => None,
        };
        let wanted = assigned.outlet.wanted;
        let builder = assigned.builder.get_or_insert_with(|| {
            assigned.log.leader_epoch = leader_epoch;
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
            Err(reason) => meta.bad_headers = Some(reason),
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

/// What became of fetched messages.
pub(super) enum TakenIn {
    /// All are in open batches.
    All,
    /// A batch is full; go on with number `next`.
    Full {
        batch: Box<Batch>,
        outlet: Arc<Outlet>,
        next: usize,
    },
    /// Number `at` is not a record.
    Stopped { at: usize },
}

/// The split of a partition, as a stage's own.
pub(super) fn split(stage: &str, at: &TopicPartition) -> Arc<Split> {
    let id = SplitId::from(format!("{stage}:{}/{}", at.topic, at.partition));
    Arc::new(Split {
        id,
        topic: at.topic.clone(),
        partition: at.partition,
    })
}

/// How many bytes to set aside for a batch that starts with this message.
fn capacity(fetched: &Fetched, index: usize) -> usize {
    if fetched.is_full() {
        return BATCH_BYTES;
    }
    let Some(first) = fetched.get(index) else {
        return 0;
    };
    let same = |message: &Message<'_>| {
        message.topic_handle() == first.topic_handle() && message.partition() == first.partition()
    };
    let run = fetched.iter_from(index).take_while(same);
    run.map(|message| message.payload().map_or(0, |payload| payload.len() + 1))
        .sum::<usize>()
        .min(BATCH_BYTES)
}
