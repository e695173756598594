//! The records of a batch as their source has them.

use std::borrow::Cow;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonFormat;
use bytes::Bytes;

use crate::memory::ArrayMemory;

/// The bytes of records in one shared buffer, or their columns.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    buffer: Bytes,
    spans: Vec<PayloadSpan>,
    lines: bool,
    header: Option<Bytes>,
    /// The columns of records that have no bytes.
    columns: Option<RecordBatch>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PayloadSpan {
    pub(super) start: u32,
    /// `u32::MAX` for a record without a payload.
    pub(super) len: u32,
}

/// The length of a record without a payload, in [`Payloads::new`].
pub const NO_PAYLOAD: u32 = u32::MAX;

/// Nothing around or between the objects of rows.
#[derive(Debug, Default)]
struct NoFraming;

impl JsonFormat for NoFraming {}

impl Payloads {
    /// Creates records that are slices `start..start+len` of the buffer, in its order; a length of
    /// [`NO_PAYLOAD`] is a record without a payload. With `lines` the caller guarantees that each
    /// has a payload and is followed by one `\n` in the buffer, and then at once by the next
    /// record.
    ///
    /// # Panics
    /// If a slice lies outside the buffer.
    pub fn new(buffer: Bytes, spans: impl IntoIterator<Item = (u32, u32)>, lines: bool) -> Self {
        let spans: Vec<_> = spans
            .into_iter()
            .map(|(start, len)| PayloadSpan { start, len })
            .collect();
        let inside = |span: &PayloadSpan| {
            span.len == NO_PAYLOAD || span.start as usize + span.len as usize <= buffer.len()
        };
        assert!(
            spans.iter().all(inside),
            "a payload lies outside its buffer"
        );
        Payloads::of_spans(buffer, spans, lines)
    }

    pub(super) fn of_spans(buffer: Bytes, spans: Vec<PayloadSpan>, lines: bool) -> Self {
        Payloads {
            buffer,
            spans,
            lines,
            ..Payloads::default()
        }
    }

    /// Records as a source of columns has them, one for each row. They have no bytes.
    pub fn of_columns(columns: RecordBatch) -> Self {
        let span = PayloadSpan {
            start: 0,
            len: NO_PAYLOAD,
        };
        Payloads {
            spans: vec![span; columns.num_rows()],
            columns: Some(columns),
            ..Payloads::default()
        }
    }

    /// The columns of records that have no bytes.
    pub fn columns(&self) -> Option<&RecordBatch> {
        self.columns.as_ref()
    }

    /// Copies records into a buffer of their own.
    pub fn copied<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut buffer, mut spans) = (Vec::new(), Vec::new());
        for record in records {
            spans.push((buffer.len() as u32, record.len() as u32));
            buffer.extend_from_slice(record);
        }
        Payloads::new(buffer.into(), spans, false)
    }

    /// Adds the header of the file that the records are from.
    pub fn with_header(self, header: Option<Bytes>) -> Self {
        Payloads { header, ..self }
    }

    /// The header of the file that the records are from, if the format has one; see
    /// [`Framing::has_header`](crate::framing::Framing::has_header).
    pub fn header(&self) -> Option<&Bytes> {
        self.header.as_ref()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of all records together.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.column_bytes()
    }

    fn column_bytes(&self) -> usize {
        let mut memory = ArrayMemory::default();
        let columns = self.columns.iter().flat_map(RecordBatch::columns);
        columns.for_each(|column| memory.add(column));
        memory.bytes()
    }

    /// The address of the shared buffer.
    pub(crate) fn address(&self) -> usize {
        self.buffer.as_ptr() as usize
    }

    /// The bytes that the payloads keep in memory.
    pub(crate) fn memory(&self) -> usize {
        self.bytes() + self.spans.capacity() * size_of::<PayloadSpan>()
    }

    /// The records with these numbers. Shares the buffer.
    pub fn part(&self, rows: Range<usize>) -> Payloads {
        Payloads {
            buffer: self.buffer.clone(),
            columns: self
                .columns
                .as_ref()
                .map(|columns| columns.slice(rows.start, rows.len())),
            spans: self.spans[rows].to_vec(),
            lines: self.lines,
            header: self.header.clone(),
        }
    }

    /// The shared buffer, which has the bytes of the records in their order, and may have others.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Where the record is in the [buffer](Payloads::buffer); `None` if it has no payload.
    #[inline]
    pub fn place(&self, row: usize) -> Option<Range<usize>> {
        let span = self.spans[row];
        (span.len != NO_PAYLOAD).then(|| span.start as usize..(span.start + span.len) as usize)
    }

    /// The record's bytes; `None` if it has no payload: a tombstone, or a record of columns.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.place(row).map(|place| &self.buffer[place])
    }

    /// The record's bytes; of a record of columns, those that were read as a JSON object.
    ///
    /// # Errors
    /// JSON has no values for the type of a column.
    pub fn printed(&self, row: usize) -> Result<Option<Cow<'_, [u8]>>, ArrowError> {
        let Some(columns) = &self.columns else {
            return Ok(self.get(row).map(Cow::Borrowed));
        };
        let mut object = Vec::new();
        let with_nulls = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = with_nulls.build::<_, NoFraming>(&mut object);
        writer.write(&columns.slice(row, 1))?;
        writer.finish()?;
        drop(writer);
        Ok(Some(Cow::Owned(object)))
    }

    /// All records in turn, each like [`Payloads::get`].
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> + Clone {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The record's bytes as a slice that keeps the buffer alive.
    pub fn get_bytes(&self, row: usize) -> Option<Bytes> {
        self.place(row).map(|place| self.buffer.slice(place))
    }

    /// The rows `from..to` as one piece of the buffer, each followed by `\n`, if the buffer has
    /// this layout. Does not copy.
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
