//! A topic for a person at a terminal: records written in bulk, and records looked at, outside of
//! any pipeline.
//!
//! [`TopicWriter`] is one producer of many, all of which count into one [`Deliveries`].
//! [`TopicReader`] reads a topic without being noticed by anybody else, or as a member of a
//! consumer group where the user names one.

mod reader;
mod writer;

pub use reader::{Begin, ReaderSettings, TopicReader};
pub use writer::{Deliveries, TopicWriter};

use std::time::Duration;

use rdkafka::ClientConfig;

/// How long the brokers may take to answer the first question.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's configuration: these `settings`, over which the user's `properties` win.
fn config(
    brokers: &str,
    settings: &[(&str, &str)],
    properties: &[(String, String)],
) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "pseidon")
        .set("log.connection.close", "false");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    for (name, value) in properties {
        config.set(name, value);
    }
    config
}

/// Nothing can be asked of brokers that do not answer.
fn unreachable(brokers: &str, error: impl std::fmt::Display) -> String {
    format!("the brokers at {brokers} do not answer: {error}")
}
