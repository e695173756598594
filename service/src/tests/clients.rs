//! Tests of HTTP clients that are too many, too slow or send too much.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{HttpResponse, TestService, serve, serve_with, until};
use crate::runs::EntryState;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);
/// How soon a limit is reached that a test waits for.
const SOON: Duration = Duration::from_millis(50);

impl TestService {
    /// Connects and sends bytes.
    fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.monitor).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }
}

/// What the service sends until it closes the connection.
fn received(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    // A connection with unread bytes is reset.
    if let Err(error) = stream.read_to_end(&mut received) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8(received).unwrap()
}

#[test]
fn probes_are_answered_while_others_use_all_connections() {
    let served = serve_with(&["a"], false, None, |_, limits| {
        limits.connections = 2;
        limits.reserved = 2;
        limits.request = LONG;
        limits.idle = LONG;
    });
    let mut places: Vec<TcpStream> = (0..2).map(|_| served.send("GET /live HTT")).collect();
    let mut reserved: Vec<TcpStream> = (0..20).map(|_| served.send("GET /live HTT")).collect();
    assert_eq!(served.get("/live").status, 200);
    assert_eq!(served.get("/ready").status, 503, "it is still starting");
    assert!(served.get("/ready").body.starts_with("not ready"));
    for path in ["/metrics", "/", "/health", "/nowhere"] {
        let refused = served.get(path);
        assert_eq!(refused.status, 503, "{path}");
        assert_eq!(refused.json()["error"], "too many connections");
        assert!(refused.head.contains("connection: close"));
    }
    assert_eq!(served.post("/pause").status, 503);
    // The oldest ones were closed for the new ones, but not those that have a place.
    for stream in &mut reserved[..18] {
        assert_eq!(received(stream), "");
    }
    places[0].write_all(b"P/1.0\r\n\r\n").unwrap();
    assert!(received(&mut places[0]).starts_with("HTTP/1.0 200"));
    until(|| (served.get("/metrics").status == 200).then_some(()));
}

#[test]
fn a_head_has_to_arrive_in_time() {
    let served = serve_with(&["a"], false, None, |_, limits| limits.request = SOON);
    for head in ["", "G", "GET /live HTTP/1.1\r\nHost: localhost\r\nX: "] {
        assert_eq!(received(&mut served.send(head)), "", "{head}");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let served = serve_with(&["a"], false, None, |_, limits| limits.idle = SOON);
    let mut stream = served.send("GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = received(&mut stream);
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[test]
fn an_answer_has_to_be_received_in_time() {
    let served = serve_with(&["a"], false, None, |_, limits| limits.answer = SOON);
    // More than the buffers of the connection hold.
    let reason = "x".repeat(32 << 20);
    served.runs.entry("a").set_state(EntryState::Failed(reason));
    let mut stream = served.send("GET /logs HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let error = until(|| stream.write_all(b"x").err());
    let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(closed.contains(&error.kind()), "{error}");
}

#[test]
fn heads_and_bodies_are_limited() {
    let served = serve(&["a"], false, None);
    let head = format!("X: {}", "x".repeat(64 << 10));
    assert_eq!(served.request("GET", "/live", &[&head]).status, 431);
    let long = served.request("POST", "/reset-errors", &["Content-Length: 65537"]);
    assert_eq!(long.status, 413);
    assert!(long.json()["error"].is_string());
    // A short body is accepted, and need not be sent.
    let short = served.request("POST", "/reset-errors", &["Content-Length: 65536"]);
    assert_eq!(short.status, 200);
    // One without an end is not read.
    let request = "POST /reset-errors HTTP/1.1\r\nHost: localhost\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let answer = received(&mut served.send(request));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_wrong_token_delays_no_other_connection() {
    let served = serve_with(&["a"], false, Some("s3cret"), |_, limits| {
        limits.wrong_token = LONG;
    });
    let guess = "GET /logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n";
    // Guesses with a page that needs no token are no quicker.
    let mut guesses: Vec<TcpStream> = ["/logs", "/health", "/metrics"]
        .map(|page| served.send(&guess.replace("/logs", page)))
        .into();
    let probe = served.request("GET", "/live", &["Authorization: Bearer x"]);
    assert_eq!(probe.status, 200, "a probe is answered at once");
    let right = served.request("GET", "/logs", &["Authorization: Bearer s3cret"]);
    assert_eq!(right.status, 200);
    for stream in &mut guesses {
        stream.set_nonblocking(true).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "it is not answered");
    }

    let served = serve_with(&["a"], false, Some("s3cret"), |_, limits| {
        limits.wrong_token = Duration::ZERO;
    });
    let mut stream = served.send(&guess.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    assert_eq!(HttpResponse::read(&mut stream).status, 401);
}
