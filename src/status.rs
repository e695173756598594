//! `pseidon status`: how a running process is getting on, from its own pages.

use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::Exit;

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Where the process shows its pages: its :monitor-port.
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// Asks and prints.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    match ask(&args.url) {
        Ok(text) => {
            print!("{text}");
            Exit::Done
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            Exit::Failed
        }
    }
}

fn ask(url: &str) -> Result<String, String> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::NativeTls)
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .tls_config(tls)
        .build()
        .into();
    let metrics = page(&agent, url, "/metrics")?;
    let logs = page(&agent, url, "/logs")?;
    Ok(describe(&metrics, &logs))
}

fn page(agent: &Agent, url: &str, path: &str) -> Result<Value, String> {
    let page = format!("{}{path}", url.trim_end_matches('/'));
    let answer = agent
        .get(&page)
        .header("Accept", "application/json")
        .call()
        .and_then(|mut answer| answer.body_mut().read_to_vec());
    let body = answer.map_err(|error| format!("{page}: {error}"))?;
    serde_json::from_slice(&body)
        .map_err(|error| format!("{page} does not show what it should: {error}"))
}

/// The pages in a few aligned lines. What a page lacks is left out.
fn describe(metrics: &Value, logs: &Value) -> String {
    let mut rows = Vec::new();
    let count = |value: &Value| {
        value
            .as_f64()
            .map(|number| HumanCount(number.max(0.0).round() as u64).to_string())
    };
    let logs = logs.as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |name: &str| {
        logs.iter()
            .filter_map(|log| log[name].as_f64())
            .sum::<f64>()
    };

    rows.extend(count(&metrics["etl-service-thread-queue"]).map(|queue| ("queue", queue)));
    let work = &metrics["etl-service-thread-metrics"];
    rows.extend(count(&work["count"]).map(|all| ("records", all)));
    let rates = [
        ("one-minute-rate", "1 min"),
        ("five-minute-rate", "5 min"),
        ("fifteen-minute-rate", "15 min"),
        ("mean-rate", "mean"),
    ];
    let rates: Vec<_> = rates
        .iter()
        .filter_map(|(name, over)| count(&work[name]).map(|rate| format!("{rate}/s ({over})")))
        .collect();
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

    let mut text = lines(
        &rows
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value])
            .collect::<Vec<_>>(),
    );
    if !errors.is_empty() {
        text.push_str("errors\n");
        let rows: Vec<_> = errors
            .into_iter()
            .map(|(topic, errors)| vec![format!("  {topic}"), shown(errors)])
            .collect();
        text.push_str(&lines(&rows));
    }
    let troubled: Vec<_> = logs
        .iter()
        .filter(|log| log["state"] != "running")
        .map(trouble)
        .collect();
    if !troubled.is_empty() {
        text.push_str("not running\n");
        text.push_str(&lines(&troubled));
    }
    text
}

fn trouble(log: &Value) -> Vec<String> {
    vec![
        format!("  {}", shown(&log["log"])),
        shown(&log["state"]),
        shown(&log["reason"]),
    ]
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows with their columns under one another.
fn lines(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
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
    fn pages_become_aligned_lines() {
        let logs = json!([
            {"log": "clicks", "state": "running", "lag": 1000, "rate": 10.5, "errors": 12, "open-files": 3, "reason": null},
            {"log": "views", "state": "off", "lag": 0, "rate": 0, "errors": 101, "open-files": 0, "reason": "more than 100 records failed"},
            {"log": "x", "state": "wrong", "reason": "format: expected txt"},
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
  views  off    more than 100 records failed
  x      wrong  format: expected txt
";
        assert_eq!(describe(&metrics(), &logs), expected);
    }

    #[test]
    fn what_a_page_lacks_is_left_out() {
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

    /// Answers requests one after another, and gives their first lines.
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
            String::from_utf8(request)
                .unwrap()
                .lines()
                .next()
                .unwrap()
                .to_owned()
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
    fn a_process_is_asked_for_two_pages() {
        let (url, served) = serve(vec![good(&metrics()), good(&json!([]))]);
        let text = ask(&format!("{url}/")).unwrap();
        assert!(text.starts_with("queue    3\n"), "{text}");
        assert_eq!(
            served.join().unwrap(),
            ["GET /metrics HTTP/1.1", "GET /logs HTTP/1.1"]
        );
    }

    #[test]
    fn what_is_no_good_answer_is_told() {
        for (answer, told) in [
            (
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n",
                "401",
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n# HELP",
                "does not show what it should",
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", "/metrics"),
        ] {
            let (url, served) = serve(vec![answer.to_owned()]);
            let reason = ask(&url).unwrap_err();
            assert!(reason.contains(told), "{answer}: {reason}");
            served.join().unwrap();
        }
        for wrong in ["http://127.0.0.1:1", "http:///", "nonsense"] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
    }
}
