//! Tests of the follow-up of a published file: moving it, and calling the hook.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// A program that records the JSON object and the path that it receives, and fails while the file
/// `<name>.fail` exists.
fn program(world: &World, name: &str) -> String {
    let path = world.path(name);
    let script = format!(
        "echo \"$PSEIDON_PATH $1 $(cat)\" >> {0}.calls\n\
         if [ -e {0}.fail ]; then echo no luck >&2; exit 3; fi\n",
        path.display()
    );
    fs::write(&path, script).unwrap();
    // A file that was just written cannot be executed while another test starts a process, which
    // has it open for a moment.
    let shell = world.path("shell");
    if !shell.exists() {
        symlink("/bin/sh", shell).unwrap();
    }
    format!(r#":on-close {{:command ["./shell" "./{name}" "arg"]}}"#)
}

fn calls(world: &World, name: &str) -> Vec<String> {
    fs::read_to_string(world.path(&format!("{name}.calls")))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Waits until the condition holds.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn staged(world: &World) -> usize {
    world.store.staged(&"lake".into()).unwrap().len()
}

/// A folder on another disk than the test's own.
fn other_disk(world: &World) -> TempDir {
    let other =
        tempfile::tempdir_in("/dev/shm").expect("the test needs a second file system at /dev/shm");
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(
        device(other.path()),
        device(world.dir.path()),
        "the test needs a folder for temporary files that is not in /dev/shm"
    );
    other
}

#[test]
fn the_first_record_determines_the_destination() {
    let world = World::new();
    let text = concat!(
        r#"{:path "out/{@partition}" :rollover {:records 2} "#,
        r#":move-to {:path "lake/k={k}/x" :prefix "host-"}}"#
    );
    let mut run = world.start(text);
    run.deliver(0, 3).unwrap();
    run.finish();
    assert_eq!(world.names("out"), [""; 0]);
    assert_eq!(
        world.names("lake"),
        [
            "k=b0/x/host-clicks-0-000000000000.json",
            "k=b2/x/host-clicks-0-000000000002.json"
        ]
    );
    assert_eq!(staged(&world), 0);
}

#[test]
fn the_first_record_determines_the_destination_with_a_projection() {
    let world = World::new();
    let mut run = world.start(concat!(
        r#"{:path "out" :codec :txt :write "k" :rollover {:records 2} "#,
        r#":move-to {:path "lake/{@offset}/{k}"}}"#
    ));
    run.deliver(0, 4).unwrap();
    run.finish();
    let files: Vec<(String, String)> = world.files("lake").into_iter().collect();
    let expected = [
        ("0/b0/clicks-0-000000000000.txt", "b0\nb1\n"),
        ("2/b2/clicks-0-000000000002.txt", "b2\nb3\n"),
    ];
    assert_eq!(
        files,
        expected.map(|(name, content)| (name.to_owned(), content.to_owned()))
    );
}

#[test]
fn a_file_is_moved_onto_another_disk_completely() {
    let world = World::new();
    let other = other_disk(&world);
    let text = format!(
        r#"{{:path "out" :move-to {{:path "{}/lake"}}}}"#,
        other.path().display()
    );
    let mut run = world.start(&text);
    run.deliver(0, 3).unwrap();
    run.finish();
    assert_eq!(world.names("out"), [""; 0]);
    let mut found = BTreeMap::new();
    collect(&other.path().join("lake"), "", &mut found);
    let content = "{\"p\":0,\"n\":0}\n{\"p\":0,\"n\":1}\n{\"p\":0,\"n\":2}\n".to_owned();
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("clicks-0-000000000000.json".to_owned(), content)]
    );
    assert_eq!(staged(&world), 0);
}

#[test]
fn a_name_that_is_taken_at_the_destination_is_not_replaced() {
    let world = World::new();
    fs::create_dir(world.path("lake")).unwrap();
    fs::write(world.path("lake/clicks-0-000000000000.json"), "other").unwrap();
    let mut run = world.start(&format!(
        r#"{{:path "out" :move-to {{:path "lake"}} {}}}"#,
        program(&world, "hook")
    ));
    run.deliver(0, 1).unwrap();
    run.finish();
    let names = world.names("lake");
    assert!(
        names[1].starts_with("clicks-0-000000000000~") && names.len() == 2,
        "{names:?}"
    );
    assert_eq!(world.files("lake")["clicks-0-000000000000.json"], "other");
    assert!(
        calls(&world, "hook")[0].starts_with(world.path("lake").join(&names[1]).to_str().unwrap())
    );
}

#[test]
fn files_that_a_dead_run_published_are_moved_by_the_next_run() {
    for other_disk in [None, Some(other_disk(&World::new()))] {
        let world = World::new();
        let lake = other_disk
            .as_ref()
            .map_or_else(|| world.path("lake"), |other| other.path().join("lake"));
        // A name that is taken: only its inode identifies the file afterwards.
        fs::create_dir(world.path("out")).unwrap();
        fs::write(world.path("out/clicks-0-000000000000.json"), "other").unwrap();
        fs::write(&lake, "in the way").unwrap();
        let text = format!(
            r#"{{:path "out" :move-to {{:path "{}"}} {}}}"#,
            lake.display(),
            program(&world, "hook")
        );
        let mut run = world.start(&text);
        run.deliver(0, 3).unwrap();
        run.writer.flush(None).unwrap();
        assert!(
            world
                .names("out")
                .contains(&"clicks-0-000000000000~1.json".to_owned())
        );
        drop(run);
        assert_eq!(staged(&world), 1);

        fs::remove_file(&lake).unwrap();
        let run = world.start(&text);
        assert_eq!(run.splits[0].1, 3, "the records count as delivered");
        run.finish();
        assert_eq!(world.names("out"), ["clicks-0-000000000000.json"]);
        assert_eq!(
            fs::read_to_string(lake.join("clicks-0-000000000000.json"))
                .unwrap()
                .lines()
                .count(),
            3
        );
        assert_eq!(calls(&world, "hook").len(), 1);
        assert_eq!(staged(&world), 0);
    }
}

#[test]
fn files_that_a_dead_run_only_committed_are_published_and_moved() {
    let world = World::new();
    let text = format!(
        r#"{{:path "out" :move-to {{:path "lake"}} {}}}"#,
        program(&world, "hook")
    );
    let mut run = world.start(&text);
    run.deliver(0, 3).unwrap();
    *world.store.commit_fault.lock() = CommitFault::AnswerLost;
    run.writer.flush(None).unwrap_err();
    drop(run);
    assert_eq!((staged(&world), world.names("lake").len()), (1, 0));
    world.start(&text).finish();
    assert_eq!(world.names("lake"), ["clicks-0-000000000000.json"]);
    assert_eq!((staged(&world), calls(&world, "hook").len()), (0, 1));
}

#[test]
fn an_entry_stays_until_everything_is_done() {
    let world = World::new();
    let text = format!(r#"{{:path "out" {}}}"#, program(&world, "hook"));
    fs::write(world.path("hook.fail"), "").unwrap();
    let mut run = world.start(&text);
    run.deliver(0, 3).unwrap();
    run.writer.flush(None).unwrap();
    until(|| calls(&world, "hook").len() == 1);
    run.committer.commit_idle().unwrap();
    assert_eq!(staged(&world), 1);
    drop(run);

    let run = world.start(&text);
    run.committer.commit_idle().unwrap();
    assert_eq!(staged(&world), 1, "a take-over does not finish the report");
    until(|| calls(&world, "hook").len() == 2);
    fs::remove_file(world.path("hook.fail")).unwrap();
    until(|| calls(&world, "hook").len() == 3);
    until(|| {
        run.committer.commit_idle().unwrap();
        staged(&world) == 0
    });
    run.finish();
    assert_eq!(calls(&world, "hook").len(), 3);
}

#[test]
fn a_program_receives_the_description_of_the_file() {
    let world = World::new();
    let mut run = world.start(&format!(r#"{{:path "out" {}}}"#, program(&world, "hook")));
    run.deliver(0, 3).unwrap();
    run.deliver(1, 2).unwrap();
    run.finish();
    let path = world.path("out/clicks-0-000000000000.json");
    let calls = calls(&world, "hook");
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    let json: serde_json::Value = serde_json::from_str(
        call.strip_prefix(&format!("{} arg ", path.display()))
            .unwrap(),
    )
    .unwrap();
    let expected = serde_json::json!({
        "pipeline": "my pipeline",
        "sink": "lake",
        "path": path,
        "records": 5,
        "bytes": fs::metadata(&path).unwrap().len(),
        "positions": {
            "in:clicks/0": { "first": 0, "upto": 3 },
            "in:clicks/1": { "first": 0, "upto": 2 },
        },
    });
    assert_eq!(json, expected);
}

#[test]
fn a_hook_that_hangs_blocks_no_move_and_is_counted_in_the_metrics() {
    let world = World::new();
    let script = format!(
        "while [ -e {} ]; do sleep 0.01; done",
        world.path("hang").display()
    );
    fs::write(world.path("hang"), "").unwrap();
    let hook = format!(r#":on-close {{:command ["sh" "-c" "{script}"] :timeout "10m"}}"#);
    let mut run = world.start(&format!(
        r#"{{:path "out" :rollover {{:records 1}} :move-to {{:path "lake"}} {hook}}}"#
    ));
    run.deliver(0, 5).unwrap();
    run.writer.flush(None).unwrap();
    until(|| world.names("lake").len() == 5);
    let waiting = run.setup.metrics.waiting_files.with_label_values(&["lake"]);
    assert_eq!(waiting.get(), 5);
    fs::remove_file(world.path("hang")).unwrap();
    until(|| waiting.get() == 0);
    run.finish();
    assert_eq!(staged(&world), 0);
}

#[test]
fn writers_wait_when_too_many_files_wait_for_a_hook() {
    let world = World::new();
    fs::write(world.path("hook.fail"), "").unwrap();
    let text = format!(
        r#"{{:path "out" :rollover {{:records 1}} {}}}"#,
        program(&world, "hook")
    );
    let mut run = world.start(&text);
    let blocked = run.setup.metrics.sink_blocked.with_label_values(&["lake"]);
    let waiting = run.setup.metrics.waiting_files.with_label_values(&["lake"]);
    let stop = run.setup.stop.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until(|| blocked.get() > 0);
            assert!(waiting.get() <= 1100, "{} files wait", waiting.get());
            // A run that has to stop finishes the records that it has read.
            stop.stop_reading();
        });
        run.deliver(0, 1200).unwrap();
    });
    drop(run);
    assert!(staged(&world) >= 1000);
}

#[test]
fn a_program_gets_an_environment_of_its_own() {
    // What cargo has set stands for a password.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    let world = World::new();
    let script = format!("env > {}", world.path("env").display());
    let mut run = world.start(&format!(
        r#"{{:path "out" :on-close {{:command ["sh" "-c" "{script}"] :env {{"TOKEN" "x" "N" 1}}}}}}"#
    ));
    run.deliver(0, 1).unwrap();
    run.finish();
    let seen = fs::read_to_string(world.path("env")).unwrap();
    let value = |name: &str| {
        seen.lines()
            .find_map(|line| line.split_once('=').filter(|set| set.0 == name))
    };
    assert_eq!(value("TOKEN"), Some(("TOKEN", "x")));
    assert_eq!(value("N"), Some(("N", "1")));
    assert!(
        value("PSEIDON_PATH").is_some() && value("PATH").is_some(),
        "{seen}"
    );
    assert_eq!(value("CARGO_PKG_NAME"), None, "{seen}");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_child_processes() {
    let world = World::new();
    let script = format!(
        "sleep 1000 & echo $! >> {}; wait",
        world.path("pids").display()
    );
    let mut run = world.start(&format!(
        r#"{{:path "out" :on-close {{:command ["sh" "-c" "{script}"] :timeout "300ms"}}}}"#
    ));
    run.deliver(0, 1).unwrap();
    run.writer.flush(None).unwrap();
    let pids = || fs::read_to_string(world.path("pids")).unwrap_or_default();
    until(|| pids().lines().count() >= 2);
    drop(run);
    let is_gone = |pid: &str| match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A process that is not waited for stays in the process list as a zombie.
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    until(|| pids().lines().all(is_gone));
    assert_eq!(staged(&world), 1);
}

#[test]
fn a_post_is_repeated_until_it_succeeds() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/files", server.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        let answer = |status: &str| {
            let (mut stream, _) = server.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let from = head.len();
                reader.read_line(&mut head).unwrap();
                if let Some(value) = head[from..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            (head, String::from_utf8(body).unwrap())
        };
        [answer("503 Not Yet"), answer("204 Thanks")]
    });
    let world = World::new();
    let mut run = world.start(&format!(r#"{{:path "out" :on-close {{:post "{url}"}}}}"#));
    run.deliver(0, 1).unwrap();
    run.writer.flush(None).unwrap();
    let [first, second] = answers.join().unwrap();
    assert!(
        first.0.starts_with("POST /files HTTP/1.1\r\n")
            && first
                .0
                .to_lowercase()
                .contains("content-type: application/json"),
        "{first:?}"
    );
    assert!(
        first.1.contains("\"records\":1") && first.1.contains("clicks-0-000000000000.json"),
        "{first:?}"
    );
    assert_eq!(first.1, second.1);
    run.finish();
    assert_eq!(staged(&world), 0);
}

#[test]
fn a_broken_parquet_file_is_quarantined() {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    let input = SinkInput {
        record: RecordShape::Columns(schema),
        ..input()
    };
    for (quarantine, folder) in [
        ("", "out/quarantine"),
        (r#":quarantine "broken""#, "broken"),
    ] {
        let world = World::new();
        fs::write(world.path("lake"), "in the way").unwrap();
        let hook = program(&world, "hook");
        let move_to = format!(r#":move-to {{:path "lake" {quarantine}}}"#);
        let text = format!(r#"{{:path "out/{{@partition}}" :codec :parquet {move_to} {hook}}}"#);
        let mut run = world.try_start("lake", &text, input.clone()).unwrap();
        for partition in [0, 1] {
            let all = rows(&run.splits[partition].0.clone(), 0, 3, bucket);
            let record = all.columns().clone();
            run.deliver_rows(all.with_record(record)).unwrap();
        }
        run.writer.flush(None).unwrap();
        drop(run);
        let broken = world.path("out/1/clicks-1-000000000000.parquet");
        let length = fs::metadata(&broken).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&broken)
            .unwrap()
            .set_len(length - 10)
            .unwrap();
        fs::remove_file(world.path("lake")).unwrap();

        let run = world.try_start("lake", &text, input.clone()).unwrap();
        let metrics = run.setup.metrics.clone();
        run.finish();
        assert_eq!(world.names("lake"), ["clicks-0-000000000000.parquet"]);
        let names = world.names(folder);
        assert!(
            names.len() == 1 && names[0].starts_with("1/clicks-1-000000000000~"),
            "{names:?}"
        );
        assert_eq!(
            metrics
                .bad_records
                .with_label_values(&["lake", "in_broken_file"])
                .get(),
            3
        );
        assert_eq!(
            calls(&world, "hook").len(),
            1,
            "the hook is not called for the broken file"
        );
        assert_eq!(staged(&world), 0);
    }
}

#[test]
fn follow_ups_of_a_live_run_are_left_to_it() {
    let world = World::new();
    let one = program(&world, "one");
    fs::write(world.path("one.fail"), "").unwrap();
    let mut first = world.start(&format!(r#"{{:path "out" {one}}}"#));
    first.deliver(0, 1).unwrap();
    first.writer.flush(None).unwrap();
    until(|| !calls(&world, "one").is_empty());
    let second = world.start(&format!(r#"{{:path "out" {}}}"#, program(&world, "two")));
    drop(second);
    assert_eq!(calls(&world, "two"), [""; 0]);
    drop(first);
    let third = world.start(&format!(r#"{{:path "out" {}}}"#, program(&world, "three")));
    third.finish();
    assert_eq!((calls(&world, "three").len(), staged(&world)), (1, 0));
}

#[test]
fn without_its_option_a_hook_is_not_called() {
    let world = World::new();
    let text = format!(r#"{{:path "out" {}}}"#, program(&world, "hook"));
    fs::write(world.path("hook.fail"), "").unwrap();
    let mut run = world.start(&text);
    run.deliver(0, 1).unwrap();
    run.writer.flush(None).unwrap();
    drop(run);
    world.start(r#"{:path "out"}"#).finish();
    assert_eq!(staged(&world), 0);
}
