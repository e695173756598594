//! Tests of one-shot mode: files that are read as they are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn the_example_of_the_declaration_is_valid() {
    for text in [
        r#"{:path "logs/*.json.gz" :format "json"}"#,
        r#""a.log""#,
        r#""a.log" {:follow true}"#,
    ] {
        FilesSource.prepare(&options(text)).unwrap();
    }
    for (text, expected) in [
        (r#""a[""#, "`a[` is not a glob"),
        (r#""""#, "`:path` names no file"),
        (r#""a" {:max-record 0}"#, "`:max-record` is out of range"),
    ] {
        let Err(errors) = FilesSource.prepare(&options(text)) else {
            panic!("{text} is accepted")
        };
        assert_eq!(errors[0].message, expected);
    }
}

#[test]
fn the_default_format_depends_on_the_names() {
    for (text, expected) in [
        (r#""a.json""#, "json"),
        (
            r#"["a.json.gz" "b/*.ndjson" "c.jsonl.zst" "d.json.xz"]"#,
            "json",
        ),
        (r#"["a.json" "b.log"]"#, "txt"),
        (r#""a.json" {:format "txt:sep=pipe"}"#, "txt:sep=pipe"),
    ] {
        assert_eq!(
            FilesSource.prepare(&options(text)).unwrap().facts().format,
            expected.into(),
            "{text}"
        );
    }
}

#[test]
fn reads_plain_and_compressed_files_once_and_only_new_content_later() {
    let world = World::new();
    world.write("in/a.log", "one\r\n\ntwo\nthree");
    world.write("in/b.log.gz", gzip(&["four\nfi", "ve\n", "six"]));
    world.write("in/c.log.zst", zstd(&["seven\n", "eight\n"]));
    world.write("in/d.log", gzip(&["nine\n"]));
    world.write("in/empty.log", "");
    world.settle("in/a.log");
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
    assert_eq!(
        world.seen.lock().begun,
        begun,
        "a finished file is taken and not started"
    );

    world.append("in/a.log", "\nten\n");
    world.write("in/e.log", "eleven\n");
    assert_eq!(
        world.read(r#""in/*""#).unwrap(),
        ["in/a.log: ten", "in/e.log: eleven"]
    );
}

#[test]
fn resumes_at_every_record_with_exactly_the_rest() {
    let lines: Vec<String> = (0..40)
        .map(|number| format!("{}{number}", "x".repeat(number % 7)))
        .collect();
    let text = lines.join("\n") + "\n";
    let (first, second) = text.split_at(text.len() / 3);
    for (name, content) in [
        ("a.log", text.clone().into_bytes()),
        ("a.log.gz", gzip(&[first, second])),
        ("a.log.zst", zstd(&[first, second])),
        ("a.log.xz", xz(&[first, second])),
        ("a.log.lz4", lz4(&[first, "", second])),
    ] {
        let world = World::new();
        world.write(name, content);
        world.read(&format!("{name:?}")).unwrap();
        let split = world.seen.lock().stored.keys().next().unwrap().clone();
        let mut position = 0;
        for (done, line) in lines.iter().enumerate() {
            world.seen.lock().stored.insert(
                split.clone(),
                Resumption {
                    position,
                    resume: None,
                    is_finished: false,
                },
            );
            world
                .read(&format!("{name:?}"))
                .unwrap_or_else(|error| panic!("{name} at {position}: {error}"));
            let expected: Vec<String> = lines[done..]
                .iter()
                .map(|line| format!("{name}: {line}"))
                .collect();
            let mut read = world.seen.lock().records.clone();
            read.retain(|record| !record.is_empty());
            assert_eq!(read, expected, "{name} from {position} on");
            position += line.len() as u64 + 1;
        }
    }
}

#[test]
fn a_cut_or_damaged_file_is_an_error_in_each_compression() {
    let content = "a record that repeats\n".repeat(20);
    for pack in [gzip, zstd, xz, lz4] {
        let (one, two) = (pack(&[&content]), pack(&[&content, &content]));
        let outcome = |bytes: &[u8]| {
            let world = World::new();
            world.write("in", bytes);
            world.read("\"in\"")
        };
        assert_eq!(outcome(&two).unwrap().len(), 40);
        // The first bytes tell how the file is compressed.
        for cut in (8..two.len()).filter(|cut| *cut != one.len()) {
            let outcome = outcome(&two[..cut]);
            let is_known = |error: &String| error.contains("it is truncated");
            assert!(
                outcome.as_ref().is_err_and(is_known),
                "{cut} bytes of {two:x?}: {outcome:?}"
            );
        }
        let error = outcome(&[one.as_slice(), b"garbage that follows"].concat());
        assert!(error.is_err(), "{error:?}");
    }
}

#[test]
fn zeros_behind_a_compressed_file_are_padding_and_other_bytes_an_error() {
    let content = "a record that repeats\n".repeat(20);
    for (name, pack) in [
        ("a.gz", gzip as fn(&[&str]) -> Vec<u8>),
        ("a.zst", zstd),
        ("a.lz4", lz4),
    ] {
        let read = |more: &[u8]| {
            let world = World::new();
            world.write(name, [pack(&[&content, &content]), more.to_vec()].concat());
            world.read(&format!("{name:?}"))
        };
        for zeros in [1, 512, 300_000] {
            assert_eq!(read(&vec![0; zeros]).unwrap().len(), 40, "{name} {zeros}");
        }
        let error = read(&[vec![0; 700], b"more".to_vec()].concat()).unwrap_err();
        assert!(
            error.contains("other bytes follow the zeros"),
            "{name}: {error}"
        );
        assert!(read(b"garbage").is_err(), "{name}");
    }
}

#[test]
fn skippable_frames_have_no_records() {
    let skippable = |len: u32| {
        let content = vec![b'x'; len as usize];
        [&[0x53, 0x2a, 0x4d, 0x18][..], &len.to_le_bytes(), &content].concat()
    };
    for (name, pack) in [("a.lz4", lz4 as fn(&[&str]) -> Vec<u8>), ("a.zst", zstd)] {
        let world = World::new();
        let (one, two) = (pack(&["one\n"]), pack(&["two\n"]));
        let parts = [one, skippable(0), skippable(200_000), two, skippable(9)];
        world.write(name, parts.concat());
        let read = world.read(&format!("{name:?}")).unwrap();
        assert_eq!(read, [format!("{name}: one"), format!("{name}: two")]);
        world.write(name, [parts.concat(), skippable(9)[..12].to_vec()].concat());
    }
}

#[test]
fn a_file_that_cannot_be_read_does_not_stop_the_others() {
    let world = World::new();
    let whole = gzip(&[&"record\n".repeat(50_000)]);
    world.write("broken.gz", &whole[..whole.len() - 20]);
    world.write("good.log", "one\n");
    let error = world.read(r#"["*.gz" "*.log"]"#).unwrap_err();
    assert!(
        error.starts_with("cannot read broken.gz: it is truncated"),
        "{error}"
    );
    let seen = world.seen.lock();
    assert!(seen.records.contains(&"good.log: one".to_owned()));
    assert!(
        seen.records
            .iter()
            .filter(|record| *record == "broken.gz: record")
            .count()
            > 1000
    );
}

#[test]
fn errors_describe_what_is_wrong_with_a_file() {
    let world = World::new();
    world.write("long.log", "short\n".to_owned() + &"x".repeat(100) + "\n");
    let error = world.read(r#""long.log" {:max-record "50B"}"#).unwrap_err();
    assert_eq!(
        error,
        "cannot read long.log: the record at byte 6 is longer than 50 bytes: raise :max-record, \
             or skip it with :on-long-record :skip"
    );

    assert!(
        world
            .read(r#""missing.log""#)
            .unwrap_err()
            .contains("file not found: missing.log")
    );
    world.write("folder/one.log", "one\n");
    let error = world.read(r#""folder/""#).unwrap_err();
    assert!(
        error.contains("folder/ is a directory: for its files, write `folder/*`"),
        "{error}"
    );
    assert_eq!(world.read(r#""missing*.log""#).unwrap(), [""; 0]);

    world.write("found.log", "one\n");
    let error = world
        .read(r#"["missing.log" "found.log" "gone.log"]"#)
        .unwrap_err();
    assert_eq!(
        error,
        "file not found: gone.log (and 1 more cannot be read)"
    );
    assert!(
        world
            .seen
            .lock()
            .records
            .contains(&"found.log: one".to_owned())
    );
    let error = world.read(r#"["missing.log" "none*.log"]"#).unwrap_err();
    assert_eq!(error, "file not found: missing.log");
}

#[test]
fn a_rewritten_file_is_read_from_its_start() {
    for second in ["id,v\n3,c\n4,d\n", "id,v\n3,cccccc\n4,dddd\n5,e\n"] {
        let world = World::new();
        world.write("export.csv", "id,v\n1,a\n2,b\n");
        assert_eq!(world.read(r#""export.csv""#).unwrap().len(), 3);
        // The inode, the first line, and in one case the size stay.
        world.write("export.csv", second);
        let mut expected: Vec<String> = second
            .lines()
            .map(|line| format!("export.csv: {line}"))
            .collect();
        expected.sort();
        assert_eq!(world.read(r#""export.csv""#).unwrap(), expected);
        assert_eq!(world.read(r#""export.csv""#).unwrap(), [""; 0]);
        world.append("export.csv", "6,f\n");
        assert_eq!(world.read(r#""export.csv""#).unwrap(), ["export.csv: 6,f"]);
    }
}

#[test]
fn files_without_new_content_are_released_and_finished() {
    let world = World::new();
    world.write("a.log", "one\n");
    world.write("b.log.gz", gzip(&["two\n"]));
    for records in [2, 0] {
        assert_eq!(world.read(r#"["*.log" "*.gz"]"#).unwrap().len(), records);
        let seen = world.seen.lock();
        assert!(
            seen.taken.is_empty(),
            "{:?} are taken and not released",
            seen.taken
        );
        let mut known: Vec<_> = seen
            .stored
            .values()
            .map(|known| (known.position, known.is_finished))
            .collect();
        known.sort_unstable();
        assert_eq!(
            known,
            [(4, true), (4, true)],
            "positions are those of the content"
        );
    }
}

#[test]
fn a_compressed_file_finished_by_an_earlier_version_is_not_read_again() {
    let world = World::new();
    world.write("a.gz", gzip(&["one\n"]));
    assert_eq!(world.read(r#""a.gz""#).unwrap().len(), 1);
    let size = fs::metadata(world.path("a.gz")).unwrap().len();
    let old = Resumption {
        position: (1 << 63) + size,
        resume: None,
        is_finished: false,
    };
    *world.seen.lock().stored.values_mut().next().unwrap() = old;
    assert_eq!(world.read(r#""a.gz""#).unwrap(), [""; 0]);
}

#[test]
fn two_names_of_one_file_are_one_split() {
    let world = World::new();
    world.write("a.log", "one\n");
    fs::hard_link(world.path("a.log"), world.path("b.log")).unwrap();
    assert_eq!(
        world.read(r#"["a.log" "b.log" "*.log"]"#).unwrap(),
        ["a.log: one"]
    );
}

#[test]
fn thousands_of_files_are_all_read() {
    let world = World::new();
    for number in 0..1000 {
        world.write(&format!("in/{number}.log"), format!("record {number}\n"));
    }
    assert_eq!(world.read(r#""in/*.log""#).unwrap().len(), 1000);
    assert!(
        world.seen.lock().steps <= 4,
        "{} steps of the state store for 1000 files",
        world.seen.lock().steps
    );
    assert_eq!(world.read(r#""in/*.log""#).unwrap().len(), 0);
}

#[test]
fn samples_the_first_records() {
    let world = World::new();
    world.write("a.log", "one\ntwo\n");
    world.write("b.log.gz", gzip(&["three\nfour\n"]));
    let source = FilesSource
        .prepare(&options(r#"["a.log" "b.log.gz"]"#))
        .unwrap();
    let sampled = |count| {
        let samples = source.sample(&world.setup(), count).unwrap();
        let records = samples.iter().flat_map(Payloads::iter).flatten();
        records
            .map(|record| String::from_utf8(record.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(sampled(3), ["one", "two", "three"]);
    assert_eq!(sampled(10).len(), 4);
    world.write("c.log", "");
    let source = FilesSource.prepare(&options(r#""c.log""#)).unwrap();
    assert!(source.sample(&world.setup(), 3).is_err());

    // A file that cannot be read is reported by the run.
    world.write("0.log.gz", &gzip(&["zero\n"])[..20]);
    for (on_broken, is_sampled) in [("report", true), ("skip", true), ("stop", false)] {
        let text = format!(r#"["0.log.gz" "a.log"] {{:on-broken-file :{on_broken}}}"#);
        let source = FilesSource.prepare(&options(&text)).unwrap();
        let samples = source.sample(&world.setup(), 3);
        assert_eq!(samples.is_ok(), is_sampled, "{on_broken}");
    }
}

#[test]
fn stops_while_memory_is_full() {
    let world = World::new();
    world.write("app.log", "one\n");
    let stop = Stop::new();
    let budget = Budget::new(10);
    let _full = budget.charge(10);
    let (handle, events) =
        SourceHandle::new(budget, stop.clone(), Pause::default(), Arc::default());
    let source = FilesSource.prepare(&options(r#""app.log""#)).unwrap();
    let setup = world.setup();
    let begun = Arc::new(AtomicBool::new(false));
    let engine = {
        let begun = begun.clone();
        std::thread::spawn(move || {
            for event in events {
                match event {
                    SourceEvent::ShareSplits(found, reply) => reply
                        .send(SplitShare {
                            granted: found,
                            excess: 0,
                        })
                        .unwrap(),
                    SourceEvent::State(StateRequest::KnownSplits(_, reply)) => {
                        reply.send(Vec::new()).unwrap()
                    }
                    SourceEvent::ForgetFinished(_) | SourceEvent::State(_) => {}
                    SourceEvent::Take(splits, reply) => {
                        reply.send(vec![None; splits.len()]).unwrap()
                    }
                    SourceEvent::Begin(_, reply) => {
                        begun.store(true, Ordering::Relaxed);
                        reply.send(()).unwrap();
                    }
                    _ => panic!("nothing may be read"),
                }
            }
        })
    };
    let source = std::thread::spawn(move || SourceExit::outcome(source.run(&setup, handle)));
    while !begun.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    stop.stop_reading();
    source.join().unwrap().unwrap();
    engine.join().unwrap();
}

#[test]
fn instances_read_each_file_once_and_exit_when_all_are_read() {
    let world = World::new();
    for number in 0..600 {
        world.write(&format!("in/{number}.log"), format!("record {number}\n"));
    }
    let runs: Vec<Run> = (0..3).map(|_| world.start(r#""in/*.log""#)).collect();
    runs.into_iter().for_each(|run| run.join().unwrap());
    let mut records = std::mem::take(&mut world.seen.lock().records);
    let all = records.len();
    records.sort();
    records.dedup();
    assert_eq!((records.len(), all), (600, 600));
    assert_eq!(world.read(r#""in/*.log""#).unwrap().len(), 0);
}

/// The path of a job names another file when the job is begun.
#[test]
fn files_that_are_rotated_after_they_were_found_are_read_once() {
    for (first, second) in [("1\n", "two\n"), ("longer\n", "x\n")] {
        let world = World::new();
        world.write("app.log", first);
        let (path, rotated) = (world.path("app.log"), world.path("app.log.1"));
        world.seen.lock().at_begin = Some(Box::new(move |_| {
            fs::rename(&path, rotated).unwrap();
            fs::write(&path, second).unwrap();
        }));
        let mut read = Vec::new();
        for _ in 0..3 {
            read.extend(world.read(r#""app.log*""#).unwrap());
        }
        read.sort();
        let expected = [format!("app.log.1: {first}"), format!("app.log: {second}")];
        assert_eq!(read, expected.map(|line| line.trim_end().to_owned()));
    }
}

/// The same file, which has another first line.
#[test]
fn a_file_that_is_rewritten_after_it_was_found_is_read_once() {
    let world = World::new();
    world.write("a.log", "one\n");
    let path = world.path("a.log");
    world.seen.lock().at_begin = Some(Box::new(move |_| fs::write(path, "two\n").unwrap()));
    assert_eq!(world.read(r#""*.log""#).unwrap(), Vec::<String>::new());
    assert_eq!(world.read(r#""*.log""#).unwrap(), ["a.log: two"]);
    assert_eq!(world.read(r#""*.log""#).unwrap(), Vec::<String>::new());
}
