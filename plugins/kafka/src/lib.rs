//! Apache Kafka: the source `kafka`, a member of a consumer group, and the sink `kafka`, a
//! transactional producer.

mod connection;
mod logs;
mod native;
pub mod sink;
pub mod source;
pub mod tools;
mod topics;

pub use sink::KafkaSinkPlugin;
pub use source::KafkaSourcePlugin;
