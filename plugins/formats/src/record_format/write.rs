//! Formats a layout as the string that it is parsed from.

use std::fmt::{self, Display, Formatter};

use super::read::SEPARATORS;
use super::{EventLayout, EventUnit, FieldRange, RecordLayout};

impl Display for RecordLayout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            RecordLayout::Line => f.write_str("txt"),
            RecordLayout::Raw => f.write_str("raw"),
            RecordLayout::Json(layout) => match &layout.time {
                Some(time) => write!(f, "json:{}={}", time.unit.setting(), time.path),
                None => f.write_str("json"),
            },
            RecordLayout::Txt(layout) => {
                let separator = SEPARATORS
                    .iter()
                    .find(|(_, byte)| *byte == layout.separator);
                let empty = match layout.keeps_empty {
                    true => ";empty=keep",
                    false => "",
                };
                let separator = separator.map_or("byte1", |(name, _)| name);
                write!(f, "txt:sep={separator}{empty};{}", layout.event)
            }
            RecordLayout::AvroTxt(layout) => {
                write!(f, "avro-txt:{}", layout.event)?;
                layout
                    .registry
                    .iter()
                    .try_for_each(|address| write!(f, ";registry={}", address.expose()))
            }
        }
    }
}

/// The settings without those that have their default value.
impl Display for EventLayout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.time {
            Some(time) => write!(f, "{}={}", time.unit.setting(), time.field)?,
            None => f.write_str("ts=-1")?,
        }
        if !self.message.is_all() {
            write!(f, ";msg={}", self.message)?;
        }
        if !self.fields.is_empty() {
            write!(f, ";fields={}", self.fields.join(","))?;
        }
        f.write_str(if self.bytes { ";bytes=true" } else { "" })
    }
}

impl Display for FieldRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.single(), self.end) {
            (Some(index), _) => index.fmt(f),
            (None, Some(end)) => write!(f, "{}:{end}", self.start),
            (None, None) => write!(f, "{}:", self.start),
        }
    }
}

impl EventUnit {
    fn setting(self) -> &'static str {
        match self {
            EventUnit::Milliseconds => "ts",
            EventUnit::Seconds => "ts_sec",
        }
    }
}
