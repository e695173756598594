//! What a row means: how its log is read and what a pipeline's text has in the places of
//! `${log:NAME}`.

use std::collections::BTreeMap;
use std::fmt;

use pseidon_formats::record_format::{self, EventLayout, EventUnit, JsonLayout, RecordLayout};

use crate::LogRow;

/// The time that Kafka keeps for a record. It is the same when the record is read again, which a
/// clock is not.
const RECORD_TIME: &str = "@timestamp";

/// What `output_format` may be, with codec and compression: lines of text first, then what needs
/// the types of columns.
const OUTPUTS: [(&str, Output); 7] = [
    ("txt", Output::lines("none")),
    ("gzip", Output::lines("gzip")),
    ("json", Output::lines("gzip")),
    ("snappy", Output::lines("snappy")),
    ("bzip2", Output::lines("bzip2")),
    ("parquet", Output::columns("parquet")),
    ("avro", Output::columns("avro")),
];
/// What NULL and an empty text stand for.
const STANDARD_OUTPUT: Output = Output::lines("gzip");

/// Kafka's limit for the length of a topic's name.
const LONGEST_TOPIC: usize = 249;

/// How a log runs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogPlan {
    /// The Kafka topic: the log's name.
    pub topic: String,
    /// How its records are laid out.
    pub layout: RecordLayout,
    /// Whether what is written has columns (parquet, avro), so that somebody has to say their names
    /// and types.
    pub typed: bool,
    /// The values of `${log:NAME}`: every column of the row, where NULL is the empty text, and over
    /// them those that are derived, `time`, `write`, `codec`, `compression` and `date`.
    pub variables: BTreeMap<String, String>,
}

/// A value in the table that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMistake {
    /// The log's name.
    pub log: String,
    /// The column.
    pub column: String,
    /// What stands there; `None` is NULL.
    pub value: Option<String>,
    /// What was expected.
    pub reason: String,
}

impl fmt::Display for RowMistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowMistake {
            log,
            column,
            value,
            reason,
        } = self;
        match value {
            Some(value) => write!(formatter, "log `{log}`: {column} is `{value}`: {reason}"),
            None => write!(formatter, "log `{log}`: {column} is NULL: {reason}"),
        }
    }
}

impl std::error::Error for RowMistake {}

/// What is written.
#[derive(Clone, Copy)]
struct Output {
    /// The name of the codec with columns; `None` for lines of text.
    columns: Option<&'static str>,
    compression: &'static str,
}

impl Output {
    const fn lines(compression: &'static str) -> Output {
        Output {
            columns: None,
            compression,
        }
    }

    const fn columns(codec: &'static str) -> Output {
        Output {
            columns: Some(codec),
            compression: "snappy",
        }
    }
}

impl LogRow {
    /// What the row means.
    ///
    /// # Errors
    ///
    /// The first value that cannot be right.
    pub fn plan(&self) -> Result<LogPlan, RowMistake> {
        let topic = self.topic()?;
        let layout = self.layout()?;
        let output = self.output()?;
        let typed = output.columns.is_some();
        if typed
            && self
                .column("hive_table_name")
                .is_none_or(|table| table.trim().is_empty())
        {
            return Err(self.mistake(
                "hive_table_name",
                "output_format needs columns, so a table is expected whose columns they are",
            ));
        }
        let mut variables: BTreeMap<String, String> = self
            .columns()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
            .collect();
        let mut derive =
            |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
        let lines = if matches!(layout, RecordLayout::Json(_)) {
            "json"
        } else {
            "txt"
        };
        derive("codec", output.columns.unwrap_or(lines));
        derive("compression", output.compression);
        derive("date", self.date());
        derive("time", &time(&layout));
        derive("write", &written(&layout, typed));
        Ok(LogPlan {
            topic,
            layout,
            typed,
            variables,
        })
    }

    /// The mistake that a column holds what it holds.
    pub fn mistake(&self, column: &str, reason: impl Into<String>) -> RowMistake {
        let value = self.column(column).map(str::to_owned);
        RowMistake {
            log: self.log().to_owned(),
            column: column.to_owned(),
            value,
            reason: reason.into(),
        }
    }

    fn topic(&self) -> Result<String, RowMistake> {
        let name = self.log();
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > LONGEST_TOPIC
            || matches!(name, "." | "..")
            || !name.chars().all(is_legal)
        {
            let reason = format!(
                "the name of a topic was expected: up to {LONGEST_TOPIC} letters, digits, `.`, `_` and `-`"
            );
            return Err(self.mistake("log", reason));
        }
        Ok(name.to_owned())
    }

    fn layout(&self) -> Result<RecordLayout, RowMistake> {
        const EXPECTED: &str = "expected `txt:sep=…;ts=…;msg=…`, `avro-txt:ts=…;msg=…` or `json`";
        let format = self.column("format").unwrap_or_default().trim();
        if format.is_empty() {
            return Err(self.mistake("format", EXPECTED));
        }
        match record_format::parse(format) {
            Ok(RecordLayout::Line) => {
                Err(self.mistake("format", "txt needs `ts`, `ts_ms` or `ts_sec`: the index of the field with the event time, or -1"))
            }
            Ok(RecordLayout::Raw) => Err(self.mistake("format", EXPECTED)),
            Ok(layout) => Ok(layout),
            Err(reason) => Err(self.mistake("format", reason)),
        }
    }

    fn output(&self) -> Result<Output, RowMistake> {
        let name = self
            .column("output_format")
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        if name.is_empty() {
            return Ok(STANDARD_OUTPUT);
        }
        if let Some((_, output)) = OUTPUTS.iter().find(|(known, _)| *known == name) {
            return Ok(*output);
        }
        let reason = match pseidon_dsl::nearest(&name, OUTPUTS.iter().map(|(known, _)| *known)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "expected txt, gzip, json, snappy, bzip2, parquet or avro".to_owned(),
        };
        Err(self.mistake("output_format", reason))
    }

    /// The date part of where files go.
    fn date(&self) -> &'static str {
        match self.column("date_format").map(str::trim) {
            Some("datehour") => "date=%Y%m%d/hour=%Y%m%d%H",
            _ => "date=%Y%m%d",
        }
    }
}

/// The event time as an SQL expression.
fn time(layout: &RecordLayout) -> String {
    let of_event = |event: &EventLayout| {
        event
            .time
            .map_or(RECORD_TIME, |_| event.time_name())
            .to_owned()
    };
    match layout {
        RecordLayout::Txt(txt) => of_event(&txt.event),
        RecordLayout::AvroTxt(avro) => of_event(&avro.event),
        RecordLayout::Json(JsonLayout { time: Some(time) }) => match time.unit {
            EventUnit::Milliseconds => format!("to_timestamp_millis({})", time.path),
            EventUnit::Seconds => format!("to_timestamp_seconds({})", time.path),
        },
        RecordLayout::Json(JsonLayout { time: None }) | RecordLayout::Line | RecordLayout::Raw => {
            RECORD_TIME.to_owned()
        }
    }
}

/// What is written of a record, as a select list; empty for the record as it came.
fn written(layout: &RecordLayout, typed: bool) -> String {
    let of_event = |event: &EventLayout| match typed {
        true => format!("* except ({}, {})", event.time_name(), event.message_name()),
        false => event.message_name().to_owned(),
    };
    match layout {
        RecordLayout::Txt(txt) => of_event(&txt.event),
        RecordLayout::AvroTxt(avro) => of_event(&avro.event),
        RecordLayout::Json(_) | RecordLayout::Line | RecordLayout::Raw if typed => "*".to_owned(),
        RecordLayout::Json(_) | RecordLayout::Line | RecordLayout::Raw => String::new(),
    }
}

#[cfg(test)]
mod tests;
