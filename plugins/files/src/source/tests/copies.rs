//! Tests of files that the state knows under another identity: compressed copies of logs, and files
//! whose first line has become longer.

use super::*;

fn gzip_in_place(world: &World, plain: &str, compressed: &str) {
    let content = fs::read_to_string(world.path(plain)).unwrap();
    world.write(compressed, gzip(&[&content]));
}

#[test]
fn a_rotated_log_that_is_compressed_is_continued() {
    for more in ["", "three\n"] {
        let world = World::new();
        world.write("app.log", "one\ntwo\n");
        assert_eq!(world.read(r#""app.log*""#).unwrap().len(), 2);
        // The rest of the log was written before it was rotated.
        world.append("app.log", more);
        gzip_in_place(&world, "app.log", "app.log.1.gz");
        fs::remove_file(world.path("app.log")).unwrap();
        world.write("app.log", "four\n");
        let mut expected = vec!["app.log: four"];
        expected.splice(0..0, more.lines().map(|_| "app.log.1.gz: three"));
        assert_eq!(world.read(r#""app.log*""#).unwrap(), expected);
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
        // It keeps its own entry in the state when that of the log is forgotten.
        let forgotten = std::mem::take(&mut world.seen.lock().forgotten);
        world
            .seen
            .lock()
            .stored
            .retain(|split, _| !forgotten.contains(split));
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
    }
}

/// A crash leaves the split of the log unfinished, so the copy is continued as the same split.
#[test]
fn a_compressed_log_of_a_crashed_run_is_continued_as_the_same_split() {
    let world = World::new();
    world.write("app.log", "one\ntwo\nthree\n");
    world.read(r#""app.log*""#).unwrap();
    let file = fs::File::open(world.path("app.log")).unwrap();
    let mark = tail::Tail::of(&file, 4).unwrap().mark();
    let split = {
        let mut seen = world.seen.lock();
        let (split, known) = seen.stored.iter_mut().next().unwrap();
        *known = Resumption {
            position: 4,
            resume: Some(mark.to_resume()),
            is_finished: false,
        };
        split.clone()
    };
    gzip_in_place(&world, "app.log", "app.log.1.gz");
    fs::remove_file(world.path("app.log")).unwrap();
    let read = world.read(r#""app.log*""#).unwrap();
    assert_eq!(read, ["app.log.1.gz: three", "app.log.1.gz: two"]);
    assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
    let seen = world.seen.lock();
    assert!(seen.stored.contains_key(&split) && seen.stored.len() == 1);
    assert!(!seen.forgotten.contains(&split));
}

#[test]
fn a_log_that_is_copied_and_truncated_is_not_read_twice() {
    for next in ["three\n", "one\nthree\n"] {
        let world = World::new();
        world.write("app.log", "one\ntwo\n");
        assert_eq!(world.read(r#""app.log*""#).unwrap().len(), 2);
        gzip_in_place(&world, "app.log", "app.log.1.gz");
        world.write("app.log", next);
        assert_eq!(
            world.read(r#""app.log*""#).unwrap().len(),
            next.lines().count()
        );
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
    }
}

#[test]
fn a_compressed_copy_beside_the_log_is_left_out() {
    for is_read_before in [false, true] {
        let world = World::new();
        world.write("app.log.1", "one\ntwo\n");
        if is_read_before {
            assert_eq!(world.read(r#""app.log*""#).unwrap().len(), 2);
        }
        gzip_in_place(&world, "app.log.1", "app.log.1.gz");
        let read = world.read(r#""app.log*""#).unwrap();
        assert_eq!(read.len(), if is_read_before { 0 } else { 2 }, "{read:?}");
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
        fs::remove_file(world.path("app.log.1")).unwrap();
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
    }
}

#[test]
fn files_that_only_begin_alike_are_read() {
    let world = World::new();
    world.write("a.csv", "id,v\n1,a\n");
    world.write("a.csv.1.gz", gzip(&["id,v\n2,b\n"]));
    world.write("b.gz", gzip(&["id,v\n1,a\n"]));
    let glob = r#"["a.csv*" "b.gz"]"#;
    assert_eq!(world.read(glob).unwrap().len(), 6);
    fs::remove_file(world.path("a.csv")).unwrap();
    world.write("c.csv.gz", gzip(&["id,v\n3,c\n"]));
    assert_eq!(world.read(r#""*.gz""#).unwrap().len(), 2);
}

#[test]
fn a_first_line_that_was_read_without_its_end_is_not_read_again() {
    let world = World::new();
    world.write("a.txt", "abc");
    world.settle("a.txt");
    assert_eq!(world.read(r#""a.txt""#).unwrap(), ["a.txt: abc"]);
    for (more, expected) in [("def", "def"), ("ghi\njkl\n", "ghi"), ("mno\n", "mno")] {
        world.append("a.txt", more);
        world.settle("a.txt");
        let read = world.read(r#""a.txt""#).unwrap();
        assert_eq!(read[0], format!("a.txt: {expected}"));
        assert_eq!(read.len(), more.lines().count());
        assert_eq!(world.read(r#""a.txt""#).unwrap(), [""; 0]);
    }
    world.write("a.txt", "xyz\n");
    assert_eq!(world.read(r#""a.txt""#).unwrap(), ["a.txt: xyz"]);
}

#[test]
fn a_followed_log_and_its_compressed_copy_are_read_once() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    let run = world.start_following("app.log*", false);
    run.until_read(&["app.log: one", "app.log: two"]);
    // As `gzip -k` and then `rm`.
    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    gzip_in_place(&world, "app.log.1", "app.log.1.gz");
    world.write("app.log", "three\n");
    run.until(|seen| seen.records.len() == 3);
    fs::remove_file(world.path("app.log.1")).unwrap();
    run.until(|seen| seen.begun == 3);
    world.append("app.log", "four\n");
    run.until(|seen| seen.records.len() >= 4);
    assert_eq!(run.stop()[2..], ["app.log: three", "app.log: four"]);
    let run = world.start_following("app.log*", false);
    world.append("app.log", "five\n");
    run.until(|seen| seen.records.len() >= 5);
    assert_eq!(run.stop()[4..], ["app.log: five"]);
}

#[test]
fn a_followed_log_that_is_copied_and_truncated_is_read_once() {
    for next in ["three\n", "one\nthree\n"] {
        let world = World::new();
        world.write("app.log", "one\ntwo\n");
        let run = world.start_following("app.log*", false);
        run.until_read(&["app.log: one", "app.log: two"]);
        let copy = gzip(&["one\ntwo\n"]);
        world.write("app.log", next);
        let read = 2 + next.lines().count();
        run.until(|seen| seen.records.len() == read);
        world.write("app.log.1.gz", copy);
        run.until(|seen| seen.stored.len() == 3);
        world.append("app.log", "last\n");
        run.until(|seen| seen.records.len() > read);
        assert_eq!(run.stop()[read..], ["app.log: last"]);
    }
}

#[test]
fn a_log_that_was_compressed_between_two_runs_that_follow_is_continued() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    let run = world.start_following("app.log*", false);
    run.until_read(&["app.log: one", "app.log: two"]);
    run.stop();
    world.append("app.log", "three\n");
    gzip_in_place(&world, "app.log", "app.log.1.gz");
    fs::remove_file(world.path("app.log")).unwrap();
    let run = world.start_following("app.log*", false);
    run.until(|seen| seen.records.len() >= 3);
    assert_eq!(run.stop()[2..], ["app.log.1.gz: three"]);
    assert_eq!(world.seen.lock().forgotten, [], "it is used by the copy");
}

#[test]
fn a_followed_file_whose_first_line_was_read_without_its_end_is_continued() {
    let world = World::new();
    world.write("a.txt", "abc");
    world.settle("a.txt");
    assert_eq!(world.read(r#""a.txt""#).unwrap(), ["a.txt: abc"]);
    world.append("a.txt", "def\nghi\n");
    let run = world.start_following("a.txt", false);
    run.until_read(&["a.txt: abc", "a.txt: def", "a.txt: ghi"]);
    run.stop();
}

#[test]
fn one_entry_is_continued_by_one_file() {
    let world = World::new();
    world.write("app.log", "start\n");
    world.read(r#""app.log*""#).unwrap();
    fs::remove_file(world.path("app.log")).unwrap();
    world.write("app.log.1.gz", gzip(&["start\na\n"]));
    world.write("app.log.2.gz", gzip(&["start\nb\n"]));
    let read = world.read(r#""app.log*""#).unwrap();
    let expected = ["app.log.1.gz: a", "app.log.2.gz: b", "app.log.2.gz: start"];
    assert_eq!(read, expected);
    world.write("app.log.3.gz", gzip(&["start\nc\n"]));
    let read = world.read(r#""app.log*""#).unwrap();
    assert_eq!(read, ["app.log.3.gz: c", "app.log.3.gz: start"]);
    assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
}

#[test]
fn one_ended_split_is_continued_by_one_file() {
    let world = World::new();
    world.write("app.log", "start\nold\n");
    world.read(r#""app.log*""#).unwrap();
    world.write("app.log.1.gz", gzip(&["start\nold\na\n"]));
    world.write("app.log", "start\nnew\n");
    let read = world.read(r#""app.log*""#).unwrap();
    assert_eq!(read, ["app.log.1.gz: a", "app.log: new", "app.log: start"]);
    world.write("app.log.2.gz", gzip(&["start\nold\nb\n"]));
    let read = world.read(r#""app.log*""#).unwrap();
    assert_eq!(read.len(), 3, "{read:?}");
    assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
}

#[test]
fn the_entry_with_the_most_equal_bytes_is_continued() {
    let world = World::new();
    for count in 1..9 {
        let lines: String = (0..count).map(|line| format!("{line}\n")).collect();
        world.write(&format!("{count}.log"), lines);
    }
    world.read(r#""*.log""#).unwrap();
    for count in 1..9 {
        fs::remove_file(world.path(&format!("{count}.log"))).unwrap();
    }
    world.write("a.gz", gzip(&["0\n1\n2\n3\n4\n5\n6\n7\n8\n"]));
    assert_eq!(world.read(r#""*.gz""#).unwrap(), ["a.gz: 8"]);
}

/// Lines whose compressed form is long enough to be cut in their middle.
fn many_lines() -> String {
    let line = |at: u64| format!("{at} {:x}\n", at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..20_000).map(line).collect()
}

#[test]
fn a_copy_that_is_still_being_written_is_not_read() {
    for part in [2, 20_000] {
        let world = World::new();
        let content = many_lines();
        let copy = gzip(&[&content]);
        world.write("app.log.1", &content);
        world.write("app.log.1.gz", &copy[..(copy.len() / part).max(12)]);
        let error = world.read(r#""app.log*""#).unwrap_err();
        assert!(
            error.contains("an incomplete copy of app.log.1,"),
            "{error}"
        );
        assert_eq!(world.seen.lock().records.len(), 20_000);
        world.write("app.log.1.gz", &copy);
        fs::remove_file(world.path("app.log.1")).unwrap();
        assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
    }
}

#[test]
fn a_copy_of_a_followed_log_that_is_still_being_written_is_not_read() {
    let world = World::new();
    let content = many_lines();
    let copy = gzip(&[&content]);
    world.write("app.log.1", &content);
    let run = world.start_following("app.log*", false);
    run.until(|seen| seen.records.len() == 20_000);
    world.write("app.log.1.gz", &copy[..copy.len() / 2]);
    std::thread::sleep(Duration::from_millis(100));
    world.write("app.log.1.gz", &copy);
    fs::remove_file(world.path("app.log.1")).unwrap();
    run.until(|seen| seen.begun == 2);
    world.write("app.log", "last\n");
    run.until(|seen| seen.records.len() > 20_000);
    assert_eq!(run.stop()[20_000..], ["app.log: last"]);
}

/// After a crash the split of the log is ended first, since it has been truncated.
#[test]
fn a_copy_waits_until_the_split_of_the_log_has_ended() {
    let world = World::new();
    world.write("app.log", "one\ntwo\nthree\n");
    world.read(r#""app.log*""#).unwrap();
    let file = fs::File::open(world.path("app.log")).unwrap();
    let mark = tail::Tail::of(&file, 8).unwrap().mark();
    for known in world.seen.lock().stored.values_mut() {
        *known = Resumption {
            position: 8,
            resume: Some(mark.to_resume()),
            is_finished: false,
        };
    }
    gzip_in_place(&world, "app.log", "app.log.1.gz");
    world.write("app.log", "one\nnew\n");
    let read = world.read(r#""app.log*""#).unwrap();
    assert_eq!(
        read,
        ["app.log.1.gz: three", "app.log: new", "app.log: one"]
    );
    assert_eq!(world.read(r#""app.log*""#).unwrap(), [""; 0]);
}

#[test]
fn a_grown_first_line_is_recognized_at_any_scan() {
    let world = World::new();
    world.write("a.txt", "abc");
    world.settle("a.txt");
    assert_eq!(world.read(r#""a.txt""#).unwrap(), ["a.txt: abc"]);
    fs::rename(world.path("a.txt"), world.path("moved")).unwrap();
    world.append("moved", "def\n");
    world.write("b.txt", "first\n");
    let run = world.start_following("*.txt", false);
    run.until(|seen| seen.records.len() == 2);
    fs::rename(world.path("moved"), world.path("a.txt")).unwrap();
    run.until(|seen| seen.records.len() >= 3);
    assert_eq!(run.stop()[2..], ["a.txt: def"]);
}

/// The original of a copy is a split: when the log is truncated, only the copy has its last lines.
#[test]
fn a_copy_is_continued_when_its_followed_log_was_truncated() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    let run = world.start_following("app.log*", false);
    run.until_read(&["app.log: one", "app.log: two"]);
    world.write("app.log-1.gz", gzip(&["one\ntwo\n"]));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.seen.lock().begun, 1, "it is left out");
    world.write("app.log", "new\n");
    run.until(|seen| seen.begun >= 4);
    world.write("app.log-2.gz", gzip(&["one\ntwo\nother\n"]));
    run.until(|seen| seen.records.len() >= 6);
    let read = run.stop();
    assert_eq!(read[2], "app.log: new");
    assert_eq!(
        read[3..],
        [
            "app.log-2.gz: one",
            "app.log-2.gz: two",
            "app.log-2.gz: other"
        ]
    );
}
