//! Logs of a MySQL table, while its rows change and servers and the process fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::harness::feed::PARTITIONS;
use crate::harness::mysql::LogTable;
use crate::harness::output::{files, hidden, lines};
use crate::harness::pipeline::{SESSION_MILLIS, state_in};
use crate::harness::{Site, brokers, server, wait_until};

/// The formats and outputs between which rows change. In all of them, the line of a record starts
/// with its number.
pub(crate) const FORMATS: [&str; 2] = ["txt:sep=tab;ts=0;msg=1", "txt:sep=tab;ts=0;msg=1:"];
const OUTPUTS: [&str; 2] = ["txt", "gzip"];

/// A template for the table of a site.
pub(crate) struct Template<'a> {
    pub(crate) brokers: &'a str,
    /// The URL of the state store; `None` is the tests' Redis.
    pub(crate) redis: Option<&'a str>,
    /// The monitor port.
    pub(crate) port: Option<u16>,
    /// More options of the source.
    pub(crate) more: &'a str,
}

impl Template<'_> {
    /// The limit of bytes in flight, which is half of the memory.
    pub(crate) const BUDGET: u64 = 32 << 20;

    /// The pipeline file.
    pub(crate) fn text(&self, site: &Site, table: &LogTable) -> String {
        let state = state_in(
            site,
            &self
                .redis
                .map_or_else(|| server("PSEIDON_TEST_REDIS"), str::to_owned),
        );
        let port = self
            .port
            .map(|port| format!(":monitor-port {port}"))
            .unwrap_or_default();
        format!(
            r#"{{:name "{}"
            :settings {{:etl-threads 2 :io-threads 2 :writer-threads 2 :memory "64MB" :commit-interval "200ms" :shutdown-grace "5m" {state} {port}}}
            logs (mysql-logs {{:url "{}" :group "etl" :refresh "300ms" {} :on-error {{:quarantine "${{log:quarantine}}"}}
                   :kafka {{:brokers "{}" :start :earliest
                            :properties {{"session.timeout.ms" "{}" "heartbeat.interval.ms" "500"}}}}}})
            out (files {{:path "out/{{@topic}}/{{${{log:time}}:%Y-%m-%d-%H}}" :codec "${{log:codec}}" :compression "${{log:compression}}"
                  :write "${{log:write}}" :rollover {{:records 2000 :idle "500ms"}} :check-freq "200ms"
                  :on-error {{:quarantine "${{log:quarantine}}"}}}})
            pipeline (-> logs out)}}"#,
            site.name,
            table.url(),
            self.more,
            self.brokers,
            SESSION_MILLIS * 2
        )
    }
}

pub(crate) fn template(site: &Site, table: &LogTable, more: &str) -> String {
    Template {
        brokers: &brokers(),
        redis: None,
        port: None,
        more,
    }
    .text(site, table)
}

/// Topics with numbered records, each a line `TIME<tab>NUMBER<tab>more`.
pub(crate) struct Topics {
    pub(crate) names: Vec<String>,
    producer: ThreadedProducer<DefaultProducerContext>,
    /// The number of records sent to each topic.
    pub(crate) sent: Vec<u64>,
}

impl Topics {
    pub(crate) fn new(site: &Site, count: usize) -> Topics {
        Topics::at(site, &brokers(), count)
    }

    /// The same with these brokers.
    pub(crate) fn at(site: &Site, brokers: &str, count: usize) -> Topics {
        let names = (0..count)
            .map(|number| format!("{}-{number}", site.name))
            .collect();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20");
        Topics {
            names,
            producer: config.create().expect("a producer"),
            sent: vec![0; count],
        }
    }

    /// Sends this number of records to one topic.
    pub(crate) fn send(&mut self, topic: usize, records: u64) {
        for _ in 0..records {
            let number = self.sent[topic];
            // Two hours of one day.
            let line = format!(
                "{}\t{number}\tmore of it",
                1_700_000_000_000_u64 + (number % 2) * 3_600_000
            );
            self.send_line(topic, &line);
            self.sent[topic] += 1;
        }
    }

    /// Sends this number of records to one topic: in each partition, four of five belong to the same
    /// hour.
    pub(crate) fn send_unevenly(&mut self, topic: usize, records: u64) {
        for _ in 0..records {
            let number = self.sent[topic];
            let hour = u64::from((number / 4).is_multiple_of(5));
            let millis = 1_700_000_000_000 + hour * 3_600_000;
            self.send_line(topic, &format!("{millis}\t{number}\tmore of it"));
            self.sent[topic] += 1;
        }
    }

    /// Sends this number of records of a size to one topic. They compress well.
    pub(crate) fn send_large(&mut self, topic: usize, records: u64, bytes: usize) {
        for _ in 0..records {
            let line = format!("1700000000000\t{}\t{:x<bytes$}", self.sent[topic], "");
            self.send_line(topic, &line);
            self.sent[topic] += 1;
        }
    }

    fn send_line(&self, topic: usize, line: &str) {
        let partition = (self.sent[topic] % 4) as i32;
        let mut record = BaseRecord::<(), str>::to(&self.names[topic])
            .partition(partition)
            .payload(line);
        while let Err((_, back)) = self.producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends this number of records to each topic, and waits until the broker has them.
    pub(crate) fn send_all(&mut self, records: u64) {
        self.send_all_without_waiting(records);
        self.flush();
    }

    /// The same without waiting, for when the broker may be down.
    pub(crate) fn send_all_without_waiting(&mut self, records: u64) {
        (0..self.names.len()).for_each(|topic| self.send(topic, records));
    }

    /// Waits until the broker has all that was sent.
    pub(crate) fn flush(&self) {
        self.producer
            .flush(Duration::from_secs(120))
            .expect("the broker accepts the records");
    }
}

/// The record numbers in the visible files of a topic, each with the number of its occurrences.
pub(crate) fn found(site: &Site, topic: &str) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for file in files(&site.path("out").join(topic)) {
        for line in lines(&file) {
            let number = line
                .split('\t')
                .next()
                .and_then(|number| number.parse().ok());
            *found
                .entry(number.unwrap_or_else(|| panic!("`{line}` in {}", file.display())))
                .or_insert(0) += 1;
        }
    }
    found
}

/// Whether at least this number of the topic's records is visible.
pub(crate) fn is_complete(site: &Site, topic: &str, sent: u64) -> bool {
    found(site, topic).len() as u64 >= sent
}

/// Checks that each record of the topic is in exactly one visible file.
pub(crate) fn check_topic(site: &Site, topic: &str, sent: u64) {
    let found = found(site, topic);
    let wrong: Vec<_> = (0..sent)
        .filter_map(|number| {
            Some((number, found.get(&number).copied().unwrap_or(0)))
                .filter(|(_, times)| *times != 1)
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{topic}: {} of {sent} records are missing or duplicated, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert_eq!(
        found.len() as u64,
        sent,
        "{topic} has records that were never sent"
    );
}

pub(crate) fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

/// Two hundred topics, while rows are added, changed, disabled and deleted, and the process is
/// killed. `PSEIDON_TEST_LOGS` and `PSEIDON_TEST_SECONDS` set the number of topics and the
/// duration.
#[test]
fn rows_come_and_go_under_kills() {
    let site = Site::new("logs-churn");
    let table = LogTable::new(&site);
    let count = from_environment("PSEIDON_TEST_LOGS", 200) as usize;
    let seconds = from_environment("PSEIDON_TEST_SECONDS", 60);
    let mut topics = Topics::new(&site, count);
    site.write("pipeline.edn", template(&site, &table, ""));
    (0..count).for_each(|topic| topics.send(topic, 20));
    topics.flush();
    let formats = |random: u64| {
        (
            FORMATS[random as usize % 2],
            OUTPUTS[random as usize / 2 % 2],
        )
    };
    for topic in 0..count * 3 / 4 {
        let (format, output) = formats(site.random.next());
        table.set(&topics.names[topic], format, output);
    }
    let mut pseidon = site.run("pipeline.edn");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut next_kill = Instant::now() + Duration::from_secs(8);
    let mut kills = 0;
    while Instant::now() < end {
        let topic = site.random.of(0..count as u64) as usize;
        let name = &topics.names[topic];
        match site.random.of(0..8) {
            0 => table.disable(name),
            1 => table.delete(name),
            _ => {
                let (format, output) = formats(site.random.next());
                table.set(name, format, output);
            }
        }
        let fed = site.random.of(0..count as u64) as usize;
        topics.send(fed, 50);
        if Instant::now() > next_kill {
            pseidon.kill();
            kills += 1;
            pseidon = site.run("pipeline.edn");
            next_kill = Instant::now() + Duration::from_secs(5) + site.random.millis(0..8000);
        }
        std::thread::sleep(site.random.millis(10..60));
    }
    topics.flush();
    assert!(kills > 0 && pseidon.is_running());
    // In the end all logs run, and all records of all periods are delivered.
    (0..count).for_each(|topic| table.set(&topics.names[topic], FORMATS[0], OUTPUTS[1]));
    for (name, sent) in topics.names.iter().zip(&topics.sent) {
        wait_until(&format!("{name} is read"), 180, || {
            is_complete(&site, name, *sent) || !pseidon.is_running()
        });
    }
    pseidon.stop(60);
    topics
        .names
        .iter()
        .zip(&topics.sent)
        .for_each(|(name, sent)| check_topic(&site, name, *sent));
    assert_eq!(hidden(&site.path("out")), Vec::<std::path::PathBuf>::new());
    println!(
        "{count} logs, {} records, {kills} kills",
        topics.sent.iter().sum::<u64>()
    );
}

/// With `:start :latest`, a log starts with the records after its first start, and from then on no
/// record is skipped.
#[test]
fn latest_starts_at_the_first_start() {
    let site = Site::new("logs-latest");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 1);
    let name = topics.names[0].clone();
    topics.send_all(20);
    site.write(
        "pipeline.edn",
        template(&site, &table, "").replace(":start :earliest", ":start :latest"),
    );
    table.set(&name, FORMATS[0], "txt");
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_LOG", "info,pseidon_kafka=debug");
    let mut pseidon = site.start(command);
    // By then the state has where each partition starts.
    wait_until("the log reads its partitions", 60, || {
        let log = pseidon.log();
        let counts = log.lines().filter_map(|line| {
            let count = line.contains("reading partitions").then_some(line)?;
            let digits = count.split("count=").nth(1)?.split_whitespace().next()?;
            digits.parse::<u64>().ok()
        });
        counts.sum::<u64>() >= PARTITIONS
    });
    topics.send_all(20);
    wait_until("the new records are read", 60, || {
        is_complete(&site, &name, 20)
    });
    pseidon.stop(40);
    topics.send_all(20);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the records that arrived meanwhile are read", 60, || {
        is_complete(&site, &name, 40)
    });
    pseidon.stop(40);
    let found: Vec<u64> = found(&site, &name).into_keys().collect();
    assert_eq!(found, (20..60).collect::<Vec<u64>>());
}

/// A log with too many invalid records is switched off, and a log with an invalid row never starts;
/// other logs are not affected.
#[test]
fn a_failing_log_does_not_affect_others() {
    let site = Site::new("logs-apart");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 3);
    site.write(
        "pipeline.edn",
        template(
            &site,
            &table,
            &format!(
                ":error-threshold 30 :quarantine-below \"{}\"",
                site.path("quarantine").display()
            ),
        ),
    );
    let [good, bad, wrong] = [0, 1, 2].map(|topic: usize| topics.names[topic].clone());
    table.set(&good, FORMATS[0], "txt");
    table.set(&bad, FORMATS[0], "txt");
    table.set(&wrong, "txt:sep=tab;tss=0;msg=1", "txt");
    table.insert("astray", &[("format", FORMATS[0]), ("quarantine", "/tmp")]);
    (0..3).for_each(|topic| topics.send(topic, 100));
    (0..31).for_each(|_| topics.send_line(1, "no time\tat all"));
    topics.flush();
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the bad log is switched off", 60, || {
        !table.is_enabled(&bad)
    });
    wait_until("the reason is logged", 20, || {
        pseidon
            .log()
            .contains("31 records were invalid; the threshold is 30")
    });
    let log = pseidon.log();
    assert!(
        log.contains(&wrong) && log.contains("tss"),
        "the invalid row is named: {log}"
    );
    assert!(
        log.contains("log `astray`: quarantine is `/tmp`: expected a folder in"),
        "{log}"
    );
    topics.send(0, 100);
    topics.flush();
    wait_until("the good log continues", 60, || {
        is_complete(&site, &good, 200)
    });
    // After a fix, both run; invalid records are in quarantine and are not re-read.
    table.set(&wrong, FORMATS[1], "gzip");
    table.set(&bad, FORMATS[0], "txt");
    wait_until("the wrong log runs", 60, || is_complete(&site, &wrong, 100));
    topics.send(1, 50);
    topics.flush();
    wait_until("the bad log runs again", 60, || {
        is_complete(&site, &bad, 150)
    });
    pseidon.stop(40);
    [(good, 200), (bad, 150), (wrong, 100)]
        .iter()
        .for_each(|(name, sent)| check_topic(&site, name, *sent));
    let quarantined: usize = files(&site.path("quarantine"))
        .iter()
        .map(|file| lines(file).len())
        .sum();
    assert_eq!(quarantined, 31);
}

/// Changes of a row take effect without a restart of the process: the format, the output, and
/// whether the log is enabled.
#[test]
fn a_changed_row_takes_effect() {
    let site = Site::new("logs-changed");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 1);
    let name = topics.names[0].clone();
    site.write("pipeline.edn", template(&site, &table, ""));
    table.set(&name, FORMATS[0], "txt");
    topics.send(0, 10);
    topics.flush();
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the first records", 60, || is_complete(&site, &name, 10));
    table.set(&name, FORMATS[1], "gzip");
    wait_until("the change is seen", 60, || {
        pseidon.log().matches("started").count() >= 2
    });
    topics.send(0, 10);
    topics.flush();
    wait_until("the second records", 60, || is_complete(&site, &name, 20));
    let out = site.path("out").join(&name);
    let ends = |ending: &str| {
        files(&out)
            .iter()
            .filter(|file| file.to_string_lossy().ends_with(ending))
            .count()
    };
    assert!(ends(".txt") > 0 && ends(".txt.gz") > 0);
    let stops = || pseidon.log().matches(" stopped ").count();
    let before = stops();
    table.disable(&name);
    wait_until("the log is stopped", 60, || stops() > before);
    topics.send(0, 10);
    topics.flush();
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        !is_complete(&site, &name, 21),
        "a disabled log reads nothing"
    );
    table.set(&name, FORMATS[0], "txt");
    wait_until("it resumes where it stopped", 60, || {
        is_complete(&site, &name, 30)
    });
    pseidon.stop(40);
    check_topic(&site, &name, 30);
}

/// A row that was added between two runs is read too, even if the process restarts so soon that its
/// group has not noticed. (A member with a permanent id would get only its old partitions; that is
/// why there is no `:instance-id`.)
#[test]
fn a_row_can_be_added_between_runs() {
    let site = Site::new("logs-away");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 3);
    site.write("pipeline.edn", template(&site, &table, ""));
    let mut pseidon = None;
    for count in 1..=3 {
        table.set(&topics.names[count - 1], FORMATS[0], "txt");
        topics.send_all(10);
        let mut running = site.run("pipeline.edn");
        for (name, sent) in topics.names.iter().zip(&topics.sent).take(count) {
            wait_until(&format!("{name} is read"), 60, || {
                is_complete(&site, name, *sent) || !running.is_running()
            });
        }
        running.kill();
        pseidon = Some(running);
    }
    assert!(pseidon.is_some());
}
