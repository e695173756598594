//! Strings in the state, in the positions topic and in the files of a quarantine: those of this
//! version, of another one, and damaged ones.
//!
//! The modules of the program that read two of them are compiled here, since no other crate can
//! name what is in a program.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_delivery::SplitId;
use pseidon_fuzz::{plan_of, setup};
use pseidon_kafka::sink::properties::{check_key, check_value};
use pseidon_kafka::source::properties::{check_identity, check_note};
use pseidon_plan::{Plan, PlannedTable};
use pseidon_plugin::source::{KnownSplit, MoveTo, Resumption};
use tempfile::TempDir;

use self::kept::{KeptPipeline, MAX_KEPT, MAX_OF_LOG, keep, tables_of};
use self::record::QuarantinedRecord;

#[path = "../../src/load/kept.rs"]
mod kept;
#[path = "../../src/commands/replay/record.rs"]
mod record;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let file = "{in (files {:path \"*.json\"}) pipeline (-> in (files {:path \"out\"}))}";
    plan_of(file).expect("the file is valid")
});
/// A folder with a file that the source reads.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.json"), "{\"n\":1}\n{\"n\":2}\n").expect("space");
    folder
});

/// The entry of a staged file, as `pseidon staged` shows it.
fn staged(detail: &str) {
    for sink in PLAN.sinks.iter() {
        let _ = sink.prepared.staged_file(detail, FOLDER.path());
    }
}

/// The entry of a file that is read, as `pseidon offsets` shows and moves it.
fn progress(resume: &str, position: u64) {
    let Some(planned) = PLAN.sources.first() else {
        return;
    };
    let source = planned.source.as_ref();
    let setup = setup(FOLDER.path(), planned.format.as_ref(), source);
    let splits = source.describe_splits(&setup, &[]).unwrap_or_default();
    assert_eq!(splits.len(), 1);
    let at = Resumption {
        position,
        resume: Some(resume.into()),
        is_finished: false,
    };
    let known = |split: &SplitId| KnownSplit {
        split: split.clone(),
        at: at.clone(),
    };
    let known: Vec<KnownSplit> = splits.iter().map(|status| known(&status.split)).collect();
    let _ = source.describe_splits(&setup, &known);
    for to in [MoveTo::Earliest, MoveTo::Latest, MoveTo::Position(position)] {
        let _ = source.find_places(&setup, &known, to);
    }
}

/// A line of a quarantine: a record that is read has its place, and text of its own.
fn quarantined(line: &[u8]) {
    let Ok(read) = QuarantinedRecord::read(line) else {
        return;
    };
    let _ = read.metadata.of_record();
    let object: serde_json::Value = serde_json::from_slice(line).expect("a record is JSON");
    for (name, text) in [
        ("stage", &read.stage),
        ("split", &read.split),
        ("topic", &read.topic),
    ] {
        assert_eq!(object[name].as_str(), Some(text.as_str()));
    }
    assert_eq!(object["partition"], read.partition);
    assert_eq!(object["position"], read.position);
    assert_eq!(object["version"].as_str(), read.version.as_deref());
    assert_eq!(object["metadata"].is_object(), read.metadata_text.is_some());
    let has_bytes = object["record"].is_string() || object["record_base64"].is_string();
    assert_eq!(has_bytes, read.payload.is_some());
}

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    check_value(data);
    quarantined(data);
    let text = String::from_utf8_lossy(data);
    check_note(&text);
    check_identity(&text);
    check_key(&text, "sink", &text, data.len() as u16);
    staged(&text);
    progress(&text, data.len() as u64);
    let kept = KeptPipeline::read(&text);
    for largest in [MAX_KEPT, MAX_OF_LOG] {
        assert_eq!(keep(&kept.text, &[], largest), kept.text);
    }
    assert!(tables_of(&PLAN, |table| !table.path.is_empty()).is_empty());
    let tables = kept.tables.iter().map(|(path, table)| PlannedTable {
        path: path.clone(),
        table: table.clone(),
        reload: None,
    });
    let again = keep(&kept.text, &tables.collect::<Vec<_>>(), MAX_KEPT);
    assert!(kept.tables.is_empty() || KeptPipeline::read(&again).text == kept.text);
});
