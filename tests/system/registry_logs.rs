//! Logs of Avro records, with a real schema registry.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::mysql::LogTable;
use crate::harness::output::{all_lines, files};
use crate::harness::servers::Servers;
use crate::harness::topics::produce;
use crate::harness::{Pseidon, Site, brokers, wait_until};
use crate::log_table::Template;

const FIRST: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"}]}"#;
/// The next version, with one more field.
const SECOND: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"},{"name":"status","type":"int","default":0}]}"#;
const THIRD: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"},{"name":"status","type":"int","default":0},{"name":"agent","type":["null","string"],"default":null}]}"#;

const AT: i64 = 1_700_000_000_000;

/// Registers a schema; returns its id.
fn register(servers: &Servers, subject: &str, schema: &str) -> u32 {
    let url = format!(
        "{}/subjects/{subject}/versions",
        servers.address("PSEIDON_TEST_REGISTRY")
    );
    let body = serde_json::json!({ "schema": schema }).to_string();
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--header",
            "Content-Type: application/vnd.schemaregistry.v1+json",
        ])
        .args(["--data", &body, &url])
        .output()
        .expect("curl");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{answer} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("json");
    answer["id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .unwrap_or_else(|| panic!("an id in {answer}"))
}

/// A record as the serializers of Confluent write it: the header, then the binary encoding of Avro,
/// written by hand.
/// <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>
struct AvroRecord(Vec<u8>);

impl AvroRecord {
    fn with(id: u32) -> AvroRecord {
        AvroRecord([&[0][..], &id.to_be_bytes()].concat())
    }

    fn long(mut self, value: i64) -> AvroRecord {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }

    fn text(mut self, value: &str) -> AvroRecord {
        self = self.long(value.len() as i64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }
}

fn url(number: i64) -> String {
    format!("/pages/{number}?q=ü")
}

fn first(id: u32, number: i64) -> Vec<u8> {
    AvroRecord::with(id).long(AT + number).text(&url(number)).0
}

fn second(id: u32, number: i64) -> Vec<u8> {
    AvroRecord::with(id)
        .long(AT + number)
        .text(&url(number))
        .long(200 + number % 3)
        .0
}

fn third(id: u32, number: i64) -> Vec<u8> {
    // The null branch of the union, or the string branch.
    let before = AvroRecord::with(id)
        .long(AT + number)
        .text(&url(number))
        .long(404);
    if number % 2 == 0 {
        before.long(0).0
    } else {
        before.long(1).text("curl").0
    }
}

struct Scene {
    pseidon: Pseidon,
    servers: Servers,
    table: LogTable,
    /// The topic whose message is the field with the URL.
    urls: String,
    /// The topic whose message is the whole record.
    whole: String,
    ids: [u32; 3],
    /// Dropped last: its folder holds the data of the servers.
    site: Site,
}

impl Scene {
    fn start(test: &str) -> Scene {
        let site = Site::new(test);
        let servers = Servers::start(&site, &["registry"]);
        let ids = [FIRST, SECOND, THIRD]
            .map(|schema| register(&servers, &format!("{}-value", site.name), schema));
        let table = LogTable::new(&site);
        let [urls, whole] = ["urls", "whole"].map(|name| format!("{}-{name}", site.name));
        for (log, format) in [
            (&urls, "avro-txt:ts=0;msg=1"),
            (&whole, "avro-txt:ts=0;msg=-1"),
        ] {
            produce(log, 0, (0..100).map(|number| first(ids[0], number)));
            table.insert(log, &[("format", format), ("output_format", "txt")]);
        }
        // A single invalid record exceeds the threshold.
        let more = format!(
            ":registry \"{}\" :error-threshold 0",
            servers.address("PSEIDON_TEST_REGISTRY")
        );
        let template = Template {
            brokers: &brokers(),
            redis: None,
            port: None,
            more: &more,
        };
        site.write("pipeline.edn", template.text(&site, &table));
        let pseidon = site.run("pipeline.edn");
        Scene {
            site,
            servers,
            table,
            urls,
            whole,
            ids,
            pseidon,
        }
    }

    fn lines(&self, log: &str) -> Vec<String> {
        all_lines(&self.site.path("out").join(log))
    }

    fn wait_for(&mut self, records: usize) {
        for log in [self.urls.clone(), self.whole.clone()] {
            wait_until(&format!("{records} records of {log}"), 90, || {
                self.lines(&log).len() == records || !self.pseidon.is_running()
            });
        }
        assert!(self.pseidon.is_running());
    }

    /// Sends the records with these numbers to both logs.
    fn send(&self, numbers: std::ops::Range<i64>, record: fn(u32, i64) -> Vec<u8>, id: u32) {
        [&self.urls, &self.whole]
            .iter()
            .for_each(|log| produce(log, 1, numbers.clone().map(|number| record(id, number))));
    }
}

#[test]
fn the_registry_is_killed_and_restarted() {
    let mut scene = Scene::start("registry");
    scene.wait_for(100);
    // Known schemas need no registry; unknown ones wait for it.
    scene.servers.kill("registry");
    scene.send(100..150, first, scene.ids[0]);
    scene.wait_for(150);
    scene.send(150..200, second, scene.ids[1]);
    wait_until("it reports that the registry does not answer", 60, || {
        scene.pseidon.log().contains("cannot fetch schema")
    });
    std::thread::sleep(Duration::from_secs(3));
    scene.wait_for(150);
    scene.servers.restart("registry");
    scene.wait_for(200);
    // A start while it is down, after a crash.
    scene.servers.kill("registry");
    scene.pseidon.kill();
    scene.send(200..300, third, scene.ids[2]);
    scene.pseidon = scene.site.run("pipeline.edn");
    wait_until("it reports it again", 60, || {
        scene.pseidon.log().contains("cannot fetch schema")
    });
    scene.servers.restart("registry");
    scene.wait_for(300);
    scene.pseidon.stop(60);

    let mut expected: Vec<String> = (0..300).map(url).collect();
    expected.sort();
    assert_eq!(scene.lines(&scene.urls), expected);
    let whole = scene.lines(&scene.whole);
    let whole: Vec<serde_json::Value> = whole
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line of json"))
        .collect();
    for number in 0..300 {
        let (at, url) = (AT + number, url(number));
        let expected = match number {
            0..150 => serde_json::json!({ "at": at, "url": url }),
            150..200 => serde_json::json!({ "at": at, "url": url, "status": 200 + number % 3 }),
            _ if number % 2 == 0 => {
                serde_json::json!({ "at": at, "url": url, "status": 404, "agent": null })
            }
            _ => serde_json::json!({ "at": at, "url": url, "status": 404, "agent": "curl" }),
        };
        assert_eq!(
            whole.iter().filter(|found| **found == expected).count(),
            1,
            "{expected}"
        );
    }
    assert_eq!(whole.len(), 300);
    assert_eq!(
        files(&scene.site.path("quarantine")),
        Vec::<std::path::PathBuf>::new(),
        "no record was invalid"
    );
}

/// Logs that wait for the registry block neither other logs nor the stop of the process.
#[test]
fn logs_that_wait_for_the_registry_block_no_others() {
    let mut scene = Scene::start("registry-alone");
    scene.wait_for(100);
    scene.servers.kill("registry");
    scene.send(100..150, second, scene.ids[1]);
    wait_until("it reports that the registry does not answer", 60, || {
        scene.pseidon.log().contains("cannot fetch schema")
    });
    let other = format!("{}-txt", scene.site.name);
    produce(&other, 0, (0..100).map(|number| format!("{AT}\t{number}")));
    scene.table.set(&other, "txt:sep=tab;ts=0;msg=1", "txt");
    wait_until("another log continues", 60, || {
        scene.lines(&other).len() == 100 || !scene.pseidon.is_running()
    });
    // The records that wait for the registry were read and are uncommitted.
    scene.pseidon.terminate();
    scene.pseidon.expect_exit(1, 20);
    scene.servers.restart("registry");
    scene.pseidon = scene.site.run("pipeline.edn");
    scene.wait_for(150);
    scene.pseidon.stop(60);
}

/// Whether the client has given up a request that is not answered.
fn is_given_up(request: &mut TcpStream) -> bool {
    request
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a time limit");
    let mut read = [0; 4096];
    loop {
        match request.read(&mut read) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// A registry that accepts requests and does not answer holds up only the logs that need it, even
/// if there is only one ETL thread.
#[test]
fn a_registry_that_does_not_answer_holds_up_no_other_log() {
    let site = Site::new("registry-hangs");
    let registry = TcpListener::bind("127.0.0.1:0").expect("a port");
    registry.set_nonblocking(true).expect("a listener");
    let table = LogTable::new(&site);
    let [avro, other] = ["avro", "txt"].map(|name| format!("{}-{name}", site.name));
    produce(&other, 0, [format!("{AT}\tfirst")]);
    let more = format!(
        ":registry \"http://{}\"",
        registry.local_addr().expect("its address")
    );
    let template = Template {
        brokers: &brokers(),
        redis: None,
        port: None,
        more: &more,
    };
    let text = template.text(&site, &table);
    let text = text.replace(":etl-threads 2", ":etl-threads 1");
    assert!(text.contains(":etl-threads 1"));
    site.write("pipeline.edn", text);
    table.set(&other, "txt:sep=tab;ts=0;msg=1", "txt");
    let mut pseidon = site.run("pipeline.edn");
    let lines = || all_lines(&site.path("out").join(&other));
    wait_until("the first line", 90, || {
        lines().len() == 1 || !pseidon.is_running()
    });
    produce(&avro, 0, [first(1, 0)]);
    table.set(&avro, "avro-txt:ts=0;msg=1", "txt");
    // A request is given up after some seconds, which may be too few for a busy machine. A thread
    // that waits for its answer does nothing else before.
    let is_in_time = (1..=5).any(|number| {
        let mut newest = None;
        wait_until("a request", 90, || {
            newest = registry
                .incoming()
                .map_while(Result::ok)
                .last()
                .or(newest.take());
            newest.as_mut().is_some_and(|request| !is_given_up(request))
        });
        let mut request = newest.expect("a request");
        produce(&other, 0, [format!("{AT}\t{number}")]);
        wait_until("another line", 60, || lines().len() > number);
        !is_given_up(&mut request)
    });
    assert!(is_in_time, "no line is written while a request waits");
    pseidon.terminate();
    pseidon.expect_exit(1, 30);
}
