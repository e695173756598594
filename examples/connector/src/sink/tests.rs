//! Tests of lanes on a disk that cannot be written for a while.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use pseidon_delivery::committer::Positions;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, Committer, StateStore};
use pseidon_dsl::{Span, edn};
use pseidon_expr::Scope;
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::lane::{LaneProgress, Room, SealOutcome};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::RecordShape;
use pseidon_plugin::{BatchBuilder, LaneMemory, Split, Stop};
use tempfile::TempDir;

use super::*;

/// More bytes than a lane buffers.
const RECORD: usize = 100_000;

fn rows() -> Rows {
    let split = Arc::new(Split {
        id: "in:1".into(),
        topic: "1".into(),
        partition: 0,
    });
    let mut batch = BatchBuilder::new(split, WantedMetadata::default(), RECORD);
    batch.push(0, Some(&[b'x'; RECORD]), RecordMeta::default());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(Schema::empty());
    let columns = RecordBatch::try_new_with_options(schema, Vec::new(), &options).unwrap();
    Rows::new(Arc::new(batch.finish(1)), columns)
}

fn open(dir: &TempDir, store: &Arc<EmbeddedStore>) -> Result<Arc<dyn Sink>, SinkError> {
    let claimant = Claimant {
        owner: "one".into(),
        plan: "p".into(),
        accepts_other_plans: false,
    };
    let committer = Committer::new(
        "out".into(),
        store.clone(),
        claimant,
        Positions::InStore,
        Arc::new(AtomicBool::new(false)),
    );
    let input = SinkInput {
        scope: Scope::default(),
        record: RecordShape::AsCame {
            format: "txt".into(),
        },
    };
    let node = edn::read(r#"{:folder "out" :queue "'a'" :format :txt}"#).unwrap();
    let options = SpoolSinkOptions::parse_stage(&SPEC, &[node], Span::default()).unwrap();
    let setup = SinkSetup {
        pipeline: "test".into(),
        base: dir.path().into(),
        instance: "one".into(),
        store: store.identity().unwrap(),
        trusts_state: false,
        keeps_state: true,
        committer: Arc::new(committer),
        memory: LaneMemory::new(1 << 20),
        stop: Stop::new(),
        metrics: Metrics::new(),
    };
    SpoolSinkPlugin
        .prepare(&options, &input)
        .unwrap()
        .open(setup)
}

fn hidden_folder(dir: &TempDir) -> PathBuf {
    let mut folders = fs::read_dir(dir.path().join("out/.open")).unwrap();
    folders.next().unwrap().unwrap().path()
}

#[test]
fn a_lane_accepts_no_rows_while_its_disk_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("state"), "test").unwrap());
    let sink = open(&dir, &store).unwrap();
    let (hidden, moved) = (hidden_folder(&dir), dir.path().join("moved"));
    fs::rename(&hidden, &moved).unwrap();

    let mut lane = sink.lane(&"a".into(), Waker::noop()).unwrap();
    // The first rows are buffered.
    assert_eq!(lane.write(&rows()).unwrap(), Room::Ready);
    assert!(matches!(lane.write(&rows()).unwrap(), Room::Blocked(_)));
    assert_eq!(lane.bytes(), RECORD as u64 + 1);
    fs::rename(&moved, &hidden).unwrap();
    assert_eq!(lane.write(&rows()).unwrap(), Room::Ready);

    let SealOutcome::Pending(mut sealed) = lane.seal().unwrap() else {
        panic!("the lane is not staged")
    };
    let LaneProgress::Durable(staged) = sealed.advance().unwrap() else {
        panic!("the lane is not durable")
    };
    drop(sealed);
    let published = sink.publish(&staged).unwrap();
    let ids = vec![staged[0].id.clone()];
    assert_eq!(published, PublishProgress::Done(ids));
    let file = dir.path().join("out/a").join(staged[0].id.as_str());
    assert_eq!(fs::metadata(file).unwrap().len(), 2 * (RECORD as u64 + 1));
    // Publishing can be repeated.
    assert_eq!(sink.publish(&staged).unwrap(), published);
}

#[test]
fn a_dropped_lane_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("state"), "test").unwrap());
    let sink = open(&dir, &store).unwrap();
    let mut lane = sink.lane(&"a".into(), Waker::noop()).unwrap();
    lane.write(&rows()).unwrap();
    lane.shed().unwrap();
    let count = || fs::read_dir(hidden_folder(&dir)).unwrap().count();
    assert_eq!(count(), 2);
    drop(lane);
    assert_eq!(count(), 1);
}

#[test]
fn one_instance_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("state"), "test").unwrap());
    let sink = open(&dir, &store).unwrap();
    let error = open(&dir, &store).map(drop).unwrap_err();
    assert!(matches!(error, SinkError::Transient(_)), "{error}");
    drop(sink);
    open(&dir, &store).unwrap();
}
