//! The sink of a running pipeline. It takes splits over in [`takeover`].

mod takeover;

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::error::ArrowError;
use parking_lot::Mutex;
use pseidon_delivery::{LaneId, StagedEntry};
use pseidon_plugin::lane::{Lane, LaneRules, Transaction};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, RoutedRows, Sink, SinkError, SinkSetup, TakenSplit, TakeoverResult, TargetPositions,
};
use pseidon_plugin::{Rows, Stop};
use rdkafka::ClientConfig;

use super::KafkaSink;
use super::cluster::Cluster;
use super::health::SinkHealth;
use super::ids::TransactionalIds;
use super::lane::{ProducerRun, TransactionLane};
use super::limits::RecordLimits;
use super::positions::PositionKeys;
use super::producer::{Batching, ProducerSettings};
use super::record::ConvertedRows;
use super::rules::TopicRules;
use super::topic::SinkTopic;

/// The name of the only lane.
const LANE: &str = "transaction";
/// How much longer than its age a transaction may be open before the broker aborts it.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);
/// The bounds of the interval at which the age of a transaction is checked.
const MIN_CHECK: Duration = Duration::from_millis(20);
const MAX_CHECK: Duration = Duration::from_millis(250);

/// A sink that is open in a run.
pub(super) struct OpenKafkaSink {
    /// The name of the sink's stage.
    pub(super) stage: String,
    pub(super) base: PathBuf,
    pub(super) stop: Stop,
    pub(super) ids: TransactionalIds,
    /// The transactional id of this instance.
    pub(super) own_id: String,
    pub(super) producers: ProducerSettings,
    topic: SinkTopic,
    /// The state that its transactions share.
    pub(super) run: Arc<ProducerRun>,
}

/// Opens the sink. A failure is shown as blocked on the health page until something is written.
pub(super) fn open(prepared: &KafkaSink, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
    let health = SinkHealth::new(setup.committer.sink().as_str(), &setup.metrics);
    match open_at(prepared, setup, &health) {
        Ok(sink) => Ok(Arc::new(sink)),
        Err(error) => {
            health.set_blocked();
            Err(error)
        }
    }
}

/// Opens the producer last, so that a failed start leaves no transactional id with the brokers. The
/// producer is open before any split can be taken, so that an instance that fences this one off
/// later finds its id.
fn open_at(
    prepared: &KafkaSink,
    setup: SinkSetup,
    health: &SinkHealth,
) -> Result<OpenKafkaSink, SinkError> {
    let stage = setup.committer.sink().to_string();
    let config = prepared.connection.config(&setup.base, &[]);
    let cluster = Cluster::new(&config)?;
    let partitions = cluster.ensure_positions_topic(&prepared.positions_topic)?;
    let rules = cluster.rules(&prepared.topic)?;
    if rules.needs_key && !prepared.plan.has_keys() {
        let what = format!(
            "the topic {} is compacted and accepts only records with a key: set `:key`, such as \
             `:key \"id\"`",
            prepared.topic
        );
        return Err(SinkError::Fatal(what.into()));
    }
    let producers = ProducerSettings {
        stage: stage.clone(),
        connection: prepared.connection.clone(),
        base: setup.base.clone(),
        topic: prepared.topic.clone(),
        // librdkafka's buffers are not counted with the lanes of other sinks.
        memory: setup.memory.limit() / 4,
        timeout: prepared.age + TIMEOUT_MARGIN,
        stop: setup.stop.clone(),
        health: health.clone(),
    };
    let batching = Batching {
        largest: rules.bytes,
        alone: prepared.refusals.has_suspects(),
    };
    let ids = TransactionalIds::new(&setup.pipeline, &stage, &setup.store);
    let own_id = ids.id_of(&setup.instance);
    let producer = producers.open(&own_id, batching)?;
    let run = ProducerRun {
        sink: prepared.clone(),
        producer,
        keys: PositionKeys::new(&setup.pipeline, setup.committer.sink(), partitions),
        committer: setup.committer,
        lane: LaneId::from(LANE),
        bytes_out: setup.metrics.bytes_out.with_label_values(&[&stage]),
        health: health.clone(),
        opened: Instant::now(),
    };
    Ok(OpenKafkaSink {
        ids,
        own_id,
        stage,
        base: setup.base,
        stop: setup.stop,
        producers,
        topic: SinkTopic::new(&prepared.topic, rules, lookup(&prepared.topic, config)),
        run: Arc::new(run),
    })
}

/// How to look up the rules of the topic. The client is made for the first lookup, and kept, since
/// only few sinks need one.
fn lookup(
    topic: &str,
    config: ClientConfig,
) -> impl Fn() -> Result<TopicRules, SinkError> + Send + Sync + 'static {
    let (topic, client) = (topic.to_owned(), Mutex::new(None));
    move || {
        let mut client = client.lock();
        let cluster = match &mut *client {
            Some(cluster) => cluster,
            none => none.insert(Cluster::new(&config)?),
        };
        cluster.rules(&topic)
    }
}

impl OpenKafkaSink {
    fn convert(&self, rows: &Rows, rules: &TopicRules) -> Result<ConvertedRows, ArrowError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let limits = RecordLimits {
            topic: self.topic.name(),
            rules,
            client: self.run.producer.limit(),
            compression: self.run.producer.compression(),
            refusals: &self.run.sink.refusals,
            now,
        };
        self.run.sink.plan.convert(rows, &limits)
    }
}

impl Sink for OpenKafkaSink {
    fn rules(&self) -> LaneRules {
        let (records, age) = (self.run.sink.records, self.run.sink.age);
        LaneRules {
            single_writer: true,
            rollover: Rollover {
                records: Some(records),
                ..Rollover::every(age)
            },
            check_every: (age / 4).clamp(MIN_CHECK, MAX_CHECK),
            most_open: usize::MAX,
        }
    }

    fn take_over(
        &self,
        splits: &[TakenSplit],
        _: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        if splits.is_empty() {
            return Ok(TakeoverResult::default());
        }
        let location = format!(
            "the topic {} (:positions-topic)",
            self.run.sink.positions_topic
        );
        Ok(TakeoverResult {
            published: Vec::new(),
            held: Some(TargetPositions {
                location,
                by_split: takeover::take_over(self, splits)?,
            }),
        })
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let rules = self.topic.rules();
        let mut ready = self.convert(&rows, &rules);
        if !matches!(&ready, Ok(ready) if ready.is_all())
            && let Some(rules) = self.topic.newer_rules(&rules)
        {
            ready = self.convert(&rows, &rules);
        }
        match ready {
            Ok(ConvertedRows {
                ready,
                bad,
                refused,
            }) => {
                let chunk = |rows| Chunk::new(self.run.lane.clone(), rows);
                RoutedRows {
                    chunks: (!ready.is_empty())
                        .then_some(ready)
                        .map(chunk)
                        .into_iter()
                        .collect(),
                    bad,
                    refused,
                }
            }
            Err(error) => RoutedRows::all_bad(rows.len(), &error),
        }
    }

    fn lane(&self, _lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(TransactionLane::new(self.run.clone())))
    }

    fn transaction_without_records(&self) -> Option<Box<dyn Transaction>> {
        Some(Box::new(TransactionLane::new(self.run.clone())))
    }

    /// Lets the client report errors while no transaction is open, too.
    fn tick(&self) -> Result<(), SinkError> {
        self.run
            .producer
            .poll()
            .map_err(|error| TransactionLane::new(self.run.clone()).failure(error, []))
    }
}
