//! Topics, as producers and consumers see them.

use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

/// How long a topic may be unreadable.
const READ_TIMEOUT: Duration = Duration::from_secs(180);

use super::wait_until;

/// Creates a topic with one partition, and waits until the broker knows it.
pub(crate) fn create(topic: &str, config: &[(&str, &str)]) {
    let new = config.iter().fold(
        NewTopic::new(topic, 1, TopicReplication::Fixed(1)),
        |new, (name, value)| new.set(name, value),
    );
    let (admin, topics) = (admin(), [new]);
    // A request that timed out may have been carried out.
    let is_there = |result: &TopicResult| match result {
        Ok(_) => true,
        Err((_, code)) => *code == RDKafkaErrorCode::TopicAlreadyExists,
    };
    wait_until(&format!("{topic} is created"), 30, || {
        block_on(admin.create_topics(&topics, &AdminOptions::new()))
            .is_ok_and(|results| results.iter().all(is_there))
    });
    wait_until(&format!("{topic} is there"), 30, || exists(topic));
}

/// Deletes a topic, and waits until it is gone.
pub(crate) fn delete(topic: &str) {
    assert!(delete_if_there(topic), "{topic} is there");
    wait_until(&format!("{topic} is gone"), 30, || !exists(topic));
}

/// Deletes a topic if it exists. Returns whether it did.
pub(crate) fn delete_if_there(topic: &str) -> bool {
    let deleted = block_on(admin().delete_topics(&[topic], &AdminOptions::new()))
        .expect("the broker answers");
    deleted.iter().all(Result::is_ok)
}

fn exists(topic: &str) -> bool {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", super::brokers())
        .create()
        .expect("a client");
    let metadata = client
        .fetch_metadata(None, Duration::from_secs(20))
        .expect("the broker answers");
    metadata.topics().iter().any(|known| known.name() == topic)
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", super::brokers())
        .create()
        .expect("a client")
}

/// The sum of the offsets that a group has committed for a topic; `None` if a partition has none.
pub(crate) fn group_offset(group: &str, topic: &str) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", super::brokers())
        .set("group.id", group)
        .create()
        .expect("a client");
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(20))
        .expect("the broker knows the topic");
    let mut list = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .first()
        .map_or(&[][..], |topic| topic.partitions())
    {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer
        .committed_offsets(list, Duration::from_secs(20))
        .expect("the group's offsets");
    let offset = |offset: Offset| {
        if let Offset::Offset(offset) = offset {
            Some(offset)
        } else {
            None
        }
    };
    committed
        .elements()
        .iter()
        .map(|element| offset(element.offset()))
        .sum()
}

/// Sends `count` records with keys of `key` bytes and a header `h` of `header` bytes.
pub(crate) fn produce_large(topic: &str, count: usize, key: usize, header: usize) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", super::brokers())
        .set("enable.idempotence", "true");
    let producer: BaseProducer = config.create().expect("a producer");
    let [key, header] = [key, header].map(|bytes| vec![b'k'; bytes]);
    for _ in 0..count {
        let headers = OwnedHeaders::new().insert(Header {
            key: "h",
            value: Some(&header),
        });
        let record = BaseRecord::to(topic).partition(0).key(&key).payload("{}");
        let mut record = record.headers(headers);
        while let Err((error, refused)) = producer.send(record) {
            let code = error.rdkafka_error_code();
            assert_eq!(code, Some(RDKafkaErrorCode::QueueFull), "{error}");
            record = refused;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("the broker has them");
}

/// Sends values to one partition, in order, and waits until the broker has them.
pub(crate) fn produce(
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = impl AsRef<[u8]>>,
) {
    let values: Vec<_> = values.into_iter().collect();
    send(values.iter().map(|value| {
        BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .payload(value.as_ref())
    }));
}

/// Sends records, and waits until the broker has them.
pub(crate) fn send<'a>(records: impl IntoIterator<Item = BaseRecord<'a, [u8], [u8]>>) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", super::brokers())
        .set("enable.idempotence", "true")
        .set("linger.ms", "5");
    let producer: BaseProducer = config.create().expect("a producer");
    for mut record in records {
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(5));
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("the broker accepts the records");
}

/// The committed values of a topic by partition: what a consumer with `isolation.level`
/// `read_committed` gets up to the first open transaction.
pub(crate) fn committed(topic: &str) -> Vec<Vec<String>> {
    let value = |message: OwnedMessage| {
        String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()
    };
    committed_messages(topic)
        .into_iter()
        .map(|messages| messages.into_iter().map(value).collect())
        .collect()
}

/// The committed messages of a topic by partition, with keys, headers and timestamps.
pub(crate) fn committed_messages(topic: &str) -> Vec<Vec<OwnedMessage>> {
    let deadline = Instant::now() + READ_TIMEOUT;
    loop {
        // A new topic may have no leader yet, or a leader that does not know it yet.
        match read_committed(topic, deadline) {
            Ok(messages) => return messages,
            Err(error) => assert!(Instant::now() < deadline, "cannot read {topic}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read_committed(topic: &str, deadline: Instant) -> KafkaResult<Vec<Vec<OwnedMessage>>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", super::brokers())
        .set("group.id", format!("{topic}-reader"));
    config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20))?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let mut assignment = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in 0..partitions as i32 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        ends.push(
            consumer
                .fetch_watermarks(topic, partition, Duration::from_secs(20))?
                .1,
        );
    }
    consumer.assign(&assignment)?;

    // A partition is done when the broker reports its end, or, if more records keep arriving, at a
    // record beyond its end at the start.
    let mut messages = vec![Vec::new(); partitions];
    let mut at_end = vec![false; partitions];
    while at_end.contains(&false) {
        assert!(
            Instant::now() < deadline,
            "the end of {topic} was not reached"
        );
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let partition = message.partition() as usize;
                at_end[partition] |= message.offset() + 1 >= ends[partition];
                messages[partition].push(message.detach());
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => at_end[partition as usize] = true,
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(messages)
}

/// Changes the configuration of a topic.
pub(crate) fn alter(topic: &str, name: &str, value: &str) {
    let altered = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let outcomes = block_on(admin().alter_configs(&[altered], &AdminOptions::new()))
        .expect("the broker answers");
    outcomes
        .into_iter()
        .for_each(|outcome| drop(outcome.expect("the configuration is valid")));
}
