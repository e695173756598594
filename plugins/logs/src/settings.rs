//! What the stage says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::StoreError;
use pseidon_dsl::Diagnostic;
use pseidon_hive::Place;
use pseidon_kafka::source::shared::{SHARED_OPTIONS, SharedSettings, StoppedElsewhere};
use pseidon_mysql::{LogTable, TableError, TableSettings};
use pseidon_plugin::Options;
use pseidon_plugin::source::SourceError;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_redis::WorkQueue;

pub(crate) static SPEC: PluginSpec = PluginSpec {
    name: "mysql-logs",
    role: Role::Source,
    summary: "Reads the topics of Kafka that a MySQL table names, each as its row says, while rows come and go.",
    details: "\
A pipeline with this source is a template. Every row of the table with the right `log_group` and `enabled = 1` is a log: its topic is the row's
`log`, and `${log:NAME}` anywhere in the pipeline stands for the row's column of that name. What comes out is planned and run by itself, so that a
log that cannot be right, or that fails, disturbs no other. The table is read again every `:refresh`: a new row starts its log, a row that is gone or
disabled stops it, a changed one starts it anew; everything that was read before is committed first. While MySQL does not answer, what runs goes on.

Beside the columns there are `${log:time}`, an SQL expression for the event time; `${log:write}`, what is to be written of a record;
`${log:codec}` and `${log:compression}`, as `output_format` says; `${log:date}`, the date path that `date_format` says. The columns of Parquet
and Avro files come from a schema file in `:schemas`, from `:metastore`, or from the place that the row's `hive_url` names.

Records come from one consumer for all logs, with the options of the source `kafka` under `:kafka`. The table's columns, and what may stand in them, are in
[Logs in MySQL](logs.md).",
    positional: None,
    options: &[
        OptionSpec {
            name: "url",
            kind: OptionKind::Text,
            default: OptionDefault::Required,
            doc: "Where the table is: `mysql://HOST:PORT/DATABASE`, which may hold `USER:PASSWORD@`, or `//HOST:PORT/DATABASE?…` as JDBC has it.",
        },
        OptionSpec {
            name: "user",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The user of the database. Without it, the URL's.",
        },
        OptionSpec { name: "password", kind: OptionKind::Text, default: OptionDefault::None, doc: "The user's password. Without it, the URL's." },
        OptionSpec {
            name: "table",
            kind: OptionKind::Text,
            default: OptionDefault::Value("pseidon_logs"),
            doc: "The table: `TABLE` or `DATABASE.TABLE`.",
        },
        OptionSpec {
            name: "group",
            kind: OptionKind::Text,
            default: OptionDefault::Value("default"),
            doc: "The rows with this `log_group` are read.",
        },
        OptionSpec {
            name: "refresh",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("10s"),
            doc: "How often the table is read again.",
        },
        OptionSpec {
            name: "error-threshold",
            kind: OptionKind::Count,
            default: OptionDefault::Value("100"),
            doc: "A log with more bad records than that since it was started is switched off: `enabled` becomes 0 in the table.",
        },
        OptionSpec {
            name: "output-format",
            kind: OptionKind::Choice(&["txt", "gzip", "json", "snappy", "bzip2", "parquet", "avro"]),
            default: OptionDefault::Value("gzip"),
            doc: "The `output_format` of rows that have none.",
        },
        OptionSpec {
            name: "registry",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The URL of a Confluent schema registry, for logs with the format `avro-txt`.",
        },
        OptionSpec {
            name: "metastore",
            kind: OptionKind::Checked(check_place),
            default: OptionDefault::None,
            doc: "Where the columns of Hive's tables are found, instead of the rows' `hive_url`: `thrift://HOST:9083` of a Hive metastore, or \
                  `mysql://…/DATABASE` of the database behind it.",
        },
        OptionSpec {
            name: "schemas",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "A folder with files `TABLE.edn`, each a schema as `pseidon infer` prints it. They are looked at first.",
        },
        OptionSpec {
            name: "offsets-of",
            kind: OptionKind::Map(OFFSETS_OF),
            default: OptionDefault::None,
            doc: "Where a pseidon-etl has kept its offsets. Partitions that are new to the state, and that it has read, are read on where it has stopped. It \
                  has to be stopped, and to have finished its work.",
        },
        OptionSpec {
            name: "kafka",
            kind: OptionKind::Map(SHARED_OPTIONS),
            default: OptionDefault::Required,
            doc: "The consumer, as the source `kafka` has it. Its `:group` is the pipeline's name when it is not given.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a record that is not of its log's format. Without it the record is put into quarantine beside the output.",
        },
    ],
    free_options: &["url", "user", "password", "table", "group", "registry", "metastore", "schemas", "offsets-of"],
    example: "(mysql-logs {:url \"mysql://localhost:3306/mydb\" :user \"pseidon\" :password \"${env:ETL_DB_PWD}\" :group \"etl\" :kafka {:brokers \"localhost:9092\"}})",
};

const OFFSETS_OF: &[OptionSpec] = &[
    OptionSpec {
        name: "redis",
        kind: OptionKind::Text,
        default: OptionDefault::Required,
        doc: "Its Redis: `redis://HOST:PORT`.",
    },
    OptionSpec {
        name: "group",
        kind: OptionKind::Text,
        default: OptionDefault::Required,
        doc: "Its group, such as `etl`: the first part of its keys.",
    },
];

fn check_place(text: &str) -> Result<(), String> {
    text.parse::<Place>()
        .map(drop)
        .map_err(|error| error.to_string())
}

/// What the stage says, checked.
pub struct Settings {
    /// Where the table is.
    pub table: TableSettings,
    /// How often it is read.
    pub refresh: Duration,
    /// How many bad records switch a log off.
    pub error_threshold: u64,
    /// The consumer.
    pub kafka: SharedSettings,
    pub(crate) output_format: String,
    pub(crate) registry: Option<String>,
    pub(crate) metastore: Option<String>,
    pub(crate) schemas: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn new(options: &Options) -> Result<Settings, Vec<Diagnostic>> {
        let text = |name: &str| options.text(name).map(str::to_owned);
        let table = TableSettings {
            url: text("url").unwrap_or_default(),
            user: text("user"),
            password: text("password"),
            table: text("table").unwrap_or_default(),
            group: text("group").unwrap_or_default(),
        };
        let mut mistakes = Vec::new();
        if let Err(TableError::Refused(reason) | TableError::Unreachable(reason)) =
            LogTable::new(&table)
        {
            mistakes.push(Diagnostic::new(
                options.span_of("url"),
                "the table of logs cannot be read like this",
                reason,
            ));
        }
        let kafka = options.map("kafka").map(SharedSettings::new);
        match kafka {
            Some(Ok(mut kafka)) if mistakes.is_empty() => {
                if let Some(map) = options.map("offsets-of") {
                    let text = |name: &str| map.text(name).unwrap_or_default().to_owned();
                    kafka = kafka.after(offsets_of(text("redis"), text("group")));
                }
                Ok(Settings {
                    table,
                    refresh: options
                        .duration("refresh")
                        .unwrap_or_default()
                        .max(Duration::from_millis(10)),
                    error_threshold: options.count("error-threshold").unwrap_or_default(),
                    kafka,
                    output_format: text("output-format").unwrap_or_default(),
                    registry: text("registry"),
                    metastore: text("metastore"),
                    schemas: text("schemas").map(PathBuf::from),
                })
            }
            Some(Err(more)) => {
                mistakes.extend(more);
                Err(mistakes)
            }
            _ => Err(mistakes),
        }
    }
}

/// How long queues that were empty are not looked into again. A pseidon-etl that is stopped puts
/// nothing in.
const STAYS_EMPTY: Duration = Duration::from_secs(10);

/// Asks the Redis of a pseidon-etl, which is connected to only when there is something to ask.
fn offsets_of(redis: String, group: String) -> Arc<StoppedElsewhere> {
    let transient = |error: StoreError| match error {
        StoreError::Unavailable(reason) => SourceError::Transient(format!(
            "the redis of pseidon-etl does not answer: {reason}"
        )),
        StoreError::Failed(reason) => SourceError::Fatal(reason),
    };
    // To look for work that is left costs the server something, and hundreds of logs may start at
    // once.
    let found_empty: Mutex<Option<Instant>> = Mutex::new(None);
    Arc::new(move |partitions| {
        let queue = WorkQueue::connect(&redis, &group).map_err(transient)?;
        let offsets = partitions
            .iter()
            .map(|(topic, partition)| queue.offset(topic, *partition))
            .collect::<Result<Vec<_>, _>>()
            .map_err(transient)?;
        let mut found_empty = found_empty.lock();
        let is_known_empty = found_empty.is_some_and(|at| at.elapsed() < STAYS_EMPTY);
        if is_known_empty || offsets.iter().all(Option::is_none) {
            return Ok(offsets);
        }
        let left = queue.left().map_err(transient)?;
        if left > 0 {
            return Err(SourceError::Fatal(format!(
                "pseidon-etl has {left} pieces of work in the queues of its group `{group}` that are not done, so its offsets are ahead of what it has \
                 written: let it finish them (disable its logs, wait until the queues are empty, then stop it), or take :offsets-of out"
            )));
        }
        *found_empty = Some(Instant::now());
        Ok(offsets)
    })
}
