//! The topics of the broker: created, changed and deleted.

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{PATIENCE, brokers, eventually, unique};

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap()
}

/// A new topic with this number of partitions.
pub(crate) fn new_topic(name: &str, partitions: i32) -> String {
    let name = unique(name);
    create_topic(&name, partitions, &[]);
    name
}

/// Creates a topic.
pub(crate) fn create_topic(name: &str, partitions: i32, config: &[(&str, &str)]) {
    let topic = config.iter().fold(
        NewTopic::new(name, partitions, TopicReplication::Fixed(1)),
        |topic, (key, value)| topic.set(key, value),
    );
    for result in block_on(admin().create_topics(&[topic], &AdminOptions::new())).unwrap() {
        result.unwrap();
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap();
    eventually("the topic is there", || {
        let metadata = consumer.fetch_metadata(Some(name), PATIENCE).unwrap();
        metadata.topics()[0]
            .partitions()
            .iter()
            .filter(|at| at.leader() >= 0)
            .count()
            == partitions as usize
    });
}

/// Changes a topic's configuration.
pub(crate) fn alter_topic(name: &str, config: &[(&str, &str)]) {
    let mut altered = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (key, value) in config {
        altered = altered.set(key, value);
    }
    for result in block_on(admin().alter_configs(&[altered], &AdminOptions::new())).unwrap() {
        result.unwrap();
    }
}

/// Deletes a topic, and waits until it is gone.
pub(crate) fn delete_topic(name: &str) {
    for result in block_on(admin().delete_topics(&[name], &AdminOptions::new())).unwrap() {
        result.unwrap();
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap();
    eventually("the topic is gone", || {
        consumer
            .fetch_metadata(None, PATIENCE)
            .unwrap()
            .topics()
            .iter()
            .all(|topic| topic.name() != name)
    });
}

/// Increases the number of a topic's partitions.
pub(crate) fn grow_topic(name: &str, partitions: i32) {
    let grown = NewPartitions::new(name, partitions as usize);
    for result in block_on(admin().create_partitions(&[grown], &AdminOptions::new())).unwrap() {
        result.unwrap();
    }
}

/// The number of a topic's partitions.
pub(crate) fn partitions_of(topic: &str) -> i32 {
    let metadata = admin()
        .inner()
        .fetch_metadata(Some(topic), PATIENCE)
        .unwrap();
    metadata.topics()[0].partitions().len() as i32
}

/// Deletes the records below an offset.
pub(crate) fn delete_records(topic: &str, partition: i32, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(before))
        .unwrap();
    block_on(admin().delete_records(&list, &AdminOptions::new())).unwrap();
}
