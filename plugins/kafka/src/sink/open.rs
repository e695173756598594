//! The sink in a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::error::ArrowError;
use pseidon_delivery::{Committer, LaneId, Staged};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{Chunk, Routed, Sink, SinkError, SinkSetup, TakenOver, TakenSplit, Writer};
use pseidon_plugin::{BadRow, Rows, Stop};

use super::cluster::Cluster;
use super::health::Health;
use super::ids::TransactionalIds;
use super::positions::Keys;
use super::producer::{Batching, ProducerSettings, TransactionalProducer};
use super::record::Limits;
use super::rules::TopicRules;
use super::topic::Topic;
use super::writer::TransactionWriter;
use super::{KafkaSink, takeover};

/// The only lane.
const LANE: &str = "transaction";
/// What a transaction has beyond its age before the broker gives it up.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);

/// A sink in a run.
pub(super) struct OpenSink {
    pub(super) prepared: KafkaSink,
    /// The sink's own name.
    pub(super) stage: String,
    pub(super) base: PathBuf,
    pub(super) stop: Stop,
    pub(super) ids: TransactionalIds,
    /// The one that this instance has.
    pub(super) own_id: String,
    pub(super) keys: Keys,
    pub(super) producers: ProducerSettings,
    producer: Arc<TransactionalProducer>,
    topic: Topic,
    lane: LaneId,
    committer: Arc<Committer>,
    metrics: Metrics,
    health: Health,
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

/// The producer comes last, so that a start that fails leaves no transactional id with the brokers; and it is open before any split can be
/// taken, so that an instance that fences this one off later finds it.
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
    let batching = Batching { largest: rules.bytes, alone: prepared.refusals.has_suspects() };
    let ids = TransactionalIds::new(&setup.pipeline, &stage, &setup.store);
    let own_id = ids.of(&setup.instance);
    let producer = producers.open(&own_id, batching)?;
    Ok(OpenSink {
        prepared: prepared.clone(),
        keys: Keys::new(&setup.pipeline, setup.committer.sink(), partitions),
        ids,
        own_id,
        stage,
        base: setup.base,
        stop: setup.stop,
        producers,
        producer: Arc::new(producer),
        topic: Topic::new(&prepared.topic, config, rules),
        lane: LaneId::from(LANE),
        committer: setup.committer,
        metrics: setup.metrics,
        health: health.clone(),
    })
}

impl OpenSink {
    fn ready(&self, rows: &Rows, rules: &TopicRules) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let limits = Limits {
            topic: self.topic.name(),
            rules,
            client: self.producer.limit(),
            compression: self.producer.compression(),
            refusals: &self.prepared.refusals,
            now,
        };
        self.prepared.plan.ready(rows, &limits)
    }
}

impl Sink for OpenSink {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, splits: &[TakenSplit], _: &[Staged]) -> Result<TakenOver, SinkError> {
        if splits.is_empty() {
            return Ok(TakenOver::default());
        }
        let held_in = format!("the topic {} (:positions-topic)", self.prepared.positions_topic);
        Ok(TakenOver { published: Vec::new(), held: takeover::take_over(self, splits)?, held_in })
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
            Ok((ready, bad)) if ready.is_empty() => Routed { chunks: Vec::new(), bad },
            Ok((ready, bad)) => Routed { chunks: vec![Chunk::new(self.lane.clone(), ready)], bad },
            Err(error) => {
                let reason = error.to_string();
                let bad = (0..rows.len() as u32).map(|row| BadRow { row, reason: reason.clone() }).collect();
                Routed { chunks: Vec::new(), bad }
            }
        }
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        Ok(Box::new(TransactionWriter {
            sink: self.prepared.clone(),
            producer: self.producer.clone(),
            committer: self.committer.clone(),
            keys: self.keys.clone(),
            lane: self.lane.clone(),
            bytes_out: self.metrics.bytes_out.with_label_values(&[&self.stage]),
            health: self.health.clone(),
            opened: Instant::now(),
            open: None,
            last_commit: Instant::now(),
        }))
    }
}
