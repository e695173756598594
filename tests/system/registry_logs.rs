//! Logs of Avro records, whose schemas a real registry has.

use std::process::Command;
use std::time::Duration;

use crate::harness::mysql::LogTable;
use crate::harness::output::{all_lines, files};
use crate::harness::servers::Servers;
use crate::harness::topics::produce;
use crate::harness::{Pseidon, Site, brokers, wait_until};
use crate::log_table::Template;

const FIRST: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"}]}"#;
/// One with a field more, as schemas go on.
const SECOND: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"},{"name":"status","type":"int","default":0}]}"#;
const THIRD: &str = r#"{"type":"record","name":"Visit","fields":[{"name":"at","type":"long"},{"name":"url","type":"string"},{"name":"status","type":"int","default":0},{"name":"agent","type":["null","string"],"default":null}]}"#;

const AT: i64 = 1_700_000_000_000;

/// Registers a schema; gives its id.
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

/// A record as Confluent's serializers write it: the head, then Avro's binary encoding, here made
/// by hand.
/// <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>
struct Encoded(Vec<u8>);

impl Encoded {
    fn with(id: u32) -> Encoded {
        Encoded([&[0][..], &id.to_be_bytes()].concat())
    }

    fn long(mut self, value: i64) -> Encoded {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }

    fn text(mut self, value: &str) -> Encoded {
        self = self.long(value.len() as i64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }
}

fn url(number: i64) -> String {
    format!("/pages/{number}?q=ü")
}

fn first(id: u32, number: i64) -> Vec<u8> {
    Encoded::with(id).long(AT + number).text(&url(number)).0
}

fn second(id: u32, number: i64) -> Vec<u8> {
    Encoded::with(id)
        .long(AT + number)
        .text(&url(number))
        .long(200 + number % 3)
        .0
}

fn third(id: u32, number: i64) -> Vec<u8> {
    // The second branch of the union, or the first.
    let before = Encoded::with(id)
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
    /// Their message is the field with the URL.
    urls: String,
    /// Their message is all of the record.
    whole: String,
    ids: [u32; 3],
    /// Dropped last: what the servers are known by lies in its folder.
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
        // One bad record would be one too many.
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

    /// Sends the records of these numbers to both logs.
    fn send(&self, numbers: std::ops::Range<i64>, record: fn(u32, i64) -> Vec<u8>, id: u32) {
        [&self.urls, &self.whole]
            .iter()
            .for_each(|log| produce(log, 1, numbers.clone().map(|number| record(id, number))));
    }
}

#[test]
fn the_registry_goes_and_comes_back() {
    let mut scene = Scene::start("registry");
    scene.wait_for(100);
    // What is known needs no registry; what is not known waits for it.
    scene.servers.kill("registry");
    scene.send(100..150, first, scene.ids[0]);
    scene.wait_for(150);
    scene.send(150..200, second, scene.ids[1]);
    wait_until("it says that the registry is away", 60, || {
        scene.pseidon.log().contains("cannot be asked for schema")
    });
    std::thread::sleep(Duration::from_secs(3));
    scene.wait_for(150);
    scene.servers.restart("registry");
    scene.wait_for(200);
    // A start while it is away, after a crash.
    scene.servers.kill("registry");
    scene.pseidon.kill();
    scene.send(200..300, third, scene.ids[2]);
    scene.pseidon = scene.site.run("pipeline.edn");
    wait_until("it says so again", 60, || {
        scene.pseidon.log().contains("cannot be asked for schema")
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
        "no record was bad"
    );
}

/// Logs whose records wait for the registry hold up nobody else: neither other logs nor the end.
#[test]
fn who_waits_for_the_registry_waits_alone() {
    let mut scene = Scene::start("registry-alone");
    scene.wait_for(100);
    scene.servers.kill("registry");
    scene.send(100..150, second, scene.ids[1]);
    wait_until("it says that the registry is away", 60, || {
        scene.pseidon.log().contains("cannot be asked for schema")
    });
    let other = format!("{}-txt", scene.site.name);
    produce(&other, 0, (0..100).map(|number| format!("{AT}\t{number}")));
    scene.table.set(&other, "txt:sep=tab;ts=0;msg=1", "txt");
    wait_until("another log goes on", 60, || {
        scene.lines(&other).len() == 100 || !scene.pseidon.is_running()
    });
    // What waits for the registry was read and is not committed.
    scene.pseidon.terminate();
    scene.pseidon.expect_exit(1, 20);
    scene.servers.restart("registry");
    scene.pseidon = scene.site.run("pipeline.edn");
    scene.wait_for(150);
    scene.pseidon.stop(60);
}
