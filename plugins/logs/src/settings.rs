//! The options of the stage and their checked values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::{Reason, StoreError, WithCauses};
use pseidon_dsl::Diagnostic;
use pseidon_hive::HiveEndpoint;
use pseidon_kafka::source::shared::{ExternalOffsets, SharedOptions, SharedSettings};
use pseidon_mysql::{LogTable, TableError, TableSettings};
use pseidon_plugin::Secret;
use pseidon_plugin::options::{
    Argument, Choice, OnError, OptionValue, Options, ParseResult, SpannedValue,
};
use pseidon_plugin::source::SourceError;
use pseidon_plugin::spec::{OptionKind, PluginSpec, Role};
use pseidon_redis::WorkQueue;

pub(crate) static SPEC: PluginSpec = PluginSpec {
    name: "mysql-logs",
    role: Role::Source,
    summary: "Reads the Kafka topics that a MySQL table lists, each according to its row, as rows \
              come and go.",
    details: "\
A pipeline with this source is a template. Every row of the table with the right `log_group` and
`enabled = 1` is a log, the pipeline of one topic: the topic is the row's `log`, and `${log:NAME}`
anywhere in the pipeline stands for the row's column of that name. The resulting pipeline is planned
and run independently, so a log that is invalid or that fails does not affect the others. The table
is read again every `:refresh`: a new row starts its log, a deleted or disabled row stops it, and a
changed row restarts it; all records that were read before are committed first. While MySQL does not
respond, running logs continue.

In addition to the columns there are `${log:time}`, an SQL expression for the event time;
`${log:write}`, the columns of a record that are written; `${log:codec}` and `${log:compression}`,
derived from `output_format`; and `${log:date}`, the date path derived from `date_format`. The
columns of Parquet and Avro files come from a schema file in `:schemas`, from `:metastore`, or from
the row's `hive_url`.

One consumer reads the records of all logs, with the options of the source `kafka` under `:kafka`.
The table's columns and their valid values are described in [Logs in MySQL](logs.md).",
    positional: LogsOptions::POSITIONAL,
    options: LogsOptions::DECLARED,
    example: "(mysql-logs {:url \"mysql://localhost:3306/mydb\" :user \"pseidon\" \
              :password \"${env:ETL_DB_PWD}\" :group \"etl\" \
              :kafka {:brokers \"localhost:9092\"}})",
};

/// The options of the source `mysql-logs`.
#[derive(Clone, Debug, Options)]
pub struct LogsOptions {
    /// The database: `mysql://HOST:PORT/DATABASE`, optionally with `USER:PASSWORD@`, or
    /// `//HOST:PORT/DATABASE?…` as in a JDBC URL. `?sslMode=VERIFY_IDENTITY` connects with TLS, and
    /// `&sslCa=/PATH/ca.pem` names the authority.
    url: SpannedValue<Secret>,
    /// The user of the database. The default is the user in the URL.
    #[option(free)]
    user: Option<String>,
    /// The user's password. The default is the password in the URL.
    password: Option<Secret>,
    /// The table: `TABLE` or `DATABASE.TABLE`.
    #[option(free, default = "pseidon_logs")]
    table: String,
    /// Only rows with this `log_group` are read.
    #[option(free, default = "default")]
    group: String,
    /// How often the table is read again.
    #[option(default = "10s")]
    refresh: Duration,
    /// A log with more invalid records than this since its start is disabled: `enabled` becomes 0
    /// in the table.
    #[option(default = "100")]
    error_threshold: u64,
    /// The `output_format` of rows that have none.
    #[option(default = "gzip")]
    output_format: LogOutputFormat,
    /// The URL of a Confluent schema registry, for logs with the format `avro-txt`.
    registry: Option<Secret>,
    /// Where the columns of Hive tables are read, instead of the rows' `hive_url`:
    /// `thrift://HOST:9083` (with TLS `thrifts://`) for a Hive metastore, or `mysql://…/DATABASE`
    /// for its database.
    metastore: Option<Metastore>,
    /// A folder with files `TABLE.edn`, each a schema as printed by `pseidon infer`. It has
    /// precedence over `:metastore` and `hive_url`.
    #[option(free)]
    schemas: Option<PathBuf>,
    /// Where a pseidon-etl stored its offsets. Reading of partitions that are new to the state
    /// store and that pseidon-etl has read resumes where pseidon-etl stopped. It must be stopped,
    /// and must have finished its work.
    offsets_of: Option<OffsetsOptions>,
    /// The consumer, with the options of the source `kafka`. The default of its `:group` is the
    /// pipeline's name.
    kafka: SharedOptions,
    /// A folder: a row whose `quarantine` is not in it is invalid. Default: a row may name any
    /// folder.
    #[option(free)]
    quarantine_below: Option<PathBuf>,
    /// What happens to a record that does not match its log's format. By default it is quarantined
    /// beside the output.
    pub(crate) on_error: Option<OnError>,
}

#[derive(Clone, Debug, Options)]
struct OffsetsOptions {
    /// The Redis of pseidon-etl: `redis://HOST:PORT`.
    redis: Secret,
    /// The group of pseidon-etl, such as `etl`: the first part of its Redis keys.
    group: String,
}

/// The value of the column `output_format` of a row that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum LogOutputFormat {
    Txt,
    Gzip,
    Json,
    Snappy,
    Bzip2,
    Parquet,
    Avro,
}

/// The URL of a [`HiveEndpoint`].
#[derive(Clone, Debug)]
struct Metastore(Secret);

impl OptionValue for Metastore {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<Metastore> {
        argument.checked(|url| {
            url.parse::<HiveEndpoint>()
                .map(|_| Metastore(Secret::new(url)))
                .map_err(|error| WithCauses(&error).to_string())
        })
    }
}

/// The checked options of the stage.
pub struct LogsSettings {
    /// The database and the table.
    pub table: TableSettings,
    /// How often the table is read.
    pub refresh: Duration,
    /// A log with more invalid records than this since its start is disabled.
    pub error_threshold: u64,
    /// The options of the consumer.
    pub kafka: SharedSettings,
    pub(crate) output_format: String,
    pub(crate) registry: Option<Secret>,
    pub(crate) metastore: Option<Secret>,
    pub(crate) schemas: Option<PathBuf>,
    /// The folder in which the rows' quarantine folders have to be.
    pub(crate) quarantine_below: Option<PathBuf>,
}

impl LogsSettings {
    pub(crate) fn new(options: &LogsOptions) -> Result<LogsSettings, Vec<Diagnostic>> {
        let table = TableSettings {
            url: options.url.value.expose().to_owned(),
            user: options.user.clone(),
            password: options
                .password
                .as_ref()
                .map(|password| password.expose().to_owned()),
            table: options.table.clone(),
            group: options.group.clone(),
        };
        let mut errors = Vec::new();
        if let Err(TableError::Refused(reason) | TableError::Unreachable(reason)) =
            LogTable::new(&table)
        {
            let message = "the table of logs cannot be read with these options";
            errors.push(options.url.error(message, WithCauses(&reason).to_string()));
        }
        let mut kafka = match SharedSettings::new(&options.kafka) {
            Ok(kafka) if errors.is_empty() => kafka,
            kafka => {
                errors.extend(kafka.err().unwrap_or_default());
                return Err(errors);
            }
        };
        if let Some(OffsetsOptions { redis, group }) = options.offsets_of.clone() {
            kafka = kafka.with_external_offsets(offsets_of(redis, group));
        }
        Ok(LogsSettings {
            table,
            refresh: options.refresh.max(Duration::from_millis(10)),
            error_threshold: options.error_threshold,
            kafka,
            output_format: options.output_format.name().to_owned(),
            registry: options.registry.clone(),
            metastore: options.metastore.clone().map(|metastore| metastore.0),
            schemas: options.schemas.clone(),
            quarantine_below: options.quarantine_below.clone(),
        })
    }
}

/// How long queues that were found empty are not checked again. A stopped pseidon-etl adds no work
/// to them.
const EMPTY_TTL: Duration = Duration::from_secs(10);

/// Returns the offsets that a pseidon-etl stored in its Redis. It connects only when it is called.
fn offsets_of(redis: Secret, group: String) -> Arc<ExternalOffsets> {
    let transient = |error: StoreError| match error {
        StoreError::Unavailable(reason) => SourceError::Transient(Reason::caused_by(
            "the redis of pseidon-etl does not answer",
            reason,
        )),
        StoreError::Failed(reason) => SourceError::Fatal(reason),
    };
    // A check of the queues loads the server, and hundreds of logs may start at once.
    let found_empty: Mutex<Option<Instant>> = Mutex::new(None);
    Arc::new(move |partitions| {
        let queue = WorkQueue::connect(redis.expose(), &group).map_err(transient)?;
        let offsets = partitions
            .iter()
            .map(|(topic, partition)| queue.offset(topic, *partition))
            .collect::<Result<Vec<_>, _>>()
            .map_err(transient)?;
        let mut found_empty = found_empty.lock();
        let is_known_empty = found_empty.is_some_and(|at| at.elapsed() < EMPTY_TTL);
        if is_known_empty || offsets.iter().all(Option::is_none) {
            return Ok(offsets);
        }
        let left = queue.left().map_err(transient)?;
        if left > 0 {
            let what = format!(
                "pseidon-etl has {left} unfinished work items in the queues of its group \
                 `{group}`, so its offsets are ahead of what it has written: let it finish them \
                 (disable its logs, wait until the queues are empty, then stop it), or remove \
                 :offsets-of"
            );
            return Err(SourceError::Fatal(what.into()));
        }
        *found_empty = Some(Instant::now());
        Ok(offsets)
    })
}

#[cfg(test)]
mod tests {
    use pseidon_dsl::{Span, edn};

    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let text = r#"{:url "mysql://u:hidden@h/db" :user "u" :password "hidden"
            :registry "http://u:hidden@r:8081" :metastore "mysql://u:hidden@h/hive"
            :offsets-of {:redis "redis://:hidden@r" :group "etl"}
            :kafka {:brokers "b" :sasl {:username "u" :password "hidden"}}}"#;
        let options =
            LogsOptions::parse_stage(&SPEC, &[edn::read(text).unwrap()], Span::default()).unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("pseidon_logs"), "{shown}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
