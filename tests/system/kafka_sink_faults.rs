//! Records that a topic refuses, and topics that lose data.

use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::BaseRecord;

use crate::harness::output::all_lines;
use crate::harness::servers::{free_port, get};
use crate::harness::topics::{
    alter, committed, committed_messages, create, delete, delete_if_there, produce, send,
};
use crate::harness::{Pseidon, Site, brokers, wait_until};

/// A pipeline from the topic with the site's name to `NAME-out`, with more options of source and
/// sink.
fn kafka_to_kafka(site: &Site, settings: &str, source: &str, sink: &str) -> String {
    let (brokers, name) = (brokers(), &site.name);
    format!(
        r#"{{:name "{name}" :settings {{:commit-interval "200ms" {settings}}}
            in  (kafka {{:brokers "{brokers}" :topics ["{name}"] :schema {{:a :int64 :t :int64 :k :utf8}} {source}}})
            out (kafka {{:brokers "{brokers}" :topic "{name}-out" :positions-topic "{name}-positions" :transaction {{:age "100ms"}} {sink}}})
            pipeline (-> in out)}}"#
    )
}

fn output(site: &Site) -> Vec<String> {
    committed(&format!("{}-out", site.name)).concat()
}

fn now() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970")
        .as_millis()
}

/// A record with a number and a timestamp.
fn record(number: u64, timestamp: u128) -> String {
    format!(r#"{{"a":{number},"t":{timestamp}}}"#)
}

const YEAR_2100: u128 = 4_102_444_800_000;

#[test]
fn a_record_that_the_topic_refuses_goes_to_the_error_policy() {
    for (policy, counted) in [
        ("", "quarantined=1"),
        (":on-error :noop", "dropped=1"),
        (":on-error {:retry {:times 2 :then :noop}}", "dropped=1"),
    ] {
        let site = Site::new("refused-time");
        create(&format!("{}-out", site.name), &[]);
        let records = [record(1, now()), record(2, YEAR_2100), record(3, now())];
        produce(&site.name, 0, &records);
        site.write(
            "pipeline.edn",
            kafka_to_kafka(
                &site,
                "",
                ":until :latest",
                &format!(r#":timestamp "t" {policy}"#),
            ),
        );
        let pseidon = site.finish("pipeline.edn", 90);
        assert_eq!(
            output(&site),
            [records[0].clone(), records[2].clone()],
            "{policy}"
        );
        assert!(
            pseidon.log().contains(counted),
            "{policy}: {}",
            pseidon.log()
        );
        if policy.is_empty() {
            let bad = all_lines(&site.path("quarantine")).concat();
            assert!(
                bad.contains("2100-01-01T00:00:00Z") && bad.contains(r#"{\"a\":2,"#),
                "{bad}"
            );
        }
    }
}

#[test]
fn throw_ends_the_run_at_a_record_that_the_topic_refuses() {
    let site = Site::new("refused-throw");
    produce(&site.name, 0, [record(1, YEAR_2100)]);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(
            &site,
            "",
            ":until :latest",
            r#":timestamp "t" :on-error :throw"#,
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    assert!(
        pseidon.log().contains("2100-01-01T00:00:00Z"),
        "{}",
        pseidon.log()
    );
}

#[test]
fn a_compacted_topic_accepts_only_records_with_a_key() {
    let site = Site::new("refused-key");
    create(
        &format!("{}-out", site.name),
        &[("cleanup.policy", "compact")],
    );
    produce(
        &site.name,
        0,
        [r#"{"a":1,"k":"x"}"#, r#"{"a":2}"#, r#"{"a":3,"k":"y"}"#],
    );
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, "", ":until :latest", r#":key "k""#),
    );
    let pseidon = site.finish("pipeline.edn", 60);
    assert_eq!(output(&site), [r#"{"a":1,"k":"x"}"#, r#"{"a":3,"k":"y"}"#]);
    assert!(pseidon.log().contains("quarantined=1"), "{}", pseidon.log());
}

/// The topic's configuration changed after it was read: only the broker refuses the record.
#[test]
fn a_record_that_only_the_broker_refuses_goes_to_the_error_policy() {
    let site = Site::new("refused-late");
    let out = format!("{}-out", site.name);
    create(&out, &[]);
    let port = free_port();
    produce(&site.name, 0, [r#"{"a":1,"k":"x"}"#]);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(
            &site,
            &format!(":monitor-port {port}"),
            "",
            r#":key "k" :on-error :noop"#,
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the first record is committed", 60, || {
        output(&site).len() == 1 || !pseidon.is_running()
    });
    alter(&out, "cleanup.policy", "compact");
    for number in 2..6 {
        produce(
            &site.name,
            0,
            [
                format!(r#"{{"a":{number}}}"#),
                format!(r#"{{"a":{number},"k":"x"}}"#),
            ],
        );
    }
    produce(&site.name, 0, [r#"{"a":9,"k":"x"}"#]);
    wait_until("the last record is committed", 90, || {
        output(&site).iter().any(|value| value.contains("9")) || !pseidon.is_running()
    });
    wait_until("/health is ok", 90, || {
        get(port, "/health").is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(40);
    let with_key = |values: Vec<String>| {
        values
            .into_iter()
            .filter(|value| value.contains("\"k\""))
            .collect::<Vec<_>>()
    };
    let expected: Vec<String> = [1, 2, 3, 4, 5, 9]
        .map(|number| format!(r#"{{"a":{number},"k":"x"}}"#))
        .into();
    assert_eq!(
        with_key(output(&site)),
        expected,
        "each record with a key once"
    );
    assert!(
        pseidon.log().contains("the broker refuses"),
        "{}",
        pseidon.log()
    );
}

/// The quarantine commits that it has passed a record before the broker refuses it.
#[test]
fn a_record_that_the_broker_refuses_late_is_quarantined_once() {
    let site = Site::new("refused-past");
    let out = format!("{}-out", site.name);
    create(&out, &[]);
    let text = kafka_to_kafka(
        &site,
        "",
        "",
        r#":key "k" :properties {"linger.ms" 1500} :on-error {:quarantine "quarantine"}"#,
    );
    let text = text.replace(r#":age "100ms""#, r#":age "2s""#);
    site.write("pipeline.edn", text.replace("200ms", "10ms"));
    let mut pseidon = site.run("pipeline.edn");
    produce(&site.name, 0, [r#"{"a":1,"k":"x"}"#]);
    wait_until("the first record is committed", 60, || {
        output(&site).len() == 1 || !pseidon.is_running()
    });
    alter(&out, "cleanup.policy", "compact");
    for number in 2..6 {
        let (without, with) = (
            format!(r#"{{"a":{number}}}"#),
            format!(r#"{{"a":{number},"k":"x"}}"#),
        );
        produce(&site.name, 0, [without, with]);
    }
    wait_until("the last record is committed", 90, || {
        let last = r#"{"a":5,"k":"x"}"#;
        output(&site).iter().any(|value| value == last) || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert!(
        pseidon.log().contains("the broker refuses"),
        "{}",
        pseidon.log()
    );
    let (written, bad) = (output(&site), all_lines(&site.path("quarantine")));
    for number in 2..6 {
        let with_key = format!(r#"{{"a":{number},"k":"x"}}"#);
        assert_eq!(
            written.iter().filter(|value| **value == with_key).count(),
            1
        );
        let without = format!(r#"{{"a":{number}}}"#);
        let quoted = without.replace('"', "\\\"");
        let times = written.iter().filter(|value| **value == without).count()
            + bad.iter().filter(|line| line.contains(&quoted)).count();
        assert_eq!(times, 1, "{without}: {written:?} {bad:?}");
    }
}

#[test]
fn positions_that_were_lost_between_two_runs_are_noticed() {
    let site = Site::new("lost-positions");
    produce(&site.name, 0, (0..100).map(|number| record(number, 1)));
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, "", ":until :latest", ""),
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(output(&site).len(), 100);
    delete(&format!("{}-positions", site.name));
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(
        log.contains("has lost data")
            && log.contains(":positions-topic")
            && log.contains("below 100"),
        "{log}"
    );
    assert_eq!(output(&site).len(), 100, "no record is rewritten");
}

/// Expects exit code 1 and a message in the log output.
fn expect_failure(pseidon: &mut Pseidon, message: &str) {
    pseidon.expect_exit(1, 60);
    assert!(pseidon.log().contains(message), "{}", pseidon.log());
}

#[test]
fn a_positions_topic_that_is_not_compacted_is_refused() {
    let site = Site::new("wrong-positions");
    create(
        &format!("{}-positions", site.name),
        &[("cleanup.policy", "delete")],
    );
    produce(&site.name, 0, [record(1, 1)]);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, "", ":until :latest", ""),
    );
    expect_failure(
        &mut site.run("pipeline.edn"),
        "--add-config cleanup.policy=compact",
    );
}

#[test]
fn a_transaction_timeout_above_the_limit_of_the_broker_ends_the_run() {
    let site = Site::new("long-timeout");
    produce(&site.name, 0, [record(1, 1)]);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(
            &site,
            "",
            ":until :latest",
            r#":properties {"transaction.timeout.ms" 9000000}"#,
        ),
    );
    expect_failure(&mut site.run("pipeline.edn"), "transaction.max.timeout.ms");
}

#[test]
fn an_unchanged_record_is_copied_with_key_headers_and_timestamp() {
    let site = Site::new("copied");
    let header = |key, value| Header { key, value };
    let headers = OwnedHeaders::new()
        .insert(header("h", Some(&b"1"[..])))
        .insert(header("h", Some(&b"\xff\xfe"[..])))
        .insert(header("none", None::<&[u8]>));
    let records: [BaseRecord<'_, [u8], [u8]>; 3] = [
        BaseRecord::to(&site.name)
            .partition(0)
            .key(&b"\xff\x00"[..])
            .payload(&b"a"[..])
            .timestamp(1_600_000_000_000)
            .headers(headers),
        BaseRecord::to(&site.name)
            .partition(0)
            .key(&b"gone"[..])
            .timestamp(1_600_000_000_001),
        BaseRecord::to(&site.name)
            .partition(0)
            .payload(&b"b"[..])
            .timestamp(1_600_000_000_002),
    ];
    send(records);
    let (brokers, name) = (brokers(), &site.name);
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "{name}"
                in  (kafka {{:brokers "{brokers}" :topics ["{name}"] :format "raw" :until :latest}})
                out (kafka {{:brokers "{brokers}" :topic "{name}-out" :positions-topic "{name}-positions"}})
                pipeline (-> in out)}}"#
        ),
    );
    create(&format!("{name}-out"), &[]);
    site.finish("pipeline.edn", 60);
    let copied = |topic: &str| {
        committed_messages(topic)
            .concat()
            .iter()
            .map(parts_of)
            .collect::<Vec<_>>()
    };
    let (before, after) = (copied(name), copied(&format!("{name}-out")));
    assert_eq!(before.len(), 3);
    assert_eq!(after, before);
}

/// The parts of a message that a copy keeps: key, payload, timestamp and headers.
pub(crate) type Parts = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
    Vec<(String, Option<Vec<u8>>)>,
);

pub(crate) fn parts_of(message: &OwnedMessage) -> Parts {
    let bytes = |bytes: &[u8]| bytes.to_vec();
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(bytes)))
            .collect()
    });
    (
        message.key().map(bytes),
        message.payload().map(bytes),
        message.timestamp().to_millis(),
        headers,
    )
}

/// Deletes the output topic, which the broker recreates automatically, until the run of this site
/// is unhealthy because of it. Returns the number of the last record that was produced meanwhile.
fn delete_until_unhealthy(site: &Site, port: u16) -> u64 {
    let mut number = 1;
    wait_until("it is not healthy", 120, || {
        delete_if_there(&format!("{}-out", site.name));
        number += 1;
        produce(&site.name, 0, [record(number, 1)]);
        get(port, "/health")
            .is_some_and(|(status, page)| status == 503 && page.contains("cannot write"))
    });
    number
}

/// The run reports a topic that is deleted, is unhealthy meanwhile, and continues when the topic is
/// no longer deleted.
#[test]
fn a_deleted_topic_is_reported_in_the_log_and_by_health() {
    let site = Site::new("deleted-output");
    let port = free_port();
    create(&format!("{}-out", site.name), &[]);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, &format!(":monitor-port {port}"), "", ""),
    );
    produce(&site.name, 0, [record(1, 1)]);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("records are committed", 60, || output(&site).len() == 1);
    let number = delete_until_unhealthy(&site, port);
    // `/health` may be earlier than the log.
    wait_until("the log says why", 60, || {
        let log = pseidon.log();
        [
            "waiting for the brokers",
            "no longer exists",
            "Unknown topic or partition",
        ]
        .iter()
        .any(|message| log.contains(message))
    });
    let last = record(number + 1, 1);
    produce(&site.name, 0, [&last]);
    wait_until("records are committed again", 120, || {
        output(&site).contains(&last)
    });
    wait_until("it is healthy", 60, || {
        get(port, "/health").is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(40);
}

/// A stop waits for a topic that is deleted no longer than for any other blocked target, and the
/// next run delivers what this one could not.
#[test]
fn a_run_that_is_stopped_while_the_topic_is_deleted_loses_nothing() {
    let site = Site::new("deleted-at-stop");
    let (out, port) = (format!("{}-out", site.name), free_port());
    create(&out, &[]);
    let settings = format!(":monitor-port {port} :shutdown-grace \"3s\"");
    site.write("pipeline.edn", kafka_to_kafka(&site, &settings, "", ""));
    produce(&site.name, 0, [record(1, 1)]);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("records are committed", 60, || output(&site).len() == 1);
    let number = delete_until_unhealthy(&site, port);
    pseidon.terminate();
    // The default grace would be too long.
    wait_until("it ends", 9, || {
        delete_if_there(&out);
        !pseidon.is_running()
    });
    create(&out, &[]);
    let last = number + 1;
    produce(&site.name, 0, [record(last, 1)]);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the rest is committed", 120, || {
        output(&site).contains(&record(last, 1))
    });
    pseidon.stop(40);
    // The first of them were deleted with the topic. From the first that is left on, each is there
    // once.
    let mut left = output(&site);
    left.sort_by_key(|line| (line.len(), line.clone()));
    let count = left.len() as u64;
    let expected: Vec<String> = (last + 1 - count..=last).map(|n| record(n, 1)).collect();
    assert_eq!(left, expected);
}
