//! The face through real connections, of a board with a real plan.

mod http;
mod repl;

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
use pseidon_plan::{Context, Plan, plan};
use serde_json::Value;
use tempfile::TempDir;

use super::{Face, start};
use crate::board::{Board, Live, State};
use crate::plugins::registry;

/// A pipeline that runs for ever, with a secret in its text.
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
         _: &dyn pseidon_plugin::format::Format| Err("nothing is there".to_owned());
    let registry = registry();
    let context = Context {
        registry: &registry,
        default_name: "test".into(),
        base: base.into(),
        text: text.into(),
        infer: &infer,
    };
    Arc::new(plan(&document, context).unwrap_or_else(|mistakes| panic!("{mistakes:?}")))
}

/// A board that is served.
struct Served {
    board: Arc<Board>,
    monitor: SocketAddr,
    repl: SocketAddr,
    reloads: Option<Receiver<()>>,
    runs: Vec<(Sender<Control>, JoinHandle<()>)>,
    /// The folder of the pipeline.
    base: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        for (control, thread) in self.runs.drain(..) {
            let _ = control.send(Control::LeaveNow);
            thread.join().unwrap();
        }
    }
}

fn serve(entries: &[&str], is_template: bool, token: Option<&str>) -> Served {
    let base = tempfile::tempdir().unwrap();
    let plan = plan_of(PIPELINE, base.path());
    let pools = Arc::new(Pools::start(&plan.settings).unwrap());
    let (reload, reloads) = bounded(1);
    let board = Arc::new(Board::new(plan, pools, is_template.then_some(reload)));
    entries.iter().for_each(|name| drop(board.entry(name)));
    let face = Face {
        host: Ipv4Addr::LOCALHOST.into(),
        monitor_port: Some(0),
        repl_port: Some(0),
        token: token.map(str::to_owned),
    };
    let served = start(&face, board.clone()).unwrap();
    Served {
        board,
        monitor: served.monitor.unwrap(),
        repl: served.repl.unwrap(),
        reloads: is_template.then_some(reloads),
        runs: Vec::new(),
        base,
    }
}

impl Served {
    /// Runs the plan as this entry, and returns when its split has been taken.
    fn run(&mut self, name: &str) {
        let (entry, plan, pools) = (
            self.board.entry(name),
            self.board.plan.clone(),
            self.board.pools.clone(),
        );
        let store = Arc::new(EmbeddedStore::open(self.base.path(), name).unwrap());
        let (control, told) = unbounded();
        entry.set_live(Some(Live {
            plan: plan.clone(),
            control: control.clone(),
            since: Instant::now(),
        }));
        entry.set_state(State::Running);
        let view = entry.view.clone();
        let thread = std::thread::spawn(move || {
            let (metrics, view) = (entry.metrics.clone(), entry.view.clone());
            let run = Run {
                plan,
                pools,
                store,
                metrics,
                accept_changed_plan: false,
                control: told,
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
        self.runs.push((control, thread));
    }

    /// Sends a request and reads the answer: its status, its head and its body.
    fn request(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(self.monitor).unwrap();
        let more: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n",
            self.monitor
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{answer}"));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap();
        Answer {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[])
    }

    fn post(&self, path: &str) -> Answer {
        self.request("POST", path, &[])
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Waits for something that is sure to come.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(value) = look() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it has not come within 30 s");
}
