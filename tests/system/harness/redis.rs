//! A Redis server for one test, which can be killed, emptied and restarted.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{Site, wait_until};

/// A server that persists every write. It is killed when it is dropped.
pub(crate) struct Redis {
    port: u16,
    process: Option<Child>,
}

impl Redis {
    /// A server that is not started yet: nothing listens on its port.
    pub(crate) fn down() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        Redis {
            port,
            process: None,
        }
    }

    /// A running server.
    pub(crate) fn start(site: &Site) -> Redis {
        let mut redis = Redis::down();
        redis.up(site);
        redis
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, with the data from before it was killed.
    pub(crate) fn up(&mut self, site: &Site) {
        let folder = site.path("redis");
        std::fs::create_dir_all(&folder).expect("a folder");
        let log = File::options()
            .create(true)
            .append(true)
            .open(site.path("redis.log"))
            .expect("a log");
        let process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .arg("--dir")
            .arg(folder)
            .stdout(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("redis-server is required: scripts/local-up installs it");
        self.process = Some(process);
        wait_until("redis answers", 20, || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self.cli(&["ping"]).trim() == "PONG"
        });
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Deletes all its data.
    pub(crate) fn empty(&self) {
        assert_eq!(self.cli(&["flushall"]).trim(), "OK");
    }

    /// Runs `redis-cli`, and returns its output.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
