//! What options mean, and where they send rows.

use super::*;

#[test]
fn the_declaration_reads_its_own_example() {
    options(r#""out" {:codec :parquet}"#);
    let example =
        pseidon_dsl::edn::read_all(r#"{:path "out/{k}" :codec :json :compression :gzip :rollover {:size "128MB" :idle "30s"}}"#).unwrap();
    let options = Options::parse(&options::SPEC, &example, pseidon_dsl::Span::default()).unwrap();
    assert!(FilesSink.prepare(&options, &input()).unwrap().nondeterminism().is_none());
}

#[test]
fn mistakes_in_options_are_found_together() {
    let cases: &[(&str, &[&str])] = &[
        (r#""out/{k}/../x""#, &["`..` cannot be part of a bucket's path"]),
        (r#""out/{k}/.pseidon-open""#, &["`.pseidon-open` cannot be part of a bucket's path"]),
        (r#"{:path "/out/{k}" :base-dir "a"}"#, &["`:path` is absolute although there is a `:base-dir`"]),
        (r#"{:path "out" :base-dir []}"#, &["`:base-dir` names no folder"]),
        (r#"{:path "out" :level 3}"#, &["files cannot be written like this"]),
        (r#"{:path "out" :codec :parquet}"#, &["files cannot be written like this"]),
        (
            r#"{:path "out/{k}/.." :rollover {:records 0} :max-open-files 0}"#,
            &["`..` cannot be part", "a file cannot have 0 records", "no file could be open"],
        ),
    ];
    for (text, expected) in cases {
        let Err(mistakes) = FilesSink.prepare(&options(text), &input()) else { panic!("{text} is accepted") };
        let messages: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
        assert_eq!(messages.len(), expected.len(), "{text}: {messages:?}");
        for part in *expected {
            assert!(messages.iter().any(|message| message.contains(part)), "{text}: {messages:?}");
        }
    }
}

#[test]
fn the_folder_is_what_stands_before_the_first_value() {
    for (text, expected) in [
        (r#""out/{k}""#, Some("out")),
        (r#""/data/out/x-{k}""#, Some("/data/out")),
        (r#""out/clicks""#, Some("out/clicks")),
        (r#""{k}""#, None),
        (r#"{:path "x/{k}" :base-dir ["a" "b"]}"#, Some("a")),
    ] {
        assert_eq!(FilesSink.facts(&options(text)).folder.as_deref(), expected, "{text}");
    }
}

#[test]
fn ticks_come_as_often_as_asked() {
    let world = World::new();
    assert_eq!(world.start(r#"{:path "out" :check-freq "20ms"}"#).writer.tick_every(), Duration::from_millis(20));
}

#[test]
fn rows_without_a_path_are_bad() {
    let world = World::new();
    let run = world.start(r#""out/{cast(k as bigint)}/{k}""#);
    let split = run.splits[0].0.clone();
    let key = |position: Position| Some(if position % 3 == 1 { "x".to_owned() } else { (position % 2).to_string() });
    let routed = run.sink.route(rows(&split, 0, 6, key));
    assert_eq!(routed.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [1, 4]);
    let chunks: Vec<(String, Vec<Position>)> = routed
        .chunks
        .iter()
        .map(|chunk| (chunk.lane.to_string(), (0..chunk.rows.len()).map(|row| chunk.rows.position(row)).collect()))
        .collect();
    assert_eq!(chunks, [("0/0".to_owned(), vec![0, 2]), ("1/1".to_owned(), vec![3, 5])]);
}
