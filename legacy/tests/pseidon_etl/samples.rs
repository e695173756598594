//! The files in `conf/legacy`, with the expected pipeline beside each of them.

use std::fs;
use std::path::PathBuf;

use pseidon_dsl::document::from_edn;
use pseidon_dsl::{diagnostic, edn, print};
use pseidon_legacy::NoteKind;
use pseidon_legacy::pseidon_etl::is_config;

use super::converted;

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
