//! Tests of the service through real connections, with a registry whose plan is real.

mod clients;
mod hosts;
mod http;
mod protocols;
mod repl;
mod roles;
mod slow_repl;
mod sockets;
mod tls;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_dsl::document;
use pseidon_exec::{Control, Pools, Run};
use pseidon_plan::settings::TokenFor;
use pseidon_plan::{Plan, PlanContext, plan};
use pseidon_plugin::Secret;
use pseidon_plugin::registry::PluginRegistry;
use pseidon_synthetic::{DropPlugin, GeneratePlugin};
use serde_json::Value;
use tempfile::TempDir;

use crate::limits::Limits;
use crate::peer::Peer;
use crate::runs::{EntryState, LiveRun, RunRegistry};
use crate::{Service, ServiceConfig, TokenSource, start};

/// A pipeline that does not end by itself, with a secret in its text.
const PIPELINE: &str = r#"{:name "test"
    ; hidden in a comment
    :settings {:etl-threads 1 :writer-threads 1 :memory "32MiB" :namespace "a"}
    in (generate {:record {:n "n" :user "'u' || n"} :rate 1000})
    even (where "n % 2 = 0")
    pipeline (-> in even (all (drop)) (select "n * 10 as ten") (drop))
    :tests [{:name "x" :at even :input [{:n 1 :password "hidden"}] :output []}]}"#;

fn plan_of(text: &str, base: &Path) -> Arc<Plan> {
    let document = document::from_edn(text).unwrap();
    let infer =
        |_: &str,
         _: &dyn pseidon_plugin::source::Source,
         _: &dyn pseidon_plugin::format::Format| Err("there are no records".to_owned());
    let registry = PluginRegistry {
        sources: vec![Arc::new(GeneratePlugin)],
        sinks: vec![Arc::new(DropPlugin)],
        formats: pseidon_formats::formats(),
        quarantine: pseidon_files::sink::quarantine,
        group: pseidon_group::group,
        synonyms: &[],
    };
    let context = PlanContext {
        registry: &registry,
        default_name: "test".into(),
        base: base.into(),
        text: text.into(),
        infer: &infer,
        tables: &|_| Err("no table can be read here".to_owned()),
        keeps_state: true,
    };
    Arc::new(plan(&document, context).unwrap_or_else(|errors| panic!("{errors:?}")))
}

/// A running service.
struct TestService {
    runs: Arc<RunRegistry>,
    monitor: SocketAddr,
    repl: SocketAddr,
    /// Dropped before the folder.
    service: Service,
    reloads: Option<Receiver<()>>,
    handles: Vec<(Sender<Control>, JoinHandle<()>)>,
    /// The folder of the pipeline.
    base: TempDir,
}

impl Drop for TestService {
    fn drop(&mut self) {
        for (control, thread) in self.handles.drain(..) {
            let _ = control.send(Control::LeaveNow);
            thread.join().unwrap();
        }
    }
}

/// A registry whose plan has this folder, and what receives its requests to reload.
fn registry(base: &Path, entries: &[&str], is_template: bool) -> (Arc<RunRegistry>, Receiver<()>) {
    let plan = plan_of(PIPELINE, base);
    let pools = Arc::new(Pools::start(&plan.settings).unwrap());
    let (reload, reloads) = bounded(1);
    let runs = Arc::new(RunRegistry::new(plan, pools, is_template.then_some(reload)));
    entries.iter().for_each(|name| drop(runs.entry(name)));
    (runs, reloads)
}

fn serve(entries: &[&str], is_template: bool, token: Option<&str>) -> TestService {
    serve_with(entries, is_template, token, |_, _| {})
}

/// A client of a port.
pub(crate) fn network_peer() -> Peer {
    Peer::Network {
        address: (Ipv4Addr::LOCALHOST, 1).into(),
        certificate: None,
    }
}

/// This token, or none.
fn token_source(token: Option<&str>) -> TokenSource {
    token.map_or(TokenSource::None, |token| {
        TokenSource::One(Secret::new(token))
    })
}

/// Both ports on this machine, with this token or without one.
fn config(token: Option<&str>) -> ServiceConfig {
    ServiceConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        monitor_port: Some(0),
        repl_port: Some(0),
        monitor_socket: None,
        repl_socket: None,
        names: vec!["etl.example".to_owned()],
        tls: None,
        tokens: token_source(token),
        token_for: TokenFor::Pages,
    }
}

/// Like [`serve`], with other settings and limits.
fn serve_with(
    entries: &[&str],
    is_template: bool,
    token: Option<&str>,
    change: impl FnOnce(&mut ServiceConfig, &mut Limits),
) -> TestService {
    let base = tempfile::tempdir().unwrap();
    let (runs, reloads) = registry(base.path(), entries, is_template);
    let mut config = config(token);
    let mut limits = Limits::of_process();
    change(&mut config, &mut limits);
    let served = start(&config, runs.clone(), limits, pseidon_formats::json_lines).unwrap();
    TestService {
        runs,
        monitor: served.monitor.unwrap(),
        repl: served.repl.unwrap(),
        service: served,
        reloads: is_template.then_some(reloads),
        handles: Vec::new(),
        base,
    }
}

impl TestService {
    /// Runs the plan as this entry, and returns when its split was taken over.
    fn run(&mut self, name: &str) {
        let (entry, plan, pools) = (
            self.runs.entry(name),
            self.runs.plan.clone(),
            self.runs.pools.clone(),
        );
        let store = Arc::new(EmbeddedStore::open(self.base.path(), name).unwrap());
        let (control, controls) = unbounded();
        entry.set_live(Some(LiveRun {
            plan: plan.clone(),
            control: control.clone(),
            since: Instant::now(),
        }));
        entry.set_state(EntryState::Running);
        let view = entry.view.clone();
        let thread = std::thread::spawn(move || {
            let (metrics, view) = (entry.metrics.clone(), entry.view.clone());
            let run = Run {
                plan,
                pools,
                store,
                metrics,
                accept_changed_plan: false,
                catch_up: None,
                was_open: false,
                control: controls,
                view,
            };
            run.run().unwrap();
        });
        until(|| {
            view.positions()
                .iter()
                .any(|of_sink| !of_sink.splits.is_empty())
                .then_some(())
        });
        self.handles.push((control, thread));
    }

    /// Sends an HTTP request and reads the response.
    fn request(&self, method: &str, path: &str, headers: &[&str]) -> HttpResponse {
        let host = self.monitor.to_string();
        self.request_to(&host, method, path, headers)
    }

    /// Sends an HTTP request to this host and reads the response.
    fn request_to(&self, host: &str, method: &str, path: &str, headers: &[&str]) -> HttpResponse {
        let more: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.monitor).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        HttpResponse::read(&mut stream)
    }

    fn get(&self, path: &str) -> HttpResponse {
        self.request("GET", path, &[])
    }

    fn post(&self, path: &str) -> HttpResponse {
        self.request("POST", path, &[])
    }
}

struct HttpResponse {
    status: u16,
    /// The status line and the headers, in lower case.
    head: String,
    body: String,
}

impl HttpResponse {
    /// Reads a response after which the connection is closed.
    fn read(stream: &mut impl Read) -> HttpResponse {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{response}"));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap();
        HttpResponse {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Runs a test in paused time, which advances when everything waits.
pub(crate) fn in_paused_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Calls `look` until it returns a value; panics after 120 s.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2400 {
        if let Some(value) = look() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no value within 120 s");
}
