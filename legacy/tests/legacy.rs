//! Conversion of legacy files to pipeline files and notes.

use std::fs;
use std::path::PathBuf;

use pseidon_dsl::document::from_edn;
use pseidon_dsl::{Diagnostic, diagnostic, edn, print};
use pseidon_legacy::pseidon_etl::{convert, is_config};
use pseidon_legacy::{ConvertedFile, NoteKind};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/legacy"))
}

/// The names of the legacy files. Each has a file with the expected pipeline next to it.
fn samples() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("conf/legacy is there");
    let names = entries.map(|entry| {
        entry
            .expect("readable")
            .file_name()
            .into_string()
            .expect("a plain name")
    });
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".edn").map(str::to_owned))
        .collect();
    names.retain(|name| !name.ends_with(".pipeline"));
    names.sort();
    names
}

fn sample(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.edn"))).expect(name)
}

fn converted(text: &str) -> ConvertedFile {
    convert(text)
        .unwrap_or_else(|errors| panic!("{}", diagnostic::render("old.edn", text, &errors, false)))
}

fn errors(text: &str) -> Vec<Diagnostic> {
    match convert(text) {
        Ok(converted) => panic!("expected an error in\n{text}\n{}", converted.text),
        Err(errors) => errors,
    }
}

/// A complete file with `more` in it.
fn with(more: &str) -> String {
    format!("{{:etl-db-host \"//h/d\" :kafka-brokers [{{:host \"b\"}}] :data-dir \"/d\" {more}}}")
}

/// The effect of `more` on the pipeline file: the words that a file without it does not have, on
/// one line.
fn effect(more: &str) -> String {
    let bare = |piece: &str| {
        piece
            .trim_start_matches(['{', '('])
            .trim_end_matches(['}', ')'])
            .to_owned()
    };
    let pieces =
        |text: &str| -> Vec<String> { converted(text).text.split_whitespace().map(bare).collect() };
    let plain = pieces(&with(""));
    pieces(&with(more))
        .into_iter()
        .filter(|piece| !plain.contains(piece))
        .collect::<Vec<_>>()
        .join(" ")
}

fn notes(text: &str) -> Vec<String> {
    converted(text)
        .notes
        .iter()
        .map(|note| format!("{}: {note}", note.line_in(text)))
        .collect()
}

/// `UPDATE_DOCS=1 cargo test` rewrites the expected files.
#[test]
fn each_sample_is_converted_to_the_expected_pipeline() {
    let samples = samples();
    assert_eq!(
        samples,
        [
            "cluster",
            "everything",
            "lanes",
            "minimal",
            "parquet",
            "plugins",
            "slips"
        ]
    );
    for name in samples {
        let old = sample(&name);
        assert!(is_config(&old), "{name}");
        let pipeline = converted(&old).text;
        let beside = folder().join(format!("{name}.pipeline.edn"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&beside, &pipeline).expect("conf/legacy can be written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(
            pipeline,
            expected,
            "{} is out of date: run the tests once with UPDATE_DOCS=1",
            beside.display()
        );
        from_edn(&pipeline).unwrap_or_else(|errors| {
            panic!("{}", diagnostic::render(&name, &pipeline, &errors, false))
        });
        assert!(
            !is_config(&pipeline),
            "{name}: a converted file is not a legacy file"
        );
    }
}

#[test]
fn the_documented_file_is_converted_to_the_documented_pipeline() {
    let document = from_edn(&converted(&sample("everything")).text).expect("a pipeline file");
    let stages: Vec<String> = document
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, stage.call.plugin))
        .collect();
    assert_eq!(stages, ["logs mysql-logs", "disk-writer files"]);
    let settings: Vec<String> = document
        .settings
        .iter()
        .map(|(name, _, value)| format!("{name} {}", print::print(value)))
        .collect();
    let expected = [
        "etl-threads 10",
        "io-threads 4",
        "state \"redis://redis:6379\"",
        "monitor-port 8080",
        "repl-port 7122",
        "fatal-errors \"/tmp/fatalerrors\"",
    ];
    assert_eq!(settings, expected);
    assert_eq!(document.name.map(|(name, _)| name).as_deref(), Some("etl"));
}

#[test]
fn every_documented_key_without_effect_has_a_note() {
    let expected = [
        "4: `:etl-db-host autoReconnect` no longer has an effect: lost connections are always \
            reopened",
        "14: `:writer :out-buffer-size` no longer has an effect: buffers are sized from :memory",
        "14: `:writer :use-buffer` no longer has an effect: output is always buffered",
        "14: `:writer :flush-on-write` no longer has an effect: a file is synced to disk before \
            it becomes visible, and is never partial",
        "14: `:writer :allow-all-ts` no longer has an effect: no record is dropped because of its \
            timestamp",
        "17: `:consume-step` no longer has an effect: records are read in batches, limited by \
            size in bytes and by :memory",
        "20: `:redis-conf :heart-beat` no longer has an effect: Kafka detects which instances are \
            alive",
        "21: `:kafka-msg-ch-buffer-size` no longer has an effect: records in flight are bounded \
            by :memory",
        "24: `:pool` no longer has an effect: there is one queue, bounded by :memory",
        "25: `:metrics` no longer has an effect: metrics are not written to Redis; they are \
            served at /metrics on :monitor-port",
        "30: `:monitor-port`: the port is opened on 127.0.0.1 only, unlike in pseidon-etl; to \
            open it on every address, add :monitor-host \"0.0.0.0\"",
    ];
    assert_eq!(notes(&sample("everything")), expected);
}

#[test]
fn unknown_keys_are_reported_with_the_nearest_key() {
    let slips = converted(&sample("slips"));
    let unknown = slips
        .notes
        .iter()
        .filter(|note| note.kind == NoteKind::Unknown);
    let expected = [
        "`:etl-grup` is unknown and has no effect; did you mean `:etl-group`?",
        "`:kafka-brokers :rack` is unknown and has no effect",
        "`:redis-conf :hartbeat` is unknown and has no effect; did you mean `:heart-beat`?",
        "`:writer :rollover-sise` is unknown and has no effect; did you mean `:rollover-size`?",
        "`:writer :clicks.rollover-tiemout` is unknown and has no effect; did you mean \
            `:clicks.rollover-timeout`?",
        "`:shoe-size` is unknown and has no effect",
    ];
    assert_eq!(
        unknown.map(ToString::to_string).collect::<Vec<_>>(),
        expected
    );
    let others: Vec<(&str, NoteKind)> = slips
        .notes
        .iter()
        .filter(|note| note.kind != NoteKind::Unknown)
        .map(|note| (note.key.as_str(), note.kind))
        .collect();
    let expected = [
        (":etl-db-host autoReconnect", NoteKind::NoEffect),
        (":etl-db-host useUnicode", NoteKind::NoEffect),
        (":redis-conf :heart-beat", NoteKind::NoEffect),
        (":data-dir", NoteKind::Changed),
        (":writer :use-buffer", NoteKind::NoEffect),
        (":writer :clicks.codec", NoteKind::NoEffect),
        (":pool", NoteKind::NoEffect),
        (":consume-step", NoteKind::NoEffect),
        (":monitor-port", NoteKind::Changed),
    ];
    assert_eq!(others, expected);
    let text = sample("slips");
    for note in &slips.notes {
        let shown = text
            .get(note.span.start as usize..note.span.end as usize)
            .expect("a place in the file");
        assert!(note.key.contains(shown), "{note:?} is at {shown}");
    }
}

#[test]
fn each_key_has_its_effect() {
    for (more, expected) in [
        (
            ":etl-db-user \"u\" :etl-db-pwd \"\"",
            ":user \"u\" :password \"\"",
        ),
        (":etl-group \"a b\"", "\"a-b\" \"a b\" \"a b\""),
        (":topic-refresh-freq-ms 1500", "\"1500ms\""),
        (":etl-error-threshold 7", "7"),
        (":kafka-use-earliest true", ":earliest"),
        (":kafka-use-earliest nil", ""),
        (
            ":redis-conf {:host \"r\"}",
            ":state \"redis://r:6379\" :offsets-of :redis \"redis://r:6379\"",
        ),
        (
            ":redis-conf {:host \"r:1\" :port 2}",
            ":state \"redis://r:1\" :offsets-of :redis \"redis://r:1\"",
        ),
        (
            ":redis-conf {:host \"r\" :port \"2\" :db 3}",
            ":state \"redis://r:2/3\" :offsets-of :redis \"redis://r:2/3\"",
        ),
        (
            ":redis-conf {:host \"::1\"}",
            ":state \"redis://[::1]:6379\" :offsets-of :redis \"redis://[::1]:6379\"",
        ),
        (
            ":redis-conf {:host \"a:1, b\"}",
            ":state \"redis-cluster://a:1,b:6379\" :offsets-of :redis \
                \"redis-cluster://a:1,b:6379\"",
        ),
        (
            ":redis-conf {:host [{:host \"a\"} \"b:2\"] :password \"${env:P}\"}",
            ":state \"redis-cluster://:${env:P}@a:6379,b:2\" :offsets-of :redis \
                \"redis-cluster://:${env:P}@a:6379,b:2\"",
        ),
        (
            ":redis-conf {:host \"${env:R}\"}",
            ":state \"redis://${env:R}\" :offsets-of :redis \"redis://${env:R}\"",
        ),
        (
            ":redis-conf {:host \"r\"} :state \"redis://other\"",
            ":state \"redis://other\" :offsets-of :redis \"redis://r:6379\"",
        ),
        (
            ":etl-threads 1 :io-threads 2 :memory 1000000000",
            ":etl-threads 1 :io-threads 2 :memory 1000000000",
        ),
        (
            ":monitor-port 1 :monitor-host \"::\" :repl-port 65535",
            ":monitor-port 1 :monitor-host \"::\" :repl-port 65535",
        ),
        (":fatal-errors \"/var/log/x\"", "\"/var/log/x\""),
        (
            ":avro-schema-registry-url \"http://r\"",
            ":registry \"http://r\"",
        ),
        (":writer {:codec :none}", ":output-format :txt"),
        (":writer {:codec \"avro\"}", ":output-format :avro"),
        (":writer {:codec :native-gzip}", ""),
        (":writer {:check-freq 1}", "\"1ms\""),
        (
            ":writer {:rollover-size 5 :rollover-timeout 6000 :rollover-abs-timeout \
                9223372036854775807}",
            "5 \"6s\" \"3153600000s\"",
        ),
        (":writer {:parallel-files 5 :write-multiplier 4}", "20"),
        (
            ":writer {:parquet-block-size 20971520}",
            ":row-group 20971520",
        ),
        (":writer {:base-dir (\"/a\" \"/b\")}", "[\"/a\" \"/b\"]"),
        (
            ":move-files true",
            ":move-to :path \
                \"${log:base_partition}/${log:log_partition}/{${log:time}:${log:date}}\" :prefix \
                \"${host:name}-\"",
        ),
    ] {
        assert_eq!(effect(more), expected, "{more}");
    }
}

#[test]
fn databases_are_parsed_from_jdbc_urls() {
    for (host, expected) in [
        (
            "//localhost:3306/mydb",
            ":url \"mysql://localhost:3306/mydb\"",
        ),
        (
            "jdbc:mysql://db/mydb?user=u&password=p",
            ":url \"mysql://db/mydb\" :user \"u\" :password \"p\"",
        ),
        ("///mydb", ":url \"mysql://localhost/mydb\""),
        ("//a:1,b:2/mydb", ":url \"mysql://a:1/mydb\""),
        ("//${env:DB}/mydb", ":url \"mysql://${env:DB}/mydb\""),
    ] {
        let text = with("").replace("//h/d", host);
        let pipeline = converted(&text).text;
        assert!(pipeline.contains(expected), "{host}: {pipeline}");
    }
}

#[test]
fn topics_with_their_own_rules_become_separate_sinks() {
    let text = with(":writer {:parallel-files 2 :a.b.parallel-files 5 :c.rollover-size 9}");
    let flow = |text: &str| {
        converted(text)
            .text
            .split_once("\n pipeline ")
            .map(|(_, flow)| flow.to_owned())
            .expect("a flow")
    };
    assert_eq!(
        flow(&text),
        "(-> logs (match \"a.b\" disk-writer-a.b \"c\" disk-writer-c :else disk-writer))}\n"
    );
    let lanes = |text: &str| converted(text).text.matches(":lanes 5").count();
    assert_eq!(lanes(&text), 1);
    let followed = text
        .replace(
            ":writer",
            "x (stdout) pipeline (-> (match \"t\" disk-writer) x) :writer",
        )
        .replace(":a.b.parallel-files 5 ", "");
    assert_eq!(
        flow(&followed),
        "(-> logs (match \"t\" (all (match \"c\" disk-writer-c :else disk-writer))) x)}\n"
    );
}

#[test]
fn the_source_goes_before_the_pipeline_of_the_plugins() {
    let flow = |more: &str| {
        converted(&with(more))
            .text
            .split_once("\n pipeline ")
            .map(|(_, flow)| flow.to_owned())
            .expect("a flow")
    };
    for (more, expected) in [
        ("", "(-> logs disk-writer)"),
        (":plugins {}", "(-> logs disk-writer)"),
        (
            ":plugins {pipeline (-> disk-writer)}",
            "(-> logs disk-writer)",
        ),
        (":plugins disk-writer", "(-> logs disk-writer)"),
        (
            ":pipeline (all disk-writer (stdout))",
            "(-> logs (all disk-writer (stdout)))",
        ),
        (
            "pipeline (match \"t\" disk-writer #r\"a|b\" (drop))",
            "(-> logs (match \"t\" disk-writer #r\"a|b\" (drop)))",
        ),
        (
            "logs (where \"msg > 'a'\") pipeline (-> logs disk-writer)",
            "(-> logs-2 logs disk-writer)",
        ),
    ] {
        assert_eq!(flow(more), format!("{expected}}}\n"), "{more}");
    }
    let own = converted(&with(
        "disk-writer (files {:path \"/own\"}) pipeline (-> disk-writer)",
    ));
    assert_eq!(own.text.matches("(files ").count(), 1, "{}", own.text);
    assert_eq!(
        own.notes
            .iter()
            .map(|note| note.key.as_str())
            .collect::<Vec<_>>(),
        [":data-dir"]
    );
    assert!(
        convert(&with("pipeline (-> (stdout))").replace(":data-dir \"/d\"", "")).is_ok(),
        "no folder is required if none is used"
    );
}

#[test]
fn classes_are_errors_with_a_replacement_in_the_help() {
    let text = with(
        ":plugins {a pseidon.plugin.IncPlugin b my.ns/inc c (my.C {}) d my.Unused\n\
         pipeline (-> a b (match \"double\" c) (all other.D disk-writer))}",
    );
    let found = errors(&text);
    let shown: Vec<(&str, &str)> = found
        .iter()
        .map(|error| {
            (
                text.get(error.span.start as usize..error.span.end as usize)
                    .expect("a place"),
                error.label.as_str(),
            )
        })
        .collect();
    let expected = [
        ("pseidon.plugin.IncPlugin", "used in the pipeline as `a`"),
        ("my.ns/inc", "used in the pipeline as `b`"),
        ("my.C", "used in the pipeline as `c`"),
        ("other.D", "used in the pipeline"),
    ];
    assert_eq!(shown, expected);
    let help = found[0].help.as_deref().expect("help");
    assert!(
        help.contains("(where ") && help.contains("pseidon plugins"),
        "{help}"
    );

    let alone = "{a some.Plugin\n pipeline (-> a)}";
    assert!(is_config(alone));
    let messages: Vec<String> = errors(alone)
        .into_iter()
        .map(|error| error.message)
        .collect();
    assert_eq!(
        messages,
        [
            "a pseidon-plugin pipeline has no source",
            "`some.Plugin` is a Java or Clojure class, which is not supported"
        ]
    );
}

#[test]
fn invalid_values_are_errors_at_their_positions() {
    for (text, expected) in [
        (
            "{:data-dir \"/d\"}".to_owned(),
            &[
                ("{", "missing required key `:etl-db-host`"),
                ("{", "missing required key `:kafka-brokers`"),
            ][..],
        ),
        (
            with("").replace(":data-dir \"/d\"", ""),
            &[("{", "missing required key `:data-dir`")],
        ),
        (
            with("").replace("//h/d", "//h"),
            &[("\"//h\"", "invalid value for `:etl-db-host`")],
        ),
        (
            with("").replace("{:host \"b\"}", ""),
            &[("[]", "invalid value for `:kafka-brokers`")],
        ),
        (
            with("").replace("{:host \"b\"}", "{:port 1} 5 {:host \"b:x\"}"),
            &[
                ("{:port 1}", "invalid value for `:kafka-brokers`"),
                ("5", "invalid value for `:kafka-brokers`"),
                ("\"b:x\"", "invalid value for `:kafka-brokers :host`"),
            ],
        ),
        (
            with(":etl-threads 0"),
            &[("0", "invalid value for `:etl-threads`")],
        ),
        (
            with(":monitor-port 70000"),
            &[("70000", "invalid value for `:monitor-port`")],
        ),
        (
            with(":redis-conf {}"),
            &[("{}", "invalid value for `:redis-conf`")],
        ),
        (
            with(":writer {:codec :lzo :rollover-size \"1\" :clicks.check-freq 0}"),
            &[
                (":lzo", "invalid value for `:writer :codec`"),
                ("\"1\"", "invalid value for `:writer :rollover-size`"),
                ("0", "invalid value for `:writer :clicks.check-freq`"),
            ],
        ),
        (with(":writer []"), &[("[]", "invalid value for `:writer`")]),
        (
            with(":kafka-use-earliest :yes"),
            &[(":yes", "invalid value for `:kafka-use-earliest`")],
        ),
        (
            with(":memory \"lots\""),
            &[("\"lots\"", "invalid value for `:memory`")],
        ),
        (
            with("5 6"),
            &[("5", "a number cannot be a key of this map")],
        ),
        (
            with("a 5 pipeline (->)"),
            &[
                ("5", "`a` must be a stage"),
                ("(->)", "this form has no stages"),
            ],
        ),
        (
            with(":plugins {pipeline (-> disk-writer)} pipeline (-> disk-writer)"),
            &[("pipeline", "duplicate pipeline")],
        ),
        (
            with("").replace("}", ""),
            &[("{", "unclosed `{`"), ("{", "unclosed `{`")],
        ),
        ("[]".to_owned(), &[("[]", "pseidon.edn must be a map")]),
    ] {
        let found = errors(&text);
        let shown: Vec<(&str, &str)> = found
            .iter()
            .map(|error| {
                (
                    text.get(error.span.start as usize..error.span.end as usize)
                        .expect("a place"),
                    error.message.as_str(),
                )
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn passwords_are_not_shown_in_errors() {
    for text in [
        with(":etl-db-pwd [\"hunter2\"]"),
        with(":redis-conf {:host \"r\" :password {:x \"hunter2\"}}"),
    ] {
        let found = errors(&text);
        assert!(
            found
                .iter()
                .all(|error| !format!("{error:?}").contains("hunter2")),
            "{found:?}"
        );
    }
}

#[test]
fn a_password_in_the_file_adds_a_comment() {
    let advice = "${env:ETL_DB_PWD}";
    for (more, expected) in [
        (":etl-db-pwd \"hunter2\"", true),
        (":etl-db-pwd \"${file:/run/secrets/pwd}\"", false),
        (":redis-conf {:host \"r\" :password \"hunter2\"}", true),
        ("", false),
    ] {
        assert_eq!(
            converted(&with(more)).text.contains(advice),
            expected,
            "{more}"
        );
    }
    let escaped = converted(&with(":redis-conf {:host \"r\" :password \"a/b@c%\"}")).text;
    assert!(
        escaped.contains("redis://:a%2Fb%40c%25@r:6379"),
        "{escaped}"
    );
}

#[test]
fn legacy_files_are_distinguished_from_pipeline_files() {
    for (text, expected) in [
        ("{:etl-db-host \"//h/d\"}", true),
        ("{:kafka-brokers 0x :writer 5}", true),
        ("{:writer {} pipeline (-> disk-writer)}", true),
        ("{a some.Plugin pipeline (-> a)}", true),
        ("{a stdout pipeline (-> a disk-writer)}", true),
        ("{a stdin b stdout pipeline (-> a b)}", false),
        ("{a (kafka {}) pipeline (-> a disk-writer)}", false),
        ("{:name \"x\" a some.Plugin pipeline (-> a)}", false),
        ("{:name \"x\" :data-dir \"/d\"}", false),
        ("{:etl-threads 5 a (stdin) pipeline (-> a (stdout))}", false),
        ("{}", false),
        ("(-> disk-writer)", false),
        ("", false),
        ("name = \"x\"", false),
    ] {
        assert_eq!(is_config(text), expected, "{text}");
    }
}

#[test]
fn long_pipelines_are_wrapped() {
    let text = converted(&sample("everything")).text;
    assert!(text.lines().all(|line| line.len() <= 140), "{text}");
    let node = edn::read(&text).expect("EDN");
    let flat = print::print(&node);
    assert_eq!(
        print::print(&edn::read(&print::pretty(&node)).expect("EDN")),
        flat
    );
}
