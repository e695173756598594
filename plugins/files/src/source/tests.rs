//! Tests of the source with an engine that commits every batch at once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::SystemTime;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId, WithCauses};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{
    KnownSplit, Resumption, SourceEvent, SourceExit, SplitPredicate, SplitShare, SplitStart,
    StateRequest,
};
use pseidon_plugin::{Batch, Budget, Pause, Split, Stop};
use tempfile::TempDir;

use super::*;

mod broken;
mod copies;
mod follow;
mod handover;
mod last_line;
mod latest;
mod multi_line;
mod once;
mod replaced;
mod rewritten;

/// The state of the engine and its store, across runs.
#[derive(Default)]
struct EngineState {
    stored: HashMap<SplitId, Resumption>,
    /// What the source has noted.
    note: Option<String>,
    /// Splits that are taken, and neither started nor released.
    taken: HashSet<SplitId>,
    /// The position of each split that has been started.
    held: HashMap<SplitId, Position>,
    /// The run that has claimed each split.
    claims: HashMap<SplitId, usize>,
    /// The numbers of the current runs.
    runs: HashSet<usize>,
    /// `topic: record`, in order of arrival.
    records: Vec<String>,
    begun: usize,
    /// How many requests started splits, of any number: each costs a step of the state store.
    steps: usize,
    released: usize,
    /// The finished splits that no longer exist for the source.
    forgotten: Vec<SplitId>,
    /// What happens when the next splits start.
    at_begin: Option<Happening>,
    /// What happens when splits are claimed next.
    at_claim: Option<Happening>,
}

/// What another program or instance does meanwhile.
type Happening = Box<dyn FnOnce(&mut EngineState) + Send>;

/// A folder of files, and the state of an engine that persists across runs.
pub(super) struct World {
    dir: TempDir,
    /// How the records of the format follow each other.
    framing: Framing,
    seen: Arc<Mutex<EngineState>>,
}

struct Run {
    stop: Stop,
    source: JoinHandle<Result<(), SourceError>>,
    engine: JoinHandle<()>,
    seen: Arc<Mutex<EngineState>>,
}

fn options(text: &str) -> FilesSourceOptions {
    let nodes = pseidon_dsl::edn::read_all(text).unwrap();
    FilesSourceOptions::parse_stage(&SPEC, &nodes, pseidon_dsl::Span::default()).unwrap()
}

/// A source in follow mode in which a file counts as drained at once.
fn following(path: &str, from_latest: bool) -> PreparedFilesSource {
    PreparedFilesSource {
        format_span: None,
        format: "txt".into(),
        record_start: None,
        schema: None,
        path_span: Span::default(),
        config: Config {
            columns: None,
            used: Default::default(),
            paths: vec![path.into()],
            compression: None,
            limits: Limits {
                block: BLOCK_BYTES,
                max_record: 1 << 20,
                skips_longer: false,
            },
            framing: RecordFraming::Format(Framing::default()),
            last_line: LastLine::Auto,
            on_broken: OnBrokenFile::Report,
            on_replaced: OnReplacedFile::Read,
        },
        follow: Some(super::follow::Settings {
            poll: Duration::from_millis(1),
            from_latest,
            drained_after: Duration::ZERO,
        }),
    }
}

impl World {
    pub(super) fn new() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
            framing: Framing::default(),
            seen: Arc::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn append(&self, name: &str, content: &str) {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
    }

    /// Makes a file look as if it had not changed for a minute.
    fn settle(&self, name: &str) {
        let file = OpenOptions::new().append(true).open(self.path(name));
        let minute_ago = SystemTime::now() - Duration::from_secs(60);
        file.unwrap().set_modified(minute_ago).unwrap();
    }

    pub(super) fn setup(&self) -> SourceSetup {
        SourceSetup {
            pipeline: "p".into(),
            stage: "logs".into(),
            base: self.dir.path().into(),
            wanted: WantedMetadata::default(),
            fields: Vec::new(),
            takes_new_fields: false,
            bounds: Default::default(),
            framing: self.framing,
            io_threads: 2,
            memory: 64 << 20,
            instance: "i".into(),
            state: String::new(),
            keeps_state: true,
            metrics: Metrics::new(),
        }
    }

    fn start(&self, text: &str) -> Run {
        let source = FilesSource.prepare(&options(text)).unwrap();
        self.start_source(source)
    }

    /// Starts a source in follow mode in which a file counts as drained at once.
    fn start_following(&self, path: &str, from_latest: bool) -> Run {
        self.start_source(Arc::new(following(path, from_latest)))
    }

    /// The same for records that begin with a line that matches.
    fn start_following_records(&self, path: &str, start: &str) -> Run {
        self.start_source(Arc::new(PreparedFilesSource {
            record_start: Some(StartPattern::new(start, 1 << 20).unwrap()),
            ..following(path, false)
        }))
    }

    fn start_source(&self, source: Arc<dyn Source>) -> Run {
        self.start_with(source, self.setup())
    }

    fn start_with(&self, source: Arc<dyn Source>, setup: SourceSetup) -> Run {
        let stop = Stop::new();
        let durable = Arc::new(Mutex::new(HashMap::new()));
        let (handle, events) = SourceHandle::new(
            Budget::new(64 << 20),
            stop.clone(),
            Pause::default(),
            durable.clone(),
        );
        let seen_by_engine = self.seen.clone();
        let run = {
            let mut seen = self.seen.lock();
            if seen.runs.is_empty() {
                seen.held.clear();
                seen.taken.clear();
            }
            let run = seen.runs.iter().max().map_or(0, |last| last + 1);
            seen.runs.insert(run);
            run
        };
        Run {
            stop,
            source: std::thread::spawn(move || SourceExit::outcome(source.run(&setup, handle))),
            engine: std::thread::spawn(move || engine(run, &events, &seen_by_engine, &durable)),
            seen: self.seen.clone(),
        }
    }

    /// Runs to the end and returns the records of this run, sorted.
    fn read(&self, text: &str) -> Result<Vec<String>, String> {
        self.seen.lock().records.clear();
        let outcome = self.start(text).join();
        let mut records = self.seen.lock().records.clone();
        records.sort();
        outcome
            .map(|()| records)
            .map_err(|error| WithCauses(&error).to_string())
    }
}

fn engine(
    run: usize,
    events: &Receiver<SourceEvent>,
    seen: &Mutex<EngineState>,
    durable: &Mutex<HashMap<SplitId, Position>>,
) {
    for event in events {
        let mut seen = seen.lock();
        match event {
            SourceEvent::ForgetFinished(is_gone) => seen.forget(&is_gone),
            SourceEvent::State(request) => seen.answer(request),
            SourceEvent::ShareSplits(found, reply) => reply.send(seen.share(run, found)).unwrap(),
            SourceEvent::Take(splits, reply) => reply.send(seen.take(run, &splits)).unwrap(),
            SourceEvent::Begin(splits, reply) => {
                seen.begin(splits);
                reply.send(()).unwrap();
            }
            SourceEvent::Emit(batch) => {
                let (split, next) = (batch.split.id.clone(), batch.next);
                seen.commit(*batch);
                durable.lock().insert(split, next);
            }
            SourceEvent::Release(splits, reply) => {
                seen.release(&splits);
                reply.send(()).unwrap();
            }
        }
    }
    seen.lock().leave(run);
}

impl EngineState {
    /// Grants a run its fair share of the splits that no run has claimed.
    fn share(&mut self, run: usize, found: Vec<SplitId>) -> SplitShare {
        if let Some(happens) = self.at_claim.take() {
            happens(self);
        }
        let fair_share = found.len().div_ceil(self.runs.len());
        let held = self.claims.values().filter(|owner| **owner == run).count();
        let free = found
            .into_iter()
            .filter(|split| !self.claims.contains_key(split));
        let granted: Vec<SplitId> = free.take(fair_share.saturating_sub(held)).collect();
        self.claims
            .extend(granted.iter().map(|split| (split.clone(), run)));
        SplitShare {
            granted,
            excess: held.saturating_sub(fair_share),
        }
    }

    fn forget(&mut self, is_gone: &SplitPredicate) {
        let gone = |(split, at): (&SplitId, &Resumption)| at.is_finished && is_gone(split);
        let forgotten = self.stored.iter().filter(|entry| gone(*entry));
        let forgotten: Vec<SplitId> = forgotten.map(|(split, _)| split.clone()).collect();
        self.forgotten.extend(forgotten);
    }

    fn answer(&mut self, request: StateRequest) {
        match request {
            StateRequest::Note(reply) => reply.send(self.note.clone()).unwrap(),
            StateRequest::SetNote(note, reply) => {
                self.note = Some(note);
                reply.send(()).unwrap();
            }
            StateRequest::KnownSplits(is_wanted, reply) => {
                let wanted = self.stored.iter().filter(|(split, _)| is_wanted(split));
                let known = wanted.map(|(split, at)| KnownSplit {
                    split: split.clone(),
                    at: at.clone(),
                });
                reply.send(known.collect()).unwrap();
            }
            StateRequest::HasSplits(reply) => reply.send(!self.stored.is_empty()).unwrap(),
        }
    }

    /// Takes claimed splits over. Returns the entry of each.
    fn take(&mut self, run: usize, splits: &[Arc<Split>]) -> Vec<Option<Resumption>> {
        for split in splits {
            assert!(
                !self.held.contains_key(&split.id),
                "{} is taken twice",
                split.id
            );
            // A split about damage may be taken by the run that has the file's split.
            let claimed = |id: &SplitId| self.claims.get(id) == Some(&run);
            let file = split.id.as_str().split('!').next().map(SplitId::from);
            assert!(
                claimed(&split.id) || file.is_some_and(|file| claimed(&file)),
                "{} is taken without a claim",
                split.id
            );
        }
        self.taken
            .extend(splits.iter().map(|split| split.id.clone()));
        splits
            .iter()
            .map(|split| self.stored.get(&split.id).cloned())
            .collect()
    }

    /// Starts splits that were taken.
    fn begin(&mut self, splits: Vec<SplitStart>) {
        self.steps += 1;
        if let Some(happens) = self.at_begin.take() {
            happens(self);
        }
        for SplitStart {
            split,
            position,
            resume,
        } in splits
        {
            self.begun += 1;
            assert!(
                self.taken.remove(&split.id),
                "{} is begun without being taken",
                split.id
            );
            self.held.insert(split.id.clone(), position);
            self.stored.entry(split.id.clone()).or_insert(Resumption {
                position,
                resume,
                is_finished: false,
            });
        }
    }

    /// Accepts the records of a batch, and commits its position.
    fn commit(&mut self, batch: Batch) {
        let next = self.held[&batch.split.id];
        assert!(
            batch.positions.first().is_none_or(|first| *first >= next),
            "positions go back"
        );
        assert!(batch.next >= next);
        for row in 0..batch.len() {
            let invalid = batch.invalid.iter().find(|(at, _)| *at as usize == row);
            let record = match invalid {
                Some((_, reason)) => format!("quarantined: {reason}"),
                None => String::from_utf8_lossy(batch.payloads.get(row).unwrap()).into_owned(),
            };
            self.records
                .push(format!("{}: {record}", batch.split.topic));
        }
        self.held.insert(batch.split.id.clone(), batch.next);
        let stored = self.stored.get_mut(&batch.split.id).unwrap();
        stored.position = batch.next;
        stored.resume = batch
            .resume
            .map(|from| from.resume)
            .or(stored.resume.take());
        stored.is_finished = batch.end.is_some();
    }

    fn release(&mut self, splits: &[Arc<Split>]) {
        for split in splits {
            self.claims.remove(&split.id);
            if !self.taken.remove(&split.id) {
                self.released += 1;
                self.held.remove(&split.id).unwrap();
            }
        }
    }

    /// Drops the claims of a run that has ended.
    fn leave(&mut self, run: usize) {
        let held: Vec<SplitId> = self
            .claims
            .iter()
            .filter(|(_, owner)| **owner == run)
            .map(|(split, _)| split.clone())
            .collect();
        for split in held {
            self.claims.remove(&split);
            self.held.remove(&split);
        }
        self.runs.remove(&run);
    }
}

impl Run {
    fn join(self) -> Result<(), SourceError> {
        let outcome = self.source.join().unwrap();
        self.engine.join().unwrap();
        outcome
    }

    fn stop(self) -> Vec<String> {
        self.stop.stop_reading();
        let seen = self.seen.clone();
        self.join().unwrap();
        seen.lock().records.clone()
    }

    /// Waits until the condition holds. Panics if the source exits.
    fn until(&self, what: impl Fn(&EngineState) -> bool) {
        while !what(&self.seen.lock()) {
            assert!(!self.source.is_finished(), "the source has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn until_read(&self, records: &[&str]) {
        self.until(|seen| seen.records.len() >= records.len());
        assert_eq!(self.seen.lock().records, records);
    }
}

fn gzip(parts: &[&str]) -> Vec<u8> {
    let pack = |part: &&str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(part.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    parts.iter().flat_map(pack).collect()
}

fn zstd(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| zstd::encode_all(part.as_bytes(), 3).unwrap())
        .collect()
}

fn xz(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| liblzma::encode_all(part.as_bytes(), 1).unwrap())
        .collect()
}

fn lz4(parts: &[&str]) -> Vec<u8> {
    let pack = |part: &&str| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(part.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    parts.iter().flat_map(pack).collect()
}
