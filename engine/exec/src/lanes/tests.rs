//! Lanes over a target that the tests block, with the real committer and store.

mod failed;

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use parking_lot::Mutex;
use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, Position, SplitId, StagedEntry, StagedId, StateStore};
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, Split, WantedMetadata};
use pseidon_plugin::lane::{Completion, Lane, LaneProgress};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{PublishProgress, RoutedRows, TakenSplit, TakeoverResult};
use tempfile::TempDir;

use super::sealed::MAX_SEALED;
use super::*;

/// The content of the target, and what it refuses.
#[derive(Default)]
struct Target {
    /// Lanes whose writes are refused, and lanes that do not become durable.
    full: Vec<LaneId>,
    not_durable: Vec<LaneId>,
    is_publishing_blocked: bool,
    /// How many lanes may be open, and how many are.
    most_open: Option<usize>,
    open: usize,
    /// What is visible, as `lane: positions`.
    visible: Vec<String>,
    hidden: HashMap<StagedId, String>,
    /// Records that cannot be written, and when that is noticed.
    spoiled: Vec<Position>,
    noticed: FailurePoint,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FailurePoint {
    #[default]
    WhenWritten,
    WhenShed,
    WhenSealed,
    /// By the encoder, which returns an error.
    ByEncoder,
}

impl Target {
    /// Fails if one of these records is spoiled and that is noticed now.
    fn encode(&self, positions: &[Position], now: FailurePoint) -> Result<(), SinkError> {
        if !positions.iter().any(|at| self.spoiled.contains(at)) {
            return Ok(());
        }
        match (self.noticed, now) {
            (FailurePoint::ByEncoder, FailurePoint::WhenWritten) => {
                Err(SinkError::Unwritable("as the test demands".into()))
            }
            // What is buffered is encoded then at the latest.
            (FailurePoint::WhenShed, FailurePoint::WhenSealed) => panic!("as the test demands"),
            (noticed, now) if noticed == now => panic!("as the test demands"),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Default)]
struct TargetSink(Arc<Mutex<Target>>, Option<u64>);

impl Sink for TargetSink {
    fn rules(&self) -> LaneRules {
        let rollover = Rollover {
            records: self.1,
            ..Rollover::every(Duration::MAX)
        };
        LaneRules {
            single_writer: true,
            rollover,
            check_every: Duration::from_secs(1),
            most_open: usize::MAX,
        }
    }

    fn take_over(&self, _: &[TakenSplit], _: &[StagedEntry]) -> Result<TakeoverResult, SinkError> {
        Ok(TakeoverResult::default())
    }

    fn route(&self, _: Rows) -> RoutedRows {
        RoutedRows::default()
    }

    fn lane(&self, lane: &LaneId, _: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(TargetLane {
            lane: lane.clone(),
            target: self.0.clone(),
            positions: Vec::new(),
        }))
    }

    fn publish(&self, staged: &[StagedEntry]) -> Result<PublishProgress, SinkError> {
        let mut target = self.0.lock();
        if target.is_publishing_blocked {
            return Ok(PublishProgress::Blocked("injected".to_owned()));
        }
        let visible: Vec<String> = staged
            .iter()
            .filter_map(|entry| target.hidden.remove(&entry.id))
            .collect();
        target.visible.extend(visible);
        Ok(PublishProgress::Done(
            staged.iter().map(|entry| entry.id.clone()).collect(),
        ))
    }
}

struct TargetLane {
    lane: LaneId,
    target: Arc<Mutex<Target>>,
    positions: Vec<Position>,
}

impl Lane for TargetLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        let mut target = self.target.lock();
        if target.full.contains(&self.lane) {
            return Ok(Room::Blocked("injected".to_owned()));
        }
        if self.positions.is_empty() {
            if target.most_open.is_some_and(|most| target.open >= most) {
                return Ok(Room::TooManyOpen("injected".to_owned()));
            }
            target.open += 1;
        }
        self.positions
            .extend((0..rows.len()).map(|row| rows.position(row)));
        target.encode(&self.positions, FailurePoint::WhenWritten)?;
        Ok(Room::Ready)
    }

    /// Only where the memory matters to the test.
    fn memory(&self) -> usize {
        match self.target.lock().noticed {
            FailurePoint::WhenShed => 2 << 20,
            _ => 0,
        }
    }

    fn shed(&mut self) -> Result<Room, SinkError> {
        self.target
            .lock()
            .encode(&self.positions, FailurePoint::WhenShed)?;
        Ok(Room::Ready)
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        self.target
            .lock()
            .encode(&self.positions, FailurePoint::WhenSealed)?;
        Ok(SealOutcome::Pending(self))
    }
}

impl Completion for TargetLane {
    fn advance(&mut self) -> Result<LaneProgress, SinkError> {
        let mut target = self.target.lock();
        if target.not_durable.contains(&self.lane) {
            return Ok(LaneProgress::Blocked("injected".to_owned()));
        }
        target.open -= 1;
        let id = StagedId::from(format!("{} {:?}", self.lane, self.positions));
        target.hidden.insert(id.clone(), id.to_string());
        Ok(LaneProgress::Durable(vec![StagedEntry {
            id,
            detail: String::new(),
        }]))
    }
}

struct Bench {
    _dir: TempDir,
    store: Arc<EmbeddedStore>,
    committer: Arc<Committer>,
    target: Arc<Mutex<Target>>,
    lanes: Lanes,
}

const SPLITS: [&str; 2] = ["in:0", "in:1"];

/// Rows at these positions of a split; their batch covers everything below `next`.
fn rows(split: usize, positions: &[Position], next: Position) -> Rows {
    let split = Arc::new(Split {
        id: SPLITS[split].into(),
        topic: "in".into(),
        partition: 0,
    });
    let mut batch = BatchBuilder::new(split, WantedMetadata::default(), 64);
    positions
        .iter()
        .for_each(|position| batch.push(*position, Some(b"{}"), RecordMeta::default()));
    let options = RecordBatchOptions::new().with_row_count(Some(positions.len()));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
    Rows::new(Arc::new(batch.finish(next)), columns.unwrap())
}

impl Bench {
    fn new(records: Option<u64>) -> Bench {
        Bench::searching(records, Arc::default())
    }

    /// In an attempt that knows this of records that cannot be written.
    fn searching(records: Option<u64>, suspects: Arc<Suspects>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
        let claimant = Claimant {
            owner: "one".into(),
            plan: "p".into(),
            accepts_other_plans: false,
        };
        let committer = Arc::new(Committer::new(
            "out".into(),
            store.clone(),
            claimant,
            Positions::InStore,
            Arc::default(),
        ));
        let splits = SPLITS.map(SplitId::from);
        let begun = splits.iter().cloned().zip(committer.take(&splits).unwrap());
        committer
            .begin(
                begun
                    .map(|(split, record)| SplitToBegin {
                        split,
                        record,
                        start: 0,
                        resume: None,
                    })
                    .collect(),
            )
            .unwrap();
        let sink = TargetSink(Arc::default(), records);
        let target = sink.0.clone();
        let lanes = Lanes::new(LanesSetup {
            sink: Arc::new(sink),
            committer: committer.clone(),
            writers: 1,
            memory: LaneMemory::new(1 << 20),
            blocked: Metrics::new().sink_blocked.with_label_values(&["out"]),
            waker: Waker::noop().clone(),
            shown: LaneStatuses::default(),
            suspects: Some(suspects),
        });
        Bench {
            _dir: dir,
            store,
            committer,
            target,
            lanes,
        }
    }

    /// Writes rows at these positions of a split, all for one lane; the batch covers everything
    /// below `next`.
    fn write(&mut self, split: usize, lane: &str, positions: &[Position], next: Position) {
        self.try_write(split, lane, positions, next).unwrap();
    }

    fn try_write(
        &mut self,
        split: usize,
        lane: &str,
        positions: &[Position],
        next: Position,
    ) -> Result<(), SinkError> {
        let rows = rows(split, positions, next);
        let split = rows.batch().split.clone();
        let mut ledger = self.committer.ledger();
        if let (Some(first), Some(last)) = (positions.first(), positions.last()) {
            ledger.dispatch(&split.id, &lane.into(), *first, *last);
        }
        ledger.advance(&split.id, next, None);
        drop(ledger);
        if rows.is_empty() {
            return Ok(());
        }
        self.lanes.write(Chunk::new(lane.into(), rows), ())
    }

    /// Requests a flush; the result says whether it is answered.
    fn flush(&mut self, splits: Option<&[SplitId]>) -> Arc<AtomicBool> {
        let is_done = Arc::new(AtomicBool::new(false));
        let done = is_done.clone();
        self.lanes
            .flush(splits, move || done.store(true, Ordering::Relaxed))
            .unwrap();
        is_done
    }

    fn change(&mut self, change: impl FnOnce(&mut Target)) {
        change(&mut self.target.lock());
        self.lanes.resume().unwrap();
    }

    fn visible(&self) -> Vec<String> {
        self.target.lock().visible.clone()
    }

    fn lows(&self) -> Vec<Position> {
        let mut records = self.store.records(&"out".into()).unwrap();
        records.sort_by(|one, other| one.0.cmp(&other.0));
        records
            .into_iter()
            .map(|(_, record)| record.low.unwrap())
            .collect()
    }
}

#[test]
fn a_blocked_lane_delays_no_other_and_keeps_its_order() {
    let mut bench = Bench::new(Some(2));
    bench.target.lock().full.push("a".into());
    bench.write(0, "a", &[0, 1], 2);
    bench.write(0, "b", &[2, 3], 4);
    bench.write(0, "a", &[4, 5, 6], 7);
    let flushed = bench.flush(None);
    assert_eq!(bench.visible(), ["b [2, 3]"]);
    assert!(!flushed.load(Ordering::Relaxed) && bench.lanes.resume_at().is_some());
    bench.lanes.resume().unwrap();
    assert!(!flushed.load(Ordering::Relaxed) && bench.lanes.resume_at().is_some());
    bench.change(|target| target.full.clear());
    assert_eq!(
        bench.visible(),
        ["b [2, 3]", "a [0, 1]", "a [4, 5]", "a [6]"]
    );
    assert!(flushed.load(Ordering::Relaxed));
    assert_eq!(bench.lows(), [7, 0]);
}

#[test]
fn sealed_lanes_are_committed_in_order_when_they_are_durable() {
    let mut bench = Bench::new(Some(1));
    bench.target.lock().not_durable.push("a".into());
    bench.write(0, "a", &[0], 1);
    bench.write(0, "b", &[1], 2);
    bench.lanes.tick().unwrap();
    assert_eq!((bench.visible(), bench.lows()), (vec![], vec![0, 0]));
    // Only a limited number may wait.
    for position in 2..40 {
        bench.write(0, "b", &[position], position + 1);
    }
    assert_eq!(bench.target.lock().open, MAX_SEALED);
    let flushed = bench.flush(Some(&["in:0".into()]));
    bench.change(|target| target.not_durable.clear());
    assert!(flushed.load(Ordering::Relaxed));
    let expected: Vec<String> = ["a [0]".to_owned()]
        .into_iter()
        .chain((1..40).map(|position| format!("b [{position}]")))
        .collect();
    assert_eq!((bench.visible(), bench.lows()), (expected, vec![40, 0]));
}

#[test]
fn committed_lanes_are_published_when_the_target_unblocks() {
    let mut bench = Bench::new(None);
    bench.target.lock().is_publishing_blocked = true;
    bench.write(0, "a", &[0], 1);
    let flushed = bench.flush(None);
    assert_eq!((bench.visible(), bench.lows()), (vec![], vec![1, 0]));
    assert_eq!(bench.store.staged(&"out".into()).unwrap().len(), 1);
    // Entries in the store do not accumulate.
    bench.write(0, "a", &[1], 2);
    assert!(!flushed.load(Ordering::Relaxed) && bench.target.lock().open == 0);
    bench.change(|target| target.is_publishing_blocked = false);
    assert!(bench.flush(None).load(Ordering::Relaxed) && flushed.load(Ordering::Relaxed));
    assert_eq!(
        (bench.visible(), bench.lows()),
        (vec!["a [0]".into(), "a [1]".into()], vec![2, 0])
    );
}

/// Rows of one position that come in several batches are in one unit, whatever lanes they go to and
/// however full these are; a lane is sealed when the position is complete, even if no more of it
/// came to that lane.
#[test]
fn a_position_is_never_split() {
    let mut bench = Bench::new(Some(2));
    // Three rows of position 1 in two batches.
    bench.write(0, "a", &[0, 1, 1], 1);
    bench.lanes.tick().unwrap();
    assert!(bench.visible().is_empty(), "position 1 is not complete");
    let rolled = bench.flush(None);
    assert!(
        rolled.load(Ordering::Relaxed) && bench.visible().is_empty(),
        "a roll leaves the lane open"
    );
    bench.write(0, "a", &[1, 2, 3], 4);
    assert_eq!(bench.target.lock().open, 2);
    bench.lanes.tick().unwrap();
    assert_eq!(
        (bench.visible(), bench.lows()),
        (vec!["a [0, 1, 1, 1]".into(), "a [2, 3]".into()], vec![4, 0])
    );

    bench.write(0, "a", &[4], 4);
    bench.write(0, "b", &[4], 4);
    bench.write(1, "b", &[0], 1);
    let flushed = bench.flush(Some(&["in:1".into()]));
    assert!(
        !flushed.load(Ordering::Relaxed),
        "the lane holds a part of a position of another split too"
    );
    bench.write(0, "b", &[], 5);
    bench.lanes.tick().unwrap();
    assert!(flushed.load(Ordering::Relaxed));
    assert_eq!(bench.visible()[2..], ["b [4, 0]"]);
    assert_eq!(bench.lows(), [4, 1]);
    assert!(bench.flush(None).load(Ordering::Relaxed));
    assert_eq!(
        (bench.visible()[3..].to_vec(), bench.lows()),
        (vec!["a [4]".to_owned()], vec![5, 1])
    );
}

#[test]
fn a_split_that_ends_inside_a_position_fails() {
    let mut bench = Bench::new(None);
    bench.write(0, "a", &[0, 1], 1);
    let error = bench
        .lanes
        .flush(Some(&["in:0".into()]), || {})
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("in:0 was released in the middle of a position"),
        "{error}"
    );
    assert_eq!((bench.visible(), bench.lows()), (vec![], vec![0, 0]));
}

#[test]
fn the_oldest_lane_is_sealed_when_too_many_are_open() {
    let mut bench = Bench::new(None);
    bench.target.lock().most_open = Some(2);
    for (position, lane) in (0..).zip(["a", "b", "c", "a"]) {
        bench.write(0, lane, &[position], position + 1);
    }
    assert_eq!(bench.visible(), ["a [0]", "b [1]"]);
    assert!(bench.flush(None).load(Ordering::Relaxed) && bench.lanes.resume_at().is_none());
    assert_eq!(bench.lows(), [4, 0]);
}

/// A lane that becomes complete with its next rows is sealed before them; if it is the one that
/// exceeds the limit, all are committed and the rows are written.
#[test]
fn rows_do_not_wait_for_lanes_that_can_be_committed() {
    let mut bench = Bench::new(Some(1));
    let last = MAX_SEALED as Position - 1;
    for position in 0..last {
        bench.write(0, "a", &[position], position + 1);
    }
    bench.write(0, "b", &[last], last);
    assert_eq!(bench.visible(), [""; 0]);
    bench.write(0, "b", &[last + 1], last + 2);
    assert_eq!(bench.visible().len(), MAX_SEALED);
    bench.lanes.tick().unwrap();
    assert_eq!(
        (bench.visible().len(), bench.lows()),
        (MAX_SEALED + 1, vec![last + 2, 0])
    );
}
