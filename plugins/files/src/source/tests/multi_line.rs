//! Tests of records that begin with a line that matches `:record-start`.

use super::*;

const START: &str = "^[0-9]";
const READS: &str = r#""*.log*" {:record-start #r"^[0-9]"}"#;

fn append(world: &World, text: &str) {
    world.append("a.log", text);
}

#[test]
fn lines_that_do_not_match_belong_to_the_record_before_in_each_kind_of_file() {
    let world = World::new();
    let text = "0 none\n1 one\n at a\n\n at b\n2 two\n";
    world.write("a.log", text);
    world.write("b.log.gz", gzip(&[&text[..15], &text[15..]]));
    world.write("c.log.zst", zstd(&[text]));
    world.settle("a.log");
    let of_each =
        |record: &str| ["a.log", "b.log.gz", "c.log.zst"].map(|name| format!("{name}: {record}"));
    let mut expected = ["0 none", "1 one\n at a\n\n at b", "2 two"]
        .map(of_each)
        .concat();
    expected.sort();
    assert_eq!(world.read(READS).unwrap(), expected);
    assert_eq!(world.read(READS).unwrap(), [""; 0]);
    // What is appended to a record that was read is another one, and so is each beginning of a
    // file.
    append(&world, " at c\n3 three\n");
    world.write("d.log", " at d\n at e\n4 four\n");
    world.settle("a.log");
    world.settle("d.log");
    let expected = [
        "a.log:  at c",
        "a.log: 3 three",
        "d.log:  at d\n at e",
        "d.log: 4 four",
    ];
    assert_eq!(world.read(READS).unwrap(), expected);
}

#[test]
fn the_last_record_of_a_file_that_was_just_written_waits() {
    let world = World::new();
    world.write("a.log", "1 one\n at a\n2 two\n at b\n");
    assert_eq!(world.read(READS).unwrap(), ["a.log: 1 one\n at a"]);
    append(&world, " at c\n");
    assert_eq!(world.read(READS).unwrap(), [""; 0]);
    append(&world, "3 three\n");
    assert_eq!(world.read(READS).unwrap(), ["a.log: 2 two\n at b\n at c"]);
    let take = r#""a.log" {:record-start #r"^[0-9]" :last-line :take}"#;
    assert_eq!(world.read(take).unwrap(), ["a.log: 3 three"]);
    let wait = r#""a.log" {:record-start #r"^[0-9]" :last-line :wait}"#;
    append(&world, "4 four\n");
    world.settle("a.log");
    assert_eq!(world.read(wait).unwrap(), [""; 0]);
}

#[test]
fn a_followed_file_is_read_up_to_the_last_line_that_begins_a_record() {
    let world = World::new();
    world.write("a.log", "1 one\n at a\n2 t");
    let run = world.start_following_records("*.log", START);
    append(&world, "wo\n at b\n");
    run.until_read(&["a.log: 1 one\n at a"]);
    // The run stops in the second record.
    run.stop();
    append(&world, " at c\n");
    let run = world.start_following_records("*.log", START);
    append(&world, " at d\n3 three\n");
    let second = "a.log: 2 two\n at b\n at c\n at d";
    run.until_read(&["a.log: 1 one\n at a", second]);
    // The last record ends with its file: it does not continue in the next one.
    fs::rename(world.path("a.log"), world.path("a.log.1")).unwrap();
    world.write("a.log", " at e\n4 four\n");
    run.until(|seen| seen.records.len() == 4);
    let mut records = run.stop();
    records[2..].sort();
    assert_eq!(records[1..], [second, "a.log:  at e", "a.log: 3 three"]);
}

#[test]
fn the_last_record_before_a_truncation_is_read() {
    let world = World::new();
    world.write("a.log", "1 one\n2 two\n at a\n");
    let run = world.start_following_records("*.log", START);
    run.until_read(&["a.log: 1 one"]);
    world.write("a.log", "3 three\n4 four\n");
    run.until_read(&["a.log: 1 one", "a.log: 2 two\n at a", "a.log: 3 three"]);
    run.stop();
}

/// The log is rotated and compressed while its last record waits.
#[test]
fn a_record_that_waits_is_read_from_the_compressed_copy() {
    let world = World::new();
    world.write("a.log", "1 one\n2 two\n at a\n");
    let run = world.start_following_records("*.log*", START);
    run.until_read(&["a.log: 1 one"]);
    run.stop();
    fs::remove_file(world.path("a.log")).unwrap();
    world.write("a.log.1.gz", gzip(&["1 one\n2 two\n at a\n"]));
    let run = world.start_following_records("*.log*", START);
    run.until(|seen| seen.records.len() >= 2);
    assert_eq!(run.stop()[1..], ["a.log.1.gz: 2 two\n at a"]);
}

#[test]
fn a_format_without_lines_of_text_is_refused() {
    for (text, expected, help) in [
        (
            r#""a.json" {:record-start "^1"}"#,
            "json",
            "set :format \"txt\"",
        ),
        (
            r#""a.csv.gz" {:record-start "^1"}"#,
            "csv",
            "leave out :record-start",
        ),
        (
            r#""a" {:format "avro" :record-start "^1"}"#,
            "avro",
            "leave out :record-start",
        ),
    ] {
        let errors = FilesSource.prepare(&options(text)).err().unwrap();
        let message = format!("`:record-start` has no meaning in the format {expected}");
        assert_eq!(errors[0].message, message);
        assert!(errors[0].help.as_ref().unwrap().contains(help), "{text}");
    }
    FilesSource.prepare(&options(READS)).unwrap();
}
