//! `pseidon status`: the status of a running process, read from its HTTP endpoints.

mod client;
mod unix;

use indicatif::HumanCount;
use pseidon_delivery::{Reason, WithCauses};
use pseidon_dsl::printable::beginning;
use serde_json::Value;

use self::client::Client;
use crate::aligned::aligned;
use crate::cli::{Exit, StatusArgs};
use crate::{output, stderr_line};

/// How many characters are shown of a value.
const MAX_SHOWN: usize = 300;

/// Requests the endpoints and prints the status.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    match fetch(args) {
        Ok(text) => output::print(&text),
        Err(reason) => {
            stderr_line!("error: {}", WithCauses(&reason));
            if let Some(help) = help(&reason) {
                stderr_line!("  help: {help}");
            }
            Exit::Failed
        }
    }
}

/// What to do about an error; `None` for one that the message explains.
fn help(reason: &Reason) -> Option<&'static str> {
    let cause = std::error::Error::source(reason);
    match cause.and_then(|cause| cause.downcast_ref())? {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => Some(
            "the service listens if the pipeline is running and sets :monitor-port; for another \
             address, run `pseidon status http://HOST:PORT`, and with :monitor-socket `pseidon \
             status unix:PATH`",
        ),
        ureq::Error::StatusCode(401) => Some(
            "set the environment variable PSEIDON_TOKEN to the :token of the pipeline, or to one \
                 of its :token-file",
        ),
        ureq::Error::StatusCode(403) => Some(
            "use a token with the role `read`, and the IP address of the host or one of its \
             :monitor-names",
        ),
        ureq::Error::NativeTls(_) => Some(
            "with --ca a certificate is trusted that the system does not trust; with --cert and \
             --key a certificate is presented",
        ),
        _ => None,
    }
}

fn fetch(args: &StatusArgs) -> Result<String, Reason> {
    let client = Client::new(args)?;
    let metrics = client.page("/metrics")?;
    let logs = client.page("/logs")?;
    Ok(describe(&metrics, &logs))
}

/// The status in a few aligned lines. Values that are missing in a response are left out.
fn describe(metrics: &Value, logs: &Value) -> String {
    let mut rows = Vec::new();
    let logs = logs.as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |name: &str| {
        logs.iter()
            .filter_map(|log| log[name].as_f64())
            .sum::<f64>()
    };

    rows.extend(count(&metrics["etl-service-thread-queue"]).map(|queue| ("queue", queue)));
    let work = &metrics["etl-service-thread-metrics"];
    rows.extend(count(&work["count"]).map(|all| ("records", all)));
    let rates = rates(work);
    if !rates.is_empty() {
        rows.push(("rate", rates.join("  ")));
    }
    if !logs.is_empty() {
        rows.extend(count(&Value::from(sum("lag"))).map(|lag| ("lag", lag)));
        rows.extend(count(&Value::from(sum("open-files"))).map(|files| ("open files", files)));
        let running = logs.iter().filter(|log| log["state"] == "running").count();
        rows.push(("logs", format!("{}, {running} running", logs.len())));
    }
    let errors = metrics["topic-errors"].as_object();
    let errors: Vec<_> = errors
        .into_iter()
        .flatten()
        .filter(|(_, errors)| errors.as_f64() != Some(0.0))
        .collect();
    if errors.is_empty() {
        rows.push(("errors", "none".to_owned()));
    }

    let mut text = aligned(
        &rows
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value])
            .collect::<Vec<_>>(),
    );
    if !errors.is_empty() {
        text.push_str("errors\n");
        let rows: Vec<_> = errors
            .into_iter()
            .map(|(topic, errors)| {
                vec![format!("  {}", beginning(topic, MAX_SHOWN)), shown(errors)]
            })
            .collect();
        text.push_str(&aligned(&rows));
    }
    let stopped: Vec<_> = logs
        .iter()
        .filter(|log| log["state"] != "running")
        .map(not_running)
        .collect();
    if !stopped.is_empty() {
        text.push_str("not running\n");
        text.push_str(&aligned(&stopped));
    }
    text
}

/// A number with thousands separators; `None` if the value is missing.
fn count(value: &Value) -> Option<String> {
    value
        .as_f64()
        .map(|number| HumanCount(number.max(0.0).round() as u64).to_string())
}

/// The averages of the rate, each as `N/s (PERIOD)`.
fn rates(metrics: &Value) -> Vec<String> {
    let rates = [
        ("one-minute-rate", "1 min"),
        ("five-minute-rate", "5 min"),
        ("fifteen-minute-rate", "15 min"),
        ("mean-rate", "mean"),
    ];
    rates
        .iter()
        .filter_map(|(name, over)| count(&metrics[name]).map(|rate| format!("{rate}/s ({over})")))
        .collect()
}

/// The row of a log that is not running.
fn not_running(log: &Value) -> Vec<String> {
    vec![
        format!("  {}", shown(&log["log"])),
        shown(&log["state"]),
        shown(&log["reason"]),
    ]
}

/// The beginning of a value of a response. A row of the table of logs can be wrong at any length.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => beginning(text, MAX_SHOWN).into_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use serde_json::json;

    use super::*;

    fn metrics() -> Value {
        json!({
            "etl-service-thread-queue": 3,
            "etl-service-thread-metrics": {"count": 5966301527u64, "five-minute-rate": 29099.87, "mean-rate": 38578.78, "one-minute-rate": 26454.2},
            "open-connections": {"tcp-conn": 39},
            "topic-errors": {"clicks": 12, "a": 0},
            "memory": {}
        })
    }

    #[test]
    fn responses_become_aligned_lines() {
        let logs = json!([
            {"log": "clicks", "state": "running", "lag": 1000, "rate": 10.5, "errors": 12, "open-files": 3, "reason": null},
            {"log": "views", "state": "off", "lag": 0, "rate": 0, "errors": 101, "open-files": 0, "reason": "more than 100 records failed"},
            {"log": "x", "state": "invalid", "reason": "format: expected txt"},
        ]);
        let expected = "\
queue       3
records     5,966,301,527
rate        26,454/s (1 min)  29,100/s (5 min)  38,579/s (mean)
lag         1,000
open files  3
logs        3, 1 running
errors
  clicks  12
not running
  views  off      more than 100 records failed
  x      invalid  format: expected txt
";
        assert_eq!(describe(&metrics(), &logs), expected);
    }

    #[test]
    fn a_hostile_log_does_not_break_the_status() {
        let (name, reason) = ("x".repeat(70_000), "\u{1b}[2J\nforged\u{202e}");
        let logs = json!([
            {"log": "views", "state": "off", "reason": reason},
            {"log": name, "state": "invalid", "reason": name},
        ]);
        let metrics = json!({"topic-errors": {name.as_str(): 1, "a": 2}});
        let status = describe(&metrics, &logs);
        let lines: Vec<&str> = status.lines().collect();
        let row = "  views  off      \\u{1b}[2J\\nforged\\u{202e}";
        assert!(lines.contains(&row), "{:?}", &status[..200]);
        assert!(lines.contains(&"  a  2"), "{:?}", &status[..200]);
        assert!(status.len() < 2000, "{} bytes", status.len());
    }

    #[test]
    fn missing_values_are_left_out() {
        assert_eq!(describe(&json!({}), &json!([])), "errors  none\n");
        assert_eq!(describe(&json!([]), &json!({})), "errors  none\n");
        assert_eq!(
            describe(
                &json!({"etl-service-thread-queue": 0, "topic-errors": {}}),
                &json!([])
            ),
            "queue   0\nerrors  none\n"
        );
    }

    fn args(url: &str, token: Option<&str>) -> StatusArgs {
        StatusArgs {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            ca: None,
            cert: None,
            key: None,
        }
    }

    /// Answers requests one after another; the thread returns the requests.
    fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = move |answer: String| {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        };
        (
            url,
            std::thread::spawn(move || answers.into_iter().map(answer).collect()),
        )
    }

    fn good(page: &Value) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{page}"
        )
    }

    #[test]
    fn two_endpoints_are_requested() {
        let (url, served) = serve(vec![good(&metrics()), good(&json!([]))]);
        let text = fetch(&args(&format!("{url}/"), Some("s3cret"))).unwrap();
        assert!(text.starts_with("queue    3\n"), "{text}");
        let requests = served.join().unwrap();
        for (request, first) in requests.iter().zip(["GET /metrics ", "GET /logs "]) {
            assert!(request.starts_with(first), "{request}");
            let request = request.to_lowercase();
            assert!(
                request.contains("authorization: bearer s3cret"),
                "{request}"
            );
        }
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn an_invalid_response_is_an_error() {
        for (answer, expected, helps) in [
            (
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n",
                "401",
                Some("PSEIDON_TOKEN"),
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n",
                "403",
                Some(":monitor-names"),
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"error\":\"no \\u001b role\"}",
                "no \\u{1b} role: http status: 403",
                Some("the role `read`"),
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n# HELP",
                "expected JSON",
                None,
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", "/metrics", None),
        ] {
            let (url, served) = serve(vec![answer.to_owned()]);
            let error = fetch(&args(&url, None)).unwrap_err();
            assert_helps(&error, helps);
            let reason = WithCauses(&error).to_string();
            assert!(reason.contains(expected), "{answer}: {reason}");
            served.join().unwrap();
        }
        for (wrong, helps) in [
            ("http://127.0.0.1:1", Some("the service listens")),
            ("unix:/missing/http.sock", Some("status unix:PATH")),
            ("http:///", None),
            ("nonsense", None),
        ] {
            assert_helps(&fetch(&args(wrong, None)).unwrap_err(), helps);
        }
    }

    fn assert_helps(error: &Reason, expected: Option<&str>) {
        match (help(error), expected) {
            (None, None) => {}
            (Some(help), Some(part)) => assert!(help.contains(part), "{help}"),
            other => panic!("{error:?}: {other:?}"),
        }
    }
}
