//! The source `kafka`: partitions of a consumer group.
//!
//! A run follows [`reader`] from top to bottom: it joins the group, is given partitions, finds out
//! where each starts ([`start`]), and turns what librdkafka fetches into batches ([`assignment`]).
//! The low positions in the state store decide where to read on; the group's own offsets are a copy
//! for tools that show a group's lag.

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

use crate::connection::{BROKERS, Connection, PROPERTIES, Reserved, SASL, TLS};
use crate::topics::{INTERNAL_PATTERN, Topics};

mod assignment;
mod failure;
mod identity;
mod lookup;
mod outlet;
mod reader;
mod sample;
pub mod shared;
mod start;

use shared::StoppedElsewhere;
use start::{OnMissingState, Start};

static SPEC: PluginSpec = PluginSpec {
    name: "kafka",
    role: Role::Source,
    summary: "Reads topics of Apache Kafka, or of anything that speaks its protocol, as a member of a consumer group.",
    details: "Every instance of a pipeline is a member of its consumer group: start more of them and they share the partitions. Partitions move one \
              by one (cooperative rebalancing), each after everything that was read of it is committed. New partitions, and new topics of a pattern, \
              are found within ten seconds (`topic.metadata.refresh.interval.ms`).\n\n\
              Where to read on is kept in the pipeline's state, together with what was delivered; the offsets of the Kafka group are a copy, written \
              about once a second and when partitions are given up, for tools that show a group's lag. Beside each stands which state it was \
              written from, so that a state that was restored from an older copy is noticed at the next start. Offsets that another tool \
              has set do not count. Only what producers have committed is read (`isolation.level`).\n\n\
              `@headers` holds the values as text. Of headers with the same name the last one counts. Where `@headers` is used, a record with a header \
              that is not UTF-8 goes to the source's `:on-error`.\n\n\
              Payloads are copied once, out of librdkafka's buffer. It may hold up to a quarter of the pipeline's memory, and never more than 64 MB.",
    positional: None,
    options: &[
        BROKERS,
        OptionSpec {
            name: "topics",
            kind: OptionKind::TextsOrRegex,
            default: OptionDefault::Required,
            doc: "The topics: one name, a vector of names, or a pattern such as `#r\"clicks-.*\"`, which has to match a topic's whole name and is a POSIX \
                  extended regular expression. It matches Kafka's internal topics (`__consumer_offsets`) only if it begins with `__`.",
        },
        GROUP,
        OptionSpec {
            name: "format",
            kind: OptionKind::Text,
            default: OptionDefault::Value("json"),
            doc: "How a record's value is laid out: the name of a format, with its settings after a colon, such as `\"txt:sep=pipe;ts=0\"`.",
        },
        OptionSpec {
            name: "schema",
            kind: OptionKind::Schema,
            default: OptionDefault::None,
            doc: "The types of the records' fields, or `:infer` to look at some records first. Without it the types come from how the fields are used.",
        },
        START,
        OptionSpec {
            name: "until",
            kind: OptionKind::Choice(&["latest"]),
            default: OptionDefault::None,
            doc: "`:latest` ends the run when everything is read that was there when the partitions were assigned. Without it the run does not end by \
                  itself. A topic of `:topics` that does not exist is waited for, but with `:until :latest` for 15 seconds only: then the run fails.",
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
            doc: "What happens to a record that is not of the format or does not fit the schema. Without it the record is put into quarantine beside the \
                  output.",
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
    example: "(kafka {:brokers \"localhost:9092\" :topics [\"clicks\"] :format \"json\" :start :earliest})",
};

const GROUP: OptionSpec = OptionSpec {
    name: "group",
    kind: OptionKind::Text,
    default: OptionDefault::None,
    doc: "The consumer group. Without it, the pipeline's name.",
};

const START: OptionSpec = OptionSpec {
    name: "start",
    kind: OptionKind::Checked(start::check),
    default: OptionDefault::Value("earliest"),
    doc: "Where to begin a partition that was never read: `:earliest`, `:latest`, or a time (`\"2026-01-31T00:00:00Z\"`, or milliseconds since 1970), \
          which is the first record that is not older. The default is `:earliest`, unlike that of Kafka's own consumers, so that nothing is \
          left out unless you say so. With `:latest`, partitions that appear later are still read from their beginning.",
};

const INSTANCE_ID: OptionSpec = OptionSpec {
    name: "instance-id",
    kind: OptionKind::Text,
    default: OptionDefault::None,
    doc: "This instance's lasting name in the group (static membership), such as `\"${env:HOSTNAME}\"`: an instance that comes back within the \
          session timeout gets its partitions back and no other instance is disturbed. When `:topics` has changed meanwhile, it has to stay away for longer than the \
          session timeout: the group gives a member that comes back its old partitions without a look at its new topics.",
};

const ON_MISSING_STATE: OptionSpec = OptionSpec {
    name: "on-missing-state",
    kind: OptionKind::Choice(&["stop", "group", "start"]),
    default: OptionDefault::Value("stop"),
    doc: "What to do when the Kafka group has an offset that the state ought to have: for a partition that the state does not know, or, if this \
          pipeline has written the group's offset itself, above the position in the state. `:stop` ends the run, since the state was lost or \
          restored from an older copy. `:group` resumes at the group's offset (also to take over from another consumer). `:start` ignores the \
          group's offsets: a partition that the state does not know begins at `:start`, any other one resumes where the state says.",
};

const ON_GAP: OptionSpec = OptionSpec {
    name: "on-gap",
    kind: OptionKind::Choice(&["stop", "continue"]),
    default: OptionDefault::Value("stop"),
    doc: "What to do when the broker has deleted records that were still to be read: `:stop` and say which, or `:continue` with the first that is \
          left.",
};

/// What users cannot pass through, since delivery rests on it or an option says it.
const RESERVED: [Reserved; 10] = [
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

/// The plugin `kafka` as a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaSourcePlugin;

impl SourcePlugin for KafkaSourcePlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let topics = match options.get("topics") {
            Some(OptionValue::Regex(pattern)) => Topics::pattern(pattern),
            Some(OptionValue::Texts(names)) => Topics::names(names),
            _ => Topics::names(&[]),
        };
        let topics = topics.map_err(|reason| {
            Diagnostic::new(
                options.span_of("topics"),
                "`:topics` has a wrong value",
                reason,
            )
        });
        Ok(Arc::new(KafkaSource::from_options(options, topics)?))
    }
}

/// A source as its options describe it.
#[derive(Clone)]
struct KafkaSource {
    connection: Connection,
    topics: Topics,
    group: Option<String>,
    instance_id: Option<String>,
    format: String,
    schema: Option<SchemaRef>,
    start: Start,
    until_latest: bool,
    on_missing_state: OnMissingState,
    continue_after_gap: bool,
    stopped_elsewhere: Option<Arc<StoppedElsewhere>>,
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
            && self.topics.contain(&target.name)
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError> {
        sample::sample(self, setup, count)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
        reader::run(self, setup, handle)
    }
}

impl KafkaSource {
    /// Checks what the declaration does not.
    fn from_options(
        options: &Options,
        topics: Result<Topics, Diagnostic>,
    ) -> Result<KafkaSource, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let topics = topics.map_err(|mistake| mistakes.push(mistake));
        let connection =
            Connection::from_options(options, &RESERVED).map_err(|more| mistakes.extend(more));
        let start = options.text("start").unwrap_or("earliest").parse();
        let start = start.map_err(|reason: String| {
            mistakes.push(Diagnostic::new(
                options.span_of("start"),
                "`:start` has a wrong value",
                reason,
            ))
        });
        let (Ok(topics), Ok(connection), Ok(start)) = (topics, connection, start) else {
            return Err(mistakes);
        };
        Ok(KafkaSource {
            connection,
            topics,
            group: options.text("group").map(str::to_owned),
            instance_id: options.text("instance-id").map(str::to_owned),
            format: options.text("format").unwrap_or("json").to_owned(),
            schema: match options.schema("schema") {
                Some(SchemaOption::Fields(schema)) => Some(schema.clone()),
                Some(SchemaOption::Infer) | None => None,
            },
            start,
            until_latest: options.text("until").is_some(),
            on_missing_state: match options.text("on-missing-state") {
                Some("group") => OnMissingState::Group,
                Some("start") => OnMissingState::Start,
                _ => OnMissingState::Stop,
            },
            continue_after_gap: options.text("on-gap") == Some("continue"),
            stopped_elsewhere: None,
        })
    }

    fn group<'a>(&'a self, setup: &'a SourceSetup) -> &'a str {
        self.group.as_deref().unwrap_or(&setup.pipeline)
    }

    /// The properties of the consumer.
    fn config(&self, setup: &SourceSetup) -> ClientConfig {
        let Buffers {
            queue_kilobytes,
            fetch_bytes,
            partition_bytes,
        } = Buffers::within(setup.memory);
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
        if self.topics.has_pattern() && !self.topics.name_internal() {
            settings.push(("topic.blacklist", INTERNAL_PATTERN.to_owned()));
        }
        if let Some(instance_id) = &self.instance_id {
            settings.push(("group.instance.id", instance_id.clone()));
        }
        self.connection.config(&setup.base, &settings)
    }
}

/// What librdkafka may hold before it is asked.
#[derive(Debug, PartialEq, Eq)]
struct Buffers {
    /// Above that nothing more is asked of the brokers.
    queue_kilobytes: usize,
    /// One answer of a broker, as it travels: compressed records take more when they have arrived.
    fetch_bytes: usize,
    /// The part of one partition in it.
    partition_bytes: usize,
}

impl Buffers {
    const MB: usize = 1 << 20;

    /// An eighth of the memory to wait in, a thirty-second part to arrive in.
    fn within(memory: usize) -> Buffers {
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
            } = Buffers::within(memory);
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
