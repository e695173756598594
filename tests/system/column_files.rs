//! What the tests of files of columns share: flows of the command line, files that the sink writes,
//! and runs that are killed while they read.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::harness::output::{all_lines, files, hidden};
use crate::harness::{Pseidon, Site, wait_until};

/// Runs a flow of the command line. Returns what it prints, its log, and its exit code.
pub(crate) fn run(site: &Site, flow: &str) -> (Vec<String>, String, Option<i32>) {
    let output = site.pseidon().args(["run", "-e", flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8(output.stderr).expect("text");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(str::to_owned).collect();
    (lines, log, output.status.code())
}

/// Runs a flow that succeeds. Returns what it prints.
pub(crate) fn printed(site: &Site, flow: &str) -> Vec<String> {
    let (lines, log, code) = run(site, flow);
    assert_eq!(code, Some(0), "{log}");
    lines
}

/// Writes records with the sink `files` and these options. Returns the file.
pub(crate) fn written(site: &Site, schema: &str, records: &str, options: &str) -> PathBuf {
    site.write("records.ndjson", records);
    let flow = format!(
        r#"(-> (files {{:path "records.ndjson" :schema {{{schema}}}}})
            (files {{:path "written" {options}}}))"#
    );
    printed(site, &flow);
    let [written] = &files(&site.path("written"))[..] else {
        panic!("one file is written");
    };
    written.clone()
}

/// Moves a file to its place.
pub(crate) fn place(site: &Site, written: PathBuf, path: &str) {
    let to = site.path(path);
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::rename(written, to).expect("a file");
}

/// The fields of [`record`].
pub(crate) const FIELDS: &str = ":id :int64 :s :utf8";

/// A record of the tests with kills, as a line.
pub(crate) fn record(number: u64) -> String {
    let text = "x".repeat(number as usize * 7919 % 61);
    format!("{{\"id\":{number},\"s\":\"{text}\"}}\n")
}

/// Records of the tests with kills.
pub(crate) fn records(numbers: Range<u64>) -> String {
    numbers.map(record).collect()
}

/// Runs that are killed while they read.
pub(crate) struct KillTest<'w> {
    /// The extension of the files.
    pub(crate) extension: &'w str,
    /// The number of records.
    pub(crate) count: u64,
    /// The numbers of those that the pipeline uses.
    pub(crate) used: Range<u64>,
    /// Writes a file of records with [`FIELDS`].
    pub(crate) write: &'w dyn Fn(&Site, &str, &str),
}

impl KillTest<'_> {
    /// Kills runs while their lane has committed files and holds newer records. The last run ends,
    /// and nothing is left for another one.
    pub(crate) fn read_once(&self, test: &str) {
        let (site, expected) = self.kill(test, "");
        let mut pseidon = continued(&site, expected.len());
        pseidon.expect_exit(0, 60);
        site.run("pipeline.edn").expect_exit(0, 60);
        check(&site, &expected);
    }

    /// The same with a source that follows the files. `then` adds files and what is expected of
    /// them.
    pub(crate) fn follow(&self, test: &str, then: impl Fn(&Site, &mut Vec<String>)) {
        let (site, mut expected) = self.kill(test, ":follow true :poll \"50ms\"");
        let mut pseidon = continued(&site, expected.len());
        then(&site, &mut expected);
        pseidon.stop(60);
        check(&site, &expected);
    }

    /// Writes the files and kills runs. Returns what is expected of them in the end.
    fn kill(&self, test: &str, more: &str) -> (Site, Vec<String>) {
        let KillTest {
            extension,
            count,
            used,
            ..
        } = self;
        let (from, to) = (used.start, used.end);
        let site = Site::new(test);
        for part in 0..4 {
            let records = records(part * count / 4..(part + 1) * count / 4);
            (self.write)(&site, &format!("in/{part}.{extension}"), &records);
        }
        site.write(
            "pipeline.edn",
            format!(
                r#"{{:name "rows" :settings {{:commit-interval "50ms"}}
                    in (files {{:path "in/*.{extension}" {more}}})
                    pipeline (-> in (where "id >= {from} and id < {to} and id % 3 <> 1") (files {{:path "out"
                        :codec :json :check-freq "10ms" :rollover {{:records 400 :idle "1s"}}}}))}}"#
            ),
        );
        for commits in [2, 3, 3] {
            let mut command = site.command("pipeline.edn");
            command.env("PSEIDON_FAIL", format!("committed:{commits}"));
            site.start(command).expect_death("committed", 60);
        }
        let wanted = used.clone().filter(|number| number % 3 != 1);
        let mut expected: Vec<String> = wanted
            .map(|number| record(number).trim_end().to_owned())
            .collect();
        expected.sort();
        (site, expected)
    }
}

/// A run that continues until as many records are visible.
fn continued(site: &Site, count: usize) -> Pseidon {
    let pseidon = site.run("pipeline.edn");
    wait_until("everything is visible", 120, || {
        all_lines(&site.path("out")).len() >= count
    });
    pseidon
}

fn check(site: &Site, expected: &[String]) {
    let found = all_lines(&site.path("out"));
    let counts = (found.len(), expected.len());
    assert!(found == expected, "{counts:?} records");
    assert!(hidden(&site.path("out")).is_empty());
}
