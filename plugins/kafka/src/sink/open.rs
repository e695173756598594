//! The sink in a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::error::ArrowError;
use pseidon_delivery::{LaneId, Staged};
use pseidon_plugin::lane::{Lane, LaneRules, Transaction};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{Chunk, Routed, Sink, SinkError, SinkSetup, TakenOver, TakenSplit};
use pseidon_plugin::{BadRow, Rows, Stop};

use super::cluster::Cluster;
use super::health::Health;
use super::ids::TransactionalIds;
use super::lane::{ProducerRun, TransactionLane};
use super::positions::Keys;
use super::producer::{Batching, ProducerSettings};
use super::record::Limits;
use super::rules::TopicRules;
use super::topic::Topic;
use super::{KafkaSink, takeover};

/// The only lane.
const LANE: &str = "transaction";
/// What a transaction has beyond its age before the broker gives it up.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);
/// How often the age of a transaction is looked at, at most and at least.
const SHORTEST_CHECK: Duration = Duration::from_millis(20);
const LONGEST_CHECK: Duration = Duration::from_millis(250);

/// A sink in a run.
pub(super) struct OpenSink {
    /// The sink's own name.
    pub(super) stage: String,
    pub(super) base: PathBuf,
    pub(super) stop: Stop,
    pub(super) ids: TransactionalIds,
    /// The one that this instance has.
    pub(super) own_id: String,
    pub(super) producers: ProducerSettings,
    topic: Topic,
    /// What its transactions share.
    pub(super) run: Arc<ProducerRun>,
}

/// Opens the sink. A failure shows on the health page until something is written.
pub(super) fn open(prepared: &KafkaSink, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
    let health = Health::new(setup.committer.sink().as_str(), &setup.metrics);
    match open_at(prepared, setup, &health) {
        Ok(sink) => Ok(Arc::new(sink)),
        Err(error) => {
            health.ill();
            Err(error)
        }
    }
}

/// The producer comes last, so that a start that fails leaves no transactional id with the brokers;
/// and it is open before any split can be taken, so that an instance that fences this one off later
/// finds it.
fn open_at(prepared: &KafkaSink, setup: SinkSetup, health: &Health) -> Result<OpenSink, SinkError> {
    let stage = setup.committer.sink().to_string();
    let config = prepared.connection.config(&setup.base, &[]);
    let cluster = Cluster::new(&config)?;
    let partitions = cluster.ensure_positions_topic(&prepared.positions_topic)?;
    let rules = cluster.rules(&prepared.topic)?;
    if rules.needs_key && !prepared.plan.has_keys() {
        return Err(SinkError::Fatal(format!(
            "the topic {} is compacted and accepts only records with a key: the sink needs `:key`, such as `:key \"id\"`",
            prepared.topic
        )));
    }
    let producers = ProducerSettings {
        stage: stage.clone(),
        connection: prepared.connection.clone(),
        base: setup.base.clone(),
        topic: prepared.topic.clone(),
        // What librdkafka holds is not counted with the other sinks' lanes.
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
    let own_id = ids.of(&setup.instance);
    let producer = producers.open(&own_id, batching)?;
    let run = ProducerRun {
        sink: prepared.clone(),
        producer,
        keys: Keys::new(&setup.pipeline, setup.committer.sink(), partitions),
        committer: setup.committer,
        lane: LaneId::from(LANE),
        bytes_out: setup.metrics.bytes_out.with_label_values(&[&stage]),
        health: health.clone(),
        opened: Instant::now(),
    };
    Ok(OpenSink {
        ids,
        own_id,
        stage,
        base: setup.base,
        stop: setup.stop,
        producers,
        topic: Topic::new(&prepared.topic, config, rules),
        run: Arc::new(run),
    })
}

impl OpenSink {
    fn ready(&self, rows: &Rows, rules: &TopicRules) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let limits = Limits {
            topic: self.topic.name(),
            rules,
            client: self.run.producer.limit(),
            compression: self.run.producer.compression(),
            refusals: &self.run.sink.refusals,
            now,
        };
        self.run.sink.plan.ready(rows, &limits)
    }
}

impl Sink for OpenSink {
    fn rules(&self) -> LaneRules {
        let (records, age) = (self.run.sink.records, self.run.sink.age);
        LaneRules {
            single_writer: true,
            rollover: Rollover {
                records: Some(records),
                ..Rollover::every(age)
            },
            check_every: (age / 4).clamp(SHORTEST_CHECK, LONGEST_CHECK),
            most_open: usize::MAX,
        }
    }

    fn take_over(&self, splits: &[TakenSplit], _: &[Staged]) -> Result<TakenOver, SinkError> {
        if splits.is_empty() {
            return Ok(TakenOver::default());
        }
        let held_in = format!(
            "the topic {} (:positions-topic)",
            self.run.sink.positions_topic
        );
        Ok(TakenOver {
            published: Vec::new(),
            held: takeover::take_over(self, splits)?,
            held_in,
        })
    }

    fn route(&self, rows: Rows) -> Routed {
        let rules = self.topic.rules();
        let mut ready = self.ready(&rows, &rules);
        if !matches!(&ready, Ok((_, bad)) if bad.is_empty())
            && let Some(rules) = self.topic.newer_rules(&rules)
        {
            ready = self.ready(&rows, &rules);
        }
        match ready {
            Ok((ready, bad)) if ready.is_empty() => Routed {
                chunks: Vec::new(),
                bad,
            },
            Ok((ready, bad)) => Routed {
                chunks: vec![Chunk::new(self.run.lane.clone(), ready)],
                bad,
            },
            Err(error) => {
                let reason = error.to_string();
                let bad = (0..rows.len() as u32)
                    .map(|row| BadRow {
                        row,
                        reason: reason.clone(),
                    })
                    .collect();
                Routed {
                    chunks: Vec::new(),
                    bad,
                }
            }
        }
    }

    fn lane(&self, _lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(TransactionLane::new(self.run.clone())))
    }

    fn transaction_without_records(&self) -> Option<Box<dyn Transaction>> {
        Some(Box::new(TransactionLane::new(self.run.clone())))
    }

    /// The client is to report errors while no transaction is open, too.
    fn tick(&self) -> Result<(), SinkError> {
        self.run
            .producer
            .poll()
            .map_err(|error| TransactionLane::new(self.run.clone()).failed(error, []))
    }
}
