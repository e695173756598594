//! Records of several lines: each is delivered whole and once, also to sinks that are not equally
//! far when a run is killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

const KILLS: usize = 6;
/// More records than a batch has, over all runs.
const RECORDS_OF_A_RUN: usize = 1500;

/// A record of up to four lines, as it is in the log.
fn record(number: usize) -> String {
    let lines = (1..number % 4).map(|line| format!("\n\tat line {line} of {number}"));
    format!("2026-01-31 {number}{}", lines.collect::<String>())
}

/// The record as it is delivered.
fn delivered(number: usize) -> String {
    let record = record(number).replace('\n', "\\n").replace('\t', "\\t");
    format!("{{\"line\":\"{record}\"}}")
}

/// Appends a text in pieces that end anywhere, so that a run sees incomplete lines and records.
fn append(path: PathBuf, text: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.expect("the log can be opened");
    for piece in text.as_bytes().chunks(997) {
        file.write_all(piece).expect("written");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_record_is_delivered_whole_and_once_after_kills() {
    let site = Site::new("multi-line-kills");
    site.write(
        "pipeline.edn",
        r#"{in       (files {:path "in/*.log*" :format "txt" :follow true :poll "5ms"
                             :record-start #r"^2026-"})
            lines    (select "line")
            often    (files {:path "often" :rollover {:records 100 :idle "50ms"}})
            seldom   (files {:path "seldom" :rollover {:records 1300 :idle "900ms"}})
            pipeline (-> in lines (all often seldom))}"#,
    );
    fs::create_dir_all(site.path("in")).expect("a folder");
    let mut written = 0;
    for kill in 0..KILLS {
        let mut pseidon = site.run("pipeline.edn");
        let (path, next) = (site.path("in/app.log"), written + RECORDS_OF_A_RUN);
        let text: String = (written..next)
            .map(|number| record(number) + "\n")
            .collect();
        let writer = std::thread::spawn(move || append(path, &text));
        std::thread::sleep(site.random.millis(300..900));
        pseidon.kill();
        writer.join().expect("the writer");
        written = next;
        if kill == KILLS / 2 {
            fs::rename(site.path("in/app.log"), site.path("in/app.log.1")).expect("rotated");
        }
    }
    // Only the next record shows where the last one of a file ends.
    for name in ["in/app.log", "in/app.log.1"] {
        append(site.path(name), "2026-02-01 end\n");
    }
    let mut expected: Vec<String> = (0..written).map(delivered).collect();
    expected.sort();
    let mut pseidon = site.run("pipeline.edn");
    for folder in ["often", "seldom"].map(|folder| site.path(folder)) {
        wait_until("all is delivered", 90, || {
            all_lines(&folder).len() >= written
        });
        let found = all_lines(&folder);
        let differs = found
            .iter()
            .zip(&expected)
            .find(|(one, other)| one != other);
        assert_eq!(differs, None, "{}", folder.display());
        assert_eq!(found.len(), written, "{}", folder.display());
    }
    pseidon.stop(30);
}
