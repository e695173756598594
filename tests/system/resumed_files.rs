//! A run that is killed while it reads a file resumes at a record, wherever its lanes had got to.
//!
//! The records are raw lines, so that a part of a line is delivered like any other record. There is
//! no quarantine, whose position would be another one. Compressing takes longer than reading, so at
//! each commit newer records wait in the lane.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::output::{all_lines, hidden};
use crate::harness::{Site, wait_until};

const LINES: u64 = 300_000;
/// The longest record if longer ones are skipped, in bytes.
const LONGEST: usize = 60;
/// After how many commits each run is killed. A commit has at most 16 of the 300 files, so these are
/// not all commits.
const KILLED_AFTER: [u32; 3] = [2, 3, 4];

#[test]
fn a_plain_file_is_read_once() {
    killed_while_reading("resumed-plain", "in/a.log", "", |content| content);
}

#[test]
fn a_compressed_file_is_read_once() {
    killed_while_reading("resumed-gzip", "in/a.log.gz", "", |content| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&content).expect("compressed");
        encoder.finish().expect("compressed")
    });
}

#[test]
fn a_followed_file_is_read_once() {
    killed_while_reading(
        "resumed-follow",
        "in/a.log",
        ":follow true :poll \"50ms\"",
        |content| content,
    );
}

#[test]
fn records_that_are_too_long_are_skipped_in_every_run() {
    let options = format!(":max-record \"{LONGEST}B\" :on-long-record :skip");
    killed_while_reading("resumed-long", "in/a.log", &options, |content| content);
}

/// Kills runs while their only lane has committed files and holds newer records, until the last run
/// reads the rest.
fn killed_while_reading(test: &str, path: &str, more: &str, encode: fn(Vec<u8>) -> Vec<u8>) {
    let site = Site::new(test);
    fs::create_dir_all(site.path("in")).expect("a folder");
    let mut expected: Vec<String> = (0..LINES)
        .map(|number| format!("{number:08} {}", "x".repeat(number as usize * 7919 % 61)))
        .collect();
    let content = expected.join("\n") + "\n";
    site.write(path, encode(content.into_bytes()));
    if more.contains(":skip") {
        expected.retain(|line| line.len() <= LONGEST);
        assert!(expected.len() < LINES as usize, "some lines are too long");
    }
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "resumed" :settings {{:commit-interval "50ms"}}
                in (files {{:path "{path}" :format "raw" :on-error :noop {more}}})
                pipeline (-> in (files {{:path "out" :codec :txt :compression :gzip :check-freq "10ms" :rollover {{:records 1000 :idle "1s"}}}}))}}"#
        ),
    );
    for commits in KILLED_AFTER {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", format!("committed:{commits}"));
        site.start(command).expect_death("committed", 60);
    }
    let mut pseidon = site.run("pipeline.edn");
    wait_until("everything is visible", 120, || {
        all_lines(&site.path("out")).len() >= expected.len()
    });
    if more.contains(":follow") {
        pseidon.stop(60);
    } else {
        pseidon.expect_exit(0, 60);
    }
    expected.sort();
    let found = all_lines(&site.path("out"));
    let torn: Vec<&String> = found
        .iter()
        .filter(|line| expected.binary_search(line).is_err())
        .collect();
    assert_eq!(torn, Vec::<&String>::new(), "these are not records");
    assert!(found == expected, "{} of {LINES} records", found.len());
    assert!(hidden(&site.path("out")).is_empty());
}
