//! Tests of the source and the sink in real pipelines: the engine plans and runs them, with a real
//! state store and real files.

mod crashes;
mod pipeline;

use std::thread;
use std::time::{Duration, Instant};

use pseidon_exec::Finished;

use pipeline::{Folder, plan_errors};

/// A flow from `in` to `out` with the queues `a`, `b` and `c`.
const FLOW: &str = r#"(-> (spool {:folder "in" :schema {:n :int64 :queue :utf8}})
    (spool {:folder "out" :queue "queue"}))"#;

#[test]
fn records_are_delivered_to_their_queues() {
    let folder = Folder::new();
    folder.write("in/1", &["a 1", "b 2", "a 3"]);
    folder.write("in/2", &["a 4"]);
    folder.write("in/.incomplete", &["a 5"]);
    assert_eq!(folder.run(FLOW), Ok(Finished::Complete));
    assert_eq!(folder.delivered(), ["a 1", "a 3", "a 4", "b 2"]);
}

#[test]
fn a_further_run_reads_only_new_files() {
    let folder = Folder::new();
    folder.write("in/1", &["a 1"]);
    folder.run(FLOW).unwrap();
    folder.write("in/2", &["b 2"]);
    folder.run(FLOW).unwrap();
    assert_eq!(folder.delivered(), ["a 1", "b 2"]);
}

#[test]
fn the_sink_feeds_the_source() {
    let folder = Folder::new();
    folder.write("in/1", &["a 1", "b 2", "a 3"]);
    folder.run(FLOW).unwrap();
    let next = FLOW
        .replace("\"out\"", "\"end\"")
        .replace("\"in\"", "\"out/a\"");
    folder.run_as("next", &next).unwrap();
    assert_eq!(folder.records_in("end"), ["a 1", "a 3"]);
}

#[test]
fn records_without_a_valid_queue_are_quarantined() {
    let folder = Folder::new();
    folder.write("in/1", &["a 1", ".. 2", "x/y 3", "b 4"]);
    folder.run(FLOW).unwrap();
    assert_eq!(folder.delivered(), ["a 1", "b 4"]);
    let reasons = ["..", "x/y"].map(|name| format!("the queue `{name}` is not a folder name"));
    assert_eq!(folder.reasons(), reasons);
    assert!(folder.path("quarantine").is_dir());
}

/// A file in the place of the queue's folder stands for any disk that cannot be written now.
#[test]
fn a_blocked_queue_is_published_later() {
    let folder = Folder::new();
    folder.write("in/1", &["a 1", "b 2"]);
    folder.write("out/b", &[]);
    thread::scope(|scope| {
        let run = scope.spawn(|| folder.run(FLOW));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !folder.metrics.is_sink_blocked() {
            assert!(Instant::now() < deadline, "the sink was never blocked");
            thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_file(folder.path("out/b")).unwrap();
        assert_eq!(run.join().unwrap(), Ok(Finished::Complete));
    });
    assert_eq!(folder.delivered(), ["a 1", "b 2"]);
}

#[test]
fn invalid_options_are_reported_where_they_are() {
    let table = [
        (
            FLOW.replace("\"queue\"", "\"n\""),
            "the queue is not a string",
        ),
        (
            FLOW.replace("\"out\"", "\"out\" :format :raw").replace(
                "(spool {:folder \"out\"",
                "(select \"queue\") (spool {:folder \"out\"",
            ),
            "this format cannot represent these records",
        ),
        (
            FLOW.replace(":folder \"in\"", ":folders \"in\""),
            "`spool` has no option `:folders`",
        ),
    ];
    for (flow, message) in table {
        let errors = plan_errors(&flow);
        assert!(
            errors.iter().any(|error| error == message),
            "{flow}: {errors:?}"
        );
    }
}
