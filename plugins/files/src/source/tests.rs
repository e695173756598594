//! The source against an engine that commits everything it gets.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::SourceEvent;
use pseidon_plugin::{Budget, Stop};
use tempfile::TempDir;

use super::*;

/// What an engine and its store know.
#[derive(Default)]
struct Seen {
    stored: HashMap<SplitId, Position>,
    held: HashMap<SplitId, Position>,
    /// `topic: record`, in the order in which they came.
    records: Vec<String>,
    begun: usize,
    released: usize,
}

/// A folder of files, a source over it, and an engine that remembers what was read in earlier runs.
struct World {
    dir: TempDir,
    seen: Arc<Mutex<Seen>>,
}

struct Run {
    stop: Stop,
    source: JoinHandle<Result<(), SourceError>>,
    engine: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

fn options(text: &str) -> Options {
    let nodes = pseidon_dsl::edn::read_all(text).unwrap();
    Options::parse(&SPEC, &nodes, pseidon_dsl::Span::default()).unwrap()
}

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().unwrap(), seen: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn append(&self, name: &str, content: &str) {
        OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn setup(&self) -> SourceSetup {
        SourceSetup {
            pipeline: "p".into(),
            stage: "logs".into(),
            base: self.dir.path().into(),
            wanted: MetaWanted::default(),
            io_threads: 2,
            memory: 64 << 20,
            instance: "i".into(),
            metrics: Metrics::new(),
        }
    }

    fn start(&self, text: &str) -> Run {
        let source = FilesSource.prepare(&options(text)).unwrap();
        self.start_source(source)
    }

    /// Like [`World::start`] for following, where a file counts as drained at once.
    fn start_following(&self, path: &str, from_latest: bool) -> Run {
        let settings = follow::Settings { poll: Duration::from_millis(1), from_latest, drained_after: Duration::ZERO };
        let limits = Limits { block: BLOCK, max_record: 1 << 20 };
        let config = Config { paths: vec![path.into()], compression: None, limits };
        self.start_source(Arc::new(Files { format: "txt".into(), schema: None, config, follow: Some(settings) }))
    }

    fn start_source(&self, source: Arc<dyn Source>) -> Run {
        let stop = Stop::new();
        let durable = Arc::new(Mutex::new(Vec::new()));
        let (handle, events) = SourceHandle::new(Budget::new(64 << 20), stop.clone(), durable.clone());
        let (setup, seen) = (self.setup(), self.seen.clone());
        self.seen.lock().held.clear();
        Run {
            stop,
            source: std::thread::spawn(move || source.run(&setup, handle)),
            engine: std::thread::spawn(move || engine(&events, &seen, &durable)),
            seen: self.seen.clone(),
        }
    }

    /// Runs to the end and gives what was read this time.
    fn read(&self, text: &str) -> Result<Vec<String>, String> {
        self.seen.lock().records.clear();
        let outcome = self.start(text).join();
        let mut records = self.seen.lock().records.clone();
        records.sort();
        outcome.map(|()| records).map_err(|error| error.to_string())
    }
}

fn engine(events: &Receiver<SourceEvent>, seen: &Mutex<Seen>, durable: &Mutex<Vec<(SplitId, Position)>>) {
    for event in events {
        let mut seen = seen.lock();
        match event {
            SourceEvent::Take(splits, reply) => {
                for split in &splits {
                    assert!(!seen.held.contains_key(&split.id), "{} is taken twice", split.id);
                }
                reply.send(splits.iter().map(|split| seen.stored.get(&split.id).copied()).collect()).unwrap();
            }
            SourceEvent::Begin(splits, reply) => {
                for (split, start) in splits {
                    seen.begun += 1;
                    seen.held.insert(split.id.clone(), start);
                    seen.stored.insert(split.id.clone(), start);
                }
                reply.send(()).unwrap();
            }
            SourceEvent::Emit(batch) => {
                let next = seen.held[&batch.split.id];
                assert!(batch.positions.first().is_none_or(|first| *first >= next), "positions go back");
                assert!(batch.next >= next);
                for row in 0..batch.len() {
                    let record = String::from_utf8_lossy(batch.payloads.get(row).unwrap()).into_owned();
                    seen.records.push(format!("{}: {record}", batch.split.topic));
                }
                seen.held.insert(batch.split.id.clone(), batch.next);
                seen.stored.insert(batch.split.id.clone(), batch.next);
                durable.lock().push((batch.split.id.clone(), batch.next));
            }
            SourceEvent::Release(splits, reply) => {
                for split in splits {
                    seen.released += 1;
                    seen.held.remove(&split.id).unwrap();
                }
                reply.send(()).unwrap();
            }
            SourceEvent::Lost(_) => panic!("files are never lost"),
        }
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

    /// Waits until it holds, for as long as the source is alive.
    fn until(&self, what: impl Fn(&Seen) -> bool) {
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
    parts.iter().flat_map(|part| zstd::encode_all(part.as_bytes(), 3).unwrap()).collect()
}

#[test]
fn the_declaration_reads_its_own_example() {
    for text in [r#"{:path "logs/*.json.gz" :format "json"}"#, r#""a.log""#, r#""a.log" {:follow true}"#] {
        FilesSource.prepare(&options(text)).unwrap();
    }
    for (text, expected) in
        [(r#""a[""#, "`a[` is not a glob"), (r#""""#, "`:path` names no file"), (r#""a" {:max-record 0}"#, "`:max-record` is out of range")]
    {
        let Err(mistakes) = FilesSource.prepare(&options(text)) else { panic!("{text} is accepted") };
        assert_eq!(mistakes[0].message, expected);
    }
}

#[test]
fn the_format_is_told_by_the_names() {
    for (text, expected) in [
        (r#""a.json""#, "json"),
        (r#"["a.json.gz" "b/*.ndjson" "c.jsonl.zst"]"#, "json"),
        (r#"["a.json" "b.log"]"#, "txt"),
        (r#""a.json" {:format "txt:sep=pipe"}"#, "txt:sep=pipe"),
    ] {
        assert_eq!(FilesSource.prepare(&options(text)).unwrap().facts().format, expected, "{text}");
    }
}

#[test]
fn reads_plain_and_compressed_files_once_and_only_what_is_new_later() {
    let world = World::new();
    world.write("in/a.log", "one\r\n\ntwo\nthree");
    world.write("in/b.log.gz", gzip(&["four\nfi", "ve\n", "six"]));
    world.write("in/c.log.zst", zstd(&["seven\n", "eight\n"]));
    world.write("in/d.log", gzip(&["nine\n"]));
    world.write("in/empty.log", "");
    let all = [
        "in/a.log: one",
        "in/a.log: three",
        "in/a.log: two",
        "in/b.log.gz: five",
        "in/b.log.gz: four",
        "in/b.log.gz: six",
        "in/c.log.zst: eight",
        "in/c.log.zst: seven",
        "in/d.log: nine",
    ];
    assert_eq!(world.read(r#""in/*""#).unwrap(), all);

    let begun = world.seen.lock().begun;
    assert_eq!(world.read(r#""in/*""#).unwrap(), [""; 0]);
    assert_eq!(world.seen.lock().begun, begun, "a file that is done is only taken");

    world.append("in/a.log", "\nten\n");
    world.write("in/e.log", "eleven\n");
    assert_eq!(world.read(r#""in/*""#).unwrap(), ["in/a.log: ten", "in/e.log: eleven"]);
}

#[test]
fn resumes_at_every_record_with_exactly_the_rest() {
    let lines: Vec<String> = (0..40).map(|number| format!("{}{number}", "x".repeat(number % 7))).collect();
    let text = lines.join("\n") + "\n";
    let (first, second) = text.split_at(text.len() / 3);
    for (name, content) in
        [("a.log", text.clone().into_bytes()), ("a.log.gz", gzip(&[first, second])), ("a.log.zst", zstd(&[first, second]))]
    {
        let world = World::new();
        world.write(name, content);
        world.read(&format!("{name:?}")).unwrap();
        let split = world.seen.lock().stored.keys().next().unwrap().clone();
        let mut position = 0;
        for (done, line) in lines.iter().enumerate() {
            world.seen.lock().stored.insert(split.clone(), position);
            world.read(&format!("{name:?}")).unwrap_or_else(|error| panic!("{name} at {position}: {error}"));
            let expected: Vec<String> = lines[done..].iter().map(|line| format!("{name}: {line}")).collect();
            let mut read = world.seen.lock().records.clone();
            read.retain(|record| !record.is_empty());
            assert_eq!(read, expected, "{name} from {position} on");
            position += line.len() as u64 + 1;
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_does_not_keep_the_others() {
    let world = World::new();
    let whole = gzip(&[&"record\n".repeat(50_000)]);
    world.write("broken.gz", &whole[..whole.len() - 20]);
    world.write("good.log", "one\n");
    let error = world.read(r#"["*.gz" "*.log"]"#).unwrap_err();
    assert!(error.starts_with("cannot read broken.gz: it ends in the middle"), "{error}");
    let seen = world.seen.lock();
    assert!(seen.records.contains(&"good.log: one".to_owned()));
    assert!(seen.records.iter().filter(|record| *record == "broken.gz: record").count() > 1000);
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let world = World::new();
    world.write("shrunk.log", "one\ntwo\n");
    world.read(r#""shrunk.log""#).unwrap();
    OpenOptions::new().write(true).open(world.path("shrunk.log")).unwrap().set_len(4).unwrap();
    let error = world.read(r#""shrunk.log""#).unwrap_err();
    assert!(error.starts_with("cannot read shrunk.log: it has 4 bytes, but 8 were read of it before"), "{error}");

    world.write("long.log", "short\n".to_owned() + &"x".repeat(100) + "\n");
    let error = world.read(r#""long.log" {:max-record 50}"#).unwrap_err();
    assert_eq!(error, "cannot read long.log: the record at byte 6 is longer than 50 bytes: raise :max-record");

    world.write("grown.gz", gzip(&["one\n"]));
    world.read(r#""grown.gz""#).unwrap();
    let more = [gzip(&["one\n"]), gzip(&["two\n"])].concat();
    OpenOptions::new().write(true).open(world.path("grown.gz")).unwrap().write_all(&more).unwrap();
    let error = world.read(r#""grown.gz""#).unwrap_err();
    assert!(error.contains("it has changed since it was read to its end"), "{error}");

    assert!(world.read(r#""missing.log""#).unwrap_err().contains("there is no file missing.log"));
    assert_eq!(world.read(r#""missing*.log""#).unwrap(), [""; 0]);
}

#[test]
fn two_names_of_one_file_are_one_split() {
    let world = World::new();
    world.write("a.log", "one\n");
    fs::hard_link(world.path("a.log"), world.path("b.log")).unwrap();
    assert_eq!(world.read(r#"["a.log" "b.log" "*.log"]"#).unwrap(), ["a.log: one"]);
}

#[test]
fn thousands_of_files_are_all_read() {
    let world = World::new();
    for number in 0..1000 {
        world.write(&format!("in/{number}.log"), format!("record {number}\n"));
    }
    assert_eq!(world.read(r#""in/*.log""#).unwrap().len(), 1000);
    assert_eq!(world.read(r#""in/*.log""#).unwrap().len(), 0);
}

#[test]
fn samples_the_first_records() {
    let world = World::new();
    world.write("a.log", "one\ntwo\n");
    world.write("b.log.gz", gzip(&["three\nfour\n"]));
    let source = FilesSource.prepare(&options(r#"["a.log" "b.log.gz"]"#)).unwrap();
    assert_eq!(source.sample(&world.setup(), 3).unwrap(), ["one", "two", "three"]);
    assert_eq!(source.sample(&world.setup(), 10).unwrap().len(), 4);
    world.write("c.log", "");
    let source = FilesSource.prepare(&options(r#""c.log""#)).unwrap();
    assert!(source.sample(&world.setup(), 3).is_err());
}

#[test]
fn follows_growth_and_new_files() {
    let world = World::new();
    world.write("app.log", "one\ntw");
    let run = world.start_following("*.log", false);
    run.until_read(&["app.log: one"]);
    world.append("app.log", "o\nthree\n");
    run.until_read(&["app.log: one", "app.log: two", "app.log: three"]);
    world.append("new.log", "four");
    world.append("new.log", "\n");
    run.until(|seen| seen.records.contains(&"new.log: four".to_owned()));
    assert_eq!(run.stop().len(), 4);

    world.append("app.log", "five\n");
    let run = world.start_following("*.log", false);
    run.until(|seen| seen.records.len() == 5);
    assert_eq!(run.stop()[4], "app.log: five");
}

#[test]
fn follows_a_file_that_is_renamed_away_to_its_end() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("app.log", false);
    run.until_read(&["app.log: one"]);
    let mut writer = OpenOptions::new().append(true).open(world.path("app.log")).unwrap();
    writer.write_all(b"two\nlast").unwrap();
    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    run.until(|seen| seen.records.contains(&"app.log: last".to_owned()));
    run.until(|seen| seen.released == 1);
    world.write("app.log", "three\n");
    run.until(|seen| seen.records.len() == 4);
    assert_eq!(run.stop(), ["app.log: one", "app.log: two", "app.log: last", "app.log: three"]);
}

#[test]
fn a_file_that_is_renamed_inside_the_glob_is_the_same_file() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("app.log*", false);
    run.until_read(&["app.log: one"]);
    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    world.append("app.log.1", "two\n");
    run.until_read(&["app.log: one", "app.log: two"]);
    run.stop();

    fs::rename(world.path("app.log.1"), world.path("app.log.2")).unwrap();
    world.append("app.log.2", "three\n");
    let run = world.start_following("app.log*", false);
    run.until(|seen| seen.records.len() == 3);
    assert_eq!(run.stop()[2], "app.log.2: three");
}

#[test]
fn reads_a_deleted_file_to_its_end() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("*.log", false);
    run.until_read(&["app.log: one"]);
    let mut writer = OpenOptions::new().append(true).open(world.path("app.log")).unwrap();
    writer.write_all(b"two\nthree").unwrap();
    fs::remove_file(world.path("app.log")).unwrap();
    run.until_read(&["app.log: one", "app.log: two", "app.log: three"]);
    run.until(|seen| seen.released == 1);
    run.stop();
}

#[test]
fn reads_a_truncated_file_from_its_start() {
    for second in ["four\n", "one\n", "four\nfive\nsix\nseven\n", "one\nfive\nsix\n"] {
        let world = World::new();
        world.write("app.log", "one\ntwo\nthree\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() == 3);
        OpenOptions::new().write(true).open(world.path("app.log")).unwrap().set_len(0).unwrap();
        if second.starts_with("one") {
            // Only its size can tell that it was truncated, so it has to be seen while it is short.
            run.until(|seen| seen.released == 1);
        }
        world.append("app.log", second);
        let expected: Vec<String> = "one\ntwo\nthree\n".lines().chain(second.lines()).map(|line| format!("app.log: {line}")).collect();
        run.until(|seen| seen.records.len() >= expected.len());
        assert_eq!(run.stop(), expected);

        world.append("app.log", "last\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() > expected.len());
        assert_eq!(run.stop()[expected.len()..], ["app.log: last"]);
    }
}

#[test]
fn a_file_that_was_truncated_while_nobody_looked_is_read_from_its_start() {
    for second in ["one\n", "four\nfive\nsix\nseven\n"] {
        let world = World::new();
        world.write("app.log", "one\ntwo\nthree\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() == 3);
        run.stop();
        world.write("app.log", second);
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() >= 3 + second.lines().count());
        let expected: Vec<String> = second.lines().map(|line| format!("app.log: {line}")).collect();
        assert_eq!(run.stop()[3..], expected);
    }
}

#[test]
fn latest_skips_what_is_there_at_the_first_start_only() {
    let world = World::new();
    world.write("app.log", "one\ntwo\nthr");
    let run = world.start_following("*.log", true);
    run.until(|seen| seen.begun == 1);
    world.append("app.log", "ee\n");
    world.write("new.log", "four\n");
    run.until(|seen| seen.records.len() == 2);
    let mut read = run.stop();
    read.sort();
    assert_eq!(read, ["app.log: three", "new.log: four"]);

    world.write("later.log", "five\n");
    let run = world.start_following("*.log", true);
    run.until(|seen| seen.records.len() == 3);
    assert_eq!(run.stop()[2], "later.log: five");
}

#[test]
fn a_compressed_file_is_read_when_it_is_complete() {
    let lines: Vec<String> = (0..2000u64).map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_string()).collect();
    let (first, second) = lines.split_at(1000);
    let whole = gzip(&[&(first.join("\n") + "\n"), &(second.join("\n") + "\n")]);
    for half in [100, whole.len() / 2, whole.len() - 5] {
        let world = World::new();
        world.write("app.gz", &whole[..half]);
        let run = world.start_following("*.gz", false);
        if half > 1024 {
            run.until(|seen| !seen.records.is_empty());
        }
        OpenOptions::new().append(true).open(world.path("app.gz")).unwrap().write_all(&whole[half..]).unwrap();
        run.until(|seen| seen.records.len() >= lines.len());
        let expected: Vec<String> = lines.iter().map(|line| format!("app.gz: {line}")).collect();
        assert_eq!(run.stop(), expected);
        let run = world.start_following("*.gz", false);
        run.until(|seen| seen.begun == 2);
        assert_eq!(run.stop(), expected);
    }
}

#[test]
fn more_files_than_may_be_open_are_followed() {
    let world = World::new();
    for number in 0..400 {
        world.write(&format!("{number}.log"), "one\n");
    }
    let run = world.start_following("*.log", false);
    run.until(|seen| seen.records.len() == 400);
    for number in 0..400 {
        world.append(&format!("{number}.log"), "two\n");
    }
    run.until(|seen| seen.records.len() == 800);
    assert_eq!(run.stop().iter().filter(|record| record.ends_with(": two")).count(), 400);
}

#[test]
fn stops_while_memory_is_full() {
    let world = World::new();
    world.write("app.log", "one\n");
    let stop = Stop::new();
    let budget = Budget::new(10);
    let _full = budget.charge(10);
    let (handle, events) = SourceHandle::new(budget, stop.clone(), Arc::default());
    let source = FilesSource.prepare(&options(r#""app.log""#)).unwrap();
    let setup = world.setup();
    let begun = Arc::new(AtomicBool::new(false));
    let engine = {
        let begun = begun.clone();
        std::thread::spawn(move || {
            for event in events {
                match event {
                    SourceEvent::Take(splits, reply) => reply.send(vec![None; splits.len()]).unwrap(),
                    SourceEvent::Begin(_, reply) => {
                        begun.store(true, Ordering::Relaxed);
                        reply.send(()).unwrap();
                    }
                    _ => panic!("nothing may be read"),
                }
            }
        })
    };
    let source = std::thread::spawn(move || source.run(&setup, handle));
    while !begun.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    stop.stop_reading();
    source.join().unwrap().unwrap();
    engine.join().unwrap();
}
