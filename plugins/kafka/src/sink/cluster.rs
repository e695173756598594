//! Requests to the cluster about topics: creating and checking the positions topic, and reading the
//! configuration of the sink's topic.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use pseidon_delivery::Reason;
use pseidon_plugin::sink::SinkError;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::rules::{TopicRules, has_policy};
use crate::connection::is_of_connection;

/// The timeout of a request, and how long a new topic may take to be known to all brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a request is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The number of partitions of a new positions topic. A sink's positions are in one of them, so
/// that an open transaction of another sink seldom delays a take-over.
const POSITIONS_PARTITIONS: i32 = 16;
/// The configuration of a new positions topic. Old positions are compacted soon, so that little has
/// to be read at a start.
const POSITIONS_CONFIG: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "600000"),
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.2"),
];

/// A client for requests about topics.
pub(super) struct Cluster {
    admin: AdminClient<DefaultClientContext>,
    /// The addresses of the brokers, for messages.
    brokers: String,
}

impl Cluster {
    /// A client with these properties. No broker is contacted before the first request.
    pub(super) fn new(config: &ClientConfig) -> Result<Cluster, SinkError> {
        let admin = config
            .create()
            .map_err(|error| SinkError::Fatal(Reason::of(error)))?;
        let brokers = config.get("bootstrap.servers").unwrap_or_default();
        Ok(Cluster {
            admin,
            brokers: brokers.to_owned(),
        })
    }

    /// The error for a request that failed and may succeed later. `what` is what it was for.
    fn transient(&self, what: String, error: KafkaError) -> SinkError {
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        let is_silent = code.is_some_and(is_of_connection);
        SinkError::Transient(match is_silent {
            true => Reason::caused_by(
                format!("the brokers at {} do not answer", self.brokers),
                error,
            )
            .followed_by("; check that they run and that `:brokers` has their addresses"),
            false => Reason::caused_by(what, error),
        })
    }

    /// Creates the positions topic unless it exists, and checks that the broker does not delete
    /// from it. Returns its number of partitions.
    pub(super) fn ensure_positions_topic(&self, topic: &str) -> Result<i32, SinkError> {
        let transient = |error| self.transient(format!("cannot create the topic {topic}"), error);
        // Where brokers create topics automatically, asking for the topic would create it without
        // this configuration, so it is created first.
        let new = POSITIONS_CONFIG.iter().fold(
            NewTopic::new(topic, POSITIONS_PARTITIONS, TopicReplication::Fixed(-1)),
            |new, (name, value)| new.set(name, value),
        );
        let created = block_on(self.admin.create_topics(&[new], &options())).map_err(transient)?;
        match created.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
            Some(Err((_, code))) if is_denied(code) => {
                if self.partitions_of(topic).map_err(transient)? == 0 {
                    let what =
                        format!("the topic {topic} is missing and creating it is not allowed");
                    return Err(SinkError::Fatal(Reason::caused_by(what, code).followed_by(
                        ". Create it with cleanup.policy=compact, or set :positions-topic to \
                         another topic",
                    )));
                }
            }
            Some(Err((_, code))) => return Err(transient(KafkaError::AdminOp(code))),
        }
        let partitions = self.wait_for_topic(topic)?;
        self.check_positions_topic(topic)?;
        Ok(partitions)
    }

    /// Checks that the topic is only compacted: if the broker deletes positions, their records are
    /// delivered again.
    fn check_positions_topic(&self, topic: &str) -> Result<(), SinkError> {
        let Some(config) = self.configuration(topic)? else {
            tracing::warn!(
                topic,
                "cannot read the configuration of the positions topic; it must have \
                 cleanup.policy=compact"
            );
            return Ok(());
        };
        let policy = value(&config, "cleanup.policy");
        if has_policy(policy.as_deref(), "compact") && !has_policy(policy.as_deref(), "delete") {
            return Ok(());
        }
        Err(SinkError::Fatal(
            format!(
                "the positions topic {topic} has cleanup.policy={}, so that the broker deletes \
                 positions, and their records would be written again. Set it to compact: \
                 kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config \
                 cleanup.policy=compact; or set :positions-topic to another topic",
                policy.unwrap_or_default()
            )
            .into(),
        ))
    }

    /// The rules of a topic. The broker creates a missing topic if it is configured to.
    pub(super) fn rules(&self, topic: &str) -> Result<TopicRules, SinkError> {
        let partitions = self.wait_for_topic(topic)?;
        // If reading the configuration is not allowed, the broker's refusals take its place.
        let config = self.configuration(topic)?;
        Ok(TopicRules::new(partitions, |name| {
            value(config.as_ref()?, name)
        }))
    }

    /// A topic's configuration; `None` if reading it is not allowed.
    fn configuration(&self, topic: &str) -> Result<Option<ConfigResource>, SinkError> {
        let failed = |cause: Box<dyn Error + Send + Sync>| {
            let what = format!("cannot read the configuration of the topic {topic}");
            SinkError::Transient(Reason::caused_by(what, cause))
        };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let described = block_on(
                self.admin
                    .describe_configs(&[ResourceSpecifier::Topic(topic)], &options()),
            );
            match described.map(|all| all.into_iter().next()) {
                Ok(Some(Ok(config))) => return Ok(Some(config)),
                Ok(Some(Err(code))) if is_denied(code) => return Ok(None),
                // A topic that was just created is not known to every broker at once.
                Ok(Some(Err(code))) if Instant::now() >= deadline => {
                    return Err(failed(code.into()));
                }
                Ok(None) => return Err(failed("the response is empty".into())),
                Err(error) => return Err(failed(error.into())),
                Ok(Some(Err(_))) => std::thread::sleep(RETRY_PAUSE),
            }
        }
    }

    fn wait_for_topic(&self, topic: &str) -> Result<i32, SinkError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match self.partitions_of(topic) {
                Ok(0) if Instant::now() >= deadline => {
                    return Err(SinkError::Fatal(
                        format!("unknown topic `{topic}`: create it first").into(),
                    ));
                }
                Ok(partitions) if partitions > 0 => return Ok(partitions),
                Err(error) if Instant::now() >= deadline => {
                    let what = format!("cannot look up the topic {topic}");
                    return Err(self.transient(what, error));
                }
                Ok(_) | Err(_) => std::thread::sleep(RETRY_PAUSE),
            }
        }
    }

    /// The number of partitions of a topic; 0 if the topic does not exist.
    fn partitions_of(&self, topic: &str) -> KafkaResult<i32> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let found = metadata
            .topics()
            .first()
            .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))?;
        Ok(if found.error().is_none() {
            i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)
        } else {
            0
        })
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

fn value(config: &ConfigResource, name: &str) -> Option<String> {
    config.get(name)?.value.clone()
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
    )
}
