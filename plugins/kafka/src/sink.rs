//! The sink `kafka`: transactions that hold records and positions.
//!
//! All records of a run go through one transactional producer, which is a single lane. A
//! transaction holds the records and, in a compacted topic of the sink's own ([`positions`]), the
//! position up to which each split is in it. A reader of committed records therefore sees each
//! record once, whichever process crashes, and when.
//!
//! **Fencing.** An instance that takes splits over first makes sure that no earlier owner of the
//! splits can still commit ([`open`]): it opens a producer under each owner's
//! transactional id, which makes the broker abort that owner's transaction and refuse its producer
//! from then on, even if the owner was only frozen and wakes later. Kafka has a second way, the
//! generation of a consumer group (KIP-447), which works only if the source is a consumer group of
//! the same cluster. The first way works for every source, so it is the only one used.

use std::sync::Arc;
use std::time::Duration;

use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::OutputFormat;
use pseidon_plugin::options::kinds::NamedExprs;
use pseidon_plugin::options::{Expr, OnError, Options, SpannedValue};
use pseidon_plugin::sink::{
    NeedsColumns, PreparedSink, Protocol, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin,
    SinkSetup, Target,
};
use pseidon_plugin::spec::{PluginSpec, Role};

use crate::connection::{AccessOptions, BrokerOptions, Connection, ReservedProperty};
use crate::topics::TopicName;

mod cluster;
mod health;
mod ids;
mod lane;
mod limits;
mod messages;
mod open;
mod positions;
mod producer;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;
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
    positional: KafkaSinkOptions::POSITIONAL,
    options: KafkaSinkOptions::DECLARED,
    example: "(kafka {:brokers \"localhost:9092\" :topic \"clicks.errors\" :key \"user.id\"})",
};

/// The options of the sink `kafka`.
#[derive(Clone, Debug, Options)]
pub struct KafkaSinkOptions {
    #[option(span)]
    span: Span,
    #[option(flatten)]
    brokers: BrokerOptions,
    /// The topic to write to.
    topic: TopicName,
    /// How a record's value is written: `:json`, `:csv` or `:tsv` (the columns, without a header),
    /// `:txt` (the only string column), or `:raw` (the bytes as they were read). Without it, an
    /// unchanged record is written as it was read, and any other as JSON.
    format: Option<SpannedValue<OutputFormat>>,
    /// The record's key, as a string, such as `"user.id"` or `"@key"`. NULL writes no key. Without
    /// it, an unchanged record keeps its key, and any other has none.
    key: Option<Expr>,
    /// The number of the partition. If NULL, the key decides the partition.
    partition: Option<SpannedValue<Expr>>,
    /// The record's timestamp: a timestamp, or milliseconds since 1970. Without it, an unchanged
    /// record keeps its own. A record without one gets the time of writing. 0 cannot be written,
    /// because the Kafka client replaces it by the time of writing.
    timestamp: Option<SpannedValue<Expr>>,
    /// The headers, as a map from names to expressions: `{:source "@topic"}`. A header that is NULL
    /// is left out. Without it, an unchanged record keeps its headers, and any other has none.
    headers: Option<NamedExprs>,
    /// When to commit a transaction.
    #[option(default = "")]
    transaction: TransactionOptions,
    /// The compacted topic for positions. All pipelines that write to a cluster can share one.
    #[option(default = "pseidon-positions")]
    positions_topic: TopicName,
    #[option(flatten)]
    access: AccessOptions,
    /// What happens to a record that cannot be written: it is too large, the topic refuses its
    /// timestamp, it has no key for a compacted topic, its partition does not exist, or an
    /// expression fails. Without it, the record is quarantined beside the output.
    on_error: Option<OnError>,
}

/// When to commit a transaction.
#[derive(Clone, Debug, Options)]
struct TransactionOptions {
    /// Commit a transaction when it holds this many records.
    #[option(default = "100000")]
    records: u64,
    /// Commit a transaction when it is this old.
    #[option(default = "1s")]
    age: SpannedValue<Duration>,
}

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
    type Options = KafkaSinkOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &KafkaSinkOptions) -> OnError {
        options.on_error.clone().unwrap_or_default()
    }

    fn facts(&self, options: &KafkaSinkOptions) -> SinkFacts {
        SinkFacts {
            needs_columns: options.format.map_or(NeedsColumns::UnlessBytes, |format| {
                format.value.needs_columns()
            }),
            copies_meta: CopiedParts::of(options).any(),
            protocol: Protocol::Transactional,
            folder: None,
        }
    }

    fn prepare(
        &self,
        options: &KafkaSinkOptions,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let connection = Connection::new(&options.brokers, &options.access, &RESERVED)
            .map_err(|more| errors.extend(more));
        let plan = RecordPlan::new(options, input).map_err(|more| errors.extend(more));
        let age = options.transaction.age;
        errors.extend(age_errors(age, connection.as_ref().ok()));
        let (Ok(connection), Ok(plan), true) = (connection, plan, errors.is_empty()) else {
            return Err(errors);
        };
        Ok(Arc::new(KafkaSink {
            connection,
            topic: options.topic.0.clone(),
            positions_topic: options.positions_topic.0.clone(),
            plan: Arc::new(plan),
            refusals: Arc::default(),
            records: options.transaction.records.max(1),
            age: age.value,
        }))
    }
}

/// Brokers allow transactions of a quarter of an hour by default; the commit itself needs time too.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The minimum time that a transaction needs beyond its age.
const COMMIT_MARGIN: Duration = Duration::from_secs(1);

/// The errors of a transaction that would be too old for the broker before it is committed.
fn age_errors(age: SpannedValue<Duration>, connection: Option<&Connection>) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    if age.value > MAX_AGE {
        errors.push(age.error(
            "`:age` is too long for a transaction",
            "expected up to \"10m\"",
        ));
    }
    let needed = age.value + COMMIT_MARGIN;
    let timeout = connection
        .and_then(|connection| connection.property("transaction.timeout.ms")?.parse().ok())
        .map(Duration::from_millis)
        .filter(|timeout| *timeout < needed);
    if let Some(timeout) = timeout {
        let label = format!(
            "the broker aborts it after {} ms (transaction.timeout.ms in :properties)",
            timeout.as_millis()
        );
        let help = format!(
            "set `transaction.timeout.ms` to at least {}, or lower `:age`",
            needed.as_millis()
        );
        let message = "a transaction would be aborted before it is committed";
        errors.push(age.error(message, label).with_help(help));
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
