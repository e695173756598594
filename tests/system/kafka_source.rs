//! The Kafka source: the offsets of a group as evidence of lost state, topics that are deleted,
//! recreated or missing, incompatible group members, and invalid headers.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::mysql::LogTable;
use crate::harness::output::{all_lines, files};
use crate::harness::pipeline::SESSION_MILLIS;
use crate::harness::servers::{free_port, get};
use crate::harness::topics::{create, delete, group_offset, produce};
use crate::harness::{Site, brokers, server, wait_until};
use crate::log_table::{FORMATS, Template, found};

/// Files that are not published before the run ends.
const LONG: &str = ":rollover {:idle \"1h\" :age \"1h\" :size \"1GB\"}";
/// Files that are published immediately.
const SHORT: &str = ":rollover {:idle \"200ms\"} :check-freq \"50ms\"";

fn numbers(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect()
}

/// A pipeline from topics to a folder for each of them.
fn pipeline(site: &Site, topics: &str, source: &str, sink: &str, settings: &str) -> String {
    format!(
        r#"{{:name "{}" :settings {{:etl-threads 1 :writer-threads 1 :io-threads 1 :memory "64MB" :commit-interval "200ms" {settings}}}
            in (kafka {{:brokers "{}" :topics {topics} {source}
                       :properties {{"session.timeout.ms" {SESSION_MILLIS} "heartbeat.interval.ms" 300 "topic.metadata.refresh.interval.ms" 500}}}})
            out (files {{:path "out/{{@topic}}" :codec :json {sink}}})
            pipeline (-> in out)}}"#,
        site.name,
        brokers()
    )
}

fn state_file(site: &Site) -> PathBuf {
    site.path(&format!(".pseidon/{}.redb", site.name))
}

#[test]
fn the_last_offsets_are_written_when_a_run_ends_by_itself() {
    let site = Site::new("last-offsets");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(1000));
    site.write(
        "pipeline.edn",
        pipeline(&site, &format!("[\"{topic}\"]"), ":until :latest", LONG, ""),
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(group_offset(topic, topic), Some(1000));

    // Therefore lost state is noticed.
    std::fs::remove_file(state_file(&site)).expect("the state");
    let mut again = site.run("pipeline.edn");
    again.expect_exit(1, 60);
    assert!(
        again.log().contains("the state may have been lost") && again.log().contains("offset 1000"),
        "{}",
        again.log()
    );
    assert_eq!(all_lines(&site.path("out")).len(), 1000);
}

#[test]
fn the_last_offsets_are_written_when_a_run_is_stopped() {
    let site = Site::new("stop-offsets");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(100));
    let port = free_port();
    let text = pipeline(
        &site,
        &format!("[\"{topic}\"]"),
        "",
        LONG,
        &format!(":monitor-port {port}"),
    );
    site.write(
        "pipeline.edn",
        text.replace(":commit-interval \"200ms\"", ":commit-interval \"1h\""),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_read(port, 100);
    pseidon.stop(30);
    assert_eq!(all_lines(&site.path("out")).len(), 100);
    assert_eq!(group_offset(topic, topic), Some(100));
}

/// Waits until this number of records is read.
fn wait_read(port: u16, count: u64) {
    wait_until("records are read", 60, || {
        let (_, page) = get(port, "/metrics").unwrap_or_default();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        page["etl-service-thread-metrics"]["count"]
            .as_u64()
            .is_some_and(|read| read >= count)
    });
}

#[test]
fn a_state_that_is_restored_from_an_older_copy_is_noticed() {
    let site = Site::new("older-copy");
    let topic = site.name.as_str();
    create(topic, &[]);
    let source = ":until :latest";
    let text = pipeline(&site, &format!("[\"{topic}\"]"), source, LONG, "");
    site.write("pipeline.edn", &text);
    produce(topic, 0, numbers(100));
    site.finish("pipeline.edn", 60);
    let copy = site.path("copy.redb");
    std::fs::copy(state_file(&site), &copy).expect("a copy of the state");
    produce(topic, 0, numbers(400));
    site.finish("pipeline.edn", 60);

    std::fs::copy(&copy, state_file(&site)).expect("the copy is put back");
    let mut older = site.run("pipeline.edn");
    older.expect_exit(1, 60);
    let log = older.log();
    for part in [
        "older copy",
        "offset 100",
        "offset 500",
        "400 records",
        ":on-missing-state",
    ] {
        assert!(log.contains(part), "{part} is missing: {log}");
    }
    assert_eq!(all_lines(&site.path("out")).len(), 500);
    // The user configures that the offsets of the group are correct.
    produce(topic, 0, numbers(50));
    site.write(
        "pipeline.edn",
        text.replace(source, ":until :latest :on-missing-state :group"),
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(all_lines(&site.path("out")).len(), 550);
}

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
fn incompatible_group_members_are_reported() {
    let site = Site::new("mixed");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(10));
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", topic)
        .set("partition.assignment.strategy", "range")
        .create()
        .expect("a consumer");
    other.subscribe(&[topic]).expect("a subscription");
    wait_until("the other consumer has the partition", 60, || {
        let _ = other.poll(Duration::from_millis(100));
        other
            .assignment()
            .is_ok_and(|assignment| assignment.count() > 0)
    });
    let port = free_port();
    site.write(
        "pipeline.edn",
        pipeline(
            &site,
            &format!("[\"{topic}\"]"),
            "",
            SHORT,
            &format!(":monitor-port {port}"),
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("/health reports it", 60, || {
        let _ = other.poll(Duration::from_millis(10));
        get(port, "/health")
            .is_some_and(|(status, text)| status == 503 && text.contains("set another :group"))
    });
    assert!(
        pseidon.log().contains("stop the other consumers"),
        "{}",
        pseidon.log()
    );
    drop(other);
    wait_until("it reads when the other consumer has left", 60, || {
        all_lines(&site.path("out")).len() == 10
    });
    wait_until("/health is ok", 60, || {
        get(port, "/health").is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(30);
}

#[test]
fn plain_text_to_a_tls_listener_is_reported() {
    let site = Site::new("plain");
    let text = pipeline(&site, "[\"any\"]", "", SHORT, "");
    site.write(
        "pipeline.edn",
        text.replace(&brokers(), &server("PSEIDON_TEST_KAFKA_SECURE")),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the log output reports it", 60, || {
        pseidon.log().contains("set `:tls {}` if it expects TLS")
    });
    pseidon.stop(30);
}

/// A header that is not UTF-8 must not be changed silently.
#[test]
fn headers_that_are_not_text_make_records_invalid() {
    let site = Site::new("headers");
    let topic = site.name.as_str();
    create(topic, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .expect("a producer");
    for value in [&b"good"[..], b"\xff\xfe"] {
        let headers = OwnedHeaders::new().insert(Header {
            key: "bin",
            value: Some(value),
        });
        let record = BaseRecord::<(), str>::to(topic)
            .partition(0)
            .payload("{\"n\":1}")
            .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("a record");
    }
    producer
        .flush(Duration::from_secs(30))
        .expect("the broker accepts them");
    let text = pipeline(&site, &format!("[\"{topic}\"]"), ":until :latest", LONG, "");
    site.write(
        "pipeline.edn",
        text.replace(
            "(-> in out)",
            "(-> in (select \"n, @headers.bin as bin\") out)",
        ),
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(
        all_lines(&site.path("out").join(topic)),
        ["{\"n\":1,\"bin\":\"good\"}"]
    );
    let quarantined = all_lines(&site.path("quarantine"));
    assert!(
        quarantined.len() == 1 && quarantined[0].contains("the header `bin` is not UTF-8 text"),
        "{quarantined:?}"
    );

    // Headers that are not used are not checked.
    let unused = text.replace("out/{@topic}", "unused/{@topic}").replace(
        &format!(":name \"{topic}\""),
        &format!(":name \"{topic}-unused\""),
    );
    site.write("unused.edn", unused);
    site.finish("unused.edn", 60);
    assert_eq!(all_lines(&site.path("unused")).len(), 2);
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
        template.replace(
            ":records 2000 :idle \"500ms\"",
            ":records 2000 :idle \"1h\" :age \"1h\"",
        ),
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
    assert!(
        lines <= 2,
        "{lines} lines for topics that do not exist: {log}"
    );
}
