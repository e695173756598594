//! Dialogues.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::{Served, serve, until};
use crate::board::State;

struct Talk {
    input: BufReader<TcpStream>,
}

impl Talk {
    fn with(served: &Served) -> Talk {
        Talk {
            input: BufReader::new(TcpStream::connect(served.repl).unwrap()),
        }
    }

    /// Says a line, and gives the lines of the answer.
    fn say(&mut self, line: &str) -> Vec<String> {
        self.input
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).unwrap();
            match line.strip_suffix('\n') {
                Some("") => return answer,
                Some(line) => answer.push(line.to_owned()),
                None => panic!("the answer ends without an empty line: {answer:?}"),
            }
        }
    }

    /// Whether the other side has closed the connection.
    fn is_over(&mut self) -> bool {
        self.input.read(&mut [0]).unwrap() == 0
    }
}

#[test]
fn a_pipeline_can_be_looked_into_while_it_runs() {
    let mut served = serve(&[], false, None);
    served.run("test");
    let mut talk = Talk::with(&served);
    assert!(talk.say("help").len() > 10);
    assert!(talk.say("").is_empty());
    let logs = talk.say("logs");
    assert!(logs[0].starts_with("test running lag="), "{logs:?}");
    assert_eq!(
        talk.say("stages"),
        [
            "in: source, format json, decodes n int64",
            "  even: where n % 2 = 0",
            "  all: all, 1 branches",
            "    drop: sink drop",
            "  select: select ten int64",
            "  drop#2: sink drop",
        ]
    );
    // The sinks begin a split one after the other.
    until(|| {
        talk.say("positions")
            .iter()
            .any(|line| line.starts_with("drop#2 in:0 "))
            .then_some(())
    });

    let last = talk.say("last in 3");
    assert_eq!(last.len(), 3, "{last:?}");
    assert!(
        last.iter()
            .all(|line| line.starts_with("{\"n\":") && line.contains(",\"user\":\"u")),
        "{last:?}"
    );
    let tens = talk.say("last select 2");
    assert!(
        tens.iter()
            .all(|line| line.starts_with("{\"ten\":") && line.ends_with("0}")),
        "{tens:?}"
    );
    let even = talk.say("eval even n % 2");
    assert!(
        !even.is_empty() && even.iter().all(|line| line == "0"),
        "{even:?}"
    );
    let users = talk.say("eval in upper(user) || '-' || @topic");
    assert!(
        !users.is_empty()
            && users
                .iter()
                .all(|line| line.starts_with("\"U") && line.ends_with("-in\"")),
        "fields that nobody decodes: {users:?}"
    );
    let tens = talk.say("eval test select case when ten >= 0 then null else 1 / (ten - ten) end");
    assert!(
        !tens.is_empty() && tens.iter().all(|line| line == "null"),
        "{tens:?}"
    );
    let divided = talk.say("eval select 1 / (ten - ten)");
    assert!(
        !divided.is_empty() && divided.iter().all(|line| line.starts_with("error: ")),
        "{divided:?}"
    );

    assert_eq!(talk.say("pause"), ["test pause"]);
    assert_eq!(served.board.entry("test").state(), State::Paused);
    assert_eq!(talk.say("resume test"), ["test resume"]);
    assert_eq!(talk.say("roll"), ["test roll"]);
    assert_eq!(talk.say("reset"), ["test reset-errors"]);
    assert!(talk.say("quit").is_empty());
    assert!(talk.is_over());
}

#[test]
fn what_cannot_be_answered_is_an_error_on_one_line() {
    let mut served = serve(&[], false, None);
    let mut talk = Talk::with(&served);
    assert_eq!(talk.say("last in"), ["error: nothing has been started yet"]);
    served.run("test");
    let cases = [
        (
            "staged",
            "`staged` is not known here; did you mean `stages`?",
        ),
        ("xyzzy", "`xyzzy` is not known here; say help"),
        ("last", "a stage is missing; say stages"),
        ("last evn", "there is no stage `evn`; did you mean `even`?"),
        ("last even 0", "`0` is not a number from 1 to 1000"),
        ("last even all", "`all` is not a number from 1 to 1000"),
        ("eval even", "an expression is missing"),
        ("eval even n +", ""),
        ("eval select n", "there is no column"),
        ("eval even nosuchfunction(n)", ""),
        ("pause other", "there is no log `other`; /logs names them"),
        ("positions other", "there is no log `other`; say logs"),
        ("reload", "this pipeline has no table of logs"),
    ];
    for (line, reason) in cases {
        let answer = talk.say(line);
        assert!(
            answer.len() == 1 && answer[0].starts_with(&format!("error: {reason}")),
            "{line}: {answer:?}"
        );
    }
}

#[test]
fn logs_of_a_template_are_named() {
    let mut served = serve(&["b"], true, None);
    served.run("a");
    served
        .board
        .entry("b")
        .set_state(State::Wrong("the column `format`\nis wrong".into()));
    let (a, b) = (served.board.entry("a"), served.board.entry("b"));
    a.metrics
        .bad_records
        .with_label_values(&["in", "dropped"])
        .inc_by(2);
    b.metrics.open_files.with_label_values(&["out"]).set(3);
    let mut talk = Talk::with(&served);
    let logs = talk.say("logs");
    assert!(
        logs[0].starts_with("a running ") && logs[0].contains(" errors=2 "),
        "{logs:?}"
    );
    assert!(
        logs[1].starts_with("b wrong ") && logs[1].ends_with(": the column `format` is wrong"),
        "{logs:?}"
    );
    assert_eq!(
        talk.say("errors"),
        [
            "a in quarantined=0 dropped=2",
            "b the column `format` is wrong"
        ]
    );
    assert_eq!(talk.say("errors b"), ["b the column `format` is wrong"]);
    assert_eq!(talk.say("files"), ["b out open=3 published=0"]);
    assert_eq!(talk.say("reset a"), ["a reset-errors"]);
    assert_eq!((a.errors(), b.errors()), (0, 0));
    assert_eq!(
        talk.say("last in"),
        ["error: there are several logs: name one before the stage"]
    );
    assert_eq!(
        talk.say("last a int"),
        ["error: there is no stage `int`; did you mean `in`?"]
    );
    assert_eq!(talk.say("last b in"), ["error: `b` does not run"]);
    assert_eq!(talk.say("last a in 1").len(), 1);
    assert_eq!(talk.say("reload"), ["a reload", "b reload"]);
    assert!(served.reloads.as_ref().unwrap().try_recv().is_ok());
}

#[test]
fn with_a_token_the_first_line_says_it() {
    let served = serve(&["a"], true, Some("s3cret"));
    let mut unknown = Talk::with(&served);
    assert_eq!(
        unknown.say("logs"),
        ["error: the first line has to be: auth TOKEN"]
    );
    assert!(unknown.is_over());
    let mut wrong = Talk::with(&served);
    assert_eq!(wrong.say("auth s3cre"), ["error: this is not the token"]);
    assert!(wrong.is_over());
    let mut known = Talk::with(&served);
    assert!(known.say("auth s3cret").is_empty());
    assert_eq!(known.say("logs").len(), 1);
}

#[test]
fn several_talk_at_once_and_a_line_has_a_limit() {
    let served = serve(&["a"], true, None);
    let mut talks: Vec<Talk> = (0..16).map(|_| Talk::with(&served)).collect();
    talks
        .iter_mut()
        .for_each(|talk| assert_eq!(talk.say("logs").len(), 1));
    let mut more = BufReader::new(TcpStream::connect(served.repl).unwrap());
    let mut answer = String::new();
    more.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "error: too many connections\n\n");
    let answer = talks[0].say(&"x".repeat(16 << 10));
    assert_eq!(answer, ["error: a line has at most 16384 bytes"]);
}

#[test]
fn a_browser_is_sent_away() {
    let served = serve(&["a"], true, None);
    let mut talk = Talk::with(&served);
    assert_eq!(
        talk.say("POST / HTTP/1.1\r"),
        ["error: this is no web server"]
    );
    assert!(talk.is_over());
}

/// Says something in bencode and reads until the answer ends in this.
fn bencode(stream: &mut TcpStream, request: &str, end: &str) -> String {
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
fn clients_of_nrepl_are_understood() {
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
        answer.starts_with("d3:err42:error: `xyzzy` is not known here; say help2:id1:5e"),
        "{answer}"
    );
    assert_eq!(
        bencode(&mut stream, "d2:op4:nonee", "unknown-opee"),
        "d6:statusl4:done5:error10:unknown-opee"
    );
    let mut unknown = TcpStream::connect(served.repl).unwrap();
    let answer = bencode(
        &mut unknown,
        "d4:code4:logs2:op4:evale",
        "6:statusl4:done10:eval-erroree",
    );
    assert!(
        answer.contains("the first line has to be: auth TOKEN"),
        "{answer}"
    );
    assert_eq!(
        unknown.read(&mut [0]).unwrap(),
        0,
        "the connection is closed"
    );
}
