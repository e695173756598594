//! Servers for tests: those of the environment, and those that a test starts for itself.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pseidon_redis::RedisStore;

pub(super) fn url_of(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: start the servers and set their URLs with: eval \
             \"$(scripts/local-up)\""
        )
    })
}

/// A namespace that no other test, and no earlier run, has used.
pub(super) fn fresh_namespace() -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!(
        "test-{}-{now}-{}",
        std::process::id(),
        USED.fetch_add(1, Ordering::Relaxed)
    )
}

/// A server that belongs to one test and is stopped with it.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) dir: tempfile::TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts `redis-server`; `arguments` receives the port and the folder.
    pub(super) fn with(arguments: impl FnOnce(&str, &Path) -> Vec<String>) -> Server {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let arguments = arguments(&port.to_string(), dir.path());
        let mut server = Server {
            port,
            dir,
            arguments,
            process: None,
        };
        server.start_again();
        server
    }

    pub(super) fn start(options: &[&str]) -> Server {
        Server::with(|port, _| {
            ["--port", port]
                .iter()
                .chain(options)
                .map(|option| (*option).to_owned())
                .collect()
        })
    }

    pub(super) fn durable(more: &[&str]) -> Server {
        Server::start(
            &[
                &[
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--save",
                    "",
                ],
                more,
            ]
            .concat(),
        )
    }

    pub(super) fn start_again(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let program =
            std::env::var_os("PSEIDON_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let process = Command::new(program)
            .args(&self.arguments)
            .args(["--bind", "127.0.0.1", "--dir"])
            .arg(self.dir.path())
            .stdout(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("redis-server is needed: scripts/local-up installs it");
        self.process = Some(process);
        wait_until("redis-server accepts connections", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        wait_until("redis-server has read its data", || {
            !self.cli(&["ping"]).contains("LOADING")
        });
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a signal, such as `STOP` and `CONT` to freeze and resume the server.
    pub(super) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn connect(&self) -> RedisStore {
        RedisStore::connect(&self.url(), "test", "p").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A sentinel that watches a server under the name `main` and soon fails over to its replica.
pub(super) fn sentinel_of(master: &Server) -> Server {
    Server::with(|port, dir| {
        let config = dir.join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main \
             3000\nsentinel failover-timeout main 2000\n",
            master.port
        );
        fs::write(&config, text).unwrap();
        vec![
            config.to_str().unwrap().into(),
            "--sentinel".into(),
            "--port".into(),
            port.into(),
        ]
    })
}
