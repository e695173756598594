//! Logs of a table while their servers fail, with records flowing: nothing is lost or doubled, it recovers by itself, and `/health` and the
//! log tell the truth meanwhile.

use std::time::Duration;

use crate::harness::mysql::LogTable;
use crate::harness::servers::{Servers, free_port, get};
use crate::harness::{Pseidon, Site, wait_until};
use crate::log_table::{FORMATS, Template, Topics, check_topic, is_complete};

const LOGS: usize = 8;

/// Logs that run against servers of the test's own.
struct Scene {
    site: Site,
    servers: Servers,
    table: LogTable,
    topics: Topics,
    pseidon: Pseidon,
    port: u16,
}

impl Scene {
    /// `redis` and `mysql` are ways to these servers, where they are to be another than the straight one.
    fn start(test: &str, names: &[&str], through_proxies: bool) -> Scene {
        let site = Site::new(test);
        let servers = Servers::start(&site, names);
        let mysql = servers.address("PSEIDON_TEST_MYSQL");
        let mut redis = servers.address("PSEIDON_TEST_REDIS");
        let mut mysql_seen = mysql.clone();
        if through_proxies {
            let upstream = |url: &str| url.rsplit(['/', '@']).next().expect("host and port").to_owned();
            mysql_seen = format!("mysql://root@{}", servers.proxy("mysql", &upstream(&mysql)));
            redis = format!("redis://{}", servers.proxy("redis", &upstream(&redis)));
        }
        let table = LogTable::at(&site, &mysql, &mysql_seen);
        let brokers = servers.address("PSEIDON_TEST_KAFKA");
        let mut topics = Topics::at(&site, &brokers, LOGS);
        let port = free_port();
        let template = Template { brokers: &brokers, redis: Some(&redis), port: Some(port), more: "" };
        site.write("pipeline.edn", template.text(&site, &table));
        topics.names.iter().for_each(|name| table.set(name, FORMATS[0], "gzip"));
        topics.send_all(20);
        let pseidon = site.run("pipeline.edn");
        let mut scene = Scene { site, servers, table, topics, pseidon, port };
        scene.flows();
        scene
    }

    /// Records sent now become visible, and all is well.
    fn flows(&mut self) {
        self.topics.send_all(20);
        self.all_is_read();
        wait_until("all is well", 60, || self.health().is_some_and(|(status, _)| status == 200));
        assert!(self.pseidon.is_running());
    }

    fn all_is_read(&self) {
        for (name, sent) in self.topics.names.iter().zip(&self.topics.sent) {
            wait_until(&format!("{name} is read"), 120, || is_complete(&self.site, name, *sent));
        }
    }

    fn health(&self) -> Option<(u16, String)> {
        get(self.port, "/health")
    }

    /// `/health` tells of trouble, in words among which is this.
    fn is_in_trouble(&mut self, word: &str) {
        wait_until(&format!("/health says `{word}`"), 60, || {
            self.health().is_some_and(|(status, text)| status == 503 && text.contains(word)) || !self.pseidon.is_running()
        });
        assert!(self.pseidon.is_running());
    }

    fn finish(mut self) {
        self.flows();
        self.pseidon.stop(60);
        self.topics.names.iter().zip(&self.topics.sent).for_each(|(name, sent)| check_topic(&self.site, name, *sent));
    }
}

#[test]
fn the_broker_is_killed() {
    let mut scene = Scene::start("logs-kafka", &["kafka", "redis", "mariadb"], false);
    for _ in 0..2 {
        scene.topics.send_all_without_waiting(50);
        scene.servers.kill("kafka");
        scene.is_in_trouble("cannot reach");
        scene.servers.restart("kafka");
        scene.topics.flush();
        scene.flows();
    }
    assert!(scene.pseidon.log().contains("kafka:"), "the log tells of it");
    scene.finish();
}

#[test]
fn redis_is_killed_and_then_emptied() {
    let mut scene = Scene::start("logs-redis", &["kafka", "redis", "mariadb"], false);
    for _ in 0..2 {
        scene.topics.send_all(50);
        scene.servers.kill("redis");
        scene.topics.send_all(50);
        scene.is_in_trouble("state store does not answer");
        scene.servers.restart("redis");
        scene.flows();
    }
    assert!(scene.pseidon.log().contains("state store does not answer"));
    // What lost its data must not be taken for a new one.
    let redis = scene.servers.address("PSEIDON_TEST_REDIS");
    let port = redis.rsplit(':').next().expect("a port");
    let output = std::process::Command::new("redis-cli").args(["-p", port, "flushall"]).output().expect("redis-cli");
    assert!(output.status.success());
    scene.topics.send_all(20);
    scene.pseidon.expect_exit(1, 60);
    assert!(scene.pseidon.log().contains("lost data"), "it says why");
    let before = scene.topics.names.iter().map(|name| crate::log_table::found(&scene.site, name).len()).sum::<usize>();
    // Nor at the next start.
    let mut again = scene.site.run("pipeline.edn");
    wait_until("it refuses", 60, || again.log().contains("the state may have been lost"));
    std::thread::sleep(Duration::from_secs(2));
    let after = scene.topics.names.iter().map(|name| crate::log_table::found(&scene.site, name).len()).sum::<usize>();
    assert_eq!(before, after, "nothing is read again");
    again.kill();
}

#[test]
fn mariadb_is_killed() {
    let mut scene = Scene::start("logs-mysql", &["kafka", "redis", "mariadb"], false);
    scene.servers.kill("mariadb");
    scene.is_in_trouble("table of logs cannot be read");
    // What runs goes on.
    scene.topics.send_all(50);
    scene.all_is_read();
    // A start without MySQL knows the logs as they were.
    scene.pseidon.kill();
    scene.pseidon = scene.site.run("pipeline.edn");
    scene.topics.send_all(50);
    scene.all_is_read();
    scene.servers.restart("mariadb");
    scene.flows();
    let name = scene.topics.names[0].clone();
    scene.table.disable(&name);
    wait_until("the table is followed again", 60, || scene.pseidon.log().contains("stopped"));
    scene.table.set(&name, FORMATS[0], "gzip");
    scene.finish();
}

#[test]
fn connections_are_cut() {
    let mut scene = Scene::start("logs-cut", &["kafka", "redis", "mariadb", "toxiproxy"], true);
    for round in 0..6 {
        let name = if round % 2 == 0 { "redis" } else { "mysql" };
        scene.topics.send_all(30);
        scene.servers.let_through(name, false);
        scene.topics.send_all(30);
        if round >= 4 {
            scene.is_in_trouble(if name == "redis" { "state store does not answer" } else { "table of logs cannot be read" });
        } else {
            std::thread::sleep(scene.site.random.millis(50..1500));
        }
        scene.servers.let_through(name, true);
        scene.flows();
    }
    scene.finish();
}
