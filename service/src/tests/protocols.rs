//! Properties of the REPL, of nREPL and of the HTTP endpoints: whatever a client sends, its replies
//! can be read.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use pseidon_plan::settings::TokenFor;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::{TestService, network_peer, serve};
use crate::guard::Access;
use crate::limits::Limits;
use crate::properties::check_http;
use crate::repl::serve_client;
use crate::status_pages::StatusPages;

static SERVED: LazyLock<(TestService, Arc<StatusPages>, Runtime)> = LazyLock::new(|| {
    let served = serve(&["a"], true, None);
    let json = pseidon_formats::json_lines;
    let access = Access::new(None, TokenFor::Pages, &[]);
    let pages = StatusPages::new(served.runs.clone(), access, Limits::of_process(), json);
    let runtime = Builder::new_multi_thread().enable_time().build().unwrap();
    (served, Arc::new(pages), runtime)
});

/// What a client receives that sends these bytes in two pieces and then closes the connection.
fn replies(sent: &[u8], cut: usize) -> Vec<u8> {
    let (_, pages, runtime) = &*SERVED;
    let (one, other) = sent.split_at(cut);
    let mut received = Vec::new();
    let peer = network_peer();
    let served = serve_client(one.chain(other), &mut received, pages, peer, Instant::now());
    runtime.block_on(served).unwrap();
    received
}

/// The names of the commands.
const COMMANDS: [&str; 15] = [
    "help",
    "logs",
    "stages",
    "positions",
    "files",
    "errors",
    "last",
    "eval",
    "pause",
    "resume",
    "roll",
    "reload",
    "reset",
    "auth",
    "quit",
];

/// A line, most of them nearly a command.
fn line() -> impl Strategy<Value = String> {
    let others = vec!["", "GET", "xyz"];
    let command = prop_oneof![
        4 => prop::sample::select(COMMANDS.to_vec()),
        1 => prop::sample::select(others),
    ];
    let argument = prop::sample::select(vec![
        "", "a", "b", "in", "even", "3", "1001", "n % 2", "\u{1}", "\r", "é", "HTTP/1.1",
    ]);
    let line = (command, prop::collection::vec(argument, 0..4));
    line.prop_flat_map(|(command, arguments)| {
        let line = format!("{command} {}", arguments.join(" "));
        prop_oneof![4 => Just(line), 1 => "[^d\n][^\n]{0,20}"]
    })
}

/// A request without a body, most of them nearly one of an endpoint.
fn request() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "OPTIONS", "X-Y"]);
    let path = prop::sample::select(vec![
        "/",
        "/metrics",
        "/metrics/prometheus",
        "/health",
        "/live",
        "/ready",
        "/stats",
        "/logs",
        "/logs/a",
        "/logs/%ff",
        "/logs/a/b",
        "/config",
        "/pause",
        "/resume",
        "/roll",
        "/reset",
        "/reload",
        "/reset-errors",
        "//",
        "http://a/live",
    ]);
    let query = prop_oneof![Just(String::new()), "\\?(log=[a%+]{0,2})?(&[a-z=%]{0,4})?",];
    let header = prop_oneof![
        Just("Accept: text/plain;q=0.5, */*".to_owned()),
        Just("Origin: http://127.0.0.1".to_owned()),
        Just("Authorization: Bearer a".to_owned()),
        Just("Expect: 100-continue".to_owned()),
        Just("Upgrade: h2c".to_owned()),
        "X-[a-z]{1,5}: [ -~]{0,9}",
    ];
    let headers = prop::collection::vec(header, 0..3);
    (method, path, query, headers).prop_map(|(method, path, query, headers)| {
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        format!("{method} {path}{query} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_http_request_has_a_response(requests in prop::collection::vec(request(), 1..5)) {
        let (served, ..) = &*SERVED;
        let statuses = check_http(served.monitor, requests.concat().as_bytes());
        // One for the last request, which is sent after these.
        prop_assert_eq!(statuses.len(), requests.len() + 1, "{:?}", statuses);
    }

    #[test]
    fn damaged_http_requests_are_answered_or_refused(
        requests in prop::collection::vec(request(), 1..3),
        at in any::<prop::sample::Index>(),
        piece in prop::collection::vec(any::<u8>(), 0..4),
        removed in 0..20_usize,
    ) {
        let (served, ..) = &*SERVED;
        let mut sent = requests.concat().into_bytes();
        let at = at.index(sent.len());
        let end = sent.len().min(at + removed);
        sent.splice(at..end, piece);
        check_http(served.monitor, &sent);
    }

    #[test]
    fn any_bytes_to_the_http_port_are_answered_or_refused(
        sent in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let (served, ..) = &*SERVED;
        check_http(served.monitor, &sent);
    }

    #[test]
    fn each_line_has_a_reply_that_ends_with_an_empty_line(
        lines in prop::collection::vec(line(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let sent = format!("{}\n", lines.join("\n"));
        let received = replies(sent.as_bytes(), cut.index(sent.len()));
        let received = String::from_utf8(received).unwrap();
        let closes = |(number, line): (usize, &String)| {
            let sent = line.strip_suffix('\r').unwrap_or(line);
            let is_text = !sent.chars().any(|c| c.is_control() && c != '\t');
            let line = line.trim();
            let is_command = COMMANDS.contains(&line.split_whitespace().next().unwrap_or_default());
            line == "quit"
                || line.ends_with(" HTTP/1.1")
                || !is_text
                || (number == 0 && !is_command)
        };
        let closing = lines.iter().enumerate().position(closes);
        let expected = closing.map_or(lines.len(), |at| at + 1);
        let found = received.split('\n').filter(|line| line.is_empty()).count();
        // What follows the last line end is empty too.
        prop_assert_eq!(found, expected + 1, "{:?}", received);
    }

    #[test]
    fn each_request_has_a_response_with_its_id(
        requests in prop::collection::vec(
            (prop::sample::select(vec!["describe", "close", "eval", "x", ""]), line()),
            1..5,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let string = |text: &str| format!("{}:{text}", text.len());
        let mut sent = String::new();
        for (number, (op, code)) in requests.iter().enumerate() {
            let (id, op, code) = (string(&number.to_string()), string(op), string(code));
            sent += &format!("d4:code{code}2:id{id}2:op{op}e");
        }
        let received = replies(sent.as_bytes(), cut.index(sent.len()));
        let received = String::from_utf8_lossy(&received).into_owned();
        let closes = |(op, code): &(&str, String)| {
            let is_text = !code.chars().any(|c| c.is_control() && !c.is_whitespace());
            *op == "eval" && (code.trim() == "quit" || !is_text)
        };
        if let Some(("x" | "", _)) = requests.first() {
            prop_assert_eq!(received, "");
            return Ok(());
        }
        let answered = requests.iter().position(closes).map_or(requests.len(), |at| at + 1);
        for (number, (op, _)) in requests.iter().enumerate() {
            let id = format!("2:id{}", string(&number.to_string()));
            let expected = match op {
                _ if number >= answered => 0,
                &"eval" => 2,
                _ => 1,
            };
            prop_assert_eq!(received.matches(&id).count(), expected, "{}: {}", id, received);
        }
    }

    #[test]
    fn any_bytes_are_answered_or_refused(
        sent in prop::collection::vec(any::<u8>(), 0..60),
        is_dictionary in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let sent = [if is_dictionary { &b"d"[..] } else { b"" }, &sent].concat();
        let cut = if sent.is_empty() { 0 } else { cut.index(sent.len()) };
        prop_assert_eq!(replies(&sent, cut), replies(&sent, 0));
    }
}
