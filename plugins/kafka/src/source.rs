//! The source `kafka`: a member of a consumer group, which reads the group's partitions.
//!
//! A run follows [`reader`] from top to bottom: it joins the group, is assigned partitions, looks
//! up where each starts ([`start`]), and turns the messages that librdkafka fetches into batches
//! ([`assignment`]). The low positions in the state store decide where reading resumes; the group's
//! own offsets are a copy for tools that show a group's lag.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::options::{OptionValue, SchemaOption};
use pseidon_plugin::sink::Target;
use pseidon_plugin::source::{
    Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use rdkafka::ClientConfig;

use crate::connection::{BROKERS, Connection, PROPERTIES, ReservedProperty, SASL, TLS};
use crate::topics::{INTERNAL_PATTERN, Topics};

mod assignment;
mod failure;
mod identity;
mod lookup;
mod lost_records;
mod outlet;
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
    positional: None,
    options: &[
        BROKERS,
        OptionSpec {
            name: "topics",
            kind: OptionKind::StringsOrRegex,
            default: OptionDefault::Required,
            doc: "The topics: one name, a vector of names, or a pattern such as `#r\"clicks-.*\"`, \
                  which must match a topic's whole name and is a POSIX extended regular \
                  expression. It matches Kafka's internal topics (`__consumer_offsets`) only if it \
                  starts with `__`.",
        },
        GROUP,
        OptionSpec {
            name: "format",
            kind: OptionKind::String,
            default: OptionDefault::Value("json"),
            doc: "The format of a record's value: its name, with its settings after a colon, such \
                  as `\"txt:sep=pipe;ts=0\"`.",
        },
        OptionSpec {
            name: "schema",
            kind: OptionKind::Schema,
            default: OptionDefault::None,
            doc: "The types of the records' fields, or `:infer` to derive them from a sample of \
                  records. Without it, the types follow from how the fields are used.",
        },
        START,
        OptionSpec {
            name: "until",
            kind: OptionKind::Choice(&["latest"]),
            default: OptionDefault::None,
            doc: "`:latest` ends the run when everything is read that existed when the partitions \
                  were assigned. Without it, the run does not end by itself. The source waits for \
                  a topic of `:topics` that does not exist, but with `:until :latest` for 15 \
                  seconds only: then the run fails.",
        },
        INSTANCE_ID,
        ON_MISSING_STATE,
        ON_GAP,
        TLS,
        SASL,
        PROPERTIES,
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a record that cannot be decoded or does not fit the schema. \
                  Without it, the record is quarantined beside the output.",
        },
    ],
    free_options: &[
        "brokers",
        "instance-id",
        "on-gap",
        "on-missing-state",
        "start",
        "until",
    ],
    example: "(kafka {:brokers \"localhost:9092\" :topics [\"clicks\"] :format \"json\" :start \
              :earliest})",
};

const GROUP: OptionSpec = OptionSpec {
    name: "group",
    kind: OptionKind::String,
    default: OptionDefault::None,
    doc: "The consumer group. Default: the pipeline's name.",
};

const START: OptionSpec = OptionSpec {
    name: "start",
    kind: OptionKind::CheckedString(start::check),
    default: OptionDefault::Value("earliest"),
    doc: "Where to start a partition that was never read: `:earliest`, `:latest`, or a time \
          (`\"2026-01-31T00:00:00Z\"`, or milliseconds since 1970), which stands for the first \
          record that is not older. The default is `:earliest`, unlike that of Kafka's own \
          consumers, so that nothing is skipped unless you ask for it. With `:latest`, partitions \
          that appear later are still read from their beginning.",
};

const INSTANCE_ID: OptionSpec = OptionSpec {
    name: "instance-id",
    kind: OptionKind::String,
    default: OptionDefault::None,
    doc: "This instance's permanent name in the group (static membership), such as \
          `\"${env:HOSTNAME}\"`: an instance that comes back within the session timeout gets its \
          partitions back and no other instance is disturbed. If `:topics` has changed meanwhile, \
          the instance must stay away for longer than the session timeout: the group assigns a \
          returning member its old partitions without looking at its new topics.",
};

const ON_MISSING_STATE: OptionSpec = OptionSpec {
    name: "on-missing-state",
    kind: OptionKind::Choice(&["stop", "group", "start"]),
    default: OptionDefault::Value("stop"),
    doc: "What to do if the Kafka group has an offset that is missing from the state: for a \
          partition that is not in the state, or, if this pipeline has written the group's offset \
          itself, above the position in the state. `:stop` ends the run, since the state was lost \
          or restored from an older copy. `:group` resumes at the group's offset (also to take \
          over from another consumer). `:start` ignores the group's offsets: a partition that is \
          not in the state begins at `:start`, and any other one resumes at the position in the \
          state.",
};

const ON_GAP: OptionSpec = OptionSpec {
    name: "on-gap",
    kind: OptionKind::Choice(&["stop", "continue"]),
    default: OptionDefault::Value("stop"),
    doc: "What to do if the broker has deleted records that were not read yet: `:stop` with an \
          error that names them, or `:continue` with the first record that is left.",
};

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
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let topics = match options.get("topics") {
            Some(OptionValue::Regex(pattern)) => Topics::pattern(pattern),
            Some(OptionValue::Strings(names)) => Topics::names(names),
            _ => Topics::names(&[]),
        };
        let topics = topics.map_err(|reason| {
            Diagnostic::new(
                options.span_of("topics"),
                "invalid value of `:topics`",
                reason,
            )
        });
        Ok(Arc::new(KafkaSource::from_options(options, topics)?))
    }
}

/// A source with its checked options.
#[derive(Clone)]
struct KafkaSource {
    connection: Connection,
    topics: Topics,
    group: Option<String>,
    instance_id: Option<String>,
    format: String,
    schema: Option<SchemaRef>,
    start: StartOption,
    until_latest: bool,
    on_missing_state: OnMissingState,
    continue_after_gap: bool,
    external_offsets: Option<Arc<ExternalOffsets>>,
}

impl Source for KafkaSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.format.clone(),
            schema: self.schema.clone(),
            not_rereadable: None,
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

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError> {
        sample::sample(self, setup, count)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
        reader::run(self, setup, handle)
    }
}

impl KafkaSource {
    /// Checks what the option specs cannot express.
    fn from_options(
        options: &Options,
        topics: Result<Topics, Diagnostic>,
    ) -> Result<KafkaSource, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let topics = topics.map_err(|error| errors.push(error));
        let connection =
            Connection::from_options(options, &RESERVED).map_err(|more| errors.extend(more));
        let start = options.string("start").unwrap_or("earliest").parse();
        let start = start.map_err(|reason: String| {
            errors.push(Diagnostic::new(
                options.span_of("start"),
                "invalid value of `:start`",
                reason,
            ))
        });
        let (Ok(topics), Ok(connection), Ok(start)) = (topics, connection, start) else {
            return Err(errors);
        };
        Ok(KafkaSource {
            connection,
            topics,
            group: options.string("group").map(str::to_owned),
            instance_id: options.string("instance-id").map(str::to_owned),
            format: options.string("format").unwrap_or("json").to_owned(),
            schema: match options.schema("schema") {
                Some(SchemaOption::Fields(schema)) => Some(schema.clone()),
                Some(SchemaOption::Infer) | None => None,
            },
            start,
            until_latest: options.string("until").is_some(),
            on_missing_state: match options.string("on-missing-state") {
                Some("group") => OnMissingState::Group,
                Some("start") => OnMissingState::Start,
                _ => OnMissingState::Stop,
            },
            continue_after_gap: options.string("on-gap") == Some("continue"),
            external_offsets: None,
        })
    }

    fn group<'a>(&'a self, setup: &'a SourceSetup) -> &'a str {
        self.group.as_deref().unwrap_or(&setup.pipeline)
    }

    /// The configuration of the consumer.
    fn config(&self, setup: &SourceSetup) -> ClientConfig {
        let Buffers {
            queue_kilobytes,
            fetch_bytes,
            partition_bytes,
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
            ("fetch.queue.backoff.ms", "5".to_owned()),
            ("queued.max.messages.kbytes", queue_kilobytes.to_string()),
            ("fetch.max.bytes", fetch_bytes.to_string()),
            ("fetch.message.max.bytes", partition_bytes.to_string()),
        ];
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
    /// The size of one fetch response on the wire; compressed records take more when decompressed.
    fetch_bytes: usize,
    /// The share of one partition in a fetch response.
    partition_bytes: usize,
}

impl Buffers {
    const MB: usize = 1 << 20;

    /// An eighth of `memory` for the queue, a thirty-second part for a response, both bounded.
    fn for_memory(memory: usize) -> Buffers {
        let queue = (memory / 8).clamp(Self::MB, 48 * Self::MB);
        let fetch_bytes = (memory / 32).clamp(Self::MB, 8 * Self::MB);
        Buffers {
            queue_kilobytes: queue / 1024,
            fetch_bytes,
            partition_bytes: fetch_bytes.min(2 * Self::MB),
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
                fetch_bytes,
                partition_bytes,
            } = Buffers::for_memory(memory);
            let held = queue_kilobytes * 1024 + fetch_bytes;
            assert!(
                held <= (memory / 4).clamp(2 << 20, 64 << 20),
                "{memory}: {held}"
            );
            assert!(
                partition_bytes <= fetch_bytes && partition_bytes >= 1 << 20,
                "{memory}"
            );
        }
    }
}
