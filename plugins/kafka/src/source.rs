//! The source `kafka`: a member of a consumer group, which reads the group's partitions.
//!
//! A run follows [`reader`] from top to bottom: it joins the group, is assigned partitions, looks
//! up where each starts ([`start`]), and turns the messages that librdkafka fetches into batches
//! ([`assignment`]). The low positions in the state store decide where reading resumes; the group's
//! own offsets are a copy for tools that show a group's lag.

use std::sync::Arc;

use pseidon_delivery::SplitId;
use pseidon_dsl::{Diagnostic, Span};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::SourceFormat;
use pseidon_plugin::options::kinds::NamesOrRegex;
use pseidon_plugin::options::{Choice, OnError, Options, SchemaOption, SpannedValue};
use pseidon_plugin::sink::Target;
use pseidon_plugin::source::{
    KnownSplit, MoveTo, Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle,
    SourcePlugin, SourceSetup, SplitStatus, SplitTarget,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use rdkafka::ClientConfig;

use crate::connection::{AccessOptions, BrokerOptions, Connection, ReservedProperty};
use crate::topics::{INTERNAL_PATTERN, Topics};

mod assignment;
mod failure;
mod first_subscriptions;
mod identity;
mod lookup;
mod lost_records;
mod operator;
mod outlet;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;
mod reader;
mod sample;
pub mod shared;
mod start;

use shared::ExternalOffsets;
use start::{OnMissingState, StartOption};

static SPEC: PluginSpec = PluginSpec {
    name: "kafka",
    role: Role::Source,
    summary: "Reads topics of Apache Kafka, or of anything that speaks its protocol, as a member \
              of a consumer group.",
    details: "Every instance of a pipeline is a member of its consumer group: start more instances \
              and they share the partitions. Partitions move one by one (cooperative rebalancing), \
              each after everything that was read of it is committed. New partitions, and new \
              topics that match a pattern, are discovered within ten seconds \
              (`topic.metadata.refresh.interval.ms`).\n\n\
              The pipeline's state records where to resume, together with what was delivered; the \
              offsets of the Kafka group are a copy, written about once a second and when \
              partitions are given up, for tools that show a group's lag. The metadata of each \
              offset names the state it was written from, so that a state that was restored from \
              an older copy is detected at the next start. Offsets that another tool has set are \
              ignored. Only committed transactions are read (`isolation.level`).\n\n\
              `@headers` holds the values as strings. Of several headers with the same name the \
              last one wins. Where `@headers` is used, a record with a header that is not UTF-8 \
              goes to the source's `:on-error`.\n\n\
              Payloads are copied once, out of librdkafka's buffer. The buffer may hold up to a \
              quarter of the pipeline's memory, and never more than 64 MB.",
    positional: KafkaSourceOptions::POSITIONAL,
    options: KafkaSourceOptions::DECLARED,
    example: "(kafka {:brokers \"localhost:9092\" :topics [\"clicks\"] :format \"json\" :start \
              :earliest})",
};

/// The options of the source `kafka`.
#[derive(Clone, Debug, Options)]
pub struct KafkaSourceOptions {
    #[option(flatten)]
    brokers: BrokerOptions,
    /// The topics: one name, a vector of names, or a pattern such as `#r"clicks-.*"`, which must
    /// match a topic's whole name and is a POSIX extended regular expression. It matches Kafka's
    /// internal topics (`__consumer_offsets`) only if it starts with `__`.
    topics: SpannedValue<NamesOrRegex>,
    /// The format of a record's value: its name, with its settings after a colon, such as
    /// `"txt:sep=pipe;ts=0"`.
    #[option(default = "json")]
    format: SpannedValue<SourceFormat>,
    /// The types of the records' fields, or `:infer` to derive them from a sample of records.
    /// Without it, the types follow from how the fields are used.
    schema: Option<SpannedValue<SchemaOption>>,
    #[option(flatten)]
    consumer: ConsumerOptions,
    /// `:latest` ends the run when everything is read that existed when the partitions were
    /// assigned. Without it, the run does not end by itself. The source waits for a topic of
    /// `:topics` that does not exist, but with `:until :latest` for 15 seconds only: then the run
    /// fails.
    #[option(free)]
    until: Option<Until>,
    /// This instance's permanent name in the group (static membership), such as
    /// `"${env:HOSTNAME}"`: an instance that comes back within the session timeout gets its
    /// partitions back and no other instance is disturbed. If `:topics` has changed meanwhile, the
    /// instance must stay away for longer than the session timeout: the group assigns a returning
    /// member its old partitions without looking at its new topics.
    #[option(free)]
    instance_id: Option<String>,
    #[option(flatten)]
    access: AccessOptions,
    /// What happens to a record that cannot be decoded or does not fit the schema. Without it, the
    /// record is quarantined beside the output.
    on_error: Option<OnError>,
}

/// The options of a member of a consumer group, whatever it reads.
#[derive(Clone, Debug, Options)]
pub struct ConsumerOptions {
    /// The consumer group. Default: the pipeline's name.
    group: Option<String>,
    /// Where to start a partition that was never read: `:earliest`, `:latest`, or a time
    /// (`"2026-01-31T00:00:00Z"`, or milliseconds since 1970), which stands for the first record
    /// that is not older. The default is `:earliest`, unlike that of Kafka's own consumers, so that
    /// nothing is skipped unless you ask for it. With `:latest`, partitions that appear later are
    /// still read from their beginning, also if no instance runs when they appear.
    #[option(free, default = "earliest")]
    start: StartOption,
    /// What to do if the Kafka group has an offset that is missing from the state: for a partition
    /// that is not in the state, or, if this pipeline has written the group's offset itself, above
    /// the position in the state. `:stop` ends the run, since the state was lost or restored from
    /// an older copy. `:group` resumes at the group's offset (also to take over from another
    /// consumer). `:start` ignores the group's offsets: a partition that is not in the state begins
    /// at `:start`, and any other one resumes at the position in the state.
    #[option(free, default = "stop")]
    on_missing_state: OnMissingState,
    /// What to do if the broker has deleted records that were not read yet: `:stop` with an error
    /// that names them, or `:continue` with the first record that is left.
    #[option(free, default = "stop")]
    on_gap: OnGap,
}

/// When the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Until {
    Latest,
}

/// What happens when records that were not read are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum OnGap {
    Stop,
    Continue,
}

/// How long a broker may wait for records before it answers the fetch of a consumer that many runs
/// share. Partitions that are added are in no request until the one in flight is answered. Half a
/// second, the client's default, is noticeable there, and ten requests a second cost the same
/// however many runs there are.
const SHARED_FETCH_WAIT_MS: u32 = 100;

/// Properties that users cannot set, because delivery depends on them or an option sets them.
const RESERVED: [ReservedProperty; 10] = [
    ("bootstrap.servers", "use :brokers"),
    ("metadata.broker.list", "use :brokers"),
    ("group.id", "use :group"),
    ("group.instance.id", "use :instance-id"),
    ("auto.offset.reset", "use :start and :on-gap"),
    (
        "enable.auto.commit",
        "offsets are committed when records are durable, not when they are read",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed when records are durable, not when they are read",
    ),
    ("enable.partition.eof", "use :until"),
    (
        "partition.assignment.strategy",
        "partitions are handed over one by one, which only cooperative-sticky does",
    ),
    (
        "group.protocol",
        "the classic protocol is used, for cooperative-sticky",
    ),
];

/// The plugin of the source `kafka`.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaSourcePlugin;

impl SourcePlugin for KafkaSourcePlugin {
    type Options = KafkaSourceOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &KafkaSourceOptions) -> OnError {
        options.on_error.clone().unwrap_or_default()
    }

    fn prepare(&self, options: &KafkaSourceOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let topics = match &options.topics.value {
            NamesOrRegex::Regex(pattern) => Topics::pattern(pattern),
            NamesOrRegex::Names(names) => Topics::names(names),
        };
        let connection = Connection::new(&options.brokers, &options.access, &RESERVED);
        let (topics, connection) = match (topics, connection) {
            (Ok(topics), Ok(connection)) => (topics, connection),
            (topics, connection) => {
                let invalid = |reason| options.topics.error("invalid value of `:topics`", reason);
                let mut errors: Vec<Diagnostic> = topics.err().map(invalid).into_iter().collect();
                errors.extend(connection.err().unwrap_or_default());
                return Err(errors);
            }
        };
        Ok(Arc::new(KafkaSource {
            instance_id: options.instance_id.clone(),
            format: options.format.value.clone(),
            format_span: Some(options.format.span),
            schema: options.schema.clone(),
            until_latest: options.until == Some(Until::Latest),
            ..KafkaSource::new(connection, topics, &options.consumer)
        }))
    }
}

/// A source with its checked options.
#[derive(Clone)]
struct KafkaSource {
    connection: Connection,
    topics: Topics,
    group: Option<String>,
    instance_id: Option<String>,
    format: SourceFormat,
    format_span: Option<Span>,
    schema: Option<SpannedValue<SchemaOption>>,
    start: StartOption,
    until_latest: bool,
    on_missing_state: OnMissingState,
    continue_after_gap: bool,
    external_offsets: Option<Arc<ExternalOffsets>>,
    /// Whether it serves many runs, each of which reads one topic.
    is_shared: bool,
}

impl Source for KafkaSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.format.clone(),
            format_span: self.format_span,
            schema: self.schema.as_ref().and_then(SpannedValue::fields),
            infer: self.schema.as_ref().and_then(SpannedValue::infer),
            splits_bytes: false,
            reads_columns: false,
            reread: Reread::Exact,
            finite: self.until_latest,
            topic_may_change: false,
        }
    }

    fn reads(&self, target: &Target) -> bool {
        let is_ours = |host: &String| self.connection.hosts().contains(host);
        target.system == SPEC.name
            && target.hosts.iter().any(is_ours)
            && self.topics.contains(&target.name)
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError> {
        sample::sample(self, setup, count)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        reader::run(self, setup, handle)
    }

    fn describe_splits(
        &self,
        setup: &SourceSetup,
        known: &[KnownSplit],
    ) -> Result<Vec<SplitStatus>, SourceError> {
        operator::describe(self, setup, known)
    }

    fn find_places(
        &self,
        setup: &SourceSetup,
        _known: &[KnownSplit],
        to: MoveTo,
    ) -> Result<Vec<SplitTarget>, SourceError> {
        operator::find_places(self, setup, to)
    }

    fn withdraw(&self, setup: &SourceSetup, splits: &[SplitId]) -> Result<(), SourceError> {
        operator::withdraw(self, setup, splits)
    }
}

impl KafkaSource {
    /// A source of these topics, with the defaults of all options but those of a consumer.
    fn new(connection: Connection, topics: Topics, consumer: &ConsumerOptions) -> KafkaSource {
        KafkaSource {
            connection,
            topics,
            group: consumer.group.clone(),
            instance_id: None,
            format: "json".into(),
            format_span: None,
            schema: None,
            start: consumer.start,
            until_latest: false,
            on_missing_state: consumer.on_missing_state,
            continue_after_gap: consumer.on_gap == OnGap::Continue,
            external_offsets: None,
            is_shared: false,
        }
    }

    fn group<'a>(&'a self, setup: &'a SourceSetup) -> &'a str {
        self.group.as_deref().unwrap_or(&setup.pipeline)
    }

    /// The configuration of the consumer.
    fn config(&self, setup: &SourceSetup) -> ClientConfig {
        let Buffers {
            queue_kilobytes,
            queue_messages,
            fetch_bytes,
        } = Buffers::for_memory(setup.memory);
        let mut settings = vec![
            ("group.id", self.group(setup).to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("auto.offset.reset", "error".to_owned()),
            (
                "partition.assignment.strategy",
                "cooperative-sticky".to_owned(),
            ),
            ("enable.partition.eof", self.until_latest.to_string()),
            ("topic.metadata.refresh.interval.ms", "10000".to_owned()),
            ("fetch.queue.backoff.ms", "1".to_owned()),
            ("queued.min.messages", queue_messages.to_string()),
            ("queued.max.messages.kbytes", queue_kilobytes.to_string()),
            ("fetch.max.bytes", fetch_bytes.to_string()),
            ("fetch.message.max.bytes", fetch_bytes.to_string()),
        ];
        if self.is_shared {
            settings.push(("fetch.wait.max.ms", SHARED_FETCH_WAIT_MS.to_string()));
        }
        if self.topics.has_pattern() && !self.topics.includes_internal() {
            settings.push(("topic.blacklist", INTERNAL_PATTERN.to_owned()));
        }
        if let Some(instance_id) = &self.instance_id {
            settings.push(("group.instance.id", instance_id.clone()));
        }
        self.connection.config(&setup.base, &settings)
    }
}

/// The limits of what librdkafka fetches ahead.
#[derive(Debug, PartialEq, Eq)]
struct Buffers {
    /// The size of the queue from which librdkafka sends no more fetch requests.
    queue_kilobytes: usize,
    /// The number of messages in the queue from which it sends none. Keys and headers do not count
    /// in the size of the queue, so only this bounds their memory.
    queue_messages: usize,
    /// The size of one fetch response on the wire, which may all be of one partition; compressed
    /// records take more when decompressed.
    fetch_bytes: usize,
}

impl Buffers {
    const MB: usize = 1 << 20;

    /// An eighth of `memory` for the queue, a thirty-second part for a response, both bounded, and
    /// a message for each megabyte, which is the usual limit of a message. A few messages are
    /// enough: the queue is emptied as a whole as long as there is room in memory, and then there
    /// are batches to process until the next response arrives.
    fn for_memory(memory: usize) -> Buffers {
        let queue = (memory / 8).clamp(Self::MB, 48 * Self::MB);
        let fetch_bytes = (memory / 32).clamp(Self::MB, 3 * Self::MB);
        Buffers {
            queue_kilobytes: queue / 1024,
            queue_messages: (memory / Self::MB).clamp(32, 200),
            fetch_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_a_small_part_of_the_memory() {
        for memory in [1 << 20, 64 << 20, 256 << 20, 1 << 30, 64 << 30] {
            let Buffers {
                queue_kilobytes,
                queue_messages,
                fetch_bytes,
            } = Buffers::for_memory(memory);
            assert!((32..=200).contains(&queue_messages), "{queue_messages}");
            let held = queue_kilobytes * 1024 + fetch_bytes;
            assert!(
                held <= (memory / 4).clamp(2 << 20, 64 << 20),
                "{memory}: {held}"
            );
            assert!(fetch_bytes >= 1 << 20, "{memory}");
        }
    }
}
