//! What the cluster has to have before a run: the positions topic; and what it accepts.

use std::time::{Duration, Instant};

use futures_executor::block_on;
use pseidon_plugin::sink::SinkError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::producer::TransactionalProducer;
use super::record::Limits;

/// How long the cluster may take to answer, and to make a topic known everywhere.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// What brokers accept unless told otherwise.
const DEFAULT_MESSAGE_BYTES: usize = 1_000_000;
/// How the positions topic is kept small: old positions go soon, and what is read at a start stays short.
const POSITIONS_CONFIG: [(&str, &str); 4] =
    [("cleanup.policy", "compact"), ("segment.ms", "600000"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.2")];

/// Makes the positions topic, unless it exists.
pub(super) fn ensure_positions_topic(config: &ClientConfig, producer: &TransactionalProducer, topic: &str) -> Result<(), SinkError> {
    let transient = |reason: String| SinkError::Transient(format!("cannot make the topic {topic}: {reason}"));
    let there = |producer: &TransactionalProducer| producer.partitions_of(topic).map_err(|error| transient(error.to_string()));
    // A producer's look at a topic may make it, without our settings, where brokers are told to do so; so it is made first.
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| SinkError::Fatal(error.to_string()))?;
    let new = POSITIONS_CONFIG.iter().fold(NewTopic::new(topic, 1, TopicReplication::Fixed(-1)), |new, (name, value)| new.set(name, value));
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    let made = block_on(admin.create_topics(&[new], &options)).map_err(|error| transient(error.to_string()))?;
    match made.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) if is_denied(code) && there(producer)? > 0 => return Ok(()),
        Some(Err((_, code))) if is_denied(code) => {
            return Err(SinkError::Fatal(format!(
                "we may not make the topic {topic}: {code}. Make it, with cleanup.policy=compact, or name another with :positions-topic"
            )));
        }
        Some(Err((_, code))) => return Err(transient(code.to_string())),
    }
    wait_for_topic(producer, topic).map(drop)
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed | RDKafkaErrorCode::PolicyViolation
    )
}

/// What the topic accepts. One that is missing is made by the broker, where it does such things.
pub(super) fn limits(config: &ClientConfig, producer: &TransactionalProducer, topic: &str) -> Result<Limits, SinkError> {
    let partitions = wait_for_topic(producer, topic)?;
    let ours = config.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
    // Who may not ask has to live with the default.
    let theirs = topic_message_bytes(config, topic).unwrap_or(DEFAULT_MESSAGE_BYTES);
    let bytes = ours.unwrap_or(DEFAULT_MESSAGE_BYTES).min(theirs);
    Ok(Limits { bytes, partitions: i32::try_from(partitions).unwrap_or(i32::MAX) })
}

fn topic_message_bytes(config: &ClientConfig, topic: &str) -> Option<usize> {
    let admin: AdminClient<DefaultClientContext> = config.create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options)).ok()?;
    let resource = described.into_iter().next()?.ok()?;
    resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}

fn wait_for_topic(producer: &TransactionalProducer, topic: &str) -> Result<usize, SinkError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.partitions_of(topic) {
            Ok(0) if Instant::now() >= deadline => return Err(SinkError::Fatal(format!("there is no topic {topic}; make it first"))),
            Ok(0) => std::thread::sleep(PAUSE),
            Ok(partitions) => return Ok(partitions),
            Err(error) if Instant::now() >= deadline => {
                return Err(SinkError::Transient(format!("cannot ask about the topic {topic}: {error}")));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
