//! The HTTP endpoints and the REPL of a run, and its control requests.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use crate::harness::output::{count_gapless, files};
use crate::harness::servers::{ReplClient, free_port, get, get_with, post};
use crate::harness::{Pseidon, Site, wait_until};

const TOKEN: &str = "secret-word";

/// A run with its service.
struct Scene {
    pseidon: Pseidon,
    port: u16,
    repl_port: u16,
    /// Dropped last.
    site: Site,
}

impl Scene {
    /// Starts a run, and waits until it has read records.
    fn start(test: &str) -> Scene {
        Scene::start_as(test, "1h", |command| command)
    }

    /// Like [`Scene::start`], with a file for each `age`, and another command.
    fn start_as(test: &str, age: &str, change: impl FnOnce(Command) -> Command) -> Scene {
        let site = Site::new(test);
        let (port, repl_port) = (free_port(), free_port());
        site.write(
            "pipeline.edn",
            format!(
                r#"{{:name "told" :settings {{:monitor-port {port} :repl-port {repl_port} :token "{TOKEN}" :commit-interval "100ms"}}
                    in (generate {{:record {{:n "n"}} :rate 500}})
                    out (files {{:path "out" :codec :json :rollover {{:size "1GB" :idle "1h" :age "{age}"}} :check-freq "50ms"}})
                    pipeline (-> in out)}}"#
            ),
        );
        let scene = Scene {
            pseidon: site.start(change(site.command("pipeline.edn"))),
            port,
            repl_port,
            site,
        };
        wait_until("it is ready", 30, || {
            get(port, "/ready").is_some_and(|(status, _)| status == 200)
        });
        wait_until("records come", 30, || scene.read() > 100);
        scene
    }

    /// The number of records read.
    fn read(&self) -> u64 {
        let (_, page) = get(self.port, "/metrics").expect("metrics");
        let page: serde_json::Value = serde_json::from_str(&page).expect("json");
        page["etl-service-thread-metrics"]["count"]
            .as_u64()
            .expect("the count of records")
    }

    /// Sends a control request, and returns the status code.
    fn post(&self, path: &str, token: &str) -> u16 {
        post(self.port, path, token).expect("an answer").0
    }

    /// Stops the run, and checks its output.
    fn stop(mut self) {
        self.pseidon.stop(30);
        assert!(count_gapless(&self.site.path("out")) > 100);
    }
}

#[test]
fn control_requests_are_executed() {
    let scene = Scene::start("service");
    let out = scene.site.path("out");
    assert_eq!(scene.post("/roll", ""), 401);
    assert_eq!(scene.post("/roll", "another"), 401);
    assert!(files(&out).is_empty());
    assert_eq!(scene.post("/roll", TOKEN), 200);
    wait_until("the open file is published", 30, || !files(&out).is_empty());

    assert_eq!(scene.post("/pause", TOKEN), 200);
    let mut before = 0;
    wait_until("it stops reading", 30, || {
        std::thread::sleep(Duration::from_millis(700));
        std::mem::replace(&mut before, scene.read()) == before
    });
    assert_eq!(scene.post("/resume", TOKEN), 200);
    wait_until("it continues reading", 30, || scene.read() > before);
    scene.stop();
}

#[test]
fn a_run_is_inspected() {
    let scene = Scene::start("inspected");
    let mut repl = ReplClient::open(scene.repl_port);
    assert!(
        repl.send("stages")
            .iter()
            .all(|line| line.starts_with("error:")),
        "it requires the token"
    );
    let mut repl = ReplClient::open(scene.repl_port);
    repl.send(&format!("auth {TOKEN}"));
    assert!(repl.send("stages").iter().any(|line| line.contains("out")));
    wait_until("the open file is shown", 30, || {
        repl.send("files")
            .iter()
            .any(|line| line.contains("records="))
    });
    let last = repl.send("last in 2");
    assert!(
        last.len() == 2 && last[0].starts_with("{\"n\":"),
        "{last:?}"
    );
    assert!(repl.send("eval in \"n % 2\"").len() + repl.send("eval in n % 2").len() > 1);

    let (_, config) = get_with(scene.port, "/config", TOKEN).expect("the configuration");
    assert!(
        config.contains("generate") && !config.contains(TOKEN),
        "{config}"
    );
    scene.stop();
}

#[test]
fn actions_and_refused_tokens_are_in_the_audit_log() {
    let scene = Scene::start_as("audited", "1h", |mut command| {
        command.args(["--log", "warn,audit=info"]);
        command
    });
    assert_eq!(scene.post("/pause?log=told", TOKEN), 200);
    assert_eq!(scene.post("/resume?log=other", TOKEN), 404);
    assert_eq!(scene.post("/resume", TOKEN), 200);
    // More than one in a second may not be logged.
    assert_eq!(scene.post("/roll", "guess-1"), 401);
    let mut repl = ReplClient::open(scene.repl_port);
    repl.send(&format!("auth {TOKEN}"));
    repl.send("errors");
    repl.send("eval in n + 1");
    repl.send("eval nowhere n");
    let log = scene.pseidon.log();
    for line in [
        r#"interface="http" action="pause" arguments="log=told""#,
        r#"interface="http" action="resume" arguments="log=other" error="unknown log `other`"#,
        r#"interface="http" action="resume" arguments="""#,
        r#"interface="repl" action="errors" arguments="""#,
        r#"interface="repl" action="eval" arguments="in n + 1""#,
        r#"interface="repl" action="eval" arguments="nowhere n" error="unknown stage"#,
    ] {
        let found = log.lines().find(|logged| logged.contains(line));
        let found = found.unwrap_or_else(|| panic!("{line} is not in {log}"));
        assert!(
            found.contains(" INFO audit: action peer=127.0.0.1:"),
            "{found}"
        );
    }
    let refused = r#"interface="http" reason="wrong token" unlogged=0"#;
    assert!(log.contains(refused), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("guess-1"), "{log}");
    let others: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains(" audit: "))
        .collect();
    assert!(
        matches!(others[..], [warning] if warning.contains("fewer than 16 characters")),
        "{log}"
    );
    scene.stop();
}

/// The descriptors that the process below has.
const DESCRIPTORS: usize = 256;

#[test]
fn slow_clients_take_no_descriptors_from_sinks() {
    let scene = Scene::start_as("slow-clients", "200ms", |command| {
        let mut limited = Command::new("sh");
        limited
            .arg("-c")
            .arg(format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\""))
            .arg(command.get_program())
            .args(command.get_args())
            // Its descriptors can then be counted by a user who is not root.
            .arg("--allow-debugging")
            .current_dir(command.get_current_dir().expect("the site's folder"));
        limited
    });
    let connect = |port: u16, bytes: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        // The service may have closed the connection.
        let _ = stream.write_all(bytes.as_bytes());
        stream
    };
    let slow = |_: usize| connect(scene.port, "GET /logs HTTP/1.1\r\nX: ");
    let mut clients: Vec<TcpStream> = (0..370).map(slow).collect();
    clients.extend((0..40).map(|_| connect(scene.repl_port, "")));

    let out = scene.site.path("out");
    for _ in 0..5 {
        assert_eq!(get(scene.port, "/live"), Some((200, "ok\n".to_owned())));
        assert_eq!(get(scene.port, "/ready"), Some((200, "ok\n".to_owned())));
        let descriptors = fs::read_dir(format!("/proc/{}/fd", scene.pseidon.id()));
        let sockets = descriptors
            .expect("it runs")
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count();
        assert!(sockets <= DESCRIPTORS / 8 + 4, "{sockets} sockets");
        let published = files(&out).len();
        wait_until("a file is published", 30, || files(&out).len() > published);
        clients.extend((0..10).map(slow));
    }
    drop(clients);
    let log = scene.pseidon.log();
    assert!(!log.contains("Too many open files"), "{log}");
    scene.stop();
}

/// Other processes of the user, and core dumps, would have the passwords of the pipeline.
#[test]
fn a_run_has_no_core_dump() {
    let site = Site::new("core-dumps");
    let port = free_port();
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:settings {{:monitor-port {port}}}
                pipeline (-> (generate {{:record {{:n "n"}} :rate 100}}) (drop))}}"#
        ),
    );
    // Another user keeps the state there.
    let everyone = fs::Permissions::from_mode(0o777);
    fs::set_permissions(site.path("."), everyone).expect("permissions");
    for (option, is_allowed) in [("--no-progress", false), ("--allow-debugging", true)] {
        let mut command = site.command("pipeline.edn");
        command.arg(option);
        let mut run = site.start(site.without_privileges(command));
        wait_until("it answers", 30, || get(port, "/metrics").is_some());
        let of_process = |name: &str| format!("/proc/{}/{name}", run.id());
        // What other processes of its user may not read belongs to root.
        let owner = fs::metadata(of_process("environ")).expect("it runs").uid();
        assert_eq!(owner != 0, is_allowed, "{option}: {owner}");
        let limits = fs::read_to_string(of_process("limits")).expect("limits");
        let cores = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let limit = cores.and_then(|line| line.split_whitespace().nth(4));
        assert!(limit == Some("0") || is_allowed, "{limits}");

        let (_, page) = get(port, "/metrics").expect("a page");
        let page: serde_json::Value = serde_json::from_str(&page).expect("json");
        let connections = &page["open-connections"]["tcp-conn"];
        assert!(
            connections.as_u64() >= Some(1),
            "it sees its own sockets: {page}"
        );
        run.stop(30);
    }
}
