//! Tests of a last line without a line end, in files that are read as they are.

use sha2::{Digest, Sha256};

use super::*;

/// A world whose records are JSON values.
fn json_world() -> World {
    World {
        framing: Framing {
            is_json: true,
            ..Framing::default()
        },
        ..World::new()
    }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_complete_json_object_is_read_and_what_follows_is_read_once() {
    let world = json_world();
    // In a file with one line and in one with several.
    for (name, before) in [("one.json", ""), ("two.json", "{\"id\":0}\n")] {
        world.write(name, format!("{before}{{\"id\":1}}"));
    }
    let read = world.read(r#""*.json""#).unwrap();
    assert_eq!(
        read,
        [
            r#"one.json: {"id":1}"#,
            r#"two.json: {"id":0}"#,
            r#"two.json: {"id":1}"#
        ]
    );
    for end in ["\n", "\r\n"] {
        world.append("one.json", &format!("{end}{{\"id\":2}}"));
        world.append("two.json", &format!("{end}{{\"id\":2}}"));
        assert_eq!(
            world.read(r#""*.json""#).unwrap(),
            [r#"one.json: {"id":2}"#, r#"two.json: {"id":2}"#],
            "{end:?}"
        );
        assert_eq!(world.read(r#""*.json""#).unwrap(), none());
    }
}

#[test]
fn a_file_that_grows_after_it_was_found_loses_nothing() {
    for more in ["\n", "\n{\"id\":2}\n", "\n{\"id\":2}", " \n{\"id\":2}\n"] {
        let world = json_world();
        world.write("a.json", "{\"id\":1}");
        let path = world.path("a.json");
        let grow = move |_: &mut EngineState| {
            let file = OpenOptions::new().append(true).open(path);
            file.unwrap().write_all(more.as_bytes()).unwrap();
        };
        world.seen.lock().at_begin = Some(Box::new(grow));
        let mut read = Vec::new();
        for _ in 0..3 {
            read.extend(world.read(r#""*.json""#).unwrap());
        }
        let records = 1 + usize::from(more.contains('2'));
        assert_eq!(read.len(), records, "{more:?}: {read:?}");
    }
}

#[test]
fn a_file_keeps_its_identity_when_its_only_line_is_ended() {
    for end in ["\n", "\r\n"] {
        let world = World::new();
        world.write("a.log", "one");
        world.settle("a.log");
        assert_eq!(world.read(r#""a.log""#).unwrap(), ["a.log: one"]);
        world.append("a.log", &format!("{end}two{end}"));
        assert_eq!(world.read(r#""a.log""#).unwrap(), ["a.log: two"], "{end:?}");
        assert_eq!(world.read(r#""a.log""#).unwrap(), none());
    }
}

#[test]
fn a_file_that_is_rewritten_with_other_line_ends_is_another_file() {
    let world = World::new();
    for (content, expected) in [
        (
            "one\ntwo\nthree\n",
            vec!["a.log: one", "a.log: three", "a.log: two"],
        ),
        ("one\r\n2\r\n", vec!["a.log: 2", "a.log: one"]),
        (
            "one\r\n3\r\nfour\r\n",
            vec!["a.log: 3", "a.log: four", "a.log: one"],
        ),
    ] {
        world.write("a.log", content);
        assert_eq!(world.read(r#""a.log""#).unwrap(), expected);
        assert_eq!(world.read(r#""a.log""#).unwrap(), none());
    }
}

#[test]
fn an_incomplete_json_object_waits() {
    let world = json_world();
    world.write("one.json", r#"{"a":2,"b":"hal"#);
    world.write("two.json", "{\"a\":1}\n{\"a\":2,\"b\":\"hal");
    world.settle("one.json");
    world.settle("two.json");
    let path = r#""*.json""#;
    assert_eq!(world.read(path).unwrap(), [r#"two.json: {"a":1}"#]);
    assert_eq!(world.read(path).unwrap(), none());
    for name in ["one.json", "two.json"] {
        world.append(name, "lo\"}");
    }
    assert_eq!(
        world.read(path).unwrap(),
        [
            r#"one.json: {"a":2,"b":"hallo"}"#,
            r#"two.json: {"a":2,"b":"hallo"}"#
        ]
    );
    world.append("one.json", r#" {"#);
    assert_eq!(world.read(path).unwrap(), none());
}

#[test]
fn a_line_of_text_waits_until_the_file_has_settled() {
    let world = World::new();
    world.write("one.log", "hello wor");
    world.write("two.log", "one\nhello wor");
    let path = r#""*.log""#;
    assert_eq!(world.read(path).unwrap(), ["two.log: one"]);
    world.append("one.log", "ld");
    world.append("two.log", "ld");
    assert_eq!(world.read(path).unwrap(), none());
    world.settle("one.log");
    world.settle("two.log");
    let both = ["one.log: hello world", "two.log: hello world"];
    assert_eq!(world.read(path).unwrap(), both);
    assert_eq!(world.read(path).unwrap(), none());
}

#[test]
fn lines_are_taken_or_wait_as_the_option_says() {
    let world = World::new();
    world.write("a.log", "one\ntwo");
    world.settle("a.log");
    let wait = r#""a.log" {:last-line :wait}"#;
    assert_eq!(world.read(wait).unwrap(), ["a.log: one"]);
    assert_eq!(world.read(wait).unwrap(), none());
    world.append("a.log", "!");
    let take = r#""a.log" {:last-line :take}"#;
    assert_eq!(world.read(take).unwrap(), ["a.log: two!"]);
    // What is appended to a line that was taken is a record of its own.
    world.append("a.log", "three\n");
    assert_eq!(world.read(wait).unwrap(), ["a.log: three"]);
}

#[test]
fn a_comment_that_is_being_written_is_not_torn() {
    let world = World {
        framing: Framing {
            comment: Some(b'#'),
            ..Framing::default()
        },
        ..World::new()
    };
    world.write("a.csv", "1,2\n# a com");
    assert_eq!(world.read(r#""a.csv""#).unwrap(), ["a.csv: 1,2"]);
    world.append("a.csv", "ment\n3,4\n");
    assert_eq!(world.read(r#""a.csv""#).unwrap(), ["a.csv: 3,4"]);
}

#[test]
fn without_a_next_run_every_line_is_taken() {
    let world = json_world();
    world.write("a.json", "{\"a\":1}\n{\"a\":");
    let setup = SourceSetup {
        keeps_state: false,
        ..world.setup()
    };
    let source = FilesSource.prepare(&options(r#""a.json""#)).unwrap();
    world.start_with(source, setup).join().unwrap();
    let records = world.seen.lock().records.clone();
    assert_eq!(records, [r#"a.json: {"a":1}"#, r#"a.json: {"a":"#]);
}

#[test]
fn the_last_line_of_a_compressed_file_is_read() {
    let world = json_world();
    world.write("a.json.gz", gzip(&["{\"a\":1}\n{\"a\":"]));
    assert_eq!(
        world.read(r#""a.json.gz""#).unwrap(),
        [r#"a.json.gz: {"a":"#, r#"a.json.gz: {"a":1}"#]
    );
}

#[test]
fn a_line_that_an_earlier_version_has_read_is_not_read_again() {
    let world = World::new();
    world.write("a.log", "one");
    world.settle("a.log");
    world.read(r#""a.log""#).unwrap();
    // Earlier versions identified the file by its content without a line end.
    let mut seen = world.seen.lock();
    let (split, entry) = seen.stored.drain().next().unwrap();
    let digest = Sha256::digest("one")[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let file = identity::file_of(&split);
    seen.stored.insert(format!("{file}.{digest}").into(), entry);
    drop(seen);
    assert_eq!(world.read(r#""a.log""#).unwrap(), none());
}
