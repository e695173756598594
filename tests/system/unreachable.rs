//! Servers that do not answer: a message names their address and what to check.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::Site;

/// The first log line of a run of this file that contains `words`. The run is killed then.
fn line_of_run(site: &Site, file: &str, words: &str) -> String {
    let mut command = site.pseidon();
    command.args(["run", file]).stderr(Stdio::piped());
    let mut run = command.spawn().expect("it starts");
    let log = BufReader::new(run.stderr.take().expect("a pipe"));
    let mut lines = log.lines().map(|line| line.expect("text"));
    let found = lines.find(|line| line.contains(words));
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
    found.unwrap_or_else(|| panic!("`{words}` is not in the log"))
}

#[test]
fn redis_is_named_without_its_password() {
    let site = Site::new("no-redis");
    site.write(
        "in.edn",
        r#"{:settings {:state "redis://me:hunter2@127.0.0.1:1"}
            pipeline (-> (generate {:record {:id "n"} :count 1}) (drop))}"#,
    );
    let line = line_of_run(&site, "in.edn", "state store does not answer");
    let mut command = site.pseidon();
    let output = command.args(["offsets", "in.edn"]).output();
    let said = String::from_utf8(output.expect("it runs").stderr).expect("text");
    for message in [line, said] {
        for part in ["@127.0.0.1:1", "Connection refused", "check that it runs"] {
            assert!(message.contains(part), "`{part}` is missing in {message}");
        }
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn brokers_of_a_sink_and_of_a_source_are_named() {
    let site = Site::new("no-kafka");
    site.write(
        "out.edn",
        r#"{pipeline (-> (generate {:record {:id "n"} :count 1})
                         (kafka {:brokers "127.0.0.1:1" :topic "t"}))}"#,
    );
    site.write(
        "in.edn",
        r#"{in (kafka {:brokers "127.0.0.1:1" :topics ["t"] :format "json"})
            pipeline (-> in (drop))}"#,
    );
    let line = line_of_run(&site, "out.edn", "restarting");
    assert!(
        line.contains("the brokers at 127.0.0.1:1 do not answer"),
        "{line}"
    );
    assert!(line.contains("check that they run"), "{line}");
    let line = line_of_run(&site, "in.edn", "brokers are down");
    assert!(line.contains("127.0.0.1:1"), "{line}");
    assert!(line.contains("check that they run"), "{line}");
}
