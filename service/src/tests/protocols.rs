//! Properties of the REPL and of nREPL: whatever a client sends, its replies can be read.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};

use super::{TestService, serve};
use crate::repl::serve_client;
use crate::status_pages::StatusPages;

static SERVED: LazyLock<(TestService, Arc<StatusPages>, Runtime)> = LazyLock::new(|| {
    let served = serve(&["a"], true, None);
    let json = pseidon_formats::json_lines;
    let pages = StatusPages::new(served.runs.clone(), None, json);
    let runtime = Builder::new_multi_thread().enable_time().build().unwrap();
    (served, Arc::new(pages), runtime)
});

/// What a client receives that sends these bytes in two pieces and then closes the connection.
fn replies(sent: &[u8], cut: usize) -> Vec<u8> {
    let (_, pages, runtime) = &*SERVED;
    let (one, other) = sent.split_at(cut);
    let mut received = Vec::new();
    let served = serve_client(one.chain(other), &mut received, pages);
    runtime.block_on(served).unwrap();
    received
}

/// A line, most of them nearly a command.
fn line() -> impl Strategy<Value = String> {
    let command = prop::sample::select(vec![
        "",
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
        "reset",
        "auth",
        "quit",
        "GET",
        "xyz",
    ]);
    let argument = prop::sample::select(vec![
        "", "a", "b", "in", "even", "3", "1001", "n % 2", "\u{1}", "\r", "é", "HTTP/1.1",
    ]);
    let line = (command, prop::collection::vec(argument, 0..4));
    line.prop_flat_map(|(command, arguments)| {
        let line = format!("{command} {}", arguments.join(" "));
        prop_oneof![4 => Just(line), 1 => "[^d\n][^\n]{0,20}"]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_line_has_a_reply_that_ends_with_an_empty_line(
        lines in prop::collection::vec(line(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let sent = format!("{}\n", lines.join("\n"));
        let received = replies(sent.as_bytes(), cut.index(sent.len()));
        let received = String::from_utf8(received).unwrap();
        let closes = |line: &String| {
            let line = line.trim();
            line == "quit" || line.ends_with(" HTTP/1.1")
        };
        let expected = lines.iter().position(closes).map_or(lines.len(), |at| at + 1);
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
            let code = code.trim();
            *op == "eval" && (code == "quit" || code.ends_with(" HTTP/1.1"))
        };
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
