//! Clients that are not part of a pipeline: they write and read records, and the offsets of groups.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::{PATIENCE, brokers, unique};

/// A writer of records.
pub(crate) struct Writer(BaseProducer);

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer(
            ClientConfig::new()
                .set("bootstrap.servers", brokers())
                .set("linger.ms", "0")
                .create()
                .unwrap(),
        )
    }

    pub(crate) fn write(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = String>,
    ) {
        for value in values {
            self.send(
                BaseRecord::<(), String>::to(topic)
                    .partition(partition)
                    .payload(&value),
            );
        }
        self.0.flush(PATIENCE).unwrap();
    }

    pub(crate) fn write_at(&self, topic: &str, partition: i32, value: &str, timestamp: i64) {
        self.send(
            BaseRecord::<(), str>::to(topic)
                .partition(partition)
                .payload(value)
                .timestamp(timestamp),
        );
        self.0.flush(PATIENCE).unwrap();
    }

    pub(crate) fn write_all(
        &self,
        topic: &str,
        key: &str,
        value: Option<&str>,
        headers: &[(&str, Option<&str>)],
    ) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: *value })
            });
        let mut record = BaseRecord::to(topic).partition(0).key(key).headers(headers);
        record.payload = value;
        self.send(record);
        self.0.flush(PATIENCE).unwrap();
    }

    fn send<K: rdkafka::message::ToBytes + ?Sized, V: rdkafka::message::ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, V>,
    ) {
        while let Err((_, back)) = self.0.send(record) {
            self.0.poll(Duration::from_millis(10));
            record = back;
        }
    }
}

/// The outcome of the last delivery.
#[derive(Default)]
struct LastDelivery(Mutex<Option<bool>>);

impl ClientContext for LastDelivery {}

impl ProducerContext for LastDelivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        *self.0.lock() = Some(result.is_ok());
    }
}

/// Whether the broker accepts such a record, by writing it.
pub(crate) fn accepts_record(topic: &str, key: Option<&str>, timestamp: Option<i64>) -> bool {
    let mut record = BaseRecord::<str, str>::to(topic).payload("probe");
    (record.key, record.timestamp) = (key, timestamp);
    let mut config = ClientConfig::new();
    let producer: BaseProducer<LastDelivery> = config
        .set("bootstrap.servers", brokers())
        .create_with_context(LastDelivery::default())
        .unwrap();
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    let outcome = *producer.client().context().0.lock();
    outcome.expect("the broker has answered")
}

/// Everything in a topic that a reader of committed records sees, as (partition, key, value) by
/// offset.
pub(crate) fn committed_records(
    topic: &str,
    partitions: i32,
) -> Vec<rdkafka::message::OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", unique("reader"))
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(PATIENCE).expect("the topic can be read") {
            Ok(message) => records.push(message.detach()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    records
}

/// A producer that is not part of a pipeline.
pub(crate) fn transactional(id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("transactional.id", id)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// Sets a group's offset like an external tool.
pub(crate) fn set_group_offset(group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// The offsets that a group has committed.
pub(crate) fn group_offsets(group: &str, topic: &str, partitions: i32) -> Vec<Offset> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let list = consumer.committed_offsets(list, PATIENCE).unwrap();
    list.elements()
        .iter()
        .map(|element| element.offset())
        .collect()
}
