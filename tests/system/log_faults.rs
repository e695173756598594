//! Logs of a table while their servers fail and records arrive: no record is lost or duplicated,
//! the process recovers by itself, and `/health` and the log output report the failure meanwhile.

use std::time::Duration;

use crate::fail_points::{STEPS_OF_LOGS, STEPS_TO_FILES};
use crate::harness::feed::PARTITIONS;
use crate::harness::mysql::LogTable;
use crate::harness::output::{files, lines};
use crate::harness::servers::{Servers, free_port, get};
use crate::harness::{Pseidon, Site, brokers, wait_until};
use crate::instances::assigned;
use crate::log_table::{FORMATS, Template, Topics, check_topic, found, is_complete, template};
use crate::outages::SmallDisk;

const LOGS: usize = 8;
/// The bytes of a large record.
const LARGE: usize = 8 << 10;

/// Logs that run with servers for one test.
struct Scene {
    pseidon: Pseidon,
    table: LogTable,
    topics: Topics,
    port: u16,
    servers: Servers,
    /// Dropped last: its folder holds the data of the servers.
    site: Site,
}

impl Scene {
    /// Starts servers and a run. With `through_proxies`, the run connects to Redis and MySQL
    /// through toxiproxy.
    fn start(test: &str, names: &[&str], through_proxies: bool) -> Scene {
        let site = Site::new(test);
        let servers = Servers::start(&site, names);
        let mysql = servers.address("PSEIDON_TEST_MYSQL");
        let mut redis = servers.address("PSEIDON_TEST_REDIS");
        let mut mysql_seen = mysql.clone();
        if through_proxies {
            let upstream = |url: &str| {
                url.rsplit(['/', '@'])
                    .next()
                    .expect("host and port")
                    .to_owned()
            };
            mysql_seen = format!("mysql://root@{}", servers.proxy("mysql", &upstream(&mysql)));
            redis = format!("redis://{}", servers.proxy("redis", &upstream(&redis)));
        }
        let table = LogTable::at(&site, &mysql, &mysql_seen);
        let brokers = servers.address("PSEIDON_TEST_KAFKA");
        let mut topics = Topics::at(&site, &brokers, LOGS);
        let port = free_port();
        let template = Template {
            brokers: &brokers,
            redis: Some(&redis),
            port: Some(port),
            more: "",
        };
        site.write("pipeline.edn", template.text(&site, &table));
        topics
            .names
            .iter()
            .for_each(|name| table.set(name, FORMATS[0], "gzip"));
        topics.send_all(20);
        let pseidon = site.run("pipeline.edn");
        let mut scene = Scene {
            site,
            servers,
            table,
            topics,
            pseidon,
            port,
        };
        scene.expect_delivery();
        scene
    }

    /// Waits until records that are sent now become visible and `/health` is ok.
    fn expect_delivery(&mut self) {
        self.topics.send_all(20);
        self.all_is_read();
        wait_until("/health is ok", 60, || {
            self.health().is_some_and(|(status, _)| status == 200)
        });
        assert!(self.pseidon.is_running());
    }

    fn all_is_read(&self) {
        for (name, sent) in self.topics.names.iter().zip(&self.topics.sent) {
            wait_until(&format!("{name} is read"), 120, || {
                is_complete(&self.site, name, *sent)
            });
        }
    }

    fn health(&self) -> Option<(u16, String)> {
        get(self.port, "/health")
    }

    /// Waits until `/health` reports a problem that contains `word`.
    fn expect_problem(&mut self, word: &str) {
        wait_until(&format!("/health says `{word}`"), 60, || {
            self.health()
                .is_some_and(|(status, text)| status == 503 && text.contains(word))
                || !self.pseidon.is_running()
        });
        assert!(self.pseidon.is_running());
    }

    fn finish(mut self) {
        self.expect_delivery();
        self.pseidon.stop(60);
        self.topics
            .names
            .iter()
            .zip(&self.topics.sent)
            .for_each(|(name, sent)| check_topic(&self.site, name, *sent));
    }
}

#[test]
fn the_broker_is_killed() {
    let mut scene = Scene::start("logs-kafka", &["kafka", "redis", "mariadb"], false);
    for _ in 0..2 {
        scene.topics.send_all_without_waiting(50);
        scene.servers.kill("kafka");
        scene.expect_problem("cannot reach");
        scene.servers.restart("kafka");
        scene.topics.flush();
        scene.expect_delivery();
    }
    assert!(
        scene.pseidon.log().contains("kafka:"),
        "the log output reports it"
    );
    scene.finish();
}

#[test]
fn redis_is_killed_and_then_emptied() {
    let mut scene = Scene::start("logs-redis", &["kafka", "redis", "mariadb"], false);
    for _ in 0..2 {
        scene.topics.send_all(50);
        scene.servers.kill("redis");
        scene.topics.send_all(50);
        scene.expect_problem("state store does not answer");
        scene.servers.restart("redis");
        scene.expect_delivery();
    }
    assert!(scene.pseidon.log().contains("state store does not answer"));
    // A server that lost its data must not be mistaken for a new one.
    let redis = scene.servers.address("PSEIDON_TEST_REDIS");
    let port = redis.rsplit(':').next().expect("a port");
    let output = std::process::Command::new("redis-cli")
        .args(["-p", port, "flushall"])
        .output()
        .expect("redis-cli");
    assert!(output.status.success());
    scene.topics.send_all(20);
    scene.pseidon.expect_exit(1, 60);
    assert!(
        scene.pseidon.log().contains("lost data"),
        "it reports the reason"
    );
    let before = scene
        .topics
        .names
        .iter()
        .map(|name| found(&scene.site, name).len())
        .sum::<usize>();
    // Nor at the next start.
    let mut again = scene.site.run("pipeline.edn");
    wait_until("it refuses", 60, || {
        again.log().contains("the state may have been lost")
    });
    std::thread::sleep(Duration::from_secs(2));
    let after = scene
        .topics
        .names
        .iter()
        .map(|name| found(&scene.site, name).len())
        .sum::<usize>();
    assert_eq!(before, after, "no record is re-read");
    again.kill();
}

#[test]
fn mariadb_is_killed() {
    let mut scene = Scene::start("logs-mysql", &["kafka", "redis", "mariadb"], false);
    scene.servers.kill("mariadb");
    scene.expect_problem("table of logs cannot be read");
    // Running logs continue.
    scene.topics.send_all(50);
    scene.all_is_read();
    // A start without MySQL uses the rows that were last read.
    scene.pseidon.kill();
    scene.pseidon = scene.site.run("pipeline.edn");
    scene.topics.send_all(50);
    scene.all_is_read();
    scene.servers.restart("mariadb");
    scene.expect_delivery();
    let name = scene.topics.names[0].clone();
    scene.table.disable(&name);
    wait_until("changes of the table take effect again", 60, || {
        scene.pseidon.log().contains("stopped")
    });
    scene.table.set(&name, FORMATS[0], "gzip");
    scene.finish();
}

#[test]
fn connections_are_cut() {
    let mut scene = Scene::start(
        "logs-cut",
        &["kafka", "redis", "mariadb", "toxiproxy"],
        true,
    );
    for round in 0..6 {
        let name = if round % 2 == 0 { "redis" } else { "mysql" };
        scene.topics.send_all(30);
        scene.servers.let_through(name, false);
        scene.topics.send_all(30);
        if round >= 4 {
            scene.expect_problem(if name == "redis" {
                "state store does not answer"
            } else {
                "table of logs cannot be read"
            });
        } else {
            std::thread::sleep(scene.site.random.millis(50..1500));
        }
        scene.servers.let_through(name, true);
        scene.expect_delivery();
    }
    scene.finish();
}

/// Everything that panics is restarted automatically: the planning of a log, the consumer that all
/// logs share, a writer, a follow-up of one log.
#[test]
fn everything_that_panics_is_restarted() {
    for step in [
        STEPS_OF_LOGS,
        STEPS_TO_FILES,
        &["taken", "recovered", "begun"],
    ]
    .concat()
    {
        let site = Site::new(&format!("panic-{step}"));
        let table = LogTable::new(&site);
        let mut topics = Topics::new(&site, 2);
        topics
            .names
            .iter()
            .for_each(|name| table.set(name, FORMATS[0], "gzip"));
        let template = Template {
            brokers: &brokers(),
            redis: None,
            port: None,
            more: "",
        };
        site.write("pipeline.edn", template.text(&site, &table));
        topics.send_all(100);
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_PANIC", format!("{step}:2"));
        let mut pseidon = site.start(command);
        wait_until(&format!("it panics at `{step}`"), 60, || {
            pseidon.log().contains("PSEIDON_PANIC is set") || !pseidon.is_running()
        });
        topics.send_all(100);
        for (name, sent) in topics.names.iter().zip(&topics.sent) {
            wait_until(
                &format!("{name} is read after a panic at `{step}`"),
                60,
                || is_complete(&site, name, *sent) || !pseidon.is_running(),
            );
        }
        assert!(
            pseidon.is_running(),
            "a panic at `{step}` must not end the process"
        );
        pseidon.stop(60);
        topics
            .names
            .iter()
            .zip(&topics.sent)
            .for_each(|(name, sent)| check_topic(&site, name, *sent));
    }
}

/// Fills a disk.
fn fill(disk: &SmallDisk) {
    std::fs::write(disk.path("ballast"), vec![0; 6 << 20]).expect("most of the disk can be filled");
    while std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(disk.path("rest"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
        .is_ok()
    {}
}

/// The record numbers in the visible files of a disk, sorted.
fn numbers_on(disk: &SmallDisk) -> Vec<u64> {
    let lines = files(&disk.path("out"))
        .into_iter()
        .flat_map(|file| lines(&file));
    let mut numbers: Vec<u64> = lines
        .filter_map(|line| line.split('\t').next()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// One log writes to a separate disk, which is full. The other logs continue, and can be changed
/// and stopped; when there is space again, it continues too.
#[test]
fn the_disk_of_one_log_is_full() {
    let site = Site::new("logs-full");
    let table = LogTable::new(&site);
    let mut topics = Topics::at(&site, &brokers(), LOGS);
    let disk = SmallDisk::mount(&site);
    site.write(
        "pipeline.edn",
        template(&site, &table, "").replace(":path \"out/", ":path \"${log:base_partition}/"),
    );
    let insert = |log: &str, place: &str, format: &str| {
        table.insert(
            log,
            &[
                ("format", format),
                ("output_format", "gzip"),
                ("base_partition", place),
            ],
        );
    };
    let (full, others) = topics
        .names
        .split_first()
        .map(|(full, others)| (full.clone(), others.to_vec()))
        .expect("several logs");
    insert(&full, "disk/out", FORMATS[0]);
    others.iter().for_each(|log| insert(log, "out", FORMATS[0]));
    let mut pseidon = disk.start(&site);
    topics.send_all(20);
    others
        .iter()
        .for_each(|log| wait_until("the others are read", 60, || found(&site, log).len() == 20));
    fill(&disk);
    topics.send(0, 5000);
    topics.send_all(50);
    wait_until("it reports that the disk is full", 60, || {
        pseidon.log().contains("cannot write")
    });
    // Twice as much as may be in flight for all logs together.
    topics.send_large(0, Template::BUDGET * 2 / LARGE as u64, LARGE);
    for round in 1..=3 {
        topics.send_all(50);
        for log in &others {
            wait_until(&format!("{log} continues in round {round}"), 60, || {
                found(&site, log).len() == 70 + 50 * round || !pseidon.is_running()
            });
        }
        // The change restarts the log.
        insert(&others[round], "out", FORMATS[1]);
    }
    let sent = topics.sent[0];
    std::fs::remove_file(disk.path("ballast")).expect("the file can be removed");
    wait_until("it continues when there is space", 120, || {
        numbers_on(&disk).len() as u64 >= sent || !pseidon.is_running()
    });
    assert_eq!(numbers_on(&disk), (0..sent).collect::<Vec<u64>>());
    pseidon.stop(60);
    for (log, sent) in others.iter().zip(&topics.sent[1..]) {
        check_topic(&site, log, *sent);
    }
}

/// One log of an instance is blocked when another instance comes. The other one gets its part of the
/// partitions, also of the blocked log, whose uncommitted records it reads again. Meanwhile the
/// other logs continue.
#[test]
fn a_blocked_log_does_not_hold_up_a_rebalance() {
    let site = Site::new("logs-rebalance");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 3);
    let disk = SmallDisk::mount(&site);
    site.write(
        "pipeline.edn",
        template(&site, &table, "").replace(":path \"out/", ":path \"${log:base_partition}/"),
    );
    let names = topics.names.clone();
    let (full, others) = names.split_first().expect("several logs");
    for log in &names {
        let place = if log == full { "disk/out" } else { "out" };
        let row = [("format", FORMATS[0]), ("output_format", "gzip")];
        table.insert(log, &[row[0], row[1], ("base_partition", place)]);
    }
    topics.send_all(20);
    let mut one = disk.start(&site);
    for log in others {
        wait_until("the others are read", 60, || found(&site, log).len() == 20);
    }
    fill(&disk);
    topics.send(0, 5000);
    topics.flush();
    wait_until("it reports that the disk is full", 60, || {
        one.log().contains("cannot write")
    });
    let mut two = disk.start(&site);
    wait_until(
        "the other instance has its part of the partitions",
        60,
        || assigned(&two.log()) as u64 == 3 * PARTITIONS / 2,
    );
    assert!(one.is_running());
    topics.send_all(50);
    topics.flush();
    for log in others {
        wait_until(&format!("{log} continues"), 60, || {
            found(&site, log).len() == 70
        });
    }
    let sent = topics.sent[0];
    assert!((numbers_on(&disk).len() as u64) < sent, "it is blocked");
    std::fs::remove_file(disk.path("ballast")).expect("the file can be removed");
    wait_until("it continues when there is space", 120, || {
        numbers_on(&disk).len() as u64 >= sent
    });
    // The run that was blocked has failed, and the other instance has what it had read.
    for instance in [&mut two, &mut one] {
        instance.stop_beside_others(60);
    }
    assert_eq!(numbers_on(&disk), (0..sent).collect::<Vec<u64>>());
    for (log, sent) in others.iter().zip(&topics.sent[1..]) {
        check_topic(&site, log, *sent);
    }
}

/// A panic reaches the log, also as JSON, and the error that ends the run, with its message and its
/// place in the source.
#[test]
fn a_panic_is_logged_with_its_message_and_place() {
    let site = Site::new("panic-logged");
    site.write(
        "pipeline.edn",
        r#"{:name "panics" in (generate {:record {:n "n"} :rate 100})
            pipeline (-> in (files {:path "out" :codec :json :rollover {:records 10}}))}"#,
    );
    let mut command = site.command("pipeline.edn");
    command.args(["--log-format", "json"]);
    // No record is to blame for a panic there.
    command.env("PSEIDON_PANIC", "synced:1");
    let mut pseidon = site.start(command);
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    for marker in ["please report it", "internal error in thread `writer`"] {
        let line = log.lines().find(|line| line.contains(marker));
        let line = line.unwrap_or_else(|| panic!("no line has `{marker}`: {log}"));
        for part in ["PSEIDON_PANIC is set", "failpoint.rs:"] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
    }
}
