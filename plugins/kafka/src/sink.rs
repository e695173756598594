//! The sink `kafka`: transactions that hold records and positions.
//!
//! All records of a run go through one transactional producer, which is a single lane. A
//! transaction holds the records and, in a compacted topic of the sink's own ([`positions`]), the
//! position up to which each split is in it. A reader of committed records therefore sees each
//! record once, whichever process crashes, and when.
//!
//! **Fencing.** An instance that takes splits over first makes sure that no earlier owner of the
//! splits can still commit ([`open::takeover`]): it opens a producer under each owner's
//! transactional id, which makes the broker abort that owner's transaction and refuse its producer
//! from then on, even if the owner was only frozen and wakes later. Kafka has a second way, the
//! generation of a consumer group (KIP-447), which works only if the source is a consumer group of
//! the same cluster. The first way works for every source, so it is the only one used.

use std::sync::Arc;
use std::time::Duration;

use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::sink::{
    PreparedSink, Protocol, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin, SinkSetup, Target,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

use crate::connection::{BROKERS, Connection, PROPERTIES, ReservedProperty, SASL, TLS};
use crate::topics::check_name;

mod cluster;
mod health;
mod ids;
mod lane;
mod limits;
mod messages;
mod open;
mod positions;
mod producer;
mod record;
mod refusals;
mod reports;
mod rules;
mod scan;
mod size;
mod topic;
mod transaction;

use record::{CopiedParts, RecordPlan};
use refusals::Refusals;

static SPEC: PluginSpec = PluginSpec {
    name: "kafka",
    role: Role::Sink,
    summary: "Writes to a topic of Apache Kafka in transactions, exactly once for readers of \
              committed records.",
    details: "Records are written in transactions that also hold the position up to which each \
              split was read, in a compacted topic (`:positions-topic`), which is created if it is \
              missing. Consumers must read with `isolation.level=read_committed`, which is not the \
              default of most; they see a record once its transaction is committed, so \
              `:transaction {:age …}` bounds the delay.\n\n\
              An unchanged record is copied: its value, key, headers (including repeated names and \
              values that are not UTF-8) and timestamp are written as they were read, and a \
              tombstone as a tombstone. `:key`, `:headers` and `:timestamp` each replace their \
              part. After a `select` the record is a new one: it has only the key, headers and \
              timestamp that these options set. Without `:partition`, the key decides the \
              partition as in other clients of librdkafka (`partitioner`), and records without a \
              key are spread over all partitions.\n\n\
              A record that the topic does not accept goes to the error policy, and the other \
              records are delivered. The limits in the topic's configuration are checked in \
              advance: the size (`max.message.bytes`, after compression), the timestamp \
              (`message.timestamp.*`), and the key if the topic is compacted. What only the broker \
              can decide is learned from its response: the transaction is aborted and its records \
              are sent again without the refused ones.",
    positional: None,
    options: &[
        BROKERS,
        OptionSpec {
            name: "topic",
            kind: OptionKind::CheckedString(check_name),
            default: OptionDefault::Required,
            doc: "The topic to write to.",
        },
        OptionSpec {
            name: "format",
            kind: OptionKind::Choice(&["json", "txt", "raw"]),
            default: OptionDefault::None,
            doc: "How a record's value is written: `:json`, `:txt` (the only string column), or \
                  `:raw` (the bytes as they were read). Without it, an unchanged record is written \
                  as it was read, and any other as JSON.",
        },
        OptionSpec {
            name: "key",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The record's key, as a string, such as `\"user.id\"` or `\"@key\"`. NULL writes \
                  no key. Without it, an unchanged record keeps its key, and any other has none.",
        },
        OptionSpec {
            name: "partition",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The number of the partition. If NULL, the key decides the partition.",
        },
        OptionSpec {
            name: "timestamp",
            kind: OptionKind::Expr,
            default: OptionDefault::None,
            doc: "The record's timestamp: a timestamp, or milliseconds since 1970. Without it, an \
                  unchanged record keeps its own. A record without one gets the time of writing. 0 \
                  cannot be written, because the Kafka client replaces it by the time of writing.",
        },
        OptionSpec {
            name: "headers",
            kind: OptionKind::Exprs,
            default: OptionDefault::None,
            doc: "The headers, as a map from names to expressions: `{:source \"@topic\"}`. A \
                  header that is NULL is left out. Without it, an unchanged record keeps its \
                  headers, and any other has none.",
        },
        OptionSpec {
            name: "transaction",
            kind: OptionKind::Map(&[
                OptionSpec {
                    name: "records",
                    kind: OptionKind::Integer,
                    default: OptionDefault::Value("100000"),
                    doc: "Commit a transaction when it holds this many records.",
                },
                OptionSpec {
                    name: "age",
                    kind: OptionKind::Duration,
                    default: OptionDefault::Value("1s"),
                    doc: "Commit a transaction when it is this old.",
                },
            ]),
            default: OptionDefault::Value(""),
            doc: "When to commit a transaction.",
        },
        OptionSpec {
            name: "positions-topic",
            kind: OptionKind::CheckedString(check_name),
            default: OptionDefault::Value("pseidon-positions"),
            doc: "The compacted topic for positions. All pipelines that write to a cluster can \
                  share one.",
        },
        TLS,
        SASL,
        PROPERTIES,
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a record that cannot be written: it is too large, the topic \
                  refuses its timestamp, it has no key for a compacted topic, its partition does \
                  not exist, or an expression fails. Without it, the record is quarantined beside \
                  the output.",
        },
    ],
    free_options: &["brokers"],
    example: "(kafka {:brokers \"localhost:9092\" :topic \"clicks.errors\" :key \"user.id\"})",
};

/// Properties that users cannot set, because delivery depends on them or an option sets them.
const RESERVED: [ReservedProperty; 8] = [
    ("bootstrap.servers", "use :brokers"),
    ("metadata.broker.list", "use :brokers"),
    (
        "transactional.id",
        "the sink sets it to fence off earlier owners",
    ),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need all"),
    ("request.required.acks", "transactions need all"),
    (
        "delivery.report.only.error",
        "the sink uses only reports of errors",
    ),
    ("isolation.level", "positions are read with read_committed"),
];

/// The plugin of the sink `kafka`.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaSinkPlugin;

impl SinkPlugin for KafkaSinkPlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn facts(&self, options: &Options) -> SinkFacts {
        SinkFacts {
            typed: false,
            copies_meta: CopiedParts::from_options(options).any(),
            protocol: Protocol::Transactional,
            folder: None,
        }
    }

    fn prepare(
        &self,
        options: &Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let connection =
            Connection::from_options(options, &RESERVED).map_err(|more| errors.extend(more));
        let plan = RecordPlan::new(options, input).map_err(|more| errors.extend(more));
        let transaction = options.map("transaction");
        let age = transaction
            .and_then(|transaction| transaction.duration("age"))
            .unwrap_or(Duration::from_secs(1));
        errors.extend(age_errors(options, age, connection.as_ref().ok()));
        let (Ok(connection), Ok(plan), true) = (connection, plan, errors.is_empty()) else {
            return Err(errors);
        };
        Ok(Arc::new(KafkaSink {
            connection,
            topic: options.string("topic").unwrap_or_default().to_owned(),
            positions_topic: options
                .string("positions-topic")
                .unwrap_or_default()
                .to_owned(),
            plan: Arc::new(plan),
            refusals: Arc::default(),
            records: transaction
                .and_then(|transaction| transaction.integer("records"))
                .unwrap_or(100_000)
                .max(1),
            age,
        }))
    }
}

/// Brokers allow transactions of a quarter of an hour by default; the commit itself needs time too.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The minimum time that a transaction needs beyond its age.
const COMMIT_MARGIN: Duration = Duration::from_secs(1);

/// The errors of a transaction that would be too old for the broker before it is committed.
fn age_errors(
    options: &Options,
    age: Duration,
    connection: Option<&Connection>,
) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    let transaction = options.map("transaction");
    let span_of_age = transaction.map_or(options.span(), |transaction| transaction.span_of("age"));
    if age > MAX_AGE {
        errors.push(Diagnostic::new(
            span_of_age,
            "`:age` is too long for a transaction",
            "expected up to \"10m\"",
        ));
    }
    let timeout = connection
        .and_then(|connection| connection.property("transaction.timeout.ms")?.parse().ok())
        .map(Duration::from_millis)
        .filter(|timeout| *timeout < age + COMMIT_MARGIN);
    if let Some(timeout) = timeout {
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
            "set `transaction.timeout.ms` to at least {}, or lower `:age`",
            (age + COMMIT_MARGIN).as_millis()
        );
        errors.push(
            Diagnostic::new(
                place,
                "a transaction would be aborted before it is committed",
                label,
            )
            .with_help(help),
        );
    }
    errors
}

/// A sink with its checked options.
#[derive(Clone)]
struct KafkaSink {
    connection: Connection,
    topic: String,
    positions_topic: String,
    plan: Arc<RecordPlan>,
    /// The records that the broker has refused in earlier attempts of a run.
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
