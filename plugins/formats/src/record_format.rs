//! How records are laid out in their bytes, as a source's `:format` or a log's row says it:
//! `txt:sep=tab;ts=0;msg=2:`.
//!
//! | Setting | Formats | What it says |
//! |---|---|---|
//! | `sep` | txt | what stands between two fields: `byte1` (the byte 0x01, the default), `tab`, `space`, `semicolon`, `pipe`, `comma` |
//! | `ts`, `ts_ms` | txt, avro-txt | the index of the field with the event time: milliseconds since 1970, or an ISO-8601 text; -1: there is none |
//! | `ts_sec` | txt, avro-txt | the same in seconds |
//! | `ts`, `ts_ms`, `ts_sec` | json | the path of the event time |
//! | `msg` | txt | which fields are the message: an index, or a slice as in Python; -1, the default, stands for all |
//! | `msg` | avro-txt | the index of the field that is the message; -1, the default, is the whole record as JSON |
//! | `fields` | txt, avro-txt | names for the fields of the message, in order (avro-txt: the names that the fields have in the record) |
//! | `bytes` | txt, avro-txt | `true`: the message is bytes and no text |
//! | `registry` | avro-txt | the address of the schema registry |
//!
//! One of `ts`, `ts_ms` and `ts_sec` has to be there in `txt` and `avro-txt`. A layout is written
//! back as such a text by its `Display`.

mod read;
mod write;

use std::ops::Range;

use pseidon_dsl::expr::Path;

pub use read::parse;

/// How records are laid out.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordLayout {
    /// `txt` without settings: the record is one text.
    Line,
    /// `txt:` with settings: fields between separators.
    Txt(TxtLayout),
    /// `avro-txt:`: Avro behind the head that Confluent's serializers write.
    AvroTxt(AvroLayout),
    /// `json`, with or without the path of the event time.
    Json(JsonLayout),
    /// `raw`: bytes that no stage decodes.
    Raw,
}

/// Fields between separators.
#[derive(Clone, Debug, PartialEq)]
pub struct TxtLayout {
    /// The byte between two fields. Fields are never empty: separators that follow one another
    /// count as one.
    pub separator: u8,
    /// The event time and the message.
    pub event: EventLayout,
}

/// Avro behind the head that Confluent's serializers write.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroLayout {
    /// The address of the schema registry, if it is given here.
    pub registry: Option<String>,
    /// The event time and the message.
    pub event: EventLayout,
}

/// JSON objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonLayout {
    /// The event time, if the format says it. The format `json` does not read it by itself: it is
    /// for whoever writes the expressions.
    pub time: Option<JsonTime>,
}

/// The event time in a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTime {
    /// Where it is. Its text is an expression.
    pub path: Path,
    /// What it counts.
    pub unit: EventUnit,
}

/// What event times count, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventUnit {
    /// Milliseconds; in `txt` and `avro-txt` an ISO-8601 text is read too.
    Milliseconds,
    /// Seconds.
    Seconds,
}

/// What is made of a record with fields.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLayout {
    /// Where the event time is. `None` stands for the time of the record itself, `@timestamp`.
    pub time: Option<EventTime>,
    /// Which fields the message is.
    pub message: Choice,
    /// Whether the message is bytes and no text.
    pub bytes: bool,
    /// The names of fields that can be had one by one.
    pub fields: Vec<String>,
}

/// Where the event time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// The index of its field, from 0.
    pub field: usize,
    /// What it counts.
    pub unit: EventUnit,
}

impl EventLayout {
    /// The name of the field with the event time: `ts`, or `event_ts` where `fields` names one of
    /// its own so.
    pub fn time_name(&self) -> &'static str {
        if self.names("ts") { "event_ts" } else { "ts" }
    }

    /// The name of the field with the message: `msg`, or `event_msg` where `fields` names one of
    /// its own so.
    pub fn message_name(&self) -> &'static str {
        if self.names("msg") {
            "event_msg"
        } else {
            "msg"
        }
    }

    fn names(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field == name)
    }
}

/// Which fields of a record are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The index of the first.
    start: usize,
    /// The index after the last; `None` means to the end.
    end: Option<usize>,
}

impl Choice {
    /// All fields.
    pub const ALL: Choice = Choice {
        start: 0,
        end: None,
    };

    /// One field.
    pub fn one(index: usize) -> Choice {
        Choice {
            start: index,
            end: Some(index.saturating_add(1)),
        }
    }

    /// A slice as in Python, except that a negative start counts as 0, a negative end as the end of
    /// the record, and one field is chosen where the end is not after the start.
    pub fn slice(start: i64, end: i64) -> Choice {
        let start = usize::try_from(start).unwrap_or(0);
        let end = usize::try_from(end)
            .ok()
            .map(|end| end.max(start.saturating_add(1)));
        Choice { start, end }
    }

    /// Whether it is all fields of every record.
    pub fn is_all(self) -> bool {
        self == Choice::ALL
    }

    /// The chosen ones of so many fields: none if there are not enough.
    pub fn of(self, fields: usize) -> Range<usize> {
        let end = self.end.map_or(fields, |end| end.min(fields));
        self.start.min(end)..end
    }

    /// How many fields of a record have to be found to know the chosen ones; `None` means all.
    pub fn needs(self) -> Option<usize> {
        self.end
    }

    /// The single field that is chosen, if it is never another number of fields.
    pub fn single(self) -> Option<usize> {
        (self.end == self.start.checked_add(1)).then_some(self.start)
    }
}

#[cfg(test)]
mod tests;
