//! The partitions of a topic, followed files, and what the source notices about them.
//!
//! This is a model of the sources' own bookkeeping: it compares the state with the consumer group
//! and the topic.

use fastrand::Rng;
use pseidon_delivery::{Position, ResumeToken};

use super::World;
use crate::names::ProcessId;
use crate::scenario::Mutation;

/// The number of keys, each with a bucket of its own.
pub(crate) const KEYS: u8 = 3;

/// The rows that are derived from a record, each with its bucket: some records become several rows,
/// of which two are in one bucket.
pub(crate) fn rows_of(record: &Record) -> Vec<(Position, Option<u8>)> {
    match *record {
        (position, Some(key)) if position % 5 == 2 => [key, (key + 1) % KEYS, key]
            .map(|key| (position, Some(key)))
            .to_vec(),
        other => vec![other],
    }
}

/// What the source stores for a file of which nothing was read.
const NOTHING: &str = "nothing";

/// A record: its position, and its key unless it is filtered out.
pub(crate) type Record = (Position, Option<u8>);

/// A partition of a topic, or a followed file.
pub(crate) struct Partition {
    /// Whether it is a file: that has neither an id nor a consumer group, so only its content shows
    /// whether it is the same.
    pub(crate) is_file: bool,
    /// The records of each generation: a topic that is created again, or a file that is written
    /// again, begins a new one.
    pub(crate) generations: Vec<Vec<Record>>,
    /// The instance to which the group has assigned it.
    pub(crate) assigned: Option<ProcessId>,
    /// The offset that the group has committed.
    pub(crate) committed: Option<Position>,
    /// The generation and the position at which reading first began.
    pub(crate) begun: Option<(u32, Position)>,
}

/// How far a partition is read.
#[derive(Clone, Copy)]
pub(crate) struct PartitionProgress {
    pub(crate) position: Position,
    pub(crate) generation: u32,
    /// How many rows of the record at that position were read already, of those that are derived
    /// from it.
    pub(crate) rows: usize,
}

/// Rows of a partition that are read together.
pub(crate) struct ReadRows {
    pub(crate) rows: Vec<(Position, Option<u8>)>,
    /// How far the partition is read with them.
    pub(crate) progress: PartitionProgress,
    /// The position below which they are said to be complete.
    pub(crate) next: Position,
    /// What the source stores beside that position.
    pub(crate) resume: ResumeToken,
}

impl Partition {
    pub(crate) fn new(rng: &mut Rng, is_file: bool) -> Partition {
        let mut partition = Partition {
            is_file,
            generations: vec![Vec::new()],
            assigned: None,
            committed: None,
            begun: None,
        };
        let count = rng.usize(0..12);
        partition.produce(rng, count);
        partition
    }

    /// The number of the current generation.
    pub(crate) fn generation(&self) -> u32 {
        self.generations.len() as u32
    }

    /// The current records.
    fn records(&self) -> &[Record] {
        self.generations.last().map_or(&[], Vec::as_slice)
    }

    /// The first position after all records.
    pub(crate) fn end(&self) -> Position {
        self.records()
            .last()
            .map_or(0, |(position, _)| position + 1)
    }

    /// Adds records. In a topic some positions have none.
    pub(crate) fn produce(&mut self, rng: &mut Rng, count: usize) {
        for _ in 0..count {
            let gap = if !self.is_file && rng.u32(0..5) == 0 {
                rng.u64(1..4)
            } else {
                0
            };
            let key = (rng.u32(0..10) < 7).then(|| rng.u8(0..KEYS));
            let position = self.end() + gap;
            if let Some(records) = self.generations.last_mut() {
                records.push((position, key));
            }
        }
    }

    /// Replaces all records by others. A file grows at least to its old size at once: a shorter one
    /// is always noticed.
    pub(crate) fn begin_generation(&mut self, rng: &mut Rng) {
        let end = self.end();
        self.generations.push(Vec::new());
        if !self.is_file {
            self.committed = None;
        }
        let at_least = if self.is_file || rng.bool() { end } else { 0 };
        while self.end() < at_least {
            self.produce(rng, 1);
        }
        let more = rng.usize(1..6);
        self.produce(rng, more);
    }

    /// What the source stores beside a position: the id of the topic, or a digest of the last bytes
    /// of the file before the position.
    pub(crate) fn resume(&self, position: Position, generation: u32) -> ResumeToken {
        if !self.is_file {
            return ResumeToken::from(format!("topic {generation}"));
        }
        let before = self
            .generations
            .get(generation as usize - 1)
            .and_then(|records| records.iter().rfind(|(at, _)| *at < position));
        ResumeToken::from(before.map_or(NOTHING.into(), |(at, _)| {
            format!("record {at} of {generation}")
        }))
    }

    /// Whether this still matches what the source has stored.
    fn still_has(&self, resume: &ResumeToken) -> bool {
        resume.as_str() == NOTHING || generation_of(resume) == self.generation()
    }
}

/// The generation for which this was stored; the first one if nothing was read yet.
pub(crate) fn generation_of(resume: &ResumeToken) -> u32 {
    resume
        .as_str()
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(1)
}

impl World {
    fn is_checked(&self, partition: usize) -> bool {
        let without = if self.partitions[partition].is_file {
            Mutation::UncheckedFiles
        } else {
            Mutation::UncheckedTopics
        };
        self.mutation != Some(without)
    }

    /// Where to read a partition that was taken, given the lowest position of all sinks and what
    /// belongs to it. An error is evidence that something has lost data.
    pub(crate) fn start_of(
        &mut self,
        number: usize,
        committed: Option<Position>,
        known: Option<(Position, Option<ResumeToken>)>,
    ) -> Result<PartitionProgress, String> {
        let partition = &self.partitions[number];
        let generation = partition.generation();
        let trusts_group = self.mutation != Some(Mutation::UncheckedOffsets);
        let Some((low, resume)) = known else {
            if trusts_group && committed.is_some() {
                return Err(format!(
                    "the group has offsets of partition {number}, which the state does not know"
                ));
            }
            let end = partition.end();
            let position = if self.rng.u32(0..4) == 0 { end } else { 0 };
            return Ok(PartitionProgress {
                position,
                generation,
                rows: 0,
            });
        };
        if trusts_group && committed.is_some_and(|committed| committed > low) {
            return Err(format!(
                "the group has {committed:?} of partition {number}, but the state has {low}"
            ));
        }
        if self.is_checked(number) && resume.is_some_and(|resume| !partition.still_has(&resume)) {
            return Err(format!("partition {number} is not what was read before"));
        }
        if low > partition.end() {
            return Err(format!("partition {number} ends before the position {low}"));
        }
        Ok(PartitionProgress {
            position: low,
            generation,
            rows: 0,
        })
    }

    /// Up to this many records of a partition from a position on.
    fn read(
        &self,
        number: usize,
        held: PartitionProgress,
        count: usize,
    ) -> Result<Vec<Record>, String> {
        let partition = &self.partitions[number];
        if self.is_checked(number)
            && !partition.still_has(&partition.resume(held.position, held.generation))
        {
            return Err(format!("partition {number} is not what was read before"));
        }
        let records = partition.records();
        // What identifies files is stored for whole batches: of one record each, so that it exists
        // for every position.
        let count = if partition.is_file { 1 } else { count };
        let first = records.partition_point(|(position, _)| *position < held.position);
        Ok(records[first..].iter().take(count).copied().collect())
    }

    /// Reads this many records of a partition, or, if the batch may end inside a position, some of
    /// the rows that are derived from them; `None` if there are none.
    pub(crate) fn read_rows(
        &mut self,
        number: usize,
        held: PartitionProgress,
        count: usize,
        may_end_inside: bool,
    ) -> Result<Option<ReadRows>, String> {
        let records = self.read(number, held, count)?;
        let rows: Vec<(Position, Option<u8>)> = records.iter().flat_map(rows_of).collect();
        let first = if held.rows < rows.len() { held.rows } else { 0 };
        if rows.is_empty() {
            return Ok(None);
        }
        let upto = if may_end_inside {
            self.rng.usize(first + 1..=rows.len())
        } else {
            rows.len()
        };
        let last = rows[upto - 1].0;
        let is_cut = rows
            .get(upto)
            .is_some_and(|(position, _)| *position == last);
        // What is read now belongs to the current generation.
        let partition = &self.partitions[number];
        let progress = PartitionProgress {
            position: if is_cut { last } else { last + 1 },
            generation: partition.generation(),
            rows: if is_cut {
                rows[..upto]
                    .iter()
                    .filter(|(position, _)| *position == last)
                    .count()
            } else {
                0
            },
        };
        let next = if self.mutation == Some(Mutation::CutPositions) {
            last + 1
        } else {
            progress.position
        };
        Ok(Some(ReadRows {
            rows: rows[first..upto].to_vec(),
            progress,
            next,
            resume: partition.resume(progress.position, progress.generation),
        }))
    }
}
