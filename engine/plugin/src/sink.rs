//! Sinks: where records leave.
//!
//! A sink lives in three steps. The plugin *prepares* it from options and the columns it will be
//! given, without I/O, so that `check` finds every mistake. It is *opened* for a run. Then ETL
//! threads ask it which lane each row goes to, and writer threads open its [lanes](crate::lane),
//! fill them, commit what is durable of them and have it published.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;

use arrow::datatypes::SchemaRef;
use pseidon_delivery::committer::{Abandon, Positions};
use pseidon_delivery::{Committer, LaneId, Position, SplitId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_expr::Scope;
use thiserror::Error;

use crate::batch::Batch;
use crate::budget::{Charge, LaneMemory};
use crate::lane::{Lane, LaneRules, Transaction};
use crate::memory::ArrayMemory;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::rows::{BadRow, Rows};
use crate::spec::PluginSpec;
use crate::stop::Stop;

/// A kind of sink.
pub trait SinkPlugin: Send + Sync {
    /// Its declaration.
    fn spec(&self) -> &'static PluginSpec;

    /// What the planner has to know of a sink with these options.
    fn facts(&self, options: &Options) -> SinkFacts;

    /// A sink with these options for this input. No I/O happens here.
    fn prepare(
        &self,
        options: &Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>>;
}

/// What the planner has to know of a sink.
#[derive(Clone, Debug)]
pub struct SinkFacts {
    /// Whether every column needs a type (Parquet). The planner gives such a sink columns even
    /// where the record is unchanged.
    pub typed: bool,
    /// Whether it writes the key, the headers and the timestamp of an unchanged record as they
    /// came.
    pub copies_meta: bool,
    /// How it makes lanes durable.
    pub protocol: Protocol,
    /// The folder below which it writes, relative to the pipeline file's; records that are bad are
    /// put aside beside it.
    pub folder: Option<String>,
}

/// How a sink makes its lanes durable, which decides what a path to it delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Written where no reader looks, committed, published: exactly once.
    Staged,
    /// Positions and records in one transaction of the target: exactly once.
    Transactional,
    /// Written under a key, so that the same record written again changes nothing: exactly once if
    /// all of this holds.
    Keyed(Keyed),
    /// Nothing takes a record back that was written before a crash: at least once, for this reason.
    AtLeastOnce(&'static str),
    /// Records are not kept: there is nothing to deliver.
    Discard,
}

/// What the guarantee of a keyed sink depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Whether the key names one record of one split, such as its topic, partition and offset.
    /// Otherwise several records share a key, and those of different splits come in any order.
    pub key_names_one_record: bool,
    /// Whether a write that comes late loses against a newer one: by a timestamp or a condition
    /// made from the position.
    pub late_writes_lose: bool,
}

impl Protocol {
    /// Where the low positions of such a sink are written.
    pub fn positions(self) -> Positions {
        match self {
            Protocol::Transactional => Positions::InTarget,
            Protocol::Staged
            | Protocol::Keyed(_)
            | Protocol::AtLeastOnce(_)
            | Protocol::Discard => Positions::InStore,
        }
    }
}

/// What a sink will be given.
#[derive(Clone, Debug)]
pub struct SinkInput {
    /// The columns, as its expressions can name them.
    pub scope: Scope,
    /// What the record is.
    pub record: RecordShape,
}

/// What a record is when it reaches a sink.
#[derive(Clone, Debug)]
pub enum RecordShape {
    /// The bytes that came, in this format. (Rows may carry columns too, for expressions.)
    AsCame {
        /// The source's format, without its settings.
        format: String,
    },
    /// All the columns of the rows.
    Columns(SchemaRef),
}

/// What a sink writes to and a source may read: a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind of system, by its plugins' name: `kafka`.
    pub system: &'static str,
    /// Where the system is reached; any of these.
    pub hosts: Vec<String>,
    /// The name there.
    pub name: String,
}

/// A sink that has been checked.
pub trait PreparedSink: Send + Sync {
    /// Whether `now()` or the like decides about lanes or contents, which makes its paths
    /// at-least-once: the text of the first such expression.
    fn nondeterminism(&self) -> Option<String>;

    /// What it writes to, where a source of the same kind may read it.
    fn target(&self) -> Option<Target> {
        None
    }

    /// Opens it for a run: throws away what earlier runs of this sink on this machine left
    /// unfinished without a commit.
    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError>;
}

/// What a sink is given for a run.
#[derive(Clone)]
pub struct SinkSetup {
    /// The pipeline's name.
    pub pipeline: String,
    /// The folder of the pipeline file: relative paths start there.
    pub base: PathBuf,
    /// Names this attempt of this process at running the plan, unlike any other. What stands before
    /// its last `.` names the process.
    pub instance: String,
    /// Names the store's content; see [`pseidon_delivery::StateStore::identity`].
    pub store: String,
    /// The sink's committer.
    pub committer: Arc<Committer>,
    /// What open lanes may buffer; shared by all sinks.
    pub memory: Arc<LaneMemory>,
    /// The end of the run.
    pub stop: Stop,
    /// What to count.
    pub metrics: Metrics,
}

/// A sink in a run. Shared by ETL threads and writer threads.
pub trait Sink: Send + Sync {
    /// How its lanes are treated.
    fn rules(&self) -> LaneRules;

    /// Splits were taken over. A sink whose target holds the positions cuts their earlier owners
    /// off in the target, and returns what the target holds of each split. A sink that stages
    /// publishes what `staged` names as far as this machine can, and returns which ids that were.
    fn take_over(&self, splits: &[TakenSplit], staged: &[Staged]) -> Result<TakenOver, SinkError>;

    /// Which lane each row goes to. Rows keep their order inside a lane. Runs on an ETL thread.
    fn route(&self, rows: Rows) -> Routed;

    /// Opens a lane, before the target is touched. `waker` is called when a lane that was full, or
    /// is on its way to be durable, can continue.
    fn lane(&self, lane: &LaneId, waker: &Waker) -> Result<Box<dyn Lane>, SinkError>;

    /// Publishes what is staged and committed. Called again with the same entries if the target was
    /// blocked, so it must be repeatable.
    fn publish(&self, _staged: &[Staged]) -> Result<Publishing, SinkError> {
        Ok(Publishing::Done(Vec::new()))
    }

    /// A transaction without records, for positions that moved by themselves; `None` where the
    /// store holds the positions. Nothing is sent to the target before it is committed.
    fn transaction_without_records(&self) -> Option<Box<dyn Transaction>> {
        None
    }

    /// Called about as often as [`LaneRules::check_every`] says while a writer has no open lane;
    /// otherwise [`Lane::tick`] is.
    fn tick(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// How far publishing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// Everything is visible, or will be by other means. The store can forget these ids; the sink
    /// sees to the others.
    Done(Vec<String>),
    /// The target cannot be changed now, for this reason.
    Blocked(String),
}

/// A split that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSplit {
    /// The split.
    pub split: SplitId,
    /// The epoch under which this instance has it.
    pub epoch: u64,
    /// The earlier instances that may still be at work on it.
    pub owners: Vec<String>,
    /// The low position that the store holds; where the target holds the positions, what it had
    /// when the split was begun or given back.
    pub low: Option<Position>,
}

/// What a take-over found.
#[derive(Clone, Debug, Default)]
pub struct TakenOver {
    /// Staged entries that are published now.
    pub published: Vec<String>,
    /// What the target holds of each split, in the order of the splits; empty where the store holds
    /// the positions.
    pub held: Vec<Option<TargetPosition>>,
    /// What holds these positions, for messages: `the topic pseidon-positions (:positions-topic)`.
    pub held_in: String,
}

/// What a target holds of a split, as [`pseidon_delivery::CommitRecord`] does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetPosition {
    /// Everything below it is in the target.
    pub low: Position,
    /// Lanes that are further.
    pub ahead: HashMap<LaneId, Position>,
}

/// Rows by lane.
#[derive(Debug, Default)]
pub struct Routed {
    /// Each lane at most once.
    pub chunks: Vec<Chunk>,
    /// Rows that fit no lane.
    pub bad: Vec<BadRow>,
}

/// Rows of one batch for one lane, in order of their positions.
#[derive(Debug)]
pub struct Chunk {
    /// The lane.
    pub lane: LaneId,
    /// Its rows; never empty.
    pub rows: Rows,
    /// The first position that is not complete with this chunk and those that were made together
    /// with it. It is the last row's own position where more rows of that position follow.
    pub next: Position,
    /// Counts the columns of the chunk and of those that share them.
    held: Option<Arc<Charge>>,
}

impl Chunk {
    /// Rows for a lane.
    pub fn new(lane: LaneId, rows: Rows) -> Chunk {
        Chunk {
            lane,
            next: rows.batch().next,
            rows,
            held: None,
        }
    }

    /// The chunk with only these of its rows.
    pub fn with_rows(self, rows: Rows) -> Chunk {
        Chunk { rows, ..self }
    }

    /// The bytes of its rows: their part of the batch, and the columns that were made of them.
    pub fn bytes(&self) -> usize {
        let (rows, batch) = (&self.rows, self.rows.batch());
        let records = batch.size() as u128 * rows.len() as u128 / batch.len().max(1) as u128;
        let columns = rows.columns().columns().iter();
        records as usize
            + columns
                .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
                .sum::<usize>()
    }

    /// Counts the columns of these chunks of one batch against its source's share of the memory,
    /// until the last of them is dropped. Chunks share columns, so they are counted for all at
    /// once.
    pub fn charge(batch: &Batch, chunks: &mut [(usize, Chunk)]) {
        let mut memory = ArrayMemory::default();
        chunks
            .iter()
            .for_each(|(_, chunk)| chunk.rows.add_memory(&mut memory));
        let held = batch.charge_more(memory.bytes()).map(Arc::new);
        chunks
            .iter_mut()
            .for_each(|(_, chunk)| chunk.held = held.clone());
    }
}

/// A sink cannot go on.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A commit was given up.
    #[error(transparent)]
    Abandon(#[from] Abandon),
    /// The target has refused some records, and has said which: the sink's next [`Sink::route`]
    /// hands these to the error policy. What was written together with them is read again from the
    /// committed positions, at once. It does not count as a failure of the sink.
    #[error("{0}")]
    Refused(String),
    /// It may work when tried again; the run is started anew after a while.
    #[error("{0}")]
    Transient(String),
    /// It will not work without the user.
    #[error("{0}")]
    Fatal(String),
}
