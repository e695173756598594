//! Tests of `:on-broken-file`: files that cannot be read further.

use super::*;

/// A file that cannot be read further, and the same file without damage.
struct BrokenFile {
    kind: &'static str,
    broken: Vec<u8>,
    repaired: Vec<u8>,
    /// The records of the repaired file.
    records: Vec<String>,
}

fn numbered(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("record {number}"))
        .collect()
}

fn bzip2(parts: &[&str]) -> Vec<u8> {
    let pack = |part: &&str| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(part.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    parts.iter().flat_map(pack).collect()
}

/// Not compressed, so that the first bytes do not depend on the content.
fn stored(content: &str) -> Vec<u8> {
    let level = flate2::Compression::none();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Files with each kind of damage. Their names end with `.snappy` if that is their compression.
fn broken_files() -> Vec<BrokenFile> {
    let records = numbered(3000);
    let content = records.join("\n") + "\n";
    let (first, second) = content.split_at(content.len() / 2);
    type Pack = fn(&[&str]) -> Vec<u8>;
    let packs: [(&str, Pack); 5] = [
        ("gzip", gzip),
        ("zstd", zstd),
        ("xz", xz),
        ("lz4", lz4),
        ("bzip2", bzip2),
    ];
    let mut files = Vec::new();
    for (kind, pack) in packs {
        let whole = pack(&[first, second]);
        files.push(BrokenFile {
            kind,
            broken: whole[..whole.len() - 10].to_vec(),
            repaired: whole.clone(),
            records: records.clone(),
        });
        files.push(BrokenFile {
            kind,
            broken: [whole.as_slice(), b"garbage that follows"].concat(),
            repaired: whole,
            records: records.clone(),
        });
    }
    for (kind, pack) in [
        ("plain", (|parts| parts.concat().into_bytes()) as Pack),
        packs[0],
    ] {
        let long = "x".repeat(100);
        files.push(BrokenFile {
            kind,
            broken: pack(&["one\n", "two\n", &long, "\nfour\n"]),
            repaired: pack(&["one\n", "two\n", "three", "\nfour\n"]),
            records: ["one", "two", "three", "four"].map(str::to_owned).into(),
        });
    }
    files
}

const OPTIONS: &str = r#"{:max-record "50B" :on-broken-file"#;

/// The records without the quarantined ones, and the latter.
fn parted(read: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (quarantined, records) = read
        .into_iter()
        .partition(|record| record.contains(": quarantined: "));
    (records, quarantined)
}

#[test]
fn a_file_is_left_behind_and_continued_when_it_is_repaired() {
    for (number, file) in broken_files().into_iter().enumerate() {
        for (option, objects) in [("skip", 0), ("quarantine", 1)] {
            let (name, what) = ("in/b", format!("{number} {} {option}", file.kind));
            let text = format!(r#""in/*" {OPTIONS} :{option}}}"#);
            let world = World::new();
            world.write("in/a", "good\n");
            world.write(name, &file.broken);
            let (before, quarantined) = parted(world.read(&text).expect(&what));
            assert!(before.len() < file.records.len() + 2, "{what}");
            assert_eq!(quarantined.len(), objects, "{what}: {quarantined:?}");
            assert!(
                quarantined.iter().all(|it| it.contains("cannot read in/b")),
                "{what}: {quarantined:?}"
            );

            // It is neither delivered nor quarantined again.
            assert_eq!(world.read(&text).expect(&what), [""; 0], "{what}");
            world.write(name, &file.repaired);
            let mut all = world.read(&text).expect(&what);
            all.extend(before);
            all.sort();
            let mut expected: Vec<String> = file
                .records
                .iter()
                .map(|it| format!("in/b: {it}"))
                .collect();
            expected.push("in/a: good".to_owned());
            expected.sort();
            assert!(all == expected, "{what}: {} records", all.len());
            assert_eq!(world.read(&text).expect(&what), [""; 0], "{what}");
        }
    }
}

#[test]
fn the_run_names_the_files_and_fails_unless_they_are_left_behind() {
    let whole = gzip(&["one\n", "two\n"]);
    for (option, is_error) in [
        ("report", true),
        ("stop", true),
        ("skip", false),
        ("quarantine", false),
    ] {
        let world = World::new();
        world.write("in/a.gz", &whole[..whole.len() - 5]);
        world.write("in/b.gz", [whole.as_slice(), b"garbage"].concat());
        let setup = world.setup();
        let metrics = setup.metrics.clone();
        let text = format!(r#""in/*" {{:on-broken-file :{option}}}"#);
        let source = FilesSource.prepare(&options(&text)).unwrap();
        let outcome = world.start_with(source, setup).join();
        assert_eq!(outcome.is_err(), is_error, "{option}: {outcome:?}");
        let names: Vec<String> = metrics.broken_file_names().into_iter().collect();
        match option {
            "stop" => assert!(!names.is_empty()),
            _ => assert_eq!(names, ["in/a.gz", "in/b.gz"], "{option}"),
        }
        assert!(world.seen.lock().taken.is_empty(), "{option}");
    }
}

#[test]
fn a_run_that_stops_commits_what_it_has_read_and_reads_no_other_file() {
    let world = World::new();
    let records = numbered(50_000);
    let content = records.join("\n") + "\n";
    let whole = gzip(&[&content]);
    world.write("in/a.gz", &whole[..whole.len() - 20]);
    for number in 0..1000 {
        world.write(&format!("in/b{number}"), "good\n");
    }
    let text = r#""in/a.gz" {:on-broken-file :stop}"#;
    let error = world.read(text).unwrap_err();
    assert!(
        error.starts_with("cannot read in/a.gz: it is truncated"),
        "{error}"
    );
    let delivered = world.seen.lock().records.len();
    assert!(delivered > 1000, "{delivered}");

    // The next run continues there, and stops at the same place.
    let error = world.read(r#""in/*" {:on-broken-file :stop}"#).unwrap_err();
    assert!(
        error.starts_with("cannot read in/a.gz: it is truncated"),
        "{error}"
    );
    world.write("in/a.gz", whole);
    let rest = world.read(r#""in/a.gz" {:on-broken-file :stop}"#).unwrap();
    assert_eq!(rest.len() + delivered, records.len());
}

#[test]
fn a_file_with_other_content_before_the_place_is_read_from_its_start() {
    for follows in [false, true] {
        for option in ["report", "skip"] {
            let world = World::new();
            let (old, new) = (numbered(3000), numbered(3000));
            let old = stored(&(old.join("\n") + "\n"));
            let new: Vec<String> = new
                .iter()
                .map(|it| it.replace("record", "number"))
                .collect();
            world.write("a.gz", &old[..old.len() / 2]);
            let once = format!(r#""a.gz" {{:on-broken-file :{option}}}"#);
            let outcome = world.read(&once);
            assert_eq!(outcome.is_err(), option == "report", "{outcome:?}");
            let before = world.seen.lock().records.len();
            assert!(before > 100);

            world.write("a.gz", stored(&(new.join("\n") + "\n")));
            let expected: Vec<String> = new.iter().map(|it| format!("a.gz: {it}")).collect();
            let read = match follows {
                false => {
                    world.seen.lock().records.clear();
                    world.start(&once).join().unwrap();
                    world.seen.lock().records.clone()
                }
                true => {
                    let run = world.start_following("a.gz", false);
                    run.until(|seen| seen.records.len() >= before + new.len());
                    run.stop().split_off(before)
                }
            };
            assert!(
                read == expected,
                "{option} {follows}: {} records",
                read.len()
            );
        }
    }
}

/// Both instances read the file, and each finds what the other one has quarantined.
#[test]
fn instances_quarantine_a_file_once() {
    let world = World::new();
    let whole = gzip(&["one\n", "two\n"]);
    for number in 0..20 {
        world.write(&format!("in/{number}.gz"), &whole[..whole.len() - 5]);
    }
    // It cannot be identified.
    world.write("in/zip", b"PK\x03\x04");
    let text = r#""in/*" {:on-broken-file :quarantine}"#;
    let runs = [world.start(text), world.start(text)];
    for run in runs {
        run.join().unwrap();
    }
    let (records, quarantined) = parted(world.seen.lock().records.clone());
    // Only the checksum of the second line is cut.
    assert_eq!((records.len(), quarantined.len()), (40, 21));
    for read in [records, quarantined] {
        let distinct: HashSet<&String> = read.iter().collect();
        assert_eq!(distinct.len(), read.len(), "{read:?}");
    }
}

/// A source in follow mode that handles broken files like this, and in which a file that ends early
/// is given up at once.
fn following_broken(on_broken: OnBrokenFile) -> Arc<dyn Source> {
    let mut source = following("*", false);
    source.config.on_broken = on_broken;
    source.config.limits.max_record = 50;
    Arc::new(source)
}

#[test]
fn a_followed_file_is_left_behind_and_continued_when_it_is_repaired() {
    for (number, file) in broken_files().into_iter().enumerate() {
        for (on_broken, objects) in [(OnBrokenFile::Skip, 0), (OnBrokenFile::Quarantine, 1)] {
            let what = format!("{number} {} {on_broken:?}", file.kind);
            let world = World::new();
            world.write("b", &file.broken);
            let setup = world.setup();
            let metrics = setup.metrics.clone();
            let run = world.start_with(following_broken(on_broken), setup);
            while !metrics.broken_file_names().contains("b") {
                std::thread::yield_now();
            }
            assert_eq!(metrics.troubles(true), [""; 0], "{what}");
            run.until(|seen| parted(seen.records.clone()).1.len() == objects);

            let run = match file.kind {
                // Its content would be read while it is changed.
                "plain" => {
                    run.stop();
                    world.write("b", &file.repaired);
                    let setup = SourceSetup {
                        metrics: metrics.clone(),
                        ..world.setup()
                    };
                    world.start_with(following_broken(on_broken), setup)
                }
                // In place, in two steps: it is shorter for a while.
                _ => {
                    let path = world.path("b");
                    let mut writer = OpenOptions::new().write(true).open(path).unwrap();
                    writer.set_len(file.repaired.len() as u64 / 2).unwrap();
                    writer.write_all(&file.repaired).unwrap();
                    writer.set_len(file.repaired.len() as u64).unwrap();
                    run
                }
            };
            run.until(|seen| seen.records.len() >= file.records.len() + objects);
            while !metrics.broken_file_names().is_empty() {
                std::thread::yield_now();
            }
            let (read, quarantined) = parted(run.stop());
            let expected: Vec<String> = file.records.iter().map(|it| format!("b: {it}")).collect();
            assert!(read == expected, "{what}: {} records", read.len());
            assert_eq!(quarantined.len(), objects, "{what}");
        }
    }
}

#[test]
fn a_followed_file_that_is_broken_stops_the_run_if_wanted() {
    for file in broken_files() {
        let world = World::new();
        world.write("b", &file.broken);
        let error = world
            .start_source(following_broken(OnBrokenFile::Stop))
            .join()
            .unwrap_err();
        assert!(matches!(error, SourceError::Fatal(_)), "{error}");
        let (delivered, is_held) = {
            let seen = world.seen.lock();
            (seen.records.len(), seen.released == 0)
        };
        assert!(!is_held, "{}: what was read is committed", file.kind);

        // The next run continues there.
        world.write("b", &file.repaired);
        let run = world.start_source(following_broken(OnBrokenFile::Stop));
        run.until(|seen| seen.records.len() >= file.records.len());
        assert_eq!(run.stop().len(), file.records.len(), "{delivered}");
    }
}

#[test]
fn a_followed_file_that_ends_early_is_reported_when_it_does_not_grow() {
    let world = World::new();
    let whole = gzip(&["one\n", "two\n"]);
    world.write("a.gz", &whole[..whole.len() - 5]);
    let setup = world.setup();
    let metrics = setup.metrics.clone();
    let run = world.start_with(following_broken(OnBrokenFile::Report), setup);
    while metrics.troubles(true).is_empty() {
        std::thread::yield_now();
    }
    world.write("a.gz", &whole);
    run.until(|seen| seen.records.len() == 2);
    while !metrics.troubles(true).is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(run.stop(), ["a.gz: one", "a.gz: two"]);
}

#[test]
fn a_quarantine_of_files_needs_one_of_records() {
    for policy in [":throw", ":noop", "{:retry {:times 1 :then :noop}}"] {
        let text = format!(r#""a" {{:on-broken-file :quarantine :on-error {policy}}}"#);
        let Err(errors) = FilesSource.prepare(&options(&text)) else {
            panic!("{text} is accepted")
        };
        assert_eq!(errors[0].message, "this source has no quarantine");
    }
    let text = r#""a" {:on-broken-file :quarantine :on-error {:retry {:then {:quarantine "q"}}}}"#;
    FilesSource.prepare(&options(text)).unwrap();
}
