//! Tests of follow mode: files that grow, rotate and are removed.

use super::*;

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
    let mut writer = OpenOptions::new()
        .append(true)
        .open(world.path("app.log"))
        .unwrap();
    writer.write_all(b"two\nlast").unwrap();
    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    run.until(|seen| seen.records.contains(&"app.log: last".to_owned()));
    run.until(|seen| seen.released == 1);
    world.write("app.log", "three\n");
    run.until(|seen| seen.records.len() == 4);
    assert_eq!(
        run.stop(),
        [
            "app.log: one",
            "app.log: two",
            "app.log: last",
            "app.log: three"
        ]
    );
}

#[test]
fn a_file_renamed_within_the_glob_is_the_same_file() {
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
    let mut writer = OpenOptions::new()
        .append(true)
        .open(world.path("app.log"))
        .unwrap();
    writer.write_all(b"two\nthree").unwrap();
    fs::remove_file(world.path("app.log")).unwrap();
    run.until_read(&["app.log: one", "app.log: two", "app.log: three"]);
    run.until(|seen| seen.released == 1);
    run.stop();
}

#[test]
fn reads_a_truncated_file_from_its_start() {
    for second in [
        "four\n",
        "one\n",
        "four\nfive\nsix\nseven\n",
        "one\nfive\nsix\n",
    ] {
        let world = World::new();
        world.write("app.log", "one\ntwo\nthree\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() == 3);
        OpenOptions::new()
            .write(true)
            .open(world.path("app.log"))
            .unwrap()
            .set_len(0)
            .unwrap();
        world.append("app.log", second);
        let expected: Vec<String> = "one\ntwo\nthree\n"
            .lines()
            .chain(second.lines())
            .map(|line| format!("app.log: {line}"))
            .collect();
        run.until(|seen| seen.records.len() >= expected.len());
        assert_eq!(run.stop(), expected);

        world.append("app.log", "last\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() > expected.len());
        assert_eq!(run.stop()[expected.len()..], ["app.log: last"]);
    }
}

/// Like `copytruncate` with a log that begins with a banner: the first line is the same, and the
/// file is as long as before, or longer, at the next check.
#[test]
fn a_file_rewritten_with_the_same_first_line_is_read_from_its_start() {
    let first = "banner\none\ntwo\n";
    for second in [
        "banner\nsix\nten\n",
        "banner\nthree\nfour\nfive\n",
        "banner\n1\n2\n3\n4\n5\n",
    ] {
        for is_running in [true, false] {
            let world = World::new();
            world.write("app.log", first);
            let run = world.start_following("*.log", false);
            run.until(|seen| seen.records.len() == 3);
            // The inode stays. Nothing is appended afterwards.
            let run = if is_running {
                world.write("app.log", second);
                run
            } else {
                run.stop();
                world.write("app.log", second);
                world.start_following("*.log", false)
            };
            let expected: Vec<String> = first
                .lines()
                .chain(second.lines())
                .map(|line| format!("app.log: {line}"))
                .collect();
            run.until(|seen| seen.records.len() >= expected.len());
            world.append("app.log", "last\n");
            run.until(|seen| seen.records.len() > expected.len());
            let records = run.stop();
            assert_eq!(records[..expected.len()], expected);
            assert_eq!(records[expected.len()..], ["app.log: last"]);
        }
    }
}

#[test]
fn a_file_overwritten_with_the_same_size_is_read_from_its_start() {
    let world = World::new();
    let mut expected = Vec::new();
    let run = {
        world.write("app.log", "0\n");
        world.start_following("*.log", false)
    };
    for number in 0..5 {
        world.write("app.log", format!("{number}\n"));
        expected.push(format!("app.log: {number}"));
        run.until(|seen| seen.records.len() >= expected.len());
    }
    assert_eq!(run.stop(), expected);
}

#[test]
fn a_file_truncated_between_runs_is_read_from_its_start() {
    for second in [
        "one\n",
        "four\nfive\nsix\nseven\n",
        "one\nfour\nfive\nsix\n",
    ] {
        let world = World::new();
        world.write("app.log", "one\ntwo\nthree\n");
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() == 3);
        run.stop();
        world.write("app.log", second);
        let run = world.start_following("*.log", false);
        run.until(|seen| seen.records.len() >= 3 + second.lines().count());
        let expected: Vec<String> = second
            .lines()
            .map(|line| format!("app.log: {line}"))
            .collect();
        assert_eq!(run.stop()[3..], expected);
    }
}

/// A file that has nothing new since the last run is held open too.
#[test]
fn what_is_appended_after_a_rename_is_read_after_a_restart() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("*.log", false);
    run.until_read(&["app.log: one"]);
    run.stop();

    let mut source = following("*.log", false);
    source.follow.as_mut().unwrap().drained_after = Duration::from_secs(300);
    let run = world.start_source(Arc::new(source));
    // Idle files are opened in each scan, before new content is read.
    world.write("other.log", "two\n");
    run.until_read(&["app.log: one", "other.log: two"]);
    world.append("other.log", "three\n");
    run.until(|seen| seen.records.len() == 3);
    let mut writer = OpenOptions::new()
        .append(true)
        .open(world.path("app.log"))
        .unwrap();
    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    world.append("other.log", "four\n");
    run.until(|seen| seen.records.len() == 4);
    writer.write_all(b"five\n").unwrap();
    run.until(|seen| seen.records.len() == 5);
    assert_eq!(run.stop()[4], "app.log: five");
}

#[test]
fn a_compressed_file_is_read_when_it_is_complete() {
    let lines: Vec<String> = (0..2000u64)
        .map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_string())
        .collect();
    let (first, second) = lines.split_at(1000);
    let whole = gzip(&[&(first.join("\n") + "\n"), &(second.join("\n") + "\n")]);
    for half in [100, whole.len() / 2, whole.len() - 5] {
        let world = World::new();
        world.write("app.gz", &whole[..half]);
        let run = world.start_following("*.gz", false);
        if half > 1024 {
            run.until(|seen| !seen.records.is_empty());
        }
        OpenOptions::new()
            .append(true)
            .open(world.path("app.gz"))
            .unwrap()
            .write_all(&whole[half..])
            .unwrap();
        run.until(|seen| seen.records.len() >= lines.len());
        let expected: Vec<String> = lines.iter().map(|line| format!("app.gz: {line}")).collect();
        assert_eq!(run.stop(), expected);
        let run = world.start_following("*.gz", false);
        run.until(|seen| seen.begun == 2);
        assert_eq!(run.stop(), expected);
    }
}

#[test]
fn more_files_than_the_open_limit_are_followed() {
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
    assert_eq!(
        run.stop()
            .iter()
            .filter(|record| record.ends_with(": two"))
            .count(),
        400
    );
}

#[test]
fn files_are_started_in_one_step_and_ended_ones_are_released() {
    let world = World::new();
    for number in 0..50 {
        world.write(&format!("{number}.log"), "one\ntwo\n");
    }
    let run = world.start_following("*.log", false);
    run.until(|seen| seen.records.len() == 100);
    assert_eq!(run.seen.lock().steps, 1);
    world.write("0.log", "one\n");
    run.until(|seen| seen.records.len() == 101);
    run.stop();
    let seen = world.seen.lock();
    assert_eq!(
        seen.stored
            .values()
            .filter(|known| known.is_finished)
            .count(),
        1
    );
    assert!(
        seen.taken.is_empty(),
        "{:?} are taken and not released",
        seen.taken
    );
}

#[test]
fn entries_of_earlier_versions_are_parsed() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    world.write("old.gz", gzip(&["three\n"]));
    let run = world.start_following("app.log", false);
    run.until(|seen| seen.records.len() == 2);
    run.stop();
    let run = world.start_following("*.gz", false);
    run.until(|seen| seen.records.len() == 3);
    run.stop();
    {
        let mut seen = world.seen.lock();
        let size = fs::metadata(world.path("old.gz")).unwrap().len();
        for (id, known) in &mut seen.stored {
            let is_compressed = known.position == "three\n".len() as u64;
            // A plain file that was truncated, and a compressed one that was read to its end.
            let position = if is_compressed {
                (1 << 63) + size
            } else {
                Position::MAX - 1
            };
            *known = Resumption {
                position,
                resume: None,
                is_finished: false,
            };
            assert!(!id.as_str().contains('+'));
        }
    }
    let run = world.start_following("*", false);
    run.until(|seen| seen.records.len() == 5);
    assert_eq!(run.stop()[3..], ["app.log: one", "app.log: two"]);
}

#[test]
fn files_are_redistributed_when_an_instance_starts_or_stops() {
    let world = World::new();
    for number in 0..10 {
        world.write(&format!("{number}.log"), "one\n");
    }
    let first = world.start_following("*.log", false);
    first.until(|seen| seen.records.len() == 10);
    let second = world.start_following("*.log", false);
    let of_second = |seen: &EngineState| seen.claims.values().filter(|run| **run == 1).count();
    second.until(|seen| of_second(seen) == 5);
    for number in 0..10 {
        world.append(&format!("{number}.log"), "two\n");
    }
    second.until(|seen| seen.records.len() == 20);
    first.stop();
    second.until(|seen| of_second(seen) == 10);
    for number in 0..10 {
        world.append(&format!("{number}.log"), "three\n");
    }
    second.until(|seen| seen.records.len() == 30);
    let mut records = second.stop();
    records.sort();
    let mut expected: Vec<String> = (0..10)
        .flat_map(|number| ["one", "two", "three"].map(|line| format!("{number}.log: {line}")))
        .collect();
    expected.sort();
    assert_eq!(records, expected);
}

#[test]
fn a_file_that_cannot_be_read_further_keeps_no_others_from_being_read() {
    let world = World::new();
    let mut damaged = gzip(&[&"record\n".repeat(1000)]);
    damaged[20] ^= 0xff;
    world.write("damaged.gz", damaged);
    world.write("long.log", format!("one\n{}\ntwo\n", "x".repeat(100)));
    world.write("good.log", "three\n");
    let text = r#""*" {:follow true :poll "1ms" :max-record "50B"}"#;
    let source = FilesSource.prepare(&options(text)).unwrap();
    let setup = world.setup();
    let metrics = setup.metrics.clone();
    let run = world.start_with(source, setup);
    run.until(|seen| seen.records.len() == 2);
    world.append("good.log", "four\n");
    run.until(|seen| seen.records.contains(&"good.log: four".to_owned()));
    let trouble =
        |files: &str| format!("the source `logs` cannot read {files} further; see the log");
    let first = world.path("damaged.gz").display().to_string();
    while metrics.troubles(true) != [trouble(&format!("{first} and 1 more"))] {
        std::thread::yield_now();
    }

    // They are read when their content is replaced.
    world.write("damaged.gz", gzip(&["five\n"]));
    world.write("long.log", "six\n");
    run.until(|seen| seen.records.len() == 5);
    while !metrics.troubles(true).is_empty() {
        std::thread::yield_now();
    }
    let mut records = run.stop();
    records.sort();
    assert_eq!(
        records,
        [
            "damaged.gz: five",
            "good.log: four",
            "good.log: three",
            "long.log: one",
            "long.log: six"
        ]
    );
}

#[test]
fn long_records_are_skipped_if_wanted() {
    let world = World::new();
    let long = "x".repeat(100);
    world.write("a.log", format!("one\n{long}"));
    world.write("b.log.gz", gzip(&[&format!("two\n{long}")]));
    let text = r#""*.log*" {:follow true :poll "1ms" :max-record "50B" :on-long-record :skip}"#;
    let source = FilesSource.prepare(&options(text)).unwrap();
    let setup = world.setup();
    let dropped = setup
        .metrics
        .bad_records
        .with_label_values(&["logs", "dropped"]);
    let run = world.start_with(source, setup);
    run.until(|seen| seen.records.len() == 2);
    world.append("a.log", &format!("{long}\nthree\n{long}{long}\n"));
    run.until(|seen| seen.records.contains(&"a.log: three".to_owned()));
    while dropped.get() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(run.stop().len(), 3);
    assert_eq!(dropped.get(), 3);
}

#[test]
fn a_compressed_file_that_changes_after_it_was_read_is_not_read_further() {
    let world = World::new();
    world.write("a.gz", gzip(&["one\n"]));
    world.read(r#""*""#).unwrap();
    let setup = world.setup();
    let metrics = setup.metrics.clone();
    let run = world.start_with(Arc::new(following("*", false)), setup);
    for more in ["two\n", "three\n"] {
        let mut file = OpenOptions::new()
            .append(true)
            .open(world.path("a.gz"))
            .unwrap();
        file.write_all(&gzip(&[more])).unwrap();
        while metrics.troubles(true).is_empty() {
            std::thread::yield_now();
        }
    }
    // Each of these files takes a scan, so the last change was seen too.
    let mut expected = vec!["a.gz: one".to_owned()];
    for number in 0..5 {
        world.write(&format!("b{number}.log"), "four\n");
        expected.push(format!("b{number}.log: four"));
        run.until(|seen| seen.records.len() >= expected.len());
    }
    assert_eq!(run.stop(), expected);
}

#[test]
fn the_lag_is_how_many_bytes_were_not_read() {
    let world = World::new();
    world.write("a.log", "one\ntwo");
    let whole = gzip(&["one\n"]);
    world.write("b.gz", &whole[..whole.len() - 4]);
    let setup = world.setup();
    let lag = setup.metrics.lag.with_label_values(&["logs"]);
    let run = world.start_with(Arc::new(following("*", false)), setup);
    let until = |bytes: usize| {
        while lag.get() != bytes as i64 {
            std::thread::yield_now();
        }
    };
    until(3 + whole.len() - 4);
    world.write("b.gz", &whole);
    until(3);
    world.append("a.log", "\n");
    until(0);
    assert_eq!(run.stop().len(), 3);
}
