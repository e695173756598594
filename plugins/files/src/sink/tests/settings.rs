//! Tests of the options, and of the routing that they configure.

use pseidon_plugin::options::Options;
use pseidon_plugin::{BadRow, OptionKind};

use pseidon_plugin::sink::NeedsColumns;

use super::*;

#[test]
fn the_example_of_the_declaration_is_valid() {
    options(r#""out" {:codec :parquet}"#);
    let text = concat!(
        r#"{:path "out/{k}" :codec :json :compression :gzip "#,
        r#":rollover {:size "128MB" :idle "30s"}}"#
    );
    let example = pseidon_dsl::edn::read_all(text).unwrap();
    let options =
        FilesSinkOptions::parse_stage(&options::SPEC, &example, pseidon_dsl::Span::default())
            .unwrap();
    assert!(
        FilesSink
            .prepare(&options, &input())
            .unwrap()
            .nondeterminism()
            .is_none()
    );
}

#[test]
fn a_mode_and_an_owner_are_checked() {
    for (text, expected) in [
        (
            r#":mode "0755""#,
            "expected an octal number such as \"0640\"",
        ),
        (r#":mode "0440""#, "expected an octal number"),
        (r#":mode "666""#, "expected an octal number"),
        (r#":mode "u+r""#, "expected an octal number"),
        (r#":owner ":""#, "expected \"user\""),
        (
            r#":owner "a:b:c""#,
            "expected the name of a user or a group",
        ),
        (r#":owner "a b""#, "expected the name of a user or a group"),
    ] {
        let nodes = pseidon_dsl::edn::read_all(&format!("\"out\" {{{text}}}")).unwrap();
        let parsed =
            FilesSinkOptions::parse_stage(&options::SPEC, &nodes, pseidon_dsl::Span::default());
        let errors = parsed.unwrap_err();
        assert!(errors[0].label.starts_with(expected), "{text}: {errors:?}");
    }
}

/// Options, and a part of each error that they have.
const INVALID: &[(&str, &[&str])] = &[
    (r#""out/{k}/../x""#, &["`..` cannot be part of this path"]),
    (
        r#""out/{k}/.pseidon-open""#,
        &["`.pseidon-open` cannot be part of this path"],
    ),
    (
        r#"{:path "/out/{k}" :base-dir "a"}"#,
        &["`:path` must be relative if `:base-dir` is set"],
    ),
    (
        r#"{:path "out" :base-dir []}"#,
        &["`:base-dir` names no folder"],
    ),
    (
        r#"{:path "out" :level 3}"#,
        &["files cannot be written with these options"],
    ),
    (
        r#"{:path "out" :codec :parquet}"#,
        &["files cannot be written with these options"],
    ),
    (r#"{:path "out/{k}/.."}"#, &["`..` cannot be part"]),
    (r#"{:codec :json}"#, &["missing required option `:path`"]),
    (
        r#"{:path "out" :name "a/{k}"}"#,
        &["`/` cannot be part of a file's name"],
    ),
    (
        r#"{:path "out" :write "*"}"#,
        &["the records are written unparsed"],
    ),
    (
        r#"{:path "out" :write "k, upper(k) as k"}"#,
        &["duplicate column `k`"],
    ),
    (r#"{:path "out" :write "x"}"#, &["unknown column"]),
    (
        r#"{:path "out" :write "k" :codec :raw}"#,
        &["files cannot be written with these options"],
    ),
    (
        r#"{:path "out" :move-to {:path "a/{k}/.." :prefix "a/"}}"#,
        &["`..` cannot be part", "`:prefix` cannot be part of"],
    ),
    (
        r#"{:path "out" :move-to {:path ""}}"#,
        &["`:move-to` names no folder"],
    ),
    (
        r#"{:path "out" :on-close {}}"#,
        &["`:on-close` requires `:command` or `:post`"],
    ),
    (
        r#"{:path "out" :on-close {:command ["a"] :post "http://b"}}"#,
        &["`:on-close` requires `:command` or `:post`"],
    ),
    (
        r#"{:path "out" :on-close {:post "http://b" :env {"A" "b"}}}"#,
        &["`:env` is for a program"],
    ),
    (
        r#"{:path "out" :on-close {:command []}}"#,
        &["`:command` names no program"],
    ),
    (
        r#"{:path "out" :on-close {:post "b"}}"#,
        &["`:post` is not a URL"],
    ),
];

#[test]
fn errors_in_options_are_reported_together() {
    for (text, expected) in INVALID {
        let Err(errors) = FilesSink.prepare(&options(text), &input()) else {
            panic!("{text} is accepted")
        };
        let messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        assert_eq!(messages.len(), expected.len(), "{text}: {messages:?}");
        for part in *expected {
            assert!(
                messages.iter().any(|message| message.contains(part)),
                "{text}: {messages:?}"
            );
        }
    }
}

#[test]
fn every_declared_codec_and_compression_is_supported() {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    let input = SinkInput {
        record: RecordShape::Columns(schema),
        ..input()
    };
    let choices = |name: &str| match options::SPEC
        .options
        .iter()
        .find(|option| option.name == name)
        .unwrap()
        .kind
    {
        OptionKind::Choice(words) => words,
        _ => panic!("{name} is a choice"),
    };
    for codec in choices("codec") {
        for compression in choices("compression") {
            let options = options(&format!(
                r#"{{:path "out" :codec :{codec} :compression :{compression}}}"#
            ));
            let is_accepted = FilesSink.prepare(&options, &input).is_ok();
            let is_refused = *codec == "raw" || (*codec, *compression) == ("parquet", "bzip2");
            assert_eq!(is_accepted, !is_refused, "{codec} {compression}");
            assert_eq!(
                FilesSink.facts(&options).needs_columns == NeedsColumns::Always,
                matches!(*codec, "csv" | "tsv" | "parquet" | "avro")
            );
        }
    }
}

#[test]
fn the_folder_is_the_path_before_the_first_value() {
    for (text, expected) in [
        (r#""out/{k}""#, Some("out")),
        (r#""/data/out/x-{k}""#, Some("/data/out")),
        (r#""out/clicks""#, Some("out/clicks")),
        (r#""{k}""#, None),
        (r#"{:path "x/{k}" :base-dir ["a" "b"]}"#, Some("a")),
        (r#"{:base-dir "a" :name "{k}"}"#, Some("a")),
    ] {
        assert_eq!(
            FilesSink.facts(&options(text)).folder.as_deref(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_number_out_of_range_is_rejected() {
    for (option, expected) in [
        (r#":lanes "0""#, "expected an integer from 1 to 256"),
        (r#":lanes "257""#, "expected an integer from 1 to 256"),
        (r#":lanes "many""#, "expected an integer from 1 to 256"),
        (":max-open-files 0", "expected an integer of at least 1"),
        (
            ":rollover {:records 0}",
            "expected an integer of at least 1",
        ),
    ] {
        let nodes = pseidon_dsl::edn::read_all(&format!(r#"{{:path "out" {option}}}"#)).unwrap();
        let errors =
            FilesSinkOptions::parse_stage(&options::SPEC, &nodes, pseidon_dsl::Span::default())
                .unwrap_err();
        assert!(
            format!("{errors:?}").contains(expected),
            "{option}: {errors:?}"
        );
    }
}

#[test]
fn except_excludes_columns() {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    let input = SinkInput {
        record: RecordShape::Columns(schema),
        ..input()
    };
    let errors = |text: &str| {
        FilesSink
            .prepare(&options(text), &input)
            .err()
            .unwrap_or_default()
    };
    assert_eq!(errors(r#"{:path "out" :write "*, @offset as at"}"#), []);
    let wrong = errors(r#"{:path "out" :write "* except (kk), @offset as at"}"#);
    assert!(
        wrong[0].message.contains("unknown column `kk` in `except`"),
        "{wrong:?}"
    );
}

#[test]
fn nondeterministic_expressions_are_reported() {
    for (text, expected) in [
        (r#""out/{now()}""#, Some("now()")),
        (r#"{:path "out" :name "{now()}"}"#, Some("now()")),
        (r#"{:path "out" :write "now() as at"}"#, Some("now()")),
        (r#"{:path "out" :move-to {:path "lake/{now()}"}}"#, None),
    ] {
        assert_eq!(
            FilesSink
                .prepare(&options(text), &input())
                .unwrap()
                .nondeterminism()
                .as_deref(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn check_freq_sets_the_tick_interval() {
    let world = World::new();
    assert_eq!(
        world
            .start(r#"{:path "out" :check-freq "20ms"}"#)
            .writer
            .lanes
            .check_every(),
        Duration::from_millis(20)
    );
}

#[test]
fn rows_without_a_path_are_bad() {
    let world = World::new();
    let run = world.start(r#""out/{cast(k as bigint)}/{k}""#);
    let split = run.splits[0].0.clone();
    let key = |position: Position| {
        Some(if position % 3 == 1 {
            "x".to_owned()
        } else {
            (position % 2).to_string()
        })
    };
    let routed = run.sink.route(rows(&split, 0, 6, key));
    assert_eq!(
        routed.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(),
        [1, 4]
    );
    let chunks: Vec<(String, Vec<Position>)> = routed
        .chunks
        .iter()
        .map(|chunk| {
            (
                chunk.lane.to_string(),
                (0..chunk.rows.len())
                    .map(|row| chunk.rows.position(row))
                    .collect(),
            )
        })
        .collect();
    assert_eq!(
        chunks,
        [
            ("0/0".to_owned(), vec![0, 2]),
            ("1/1".to_owned(), vec![3, 5])
        ]
    );
}

#[test]
fn rows_that_cannot_be_written_are_bad() {
    let world = World::new();
    let run = world.start(r#"{:path "out/{k}" :write "cast(k as bigint) as k, @offset as at"}"#);
    let split = run.splits[0].0.clone();
    let key = |position: Position| {
        Some(if position % 3 == 1 {
            "x".to_owned()
        } else {
            (position % 2).to_string()
        })
    };
    let routed = run.sink.route(rows(&split, 0, 6, key));
    assert_eq!(
        routed.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(),
        [1, 4]
    );
    let run = world.start(r#"{:path "out" :codec :txt :write "k"}"#);
    let routed = run.sink.route(rows(&split, 0, 3, |position| {
        (position != 1).then(|| "a".to_owned())
    }));
    assert_eq!(
        routed.bad,
        [BadRow {
            row: 1,
            reason: "the value is null".into()
        }]
    );
}
