//! The HTTP pages and the answers to control requests, compared with files: of a run that has read
//! all that there is, of one that requires a token, and of one whose state store is down.
//!
//! Counts are compared. Times, rates, the use of memory, ports and the names of splits, which
//! depend on the machine, are not.

use std::fs;
use std::io::Write;

use serde_json::Value;

use super::Goldens;
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::servers::{free_port, get, get_with, post};
use crate::harness::{Pseidon, Site, wait_until};

/// A run with its pages.
struct Scene {
    pseidon: Pseidon,
    port: u16,
    site: Site,
}

impl Scene {
    /// Starts a run over four records, one of which is invalid and one of which is filtered out.
    /// `settings` are added to the settings.
    fn start(test: &str, settings: &str) -> Scene {
        let site = Site::new(test);
        let port = free_port();
        site.write("in.json", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\nno json\n");
        site.write(
            "pipeline.edn",
            format!(
                r#"{{:name "pages" :settings {{:monitor-port {port} {settings}}}
                    in (files {{:path "in.json" :schema {{:n :int64}} :follow true :on-error :noop}})
                    pipeline (-> in (where "n > 1")
                                    (files {{:path "out" :codec :json :rollover {{:idle "100ms"}} :check-freq "50ms"}}))}}"#
            ),
        );
        let pseidon = site.run("pipeline.edn");
        Scene {
            pseidon,
            port,
            site,
        }
    }

    fn wait_for(&self, what: &str, page: &str, holds: impl Fn(u16, &str) -> bool) {
        wait_until(what, 60, || {
            get(self.port, page).is_some_and(|(status, body)| holds(status, &body))
        });
    }

    /// Waits until two records are published and the invalid one is counted.
    fn wait_until_written(&self) {
        self.wait_for("all is written", "/stats", |_, body| {
            let stats: Value = serde_json::from_str(body).expect("json");
            let totals = &stats["totals"];
            ["records-out", "dropped", "files"].map(|name| totals[name].as_u64())
                == [Some(2), Some(1), Some(1)]
        });
    }

    /// The request, the status code and the body.
    fn get(&self, page: &str) -> String {
        self.get_with(page, "")
    }

    fn get_with(&self, page: &str, token: &str) -> String {
        let (status, body) = get_with(self.port, page, token).expect("an answer");
        self.shown("GET", page, status, &body)
    }

    fn post(&self, page: &str, token: &str) -> String {
        let (status, body) = post(self.port, page, token).expect("an answer");
        self.shown("POST", page, status, &body)
    }

    fn shown(&self, method: &str, page: &str, status: u16, body: &str) -> String {
        let folder = self.site.path("").display().to_string();
        let body = body
            .replace(&folder, "FOLDER/")
            .replace(&self.port.to_string(), "PORT")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION");
        format!("{method} {page}\n{status}\n{body}")
    }

    fn append(&self, text: &str) {
        let file = fs::File::options()
            .append(true)
            .open(self.site.path("in.json"));
        let mut file = file.expect("it is there");
        file.write_all(text.as_bytes()).expect("it can be written");
    }

    fn stop(mut self) {
        self.pseidon.stop(30);
    }
}

#[test]
fn pages_of_a_run() {
    let scene = Scene::start("pages", "");
    scene.wait_until_written();
    let mut goldens = Goldens::default();
    for page in ["health", "live", "ready", "config", "none"] {
        goldens.compare(&format!("page-{page}.txt"), &scene.get(&format!("/{page}")));
    }
    goldens.compare("page-index.txt", &scene.get("/"));
    for page in ["metrics", "stats", "logs", "logs/pages"] {
        let shown = without_measurements(&scene.get(&format!("/{page}")));
        goldens.compare(&format!("page-{}.txt", page.replace('/', "-")), &shown);
    }
    let samples = without_measured_samples(&scene.get("/metrics/prometheus"));
    goldens.compare("page-prometheus.txt", &samples);
    scene.stop();
    goldens.finish();
}

#[test]
fn answers_to_control_requests() {
    let scene = Scene::start("control", r#":token "secret-word""#);
    scene.wait_for("it is ready", "/ready", |status, _| status == 200);
    let token = "secret-word";
    // After a stop the process may be gone.
    let gets = [
        scene.get_with("/pause", token),
        scene.get("/pause"),
        scene.get("/logs"),
        scene.get("/health"),
    ];
    let answers = [
        scene.post("/pause", ""),
        scene.post("/pause", "another"),
        scene.post("/pause", token),
        scene.post("/resume", token),
        scene.post("/roll", token),
        scene.post("/reset-errors", token),
        scene.post("/roll?log=pages", token),
        scene.post("/roll?log=other", token),
        scene.post("/roll?lgo=pages", token),
        scene.post("/reload", token),
        scene.post("/stop", token),
    ];
    scene.stop();
    let mut goldens = Goldens::default();
    goldens.compare(
        "page-control.txt",
        &[&answers[..], &gets].concat().join("\n"),
    );
    goldens.finish();
}

#[test]
fn health_without_a_state_store() {
    let site = Site::new("unhealthy-store");
    let mut redis = Redis::start(&site);
    let scene = Scene::start("unhealthy", &state_in(&site, &redis.url()));
    // Not earlier: while a run opens its sinks, `/health` does not report the state store.
    scene.wait_until_written();
    assert_eq!(get(scene.port, "/health"), Some((200, "ok\n".to_owned())));
    redis.kill();
    scene.append("{\"n\":4}\n");
    scene.wait_for("it is unhealthy", "/health", |status, _| status == 503);
    let mut goldens = Goldens::default();
    goldens.compare("page-health-unhealthy.txt", &scene.get("/health"));
    goldens.finish();
}

/// A page without the values of these keys, which depend on time and on the machine.
fn without_measurements(page: &str) -> String {
    /// The start of the name of a split of the stage `in`.
    const SPLIT: &str = "\"in:";
    const MEASURED: [&str; 12] = [
        "committed",
        "fifteen-minute-rate",
        "five-minute-rate",
        "init",
        "mean-rate",
        "memory-used",
        "one-minute-rate",
        "rate",
        "running-seconds",
        "tcp-conn",
        "uptime-seconds",
        "used",
    ];
    let line = |line: &str| {
        let key = line.split('"').nth(1).unwrap_or_default();
        match line.split_once(": ") {
            Some((name, _)) if name.trim_start().starts_with(SPLIT) => {
                let indent = name.len() - name.trim_start().len();
                format!("{:indent$}{SPLIT}…\": …\n", "")
            }
            Some((name, value)) if MEASURED.contains(&key) => {
                let end = if value.ends_with(',') { "," } else { "" };
                format!("{name}: …{end}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    page.lines().map(line).collect()
}

/// A page of Prometheus without the values that depend on time and on the machine.
fn without_measured_samples(page: &str) -> String {
    const MEASURED: [&str; 3] = [
        "process_resident_memory_bytes",
        "pseidon_memory_used_bytes",
        "pseidon_uptime_seconds",
    ];
    let line = |line: &str| match line.split_once(' ') {
        Some((name, _)) if MEASURED.contains(&name) => format!("{name} …\n"),
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}
