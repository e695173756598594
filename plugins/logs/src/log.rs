//! One log: a row of the table, and everything derived from it.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pseidon_delivery::{Reason, WithCauses};
use pseidon_dsl::expr::PathStep;
use pseidon_formats::record_format::{AvroLayout, JsonLayout, JsonTime, RecordLayout, TxtLayout};
use pseidon_hive::{HiveEndpoint, HiveError};
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_mysql::{LogPlan, LogRow};
use pseidon_plugin::Secret;
use pseidon_plugin::format::SourceFormat;
use pseidon_plugin::source::{SourceRun, SourceSetup};
use thiserror::Error;

use crate::LogsSettings;

/// A log whose pipeline can be planned.
pub struct Log {
    topic: String,
    format: SourceFormat,
    schema: Option<SchemaRef>,
    variables: BTreeMap<String, String>,
    /// The consumer that reads its topic; `None` for a log that is planned and not run.
    consumer: Option<Arc<SharedConsumer>>,
}

/// Why a log cannot be run.
#[derive(Debug, Error)]
pub enum LogError {
    /// The row is invalid and has to be changed.
    #[error("{0}")]
    InvalidRow(String),
    /// A server is unreachable; a retry may succeed.
    #[error(transparent)]
    Unreachable(Reason),
}

/// A typical row, for checking a pipeline without a table.
pub fn sample() -> LogRow {
    let columns = [
        ("log", "example"),
        ("format", "txt:sep=tab;ts=0;msg=:"),
        ("output_format", "gzip"),
        ("base_partition", "/log"),
        ("log_partition", "example"),
        ("hive_table_name", "example"),
        ("hive_url", ""),
        ("hive_user", ""),
        ("hive_password", ""),
        ("quarantine", "/tmp/pseidon-quarantine"),
        ("log_group", "default"),
        ("enabled", "1"),
        ("date_format", "datehour"),
    ];
    LogRow::new(
        columns
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
            .collect(),
    )
}

impl Log {
    /// Creates the log of a row. `base` is the pipeline file's folder, `settings` are those of the
    /// stage. If its files have columns, this reads them from a schema file or a server, which
    /// blocks.
    pub fn new(
        row: &LogRow,
        settings: &LogsSettings,
        base: &Path,
        consumer: Arc<SharedConsumer>,
    ) -> Result<Log, LogError> {
        let plan = with_output(row, &settings.output_format)
            .plan()
            .map_err(|error| LogError::InvalidRow(error.to_string()))?;
        if let Some(folder) = &settings.quarantine_below {
            check_quarantine(row, folder)?;
        }
        let columns = if plan.typed {
            Some(columns(row, settings, base)?)
        } else {
            None
        };
        let mut log = Log::of(plan, settings.registry.as_ref(), columns.as_ref());
        log.consumer = Some(consumer);
        Ok(log)
    }

    /// Creates a log that can be planned but not run.
    pub fn without_consumer(row: &LogRow) -> Result<Log, LogError> {
        let plan = row
            .plan()
            .map_err(|error| LogError::InvalidRow(error.to_string()))?;
        Ok(Log::of(plan, None, None))
    }

    fn of(plan: LogPlan, registry: Option<&Secret>, columns: Option<&SchemaRef>) -> Log {
        let LogPlan {
            topic,
            mut layout,
            mut variables,
            ..
        } = plan;
        if let RecordLayout::AvroTxt(avro) = &mut layout {
            avro.registry = avro.registry.take().or_else(|| registry.cloned());
        }
        let schema = match columns {
            Some(columns) => Some(typed(&mut layout, columns, &mut variables)),
            None => {
                // Lines are passed through unchanged, in any encoding.
                if let RecordLayout::Txt(txt) = &mut layout {
                    txt.event.bytes = true;
                }
                None
            }
        };
        Log {
            topic,
            format: layout.to_string().into(),
            schema,
            variables,
            consumer: None,
        }
    }

    /// The topic, which is also the name of the log.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The format of its records, as in a pipeline file.
    pub(crate) fn format(&self) -> &SourceFormat {
        &self.format
    }

    /// Its fields; `None` if its files have no columns.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// The value of `${log:NAME}`. The error lists the valid names.
    pub fn variable(&self, name: &str) -> Result<String, String> {
        self.variables.get(name).cloned().ok_or_else(|| {
            let names = self
                .variables
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            format!("unknown variable `log:{name}`; expected one of {names}")
        })
    }

    /// Attaches its topic to the consumer of all logs. Without a consumer, returns `reading` as the
    /// error.
    pub(crate) fn attach(&self, setup: &SourceSetup, reading: SourceRun) -> Result<(), SourceRun> {
        match &self.consumer {
            Some(consumer) => {
                consumer.attach(&self.topic, setup, reading);
                Ok(())
            }
            None => Err(reading),
        }
    }
}

/// Checks that the row's quarantine folder is in `folder`.
fn check_quarantine(row: &LogRow, folder: &Path) -> Result<(), LogError> {
    const COLUMN: &str = "quarantine";

    let path = Path::new(row.column(COLUMN).unwrap_or_default());
    let leads_out = path.components().any(|part| part == Component::ParentDir);
    if path.starts_with(folder) && !leads_out {
        return Ok(());
    }
    let reason = format!(
        "expected a folder in {} (`:quarantine-below`)",
        folder.display()
    );
    Err(LogError::InvalidRow(row.error(COLUMN, reason).to_string()))
}

/// Sets the row's output format if it has none.
fn with_output(row: &LogRow, output_format: &str) -> LogRow {
    let mut columns = row.columns().clone();
    let own = columns.entry("output_format".to_owned()).or_default();
    if own.as_deref().is_none_or(|own| own.trim().is_empty()) {
        *own = Some(output_format.to_owned());
    }
    LogRow::new(columns)
}

/// The fields of a log whose files have these columns. If the event time is a field of its own, it
/// comes before them and is not written.
fn typed(
    layout: &mut RecordLayout,
    columns: &SchemaRef,
    variables: &mut BTreeMap<String, String>,
) -> SchemaRef {
    let names: Vec<String> = columns
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let time = match layout {
        RecordLayout::Txt(TxtLayout { event, .. })
        | RecordLayout::AvroTxt(AvroLayout { event, .. }) => {
            event.fields.clone_from(&names);
            let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
            event
                .time
                .map(|_| Field::new(event.time_name(), milliseconds, true))
        }
        RecordLayout::Json(JsonLayout { time: Some(time) }) => {
            json_time_field(time).filter(|field| !names.contains(field.name()))
        }
        RecordLayout::Json(JsonLayout { time: None }) | RecordLayout::Line | RecordLayout::Raw => {
            None
        }
    };
    let is_field = matches!(layout, RecordLayout::Txt(_) | RecordLayout::AvroTxt(_));
    if let Some(time) = time.as_ref().filter(|_| is_field) {
        variables.insert("time".to_owned(), time.name().clone());
    }
    let write = time.as_ref().map_or_else(
        || "*".to_owned(),
        |time| format!("* except (\"{}\")", time.name()),
    );
    variables.insert("write".to_owned(), write);
    let fields: Vec<_> = time
        .map(Arc::new)
        .into_iter()
        .chain(columns.fields().iter().cloned())
        .collect();
    Arc::new(Schema::new(fields))
}

/// The field that the path of an event time requires: an integer, nested in one struct for each
/// further step of the path. `None` if the path has an index.
fn json_time_field(time: &JsonTime) -> Option<Field> {
    let mut names = Vec::new();
    for step in &time.path.0 {
        match step {
            PathStep::Field(name) => names.push(name),
            PathStep::Index(_) => return None,
        }
    }
    let mut field: Option<Field> = None;
    for name in names.into_iter().rev() {
        let kind = field.map_or(DataType::Int64, |inner| {
            DataType::Struct(vec![inner].into())
        });
        field = Some(Field::new(name, kind, true));
    }
    field
}

/// The columns of the row's Hive table.
fn columns(row: &LogRow, settings: &LogsSettings, base: &Path) -> Result<SchemaRef, LogError> {
    let named = |column: &str| {
        row.column(column)
            .map(str::trim)
            .filter(|value| !value.is_empty())
    };
    let Some(table) = named("hive_table_name") else {
        return Err(LogError::InvalidRow(format!(
            "log `{}`: hive_table_name is empty, but files with columns require a table",
            row.log()
        )));
    };
    if let Some(folder) = &settings.schemas {
        let found = pseidon_hive::read_file(&base.join(folder), table)
            .map_err(|error| LogError::InvalidRow(WithCauses(&error).to_string()))?;
        if let Some(schema) = found {
            return Ok(schema);
        }
    }
    let Some(place) = settings
        .metastore
        .as_ref()
        .map(Secret::expose)
        .or_else(|| named("hive_url"))
    else {
        return Err(LogError::InvalidRow(format!(
            "log `{}`: no source for the columns of `{table}`: \
             set hive_url in the row, or :metastore or :schemas in the stage",
            row.log()
        )));
    };
    // The URL may contain a password, so it is not shown.
    let place: HiveEndpoint = place.parse().map_err(|error| {
        let reason = WithCauses(&error);
        LogError::InvalidRow(format!("log `{}`: hive_url: {reason}", row.log()))
    })?;
    let place = place.with_login(named("hive_user"), named("hive_password"));
    pseidon_hive::columns(&place, table).map_err(|error| match error {
        HiveError::Unreachable(reason) => {
            let what = format!("log `{}`: cannot read the columns of `{table}`", row.log());
            LogError::Unreachable(Reason::caused_by(what, reason))
        }
        other => LogError::InvalidRow(format!(
            "log `{}`: hive_table_name `{table}`: {}",
            row.log(),
            WithCauses(&other)
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_is_in_the_folder_for_them() {
        for (quarantine, below, is_valid) in [
            ("/data/quarantine/clicks", "/data/quarantine", true),
            ("/data/quarantine", "/data/quarantine/", true),
            ("/data//quarantine/./x", "/data/quarantine", true),
            ("out/quarantine", "out", true),
            ("/data/quarantine2", "/data/quarantine", false),
            ("/data/quarantine/../../etc", "/data/quarantine", false),
            ("quarantine", "/data/quarantine", false),
            ("/etc", "out", false),
            ("", "/data/quarantine", false),
        ] {
            let columns = [("log", "clicks"), ("quarantine", quarantine)];
            let columns = columns.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
            let row = LogRow::new(columns.into());
            let outcome = check_quarantine(&row, Path::new(below));
            assert_eq!(outcome.is_ok(), is_valid, "{quarantine}: {outcome:?}");
            if let Err(error) = outcome {
                let expected = format!(
                    "log `clicks`: quarantine is `{quarantine}`: expected a folder in {below} \
                     (`:quarantine-below`)"
                );
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}
