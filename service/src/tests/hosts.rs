//! Tests of what web pages of other sites and clients without the token reach.

use std::time::Duration;

use pseidon_plan::settings::TokenFor;

use super::{TestService, serve, serve_with};
use crate::limits::Limits;
use crate::runs::EntryState;

/// One request of each kind.
const REQUESTS: [(&str, &str); 10] = [
    ("GET", "/"),
    ("GET", "/live"),
    ("GET", "/metrics"),
    ("GET", "/config"),
    ("GET", "/logs/a"),
    ("GET", "/nowhere"),
    ("HEAD", "/logs"),
    ("OPTIONS", "/logs"),
    ("POST", "/pause"),
    ("DELETE", "/pause"),
];

#[test]
fn requests_for_another_host_are_refused() {
    let mut served = serve(&[], false, None);
    served.run("test");
    for (method, path) in REQUESTS {
        for host in ["evil.example", "localhost.evil.example:8080"] {
            let refused = served.request_to(host, method, path, &[]);
            if path == "/live" {
                assert_eq!(refused.status, 200, "a probe has any host");
                continue;
            }
            assert_eq!(refused.status, 403, "{method} {path} {host}");
            if method != "HEAD" {
                let reason = refused.json()["error"].to_string();
                assert!(reason.contains(":monitor-names"), "{reason}");
            }
        }
    }
    assert_eq!(served.runs.entry("test").state(), EntryState::Running);
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "etl.example"] {
        assert_eq!(served.request_to(host, "GET", "/config", &[]).status, 200);
    }
}

#[test]
fn requests_of_pages_of_other_sites_are_refused() {
    let served = serve(&["a"], false, Some("s3cret"));
    for (method, path) in REQUESTS {
        for header in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example"] {
            let headers = [header, "Authorization: Bearer s3cret"];
            let refused = served.request(method, path, &headers);
            assert_eq!(refused.status, 403, "{method} {path} {header}");
        }
    }
    let own = [
        "Sec-Fetch-Site: same-origin",
        "Authorization: Bearer s3cret",
    ];
    assert_eq!(served.request("GET", "/logs", &own).status, 200);
}

#[test]
fn pages_need_the_token() {
    let token = ["Authorization: Bearer s3cret"];
    let status = |served: &TestService, path: &str| {
        let without = served.get(path).status;
        // A proxy may add a header of its own, and a probe may have an old token.
        for other in ["Bearer x", "Basic cHJveHk6eA==", "Negotiate YII="] {
            let header = format!("Authorization: {other}");
            let with_other = served.request("GET", path, &[&header]);
            assert_eq!(with_other.status, without, "{path} {other}");
        }
        (without, served.request("GET", path, &token).status)
    };
    let without_delay = |limits: &mut Limits| limits.wrong_token = Duration::ZERO;
    let served = serve_with(&["a"], true, Some("s3cret"), |_, limits| {
        without_delay(limits)
    });
    for path in ["/", "/live", "/health", "/metrics", "/metrics/prometheus"] {
        assert_eq!(status(&served, path), (200, 200), "{path}");
    }
    for path in ["/config", "/logs", "/logs/a", "/stats"] {
        assert_eq!(status(&served, path), (401, 200), "{path}");
    }
    assert_eq!(status(&served, "/nowhere"), (401, 404));
    assert_eq!(status(&served, "/pause"), (401, 405));

    let all = serve_with(&["a"], true, Some("s3cret"), |config, limits| {
        config.token_for = TokenFor::All;
        without_delay(limits);
    });
    for path in ["/", "/metrics", "/metrics/prometheus"] {
        assert_eq!(status(&all, path), (401, 200), "{path}");
    }
    assert_eq!(status(&all, "/live"), (200, 200));
    assert_eq!(all.get("/ready").status, 503);
}

#[test]
fn health_says_the_reasons_to_those_who_have_the_token() {
    let served = serve(&["a"], true, Some("s3cret"));
    served
        .runs
        .entry("a")
        .set_state(EntryState::Failed("the disk of customer X is full".into()));
    let without = served.get("/health");
    assert_eq!(
        (without.status, without.body.as_str()),
        (503, "not ok: the reasons require the token\n")
    );
    let wrong = served.request("GET", "/health", &["Authorization: Bearer s3cre"]);
    assert_eq!((wrong.status, wrong.body), (503, without.body));
    let with = served.request("GET", "/health", &["Authorization: Bearer s3cret"]);
    assert!(with.body.contains("customer X"), "{}", with.body);
}

#[test]
fn every_answer_has_the_headers() {
    let served = serve(&["a"], false, Some("s3cret"));
    let evil = served.request_to("evil.example", "GET", "/", &[]);
    let answers =
        REQUESTS
            .iter()
            .map(|(method, path)| served.request(method, path, &[]))
            .chain(REQUESTS.iter().map(|(method, path)| {
                served.request(method, path, &["Authorization: Bearer s3cret"])
            }))
            .chain([evil]);
    let mut statuses = std::collections::BTreeSet::new();
    for answer in answers {
        for header in [
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            let count = answer.head.matches(header).count();
            assert_eq!(count, 1, "{header} in {}", answer.head);
        }
        statuses.insert(answer.status);
    }
    let statuses: Vec<u16> = statuses.into_iter().collect();
    assert_eq!(statuses, [200, 401, 403, 404, 405, 409]);
}
