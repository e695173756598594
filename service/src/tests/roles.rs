//! Tests of a file of tokens: what each role allows, over HTTP and in the REPL.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pseidon_plan::settings::TokenFor;
use pseidon_plugin::metrics::RunTrouble;
use tempfile::TempDir;

use super::repl::{ReplClient, bencode};
use super::{TestService, serve_with};
use crate::TokenSource;
use crate::runs::EntryState;

const ROLES: [(&str, &str); 4] = [
    ("read", "reading-token-0001"),
    ("operate", "operating-token-02"),
    ("records", "records-token-0003"),
    ("read,operate,records", "powerful-token-004"),
];

/// The value of a record, in the reason for which it is invalid.
const VALUE: &str = "4111111111111111";

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// A service with a token for each of [`ROLES`], and the folder of its file.
fn serve_roles() -> (TestService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let lines = ROLES.map(|(roles, token)| format!("has-{roles} {roles} {token}\n"));
    write(&path, &lines.concat());
    let served = serve_with(&["a"], true, None, |config, limits| {
        config.tokens = TokenSource::File(path);
        config.token_for = TokenFor::All;
        limits.wrong_token = Duration::ZERO;
    });
    (served, folder)
}

impl TestService {
    /// Sends a request with this token, and returns the status and the body.
    fn request_as(&self, token: &str, method: &str, path: &str) -> (u16, String) {
        let header = format!("Authorization: Bearer {token}");
        let response = self.request(method, path, &[&header]);
        (response.status, response.body)
    }

    /// A client of the REPL that has authenticated.
    fn repl_as(&self, token: &str) -> ReplClient {
        let mut client = ReplClient::connect(self);
        assert!(client.send(&format!("auth {token}")).is_empty());
        client
    }
}

#[test]
fn requests_need_the_role() {
    let (served, _folder) = serve_roles();
    let requests = [
        ("GET", "/", "read"),
        ("GET", "/metrics", "read"),
        ("GET", "/config", "read"),
        ("GET", "/logs", "read"),
        ("GET", "/logs/a", "read"),
        ("GET", "/stats", "read"),
        ("POST", "/reset-errors", "operate"),
        ("POST", "/reload", "operate"),
    ];
    for (method, path, needed) in requests {
        for (roles, token) in ROLES {
            let (status, body) = served.request_as(token, method, path);
            if roles.contains(needed) {
                assert_eq!(status, 200, "{method} {path} as {roles}");
            } else {
                assert_eq!(status, 403, "{method} {path} as {roles}");
                let error =
                    format!("{{\"error\":\"the token does not have the role `{needed}`\"}}\n");
                assert_eq!(body, error);
            }
        }
        assert_eq!(served.request(method, path, &[]).status, 401);
        assert_eq!(served.request_as("reading-token-0002", method, path).0, 401);
    }
    for (_, token) in ROLES {
        assert_eq!(served.request_as(token, "GET", "/live").0, 200);
    }
}

#[test]
fn commands_of_the_repl_need_the_role() {
    let (served, _folder) = serve_roles();
    let commands = [
        ("logs", "read"),
        ("stages", "read"),
        ("positions", "read"),
        ("files", "read"),
        ("errors", "read"),
        ("last a in 1", "records"),
        ("eval a in n", "records"),
        ("pause", "operate"),
        ("resume", "operate"),
        ("roll", "operate"),
        ("reload", "operate"),
        ("reset", "operate"),
    ];
    for (roles, token) in ROLES {
        let mut client = served.repl_as(token);
        for (command, needed) in commands {
            let refused = format!("error: the token does not have the role `{needed}`");
            let is_refused = client.send(command) == [refused];
            assert_eq!(is_refused, !roles.contains(needed), "{command} as {roles}");
        }
        assert!(client.send("help").len() > 10, "it needs no role");
        assert!(client.send("quit").is_empty());
    }
}

#[test]
fn nrepl_clients_need_the_role() {
    let (served, _folder) = serve_roles();
    let mut stream = TcpStream::connect(served.repl).unwrap();
    let mut eval = |code: &str, status: &str| {
        let request = format!("d4:code{}:{code}2:op4:evale", code.len());
        bencode(&mut stream, &request, status)
    };
    eval("auth reading-token-0001", "6:statusl4:doneee");
    let answer = eval("pause", "4:done10:eval-erroree");
    assert!(
        answer.contains("does not have the role `operate`"),
        "{answer}"
    );
    assert!(eval("logs", "6:statusl4:doneee").contains("a starting"));
}

#[test]
fn values_of_records_need_their_role() {
    let (served, _folder) = serve_roles();
    let entry = served.runs.entry("a");
    let reason = format!("cannot cast {VALUE}");
    entry.set_state(EntryState::Failed(reason));
    let shown = |token: &str| {
        let page = |path: &str| served.request_as(token, "GET", path).1;
        let mut client = served.repl_as(token);
        [
            page("/health"),
            page("/logs"),
            page("/logs/a"),
            client.send("logs").join("\n"),
            client.send("errors").join("\n"),
        ]
    };
    let both = shown("powerful-token-004");
    assert!(both.iter().all(|text| text.contains(VALUE)), "{both:?}");
    for text in shown("reading-token-0001") {
        assert!(!text.contains(VALUE), "{text}");
        assert!(text.contains("requires the role `records`"), "{text}");
    }
    for text in shown("records-token-0003") {
        assert!(!text.contains(VALUE), "without the role read: {text}");
    }

    entry.set_state(EntryState::Running);
    entry.metrics.set_run_trouble(Some(RunTrouble {
        what: "restarting because `in` failed".to_owned(),
        reason: Some(format!("cannot cast {VALUE}")),
    }));
    let troubles = |token: &str| {
        let mut client = served.repl_as(token);
        let health = served.request_as(token, "GET", "/health").1;
        [health, client.send("errors").join("\n") + "\n"]
    };
    let with_reason = format!("restarting because `in` failed: cannot cast {VALUE}\n");
    let without = "restarting because `in` failed\n";
    for text in troubles("powerful-token-004") {
        assert!(text.ends_with(&with_reason), "{text}");
    }
    for text in troubles("reading-token-0001") {
        assert!(text.ends_with(without), "{text}");
    }
}

#[test]
fn the_file_is_read_again() {
    let (served, folder) = serve_roles();
    let path = folder.path().join("tokens");
    let files = served.service.files().unwrap();
    let mut revoked = served.repl_as("powerful-token-004");
    let mut kept = served.repl_as("reading-token-0001");
    assert_eq!(revoked.send("logs").len(), 1);

    for invalid in ["a read short", "", "a write 0123456789abcdef"] {
        write(&path, invalid);
        files.reload();
        assert_eq!(
            revoked.send("logs").len(),
            1,
            "the earlier tokens are valid"
        );
        assert_eq!(
            served.request_as("powerful-token-004", "GET", "/logs").0,
            200
        );
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    files.reload();
    assert_eq!(
        served.request_as("powerful-token-004", "GET", "/logs").0,
        200
    );

    write(
        &path,
        "a operate reading-token-0001\nb read another-token-0005\n",
    );
    files.reload();
    assert_eq!(
        served.request_as("powerful-token-004", "GET", "/logs").0,
        401
    );
    assert_eq!(
        served.request_as("another-token-0005", "GET", "/logs").0,
        200
    );
    assert_eq!(revoked.send("logs"), ["error: the token was revoked"]);
    assert!(revoked.is_closed());
    let refused = ["error: the token does not have the role `read`"];
    assert_eq!(kept.send("logs"), refused, "its roles have changed");
    assert_eq!(kept.send("reset"), ["a reset-errors"]);
}
