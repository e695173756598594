//! A pipeline that ends in the sink, and an engine that a test controls.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Claimant, CommitRecord, Committer, InstanceId, Position, StateStore, position_in_target,
};
use pseidon_exec::lanes::Lanes;
use pseidon_expr::Scope;
use pseidon_kafka::KafkaSinkPlugin;
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{
    PreparedSink, RecordShape, Sink, SinkError, SinkInput, SinkPlugin, SinkSetup, TakenSplit,
};
use pseidon_plugin::{BadRow, BatchBuilder, LaneMemory, Rows, Split, Stop};
use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use crate::clients::committed_records;
use crate::support::{brokers, options, unique};
use crate::topics::new_topic;

/// A pipeline with its state, its topic and a positions topic of its own.
pub(crate) struct Pipeline {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) positions: String,
    pub(crate) store: Arc<dyn StateStore>,
    _folder: tempfile::TempDir,
}

impl Pipeline {
    pub(crate) fn new(partitions: i32) -> Pipeline {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(folder.path(), "p").unwrap());
        Pipeline {
            name: unique("pipeline"),
            topic: new_topic("out", partitions),
            positions: unique("positions"),
            store,
            _folder: folder,
        }
    }

    pub(crate) fn prepare(&self, more: &str, input: &SinkInput) -> Arc<dyn PreparedSink> {
        let text = format!(
            "{{:brokers \"{}\" :topic \"{}\" :positions-topic \"{}\" {more}}}",
            brokers(),
            self.topic,
            self.positions
        );
        KafkaSinkPlugin
            .prepare(&options(KafkaSinkPlugin.spec(), &text), input)
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }

    /// A run of the sink with the steps of the engine around it.
    pub(crate) fn instance(&self) -> Instance {
        self.instance_of(&*self.prepare("", &unchanged_input()))
    }

    pub(crate) fn instance_of(&self, prepared: &dyn PreparedSink) -> Instance {
        self.try_instance_of(prepared)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_instance_of(
        &self,
        prepared: &dyn PreparedSink,
    ) -> Result<Instance, SinkError> {
        self.try_attempt(prepared, &format!("{}.0", unique("process")))
    }

    /// An attempt to run the sink under this name.
    pub(crate) fn try_attempt(
        &self,
        prepared: &dyn PreparedSink,
        name: &str,
    ) -> Result<Instance, SinkError> {
        let (stop, name) = (Stop::new(), InstanceId::from(name));
        let claimant = Claimant {
            owner: name.clone(),
            plan: "p".into(),
            accepts_other_plans: false,
        };
        let committer = Arc::new(Committer::new(
            "lake".into(),
            self.store.clone(),
            claimant,
            Positions::InTarget,
            stop.abandoned(),
        ));
        let setup = SinkSetup {
            pipeline: self.name.clone(),
            base: ".".into(),
            instance: name.clone(),
            store: "store".into(),
            trusts_state: false,
            keeps_state: true,
            committer: committer.clone(),
            memory: LaneMemory::new(8 << 20),
            stop,
            metrics: Metrics::new(),
        };
        let sink = prepared.open(setup.clone())?;
        assert!(sink.rules().single_writer);
        let lanes = Lanes::of_one_writer(sink.clone(), &setup);
        Ok(Instance {
            name,
            sink,
            committer,
            lanes,
            late: Vec::new(),
        })
    }

    pub(crate) fn values(&self, partitions: i32) -> Vec<String> {
        committed_records(&self.topic, partitions)
            .iter()
            .map(text)
            .collect()
    }
}

pub(crate) struct Instance {
    pub(crate) name: InstanceId,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) lanes: Lanes,
    /// The rows of the last batch that are refused, although they were not when they were read
    /// before.
    pub(crate) late: Vec<u32>,
}

impl Instance {
    /// The first half of a take-over: the instance is added to the owners in the store.
    pub(crate) fn start_take_over(&self, split: &Split) -> CommitRecord {
        self.committer
            .take(std::slice::from_ref(&split.id))
            .unwrap()
            .remove(0)
    }

    /// The second half; returns the position at which to resume.
    pub(crate) fn take(&self, split: &Split) -> Position {
        self.try_take(split)
            .unwrap_or_else(|copy| panic!("the target has lost what was committed below {copy}"))
    }

    /// Like [`Instance::take`]; the error is the copy of a position that the target has lost.
    pub(crate) fn try_take(&self, split: &Split) -> Result<Position, Position> {
        let mut record = self.start_take_over(split);
        let owners = record.owners.clone();
        let taken = TakenSplit {
            split: split.id.clone(),
            epoch: record.epoch,
            owners,
            low: record.low,
        };
        let over = self.sink.take_over(&[taken], &[]).unwrap();
        self.committer
            .hold(&[(split.id.clone(), record.epoch)])
            .unwrap();
        let held = over
            .held
            .unwrap()
            .by_split
            .get(&split.id)
            .map(|held| held.low);
        record.low = position_in_target(&record, held)?;
        let start = record.low.unwrap_or(0);
        self.committer
            .begin(vec![SplitToBegin {
                split: split.id.clone(),
                record,
                start: 0,
                resume: None,
            }])
            .unwrap();
        Ok(start)
    }

    /// Writes the records of a batch, and returns the bad ones.
    pub(crate) fn write(&mut self, rows: Rows) -> Result<Vec<BadRow>, SinkError> {
        let (split, next) = (rows.batch().split.id.clone(), rows.batch().next);
        let routed = self.sink.route(rows);
        for chunk in routed.chunks {
            let (first, last) = (
                chunk.rows.position(0),
                chunk.rows.position(chunk.rows.len() - 1),
            );
            let mut ledger = self.committer.ledger();
            ledger.dispatch(&split, &chunk.lane, first, last);
            ledger.advance(&split, next, None);
            drop(ledger);
            self.lanes.write(chunk, ())?;
        }
        self.committer.ledger().advance(&split, next, None);
        self.late = routed.refused.iter().map(|bad| bad.row).collect();
        let mut bad = [routed.bad, routed.refused].concat();
        bad.sort_by_key(|bad| bad.row);
        Ok(bad)
    }

    pub(crate) fn flush(&mut self) -> Result<(), SinkError> {
        self.lanes.flush(None, || {})
    }

    pub(crate) fn release(&self, split: &Split) {
        self.committer
            .release(std::slice::from_ref(&split.id))
            .unwrap();
    }
}

pub(crate) fn split(number: i32) -> Arc<Split> {
    Arc::new(Split {
        id: format!("clicks:clicks/{number}").into(),
        topic: "clicks".into(),
        partition: number,
    })
}

pub(crate) fn unchanged_input() -> SinkInput {
    SinkInput {
        scope: Scope::default(),
        record: RecordShape::AsCame {
            format: "json".into(),
        },
    }
}

pub(crate) fn no_columns(rows: usize) -> RecordBatch {
    RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .unwrap()
}

/// Unchanged records, with these positions as their values.
pub(crate) fn records(split: &Arc<Split>, positions: std::ops::Range<u64>) -> Rows {
    let mut builder = BatchBuilder::new(split.clone(), WantedMetadata::default(), 0);
    for position in positions.clone() {
        builder.push(
            position,
            Some(format!("{}-{position}", split.partition).as_bytes()),
            RecordMeta::default(),
        );
    }
    Rows::new(
        Arc::new(builder.finish(positions.end)),
        no_columns(positions.count()),
    )
}

pub(crate) fn expected(split: &Split, positions: std::ops::Range<u64>) -> Vec<String> {
    positions
        .map(|position| format!("{}-{position}", split.partition))
        .collect()
}

pub(crate) fn text(message: &OwnedMessage) -> String {
    String::from_utf8(message.payload().unwrap_or(b"<none>").to_vec()).unwrap()
}
