//! A real broker, and an engine that a test controls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use parking_lot::Mutex;
use pseidon_delivery::{Position, ResumeToken, SplitId};
use pseidon_dsl::{Node, NodeKind, Span, edn};
use pseidon_kafka::KafkaSourcePlugin;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{
    Resumption, Source, SourceEndCallback, SourceError, SourceEvent, SourceHandle, SourcePlugin,
    SourceRun, SourceSetup, SplitStart,
};
use pseidon_plugin::spec::PluginSpec;
use pseidon_plugin::{Batch, Budget, Options, Pause, Split, Stop};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

/// The timeout of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The brokers of the tests.
pub(crate) fn brokers() -> String {
    std::env::var("PSEIDON_TEST_KAFKA").expect(
        "PSEIDON_TEST_KAFKA is not set; start a broker and set it: eval \
         \"$(scripts/local-up kafka)\"",
    )
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!("{name}-{now:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

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

/// Increases the number of a topic's partitions.
pub(crate) fn grow_topic(name: &str, partitions: usize) {
    let grown = NewPartitions::new(name, partitions);
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

/// Waits until `holds` returns true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

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

/// Options as a pipeline file contains them.
pub(crate) fn options(spec: &'static PluginSpec, text: &str) -> Options {
    let node: Node = edn::read(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    assert!(matches!(node.kind, NodeKind::Map(_)), "{text}");
    Options::parse(spec, &[node], Span::default())
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// A source with these options in addition to `:brokers`.
pub(crate) fn source(text: &str) -> Arc<dyn Source> {
    let text = format!("{{:brokers \"{}\" {text}}}", brokers());
    KafkaSourcePlugin
        .prepare(&options(KafkaSourcePlugin.spec(), &text))
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The setup of a run.
pub(crate) fn setup(pipeline: &str, wanted: WantedMetadata) -> SourceSetup {
    SourceSetup {
        pipeline: pipeline.to_owned(),
        stage: "clicks".to_owned(),
        base: ".".into(),
        wanted,
        io_threads: 1,
        memory: 64 << 20,
        instance: unique("instance"),
        state: "the state".to_owned(),
        metrics: Metrics::new(),
    }
}

/// The content of the engine's store, and the records that the engine received.
#[derive(Default)]
pub(crate) struct EngineState {
    /// The position at which each split is resumed.
    pub(crate) stored: HashMap<SplitId, Position>,
    /// The resume value of each split.
    pub(crate) resumes: HashMap<SplitId, ResumeToken>,
    /// The records of each split, with their positions.
    pub(crate) records: HashMap<SplitId, Vec<(Position, Option<String>)>>,
    pub(crate) keys: Vec<Option<String>>,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) headers: Vec<Option<String>>,
    pub(crate) taken: Vec<SplitId>,
    pub(crate) begun: Vec<(SplitId, Position)>,
    pub(crate) released: Vec<SplitId>,
}

impl EngineState {
    pub(crate) fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
}

/// A running source with an engine that commits every batch at once.
pub(crate) struct Run {
    pub(crate) seen: Arc<Mutex<EngineState>>,
    pub(crate) stop: Stop,
    pub(crate) budget: Arc<Budget>,
    /// Batches that the engine has not released; filled while `hold` is set.
    pub(crate) held: Arc<Mutex<Vec<Batch>>>,
    /// Whether the engine accepts no event.
    pub(crate) is_stuck: Arc<AtomicBool>,
    /// The number of records received.
    pub(crate) received: Arc<AtomicUsize>,
    pub(crate) setup: SourceSetup,
    source: JoinHandle<Result<(), SourceError>>,
    engine: JoinHandle<()>,
}

impl Run {
    /// Starts a run with a store that other runs may share.
    pub(crate) fn start(
        source: Arc<dyn Source>,
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: usize,
        hold: bool,
    ) -> Run {
        Run::start_with(
            setup,
            seen,
            Budget::new(budget),
            hold,
            move |setup, handle| source.run(setup, handle),
        )
    }

    /// Starts a run of one topic on a shared consumer.
    pub(crate) fn attach(
        consumer: &Arc<SharedConsumer>,
        topic: &str,
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: Arc<Budget>,
    ) -> Run {
        let (consumer, topic) = (consumer.clone(), topic.to_owned());
        Run::start_with(setup, seen, budget, false, move |setup, handle| {
            let (end, ended) = crossbeam_channel::bounded(1);
            let ended_by: SourceEndCallback = Box::new(move |outcome| end.send(outcome).unwrap());
            consumer.attach(
                &topic,
                setup,
                SourceRun {
                    handle,
                    ended: ended_by,
                },
            );
            ended.recv().expect("the end is reported")
        })
    }

    fn start_with(
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: Arc<Budget>,
        hold: bool,
        read: impl FnOnce(&SourceSetup, SourceHandle) -> Result<(), SourceError> + Send + 'static,
    ) -> Run {
        let (stop, durable) = (Stop::new(), Arc::new(Mutex::new(HashMap::new())));
        let (handle, events) = SourceHandle::new(
            budget.clone(),
            stop.clone(),
            Pause::default(),
            durable.clone(),
        );
        let held = Arc::new(Mutex::new(Vec::new()));
        let (is_stuck, received) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let engine = {
            let (seen, held, is_stuck, received) = (
                seen.clone(),
                held.clone(),
                is_stuck.clone(),
                received.clone(),
            );
            std::thread::spawn(move || {
                for event in events {
                    while is_stuck.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    if let SourceEvent::Emit(batch) = &event {
                        received.fetch_add(batch.len(), Ordering::Relaxed);
                    }
                    answer(event, &seen, &durable, hold.then_some(&*held));
                }
            })
        };
        let of_source = setup.clone();
        let source = std::thread::spawn(move || read(&of_source, handle));
        Run {
            seen,
            stop,
            budget,
            held,
            is_stuck,
            received,
            setup,
            source,
            engine,
        }
    }

    /// Waits until the source ends by itself.
    pub(crate) fn wait(self) -> Result<(), SourceError> {
        eventually("the source ends", || self.source.is_finished());
        let outcome = self.source.join().unwrap();
        self.is_stuck.store(false, Ordering::Relaxed);
        self.engine.join().unwrap();
        outcome
    }

    /// Whether the run has not ended.
    pub(crate) fn is_running(&self) -> bool {
        !self.source.is_finished()
    }

    /// Stops the run.
    pub(crate) fn stop(self) -> Result<(), SourceError> {
        self.stop.stop_reading();
        self.wait()
    }

    /// Waits until `count` records were received in total.
    pub(crate) fn wait_for(&self, count: usize) {
        eventually(&format!("{count} records are received"), || {
            assert!(
                !self.source.is_finished(),
                "the source has ended with {} of {count} records",
                self.seen.lock().count()
            );
            self.seen.lock().count() >= count
        });
    }
}

fn answer(
    event: SourceEvent,
    seen: &Mutex<EngineState>,
    durable: &Mutex<HashMap<SplitId, Position>>,
    held: Option<&Mutex<Vec<Batch>>>,
) {
    let mut seen = seen.lock();
    match event {
        SourceEvent::ShareSplits(..) | SourceEvent::ForgetFinished(_) => {
            panic!("kafka shares partitions by its own protocol")
        }
        SourceEvent::Take(splits, reply) => {
            seen.taken
                .extend(splits.iter().map(|split| split.id.clone()));
            let known = |split: &Arc<Split>| {
                let position = *seen.stored.get(&split.id)?;
                Some(Resumption {
                    position,
                    resume: seen.resumes.get(&split.id).cloned(),
                    is_finished: false,
                })
            };
            let _ = reply.send(splits.iter().map(known).collect());
        }
        SourceEvent::Begin(splits, reply) => {
            for SplitStart {
                split,
                position,
                resume,
            } in splits
            {
                if !seen.stored.contains_key(&split.id) {
                    seen.stored.insert(split.id.clone(), position);
                    seen.resumes
                        .extend(resume.map(|resume| (split.id.clone(), resume)));
                }
                seen.begun.push((split.id.clone(), position));
            }
            let _ = reply.send(());
        }
        SourceEvent::Emit(batch) => {
            let split = batch.split.id.clone();
            assert!(
                seen.stored[&split] <= batch.positions.first().copied().unwrap_or(batch.next),
                "{split} moved backwards"
            );
            let payload = |row| {
                batch
                    .payloads
                    .get(row)
                    .map(|payload| String::from_utf8(payload.to_vec()).unwrap())
            };
            let records: Vec<_> = batch
                .positions
                .iter()
                .enumerate()
                .map(|(row, position)| (*position, payload(row)))
                .collect();
            seen.records
                .entry(split.clone())
                .or_default()
                .extend(records);
            seen.stored.insert(split.clone(), batch.next);
            seen.resumes.extend(
                batch
                    .resume
                    .clone()
                    .map(|from| (split.clone(), from.resume)),
            );
            for row in 0..batch.len() {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.keys.extend(
                    batch
                        .keys
                        .as_ref()
                        .map(|keys| keys.iter().nth(row).unwrap().map(text)),
                );
                seen.headers.extend(
                    batch
                        .headers
                        .as_ref()
                        .map(|headers| headers.iter().nth(row).unwrap().map(str::to_owned)),
                );
                seen.timestamps
                    .extend(batch.timestamps.as_ref().map(|all| all[row]));
            }
            durable.lock().insert(split, batch.next);
            if let Some(held) = held {
                held.lock().push(*batch);
            }
        }
        SourceEvent::Release(splits, reply) => {
            seen.released
                .extend(splits.iter().map(|split| split.id.clone()));
            let _ = reply.send(());
        }
    }
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
