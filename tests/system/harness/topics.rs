//! Topics, as producers and consumers see them.

use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::wait_until;

/// Makes a topic with one partition, and waits until the broker knows it.
pub(crate) fn create(topic: &str) {
    let (admin, topics) = (admin(), [NewTopic::new(topic, 1, TopicReplication::Fixed(1))]);
    wait_until(&format!("{topic} is made"), 30, || {
        block_on(admin.create_topics(&topics, &AdminOptions::new())).is_ok_and(|results| results.iter().all(Result::is_ok))
    });
    wait_until(&format!("{topic} is there"), 30, || exists(topic));
}

/// Deletes a topic, and waits until it is gone.
pub(crate) fn delete(topic: &str) {
    for result in block_on(admin().delete_topics(&[topic], &AdminOptions::new())).expect("an answer") {
        result.expect("the topic can be deleted");
    }
    wait_until(&format!("{topic} is gone"), 30, || !exists(topic));
}

fn exists(topic: &str) -> bool {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", super::brokers()).create().expect("a client");
    let metadata = client.fetch_metadata(None, Duration::from_secs(20)).expect("the broker answers");
    metadata.topics().iter().any(|known| known.name() == topic)
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", super::brokers()).create().expect("a client")
}

/// The sum of the offsets that a group has committed for a topic; `None` where it has none for a partition.
pub(crate) fn group_offset(group: &str, topic: &str) -> Option<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", super::brokers()).set("group.id", group).create().expect("a client");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).expect("the broker knows the topic");
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().first().map_or(&[][..], |topic| topic.partitions()) {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(list, Duration::from_secs(20)).expect("the group's offsets");
    let offset = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    committed.elements().iter().map(|element| offset(element.offset())).sum()
}

/// Sends records that are all key: so many, each of so many bytes.
pub(crate) fn produce_keys(topic: &str, count: usize, bytes: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", super::brokers()).set("enable.idempotence", "true").set("compression.type", "zstd");
    let producer: BaseProducer = config.create().expect("a producer");
    let key = vec![b'k'; bytes];
    for _ in 0..count {
        let mut record = BaseRecord::to(topic).partition(0).key(&key).payload("{}");
        while let Err((_, refused)) = producer.send(record) {
            record = refused;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("the broker has them");
}

/// Sends these to one partition, in this order, and waits until the broker has them.
pub(crate) fn produce(topic: &str, partition: i32, values: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", super::brokers()).set("enable.idempotence", "true").set("linger.ms", "5");
    let producer: BaseProducer = config.create().expect("a producer");
    for value in values {
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value.as_ref());
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes the records");
}

/// The values of a topic by partition, as far as they are committed now: what a consumer with `isolation.level` `read_committed` gets up to the
/// first transaction that is still open.
pub(crate) fn committed(topic: &str) -> Vec<Vec<String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", super::brokers()).set("group.id", format!("{topic}-reader"));
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).expect("the broker knows the topic");
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let mut assignment = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in 0..partitions as i32 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        ends.push(consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).expect("the partition's end").1);
    }
    consumer.assign(&assignment).expect("an assignment");

    // Either the broker says that the end is reached, or, where more keeps coming, a record is from behind the end that there was.
    let mut values = vec![Vec::new(); partitions];
    let mut at_end = vec![false; partitions];
    let deadline = Instant::now() + Duration::from_secs(60);
    while at_end.contains(&false) {
        assert!(Instant::now() < deadline, "the end of {topic} was not reached");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                let partition = message.partition() as usize;
                values[partition].push(value);
                at_end[partition] |= message.offset() + 1 >= ends[partition];
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => at_end[partition as usize] = true,
            Some(Err(error)) => panic!("cannot read {topic}: {error}"),
            None => {}
        }
    }
    values
}
