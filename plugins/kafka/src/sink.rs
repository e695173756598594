//! The sink `kafka`: transactions that hold records and positions.
//!
//! All records of a run go through one transactional producer, a single lane. A transaction holds
//! the records and, in a compacted topic of our own ([`positions`]), up to where each split is in
//! it; so a reader of committed records sees each record once, whatever crashes when.
//!
//! **Fencing.** Whoever takes splits over makes sure first that nobody who had them before can
//! still commit ([`takeover`]): it opens a producer under that instance's transactional id, which
//! makes the broker abort that instance's transaction and refuse it from then on, even if it was
//! only frozen and wakes later. Kafka has a second way, the generation of a consumer group
//! (KIP-447), which works only where the source is a consumer group of the same cluster. This way
//! works for every source, so it is the only one.

use std::sync::Arc;
use std::time::Duration;

use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::sink::{
    PreparedSink, Protocol, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin, SinkSetup, Target,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

use crate::connection::{BROKERS, Connection, PROPERTIES, Reserved, SASL, TLS};
use crate::topics::check_name;

mod cluster;
mod health;
mod ids;
mod lane;
mod open;
mod positions;
mod producer;
mod record;
mod refusals;
mod reports;
mod rules;
mod scan;
mod size;
mod takeover;
mod topic;
mod transaction;

use record::{Copied, RecordPlan};
use refusals::Refusals;

static SPEC: PluginSpec = PluginSpec {
    name: "kafka",
    role: Role::Sink,
    summary: "Writes to a topic of Apache Kafka in transactions, exactly once for readers of committed records.",
    details: "Records are written in transactions that also hold how far each split was read, in a compacted topic (`:positions-topic`), which is made \
              when it is missing. Consumers have to read with `isolation.level=read_committed`, as most do not by default; they see a record when \
              its transaction is committed, so `:transaction {:age …}` bounds the delay.\n\n\
              An unchanged record is copied: its value, key, headers (names that repeat and values that are not text included) and \
              timestamp are written as they came, and a tombstone as a tombstone. `:key`, `:headers` and `:timestamp` replace their part. After a \
              `select` the record is a new one: it has the key, headers and timestamp that these options say. Without `:partition`, the key \
              decides about the partition as in other clients of librdkafka (`partitioner`), and records without a key are spread.\n\n\
              A record that the topic does not accept goes to the error policy, and the others are delivered. What the topic's configuration says \
              is checked before: the size (`max.message.bytes`, after compression), the timestamp (`message.timestamp.*`), and the key where the \
              topic is compacted. What only the broker can judge is found by its answer: the transaction is aborted and its records are sent \
              again without those that were refused.",
    positional: None,
    options: &[
        BROKERS,
        OptionSpec {
            name: "topic",
            kind: OptionKind::Checked(check_name),
            default: OptionDefault::Required,
            doc: "The topic to write to.",
        },
        OptionSpec {
            name: "format",
            kind: OptionKind::Choice(&["json", "txt", "raw"]),
            default: OptionDefault::None,
            doc: "How a record's value is written: `:json`, `:txt` (the one text column), or `:raw` (the bytes as they came). Without it, an unchanged \
                  record is written as it came, and any other as JSON.",
        },
        OptionSpec {
            name: "key",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The record's key, as a text, such as `\"user.id\"` or `\"@key\"`. NULL is no key. Without it, an unchanged record keeps its \
                  key, and any other has none.",
        },
        OptionSpec {
            name: "partition",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The number of the partition. NULL leaves it to the key.",
        },
        OptionSpec {
            name: "timestamp",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The record's time: a timestamp, or milliseconds since 1970. Without it, an unchanged record keeps its own. \
                  Where there is none, it is the time of writing. 0 cannot be written, since the Kafka client takes it for the time of writing.",
        },
        OptionSpec {
            name: "headers",
            kind: OptionKind::Exprs,
            default: OptionDefault::None,
            doc: "Headers, from names to expressions: `{:source \"@topic\"}`. A header that is NULL is left out. Without it, an unchanged record \
                  keeps its headers, and any other has none.",
        },
        OptionSpec {
            name: "transaction",
            kind: OptionKind::Map(&[
                OptionSpec {
                    name: "records",
                    kind: OptionKind::Count,
                    default: OptionDefault::Value("100000"),
                    doc: "A transaction is committed when it holds that many records.",
                },
                OptionSpec {
                    name: "age",
                    kind: OptionKind::Duration,
                    default: OptionDefault::Value("1s"),
                    doc: "A transaction is committed when it is that old.",
                },
            ]),
            default: OptionDefault::Value(""),
            doc: "When to commit.",
        },
        OptionSpec {
            name: "positions-topic",
            kind: OptionKind::Checked(check_name),
            default: OptionDefault::Value("pseidon-positions"),
            doc: "The compacted topic for positions. All pipelines that write to a cluster can share one.",
        },
        TLS,
        SASL,
        PROPERTIES,
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a record that cannot be written: too large, a timestamp that the topic refuses, no key for a compacted topic, a \
                  partition that does not exist, an expression that fails. Without it the record is put into quarantine beside the output.",
        },
    ],
    free_options: &["brokers"],
    example: "(kafka {:brokers \"localhost:9092\" :topic \"clicks.errors\" :key \"user.id\"})",
};

/// What users cannot pass through, since delivery rests on it or an option says it.
const RESERVED: [Reserved; 8] = [
    ("bootstrap.servers", "use :brokers"),
    ("metadata.broker.list", "use :brokers"),
    ("transactional.id", "it is what fences an instance off"),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need all"),
    ("request.required.acks", "transactions need all"),
    (
        "delivery.report.only.error",
        "nobody asks for the other reports",
    ),
    (
        "isolation.level",
        "positions are read as they were committed",
    ),
];

/// The plugin `kafka` as a sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaSinkPlugin;

impl SinkPlugin for KafkaSinkPlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn facts(&self, options: &Options) -> SinkFacts {
        SinkFacts {
            typed: false,
            copies_meta: Copied::of(options).any(),
            protocol: Protocol::Transactional,
            folder: None,
        }
    }

    fn prepare(
        &self,
        options: &Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let connection =
            Connection::from_options(options, &RESERVED).map_err(|more| mistakes.extend(more));
        let plan = RecordPlan::new(options, input).map_err(|more| mistakes.extend(more));
        let transaction = options.map("transaction");
        let age = transaction
            .and_then(|transaction| transaction.duration("age"))
            .unwrap_or(Duration::from_secs(1));
        let span_of_age =
            transaction.map_or(options.span(), |transaction| transaction.span_of("age"));
        if age > LONGEST_AGE {
            mistakes.push(Diagnostic::new(
                span_of_age,
                "a transaction cannot be open for so long",
                "expected up to \"10m\"",
            ));
        }
        let timeout = connection
            .as_ref()
            .ok()
            .and_then(|connection| connection.property("transaction.timeout.ms")?.parse().ok());
        if let Some(timeout) = timeout
            .map(Duration::from_millis)
            .filter(|timeout| *timeout < age + TIME_TO_COMMIT)
        {
            let place = if transaction.is_some() {
                span_of_age
            } else {
                options.span_of("properties")
            };
            let label = format!(
                "the broker aborts it after {} ms (transaction.timeout.ms in :properties)",
                timeout.as_millis()
            );
            let help = format!(
                "set `transaction.timeout.ms` to {} at least, or lower `:age`",
                (age + TIME_TO_COMMIT).as_millis()
            );
            mistakes.push(
                Diagnostic::new(
                    place,
                    "a transaction would be aborted before it is committed",
                    label,
                )
                .with_help(help),
            );
        }
        let (Ok(connection), Ok(plan), true) = (connection, plan, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        Ok(Arc::new(KafkaSink {
            connection,
            topic: options.text("topic").unwrap_or_default().to_owned(),
            positions_topic: options
                .text("positions-topic")
                .unwrap_or_default()
                .to_owned(),
            plan: Arc::new(plan),
            refusals: Arc::default(),
            records: transaction
                .and_then(|transaction| transaction.count("records"))
                .unwrap_or(100_000)
                .max(1),
            age,
        }))
    }
}

/// Brokers allow transactions of a quarter of an hour, unless told otherwise; the commit itself
/// needs time too.
const LONGEST_AGE: Duration = Duration::from_secs(600);

/// What a transaction needs beyond its age, at least.
const TIME_TO_COMMIT: Duration = Duration::from_secs(1);

/// A sink as its options describe it.
#[derive(Clone)]
struct KafkaSink {
    connection: Connection,
    topic: String,
    positions_topic: String,
    plan: Arc<RecordPlan>,
    /// What the broker has refused in earlier attempts of a run.
    refusals: Arc<Refusals>,
    records: u64,
    age: Duration,
}

impl PreparedSink for KafkaSink {
    fn nondeterminism(&self) -> Option<String> {
        self.plan.nondeterminism()
    }

    fn target(&self) -> Option<Target> {
        Some(Target {
            system: SPEC.name,
            hosts: self.connection.hosts(),
            name: self.topic.clone(),
        })
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        open::open(self, setup)
    }
}
