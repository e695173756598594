//! Tests of the sink with a real committer and store, and an engine that follows the delivery
//! protocol.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::Mutex;
use pseidon_delivery::committer::{CommitterError, Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Claimant, Commit, CommitError, CommitRecord, Committer, InstanceId, Position, SinkId, SplitId,
    StateStore, StoreError, forward_to_store,
};
use pseidon_dsl::expr::ExprKind;
use pseidon_dsl::node::Text;
use pseidon_exec::lanes::Lanes;
use pseidon_expr::{Column, Scope};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::options::Options;
use pseidon_plugin::sink::{Chunk, RecordShape};
use pseidon_plugin::{BatchBuilder, LaneMemory, Split, Stop};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::disk::OPEN;
use super::*;

mod access;
mod disks;
mod following;
mod rolling;
mod settings;
mod single_record;
mod surviving;

/// How the store handles the next commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CommitFault {
    /// Applies it and confirms it.
    #[default]
    Sound,
    /// Applies it, but the response and all later requests are lost.
    AnswerLost,
    /// The commit and all later requests are lost.
    Gone,
    /// Receives it after its sender is dead, when the next run has opened the sink but has not
    /// taken its splits.
    Delayed,
}

struct Store {
    inner: EmbeddedStore,
    commit_fault: Mutex<CommitFault>,
    stop: Mutex<Stop>,
    delayed: Mutex<Option<(SinkId, Commit)>>,
}

impl Store {
    fn lost<T>(&self) -> Result<T, StoreError> {
        self.stop.lock().leave_now();
        Err(StoreError::Unavailable("gone".into()))
    }
}

impl StateStore for Store {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        steps
            .iter()
            .map(|(sink, commit)| self.commit_one(sink, commit))
            .collect()
    }

    forward_to_store!(inner);
}

impl Store {
    fn commit_one(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        match std::mem::replace(&mut *self.commit_fault.lock(), CommitFault::Sound) {
            CommitFault::Sound => self.inner.commit(sink, commit),
            CommitFault::AnswerLost => {
                self.inner.commit(sink, commit)?;
                Ok(self.lost()?)
            }
            CommitFault::Gone => Ok(self.lost()?),
            CommitFault::Delayed => {
                *self.delayed.lock() = Some((sink.clone(), commit.clone()));
                Ok(self.lost()?)
            }
        }
    }

    /// Delivers the delayed commit. Returns whether it is applied if it stages files. A commit
    /// without files may be applied: a run that has left no hidden files is not fenced.
    fn receive_delayed(&self) -> Option<bool> {
        let (sink, commit) = self.delayed.lock().take()?;
        let is_applied = self.inner.commit(&sink, &commit).is_ok();
        (!commit.staged.is_empty()).then_some(is_applied)
    }
}

/// The lock files below a folder.
fn find_locks(folder: &Path, locks: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            find_locks(&path, locks);
        } else if path.file_name().is_some_and(|name| name == "lock") {
            locks.push(path);
        }
    }
}

/// A folder and a store that persist across runs.
struct World {
    dir: TempDir,
    store: Arc<Store>,
    runs: AtomicUsize,
    /// The name of each run's folder, with its sink as long as it is open.
    sinks: Mutex<Vec<(String, Weak<dyn Sink>)>>,
}

/// A run of a sink with one writer, which owns the two splits of a topic.
struct Run {
    committer: Arc<Committer>,
    sink: Arc<dyn Sink>,
    writer: Writer,
    splits: Vec<(Arc<Split>, Position)>,
    setup: SinkSetup,
}

/// The engine's lanes on one thread. It waits while the disk is blocked, until the run is stopped.
struct Writer {
    lanes: Lanes,
    stop: Stop,
}

impl Writer {
    fn new(sink: &Arc<dyn Sink>, setup: &SinkSetup) -> Writer {
        let lanes = Lanes::of_one_writer(sink.clone(), setup);
        Writer {
            lanes,
            stop: setup.stop.clone(),
        }
    }

    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        self.lanes.write(chunk, ())?;
        self.wait()
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.lanes.tick()?;
        self.wait()
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let (done, is_done) = std::sync::mpsc::channel();
        self.lanes.flush(splits, move || done.send(()).unwrap())?;
        self.wait()?;
        is_done.try_recv().expect("it is flushed");
        Ok(())
    }

    fn wait(&mut self) -> Result<(), SinkError> {
        while let Some(at) = self.lanes.resume_at() {
            if self.stop.leaving_now() {
                return Err(CommitterError::Stopped.into());
            }
            std::thread::sleep(
                at.saturating_duration_since(Instant::now())
                    .min(Duration::from_millis(10)),
            );
            if Instant::now() >= at {
                self.lanes.resume()?;
            }
        }
        Ok(())
    }
}

fn options(text: &str) -> FilesSinkOptions {
    let nodes = pseidon_dsl::edn::read_all(text).unwrap();
    FilesSinkOptions::parse_stage(&options::SPEC, &nodes, pseidon_dsl::Span::default()).unwrap()
}

fn input() -> SinkInput {
    let ExprKind::Path(path) = pseidon_dsl::expr::parse(&Text::plain("k", 0)).unwrap().kind else {
        panic!("k is a path")
    };
    let field = Arc::new(Field::new("k", DataType::Utf8, true));
    SinkInput {
        scope: Scope {
            columns: vec![Column { path, field }],
        },
        record: RecordShape::AsCame {
            format: "json".into(),
        },
    }
}

/// The bucket of a record, by its position.
fn bucket(position: Position) -> Option<String> {
    (position % 5 != 4).then(|| format!("b{}", position % 5))
}

fn rows(
    split: &Arc<Split>,
    from: Position,
    to: Position,
    key: impl Fn(Position) -> Option<String>,
) -> Rows {
    let mut builder = BatchBuilder::new(split.clone(), WantedMetadata::default(), 0);
    for position in from..to {
        let payload = format!("{{\"p\":{},\"n\":{position}}}", split.partition);
        builder.push(position, Some(payload.as_bytes()), Default::default());
    }
    let keys: ArrayRef = Arc::new((from..to).map(key).collect::<StringArray>());
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    Rows::new(
        Arc::new(builder.finish(to)),
        RecordBatch::try_new(schema, vec![keys]).unwrap(),
    )
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let inner = EmbeddedStore::open(&dir.path().join("state"), "p").unwrap();
        let store = Arc::new(Store {
            inner,
            commit_fault: Mutex::default(),
            stop: Mutex::default(),
            delayed: Mutex::default(),
        });
        World {
            dir,
            store,
            runs: AtomicUsize::new(0),
            sinks: Mutex::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, text: &str) -> Run {
        self.try_start("lake", text, input()).unwrap()
    }

    /// Waits until no lock of a dead run is held. A child process inherits the locks of this
    /// process for a moment, until it executes its program, and other tests start such processes.
    fn wait_until_locks_are_free(&self) {
        let sinks = self.sinks.lock();
        let dead = sinks.iter().filter(|(_, sink)| sink.strong_count() == 0);
        let dead: Vec<&String> = dead.map(|(folder, _)| folder).collect();
        let is_free = |lock: &PathBuf| {
            let folder = lock.parent().and_then(Path::file_name).unwrap();
            let is_of_dead_run = dead.iter().any(|dead| folder == dead.as_str());
            let is_locked = |file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
            !is_of_dead_run || !fs::File::open(lock).is_ok_and(is_locked)
        };
        let mut locks = Vec::new();
        find_locks(self.dir.path(), &mut locks);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !locks.iter().all(is_free) {
            assert!(Instant::now() < deadline, "a lock stays held: {locks:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn try_start(&self, sink: &str, text: &str, input: SinkInput) -> Result<Run, SinkError> {
        let setup = self.setup(sink);
        self.wait_until_locks_are_free();
        let sink = FilesSink
            .prepare(&options(text), &input)
            .unwrap()
            .open(setup.clone())?;
        let folder = setup.instance.as_str().replace('/', "_");
        self.sinks.lock().push((folder, Arc::downgrade(&sink)));
        let is_applied = self.store.receive_delayed();
        assert_ne!(is_applied, Some(true), "a dead run has committed");
        let splits = take_over_splits(&*sink, &setup.committer)?;
        Ok(Run {
            committer: setup.committer.clone(),
            writer: Writer::new(&sink, &setup),
            sink,
            splits,
            setup,
        })
    }

    /// The setup of the next run, with a committer of its own.
    fn setup(&self, sink: &str) -> SinkSetup {
        let stop = Stop::new();
        *self.store.stop.lock() = stop.clone();
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let instance = InstanceId::from(format!("host/{run}"));
        let claimant = Claimant {
            owner: instance.clone(),
            plan: "p".into(),
            accepts_other_plans: false,
        };
        let committer = Arc::new(Committer::new(
            sink.into(),
            self.store.clone(),
            claimant,
            Positions::InStore,
            stop.abandoned(),
        ));
        SinkSetup {
            pipeline: "my pipeline".into(),
            base: self.dir.path().into(),
            instance,
            store: self.store.identity().unwrap(),
            trusts_state: false,
            keeps_state: true,
            committer,
            memory: LaneMemory::new(32 << 20),
            stop,
            metrics: Metrics::new(),
        }
    }

    /// The files below a folder with their contents, including hidden files but without the disk
    /// id, which remains.
    fn files(&self, folder: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(&self.path(folder), "", &mut found);
        found.retain(|name, _| !name.ends_with(&format!("{OPEN}/disk")));
        found
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.files(folder).into_keys().collect()
    }

    /// Panics unless the folder contains exactly the records below these positions, each once and
    /// in its bucket.
    fn assert_exactly_once(&self, folder: &str, ends: [Position; 2]) {
        let mut expected: Vec<String> = Vec::new();
        for (partition, end) in ends.into_iter().enumerate() {
            let of = |position| {
                format!(
                    "{}: {{\"p\":{partition},\"n\":{position}}}",
                    bucket(position).unwrap_or("NULL".into())
                )
            };
            expected.extend((0..end).map(of));
        }
        let mut found: Vec<String> = Vec::new();
        for (name, content) in self.files(folder) {
            assert!(!name.contains(OPEN), "{name} was left");
            let bucket = name.split('/').next().unwrap().to_owned();
            found.extend(content.lines().map(|line| format!("{bucket}: {line}")));
        }
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

/// Takes over the two splits of the topic, as the engine does. Returns each with its low position.
fn take_over_splits(
    sink: &dyn Sink,
    committer: &Committer,
) -> Result<Vec<(Arc<Split>, Position)>, SinkError> {
    let splits: Vec<Arc<Split>> = (0..2)
        .map(|partition| {
            Arc::new(Split {
                id: format!("in:clicks/{partition}").into(),
                topic: "clicks".into(),
                partition,
            })
        })
        .collect();
    let ids: Vec<SplitId> = splits.iter().map(|split| split.id.clone()).collect();
    let records = committer.take(&ids)?;
    let with_owners = |(split, record): (&SplitId, &CommitRecord)| TakenSplit {
        split: split.clone(),
        epoch: record.epoch,
        owners: record.owners.clone(),
        low: record.low,
    };
    let taken: Vec<TakenSplit> = ids.iter().zip(&records).map(with_owners).collect();
    let taken = sink.take_over(&taken, &committer.staged()?)?;
    committer.published(taken.published);
    let lows: Vec<Position> = records
        .iter()
        .map(|record| record.low.unwrap_or(0))
        .collect();
    let begin = |(split, record)| SplitToBegin {
        split,
        record,
        start: 0,
        resume: None,
    };
    committer.begin(ids.into_iter().zip(records).map(begin).collect())?;
    Ok(splits.into_iter().zip(lows).collect())
}

fn collect(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else {
            let content = fs::read(entry.path()).unwrap();
            found.insert(name, String::from_utf8_lossy(&content).into_owned());
        }
    }
}

impl Run {
    /// Delivers the next records of a partition, as the engine does.
    fn deliver(&mut self, partition: usize, count: u64) -> Result<(), SinkError> {
        let (split, from) = self.splits[partition].clone();
        self.splits[partition].1 = from + count;
        self.deliver_rows(rows(&split, from, from + count, bucket))
    }

    fn deliver_rows(&mut self, rows: Rows) -> Result<(), SinkError> {
        let (split, next) = (rows.batch().split.id.clone(), rows.batch().next);
        let routed = self.sink.route(rows);
        assert_eq!(routed.bad, []);
        let mut chunks = Vec::new();
        for chunk in routed.chunks {
            let held = self.committer.ledger().already_held(&split, &chunk.lane);
            let wanted = (0..chunk.rows.len() as u32)
                .filter(|row| chunk.rows.position(*row as usize) >= held);
            let rows = chunk
                .rows
                .take(&UInt32Array::from_iter_values(wanted))
                .unwrap();
            if rows.is_empty() {
                continue;
            }
            self.committer.ledger().dispatch(
                &split,
                &chunk.lane,
                rows.position(0),
                rows.position(rows.len() - 1),
            );
            chunks.push(Chunk::new(chunk.lane, rows));
        }
        self.committer.ledger().advance(&split, next, None);
        chunks
            .into_iter()
            .try_for_each(|chunk| self.writer.write(chunk))
    }

    /// Finishes the run cleanly.
    fn finish(mut self) {
        self.writer.flush(None).unwrap();
        let splits: Vec<SplitId> = self
            .splits
            .iter()
            .map(|(split, _)| split.id.clone())
            .collect();
        self.committer.release(&splits).unwrap();
    }
}

const EVERY_5: &str = r#"{:path "out/{k}" :null-name "NULL" :rollover {:records 5}}"#;
