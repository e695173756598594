//! Where values end.
//!
//! A record has no length, so its values are walked through by their types. Whatever arrow-avro
//! would trust is checked on the way: strings are UTF-8, and the branches of unions and the symbols
//! of enums exist, and blocks of items have the length that they declare. A few bytes can stand for a
//! lot of memory (nulls of a large `fixed`, an array of a million nulls), so the memory is counted
//! too.

use super::header::long;
use super::padding::PaddedRecord;
use super::schema::{AvroType, Kind, RecordType};

/// The maximum memory of a record.
const MAX_RECORD_MEMORY: u64 = 256 << 20;

/// What an element of an array or a map takes at least, in bytes.
const ITEM_MEMORY: u64 = 8;

/// Reads the values of a record.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    /// The memory of the values so far in bytes, as columns.
    memory: u64,
    /// Where the record is written if it has values without bytes.
    padded: Option<PaddedRecord<'a>>,
}

type Outcome<T> = Result<T, &'static str>;

impl<'a> Cursor<'a> {
    /// Begins with the first of these bytes.
    pub(super) fn new(bytes: &'a [u8], padded: Option<PaddedRecord<'a>>) -> Cursor<'a> {
        Cursor {
            bytes,
            rest: bytes,
            memory: 0,
            padded,
        }
    }

    /// How many bytes were read.
    pub(super) fn read(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// Ends the record after what was read.
    pub(super) fn finish(mut self) {
        self.replace_from(self.read(), &[]);
    }

    /// Replaces what was read from this byte on by others in the padded record.
    fn replace_from(&mut self, from: usize, by: &[u8]) {
        let read = self.read();
        if let Some(padded) = &mut self.padded {
            padded.replace(self.bytes, from..read, by);
        }
    }

    /// The memory of what was read, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    fn long(&mut self) -> Outcome<i64> {
        let (value, rest) = long(self.rest).ok_or("a number is incomplete")?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: i64) -> Outcome<&'a [u8]> {
        let len = usize::try_from(len).map_err(|_| "a length is negative")?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or("a value is longer than its block")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn add(&mut self, memory: u64) -> Outcome<()> {
        self.memory = self.memory.saturating_add(memory);
        match self.memory > MAX_RECORD_MEMORY {
            true => Err("a record takes more than 256 MiB of memory"),
            false => Ok(()),
        }
    }

    fn items(&mut self, mut item: impl FnMut(&mut Self) -> Outcome<()>) -> Outcome<()> {
        loop {
            let start = self.read();
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let declared = (count < 0).then(|| self.long()).transpose()?;
            let from = self.read();
            if declared.is_some() {
                // A padded block has another length.
                self.replace_from(start, &PaddedRecord::count(count.unsigned_abs()));
            }
            for _ in 0..count.unsigned_abs() {
                self.add(ITEM_MEMORY)?;
                item(self)?;
            }
            if declared.is_some_and(|declared| declared != (self.read() - from) as i64) {
                return Err("a block of items has another length than it declares");
            }
        }
    }
}

impl RecordType {
    /// Moves behind a record. An error says what is wrong with it.
    pub(super) fn skip(&self, cursor: &mut Cursor<'_>) -> Outcome<()> {
        let mut types = self.fields.iter().map(|(_, value)| value);
        types.try_for_each(|value| value.skip(cursor))
    }
}

impl AvroType {
    fn skip(&self, cursor: &mut Cursor<'_>) -> Outcome<()> {
        if self.kind.has_no_bytes() {
            cursor.replace_from(cursor.read(), PaddedRecord::VALUE);
            return cursor.add(self.memory);
        }
        match &self.kind {
            Kind::Null => {}
            Kind::Boolean => {
                if cursor.bytes(1)?.iter().any(|byte| *byte > 1) {
                    return Err("a boolean is neither true nor false");
                }
            }
            Kind::Int => {
                i32::try_from(cursor.long()?).map_err(|_| "an int has more than 32 bits")?;
            }
            Kind::Long => {
                cursor.long()?;
            }
            Kind::Fixed(len) => {
                cursor.bytes(*len)?;
            }
            Kind::Bytes | Kind::Text => {
                let len = cursor.long()?;
                let bytes = cursor.bytes(len)?;
                if matches!(self.kind, Kind::Text) && simdutf8::basic::from_utf8(bytes).is_err() {
                    return Err("a string is not UTF-8");
                }
                cursor.add(bytes.len() as u64)?;
            }
            Kind::Enum(symbols) => {
                let symbol = cursor.long()?;
                if !(0..*symbols as i64).contains(&symbol) {
                    return Err("an enum has a symbol that its type does not have");
                }
            }
            Kind::Array(item) => cursor.items(|cursor| item.skip(cursor))?,
            Kind::Map(value) => cursor.items(|cursor| {
                Kind::skip_text(cursor)?;
                value.skip(cursor)
            })?,
            Kind::Record { fields, .. } => {
                return fields.iter().try_for_each(|(_, field)| field.skip(cursor));
            }
            Kind::Nullable { null, value } => {
                return match cursor.long()? {
                    branch if branch == *null => cursor.add(value.memory),
                    0 | 1 => value.skip(cursor),
                    _ => Err("a union has a branch that its type does not have"),
                };
            }
        }
        cursor.add(self.memory)
    }
}

impl Kind {
    fn skip_text(cursor: &mut Cursor<'_>) -> Outcome<()> {
        let len = cursor.long()?;
        let bytes = cursor.bytes(len)?;
        if simdutf8::basic::from_utf8(bytes).is_err() {
            return Err("a string is not UTF-8");
        }
        cursor.add(bytes.len() as u64)
    }
}
