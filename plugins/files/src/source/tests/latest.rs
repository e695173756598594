//! Tests of `:start :latest`.

use super::*;

#[test]
fn latest_skips_existing_content_only_at_the_first_start() {
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

/// Files are rotated, and another instance starts, between two starts: what is new then is read.
#[test]
fn latest_is_decided_once() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("app.log", true);
    run.until(|seen| seen.note.is_some());
    run.stop();

    fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
    world.write("app.log", "two\n");
    let run = world.start_following("app.log", true);
    run.until_read(&["app.log: two"]);
    let other = world.start_following("new.log", true);
    world.write("new.log", "three\n");
    run.until_read(&["app.log: two", "new.log: three"]);
    other.stop();
    run.stop();
}

#[test]
fn a_first_start_without_files_skips_none_later() {
    let world = World::new();
    let run = world.start_following("*.log", true);
    run.until(|seen| seen.note.is_some());
    run.stop();
    world.write("app.log", "one\n");
    let run = world.start_following("*.log", true);
    run.until_read(&["app.log: one"]);
    run.stop();
}

/// A state without a note: that of an earlier version, or of a source that began at the beginning.
#[test]
fn a_state_with_files_has_had_its_first_start() {
    let world = World::new();
    world.write("app.log", "one\n");
    let run = world.start_following("*.log", false);
    run.until_read(&["app.log: one"]);
    run.stop();
    world.write("new.log", "two\n");
    let run = world.start_following("*.log", true);
    run.until_read(&["app.log: one", "new.log: two"]);
    run.stop();
}
