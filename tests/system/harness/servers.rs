//! Servers for one test, which can be killed, restarted and disconnected.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Site;

/// Real servers, started by the same scripts as the servers that tests share. They are stopped when
/// this value is dropped.
pub(crate) struct Servers {
    dir: PathBuf,
    addresses: HashMap<String, String>,
}

impl Servers {
    /// Starts servers by name.
    pub(crate) fn start(site: &Site, names: &[&str]) -> Servers {
        let dir = site.path("servers");
        let output = script("local-up", &dir, names);
        let variable = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        Servers {
            dir,
            addresses: output.lines().filter_map(variable).collect(),
        }
    }

    /// The value of a variable that the scripts print.
    pub(crate) fn address(&self, variable: &str) -> String {
        self.addresses
            .get(variable)
            .unwrap_or_else(|| panic!("{variable} is not in {:?}", self.addresses))
            .clone()
    }

    /// A path below the data folder of the servers.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// Kills a server as a power cut would.
    pub(crate) fn kill(&self, name: &str) {
        script("local-kill", &self.dir, &[name]);
    }

    /// Restarts a server with its data.
    pub(crate) fn restart(&self, name: &str) {
        script("local-restart", &self.dir, &[name]);
    }

    /// Creates a proxy for `upstream` in toxiproxy, which must be one of the servers. Returns its
    /// `HOST:PORT`.
    pub(crate) fn proxy(&self, name: &str, upstream: &str) -> String {
        let body = format!(
            r#"{{"name":"{name}","listen":"127.0.0.1:0","upstream":"{upstream}","enabled":true}}"#
        );
        let answer: serde_json::Value =
            serde_json::from_str(&self.call_toxiproxy("proxies", &body))
                .expect("toxiproxy answers in json");
        answer["listen"].as_str().expect("an address").to_owned()
    }

    /// Closes all connections through a proxy and refuses new ones, or accepts them again.
    pub(crate) fn let_through(&self, name: &str, open: bool) {
        self.call_toxiproxy(
            &format!("proxies/{name}"),
            &format!(r#"{{"enabled":{open}}}"#),
        );
    }

    fn call_toxiproxy(&self, path: &str, body: &str) -> String {
        let url = format!("{}/{path}", self.address("PSEIDON_TEST_TOXIPROXY"));
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--data", body, &url])
            .output()
            .expect("curl");
        assert!(
            output.status.success(),
            "toxiproxy: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // A panic here would hide why the test failed.
        let _ = command("local-down", &self.dir, &[]).output();
    }
}

fn command(script: &str, dir: &PathBuf, names: &[&str]) -> Command {
    let mut command = Command::new(format!("{}/scripts/{script}", env!("CARGO_MANIFEST_DIR")));
    command.arg("--dir").arg(dir).args(names);
    command
}

fn script(script: &str, dir: &PathBuf, names: &[&str]) -> String {
    let output = command(script, dir, names)
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(
        output.status.success(),
        "{script} {names:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port that is currently free.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// Sends a GET request to a local service; returns the status and the body.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    get_with(port, path, "")
}

/// Sends a GET request to a local service, with the token if it is not empty.
pub(crate) fn get_with(port: u16, path: &str, token: &str) -> Option<(u16, String)> {
    request(port, "GET", path, &authorization(token))
}

/// Sends a POST request to a local service, with the token if it is not empty.
pub(crate) fn post(port: u16, path: &str, token: &str) -> Option<(u16, String)> {
    request(port, "POST", path, &authorization(token))
}

fn authorization(token: &str) -> String {
    if token.is_empty() {
        String::new()
    } else {
        format!("Authorization: Bearer {token}\r\n")
    }
}

fn request(port: u16, method: &str, path: &str, head: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{head}Content-Length: 0\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// A connection to a REPL.
pub(crate) struct ReplClient(BufReader<TcpStream>);

impl ReplClient {
    /// Connects to a local REPL.
    pub(crate) fn open(port: u16) -> ReplClient {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the repl listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time limit");
        ReplClient(BufReader::new(stream))
    }

    /// Sends a line. Returns the lines of the reply, which ends with an empty line.
    pub(crate) fn send(&mut self, line: &str) -> Vec<String> {
        writeln!(self.0.get_mut(), "{line}").expect("it accepts the line");
        let mut answer = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("it answers");
            match line.trim_end() {
                "" => return answer,
                line => answer.push(line.to_owned()),
            }
            if read == 0 {
                return answer;
            }
        }
    }
}
