//! The HTTP endpoints and the REPL of a run, and its control requests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::output::{count_gapless, files};
use crate::harness::servers::{free_port, get, post};
use crate::harness::{Site, wait_until};

#[test]
fn control_requests_are_executed() {
    let site = Site::new("service");
    let (port, repl_port) = (free_port(), free_port());
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "told" :settings {{:monitor-port {port} :repl-port {repl_port} :token "secret-word" :commit-interval "100ms"}}
                in (generate {{:record {{:n "n"}} :rate 500}})
                out (files {{:path "out" :codec :json :rollover {{:size "1GB" :idle "1h" :age "1h"}} :check-freq "50ms"}})
                pipeline (-> in out)}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it is ready", 30, || {
        get(port, "/ready").is_some_and(|(status, _)| status == 200)
    });
    let read = || {
        let (_, page) = get(port, "/metrics").expect("metrics");
        let page: serde_json::Value = serde_json::from_str(&page).expect("json");
        page["etl-service-thread-metrics"]["count"]
            .as_u64()
            .expect("the count of records")
    };
    wait_until("records come", 30, || read() > 100);

    assert_eq!(post(port, "/roll", "").expect("an answer").0, 401);
    assert_eq!(post(port, "/roll", "another").expect("an answer").0, 401);
    assert!(files(&site.path("out")).is_empty());
    assert_eq!(
        post(port, "/roll", "secret-word").expect("an answer").0,
        200
    );
    wait_until("the open file is published", 30, || {
        !files(&site.path("out")).is_empty()
    });

    assert_eq!(
        post(port, "/pause", "secret-word").expect("an answer").0,
        200
    );
    let mut before = 0;
    wait_until("it stops reading", 30, || {
        std::thread::sleep(Duration::from_millis(700));
        std::mem::replace(&mut before, read()) == before
    });
    assert_eq!(
        post(port, "/resume", "secret-word").expect("an answer").0,
        200
    );
    wait_until("it continues reading", 30, || read() > before);

    let mut repl = ReplClient::open(repl_port);
    assert!(
        repl.send("stages")
            .iter()
            .all(|line| line.starts_with("error:")),
        "it requires the token"
    );
    let mut repl = ReplClient::open(repl_port);
    repl.send("auth secret-word");
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

    let (_, config) = get(port, "/config").expect("the configuration");
    assert!(
        config.contains("generate") && !config.contains("secret-word"),
        "{config}"
    );
    pseidon.stop(30);
    assert!(count_gapless(&site.path("out")) > 100);
}

/// A connection to a REPL.
struct ReplClient(BufReader<TcpStream>);

impl ReplClient {
    fn open(port: u16) -> ReplClient {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the repl listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time limit");
        ReplClient(BufReader::new(stream))
    }

    /// Sends a line. Returns the lines of the reply, which ends with an empty line.
    fn send(&mut self, line: &str) -> Vec<String> {
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
