//! Tests of failures and crashes.

use proptest::prelude::*;

use super::super::host::Host;
use super::*;

/// Set in the process that limits the size of files.
const FULL: &str = "PSEIDON_TEST_FULL";

#[test]
fn uncommitted_files_are_deleted() {
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
fn the_next_run_recovers_from_a_crash_around_a_commit() {
    for (commit_fault, published) in [(CommitFault::AnswerLost, true), (CommitFault::Gone, false)] {
        let world = World::new();
        let mut run = world.start(EVERY_5);
        run.deliver(0, 12).unwrap();
        *world.store.commit_fault.lock() = commit_fault;
        let error = run.writer.flush(None).unwrap_err();
        assert!(
            matches!(error, SinkError::Committer(CommitterError::Stopped)),
            "{error}"
        );
        drop(run);
        assert!(
            !world.names("out").is_empty(),
            "only the store decides about the files"
        );
        assert!(world.names("out").iter().all(|name| name.starts_with(OPEN)));

        let mut run = world.start(EVERY_5);
        assert_eq!(
            world
                .names("out")
                .iter()
                .any(|name| !name.starts_with(OPEN)),
            published,
            "{commit_fault:?}"
        );
        let missing = 12 - run.splits[0].1;
        assert_eq!(missing, if published { 0 } else { 12 });
        run.deliver(0, missing).unwrap();
        run.finish();
        world.assert_exactly_once("out", [12, 0]);
    }
}

#[test]
fn a_commit_in_flight_is_not_applied_after_its_sender_was_fenced() {
    let world = World::new();
    for _ in 0..2 {
        let mut run = world.start(EVERY_5);
        run.deliver(0, 12).unwrap();
        *world.store.commit_fault.lock() = CommitFault::Delayed;
        let error = run.writer.flush(None).unwrap_err();
        assert!(
            matches!(error, SinkError::Committer(CommitterError::Stopped)),
            "{error}"
        );
    }
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    run.finish();
    world.assert_exactly_once("out", [12, 0]);
}

#[test]
fn only_folders_of_dead_runs_are_cleaned_up() {
    let world = World::new();
    let first = world.start(EVERY_5);
    let folder = fs::read_dir(world.path("out").join(OPEN))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| !path.ends_with("disk"))
        .unwrap();
    let elsewhere = || Some("elsewhere 1234".to_owned());
    let cases = [
        ("dead", Some(Host::this().to_text()), true),
        ("unborn", None, true),
        ("gone", elsewhere(), true),
        ("idle", elsewhere(), false),
    ];
    for (instance, lock, has_file) in cases {
        fs::create_dir(folder.join(instance)).unwrap();
        if has_file {
            fs::write(folder.join(instance).join("1.open"), "not committed").unwrap();
        }
        if let Some(text) = lock {
            fs::write(folder.join(instance).join("lock"), text).unwrap();
        }
    }
    // A run on another machine that owns a split.
    let at_work: InstanceId = "at-work".into();
    world
        .store
        .take(&"lake".into(), &["in:clicks/7".into()], &at_work)
        .unwrap();
    fs::create_dir(folder.join("at-work")).unwrap();
    fs::write(folder.join("at-work/1.open"), "not committed").unwrap();
    fs::write(folder.join("at-work/lock"), "elsewhere 1234").unwrap();
    let second = world.start(EVERY_5);
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["at-work", "host_0", "host_1", "idle"]);
    assert!(folder.join("at-work/1.open").exists());
    drop((first, second));
}

#[test]
fn a_live_run_is_left_alone_and_is_fenced_after_a_take_over() {
    let world = World::new();
    let mut first = world.start(EVERY_5);
    first.deliver(0, 12).unwrap();
    let mut second = world.start(EVERY_5);
    let error = first.writer.flush(None).unwrap_err();
    assert!(
        matches!(error, SinkError::Committer(CommitterError::Fenced(_))),
        "{error}"
    );
    drop(first);
    second.deliver(0, 12).unwrap();
    second.finish();
    let third = world.start(EVERY_5);
    third.finish();
    world.assert_exactly_once("out", [12, 0]);
}

#[test]
fn a_deleted_open_file_restarts_the_run() {
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
fn the_sink_waits_for_a_target_that_is_not_writable() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    // A file in place of a folder stands for every reason why files cannot be created.
    let instance = world.path("out").join(OPEN);
    fs::rename(&instance, world.path("moved")).unwrap();
    fs::write(&instance, "in the way").unwrap();
    fs::write(world.path("out/b0"), "in the way").unwrap();
    let gauge = run.setup.metrics.sink_blocked.with_label_values(&["lake"]);
    let clear_when_blocked = |name: PathBuf| {
        while gauge.get() == 0 {
            std::thread::yield_now();
        }
        fs::remove_file(name).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| clear_when_blocked(instance));
        run.deliver(0, 1).unwrap();
    });
    assert_eq!(gauge.get(), 0);
    // The folder of one bucket holds up no other file: its files are published when it can be made.
    run.writer.flush(None).unwrap();
    assert_eq!(gauge.get(), 0);
    fs::remove_file(world.path("out/b0")).unwrap();
    run.finish();
    world.assert_exactly_once("out", [1, 0]);
}

#[test]
fn commits_do_not_wait_for_files_that_cannot_be_published() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 4).unwrap();
    fs::write(world.path("out/b1"), "in the way").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_there = |name: &str| world.path(&format!("out/{name}")).is_dir();
            while !["b0", "b2", "b3"].into_iter().all(is_there) {
                std::thread::yield_now();
            }
            fs::remove_file(world.path("out/b1")).unwrap();
        });
        run.writer.flush(None).unwrap();
    });
    run.finish();
    world.assert_exactly_once("out", [4, 0]);
}

#[test]
fn a_folder_lost_during_a_run_is_a_transient_error() {
    let world = World::new();
    let run = world.start(EVERY_5);
    let folder = fs::read_dir(world.path("out").join(OPEN))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| !path.ends_with("disk"))
        .unwrap();
    fs::rename(&folder, world.path("moved")).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let taken = TakenSplit {
        split: "in:clicks/0".into(),
        epoch: 2,
        owners: vec!["another".into()],
        low: None,
    };
    let error = run.sink.take_over(&[taken], &[]).unwrap_err();
    assert!(matches!(error, SinkError::Transient(_)), "{error}");
    drop(run);
    let error = world.try_start("lake", EVERY_5, input()).err().unwrap();
    assert!(
        matches!(error, SinkError::Fatal(_)),
        "at the start the user has to fix it: {error}"
    );
}

#[test]
fn a_full_disk_loses_nothing() {
    if std::env::var_os(FULL).is_some() {
        return write_to_a_full_disk();
    }
    // A limit on the size of files acts like a full disk, but on the whole process, so the test
    // uses a process of its own.
    let (_, module) = module_path!().split_once("::").unwrap();
    let script = format!("trap '' XFSZ; exec \"$0\" --exact {module}::a_full_disk_loses_nothing");
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(test)
        .env(FULL, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn a_blocked_writer_stops_when_the_run_is_abandoned() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    fs::rename(world.path("out").join(OPEN), world.path("moved")).unwrap();
    fs::write(world.path("out").join(OPEN), "in the way").unwrap();
    run.setup.stop.leave_now();
    let error = run.deliver(0, 1).unwrap_err();
    assert!(
        matches!(error, SinkError::Committer(CommitterError::Stopped)),
        "{error}"
    );
}

fn write_to_a_full_disk() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    for text in [
        r#"{:path "out" :codec :raw}"#,
        r#"{:path "out" :codec :raw :compression :zstd :rollover {:size "6MB"}}"#,
    ] {
        let world = World::new();
        let mut run = world.start(text);
        let before = getrlimit(Resource::Fsize);
        // More than the state store needs, less than the records.
        let full = rustix::process::Rlimit {
            current: Some(4 << 20),
            ..before
        };
        setrlimit(Resource::Fsize, full).unwrap();
        let gauge = run.setup.metrics.sink_blocked.with_label_values(&["lake"]);
        let split = run.splits[0].0.clone();
        let mut random = 1u64;
        let mut records = Vec::new();
        for _ in 0..6 << 10 {
            let word = |_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
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
                let mut builder = BatchBuilder::new(split.clone(), WantedMetadata::default(), 0);
                (first..).zip(part).for_each(|(position, record)| {
                    builder.push(position, Some(record.as_bytes()), Default::default())
                });
                let batch = builder.finish(first + part.len() as Position);
                let keys: ArrayRef = Arc::new(StringArray::new_null(part.len()));
                run.deliver_rows(Rows::new(
                    Arc::new(batch),
                    RecordBatch::try_from_iter([("k", keys)]).unwrap(),
                ))
                .unwrap();
            }
        });
        assert_eq!(gauge.get(), 0);
        run.finish();
        let mut content = Vec::new();
        for name in world.names("out") {
            let bytes = fs::read(world.path("out").join(&name)).unwrap();
            content.extend(if name.ends_with(".zst") {
                zstd::decode_all(&bytes[..]).unwrap()
            } else {
                bytes
            });
        }
        assert!(
            content == (records.join("\n") + "\n").into_bytes(),
            "{text}"
        );
    }
}

#[derive(Clone, Debug)]
enum Op {
    Deliver(usize, u64),
    Tick,
    Flush(usize),
    /// The run ends abruptly.
    Drop,
    /// The next commit fails, and the run with it.
    Die(CommitFault),
}

fn some_ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0usize..2, 1u64..20).prop_map(|(partition, count)| Op::Deliver(partition, count)),
        2 => Just(Op::Tick),
        1 => (0usize..2).prop_map(Op::Flush),
        1 => Just(Op::Drop),
        1 => prop_oneof![
            Just(CommitFault::AnswerLost),
            Just(CommitFault::Gone),
            Just(CommitFault::Delayed),
        ]
        .prop_map(Op::Die),
    ];
    prop::collection::vec(op, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_written_once_after_any_failures(
        ops in some_ops(),
        records in 1u64..12,
        most_open in 1u64..6,
        lanes in 1u32..3,
        moved in any::<bool>(),
    ) {
        let (move_to, folder) = if moved {
            (r#":move-to {:path "lake/{k}" :prefix "x-"}"#, "lake")
        } else {
            ("", "out")
        };
        let rollover = format!(":max-open-files {most_open} :rollover {{:records {records}}}");
        let options = format!(":lanes {lanes} {rollover} {move_to}");
        let text = format!(r#"{{:path "out/{{k}}" :null-name "NULL" {options}}}"#);
        let world = World::new();
        let mut run = world.start(&text);
        let mut ends = [0, 0];
        for op in ops {
            let outcome = match op {
                Op::Deliver(partition, count) => run.deliver(partition, count),
                Op::Tick => run.writer.tick(),
                Op::Flush(partition) => {
                    let split = run.splits[partition].0.id.clone();
                    run.writer.flush(Some(&[split]))
                }
                Op::Drop => Err(SinkError::Transient("dropped".into())),
                Op::Die(commit_fault) => {
                    *world.store.commit_fault.lock() = commit_fault;
                    run.deliver(0, 3)
                        .and_then(|()| run.writer.flush(None))
                        .and_then(|()| Err(SinkError::Transient("no commit".into())))
                }
            };
            ends = [0, 1].map(|partition| run.splits[partition].1.max(ends[partition]));
            if outcome.is_err() {
                drop(run);
                *world.store.commit_fault.lock() = CommitFault::Sound;
                run = world.start(&text);
            }
        }
        for (partition, end) in ends.into_iter().enumerate() {
            let missing = end - run.splits[partition].1;
            run.deliver(partition, missing).unwrap();
        }
        run.finish();
        // Files whose follow-up failed, or that were not done in time, are left to the next run.
        for _ in 0..10 {
            if !world.store.staged(&"lake".into()).unwrap().is_empty() {
                world.start(&text).finish();
            }
        }
        world.assert_exactly_once(folder, ends);
        prop_assert!(!moved || world.names("out").is_empty());
        prop_assert!(world.store.staged(&"lake".into()).unwrap().is_empty());
    }
}
