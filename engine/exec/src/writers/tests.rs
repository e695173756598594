//! Writers that record what happens to them.

#[cfg(not(feature = "model"))]
mod schedule;
#[cfg(not(feature = "model"))]
mod threads;

use std::sync::{Arc, LazyLock};
use std::task::Waker;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::committer::Positions;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Claimant, CommitRecord, Committer, LaneId, Position, SplitCommit, SplitId, StagedEntry,
};
use pseidon_plan::{PerSink, SinkIndex};
use pseidon_plugin::LaneMemory;
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, Split, WantedMetadata};
use pseidon_plugin::lane::{Lane, LaneRules, Room, SealOutcome, Transaction};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::{Chunk, RoutedRows, Sink, SinkError, TakenSplit, TakeoverResult};

use super::WriterSink;
use crate::attempt::AttemptId;
use crate::failure::{Failure, Failures};
use crate::lanes::LaneStatuses;
use crate::queue::{BatchQueue, UnwrittenCharge};

const SPLIT: &str = "split";

/// One row at this position.
pub(super) fn chunk(position: Position) -> Chunk {
    let split = Arc::new(Split {
        id: SplitId::from(SPLIT),
        topic: "split".to_owned(),
        partition: 0,
    });
    let mut batch = BatchBuilder::new(split, WantedMetadata::default(), 1);
    batch.push(position, Some(b"x"), RecordMeta::default());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
            .expect("no columns");
    Chunk::new(
        LaneId::from("lane"),
        Rows::new(Arc::new(batch.finish(position + 1)), columns),
    )
}

/// The index of the sink after `before` others.
pub(super) fn sink(before: usize) -> SinkIndex {
    PerSink::from_iter(vec![(); before]).push(())
}

pub(super) fn unwritten(attempt: AttemptId) -> UnwrittenCharge {
    BatchQueue::new(1, usize::MAX).unwritten(attempt, 1)
}

/// The recorded events, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Wrote(Position),
    /// What was written is committed.
    Flushed,
    Ticked,
    /// What was written is discarded.
    Dropped,
}

type Behaviour = dyn Fn(&Event) -> Result<(), SinkError> + Send + Sync;

/// The shared state of a lane: its behaviour and its recorded events.
#[derive(Clone)]
pub(super) struct Script {
    done: Arc<Mutex<Vec<Event>>>,
    behave: Arc<Behaviour>,
    /// The period of its ticks.
    pub(super) period: Duration,
    /// Whether its lane has room, and the wakers to call when it does.
    room: Arc<Mutex<(bool, Vec<Waker>)>>,
}

impl Script {
    pub(super) fn new(
        behave: impl Fn(&Event) -> Result<(), SinkError> + Send + Sync + 'static,
    ) -> Script {
        Script {
            done: Arc::default(),
            behave: Arc::new(behave),
            period: PERIOD,
            room: Arc::new(Mutex::new((true, Vec::new()))),
        }
    }

    fn does(&self, event: Event) -> Result<(), SinkError> {
        let done = (self.behave)(&event);
        self.done.lock().push(event);
        done
    }

    pub(super) fn done(&self) -> Vec<Event> {
        self.done.lock().clone()
    }

    pub(super) fn wrote(&self) -> Vec<Position> {
        let wrote = |event: &Event| {
            if let Event::Wrote(position) = event {
                Some(*position)
            } else {
                None
            }
        };
        self.done.lock().iter().filter_map(wrote).collect()
    }

    /// Makes its lane full, until [`Script::make_room`].
    pub(super) fn fill(&self) {
        self.room.lock().0 = false;
    }

    pub(super) fn make_room(&self) {
        let wakers = {
            let mut room = self.room.lock();
            room.0 = true;
            std::mem::take(&mut room.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A sink whose lane follows the script. All of its rows belong to one writer.
    pub(super) fn sink(&self, stage: &str) -> WriterSink {
        // The target holds the positions, so the store is never called.
        static STORE: LazyLock<Arc<EmbeddedStore>> = LazyLock::new(|| {
            let dir = tempfile::tempdir().expect("a folder").keep();
            Arc::new(EmbeddedStore::open(&dir, "p").expect("a store"))
        });
        let claimant = Claimant {
            owner: "one".into(),
            plan: "p".to_owned(),
            accepts_other_plans: false,
        };
        let committer = Committer::new(
            stage.into(),
            STORE.clone(),
            claimant,
            Positions::InTarget,
            Arc::default(),
        );
        committer
            .ledger()
            .take(SplitId::from(SPLIT), CommitRecord::default(), 0);
        committer
            .ledger()
            .advance(&SplitId::from(SPLIT), Position::MAX, None);
        WriterSink {
            stage: stage.to_owned(),
            sink: Arc::new(self.clone()),
            committer: Arc::new(committer),
            only_writer: Some(0),
            memory: LaneMemory::new(1 << 20),
            blocked: Metrics::new().sink_blocked.with_label_values(&[stage]),
            shown: LaneStatuses::default(),
            suspects: None,
        }
    }
}

impl Sink for Script {
    fn rules(&self) -> LaneRules {
        LaneRules {
            single_writer: true,
            rollover: Rollover::every(Duration::MAX),
            check_every: self.period,
            most_open: usize::MAX,
        }
    }

    fn take_over(
        &self,
        _splits: &[TakenSplit],
        _staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        Ok(TakeoverResult::default())
    }

    fn route(&self, _rows: Rows) -> RoutedRows {
        RoutedRows::default()
    }

    fn lane(&self, _lane: &LaneId, waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(ScriptedLane {
            script: self.clone(),
            waker: waker.clone(),
            is_uncommitted: false,
        }))
    }

    fn tick(&self) -> Result<(), SinkError> {
        self.does(Event::Ticked)
    }
}

struct ScriptedLane {
    script: Script,
    waker: Waker,
    /// Whether it has uncommitted rows. Without rows, dropping it discards nothing.
    is_uncommitted: bool,
}

impl Lane for ScriptedLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        {
            let mut room = self.script.room.lock();
            if !room.0 {
                room.1.push(self.waker.clone());
                return Ok(Room::Full);
            }
        }
        self.is_uncommitted = true;
        self.script.does(Event::Wrote(rows.position(0)))?;
        Ok(Room::Ready)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.script.does(Event::Ticked)
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Transaction(self))
    }
}

impl Transaction for ScriptedLane {
    fn commit(&mut self, _splits: &[SplitCommit]) -> Result<(), SinkError> {
        self.script.does(Event::Flushed)?;
        self.is_uncommitted = false;
        Ok(())
    }

    fn committed(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

impl Drop for ScriptedLane {
    fn drop(&mut self) {
        if self.is_uncommitted {
            let _ = self.script.does(Event::Dropped);
        }
    }
}

pub(super) const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn failures() -> (Failures, Receiver<Failure>) {
    let (report, reported) = unbounded();
    (Failures(report), reported)
}
