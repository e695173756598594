//! Writers that note what happens to them.

#[cfg(not(feature = "model"))]
mod schedule;
#[cfg(not(feature = "model"))]
mod threads;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::{LaneId, Position, SplitId, Staged};
use pseidon_plugin::batch::{BatchBuilder, MetaWanted, RecordMeta, Split};
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::{Chunk, Routed, Sink, SinkError, TakenOver, TakenSplit, Writer};

use super::WrittenSink;
use crate::attempt::AttemptId;
use crate::failure::{Failure, Failures};
use crate::queue::{UnitQueue, Unwritten};

/// One row at this position.
pub(super) fn chunk(position: Position) -> Chunk {
    let split = Arc::new(Split { id: SplitId::from("split"), topic: "split".to_owned(), partition: 0 });
    let mut batch = BatchBuilder::new(split, MetaWanted::default(), 1);
    batch.push(position, Some(b"x"), RecordMeta::default());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let columns = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).expect("no columns");
    Chunk::new(LaneId::from("lane"), Rows::new(Arc::new(batch.finish(position + 1)), columns))
}

pub(super) fn unwritten(attempt: AttemptId) -> Unwritten {
    UnitQueue::new(1, usize::MAX).unwritten(attempt, 1)
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Wrote(Position),
    Flushed,
    Ticked,
    Dropped,
}

type Behaviour = dyn Fn(&Event) -> Result<(), SinkError> + Send + Sync;

/// What is shared with a writer: what it does, and what it has done.
#[derive(Clone)]
pub(super) struct Script {
    done: Arc<Mutex<Vec<Event>>>,
    behave: Arc<Behaviour>,
    /// How often it wants to be ticked.
    pub(super) period: Duration,
}

impl Script {
    pub(super) fn new(behave: impl Fn(&Event) -> Result<(), SinkError> + Send + Sync + 'static) -> Script {
        Script { done: Arc::default(), behave: Arc::new(behave), period: PERIOD }
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
        let wrote = |event: &Event| if let Event::Wrote(position) = event { Some(*position) } else { None };
        self.done.lock().iter().filter_map(wrote).collect()
    }

    /// A sink whose writers follow the script. All of its lanes are one writer's.
    pub(super) fn sink(&self, stage: &str) -> WrittenSink {
        WrittenSink { stage: stage.to_owned(), sink: Arc::new(self.clone()), only_writer: Some(0) }
    }
}

impl Sink for Script {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, _splits: &[TakenSplit], _staged: &[Staged]) -> Result<TakenOver, SinkError> {
        Ok(TakenOver::default())
    }

    fn route(&self, _rows: Rows) -> Routed {
        Routed::default()
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        Ok(Box::new(Scripted(self.clone())))
    }
}

struct Scripted(Script);

impl Writer for Scripted {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        self.0.does(Event::Wrote(chunk.rows.position(0)))
    }

    fn tick_every(&self) -> Duration {
        self.0.period
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.0.does(Event::Ticked)
    }

    fn flush(&mut self, _splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        self.0.does(Event::Flushed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.0.does(Event::Dropped);
    }
}

pub(super) const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn failures() -> (Failures, Receiver<Failure>) {
    let (report, reported) = unbounded();
    (Failures(report), reported)
}
