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

use super::*;

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

#[test]
fn dropped_records_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), "test").unwrap());
    let sink_id = SinkId::from("out");
    let splits: [SplitId; 2] = ["in:0".into(), "in:1".into()];
    let claimant = Claimant {
        owner: "one".into(),
        plan: "p".into(),
        accepts_other_plans: false,
    };
    let abandoned = Arc::new(AtomicBool::new(false));
    let committer = Arc::new(Committer::new(
        sink_id.clone(),
        store.clone(),
        claimant,
        Positions::InStore,
        abandoned,
    ));
    let records = committer.take(&splits).unwrap();
    let begin = |(split, record): (&SplitId, _)| SplitToBegin {
        split: split.clone(),
        record,
        start: 0,
        resume: None,
    };
    committer
        .begin(splits.iter().zip(records).map(begin).collect())
        .unwrap();
    let input = SinkInput {
        scope: Scope::default(),
        record: RecordShape::AsCame {
            format: "json".into(),
        },
    };
    let options = DropOptions::parse_stage(&SPEC, &[], pseidon_dsl::Span::new(0, 0)).unwrap();
    let setup = SinkSetup {
        pipeline: "test".into(),
        base: dir.path().into(),
        instance: "one".into(),
        store: store.identity().unwrap(),
        committer: committer.clone(),
        memory: LaneMemory::new(1 << 20),
        stop: Stop::new(),
        metrics: Metrics::new(),
    };
    let sink = DropPlugin
        .prepare(&options, &input)
        .unwrap()
        .open(setup.clone())
        .unwrap();
    let mut lanes = Lanes::of_one_writer(sink.clone(), &setup);
    let put = |lanes: &mut Lanes, split: &SplitId, first, count| {
        let routed = sink.route(rows(split.as_str(), first, count));
        assert!(routed.bad.is_empty());
        let mut ledger = committer.ledger();
        for chunk in &routed.chunks {
            ledger.dispatch(split, &chunk.lane, first, first + count - 1);
        }
        ledger.advance(split, first + count, None);
        drop(ledger);
        routed
            .chunks
            .into_iter()
            .for_each(|chunk| lanes.write(chunk, ()).unwrap());
    };
    let lows = || {
        let mut lows: Vec<_> = store
            .records(&sink_id)
            .unwrap()
            .into_iter()
            .map(|(split, record)| (split, record.low))
            .collect();
        lows.sort();
        lows.into_iter().map(|(_, low)| low).collect::<Vec<_>>()
    };

    put(&mut lanes, &splits[0], 0, 5);
    put(&mut lanes, &splits[0], 5, 5);
    put(&mut lanes, &splits[1], 0, 0);
    assert_eq!(lows(), [Some(0), Some(0)]);
    lanes.flush(None, || {}).unwrap();
    assert_eq!(lows(), [Some(10), Some(0)]);
    put(&mut lanes, &splits[1], 0, 3);
    lanes.flush(Some(&splits[..1]), || {}).unwrap();
    assert_eq!(lows(), [Some(10), Some(0)]);
    lanes.flush(Some(&splits[1..]), || {}).unwrap();
    assert_eq!(lows(), [Some(10), Some(3)]);
    put(&mut lanes, &splits[0], 10, 1);
    lanes.flush(None, || {}).unwrap();
    assert_eq!(lows(), [Some(11), Some(3)]);
}
