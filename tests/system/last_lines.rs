//! Lines without an end and lines that are too long, in plain files: a record is neither torn nor
//! delivered twice, and what cannot be read keeps nothing else from being delivered.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

fn append(site: &Site, name: &str, text: &str) {
    let file = OpenOptions::new().append(true).open(site.path(name));
    file.expect("the file exists")
        .write_all(text.as_bytes())
        .expect("written");
}

/// Makes a file look as if it had not changed for a minute.
fn settle(site: &Site, name: &str) {
    let file = OpenOptions::new().append(true).open(site.path(name));
    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    file.expect("the file exists")
        .set_modified(minute_ago)
        .expect("a time");
}

fn site(test: &str, options: &str, select: &str) -> Site {
    let site = Site::new(test);
    fs::create_dir_all(site.path("in")).expect("a folder");
    site.write(
        "pipeline.edn",
        format!(
            r#"{{in (files {{:path "in/*" {options}}})
                pipeline (-> in (select "{select}")
                             (files {{:path "out" :rollover {{:idle "100ms"}}}}))}}"#
        ),
    );
    site
}

/// Runs the pipeline, and returns its log.
fn run(site: &Site) -> String {
    site.finish("pipeline.edn", 60).log()
}

#[test]
fn a_json_file_without_a_last_line_end_is_read_and_may_grow() {
    let site = site("last-json", r#":format "json""#, "id");
    site.write("in/a.json", r#"{"id":1}"#);
    run(&site);
    append(&site, "in/a.json", "\n{\"id\":2}\n{\"id\":");
    let log = run(&site);
    assert!(log.contains("the last line has no line end"), "{log}");
    assert!(log.contains("in/a.json"), "{log}");
    append(&site, "in/a.json", "3}\n");
    let log = run(&site);
    assert!(!log.contains("the last line has no line end"), "{log}");
    let expected: Vec<String> = (1..=3).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(all_lines(&site.path("out")), expected);
}

#[test]
fn a_line_of_text_that_is_being_written_is_not_torn() {
    let site = site("last-text", r#":format "txt""#, "line");
    site.write("in/a.log", "one\nhello wor");
    // However slowly it is read, it was written a moment ago.
    let options = fs::OpenOptions::new()
        .append(true)
        .open(site.path("in/a.log"));
    let file = options.expect("it is there");
    file.set_modified(SystemTime::now() + Duration::from_secs(3600))
        .expect("a time");
    let log = run(&site);
    assert!(log.contains("the last line has no line end"), "{log}");
    append(&site, "in/a.log", "ld\nnext");
    settle(&site, "in/a.log");
    run(&site);
    let expected = ["hello world", "next", "one"].map(|line| format!("{{\"line\":\"{line}\"}}"));
    assert_eq!(all_lines(&site.path("out")), expected);
}

#[test]
fn a_flow_without_a_next_run_reads_every_line() {
    let site = Site::new("last-flow");
    site.write("a.log", "one\ntwo");
    let flow = r#"(-> (files "a.log") (stdout))"#;
    let output = site.pseidon().args(["run", "-e", flow]).output();
    let output = output.expect("the binary can be started");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"line\":\"one\"}\n{\"line\":\"two\"}\n"
    );
}

#[test]
fn a_long_record_of_a_followed_file_keeps_no_others_from_being_delivered() {
    let options = r#":format "json" :follow true :poll "20ms" :max-record "1MB""#;
    let site = site("long-followed", options, "id");
    site.write("in/a.json", "{\"id\":1}\n");
    let long = format!("{{\"id\":\"{}\"}}\n", "x".repeat(1_200_000));
    site.write("in/z.json", format!("{long}{{\"id\":3}}\n"));
    let out = site.path("out");
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the other file is delivered", 60, || {
        all_lines(&out).len() == 1
    });
    wait_until("the file is named", 60, || {
        pseidon.log().contains("a file is not read further")
    });
    append(&site, "in/a.json", "{\"id\":2}\n");
    wait_until("the run goes on", 60, || all_lines(&out).len() == 2);
    pseidon.stop(60);
    let log = pseidon.log();
    assert!(log.contains("z.json"), "{log}");
    assert!(log.contains(":on-long-record :skip"), "{log}");

    let text = fs::read_to_string(site.path("pipeline.edn")).expect("the pipeline");
    let text = text.replace("\"1MB\"", "\"1MB\" :on-long-record :skip");
    site.write("pipeline.edn", text);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("what follows is delivered", 60, || {
        all_lines(&out).len() == 3
    });
    pseidon.stop(60);
    let log = pseidon.log();
    assert!(log.contains("it is skipped"), "{log}");
    assert!(log.contains("dropped=1"), "{log}");
    let expected: Vec<String> = (1..=3).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(all_lines(&out), expected);
}
