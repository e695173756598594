//! Batches: consecutive records of one split, as they came.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BinaryArray, BinaryBuilder, StringArray, StringBuilder};
use bytes::{Bytes, BytesMut};
use pseidon_delivery::{Position, ResumeFrom, SplitId};

use crate::budget::{Charge, Share};
use crate::memory::ArrayMemory;

/// A source's unit of order: a Kafka partition, a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its lasting name.
    pub id: SplitId,
    /// `@topic`: the topic, the file's path, the stage's name.
    pub topic: String,
    /// `@partition`: the partition, or 0.
    pub partition: i32,
}

/// Which metadata the plan asks a source for beside position, topic and partition, which cost
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaWanted {
    /// `@timestamp`
    pub timestamp: bool,
    /// `@key`
    pub key: bool,
    /// `@headers`
    pub headers: bool,
    /// The key and the headers as they came, for a sink that copies them; no text is expected of
    /// them.
    pub raw: bool,
}

/// Records of one split, in order of their positions. Everything in it is shared, so a clone is
/// cheap.
#[derive(Debug)]
pub struct Batch {
    /// Where they come from.
    pub split: Arc<Split>,
    /// The records' bytes.
    pub payloads: Payloads,
    /// Each record's position; never decreasing. Records that were made of one record share its
    /// position.
    pub positions: Vec<Position>,
    /// The first position that the batch does not cover. Positions without a record (markers, gaps)
    /// are covered too. It is the last record's own position where more records of that position
    /// follow in the next batch.
    pub next: Position,
    /// What the source needs beside a position to continue there, from a position on that the batch
    /// covers, or from [`Batch::next`] on; kept with the position, and not read by the engine.
    pub resume: Option<ResumeFrom>,
    /// Whether no record of the split will come after this batch, in this run or a later one.
    pub ends: bool,
    /// Milliseconds since 1970, where wanted and known; `i64::MIN` stands for none.
    pub timestamps: Option<Vec<i64>>,
    /// Keys, where wanted as text or raw.
    pub keys: Option<BinaryArray>,
    /// Headers as JSON objects, where wanted.
    pub headers: Option<StringArray>,
    /// The rows whose headers are wanted and cannot be JSON, each with the reason.
    pub bad_headers: Vec<(u32, String)>,
    /// Headers as they came, in the form of [`raw_headers`](crate::raw_headers), where wanted.
    pub raw_headers: Option<BinaryArray>,
    /// What the batch holds of the memory budget, until it is dropped.
    charge: Option<Charge>,
}

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = i64::MIN;

impl Batch {
    /// How many records.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is none. Such a batch still moves the split's frontier to [`Batch::next`].
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The bytes it keeps in memory: payloads, keys, headers, timestamps and positions.
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
        self.payloads.memory()
            + self.positions.capacity() * size_of::<Position>()
            + timestamps
            + columns.bytes()
    }

    /// Counts the batch against its source's share of the memory for as long as it lives.
    pub fn charge_to(&mut self, share: &Arc<Share>) {
        self.charge = Some(share.charge(self.memory()));
    }

    /// Counts bytes that were made of the batch against the same share, until what is returned is
    /// dropped.
    pub fn charge_more(&self, bytes: usize) -> Option<Charge> {
        self.charge.as_ref().map(|charge| charge.more(bytes))
    }
}

/// Records' bytes in one shared buffer.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    buffer: Bytes,
    spans: Vec<PayloadSpan>,
    lines: bool,
}

#[derive(Clone, Copy, Debug)]
struct PayloadSpan {
    start: u32,
    /// `u32::MAX` for a record without a payload.
    len: u32,
}

const NO_PAYLOAD: u32 = u32::MAX;

impl Payloads {
    /// Records that are slices `start..start+len` of the buffer, in its order. `lines` promises
    /// that each is followed by one `\n` in the buffer, then at once by the next record.
    ///
    /// # Panics
    /// If a slice lies outside the buffer.
    pub fn new(buffer: Bytes, spans: impl IntoIterator<Item = (u32, u32)>, lines: bool) -> Self {
        let spans: Vec<_> = spans
            .into_iter()
            .map(|(start, len)| PayloadSpan { start, len })
            .collect();
        let inside = |span: &PayloadSpan| span.start as usize + span.len as usize <= buffer.len();
        assert!(
            spans.iter().all(inside),
            "a payload lies outside its buffer"
        );
        Payloads {
            buffer,
            spans,
            lines,
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of all records together.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes that it keeps in memory.
    fn memory(&self) -> usize {
        self.buffer.len() + self.spans.capacity() * size_of::<PayloadSpan>()
    }

    /// The records with these numbers. The buffer is shared.
    pub fn part(&self, rows: Range<usize>) -> Payloads {
        Payloads {
            buffer: self.buffer.clone(),
            spans: self.spans[rows].to_vec(),
            lines: self.lines,
        }
    }

    /// The record's bytes; `None` if it has no payload (a tombstone in Kafka).
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let span = self.spans[row];
        (span.len != NO_PAYLOAD)
            .then(|| &self.buffer[span.start as usize..(span.start + span.len) as usize])
    }

    /// The same as a slice that keeps the buffer alive.
    pub fn get_bytes(&self, row: usize) -> Option<Bytes> {
        let span = self.spans[row];
        (span.len != NO_PAYLOAD).then(|| {
            self.buffer
                .slice(span.start as usize..(span.start + span.len) as usize)
        })
    }

    /// The rows `from..to` as one piece of the buffer, each followed by `\n`, if they lie there
    /// like that. No copy is made.
    pub fn lines(&self, from: usize, to: usize) -> Option<Bytes> {
        if !self.lines || from >= to {
            return None;
        }
        let last = self.spans[to - 1];
        Some(
            self.buffer
                .slice(self.spans[from].start as usize..(last.start + last.len) as usize + 1),
        )
    }
}

/// Puts a batch together from records as they arrive.
pub struct BatchBuilder {
    split: Arc<Split>,
    buffer: BytesMut,
    spans: Vec<PayloadSpan>,
    positions: Vec<Position>,
    timestamps: Option<Vec<i64>>,
    keys: Option<BinaryBuilder>,
    headers: Option<StringBuilder>,
    bad_headers: Vec<(u32, String)>,
    raw_headers: Option<BinaryBuilder>,
    lines: bool,
}

/// What a source knows of a record beside its payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordMeta<'a> {
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The headers as a JSON object.
    pub headers: Option<&'a str>,
    /// Why they cannot be one.
    pub bad_headers: Option<&'a str>,
    /// The headers in the form of [`raw_headers`](crate::raw_headers).
    pub raw_headers: Option<&'a [u8]>,
}

impl BatchBuilder {
    /// A builder with room for `capacity` bytes.
    pub fn new(split: Arc<Split>, wanted: MetaWanted, capacity: usize) -> Self {
        BatchBuilder {
            split,
            buffer: BytesMut::with_capacity(capacity),
            spans: Vec::new(),
            positions: Vec::new(),
            timestamps: wanted.timestamp.then(Vec::new),
            keys: (wanted.key || wanted.raw).then(BinaryBuilder::new),
            headers: wanted.headers.then(StringBuilder::new),
            bad_headers: Vec::new(),
            raw_headers: wanted.raw.then(BinaryBuilder::new),
            lines: true,
        }
    }

    /// Adds a record: its payload is copied, once. The caller keeps a batch below 4 GiB; see
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
            let row = self.positions.len() as u32 - 1;
            self.bad_headers
                .extend(meta.bad_headers.map(|reason| (row, reason.to_owned())));
        }
        if let Some(headers) = &mut self.raw_headers {
            headers.append_option(meta.raw_headers);
        }
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// How many bytes of payloads, keys and headers it holds.
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

    /// The batch, which covers all positions below `next`.
    pub fn finish(mut self, next: Position) -> Batch {
        debug_assert!(self.positions.last().is_none_or(|last| *last <= next));
        Batch {
            split: self.split,
            payloads: Payloads {
                buffer: self.buffer.freeze(),
                spans: self.spans,
                lines: self.lines,
            },
            positions: self.positions,
            next,
            resume: None,
            ends: false,
            timestamps: self.timestamps,
            keys: self.keys.as_mut().map(BinaryBuilder::finish),
            headers: self.headers.as_mut().map(StringBuilder::finish),
            bad_headers: self.bad_headers,
            raw_headers: self.raw_headers.as_mut().map(BinaryBuilder::finish),
            charge: None,
        }
    }
}

impl Batch {
    /// A batch of records that already lie in a buffer; see [`Payloads::new`].
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
            ends: false,
            timestamps: None,
            keys: None,
            headers: None,
            bad_headers: Vec::new(),
            raw_headers: None,
            charge: None,
        }
    }

    /// A batch without records that covers the positions below `next`.
    pub fn without_records(split: Arc<Split>, next: Position) -> Batch {
        Batch::from_payloads(split, Payloads::default(), Vec::new(), next)
    }

    /// The end of a split: no record at or above `next` will ever come. Once everything below is
    /// durable the split is finished.
    pub fn end_of(split: Arc<Split>, next: Position) -> Batch {
        Batch {
            ends: true,
            ..Batch::without_records(split, next)
        }
    }
}
