//! One log: its row, and what follows from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pseidon_dsl::expr::Step;
use pseidon_formats::record_format::{AvroLayout, JsonLayout, JsonTime, RecordLayout, TxtLayout};
use pseidon_hive::{HiveError, Place};
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_mysql::{LogPlan, LogRow};
use pseidon_plugin::source::{Reading, SourceSetup};
use thiserror::Error;

use crate::Settings;

/// One log, ready to be planned.
pub struct Log {
    topic: String,
    format: String,
    schema: Option<SchemaRef>,
    variables: BTreeMap<String, String>,
    /// What reads its topic; a log that is only looked at has none.
    consumer: Option<Arc<SharedConsumer>>,
}

/// Why a log cannot be run.
#[derive(Debug, Error)]
pub enum LogError {
    /// Its row has to be changed.
    #[error("{0}")]
    Wrong(String),
    /// It may work when tried again.
    #[error("{0}")]
    Unreachable(String),
}

/// A row as most are, for checking a pipeline without a table.
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
    /// The log that a row describes. `base` is the pipeline file's folder, `settings` are those of
    /// the stage; the columns of its files are asked for where they are kept, which blocks.
    pub fn new(
        row: &LogRow,
        settings: &Settings,
        base: &Path,
        consumer: Arc<SharedConsumer>,
    ) -> Result<Log, LogError> {
        let plan = with_output(row, &settings.output_format)
            .plan()
            .map_err(|mistake| LogError::Wrong(mistake.to_string()))?;
        let columns = if plan.typed {
            Some(columns(row, settings, base)?)
        } else {
            None
        };
        let mut log = Log::of(plan, settings.registry.as_deref(), columns.as_ref());
        log.consumer = Some(consumer);
        Ok(log)
    }

    /// A log that can be planned and not run.
    pub fn unread(row: &LogRow) -> Result<Log, LogError> {
        let plan = row
            .plan()
            .map_err(|mistake| LogError::Wrong(mistake.to_string()))?;
        Ok(Log::of(plan, None, None))
    }

    fn of(plan: LogPlan, registry: Option<&str>, columns: Option<&SchemaRef>) -> Log {
        let LogPlan {
            topic,
            mut layout,
            mut variables,
            ..
        } = plan;
        if let RecordLayout::AvroTxt(avro) = &mut layout {
            avro.registry = avro.registry.take().or(registry.map(str::to_owned));
        }
        let schema = match columns {
            Some(columns) => Some(typed(&mut layout, columns, &mut variables)),
            None => {
                // Lines pass as they came, in whatever encoding.
                if let RecordLayout::Txt(txt) = &mut layout {
                    txt.event.bytes = true;
                }
                None
            }
        };
        Log {
            topic,
            format: layout.to_string(),
            schema,
            variables,
            consumer: None,
        }
    }

    /// Its topic, which is its name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The format of its records.
    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// Its fields, where a table says them.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// What `${log:NAME}` stands for. An error names what there is.
    pub fn variable(&self, name: &str) -> Result<String, String> {
        self.variables.get(name).cloned().ok_or_else(|| {
            let names = self
                .variables
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            format!("a log has no `{name}`; it has {names}")
        })
    }

    /// Has its topic read by the consumer of all logs; without one, what was given comes back.
    pub(crate) fn attach(&self, setup: &SourceSetup, reading: Reading) -> Result<(), Reading> {
        match &self.consumer {
            Some(consumer) => {
                consumer.attach(&self.topic, setup, reading);
                Ok(())
            }
            None => Err(reading),
        }
    }
}

/// The row with this output format if it has none of its own.
fn with_output(row: &LogRow, output_format: &str) -> LogRow {
    let mut columns = row.columns().clone();
    let own = columns.entry("output_format".to_owned()).or_default();
    if own.as_deref().is_none_or(|own| own.trim().is_empty()) {
        *own = Some(output_format.to_owned());
    }
    LogRow::new(columns)
}

/// The fields of a log whose files have columns: these, and before them the event time where it is
/// a field of its own. It is not written.
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

/// The field that the path of an event time needs: whole numbers, within as many structs as the
/// path is long.
fn json_time_field(time: &JsonTime) -> Option<Field> {
    let mut names = Vec::new();
    for step in &time.path.0 {
        match step {
            Step::Field(name) => names.push(name),
            Step::Index(_) => return None,
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

/// The columns of the row's table.
fn columns(row: &LogRow, settings: &Settings, base: &Path) -> Result<SchemaRef, LogError> {
    let named = |column: &str| {
        row.column(column)
            .map(str::trim)
            .filter(|value| !value.is_empty())
    };
    let Some(table) = named("hive_table_name") else {
        return Err(LogError::Wrong(format!(
            "log `{}`: hive_table_name is empty, but files with columns need the table that has them",
            row.log()
        )));
    };
    if let Some(folder) = &settings.schemas {
        let found = pseidon_hive::read_file(&base.join(folder), table)
            .map_err(|error| LogError::Wrong(error.to_string()))?;
        if let Some(schema) = found {
            return Ok(schema);
        }
    }
    let Some(place) = settings.metastore.as_deref().or_else(|| named("hive_url")) else {
        return Err(LogError::Wrong(format!(
            "log `{}`: nobody says the columns of `{table}`; give the row a hive_url, or the stage a :metastore or :schemas",
            row.log()
        )));
    };
    // The URL may hold a password, so it is not shown.
    let place: Place = place
        .parse()
        .map_err(|error| LogError::Wrong(format!("log `{}`: hive_url: {error}", row.log())))?;
    let place = place.with_login(named("hive_user"), named("hive_password"));
    pseidon_hive::columns(&place, table).map_err(|error| match error {
        HiveError::Unreachable(reason) => LogError::Unreachable(format!(
            "log `{}`: the columns of `{table}`: {reason}",
            row.log()
        )),
        other => LogError::Wrong(format!(
            "log `{}`: hive_table_name `{table}`: {other}",
            row.log()
        )),
    })
}
