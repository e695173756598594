//! Apache Kafka: the source `kafka`, a member of a consumer group, and the sink `kafka`, a
//! transactional producer.

#![deny(unsafe_code)]

mod connection;
mod logs;
#[allow(unsafe_code, reason = "parts of librdkafka that rdkafka does not wrap")]
mod native;
pub mod sink;
pub mod source;
pub mod tools;
mod topics;

pub use sink::KafkaSinkPlugin;
pub use source::KafkaSourcePlugin;
