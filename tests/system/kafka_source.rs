//! The Kafka source: the offsets of a group as evidence of lost state, incompatible group members,
//! and invalid headers.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::output::all_lines;
use crate::harness::servers::{free_port, get};
use crate::harness::topics::{create, group_offset, produce};
use crate::harness::{Site, brokers, server, wait_until};

/// Files that are not published before the run ends.
pub(crate) const LONG: &str = ":rollover {:idle \"1h\" :age \"1h\" :size \"1GB\"}";
/// Files that are published immediately.
pub(crate) const SHORT: &str = ":rollover {:idle \"200ms\"} :check-freq \"50ms\"";

pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect()
}

/// A pipeline from topics to a folder for each of them. Its session is so long that it does not end
/// on a busy machine.
pub(crate) fn pipeline(
    site: &Site,
    topics: &str,
    source: &str,
    sink: &str,
    settings: &str,
) -> String {
    format!(
        r#"{{:name "{}" :settings {{:etl-threads 1 :writer-threads 1 :io-threads 1 :memory "64MB" :commit-interval "200ms" {settings}}}
            in (kafka {{:brokers "{}" :topics {topics} {source}
                       :properties {{"session.timeout.ms" 10000 "heartbeat.interval.ms" 300 "topic.metadata.refresh.interval.ms" 500}}}})
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
pub(crate) fn wait_read(port: u16, count: u64) {
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
