//! Tests of the HTTP endpoints.

use std::net::{Ipv4Addr, TcpListener};

use pseidon_dsl::printable::is_printable;
use pseidon_formats::json_lines;
use pseidon_plan::settings::TokenFor;
use serde_json::json;

use super::{serve, token_source, until};
use crate::runs::EntryState;
use crate::{ServiceConfig, serve as start};

#[test]
fn metrics_have_the_documented_names_and_current_values() {
    let served = serve(&["test"], false, None);
    let entry = served.runs.entry("test");
    entry
        .metrics
        .records_in
        .with_label_values(&["in"])
        .inc_by(600);
    entry
        .metrics
        .bad_records
        .with_label_values(&["in", "dropped"])
        .inc_by(3);
    let metrics = served.get("/metrics").json();
    assert_eq!(metrics["etl-service-thread-queue"], 0);
    let thread = &metrics["etl-service-thread-metrics"];
    assert_eq!(thread["count"], 600);
    assert!(thread["mean-rate"].as_f64().unwrap() > 0.0);
    for rate in ["one-minute-rate", "five-minute-rate", "fifteen-minute-rate"] {
        assert!(thread[rate].is_f64(), "{rate} in {thread}");
    }
    // The connection of the request itself.
    assert!(metrics["open-connections"]["tcp-conn"].as_u64().unwrap() >= 1);
    assert_eq!(metrics["topic-errors"], json!({ "test": 3 }));
    let memory = &metrics["memory"];
    assert_eq!(
        memory["direct"],
        json!({ "memory-used": 0.0, "count": 0, "total-capacity": 12.0 })
    );
    assert_eq!(memory["heap"]["heap"]["max"], 32.0);
    for (part, value) in ["init", "used", "committed"]
        .iter()
        .flat_map(|value| [("heap", value), ("non-heap", value)])
    {
        assert!(
            memory["heap"][part][value].as_f64().unwrap() > 0.0,
            "{part} {value} in {memory}"
        );
    }
    assert_eq!(
        metrics["redis"],
        json!({ "redis-conn": { "pool": "embedded" } })
    );
    let own = &metrics["pseidon"];
    assert_eq!(
        (&own["records-in"], &own["dropped"], &own["pipeline"]),
        (&json!(600), &json!(3), &json!("test"))
    );
    assert_eq!(own["entries"], json!({ "starting": 1 }));

    assert_eq!(
        served.post("/reset-errors").json(),
        json!({ "action": "reset-errors", "logs": ["test"], "not-running": [] })
    );
    until(|| (served.get("/metrics").json()["topic-errors"] == json!({})).then_some(()));
}

#[test]
fn a_log_can_be_named_as_it_is_shown() {
    // An escape sequence, and a name that is also the value of a variable.
    let name = "\u{9b}31m-n4me-0f-log";
    pseidon_dsl::conceal::register("${env:NAME_OF_LOG}", "n4me-0f-log").expect("it is short");
    let served = serve(&[name], true, None);
    let shown = served.get("/logs");
    assert!(shown.body.contains("\\u009b31m"), "{}", shown.body);
    assert_eq!(shown.json()[0]["log"], name);
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("log", name)
        .finish();
    let done = served.post(&format!("/reset-errors?{query}"));
    assert_eq!(
        done.json(),
        json!({ "action": "reset-errors", "logs": [name], "not-running": [] })
    );
    assert!(done.body.contains("\\u009b31m"), "{}", done.body);
}

#[test]
fn prometheus_format_is_served_on_request() {
    let served = serve(&["a", "b"], true, None);
    served
        .runs
        .entry("a")
        .metrics
        .records_in
        .with_label_values(&["in"])
        .inc_by(5);
    served
        .runs
        .entry("b")
        .metrics
        .records_in
        .with_label_values(&["in"])
        .inc_by(7);
    served.runs.entry("b").set_state(EntryState::Running);
    let page = served.get("/metrics/prometheus");
    assert!(
        page.head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        page.head
    );
    for line in [
        "pseidon_source_records_total{stage=\"in\",log=\"a\"} 5",
        "pseidon_source_records_total{stage=\"in\",log=\"b\"} 7",
        "pseidon_log_running{log=\"a\"} 0",
        "pseidon_log_running{log=\"b\"} 1",
        "pseidon_entries{state=\"running\"} 1",
        "pseidon_entries{state=\"failed\"} 0",
        "pseidon_memory_limit_bytes 12582912",
    ] {
        assert!(
            page.body.lines().any(|shown| shown == line),
            "{line} is not in\n{}",
            page.body
        );
    }
    let types: Vec<&str> = page
        .body
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let mut once = types.clone();
    once.dedup();
    assert_eq!(types, once, "each family is written once");
    for asked in [
        "Accept: text/plain",
        "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1",
    ] {
        assert!(
            served
                .request("GET", "/metrics", &[asked])
                .body
                .starts_with("# HELP "),
            "{asked}"
        );
    }
    assert!(
        served
            .request("GET", "/metrics", &["Accept: application/json"])
            .json()
            .is_object()
    );
}

#[test]
fn health_reports_problems_and_live_does_not() {
    let served = serve(&["a"], true, None);
    assert_eq!(
        (
            served.get("/health").status,
            served.get("/health").body.as_str()
        ),
        (200, "ok\n")
    );
    served
        .runs
        .entry("a")
        .set_state(EntryState::InvalidRow("the format is unknown".into()));
    served
        .runs
        .set_trouble("table", Some("the table of logs cannot be read".into()));
    let unhealthy = served.get("/health");
    assert_eq!(
        (unhealthy.status, unhealthy.body.as_str()),
        (
            503,
            "the table of logs cannot be read\nlog `a`: the format is unknown\n"
        )
    );
    assert_eq!(
        (
            served.get("/live").status,
            served.get("/live").body.as_str()
        ),
        (200, "ok\n")
    );
    served.runs.set_trouble("table", None);
    served.runs.entry("a").set_state(EntryState::Running);
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn what_a_row_contains_does_not_change_a_terminal() {
    let served = serve(&["a"], true, None);
    let reason = "the format is `\u{1b}[2J\r\nok\u{9b}31m\u{202e}`";
    let entry = served.runs.entry("a");
    entry.set_state(EntryState::InvalidRow(reason.into()));
    let shown = "the format is `\\u{1b}[2J\\r\\nok\\u{9b}31m\\u{202e}`";
    assert_eq!(served.get("/health").body, format!("log `a`: {shown}\n"));
    for page in ["/logs", "/logs/a", "/logs/%C2%9B%E2%80%AE"] {
        let answer = served.get(page);
        let is_shown = |c| c == '\n' || is_printable(c);
        assert!(
            answer.body.chars().all(is_shown),
            "{page}: {:?}",
            answer.body
        );
    }
    assert_eq!(served.get("/logs/a").json()["reason"], shown);
}

#[test]
fn it_is_ready_once_every_entry_was_started() {
    let served = serve(&[], true, None);
    assert_eq!(served.get("/ready").status, 503, "no entry is known yet");
    served.runs.entry("a").set_state(EntryState::Running);
    served.runs.entry("b");
    served.runs.set_loaded();
    assert_eq!(served.get("/ready").status, 503, "one entry is starting");
    served
        .runs
        .entry("b")
        .set_state(EntryState::InvalidRow("the format is unknown".into()));
    assert_eq!(served.get("/ready").status, 200);
    served.runs.entry("c");
    assert_eq!(
        served.get("/ready").status,
        200,
        "a new log does not make it unready"
    );
}

#[test]
fn logs_and_stats_show_the_runs() {
    let mut served = serve(&["a", "b"], true, None);
    served.run("a");
    served
        .runs
        .entry("b")
        .set_state(EntryState::Failed("the disk is full".into()));
    let logs = until(|| {
        let logs = served.get("/logs").json();
        logs[0]["positions"]["drop"]
            .as_object()
            .is_some_and(|splits| !splits.is_empty())
            .then_some(logs)
    });
    assert_eq!(
        (&logs[0]["log"], &logs[0]["state"], &logs[0]["reason"]),
        (&json!("a"), &json!("running"), &json!(null))
    );
    assert_eq!(
        (&logs[1]["state"], &logs[1]["reason"]),
        (&json!("failed"), &json!("the disk is full"))
    );
    assert_eq!(
        (
            &served.get("/logs/a").json()["log"],
            served.get("/logs/c").status
        ),
        (&json!("a"), 404)
    );
    for number in ["running-seconds", "lag", "rate", "errors", "open-files"] {
        assert!(logs[0][number].is_number(), "{number} in {logs}");
    }
    let stats = until(|| {
        Some(served.get("/stats").json())
            .filter(|stats| stats["totals"]["records-in"].as_u64() > Some(0))
    });
    assert!(
        stats["stages"]["in"]["records-in"].as_u64() > Some(0),
        "{stats}"
    );
    assert_eq!(stats["entries"], json!({ "running": 1, "failed": 1 }));
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let config = serve(&[], false, None).get("/config");
    assert_eq!(config.status, 200);
    assert!(
        config.body.contains(":namespace \"a\"") && config.body.contains("(where \"n % 2 = 0\")"),
        "{}",
        config.body
    );
    assert!(
        config.body.contains(":password \"…\"") && !config.body.contains("hidden"),
        "{}",
        config.body
    );
}

#[test]
fn a_log_is_paused_and_resumed() {
    let mut served = serve(&["a", "b"], true, None);
    served.run("a");
    assert_eq!(
        served.post("/pause?log=a").json(),
        json!({ "action": "pause", "logs": ["a"], "not-running": [] })
    );
    assert_eq!(served.runs.entry("a").state(), EntryState::Paused);
    assert_eq!(
        served.post("/resume").json(),
        json!({ "action": "resume", "logs": ["a"], "not-running": ["b"] })
    );
    assert_eq!(served.runs.entry("a").state(), EntryState::Running);
    assert_eq!(served.post("/roll").status, 200);
    assert_eq!(served.post("/pause?log=b").status, 409, "it is not running");
    assert!(served.reloads.as_ref().unwrap().is_empty());
    assert_eq!(served.post("/reload").status, 200);
    assert!(served.reloads.as_ref().unwrap().try_recv().is_ok());
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let served = serve(&["a"], false, None);
    let cases = [
        ("POST", "/pause?log=c", 404, "unknown log `c`"),
        ("POST", "/pause?lgo=a", 400, "unexpected parameter `lgo`"),
        ("POST", "/reload", 409, "no table of logs"),
        ("GET", "/nowhere", 404, "not found"),
        ("GET", "/logs/%ff", 400, "Invalid UTF-8"),
        ("GET", "/pause", 405, "does not have this method"),
        ("POST", "/metrics", 405, "does not have this method"),
        ("PUT", "/health", 405, "does not have this method"),
        ("OPTIONS", "/logs/a", 405, "does not have this method"),
    ];
    for (method, path, status, reason) in cases {
        let answer = served.request(method, path, &[]);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.head.contains("allow: "), status == 405);
        let error = answer.json()["error"].to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(
        served.runs.entry("a").state(),
        EntryState::Starting,
        "no action was executed"
    );
}

#[test]
fn actions_need_the_token_and_the_same_origin() {
    let served = serve(&["a"], true, Some("s3cret"));
    let post = |headers: &[&str]| served.request("POST", "/reset-errors", headers);
    let refused = post(&[]);
    assert_eq!(refused.status, 401);
    assert!(
        refused.head.contains("www-authenticate: bearer"),
        "{}",
        refused.head
    );
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("Authorization: Bearer"),
        "{}",
        refused.body
    );
    assert_eq!(post(&["Authorization: Bearer wrong"]).status, 401);
    assert_eq!(post(&["Authorization: Bearer s3cret"]).status, 200);
    assert_eq!(
        post(&[
            "Authorization: Bearer s3cret",
            "Origin: http://evil.example"
        ])
        .status,
        403
    );
    assert_eq!(
        post(&[
            "Authorization: Bearer s3cret",
            &format!("Origin: http://{}", served.monitor)
        ])
        .status,
        200
    );
}

#[test]
fn the_first_page_lists_all_endpoints() {
    let served = serve(&[], false, None);
    let page = served.get("/");
    assert!(
        page.head.contains("content-type: text/html"),
        "{}",
        page.head
    );
    let addresses = page
        .body
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut count = 0;
    for address in addresses {
        assert_ne!(served.get(address).status, 404, "{address}");
        count += 1;
    }
    assert_eq!(count, 8);
    for action in ["/pause", "/resume", "/roll", "/reload", "/reset-errors"] {
        assert!(page.body.contains(&format!("POST {action}<")), "{action}");
        assert_eq!(served.get(action).status, 405, "{action}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let runs = serve(&[], false, None).runs.clone();
    let config = |monitor_port, repl_port, token: Option<&str>| ServiceConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        monitor_port,
        repl_port,
        monitor_socket: None,
        repl_socket: None,
        names: Vec::new(),
        tls: None,
        tokens: token_source(token),
        token_for: TokenFor::Pages,
    };
    let error = |config: ServiceConfig| {
        let started = start(&config, runs.clone(), json_lines);
        started.err().unwrap().to_string()
    };
    assert!(
        error(config(Some(port), None, None))
            .contains(&format!("127.0.0.1:{port} (`:monitor-port`)"))
    );
    assert!(
        error(config(None, Some(port), None)).contains(&format!("127.0.0.1:{port} (`:repl-port`)"))
    );
    assert!(error(config(Some(0), None, Some(""))).contains("the token is empty"));
    assert!(
        start(&config(None, None, None), runs.clone(), json_lines).is_ok(),
        "nothing to serve"
    );
}
