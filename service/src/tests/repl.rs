//! Tests of the REPL, over its line protocol and over nREPL.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{TestService, serve, serve_with, until};
use crate::runs::EntryState;

/// The reply to a first line that is not a command.
const FIRST_LINE: &str = "error: the first line has to be a command, such as help";
/// The reply to a line that is not text.
const NOT_TEXT: &str = "error: the line is not text";

/// A client of the REPL.
pub(super) struct ReplClient {
    input: BufReader<TcpStream>,
}

impl ReplClient {
    pub(super) fn connect(served: &TestService) -> ReplClient {
        ReplClient {
            input: BufReader::new(TcpStream::connect(served.repl).unwrap()),
        }
    }

    /// Sends a line, and returns the lines of the reply.
    pub(super) fn send(&mut self, line: &str) -> Vec<String> {
        self.send_bytes(format!("{line}\n").as_bytes())
    }

    /// Sends bytes, and returns the lines of the first reply.
    fn send_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.input.get_mut().write_all(bytes).unwrap();
        let mut answer = Vec::new();
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).unwrap();
            match line.strip_suffix('\n') {
                Some("") => return answer,
                Some(line) => answer.push(line.to_owned()),
                None => panic!("the reply does not end with an empty line: {answer:?}"),
            }
        }
    }

    /// Whether the service has closed the connection.
    pub(super) fn is_closed(&mut self) -> bool {
        self.input.read(&mut [0]).unwrap() == 0
    }
}

#[test]
fn help_lists_the_commands() {
    let served = serve(&[], false, None);
    assert_eq!(
        ReplClient::connect(&served).send("help"),
        [
            "logs                          status of each log",
            "stages [LOG]                  stages and their columns",
            "positions [LOG]               durable position of each split, by sink",
            "files [LOG]                   open and published files by stage, and each open file",
            "errors [LOG]                  invalid records by stage, problems, last invalid records",
            "last [LOG] STAGE [N]          next records through a stage, as JSON",
            "eval [LOG] STAGE EXPRESSION   SQL expression on the next records of a stage",
            "pause [LOG]                   stop reading",
            "resume [LOG]                  continue reading",
            "roll [LOG]                    commit and publish open files",
            "reload                        read the table of logs now",
            "reset [LOG]                   reset the error count to zero",
            "auth TOKEN                    authenticate, if a token is set",
            "quit                          close the connection",
        ]
    );
}

#[test]
fn a_running_pipeline_is_inspected() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut client = ReplClient::connect(&served);
    let logs = client.send("logs");
    assert!(client.send("").is_empty());
    assert!(logs[0].starts_with("test running lag="), "{logs:?}");
    assert_eq!(
        client.send("stages"),
        [
            "in: source, format json, decodes n int64",
            "  even: where n % 2 = 0",
            "  all: all, 1 branch",
            "    drop: sink drop",
            "  select: select ten int64",
            "  drop#2: sink drop",
        ]
    );
    // The sinks start a split one after the other.
    until(|| {
        client
            .send("positions")
            .iter()
            .any(|line| line.starts_with("drop#2 in:0 "))
            .then_some(())
    });
}

#[test]
fn records_of_a_stage_are_shown() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut client = ReplClient::connect(&served);
    let last = client.send("last in 3");
    assert_eq!(last.len(), 3, "{last:?}");
    assert!(
        last.iter()
            .all(|line| line.starts_with("{\"n\":") && line.contains(",\"user\":\"u")),
        "{last:?}"
    );
    let tens = client.send("last select 2");
    assert!(
        tens.iter()
            .all(|line| line.starts_with("{\"ten\":") && line.ends_with("0}")),
        "{tens:?}"
    );
}

#[test]
fn expressions_are_evaluated_on_records_of_a_stage() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut client = ReplClient::connect(&served);
    let even = client.send("eval even n % 2");
    assert!(
        !even.is_empty() && even.iter().all(|line| line == "0"),
        "{even:?}"
    );
    let users = client.send("eval in upper(user) || '-' || @topic");
    assert!(
        !users.is_empty()
            && users
                .iter()
                .all(|line| line.starts_with("\"U") && line.ends_with("-in\"")),
        "fields that the pipeline does not decode: {users:?}"
    );
    let tens =
        client.send("eval test select case when ten >= 0 then null else 1 / (ten - ten) end");
    assert!(
        !tens.is_empty() && tens.iter().all(|line| line == "null"),
        "{tens:?}"
    );
    let divided = client.send("eval select 1 / (ten - ten)");
    assert!(
        !divided.is_empty() && divided.iter().all(|line| line.starts_with("error: ")),
        "{divided:?}"
    );
}

#[test]
fn a_running_pipeline_is_controlled() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut client = ReplClient::connect(&served);
    assert_eq!(client.send("pause"), ["test pause"]);
    assert_eq!(served.runs.entry("test").state(), EntryState::Paused);
    assert_eq!(client.send("resume test"), ["test resume"]);
    assert_eq!(client.send("roll"), ["test roll"]);
    assert_eq!(client.send("reset"), ["test reset-errors"]);
    assert!(client.send("quit").is_empty());
    assert!(client.is_closed());
}

#[test]
fn an_error_is_one_line() {
    let mut served = serve(&[], false, None);
    let mut client = ReplClient::connect(&served);
    assert_eq!(client.send("last in"), ["error: nothing was started yet"]);
    served.run("test");
    let cases = [
        ("staged", "unknown command `staged`; did you mean `stages`?"),
        ("xyzzy", "unknown command `xyzzy`; try help"),
        ("last", "missing stage; try stages"),
        ("last evn", "unknown stage `evn`; did you mean `even`?"),
        ("last even 0", "invalid count `0`; expected 1 to 1000"),
        ("last even all", "invalid count `all`; expected 1 to 1000"),
        ("eval even", "missing expression"),
        ("eval even n +", ""),
        ("eval select n", "unknown column"),
        ("eval even nosuchfunction(n)", ""),
        ("pause other", "unknown log `other`; see /logs"),
        ("positions other", "unknown log `other`; try logs"),
        ("reload", "this pipeline has no table of logs"),
    ];
    for (line, reason) in cases {
        let answer = client.send(line);
        assert!(
            answer.len() == 1 && answer[0].starts_with(&format!("error: {reason}")),
            "{line}: {answer:?}"
        );
    }
}

#[test]
fn a_reply_does_not_change_a_terminal() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let reason = "expected\n\u{1b}]0;title\u{7}\u{202e}";
    let entry = served.runs.entry("test");
    entry.set_state(EntryState::Failed(reason.into()));
    let mut client = ReplClient::connect(&served);
    let shown = "expected \\u{1b}]0;title\\u{7}\\u{202e}";
    assert!(client.send("errors").contains(&shown.to_owned()));
    entry.set_state(EntryState::Running);
    // In JSON, the value is the same.
    assert_eq!(
        client.send("eval even concat('a', chr(155), chr(8238))")[0],
        "\"a\\u009b\\u202e\""
    );
    let long = client.send("eval even repeat('x', 300000)");
    let expected = "error: 300002 bytes are too many to be shown; expected at most 262144";
    assert!(long.iter().all(|line| line == expected), "{long:?}");
    assert_eq!(
        client.send("last \u{9b}2J"),
        ["error: the line is not text"]
    );
}

#[test]
fn lines_of_a_template_start_with_the_log() {
    let mut served = serve(&["b"], true, None);
    served.run("a");
    served.runs.entry("b").set_state(EntryState::InvalidRow(
        "the column `format`\nis wrong".into(),
    ));
    let (a, b) = (served.runs.entry("a"), served.runs.entry("b"));
    a.metrics
        .bad_records
        .with_label_values(&["in", "dropped"])
        .inc_by(2);
    b.metrics.open_files.with_label_values(&["out"]).set(3);
    let mut client = ReplClient::connect(&served);
    let logs = client.send("logs");
    assert!(
        logs[0].starts_with("a running ") && logs[0].contains(" errors=2 "),
        "{logs:?}"
    );
    assert!(
        logs[1].starts_with("b invalid ") && logs[1].ends_with(": the column `format` is wrong"),
        "{logs:?}"
    );
    assert_eq!(
        client.send("errors"),
        [
            "a in quarantined=0 dropped=2",
            "b the column `format` is wrong"
        ]
    );
    assert_eq!(client.send("errors b"), ["b the column `format` is wrong"]);
    assert_eq!(client.send("files"), ["b out open=3 published=0"]);
    assert_eq!(client.send("reset a"), ["a reset-errors"]);
    assert_eq!((a.errors(), b.errors()), (0, 0));
    assert_eq!(
        client.send("last in"),
        ["error: there are several logs; name one before the stage"]
    );
    assert_eq!(
        client.send("last a int"),
        ["error: unknown stage `int`; did you mean `in`?"]
    );
    assert_eq!(client.send("last b in"), ["error: `b` is not running"]);
    assert_eq!(client.send("last a in 1").len(), 1);
    assert_eq!(client.send("reload"), ["a reload", "b reload"]);
    assert!(served.reloads.as_ref().unwrap().try_recv().is_ok());
}

#[test]
fn a_token_must_be_sent_in_the_first_line() {
    let served = serve(&["a"], true, Some("s3cret"));
    let mut unauthenticated = ReplClient::connect(&served);
    assert_eq!(
        unauthenticated.send("logs"),
        ["error: not authenticated; send: auth TOKEN"]
    );
    assert!(unauthenticated.is_closed());
    let mut unknown = ReplClient::connect(&served);
    assert_eq!(unknown.send("auht s3cret"), [FIRST_LINE]);
    assert!(unknown.is_closed());
    let mut wrong = ReplClient::connect(&served);
    assert_eq!(wrong.send("auth s3cre"), ["error: invalid token"]);
    assert!(wrong.is_closed());
    let mut known = ReplClient::connect(&served);
    assert!(known.send("auth s3cret").is_empty());
    assert_eq!(known.send("logs").len(), 1);
}

#[test]
fn connections_and_lines_are_limited() {
    let served = serve_with(&["a"], true, None, |_, limits| limits.repl_connections = 16);
    let mut clients: Vec<ReplClient> = (0..16).map(|_| ReplClient::connect(&served)).collect();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.send("logs").len(), 1));
    let mut more = BufReader::new(TcpStream::connect(served.repl).unwrap());
    let mut answer = String::new();
    more.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "error: too many connections\n\n");
    let answer = clients[0].send(&"x".repeat(16 << 10));
    assert_eq!(answer, ["error: line too long; the limit is 16384 bytes"]);
}

#[test]
fn a_client_of_another_protocol_executes_no_command() {
    let mut served = serve(&[], false, None);
    served.run("test");
    // A session ticket of TLS, a header or a body can hold any bytes, also those of lines.
    let hello = b"\x16\x03\x01\x00\x60\x01\x00\nlogs\npause test\n";
    let cases: [(&[u8], &str); 8] = [
        (hello, NOT_TEXT),
        (b"\xff\nlogs\npause test\n", NOT_TEXT),
        (b"logs\x00\npause test\n", NOT_TEXT),
        (b"logs\rpause test\npause test\n", NOT_TEXT),
        (
            b"POST / HTTP/1.1\r\npause test\n",
            "error: this port speaks the REPL protocol, not HTTP",
        ),
        (b"GET / HTTP/2\r\nlogs\npause test\n", FIRST_LINE),
        (b"EHLO x\r\npause test\r\n", FIRST_LINE),
        (b"\nlogs\npause test\n", FIRST_LINE),
    ];
    for (bytes, reply) in cases {
        let mut client = ReplClient::connect(&served);
        assert_eq!(client.send_bytes(bytes), [reply], "{bytes:?}");
        assert!(client.is_closed(), "{bytes:?}");
    }
    assert_eq!(served.runs.entry("test").state(), EntryState::Running);

    let mut client = ReplClient::connect(&served);
    assert_eq!(client.send_bytes(b"logs\r\n").len(), 1);
    assert_eq!(client.send_bytes(b"logs \x1b[2J\npause test\n"), [NOT_TEXT]);
    assert!(client.is_closed(), "also in later lines");
    assert_eq!(served.runs.entry("test").state(), EntryState::Running);
}

/// Sends a bencoded request, and reads until the response ends with `end`.
pub(super) fn bencode(stream: &mut TcpStream, request: &str, end: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&answer)
        );
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn nrepl_clients_are_served() {
    let served = serve(&["a"], true, Some("s3cret"));
    let mut stream = TcpStream::connect(served.repl).unwrap();
    let answer = bencode(&mut stream, "d2:id1:12:op5:clonee", "6:statusl4:doneee");
    assert!(answer.starts_with("d2:id1:111:new-session"), "{answer}");
    let answer = bencode(&mut stream, "d2:id1:22:op8:describee", "eee");
    assert!(answer.starts_with("d2:id1:23:opsd5:clonede"), "{answer}");
    let answer = bencode(
        &mut stream,
        "d4:code11:auth s3cret2:id1:32:op4:evale",
        "6:statusl4:doneee",
    );
    assert!(
        answer.contains("d2:id1:32:ns7:pseidon5:value0:e"),
        "{answer}"
    );
    let answer = bencode(
        &mut stream,
        "d4:code6:errors2:id1:42:op4:eval7:session1:xe",
        "6:statusl4:doneee",
    );
    assert_eq!(
        answer,
        "d2:id1:42:ns7:pseidon7:session1:x5:value0:ed2:id1:47:session1:x6:statusl4:doneee"
    );
    let answer = bencode(
        &mut stream,
        "d4:code5:xyzzy2:id1:52:op4:evale",
        "6:statusl4:done10:eval-erroree",
    );
    assert!(
        answer.starts_with("d3:err40:error: unknown command `xyzzy`; try help2:id1:5e"),
        "{answer}"
    );
    assert_eq!(
        bencode(&mut stream, "d2:op4:nonee", "unknown-opee"),
        "d6:statusl4:done5:error10:unknown-opee"
    );
    let mut unauthenticated = TcpStream::connect(served.repl).unwrap();
    let answer = bencode(
        &mut unauthenticated,
        "d4:code4:logs2:op4:evale",
        "6:statusl4:done10:eval-erroree",
    );
    assert!(
        answer.contains("not authenticated; send: auth TOKEN"),
        "{answer}"
    );
    assert_eq!(
        unauthenticated.read(&mut [0]).unwrap(),
        0,
        "the connection is closed"
    );
}

#[test]
fn nrepl_code_is_text_and_the_first_message_has_an_operation() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut stream = TcpStream::connect(served.repl).unwrap();
    let code = "d4:code5:\u{1}logs2:op4:evale";
    let answer = bencode(&mut stream, code, "6:statusl4:done10:eval-erroree");
    assert!(answer.contains("the code is not text"), "{answer}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is closed");

    let mut stream = TcpStream::connect(served.repl).unwrap();
    let lines = "d4:code16:eval in\n n -\r\n n2:op4:evale";
    let answer = bencode(&mut stream, lines, "6:statusl4:doneee");
    assert!(answer.contains("5:value"), "{answer}");

    let mut stream = TcpStream::connect(served.repl).unwrap();
    let messages = b"d2:op4:noneed4:code10:pause test2:op4:evale";
    stream.write_all(messages).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    assert_eq!(served.runs.entry("test").state(), EntryState::Running);
}

#[test]
fn what_an_expression_may_use_is_limited() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut client = ReplClient::connect(&served);
    let long = client.send("eval in repeat(user, 400000)");
    // How many they are depends on the number of the record.
    let expected = "00002 bytes are too many to be shown; expected at most 262144";
    assert!(long.iter().all(|line| line.ends_with(expected)), "{long:?}");

    let calls = vec!["repeat(user, 400000)"; 17].join(" || ");
    let refused = client.send(&format!("eval in length({calls})"));
    assert!(
        refused.iter().all(|line| line
            == "error: the expression could use more than 256 MiB for a record; use fewer functions"),
        "{refused:?}"
    );
    let constants = client.send("eval in upper('a')");
    assert!(
        constants.iter().all(|line| line == "\"A\""),
        "{constants:?}"
    );

    let mut slow = serve_with(&[], false, None, |_, limits| {
        limits.evaluation = Duration::ZERO
    });
    slow.run("test");
    let cut = ReplClient::connect(&slow).send("eval in n");
    assert_eq!(cut, ["error: the evaluation took too long"]);
}
