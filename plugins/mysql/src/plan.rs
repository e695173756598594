//! The plan of a row: how its log is decoded, and the values of `${log:NAME}` in a pipeline file.

use std::collections::BTreeMap;
use std::fmt;

use pseidon_dsl::printable::{beginning, printable, shortened};
use pseidon_formats::record_format::{self, EventLayout, EventUnit, JsonLayout, RecordLayout};

use crate::LogRow;

/// The timestamp that Kafka stores for a record. Unlike wall-clock time it is the same when the
/// record is re-read.
const RECORD_TIME: &str = "@timestamp";

/// The values of `output_format`, with codec and compression: first lines of text, then the formats
/// that need typed columns.
const OUTPUT_FORMATS: [(&str, Output); 7] = [
    ("txt", Output::lines("none")),
    ("gzip", Output::lines("gzip")),
    ("json", Output::lines("gzip")),
    ("snappy", Output::lines("snappy")),
    ("bzip2", Output::lines("bzip2")),
    ("parquet", Output::columns("parquet")),
    ("avro", Output::columns("avro")),
];
/// The output of NULL and of an empty string.
const DEFAULT_OUTPUT: Output = Output::lines("gzip");

/// How many characters of a value are in an error.
const MAX_SHOWN: usize = 100;
/// Kafka's limit for the length of a topic's name.
const MAX_TOPIC_LENGTH: usize = 249;

/// How a log runs. `{:?}` prints only the names of the variables: one is `hive_password`.
#[derive(Clone, PartialEq)]
pub struct LogPlan {
    /// The Kafka topic: the log's name.
    pub topic: String,
    /// The format of its records.
    pub layout: RecordLayout,
    /// Whether the output has columns (parquet, avro), so that their names and types must be
    /// defined elsewhere.
    pub typed: bool,
    /// The values of `${log:NAME}`: every column of the row, where NULL is the empty string,
    /// overridden by the derived values `time`, `write`, `codec`, `compression` and `date`.
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for LogPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogPlan")
            .field("topic", &self.topic)
            .field("layout", &self.layout)
            .field("typed", &self.typed)
            .field("variables", &self.variables.keys())
            .finish()
    }
}

/// An invalid value in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The log's name; empty if that is NULL.
    pub log: String,
    /// The name of the column in the table.
    pub column: String,
    /// The value in the row; `None` is NULL.
    pub value: Option<String>,
    /// What was expected.
    pub reason: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowError {
            log,
            column,
            value,
            reason,
        } = self;
        let log = beginning(log, MAX_SHOWN);
        let text = match value {
            Some(value) => {
                let value = beginning(value, MAX_SHOWN);
                format!("log `{log}`: {column} is `{value}`: {reason}")
            }
            None => format!("log `{log}`: {column} is NULL: {reason}"),
        };
        formatter.write_str(&printable(&shortened(&text)))
    }
}

impl std::error::Error for RowError {}

/// The format of the output.
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
    /// Interprets the row.
    ///
    /// # Errors
    ///
    /// The first invalid value.
    pub fn plan(&self) -> Result<LogPlan, RowError> {
        let topic = self.topic()?;
        let layout = self.layout()?;
        let output = self.output()?;
        let typed = output.columns.is_some();
        if typed
            && self
                .column("hive_table_name")
                .is_none_or(|table| table.trim().is_empty())
        {
            return Err(self.error(
                "hive_table_name",
                "output_format needs columns: expected the Hive table that defines them",
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
        derive("write", &select_list(&layout, typed));
        Ok(LogPlan {
            topic,
            layout,
            typed,
            variables,
        })
    }

    /// The error for the value of a column.
    pub fn error(&self, column: &str, reason: impl Into<String>) -> RowError {
        let value = self.column(column).map(str::to_owned);
        RowError {
            log: self.log().to_owned(),
            column: column.to_owned(),
            value,
            reason: reason.into(),
        }
    }

    fn topic(&self) -> Result<String, RowError> {
        let name = self.log();
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > MAX_TOPIC_LENGTH
            || matches!(name, "." | "..")
            || !name.chars().all(is_legal)
        {
            let reason = format!(
                "expected the name of a topic: up to {MAX_TOPIC_LENGTH} letters, digits, `.`, `_` \
                 and `-`"
            );
            return Err(self.error("log", reason));
        }
        Ok(name.to_owned())
    }

    fn layout(&self) -> Result<RecordLayout, RowError> {
        const EXPECTED: &str = "expected `txt:sep=…;ts=…;msg=…`, `avro-txt:ts=…;msg=…` or `json`";
        let format = self.column("format").unwrap_or_default().trim();
        if format.is_empty() {
            return Err(self.error("format", EXPECTED));
        }
        match record_format::parse(format) {
            Ok(RecordLayout::Line) => Err(self.error(
                "format",
                "missing setting `ts`, `ts_ms` or `ts_sec` of txt; expected the index of the \
                 event-time field, or -1",
            )),
            Ok(RecordLayout::Raw) => Err(self.error("format", EXPECTED)),
            Ok(layout) => Ok(layout),
            Err(reason) => Err(self.error("format", reason)),
        }
    }

    fn output(&self) -> Result<Output, RowError> {
        let name = self
            .column("output_format")
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        if name.is_empty() {
            return Ok(DEFAULT_OUTPUT);
        }
        if let Some((_, output)) = OUTPUT_FORMATS.iter().find(|(known, _)| *known == name) {
            return Ok(*output);
        }
        let reason =
            match pseidon_dsl::nearest(&name, OUTPUT_FORMATS.iter().map(|(known, _)| *known)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "expected txt, gzip, json, snappy, bzip2, parquet or avro".to_owned(),
            };
        Err(self.error("output_format", reason))
    }

    /// The date part of the paths of files.
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

/// The select list of what is written of a record; empty if the record is written as it was read.
fn select_list(layout: &RecordLayout, typed: bool) -> String {
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
