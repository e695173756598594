//! The topics of a Kafka source: deleted, recreated, missing, and internal ones.

use crate::harness::mysql::LogTable;
use crate::harness::output::{all_lines, files};
use crate::harness::pipeline::SESSION_MILLIS;
use crate::harness::servers::{free_port, get};
use crate::harness::topics::{create, delete, produce};
use crate::harness::{Site, brokers, wait_until};
use crate::kafka_source::{LONG, SHORT, numbers, pipeline, wait_read};
use crate::log_table::{FORMATS, Template, found};

/// When a topic is deleted, its records that were read are committed, and the files of other topics
/// stay open.
#[test]
fn records_of_a_deleted_topic_are_delivered() {
    let site = Site::new("deleted");
    let (gone, stays) = (
        format!("{}-gone", site.name),
        format!("{}-stays", site.name),
    );
    create(&gone, &[]);
    create(&stays, &[]);
    let port = free_port();
    site.write(
        "pipeline.edn",
        pipeline(
            &site,
            &format!("[\"{gone}\" \"{stays}\"]"),
            "",
            LONG,
            &format!(":monitor-port {port}"),
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    produce(&gone, 0, numbers(100));
    produce(&stays, 0, numbers(100));
    wait_read(port, 200);
    assert!(files(&site.path("out")).is_empty());
    delete(&gone);
    wait_until("the records of the deleted topic are visible", 60, || {
        all_lines(&site.path("out").join(&gone)).len() == 100
    });
    wait_until("the log output reports it", 60, || {
        pseidon.log().contains("topic was deleted")
    });
    assert!(
        files(&site.path("out").join(&stays)).is_empty(),
        "the other topic's file stays open"
    );
    produce(&stays, 0, numbers(50));
    pseidon.stop(30);
    let log = pseidon.log();
    assert!(
        !log.contains("are discarded") && log.contains("records=100"),
        "{log}"
    );
    assert_eq!(all_lines(&site.path("out").join(&stays)).len(), 150);
    assert_eq!(all_lines(&site.path("out").join(&gone)).len(), 100);
}

/// The records of the old topic are delivered, then the run ends.
#[test]
fn a_topic_that_is_recreated_while_it_is_read_ends_the_run() {
    let site = Site::new("again");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(100));
    let port = free_port();
    site.write(
        "pipeline.edn",
        pipeline(
            &site,
            &format!("[\"{topic}\"]"),
            "",
            LONG,
            &format!(":monitor-port {port}"),
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_read(port, 100);
    delete(topic);
    create(topic, &[]);
    produce(topic, 0, numbers(100));
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(
        log.contains("deleted and created again") && log.contains("rename the source"),
        "{log}"
    );
    assert_eq!(all_lines(&site.path("out")).len(), 100);
}

/// The error for a topic that was recreated says how to continue: the new topic is read from its
/// beginning, and the others resume where they were.
#[test]
fn the_advice_for_a_recreated_topic_loses_and_repeats_nothing() {
    let site = Site::new("advice");
    let (kept, recreated) = (
        format!("{}-kept", site.name),
        format!("{}-recreated", site.name),
    );
    create(&kept, &[]);
    create(&recreated, &[]);
    produce(&kept, 0, numbers(50));
    produce(&recreated, 0, numbers(100));
    let topics = format!("[\"{kept}\" \"{recreated}\"]");
    let text = pipeline(&site, &topics, ":until :latest", LONG, "");
    site.write("pipeline.edn", &text);
    site.finish("pipeline.edn", 60);
    delete(&recreated);
    create(&recreated, &[]);
    produce(&recreated, 0, numbers(30));
    produce(&kept, 0, numbers(10));
    let mut refused = site.run("pipeline.edn");
    refused.expect_exit(1, 60);
    let (log, advice) = (
        refused.log(),
        "rename the source's stage and set :on-missing-state :group",
    );
    assert!(log.contains(advice), "{log}");

    let text = text
        .replace(" in (kafka {", " clicks (kafka {:on-missing-state :group ")
        .replace("(-> in out)", "(-> clicks out)");
    site.write("pipeline.edn", text);
    site.finish("pipeline.edn", 60);
    let count = |topic: &str| all_lines(&site.path(&format!("out/{topic}"))).len();
    assert_eq!((count(&kept), count(&recreated)), (60, 130));
}

#[test]
fn a_missing_topic_is_a_problem_and_in_a_finite_run_an_error() {
    let site = Site::new("missing");
    let (there, missing) = (
        format!("{}-there", site.name),
        format!("{}-missing", site.name),
    );
    create(&there, &[]);
    produce(&there, 0, numbers(10));
    let port = free_port();
    let topics = format!("[\"{there}\" \"{missing}\"]");
    site.write(
        "pipeline.edn",
        pipeline(&site, &topics, "", SHORT, &format!(":monitor-port {port}")),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("/health reports it", 60, || {
        get(port, "/health").is_some_and(|(status, text)| {
            status == 503 && text.contains("unknown topic") && text.contains(&missing)
        })
    });
    wait_until("the other one is read", 60, || {
        all_lines(&site.path("out")).len() == 10
    });
    create(&missing, &[]);
    produce(&missing, 0, numbers(5));
    wait_until("it is read once it exists", 60, || {
        all_lines(&site.path("out")).len() == 15
    });
    wait_until("/health is ok", 60, || {
        get(port, "/health").is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(30);

    site.write(
        "finite.edn",
        pipeline(
            &site,
            &topics.replace("-missing", "-misspelled"),
            ":until :latest",
            LONG,
            "",
        ),
    );
    produce(&there, 0, numbers(10));
    let mut finite = site.run("finite.edn");
    finite.expect_exit(1, 60);
    assert!(
        finite.log().contains("has not existed for") && finite.log().contains("-misspelled"),
        "{}",
        finite.log()
    );
    assert_eq!(
        all_lines(&site.path("out")).len(),
        25,
        "the existing records were delivered"
    );
}

#[test]
fn a_pattern_reads_no_internal_topics() {
    let site = Site::new("internal");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(10));
    let pattern = format!("#r\"(__consumer_offsets|{topic})\"");
    // An exact name in the pattern would request the internal topic.
    let wished = pipeline(&site, &pattern, "", SHORT, "");
    site.write(
        "pipeline.edn",
        wished.replace("(__consumer_offsets|", "(.*_offsets|"),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the topic is read", 60, || {
        all_lines(&site.path("out").join(topic)).len() == 10
    });
    pseidon.stop(30);
    assert!(!site.path("out/__consumer_offsets").exists());
}

/// Logs of a table: a problem with the topic of one log affects only that log.
#[test]
fn a_deleted_or_missing_topic_affects_only_its_log() {
    let site = Site::new("logs-topics");
    let table = LogTable::new(&site);
    let (gone, stays) = (
        format!("{}-gone", site.name),
        format!("{}-stays", site.name),
    );
    let port = free_port();
    let template = Template {
        brokers: &brokers(),
        redis: None,
        port: Some(port),
        more: "",
    }
    .text(&site, &table);
    site.write(
        "pipeline.edn",
        template
            .replace(
                ":records 2000 :idle \"500ms\"",
                ":records 2000 :idle \"1h\" :age \"1h\"",
            )
            // A session that ends closes the files.
            .replace(&format!("\"{}\"", SESSION_MILLIS * 2), "\"20000\""),
    );
    let line = |number: usize| format!("1700000000000\t{number}\tmore of it");
    for topic in [&gone, &stays] {
        create(topic, &[]);
        produce(topic, 0, (0..50).map(line));
        table.set(topic, FORMATS[0], "txt");
    }
    let missing: Vec<String> = (0..20)
        .map(|number| format!("{}-missing-{number}", site.name))
        .collect();
    missing
        .iter()
        .for_each(|topic| table.set(topic, FORMATS[0], "txt"));
    let mut pseidon = site.run("pipeline.edn");
    wait_read(port, 100);
    wait_until("the missing topics are reported", 60, || {
        pseidon.log().contains("topics do not exist")
    });
    delete(&gone);
    wait_until("the records of the deleted topic are visible", 60, || {
        found(&site, &gone).len() == 50
    });
    wait_until("the log output reports it", 60, || {
        pseidon.log().contains("topic was deleted")
    });
    assert!(
        found(&site, &stays).is_empty(),
        "the other log's file stays open"
    );
    pseidon.stop(60);
    assert_eq!(found(&site, &stays).len(), 50);
    let log = pseidon.log();
    assert!(!log.contains("are discarded"), "{log}");
    let lines = log
        .lines()
        .filter(|line| {
            missing.iter().any(|topic| line.contains(topic.as_str())) && line.contains("WARN")
        })
        .count();
    // Logs are started one after another, and those that were started since the last look at the
    // topics share a line.
    assert!(
        lines <= missing.len() / 2,
        "{lines} lines for topics that do not exist: {log}"
    );
}
