//! Record layouts, as written in a source's `:format` or in a row of the log table:
//! `txt:sep=tab;ts=0;msg=2:`.
//!
//! | Setting | Formats | Meaning |
//! |---|---|---|
//! | `sep` | txt | the separator between two fields: `byte1` (the byte 0x01, the default), `tab`, `space`, `semicolon`, `pipe`, `comma` |
//! | `ts`, `ts_ms` | txt, avro-txt | the index of the field with the event time: milliseconds since 1970, or an ISO-8601 string; -1: no event time |
//! | `ts_sec` | txt, avro-txt | the same in seconds |
//! | `ts`, `ts_ms`, `ts_sec` | json | the path of the event time |
//! | `msg` | txt | the fields of the message: an index, or a slice as in Python; -1, the default, means all |
//! | `msg` | avro-txt | the index of the field that is the message; -1, the default, is the whole record as JSON |
//! | `fields` | txt, avro-txt | names for the fields of the message, in order (avro-txt: the names that the fields have in the record) |
//! | `bytes` | txt, avro-txt | `true`: the message is binary, not a string |
//! | `registry` | avro-txt | the address of the schema registry |
//!
//! One of `ts`, `ts_ms` and `ts_sec` is required in `txt` and `avro-txt`. `Display` writes a layout
//! back as such a string.

mod read;
mod write;

use std::ops::Range;

use pseidon_dsl::expr::Path;
use pseidon_plugin::Secret;

pub use read::parse;
pub(crate) use read::{SEPARATORS, Settings};

/// The layout of records.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordLayout {
    /// `txt` without settings: the record is one string.
    Line,
    /// `txt:` with settings: fields between separators.
    Txt(TxtLayout),
    /// `avro-txt:`: Avro after the header that Confluent's serializers write.
    AvroTxt(AvroLayout),
    /// `json`, with or without the path of the event time.
    Json(JsonLayout),
    /// `raw`: bytes that no stage decodes.
    Raw,
}

/// Fields between separators.
#[derive(Clone, Debug, PartialEq)]
pub struct TxtLayout {
    /// The byte between two fields.
    pub separator: u8,
    /// Whether empty fields count. Otherwise consecutive separators count as one.
    pub keeps_empty: bool,
    /// Where the event time and the message are.
    pub event: EventLayout,
}

/// Avro after the header that Confluent's serializers write.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroLayout {
    /// The address of the schema registry, without a trailing slash; `None` if the settings have
    /// none.
    pub registry: Option<Secret>,
    /// Where the event time and the message are.
    pub event: EventLayout,
}

/// JSON objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonLayout {
    /// Where the event time is, if the settings name it. The format `json` does not read it itself;
    /// it is for the code that generates the expressions.
    pub time: Option<JsonTime>,
}

/// The event time in a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTime {
    /// The path of its field. It prints as an expression.
    pub path: Path,
    /// The unit of the number at `path`.
    pub unit: EventUnit,
}

/// The unit of event times, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventUnit {
    /// Milliseconds. `txt` and `avro-txt` also accept an ISO-8601 string.
    Milliseconds,
    /// Seconds, always as a number.
    Seconds,
}

/// The fields that are decoded from a record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLayout {
    /// Where the event time is. `None` means that records have no event time; `@timestamp` is the
    /// record's own timestamp.
    pub time: Option<EventTime>,
    /// The fields of the record that form the message.
    pub message: FieldRange,
    /// Whether the message is binary instead of a string.
    pub bytes: bool,
    /// The names of the fields that can be selected individually.
    pub fields: Vec<String>,
}

/// The position of the event time in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// The index of its field, from 0.
    pub field: usize,
    /// The unit of the number in the field.
    pub unit: EventUnit,
}

impl EventLayout {
    /// The name of the field with the event time: `ts`, or `event_ts` if `fields` contains `ts`.
    pub fn time_name(&self) -> &'static str {
        if self.has_field("ts") {
            "event_ts"
        } else {
            "ts"
        }
    }

    /// The name of the field with the message: `msg`, or `event_msg` if `fields` contains `msg`.
    pub fn message_name(&self) -> &'static str {
        if self.has_field("msg") {
            "event_msg"
        } else {
            "msg"
        }
    }

    fn has_field(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field == name)
    }
}

/// A range of a record's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRange {
    /// The index of the first field.
    start: usize,
    /// The index after the last field; `None` means up to the end of the record.
    end: Option<usize>,
}

impl FieldRange {
    /// All fields.
    pub const ALL: FieldRange = FieldRange {
        start: 0,
        end: None,
    };

    /// The field with this index, counted from 0.
    pub fn one(index: usize) -> FieldRange {
        FieldRange {
            start: index,
            end: Some(index.saturating_add(1)),
        }
    }

    /// A slice as in Python, with three exceptions: a negative start counts as 0, a negative end
    /// means the end of the record, and if the end is not after the start, the range has one field.
    pub fn slice(start: i64, end: i64) -> FieldRange {
        let start = usize::try_from(start).unwrap_or(0);
        let end = usize::try_from(end)
            .ok()
            .map(|end| end.max(start.saturating_add(1)));
        FieldRange { start, end }
    }

    /// Whether this is [`FieldRange::ALL`].
    pub fn is_all(self) -> bool {
        self == FieldRange::ALL
    }

    /// The indexes of this range in a record with `fields` fields; empty if the record has too few.
    pub fn clamped(self, fields: usize) -> Range<usize> {
        let end = self.end.map_or(fields, |end| end.min(fields));
        self.start.min(end)..end
    }

    /// How many fields of a record must be located; `None` means all.
    pub fn fields_needed(self) -> Option<usize> {
        self.end
    }

    /// The index of the field, if the range is always exactly one field.
    pub fn single(self) -> Option<usize> {
        (self.end == self.start.checked_add(1)).then_some(self.start)
    }
}

#[cfg(test)]
mod tests;
