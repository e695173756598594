//! The sink in a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::{Committer, LaneId, Staged};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{Chunk, Routed, Sink, SinkError, SinkSetup, Taken, TakenOver, Writer};
use pseidon_plugin::{BadRow, Rows, Stop};

use super::positions::Keys;
use super::producer::{ProducerSettings, TransactionalProducer};
use super::record::Limits;
use super::writer::TransactionWriter;
use super::{KafkaSink, cluster, takeover};

/// The only lane.
const LANE: &str = "transaction";
/// What a transaction has beyond its age before the broker gives it up.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);

/// A sink in a run.
pub(super) struct OpenSink {
    pub(super) prepared: KafkaSink,
    pub(super) pipeline: String,
    /// The sink's own name.
    pub(super) stage: String,
    pub(super) base: PathBuf,
    pub(super) stop: Stop,
    pub(super) instance: String,
    pub(super) keys: Keys,
    pub(super) producers: ProducerSettings,
    producer: Arc<TransactionalProducer>,
    limits: Limits,
    lane: LaneId,
    committer: Arc<Committer>,
    metrics: Metrics,
}

/// The transactional id under which an instance writes records.
pub(super) fn transactional_id(pipeline: &str, sink: &str, instance: &str) -> String {
    format!("{pipeline}-{sink}-{instance}")
}

/// Opens the producer before any split can be taken: whoever fences us off later must find it open.
pub(super) fn open(prepared: &KafkaSink, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
    let stage = setup.committer.sink().to_string();
    let producers = ProducerSettings {
        stage: stage.clone(),
        connection: prepared.connection.clone(),
        base: setup.base.clone(),
        // What librdkafka holds is not counted with the other sinks' lanes.
        memory: setup.memory.limit() / 4,
        timeout: prepared.age + TIMEOUT_MARGIN,
        stop: setup.stop.clone(),
    };
    let producer = producers.open(&transactional_id(&setup.pipeline, &stage, &setup.instance))?;
    let config = prepared.connection.config(&setup.base, &[]);
    cluster::ensure_positions_topic(&config, &producer, &prepared.positions_topic)?;
    let limits = cluster::limits(&config, &producer, &prepared.topic)?;
    Ok(Arc::new(OpenSink {
        prepared: prepared.clone(),
        keys: Keys::new(&setup.pipeline, setup.committer.sink()),
        instance: setup.instance,
        pipeline: setup.pipeline,
        stage,
        base: setup.base,
        stop: setup.stop,
        producers,
        producer: Arc::new(producer),
        limits,
        lane: LaneId::from(LANE),
        committer: setup.committer,
        metrics: setup.metrics,
    }))
}

impl Sink for OpenSink {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, splits: &[Taken], _: &[Staged]) -> Result<TakenOver, SinkError> {
        if splits.is_empty() {
            return Ok(TakenOver::default());
        }
        Ok(TakenOver { published: Vec::new(), held: takeover::take_over(self, splits)? })
    }

    fn route(&self, rows: Rows) -> Routed {
        match self.prepared.plan.ready(&rows, self.limits) {
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
        let bytes_out = self.metrics.bytes_out.with_label_values(&[&self.stage]);
        Ok(Box::new(TransactionWriter::new(
            self.prepared.clone(),
            self.producer.clone(),
            self.committer.clone(),
            self.keys.clone(),
            self.lane.clone(),
            bytes_out,
        )))
    }
}
