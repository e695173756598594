//! Sinks: where records leave a pipeline.
//!
//! A sink has three phases. The plugin *prepares* it from options and the columns of its input,
//! without I/O, so that `check` finds every error. It is *opened* for a run. Then ETL threads ask
//! it which lane each row goes to, and writer threads open its [lanes](crate::lane), fill them,
//! commit what is durable of them and publish it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pseidon_delivery::committer::Positions;
use pseidon_delivery::{
    Committer, InstanceId, LaneId, Position, SinkId, SplitId, StagedEntry, StagedId,
};
use pseidon_dsl::Diagnostic;
use pseidon_expr::Scope;

use crate::batch::Batch;
use crate::budget::{Charge, LaneMemory};
use crate::lane::{Lane, LaneRules, Transaction};
use crate::memory::ArrayMemory;
use crate::metrics::Metrics;
use crate::options::{OnError, Options};
use crate::rows::{BadRow, Rows};
use crate::spec::PluginSpec;
use crate::stop::Stop;

pub(crate) mod error;

pub use error::SinkError;

/// A sink plugin: declares its options and prepares sinks.
pub trait SinkPlugin: Send + Sync + 'static {
    /// The options of a sink.
    type Options: Options + Send + Sync + 'static;

    /// The declaration: name, documentation and options.
    fn spec(&self) -> &'static PluginSpec;

    /// What happens to a record that cannot be written.
    fn on_error(&self, options: &Self::Options) -> OnError;

    /// The facts that the planner needs about a sink with these options.
    fn facts(&self, options: &Self::Options) -> SinkFacts;

    /// Creates a sink with these options for this input. Does no I/O.
    fn prepare(
        &self,
        options: &Self::Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>>;
}

/// The facts that the planner needs about a sink.
#[derive(Clone, Debug)]
pub struct SinkFacts {
    /// Whether the planner decodes the fields of unchanged records as columns for it.
    pub needs_columns: NeedsColumns,
    /// Whether it writes the key, the headers and the timestamp of an unchanged record as they were
    /// read.
    pub copies_meta: bool,
    /// How it makes lanes durable.
    pub protocol: Protocol,
    /// The folder below which the sink writes, relative to the folder of the pipeline file; invalid
    /// records are quarantined beside it.
    pub folder: Option<String>,
}

/// Whether a sink needs the fields of unchanged records as columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedsColumns {
    /// It does not look at records.
    Never,
    /// It writes the records' bytes, and the fields of records that have none.
    UnlessBytes,
    /// It writes the bytes of JSON records, and the fields of others if they are known.
    UnlessJson,
    /// It writes columns.
    Always,
}

impl NeedsColumns {
    /// Whether it needs the columns of records of this format, with these fields if they are known.
    /// `has_bytes` is whether the records [have bytes](crate::format::Format::has_bytes).
    pub fn of(self, format: &str, has_bytes: bool, fields: Option<&SchemaRef>) -> bool {
        match self {
            NeedsColumns::Never => false,
            NeedsColumns::UnlessBytes => !has_bytes,
            NeedsColumns::UnlessJson => {
                format != "json" && fields.is_some_and(|schema| !schema.fields().is_empty())
            }
            NeedsColumns::Always => true,
        }
    }
}

/// How a sink makes its lanes durable. This decides the delivery guarantee of a path to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Records are staged where no reader looks, committed and then published: exactly once.
    Staged,
    /// Positions and records are committed in one transaction of the target: exactly once.
    Transactional,
    /// Records are written under a key, so that writing the same record again changes nothing:
    /// exactly once if every condition of [`KeyConditions`] holds.
    Keyed(KeyConditions),
    /// Records that were written before a crash cannot be withdrawn: at least once, for this
    /// reason.
    AtLeastOnce(&'static str),
    /// Records are discarded: there is nothing to deliver.
    Discard,
}

/// The conditions on which the guarantee of a keyed sink depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyConditions {
    /// Whether the key identifies one record of one split, such as its topic, partition and offset.
    /// Otherwise several records share a key, and those of different splits arrive in any order.
    pub key_names_one_record: bool,
    /// Whether a late write loses against a newer one: by a timestamp or a condition derived from
    /// the position.
    pub late_writes_lose: bool,
}

impl Protocol {
    /// Where the low positions of such a sink are stored.
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

/// The input of a sink, as the planner determined it.
#[derive(Clone, Debug)]
pub struct SinkInput {
    /// The columns that the sink's expressions can name.
    pub scope: Scope,
    /// What a record is.
    pub record: RecordShape,
}

/// The form of a record when it reaches a sink.
#[derive(Clone, Debug)]
pub enum RecordShape {
    /// Bytes in this format: the original ones, or with changed fields. (Rows may carry columns too,
    /// for expressions.)
    AsCame {
        /// The source's format, without its settings.
        format: String,
    },
    /// All the columns of the rows.
    Columns(SchemaRef),
}

/// A place that a sink writes to and a source may read, such as a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind of system. A sink and a source of one system use the same name.
    pub system: &'static str,
    /// The addresses of the system. Two targets are in the same system if they share one.
    pub hosts: Vec<String>,
    /// The name inside the system.
    pub name: String,
}

/// A committed file that is not visible yet, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The path under which it becomes visible.
    pub path: PathBuf,
    /// The id of the disk that it is on; `None` if the entry does not identify the disk.
    pub disk: Option<String>,
    /// The machine that wrote it.
    pub machine: String,
    /// Whether that disk is mounted here, so that the next run publishes the file.
    pub is_here: bool,
}

/// A sink whose options were checked for its input.
pub trait PreparedSink: Send + Sync {
    /// Whether lanes or contents depend on `now()` or another nondeterministic expression, which
    /// makes the paths of the sink at-least-once. Returns the first such expression as written.
    fn nondeterminism(&self) -> Option<String>;

    /// What the sink writes to, if a source of the same kind may read it.
    fn target(&self) -> Option<Target> {
        None
    }

    /// A digest of what the sink calls for its files: a program with its arguments and environment,
    /// or a URL. `None` if it calls nothing.
    fn hook_digest(&self) -> Option<String> {
        None
    }

    /// Whether the sink writes to standard output, which must then contain nothing else.
    fn writes_to_stdout(&self) -> bool {
        false
    }

    /// Paths like those of the files that the sink writes for records of this topic. `base` is the
    /// folder of the pipeline file. A value of a record is some string in them.
    fn example_files(&self, _base: &Path, _topic: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Describes a file that a sink of this plugin has staged, from the entry's
    /// [`detail`](StagedEntry::detail). `base` is the folder of the pipeline file. `None` for an
    /// entry of another plugin.
    fn staged_file(&self, _detail: &str, _base: &Path) -> Option<StagedFile> {
        None
    }

    /// Why the sink does not publish an entry that another program may have written into the state:
    /// its [`detail`](StagedEntry::detail) leads out of the folders of the sink. `None` if it does
    /// publish it, if its file is not here, and for an entry of another plugin.
    fn refused_entry(&self, _detail: &str, _origin: &StateOrigin<'_>) -> Option<String> {
        None
    }

    /// Opens the sink for a run: discards the unfinished and uncommitted work of earlier runs of
    /// this sink on this machine.
    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError>;
}

/// The state that holds the entries of a sink.
#[derive(Clone, Copy, Debug)]
pub struct StateOrigin<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The folder of the pipeline file; relative paths are resolved against it.
    pub base: &'a Path,
    /// The sink.
    pub sink: &'a SinkId,
    /// The name of the store's content; see [`pseidon_delivery::StateStore::identity`].
    pub store: &'a str,
}

/// The context of one run of a sink.
#[derive(Clone)]
pub struct SinkSetup {
    /// The pipeline's name: up to 100 letters, digits, `-`, `_` and `.`.
    pub pipeline: String,
    /// The folder of the pipeline file; relative paths are resolved against it.
    pub base: PathBuf,
    /// This attempt of this process to run the plan.
    pub instance: InstanceId,
    /// The name of the store's content; see [`pseidon_delivery::StateStore::identity`].
    pub store: String,
    /// Whether only this pipeline can have written what the state holds. If not, an entry of the
    /// state must not lead out of the folders of the sink.
    pub trusts_state: bool,
    /// Whether a later run continues where this one ends. If not, a sink leaves nothing on disk but
    /// what it is for.
    pub keeps_state: bool,
    /// Commits the sink's lanes.
    pub committer: Arc<Committer>,
    /// The memory that open lanes may use for buffers; shared by all sinks.
    pub memory: Arc<LaneMemory>,
    /// Says when the run ends.
    pub stop: Stop,
    /// The metrics to update.
    pub metrics: Metrics,
}

/// An open sink, shared by ETL threads and writer threads.
///
/// [`Sink::lane`], [`Sink::publish`] and [`Sink::tick`] are called on writer threads, which work for
/// many runs. If one of them must wait, it calls [`about_to_wait`](crate::waiting::about_to_wait)
/// first.
pub trait Sink: Send + Sync {
    /// How the engine handles its lanes.
    fn rules(&self) -> LaneRules;

    /// Called when splits were taken over. A sink whose target holds the positions fences their
    /// earlier owners off in the target, and returns what the target holds of each split. A sink
    /// that stages publishes the entries of `staged` as far as this machine can, and returns their
    /// ids.
    fn take_over(
        &self,
        splits: &[TakenSplit],
        staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError>;

    /// Decides which lane each row goes to. Rows keep their order inside a lane. Runs on an ETL
    /// thread.
    fn route(&self, rows: Rows) -> RoutedRows;

    /// Writes an invalid record, as a row of the quarantine, and makes it visible and durable before
    /// it returns. It is in no lane; `id` identifies it, and if it was written before, nothing is
    /// done. Called on an ETL thread, of a quarantine only.
    fn write_single(&self, _row: Rows, _id: &str) -> Result<(), SinkError> {
        Err(SinkError::Fatal(
            "the sink has no place for single records".into(),
        ))
    }

    /// Opens a lane without touching the target. The lane calls `waker` when it was full, or is
    /// becoming durable, and can continue.
    fn lane(&self, lane: &LaneId, waker: &Waker) -> Result<Box<dyn Lane>, SinkError>;

    /// Publishes what is staged and committed. Called again with the same entries if the target was
    /// blocked, so it must be repeatable.
    fn publish(&self, _staged: &[StagedEntry]) -> Result<PublishProgress, SinkError> {
        Ok(PublishProgress::Done(Vec::new()))
    }

    /// A transaction without records, for positions that moved without records; `None` if the store
    /// holds the positions. Nothing is sent to the target before the transaction is committed.
    fn transaction_without_records(&self) -> Option<Box<dyn Transaction>> {
        None
    }

    /// Called about every [`LaneRules::check_every`] while a writer has no open lane; otherwise
    /// [`Lane::tick`] is called.
    fn tick(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The result of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishProgress {
    /// Everything is visible, or will become visible without the engine. The store can forget these
    /// ids; the sink handles the others.
    Done(Vec<StagedId>),
    /// The target cannot be changed now, for this reason.
    Blocked(String),
}

/// A split that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSplit {
    /// The split, whose epoch has been raised in the store.
    pub split: SplitId,
    /// The epoch under which this instance has it.
    pub epoch: u64,
    /// The earlier instances that may still be working on it.
    pub owners: Vec<InstanceId>,
    /// The low position in the store. If the target holds the positions, this is what the target
    /// had when the split was begun or released.
    pub low: Option<Position>,
}

/// The result of a takeover.
#[derive(Clone, Debug, Default)]
pub struct TakeoverResult {
    /// Staged entries that are published now.
    pub published: Vec<StagedId>,
    /// What the target holds of the splits; `None` if the store holds the positions.
    pub held: Option<TargetPositions>,
}

/// What a target that holds the positions has of the splits that were taken over.
#[derive(Clone, Debug, Default)]
pub struct TargetPositions {
    /// Where they are stored, for messages: `the topic pseidon-positions (:positions-topic)`.
    pub location: String,
    /// The positions by split. A split that the target has no record of is missing.
    pub by_split: HashMap<SplitId, TargetPosition>,
}

/// What a target holds of a split, with the meaning of [`pseidon_delivery::CommitRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetPosition {
    /// The low position: everything below it is in the target.
    pub low: Position,
    /// Lanes that are ahead of the low position.
    pub ahead: HashMap<LaneId, Position>,
}

/// Rows grouped by lane.
#[derive(Debug, Default)]
pub struct RoutedRows {
    /// Each lane occurs at most once.
    pub chunks: Vec<Chunk>,
    /// Rows that belong to no lane, each time that they are read.
    pub bad: Vec<BadRow>,
    /// Rows that belong to no lane, although they did when they were read before: the target has
    /// refused them. The quarantine may be past their positions.
    pub refused: Vec<BadRow>,
}

impl RoutedRows {
    /// No row of `rows` can be written, because of this error.
    pub fn all_bad(rows: usize, error: &ArrowError) -> RoutedRows {
        RoutedRows {
            chunks: Vec::new(),
            bad: (0..rows as u32)
                .map(|row| BadRow::new(row, error))
                .collect(),
            refused: Vec::new(),
        }
    }
}

/// Rows of one batch for one lane, in order of their positions.
#[derive(Debug)]
pub struct Chunk {
    /// The lane to which all rows go.
    pub lane: LaneId,
    /// Its rows; never empty.
    pub rows: Rows,
    /// The first position that is not complete with this chunk and the chunks that were created
    /// together with it. It is the last row's own position if more rows of that position follow.
    pub next: Position,
    /// Charges the columns of the chunk, and of the chunks that share them, to the memory budget.
    held: Option<Arc<Charge>>,
}

impl Chunk {
    /// Creates a chunk whose `next` follows its last row.
    pub fn new(lane: LaneId, rows: Rows) -> Chunk {
        Chunk {
            lane,
            next: rows.batch().next,
            rows,
            held: None,
        }
    }

    /// The same chunk with only these of its rows.
    pub fn with_rows(self, rows: Rows) -> Chunk {
        Chunk { rows, ..self }
    }

    /// The bytes of its rows: their part of the batch, the bytes in which fields were changed, and
    /// the columns derived from them.
    pub fn bytes(&self) -> usize {
        let (rows, batch) = (&self.rows, self.rows.batch());
        let records = batch.size() as u128 * rows.len() as u128 / batch.len().max(1) as u128;
        let columns = rows.columns().columns().iter();
        records as usize
            + rows.edited_bytes()
            + columns
                .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
                .sum::<usize>()
    }

    /// Charges the columns of these chunks of one batch to its source's share of the memory, until
    /// the last of them is dropped. Chunks share columns, so they are charged together. `S` is what
    /// the caller keeps beside each chunk.
    pub fn charge<S>(batch: &Batch, chunks: &mut [(S, Chunk)]) {
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
