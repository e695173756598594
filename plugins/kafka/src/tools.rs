//! Command-line tools for a topic: bulk writes and ad-hoc reads, outside of any pipeline.
//!
//! [`TopicWriter`] is one of several producers that share one [`Deliveries`] counter.
//! [`TopicReader`] reads a topic without a consumer group, so that no other consumer is affected,
//! or as a member of the consumer group that the user names.

mod reader;
mod start;
mod writer;

pub use reader::{ReaderSettings, TopicReader};
pub use start::StartPosition;
pub use writer::{Deliveries, TopicWriter};

use std::error::Error;
use std::time::Duration;

use pseidon_delivery::Reason;
use rdkafka::ClientConfig;

/// The timeout of a request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of a client: `settings`, overridden by the user's `properties`.
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

/// The error of a request that the brokers did not answer.
fn unreachable(brokers: &str, error: impl Error + Send + Sync + 'static) -> Reason {
    Reason::caused_by(format!("the brokers at {brokers} do not answer"), error)
}
