use std::sync::atomic::AtomicBool;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, Committer, Position, SinkId, SplitId, StateStore};
use pseidon_exec::lanes::Lanes;
use pseidon_expr::Scope;
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, WantedMetadata};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::RecordShape;
use pseidon_plugin::{LaneMemory, Split, Stop};
use tempfile::TempDir;

use super::*;

#[test]
fn dropped_records_are_not_read_again() {
    let splits: [SplitId; 2] = ["in:0".into(), "in:1".into()];
    let mut run = SinkRun::start(&splits);

    run.put(&splits[0], 0, 5);
    run.put(&splits[0], 5, 5);
    run.put(&splits[1], 0, 0);
    assert_eq!(run.lows(), [Some(0), Some(0)]);
    run.lanes.flush(None, || {}).unwrap();
    assert_eq!(run.lows(), [Some(10), Some(0)]);
    run.put(&splits[1], 0, 3);
    run.lanes.flush(Some(&splits[..1]), || {}).unwrap();
    assert_eq!(run.lows(), [Some(10), Some(0)]);
    run.lanes.flush(Some(&splits[1..]), || {}).unwrap();
    assert_eq!(run.lows(), [Some(10), Some(3)]);
    run.put(&splits[0], 10, 1);
    run.lanes.flush(None, || {}).unwrap();
    assert_eq!(run.lows(), [Some(11), Some(3)]);
}

/// The sink with a committer, a store and the lanes of one writer thread.
struct SinkRun {
    store: Arc<EmbeddedStore>,
    committer: Arc<Committer>,
    sink: Arc<dyn Sink>,
    lanes: Lanes,
    _dir: TempDir,
}

impl SinkRun {
    fn start(splits: &[SplitId]) -> SinkRun {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path(), "test").unwrap());
        let committer = begin(splits, store.clone());
        let setup = SinkSetup {
            pipeline: "test".into(),
            base: dir.path().into(),
            instance: "one".into(),
            store: store.identity().unwrap(),
            trusts_state: false,
            keeps_state: true,
            committer: committer.clone(),
            memory: LaneMemory::new(1 << 20),
            stop: Stop::new(),
            metrics: Metrics::new(),
        };
        let input = SinkInput {
            scope: Scope::default(),
            record: RecordShape::AsCame {
                format: "json".into(),
            },
        };
        let options = DropOptions::parse_stage(&SPEC, &[], pseidon_dsl::Span::new(0, 0)).unwrap();
        let sink = DropPlugin
            .prepare(&options, &input)
            .unwrap()
            .open(setup.clone())
            .unwrap();
        SinkRun {
            store,
            committer,
            lanes: Lanes::of_one_writer(sink.clone(), &setup),
            sink,
            _dir: dir,
        }
    }

    /// Writes `count` records of a split.
    fn put(&mut self, split: &SplitId, first: Position, count: u64) {
        let routed = self.sink.route(rows(split.as_str(), first, count));
        assert!(routed.bad.is_empty());
        let mut ledger = self.committer.ledger();
        for chunk in &routed.chunks {
            ledger.dispatch(split, &chunk.lane, first, first + count - 1);
        }
        ledger.advance(split, first + count, None);
        drop(ledger);
        for chunk in routed.chunks {
            self.lanes.write(chunk, ()).unwrap();
        }
    }

    /// The committed positions, in the order of the splits.
    fn lows(&self) -> Vec<Option<Position>> {
        let mut lows: Vec<_> = self
            .store
            .records(&SinkId::from("out"))
            .unwrap()
            .into_iter()
            .map(|(split, record)| (split, record.low))
            .collect();
        lows.sort();
        lows.into_iter().map(|(_, low)| low).collect()
    }
}

/// A committer that has begun the splits at 0.
fn begin(splits: &[SplitId], store: Arc<EmbeddedStore>) -> Arc<Committer> {
    let claimant = Claimant {
        owner: "one".into(),
        plan: "p".into(),
        accepts_other_plans: false,
    };
    let abandoned = Arc::new(AtomicBool::new(false));
    let committer = Arc::new(Committer::new(
        SinkId::from("out"),
        store,
        claimant,
        Positions::InStore,
        abandoned,
    ));
    let records = committer.take(splits).unwrap();
    let begin = |(split, record): (&SplitId, _)| SplitToBegin {
        split: split.clone(),
        record,
        start: 0,
        resume: None,
    };
    committer
        .begin(splits.iter().zip(records).map(begin).collect())
        .unwrap();
    committer
}

fn rows(split: &str, first: Position, count: u64) -> Rows {
    let split = Arc::new(Split {
        id: split.into(),
        topic: "in".into(),
        partition: 0,
    });
    let mut builder = BatchBuilder::new(split, WantedMetadata::default(), 64);
    for position in first..first + count {
        builder.push(position, Some(b"{}"), RecordMeta::default());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count as usize));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    Rows::new(Arc::new(builder.finish(first + count)), columns)
}
