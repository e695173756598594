//! The recipes of docs/recipes.md that have no `:tests`, as they are printed.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::output::{all_lines, files};
use crate::harness::servers::free_port;
use crate::harness::{Site, brokers, topics};
use crate::kafka_source::wait_read;

/// The pipeline file below a heading of the page.
fn recipe(heading: &str) -> String {
    let page = include_str!("../../docs/recipes.md");
    let (_, section) = page
        .split_once(&format!("## {heading}\n"))
        .unwrap_or_else(|| panic!("docs/recipes.md has no section `{heading}`"));
    let (_, block) = section.split_once("```clojure\n").expect("a pipeline file");
    let (block, _) = block.split_once("```").expect("the end of the block");
    block.to_owned()
}

/// A folder with the pipeline file of a recipe.
fn site(name: &str, heading: &str) -> Site {
    let site = Site::new(name);
    site.write("pipeline.edn", recipe(heading));
    site
}

/// The recipe with a port for its metrics.
fn watched(recipe: &str) -> (u16, String) {
    let port = free_port();
    let settings = format!("{{:settings {{:monitor-port {port}}}\n ");
    (port, recipe.replacen('{', &settings, 1))
}

fn clicks(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{{\"user_id\":{number}}}"))
        .collect()
}

#[test]
fn keep_some_records() {
    let site = site("recipe-route", "Keep some records");
    let record = |status| format!("{{\"status\":{status}}}");
    let records: Vec<_> = [200, 404, 500, 503].map(record).into();
    site.write("logs/a.ndjson", records.join("\n") + "\n");
    site.finish("pipeline.edn", 30);
    for (folder, statuses) in [
        ("failed", &[500, 503][..]),
        ("refused", &[404]),
        ("others", &[200]),
    ] {
        let expected: Vec<_> = statuses.iter().copied().map(record).collect();
        assert_eq!(all_lines(&site.path(&format!("out/{folder}"))), expected);
    }
}

#[test]
fn many_small_compressed_files_to_a_few_large_ones() {
    let site = site(
        "recipe-many",
        "Many small compressed files to a few large ones",
    );
    let records = clicks(40);
    for (number, part) in records.chunks(2).enumerate() {
        site.write(&format!("parts/{number:02}.ndjson"), part.join("\n") + "\n");
        let path = site.path(&format!("parts/{number:02}.ndjson"));
        let status = Command::new("gzip").arg(path).status();
        assert!(status.expect("gzip").success());
    }
    site.finish("pipeline.edn", 60);
    let whole = files(&site.path("whole"));
    assert_eq!(whole.len(), 1, "{whole:?}");
    let mut expected = records;
    expected.sort();
    assert_eq!(all_lines(&site.path("whole")), expected);
}

/// The log is renamed, and then compressed, while it is followed.
#[test]
fn follow_a_log_through_its_rotations() {
    let site = Site::new("recipe-rotation");
    let (port, flow) = watched(&recipe("Follow a log through its rotations, hourly files"));
    site.write("pipeline.edn", &flow);
    fs::create_dir_all(site.path("logs")).expect("a folder");
    let mut pseidon = site.run("pipeline.edn");
    let lines: Vec<String> = (0..90).map(|number| format!("line {number:02}")).collect();
    for (round, part) in lines.chunks(30).enumerate() {
        for line in part {
            let mut log = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(site.path("logs/app.log"))
                .expect("the log");
            writeln!(log, "{line}").expect("a line");
        }
        wait_read(port, (round as u64 + 1) * 30);
        fs::rename(site.path("logs/app.log"), site.path("logs/app.log.1")).expect("renamed");
        if round == 1 {
            let status = Command::new("gzip")
                .arg("-f")
                .arg(site.path("logs/app.log.1"))
                .stdout(Stdio::null())
                .status();
            assert!(status.expect("gzip").success());
        }
    }
    pseidon.stop(30);
    assert_eq!(all_lines(&site.path("out")), lines);
    // All files are looked at once more.
    site.write("pipeline.edn", flow.replace(" :follow true", ""));
    site.finish("pipeline.edn", 30);
    assert_eq!(all_lines(&site.path("out")), lines);
}

#[test]
fn a_part_of_the_records() {
    let site = site("recipe-sample", "A part of the records");
    let records = clicks(20_000);
    site.write("clicks/a.ndjson", records.join("\n") + "\n");
    site.finish("pipeline.edn", 30);
    let some = all_lines(&site.path("out"));
    assert!((100..400).contains(&some.len()), "{} of 20000", some.len());
    assert!(some.iter().all(|line| records.contains(line)));
}

#[test]
fn no_faster_than_the_target_allows() {
    let site = Site::new("recipe-throttle");
    let topic = format!("{}-clicks", site.name);
    let flow = recipe("No faster than the target allows");
    let here = flow
        .replace("localhost:9092", &brokers())
        .replace(":topic \"clicks\"", &format!(":topic \"{topic}\""));
    let (port, flow) = watched(&here);
    site.write("pipeline.edn", flow);
    let records = clicks(20);
    site.write("clicks/a.ndjson", records.join("\n") + "\n");
    let mut pseidon = site.run("pipeline.edn");
    wait_read(port, 20);
    pseidon.stop(30);
    let mut sent = topics::committed(&topic).concat();
    sent.sort();
    let mut expected = records;
    expected.sort();
    assert_eq!(sent, expected);
}
