//! The sink with a real committer and store, under an engine that does what the delivery protocol asks of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::Mutex;
use proptest::prelude::*;
use pseidon_delivery::committer::{Abandon, Positions};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Commit, CommitError, CommitRecord, Committer, Position, SinkId, StateStore, StoreError, StoredPlan};
use pseidon_dsl::expr::ExprKind;
use pseidon_dsl::node::Text;
use pseidon_expr::{Column, Scope};
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{Chunk, RecordShape};
use pseidon_plugin::{BatchBuilder, Split, Stop};
use tempfile::TempDir;

use super::staging::OPEN;
use super::*;

/// What the store does with the next commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    /// Applies it and says so.
    #[default]
    Sound,
    /// Applies it, but the answer is lost, and so is everything that comes later.
    AnswerLost,
    /// Does not get it, nor anything that comes later.
    Gone,
}

struct Store {
    inner: EmbeddedStore,
    mood: Mutex<Mood>,
    stop: Mutex<Stop>,
}

impl Store {
    fn lost<T>(&self) -> Result<T, StoreError> {
        self.stop.lock().leave_now();
        Err(StoreError::Unavailable("gone".into()))
    }
}

impl StateStore for Store {
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        match std::mem::replace(&mut *self.mood.lock(), Mood::Sound) {
            Mood::Sound => self.inner.commit(sink, commit),
            Mood::AnswerLost => {
                self.inner.commit(sink, commit)?;
                Ok(self.lost()?)
            }
            Mood::Gone => Ok(self.lost()?),
        }
    }

    fn identity(&self) -> Result<String, StoreError> {
        self.inner.identity()
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        self.inner.weaknesses()
    }

    fn take(&self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, StoreError> {
        self.inner.take(sink, splits, owner)
    }

    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError> {
        self.inner.set_owner(sink, splits, owner)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError> {
        self.inner.staged(sink)
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        self.inner.forget(sink, ids)
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        self.inner.records(sink)
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        self.inner.sinks()
    }

    fn plan(&self) -> Result<Option<StoredPlan>, StoreError> {
        self.inner.plan()
    }

    fn set_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.inner.set_plan(plan)
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inner.note(key)
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.inner.set_note(key, value)
    }
}

/// A folder and a store that outlive runs.
struct World {
    dir: TempDir,
    store: Arc<Store>,
    runs: AtomicUsize,
}

/// A run of a sink with one writer, which holds the two splits of a topic.
struct Run {
    committer: Arc<Committer>,
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    splits: Vec<(Arc<Split>, Position)>,
    setup: SinkSetup,
}

fn options(text: &str) -> Options {
    let nodes = pseidon_dsl::edn::read_all(text).unwrap();
    Options::parse(&options::SPEC, &nodes, pseidon_dsl::Span::default()).unwrap()
}

fn input() -> SinkInput {
    let ExprKind::Path(path) = pseidon_dsl::expr::parse(&Text::plain("k", 0)).unwrap().kind else { panic!("k is a path") };
    let field = Arc::new(Field::new("k", DataType::Utf8, true));
    SinkInput { scope: Scope { columns: vec![Column { path, field }] }, record: RecordShape::AsCame { format: "json".into() } }
}

/// The bucket of a record, by its position.
fn bucket(position: Position) -> Option<String> {
    (position % 5 != 4).then(|| format!("b{}", position % 5))
}

fn rows(split: &Arc<Split>, from: Position, to: Position, key: impl Fn(Position) -> Option<String>) -> Rows {
    let mut builder = BatchBuilder::new(split.clone(), MetaWanted::default(), 0);
    for position in from..to {
        let payload = format!("{{\"p\":{},\"n\":{position}}}", split.partition);
        builder.push(position, Some(payload.as_bytes()), Default::default());
    }
    let keys: ArrayRef = Arc::new((from..to).map(key).collect::<StringArray>());
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    Rows::new(Arc::new(builder.finish(to)), RecordBatch::try_new(schema, vec![keys]).unwrap())
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let inner = EmbeddedStore::open(&dir.path().join("state"), "p").unwrap();
        let store = Arc::new(Store { inner, mood: Mutex::default(), stop: Mutex::default() });
        World { dir, store, runs: AtomicUsize::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, text: &str) -> Run {
        self.try_start("lake", text, input()).unwrap()
    }

    fn try_start(&self, sink: &str, text: &str, input: SinkInput) -> Result<Run, SinkError> {
        let stop = Stop::new();
        *self.store.stop.lock() = stop.clone();
        let committer = Arc::new(Committer::new(sink.into(), self.store.clone(), Positions::InStore, stop.abandoned()));
        let setup = SinkSetup {
            pipeline: "my pipeline".into(),
            base: self.dir.path().into(),
            instance: format!("host/{}", self.runs.fetch_add(1, Ordering::Relaxed)),
            store: self.store.identity().unwrap(),
            committer: committer.clone(),
            staged: committer.staged()?,
            writers: 1,
            memory: 32 << 20,
            stop,
            metrics: Metrics::new(),
        };
        let sink = FilesSink.prepare(&options(text), &input).unwrap().open(setup.clone())?;
        let splits: Vec<Arc<Split>> = (0..2)
            .map(|partition| Arc::new(Split { id: format!("in:clicks/{partition}").into(), topic: "clicks".into(), partition }))
            .collect();
        let ids: Vec<SplitId> = splits.iter().map(|split| split.id.clone()).collect();
        let records = committer.take(&ids, &setup.instance)?;
        let owners: Vec<_> = ids.iter().cloned().zip(records.iter().map(|record| record.owners.clone())).collect();
        let taken = sink.take_over(&owners, &committer.staged()?)?;
        committer.published(taken.published);
        let lows: Vec<Position> = records.iter().map(|record| record.low.unwrap_or(0)).collect();
        for (id, record) in ids.into_iter().zip(records) {
            committer.begin(id, record, 0)?;
        }
        Ok(Run { committer, writer: sink.writer()?, sink, splits: splits.into_iter().zip(lows).collect(), setup })
    }

    /// The visible files below a folder with their contents. Hidden ones are listed, without content, only if there are any.
    fn files(&self, folder: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(&self.path(folder), "", &mut found);
        found
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.files(folder).into_keys().collect()
    }

    /// Fails unless every record below these positions is there once, in its bucket, and nothing else.
    fn assert_exactly_once(&self, folder: &str, ends: [Position; 2]) {
        let mut expected: Vec<String> = Vec::new();
        for (partition, end) in ends.into_iter().enumerate() {
            let of = |position| format!("{}: {{\"p\":{partition},\"n\":{position}}}", bucket(position).unwrap_or("NULL".into()));
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

fn collect(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
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
            let held = self.committer.already_held(&split, &chunk.lane);
            let wanted = (0..chunk.rows.len() as u32).filter(|row| chunk.rows.position(*row as usize) >= held);
            let rows = chunk.rows.take(&UInt32Array::from_iter_values(wanted)).unwrap();
            if rows.is_empty() {
                continue;
            }
            self.committer.ledger().dispatch(&split, &chunk.lane, rows.position(0), rows.position(rows.len() - 1));
            chunks.push(Chunk { lane: chunk.lane, rows });
        }
        self.committer.ledger().advance(&split, next);
        chunks.into_iter().try_for_each(|chunk| self.writer.write(chunk))
    }

    /// Ends the run well.
    fn finish(mut self) {
        self.writer.flush(None).unwrap();
        let splits: Vec<SplitId> = self.splits.iter().map(|(split, _)| split.id.clone()).collect();
        self.committer.release(&splits).unwrap();
    }
}

const EVERY_5: &str = r#"{:path "out/{k}" :null-name "NULL" :rollover {:records 5}}"#;

#[test]
fn the_declaration_reads_its_own_example() {
    options(r#""out" {:codec :parquet}"#);
    let example =
        pseidon_dsl::edn::read_all(r#"{:path "out/{k}" :codec :json :compression :gzip :rollover {:size "128MB" :idle "30s"}}"#).unwrap();
    let options = Options::parse(&options::SPEC, &example, pseidon_dsl::Span::default()).unwrap();
    assert!(FilesSink.prepare(&options, &input()).unwrap().nondeterminism().is_none());
}

#[test]
fn mistakes_in_options_are_found_together() {
    let cases: &[(&str, &[&str])] = &[
        (r#""out/{k}/../x""#, &["`..` cannot be part of a bucket's path"]),
        (r#""out/{k}/.pseidon-open""#, &["`.pseidon-open` cannot be part of a bucket's path"]),
        (r#"{:path "/out/{k}" :base-dir "a"}"#, &["`:path` is absolute although there is a `:base-dir`"]),
        (r#"{:path "out" :base-dir []}"#, &["`:base-dir` names no folder"]),
        (r#"{:path "out" :level 3}"#, &["files cannot be written like this"]),
        (r#"{:path "out" :codec :parquet}"#, &["files cannot be written like this"]),
        (
            r#"{:path "out/{k}/.." :rollover {:records 0} :max-open-files 0}"#,
            &["`..` cannot be part", "a file cannot have 0 records", "no file could be open"],
        ),
    ];
    for (text, expected) in cases {
        let Err(mistakes) = FilesSink.prepare(&options(text), &input()) else { panic!("{text} is accepted") };
        let messages: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
        assert_eq!(messages.len(), expected.len(), "{text}: {messages:?}");
        for part in *expected {
            assert!(messages.iter().any(|message| message.contains(part)), "{text}: {messages:?}");
        }
    }
}

#[test]
fn the_folder_is_what_stands_before_the_first_value() {
    for (text, expected) in [
        (r#""out/{k}""#, Some("out")),
        (r#""/data/out/x-{k}""#, Some("/data/out")),
        (r#""out/clicks""#, Some("out/clicks")),
        (r#""{k}""#, None),
        (r#"{:path "x/{k}" :base-dir ["a" "b"]}"#, Some("a")),
    ] {
        assert_eq!(FilesSink.facts(&options(text)).folder.as_deref(), expected, "{text}");
    }
}

#[test]
fn a_run_leaves_finished_files_and_nothing_else() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    assert!(world.names("out").iter().all(|name| name.starts_with(OPEN)), "nothing is visible yet");
    run.deliver(1, 3).unwrap();
    run.finish();
    world.assert_exactly_once("out", [12, 3]);
    assert_eq!(
        world.names("out"),
        [
            "NULL/clicks-0-000000000004.json",
            "b0/clicks-0-000000000000.json",
            "b1/clicks-0-000000000001.json",
            "b2/clicks-0-000000000002.json",
            "b3/clicks-0-000000000003.json",
        ]
    );
    assert!(world.store.staged(&"lake".into()).unwrap().is_empty());
    assert!(world.store.records(&"lake".into()).unwrap().iter().all(|(_, record)| record.ahead.is_empty()));
}

#[test]
fn a_file_without_values_in_its_path_lies_in_the_folder_itself() {
    let world = World::new();
    let mut run = world.start(r#""out/all""#);
    run.deliver(1, 3).unwrap();
    run.finish();
    assert_eq!(world.names("out"), ["all/clicks-1-000000000000.json"]);
}

#[test]
fn a_file_has_exactly_as_many_records_as_it_may() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out" :rollover {:records 10}}"#);
    run.deliver(0, 7).unwrap();
    run.deliver(0, 38).unwrap();
    run.writer.tick().unwrap();
    let counts: Vec<usize> =
        world.files("out").into_iter().filter(|(name, _)| !name.contains(OPEN)).map(|(_, text)| text.lines().count()).collect();
    assert_eq!(counts, [10, 10, 10, 10]);
    run.finish();
    assert_eq!(world.names("out").len(), 5);
}

#[test]
fn rows_of_one_record_are_never_parted() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out" :rollover {:records 2}}"#);
    let split = run.splits[0].0.clone();
    let all = rows(&split, 0, 3, |_| None).take(&UInt32Array::from(vec![0, 1, 1, 1, 2, 2, 2])).unwrap();
    run.deliver_rows(all).unwrap();
    run.finish();
    let counts: Vec<usize> = world.files("out").into_values().map(|text| text.lines().count()).collect();
    assert_eq!(counts, [4, 3]);
}

#[test]
fn each_rule_closes_files_by_itself() {
    for (rule, closes) in [(":size 1", true), (":idle 0", true), (":age 0", true), (":records 1", true), (":records 1000", false)] {
        let world = World::new();
        let mut run = world.start(&format!(r#"{{:path "out" :rollover {{{rule}}}}}"#));
        run.deliver(0, 3).unwrap();
        run.writer.tick().unwrap();
        let visible = world.names("out").iter().any(|name| !name.contains(OPEN));
        assert_eq!(visible, closes, "{rule}");
    }
}

#[test]
fn a_flush_of_one_split_leaves_the_others_open() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out/{@partition}"}"#);
    run.deliver(0, 3).unwrap();
    run.deliver(1, 3).unwrap();
    run.writer.flush(Some(&["in:clicks/1".into()])).unwrap();
    let visible: Vec<String> = world.names("out").into_iter().filter(|name| !name.contains(OPEN)).collect();
    assert_eq!(visible, ["1/clicks-1-000000000000.json"]);
    assert_eq!(run.setup.metrics.open_files.with_label_values(&["lake"]).get(), 1);
    assert_eq!(run.setup.metrics.files.with_label_values(&["lake"]).get(), 1);
    run.finish();
}

#[test]
fn what_was_not_committed_is_thrown_away() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    drop(run);
    assert_eq!(world.names("out"), [""; 0]);
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    run.finish();
    world.assert_exactly_once("out", [12, 0]);
}

#[test]
fn a_run_that_dies_around_its_commit_is_made_good_by_the_next() {
    for (mood, published) in [(Mood::AnswerLost, true), (Mood::Gone, false)] {
        let world = World::new();
        let mut run = world.start(EVERY_5);
        run.deliver(0, 12).unwrap();
        *world.store.mood.lock() = mood;
        let error = run.writer.flush(None).unwrap_err();
        assert!(matches!(error, SinkError::Abandon(Abandon::Stopped)), "{error}");
        drop(run);
        assert!(!world.names("out").is_empty(), "only the store knows what becomes of the files");
        assert!(world.names("out").iter().all(|name| name.starts_with(OPEN)));

        let mut run = world.start(EVERY_5);
        assert_eq!(world.names("out").iter().any(|name| !name.starts_with(OPEN)), published, "{mood:?}");
        let missing = 12 - run.splits[0].1;
        assert_eq!(missing, if published { 0 } else { 12 });
        run.deliver(0, missing).unwrap();
        run.finish();
        world.assert_exactly_once("out", [12, 0]);
    }
}

#[test]
fn only_folders_of_the_dead_on_this_machine_are_cleaned() {
    let world = World::new();
    let first = world.start(EVERY_5);
    let folder = fs::read_dir(world.path("out").join(OPEN)).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    for (instance, lock) in [("dead", Some(Host::this().to_text())), ("unborn", None), ("elsewhere", Some("elsewhere 1234".to_owned()))] {
        fs::create_dir(folder.join(instance)).unwrap();
        fs::write(folder.join(instance).join("1.open"), "not committed").unwrap();
        if let Some(text) = lock {
            fs::write(folder.join(instance).join("lock"), text).unwrap();
        }
    }
    let second = world.start(EVERY_5);
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["elsewhere", "host_0", "host_1"]);
    drop((first, second));
    assert!(folder.join("elsewhere/1.open").exists());
}

#[test]
fn a_living_run_is_left_alone_and_cannot_commit_what_was_taken_from_it() {
    let world = World::new();
    let mut first = world.start(EVERY_5);
    first.deliver(0, 12).unwrap();
    let mut second = world.start(EVERY_5);
    let error = first.writer.flush(None).unwrap_err();
    assert!(matches!(error, SinkError::Abandon(Abandon::Fenced(_))), "{error}");
    drop(first);
    second.deliver(0, 12).unwrap();
    second.finish();
    let third = world.start(EVERY_5);
    third.finish();
    world.assert_exactly_once("out", [12, 0]);
}

#[test]
fn a_name_that_is_taken_is_not_replaced() {
    let world = World::new();
    fs::create_dir_all(world.path("out/b0")).unwrap();
    fs::write(world.path("out/b0/clicks-0-000000000000.json.gz"), "other").unwrap();
    let mut run = world.start(r#"{:path "out/{k}" :compression :gzip}"#);
    run.deliver(0, 1).unwrap();
    run.finish();
    assert_eq!(world.names("out"), ["b0/clicks-0-000000000000.json.gz", "b0/clicks-0-000000000000~1.json.gz"]);
    assert_eq!(world.files("out")["b0/clicks-0-000000000000.json.gz"], "other");
}

#[test]
fn places_of_one_stage_do_not_collide() {
    let world = World::new();
    for sink in ["lake", "lake#2"] {
        let mut run = world.try_start(sink, r#""out""#, input()).unwrap();
        run.deliver(0, 1).unwrap();
        run.finish();
    }
    assert_eq!(world.names("out"), ["clicks-0-000000000000.2.json", "clicks-0-000000000000.json"]);
}

#[test]
fn base_directories_are_used_in_turn() {
    let world = World::new();
    let mut run = world.start(r#"{:path "x/{k}" :base-dir ["one" "two"] :null-name "NULL"}"#);
    run.deliver(0, 4).unwrap();
    run.finish();
    assert_eq!(world.names("one").len(), 2);
    assert_eq!(world.names("two").len(), 2);
    assert!(world.names("one").iter().all(|name| name.starts_with("x/b")));
}

#[test]
fn many_buckets_need_few_open_files_and_little_memory() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out/{k}" :max-open-files 8 :compression :gzip}"#);
    let split = run.splits[0].0.clone();
    for turn in 0..3 {
        run.deliver_rows(rows(&split, turn * 100, turn * 100 + 100, |position| Some(format!("{}", position % 100)))).unwrap();
        assert!(run.setup.metrics.open_files.with_label_values(&["lake"]).get() <= 8);
    }
    run.finish();
    assert_eq!(world.names("out").len(), 300);
}

#[test]
fn a_deleted_open_file_makes_the_run_start_anew() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 3).unwrap();
    fs::remove_dir_all(world.path("out").join(OPEN)).unwrap();
    run.deliver(0, 1).unwrap();
    let error = run.writer.flush(None).unwrap_err();
    assert!(matches!(error, SinkError::Transient(_)), "{error}");
    drop(run);
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    run.finish();
    world.assert_exactly_once("out", [12, 0]);
}

#[test]
fn a_target_that_cannot_be_written_is_waited_for() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    // A file where a folder has to be stands for every way in which files cannot be made.
    let instance = world.path("out").join(OPEN);
    fs::rename(&instance, world.path("moved")).unwrap();
    fs::write(&instance, "in the way").unwrap();
    fs::write(world.path("out/b0"), "in the way").unwrap();
    let gauge = run.setup.metrics.sink_blocked.with_label_values(&["lake"]);
    let clear = |gauge: &IntGauge, remove: PathBuf| {
        while gauge.get() == 0 {
            std::thread::yield_now();
        }
        fs::remove_file(remove).unwrap();
        while gauge.get() == 1 {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let (gauge, b0) = (&gauge, world.path("out/b0"));
        scope.spawn(move || {
            clear(gauge, instance);
            clear(gauge, b0);
        });
        run.deliver(0, 1).unwrap();
        run.writer.flush(None).unwrap();
    });
    run.finish();
    world.assert_exactly_once("out", [1, 0]);
}

/// Set for the process in which files may not grow any further.
const FULL: &str = "PSEIDON_TEST_FULL";

#[test]
fn a_full_disk_loses_nothing() {
    if std::env::var_os(FULL).is_some() {
        return write_to_a_full_disk();
    }
    // A limit on the size of files does what a full disk does, but to a whole process, so it gets one of its own.
    let test = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; exec \"$0\" --exact sink::tests::a_full_disk_loses_nothing";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(test).env(FULL, "1").status().unwrap();
    assert!(status.success());
}

fn write_to_a_full_disk() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    for text in [r#"{:path "out" :codec :raw}"#, r#"{:path "out" :codec :raw :compression :zstd :rollover {:size "6MB"}}"#] {
        let world = World::new();
        let mut run = world.start(text);
        let before = getrlimit(Resource::Fsize);
        // More than the state takes, less than the records.
        let full = rustix::process::Rlimit { current: Some(4 << 20), ..before.clone() };
        setrlimit(Resource::Fsize, full).unwrap();
        let gauge = run.setup.metrics.sink_blocked.with_label_values(&["lake"]);
        let split = run.splits[0].0.clone();
        let mut random = 1u64;
        let mut records = Vec::new();
        for _ in 0..6 << 10 {
            let word = |_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{random:016x}")
            };
            records.push((0..128).map(word).collect::<String>());
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while gauge.get() == 0 {
                    std::thread::yield_now();
                }
                setrlimit(Resource::Fsize, before).unwrap();
            });
            for (number, part) in records.chunks(100).enumerate() {
                let first = number as Position * 100;
                let mut builder = BatchBuilder::new(split.clone(), MetaWanted::default(), 0);
                (first..).zip(part).for_each(|(position, record)| builder.push(position, Some(record.as_bytes()), Default::default()));
                let batch = builder.finish(first + part.len() as Position);
                let keys: ArrayRef = Arc::new(StringArray::new_null(part.len()));
                run.deliver_rows(Rows::new(Arc::new(batch), RecordBatch::try_from_iter([("k", keys)]).unwrap())).unwrap();
            }
        });
        assert_eq!(gauge.get(), 0);
        run.finish();
        let mut content = Vec::new();
        for name in world.names("out") {
            let bytes = fs::read(world.path("out").join(&name)).unwrap();
            content.extend(if name.ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes });
        }
        assert!(content == (records.join("\n") + "\n").into_bytes(), "{text}");
    }
}

#[test]
fn a_blocked_writer_leaves_when_it_has_to() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    fs::rename(world.path("out").join(OPEN), world.path("moved")).unwrap();
    fs::write(world.path("out").join(OPEN), "in the way").unwrap();
    run.setup.stop.leave_now();
    let error = run.deliver(0, 1).unwrap_err();
    assert!(matches!(error, SinkError::Abandon(Abandon::Stopped)), "{error}");
}

#[test]
fn rows_without_a_path_are_bad() {
    let world = World::new();
    let run = world.start(r#""out/{cast(k as bigint)}/{k}""#);
    let split = run.splits[0].0.clone();
    let key = |position: Position| Some(if position % 3 == 1 { "x".to_owned() } else { (position % 2).to_string() });
    let routed = run.sink.route(rows(&split, 0, 6, key));
    assert_eq!(routed.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [1, 4]);
    let chunks: Vec<(String, Vec<Position>)> = routed
        .chunks
        .iter()
        .map(|chunk| (chunk.lane.to_string(), (0..chunk.rows.len()).map(|row| chunk.rows.position(row)).collect()))
        .collect();
    assert_eq!(chunks, [("0/0".to_owned(), vec![0, 2]), ("1/1".to_owned(), vec![3, 5])]);
}

#[test]
fn parquet_files_name_the_positions_they_hold() {
    let world = World::new();
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    let input = SinkInput { record: RecordShape::Columns(schema), ..input() };
    let mut run = world.try_start("lake", r#"{:path "out" :codec :parquet}"#, input).unwrap();
    for partition in [1, 0] {
        let split = run.splits[partition].0.clone();
        let all = rows(&split, 10, 13, bucket);
        let record = all.columns().clone();
        run.deliver_rows(all.with_record(record)).unwrap();
    }
    run.finish();
    let (name, content) = world.files("out").pop_first().unwrap();
    assert_eq!(name, "clicks-1-000000000010.parquet");
    for expected in [r#"{"in:clicks/0":{"first":10,"upto":13},"in:clicks/1":{"first":10,"upto":13}}"#, "pseidon.positions", "my pipeline"] {
        assert!(content.contains(expected), "{expected}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Deliver(usize, u64),
    Tick,
    Flush(usize),
    /// The run ends in the middle, without more ado.
    Drop,
    /// The next commit goes wrong, and the run with it.
    Die(Mood),
}

fn some_ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0usize..2, 1u64..20).prop_map(|(partition, count)| Op::Deliver(partition, count)),
        2 => Just(Op::Tick),
        1 => (0usize..2).prop_map(Op::Flush),
        1 => Just(Op::Drop),
        1 => prop_oneof![Just(Mood::AnswerLost), Just(Mood::Gone)].prop_map(Op::Die),
    ];
    prop::collection::vec(op, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_there_once_whatever_happens(ops in some_ops(), records in 1u64..12, most_open in 1u64..6) {
        let text = format!(r#"{{:path "out/{{k}}" :null-name "NULL" :max-open-files {most_open} :rollover {{:records {records}}}}}"#);
        let world = World::new();
        let mut run = world.start(&text);
        let mut ends = [0, 0];
        for op in ops {
            let outcome = match op {
                Op::Deliver(partition, count) => run.deliver(partition, count),
                Op::Tick => run.writer.tick(),
                Op::Flush(partition) => run.writer.flush(Some(&[run.splits[partition].0.id.clone()])),
                Op::Drop => Err(SinkError::Transient("dropped".into())),
                Op::Die(mood) => {
                    *world.store.mood.lock() = mood;
                    run.deliver(0, 3).and_then(|()| run.writer.flush(None)).and_then(|()| Err(SinkError::Transient("no commit".into())))
                }
            };
            ends = [0, 1].map(|partition| run.splits[partition].1.max(ends[partition]));
            if outcome.is_err() {
                drop(run);
                *world.store.mood.lock() = Mood::Sound;
                run = world.start(&text);
            }
        }
        for (partition, end) in ends.into_iter().enumerate() {
            let missing = end - run.splits[partition].1;
            run.deliver(partition, missing).unwrap();
        }
        run.finish();
        world.assert_exactly_once("out", ends);
        prop_assert!(world.store.staged(&"lake".into()).unwrap().is_empty());
    }
}

#[test]
fn ticks_come_as_often_as_asked() {
    let world = World::new();
    assert_eq!(world.start(r#"{:path "out" :check-freq "20ms"}"#).writer.tick_every(), Duration::from_millis(20));
}
