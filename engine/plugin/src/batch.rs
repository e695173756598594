//! Batches: consecutive records of one split, in their original bytes, or as the columns in which
//! the source has them.

mod origin;
mod payloads;

use std::sync::Arc;

use arrow::array::{BinaryArray, BinaryBuilder, StringArray, StringBuilder};
use bytes::BytesMut;
use pseidon_delivery::{Position, ResumePoint, SplitId};

pub use self::origin::{Origin, RecordMetadata};
use self::payloads::PayloadSpan;
pub use self::payloads::{NO_PAYLOAD, Payloads};
use crate::budget::{Charge, Share};
use crate::memory::ArrayMemory;

/// The byte order mark, with which some programs begin a text in UTF-8. It is not part of the first
/// record.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A source's unit of order, such as a partition of a topic or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The name that identifies the split in the state store, across runs.
    pub id: SplitId,
    /// The value of `@topic`: the topic, the file's path or the stage's name.
    pub topic: String,
    /// The value of `@partition`: the partition, or 0.
    pub partition: i32,
}

/// The metadata that the plan needs from a source beside position, topic and partition, which are
/// always available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedMetadata {
    /// `@timestamp`
    pub timestamp: bool,
    /// `@key`
    pub key: bool,
    /// `@headers`
    pub headers: bool,
    /// The key and the headers as they were read, for a sink that copies them; they need not be
    /// valid text.
    pub raw: bool,
}

/// Records of one split, in order of their positions. All of its content is shared, so a clone is
/// cheap.
#[derive(Debug)]
pub struct Batch {
    /// The split of the records.
    pub split: Arc<Split>,
    /// The bytes of the records, or their columns.
    pub payloads: Payloads,
    /// The position of each record; never decreasing. Records that were derived from one record
    /// share its position.
    pub positions: Vec<Position>,
    /// The first position that the batch does not cover. Positions without a record (markers, gaps)
    /// are covered too. It is the last record's own position if more records of that position
    /// follow in the next batch.
    pub next: Position,
    /// What the source needs beside a position to continue there. It applies from a position on
    /// that the batch covers, or from [`Batch::next`] on. The engine stores it with the position
    /// and does not interpret it.
    pub resume: Option<ResumePoint>,
    /// If no record of the split follows this batch: how the split ends with it.
    pub end: Option<SplitEnd>,
    /// Milliseconds since 1970, if wanted and known; `i64::MIN` for a record without a timestamp.
    pub timestamps: Option<Vec<i64>>,
    /// Keys, if wanted as text or raw.
    pub keys: Option<BinaryArray>,
    /// Headers as JSON objects, if wanted.
    pub headers: Option<StringArray>,
    /// Records that are invalid as the source has them, by their numbers and in order, each with the
    /// reason: metadata is wanted and not available, such as headers that cannot be converted to
    /// JSON, or the record stands for something that cannot be read.
    pub invalid: Vec<(u32, String)>,
    /// Headers as they were read, in the form of [`raw_headers`](crate::raw_headers), if wanted.
    pub raw_headers: Option<BinaryArray>,
    /// Where the records were read first, if they are replayed.
    pub origin: Option<Origin>,
    /// The charge against the memory budget, until the batch is dropped.
    charge: Option<Charge>,
}

/// How a split ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitEnd {
    /// It was read up to [`Batch::next`]. If it has more one day, it is continued there.
    Read,
    /// What it had above [`Batch::next`] does not exist any more, and nothing of it is ever read
    /// again: a file was rewritten, and its new content is another split.
    Gone,
}

/// The timestamp of a record without a timestamp.
pub const NO_TIMESTAMP: i64 = i64::MIN;

impl Batch {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether the batch has no record. Such a batch still moves the split's frontier to
    /// [`Batch::next`].
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The bytes that the batch keeps in memory: payloads, keys, headers, timestamps and positions.
    pub fn size(&self) -> usize {
        self.charge
            .as_ref()
            .map_or_else(|| self.memory(), Charge::bytes)
    }

    fn memory(&self) -> usize {
        let mut columns = ArrayMemory::default();
        self.keys.iter().for_each(|keys| columns.add(keys));
        self.headers.iter().for_each(|headers| columns.add(headers));
        self.raw_headers
            .iter()
            .for_each(|headers| columns.add(headers));
        let timestamps = self
            .timestamps
            .as_ref()
            .map_or(0, |all| all.capacity() * size_of::<i64>());
        let origin = self.origin.as_ref().map_or(0, Origin::memory);
        self.payloads.memory()
            + origin
            + self.positions.capacity() * size_of::<Position>()
            + timestamps
            + columns.bytes()
    }

    /// Charges the batch to its source's share of the memory for as long as it lives.
    pub fn charge_to(&mut self, share: &Arc<Share>) {
        self.charge = Some(share.charge(self.memory()));
    }

    /// Charges bytes that were derived from the batch to the same share, until the returned charge
    /// is dropped.
    pub fn charge_more(&self, bytes: usize) -> Option<Charge> {
        self.charge.as_ref().map(|charge| charge.more(bytes))
    }
}

/// Builds a batch from records as they arrive.
pub struct BatchBuilder {
    split: Arc<Split>,
    buffer: BytesMut,
    spans: Vec<PayloadSpan>,
    positions: Vec<Position>,
    timestamps: Option<Vec<i64>>,
    keys: Option<BinaryBuilder>,
    headers: Option<StringBuilder>,
    invalid: Vec<(u32, String)>,
    raw_headers: Option<BinaryBuilder>,
    lines: bool,
}

/// The metadata of a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordMeta<'a> {
    /// Milliseconds since 1970; `None` for a record without a timestamp.
    pub timestamp: Option<i64>,
    /// The key; `None` for a record without one.
    pub key: Option<&'a [u8]>,
    /// The headers as a JSON object.
    pub headers: Option<&'a str>,
    /// Why wanted metadata is not available, such as headers that cannot be converted to JSON.
    pub bad_metadata: Option<&'a str>,
    /// The headers in the form of [`raw_headers`](crate::raw_headers).
    pub raw_headers: Option<&'a [u8]>,
}

impl BatchBuilder {
    /// Creates a builder with room for `capacity` bytes.
    pub fn new(split: Arc<Split>, wanted: WantedMetadata, capacity: usize) -> Self {
        BatchBuilder {
            split,
            buffer: BytesMut::with_capacity(capacity),
            spans: Vec::new(),
            positions: Vec::new(),
            timestamps: wanted.timestamp.then(Vec::new),
            keys: (wanted.key || wanted.raw).then(BinaryBuilder::new),
            headers: wanted.headers.then(StringBuilder::new),
            invalid: Vec::new(),
            raw_headers: wanted.raw.then(BinaryBuilder::new),
            lines: true,
        }
    }

    /// Adds a record and copies its payload, once. The caller keeps a batch below 4 GiB; see
    /// [`BatchBuilder::bytes`].
    pub fn push(&mut self, position: Position, payload: Option<&[u8]>, meta: RecordMeta<'_>) {
        let start = self.buffer.len() as u32;
        let len = match payload {
            Some(payload) => {
                self.buffer.extend_from_slice(payload);
                self.buffer.extend_from_slice(b"\n");
                payload.len() as u32
            }
            None => {
                self.lines = false;
                NO_PAYLOAD
            }
        };
        self.spans.push(PayloadSpan { start, len });
        self.positions.push(position);
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.push(meta.timestamp.unwrap_or(NO_TIMESTAMP));
        }
        if let Some(keys) = &mut self.keys {
            keys.append_option(meta.key);
        }
        if let Some(headers) = &mut self.headers {
            headers.append_option(meta.headers);
        }
        if let Some(reason) = meta.bad_metadata {
            let row = self.positions.len() as u32 - 1;
            self.invalid.push((row, reason.to_owned()));
        }
        if let Some(headers) = &mut self.raw_headers {
            headers.append_option(meta.raw_headers);
        }
    }

    /// The number of records so far.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The bytes of payloads, keys and headers so far.
    #[inline]
    pub fn bytes(&self) -> usize {
        let keys = self
            .keys
            .as_ref()
            .map_or(0, |keys| keys.values_slice().len());
        let headers = self
            .headers
            .as_ref()
            .map_or(0, |headers| headers.values_slice().len());
        self.buffer.len() + keys + headers
    }

    /// Finishes the batch, which covers all positions below `next`.
    pub fn finish(mut self, next: Position) -> Batch {
        debug_assert!(self.positions.last().is_none_or(|last| *last <= next));
        Batch {
            split: self.split,
            payloads: Payloads::of_spans(self.buffer.freeze(), self.spans, self.lines),
            positions: self.positions,
            next,
            resume: None,
            end: None,
            timestamps: self.timestamps,
            keys: self.keys.as_mut().map(BinaryBuilder::finish),
            headers: self.headers.as_mut().map(StringBuilder::finish),
            invalid: self.invalid,
            raw_headers: self.raw_headers.as_mut().map(BinaryBuilder::finish),
            origin: None,
            charge: None,
        }
    }
}

impl Batch {
    /// Creates a batch of records that are already in a buffer; see [`Payloads::new`].
    pub fn from_payloads(
        split: Arc<Split>,
        payloads: Payloads,
        positions: Vec<Position>,
        next: Position,
    ) -> Batch {
        debug_assert_eq!(payloads.len(), positions.len());
        Batch {
            split,
            payloads,
            positions,
            next,
            resume: None,
            end: None,
            timestamps: None,
            keys: None,
            headers: None,
            invalid: Vec::new(),
            raw_headers: None,
            origin: None,
            charge: None,
        }
    }

    /// Creates a batch without records that covers the positions below `next`.
    pub fn without_records(split: Arc<Split>, next: Position) -> Batch {
        Batch::from_payloads(split, Payloads::default(), Vec::new(), next)
    }

    /// Creates the last batch of a split: no record at or above `next` follows, as far as the source
    /// knows. Once everything below is durable the split is finished.
    pub fn end_of(split: Arc<Split>, next: Position) -> Batch {
        Batch {
            end: Some(SplitEnd::Read),
            ..Batch::without_records(split, next)
        }
    }
}
