//! Tests of `:on-replaced-file`: files that were replaced by others with the same beginning.

use super::*;

const CONTINUES: &str = r#"{:path "app.log*" :on-replaced-file :continue}"#;

/// Replaces a file by another one with this content, as `rsync` and editors do.
fn replace(world: &World, name: &str, content: &str) {
    let inode = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let (path, new) = (world.path(name), world.path(".new"));
    let before = inode(&path);
    fs::write(&new, content).unwrap();
    fs::rename(&new, &path).unwrap();
    assert_ne!(inode(&path), before);
}

fn following_replaced() -> PreparedFilesSource {
    let mut source = following("app.log*", false);
    source.config.on_replaced = OnReplacedFile::Continue;
    // A file that is only removed is waited for.
    source.follow.as_mut().unwrap().drained_after = Duration::from_secs(3600);
    source
}

#[test]
fn a_replaced_file_is_continued_if_that_is_wanted() {
    for (options, expected) in [
        (CONTINUES, &["app.log: three"][..]),
        (
            r#""app.log*""#,
            &["app.log: one", "app.log: three", "app.log: two"],
        ),
    ] {
        let world = World::new();
        world.write("app.log", "one\ntwo\n");
        assert_eq!(world.read(options).unwrap().len(), 2);
        replace(&world, "app.log", "one\ntwo\nthree\n");
        assert_eq!(world.read(options).unwrap(), expected);
        assert_eq!(world.read(options).unwrap(), [""; 0]);
        world.append("app.log", "four\n");
        assert_eq!(world.read(options).unwrap(), ["app.log: four"]);
    }
}

#[test]
fn a_file_that_was_replaced_again_and_again_is_continued() {
    let world = World::new();
    let mut content = String::from("first\n");
    world.write("app.log", &content);
    assert_eq!(world.read(CONTINUES).unwrap().len(), 1);
    for line in ["a", "b", "c"] {
        content += &format!("{line}\n");
        replace(&world, "app.log", &content);
        assert_eq!(world.read(CONTINUES).unwrap(), [format!("app.log: {line}")]);
    }
}

#[test]
fn a_file_with_other_content_is_not_a_replaced_one() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    assert_eq!(world.read(CONTINUES).unwrap().len(), 2);
    for content in ["one\nTWO\nthree\n", "one\n", "other\n"] {
        replace(&world, "app.log", content);
        let read = world.read(CONTINUES).unwrap();
        assert_eq!(read.len(), content.lines().count(), "{content:?}");
    }
}

#[test]
fn a_file_beside_the_one_that_begins_alike_is_its_own() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    assert_eq!(world.read(CONTINUES).unwrap().len(), 2);
    world.write("app.log.2", "one\ntwo\nthree\n");
    assert_eq!(world.read(CONTINUES).unwrap().len(), 3);
}

#[test]
fn a_plain_copy_of_a_truncated_log_is_continued() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    assert_eq!(world.read(CONTINUES).unwrap().len(), 2);
    world.append("app.log", "three\n");
    fs::copy(world.path("app.log"), world.path("app.log.1")).unwrap();
    world.write("app.log", "new\n");
    let read = world.read(CONTINUES).unwrap();
    assert_eq!(read, ["app.log.1: three", "app.log: new"]);
    assert_eq!(world.read(CONTINUES).unwrap(), [""; 0]);
}

#[test]
fn a_followed_file_is_continued_when_it_is_replaced() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    let run = world.start_source(Arc::new(following_replaced()));
    run.until_read(&["app.log: one", "app.log: two"]);
    replace(&world, "app.log", "one\ntwo\nthree\n");
    run.until(|seen| seen.records.len() >= 3);
    replace(&world, "app.log", "one\ntwo\nthree\nfour\n");
    run.until(|seen| seen.records.len() >= 4);
    // Another file with the same first line.
    replace(&world, "app.log", "one\nother\n");
    run.until(|seen| seen.records.len() >= 6);
    world.append("app.log", "last\n");
    run.until(|seen| seen.records.len() >= 7);
    let expected = ["one", "two", "three", "four", "one", "other", "last"];
    assert_eq!(run.stop(), expected.map(|line| format!("app.log: {line}")));
}

/// `rsync` copies a log as it is, and its end may be in the middle of a line.
#[test]
fn a_line_that_was_incomplete_is_read_from_the_new_file() {
    for options in [None, Some(CONTINUES)] {
        let world = World::new();
        world.write("app.log", "one\ntwo\nthr");
        let next = "one\ntwo\nthree\nfour\n";
        let read = match options {
            None => {
                let run = world.start_source(Arc::new(following_replaced()));
                run.until(|seen| seen.records.len() >= 2);
                replace(&world, "app.log", next);
                run.until(|seen| seen.records.len() >= 4);
                run.stop()
            }
            Some(options) => {
                let mut read = world.read(options).unwrap();
                replace(&world, "app.log", next);
                read.extend(world.read(options).unwrap());
                read.sort();
                read
            }
        };
        let mut expected = ["one", "two", "three", "four"].map(|line| format!("app.log: {line}"));
        if options.is_some() {
            expected.sort();
        }
        assert_eq!(read, expected, "{options:?}");
    }
}

/// A log that is renamed is written for a while; the new one has the same first line.
#[test]
fn a_log_that_was_rotated_is_not_a_replaced_one() {
    let world = World::new();
    world.write("app.log", "header\none\n");
    let run = world.start_source(Arc::new(following_replaced()));
    run.until(|seen| seen.records.len() >= 2);
    let rotated = world.path("rotated");
    fs::rename(world.path("app.log"), &rotated).unwrap();
    world.write("app.log", "header\n");
    run.until(|seen| seen.records.len() >= 3);
    let mut log = fs::OpenOptions::new().append(true).open(&rotated).unwrap();
    std::io::Write::write_all(&mut log, b"late\n").unwrap();
    run.until(|seen| seen.records.len() >= 4);
    let expected = ["header", "one", "header", "late"];
    assert_eq!(run.stop(), expected.map(|line| format!("app.log: {line}")));
}

/// What was written to the file that is gone is read before the new one is continued.
#[test]
fn the_rest_of_a_replaced_file_is_read_first() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_source(Arc::new(following_replaced()));
    run.until_read(&["app.log: one"]);
    world.append("app.log", "two\n");
    replace(&world, "app.log", "one\ntwo\nthree\n");
    run.until(|seen| seen.records.len() >= 3);
    let expected = ["one", "two", "three"];
    assert_eq!(run.stop(), expected.map(|line| format!("app.log: {line}")));
}
