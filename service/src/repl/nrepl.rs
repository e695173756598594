//! The nREPL protocol (<https://nrepl.org/nrepl/design/overview.html>), so that its clients can be
//! used. The code that they evaluate is a line of the REPL.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite};
use tokio::time::timeout_at;

use super::bencode::{Bencode, BencodeError};
use super::{MAX_LINE, ReplSession, Reply, send};

/// The supported operations, as `describe` lists them.
const OPS: [&str; 4] = ["clone", "close", "describe", "eval"];

/// Serves one connection until the client disconnects or sends an invalid message. The first
/// message has to have a supported operation.
pub(super) async fn serve_connection(
    mut input: impl AsyncBufRead + Unpin,
    output: &mut (impl AsyncWrite + Unpin),
    mut session: ReplSession,
) -> io::Result<()> {
    // A message has to be complete in time, however its bytes arrive.
    let mut deadline = session.deadline();
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let request = match Bencode::read(&bytes) {
            Ok((request, rest)) => {
                bytes = rest.to_vec();
                request
            }
            Err(BencodeError::Incomplete) if bytes.len() <= MAX_LINE => {
                let more = timeout_at(deadline, input.fill_buf()).await??;
                if more.is_empty() {
                    return Ok(());
                }
                bytes.extend(more);
                let read = more.len();
                input.consume(read);
                continue;
            }
            Err(_) => return Ok(()),
        };
        let op = request.get_str("op").unwrap_or_default();
        session.is_known |= OPS.contains(&op.as_str());
        if !session.is_known {
            return Ok(());
        }
        let (responses, is_last) = respond(&mut session, &request).await;
        let mut written = Vec::new();
        responses
            .iter()
            .for_each(|response| response.write(&mut written));
        send(output, &written, session.pages.limits.answer).await?;
        if is_last {
            return Ok(());
        }
        deadline = session.deadline();
    }
}

/// Executes a request. Returns the responses, and whether the connection is closed after them.
async fn respond(session: &mut ReplSession, request: &Bencode) -> (Vec<Bencode>, bool) {
    let response = |entries: Vec<(&'static str, Bencode)>| {
        let echoed = ["id", "session"].map(|name| {
            request
                .get_str(name)
                .map(|value| (name, Bencode::string(&value)))
        });
        Bencode::dict(entries.into_iter().chain(echoed.into_iter().flatten()))
    };
    let status = |words: &[&str]| {
        (
            "status",
            Bencode::List(words.iter().map(|word| Bencode::string(word)).collect()),
        )
    };
    match request.get_str("op").as_deref() {
        Some("clone") => (
            vec![response(vec![
                ("new-session", Bencode::string(&new_session())),
                status(&["done"]),
            ])],
            false,
        ),
        Some("close") => (
            vec![response(vec![status(&["done", "session-closed"])])],
            false,
        ),
        Some("describe") => {
            let ops = Bencode::dict(OPS.map(|op| (op, Bencode::dict([]))));
            let version =
                Bencode::dict([("version-string", Bencode::string(env!("CARGO_PKG_VERSION")))]);
            let versions = Bencode::dict([("pseidon", version)]);
            (
                vec![response(vec![
                    ("ops", ops),
                    ("versions", versions),
                    status(&["done"]),
                ])],
                false,
            )
        }
        Some("eval") => {
            let reply = match request.get_str("code").as_deref().and_then(line) {
                Some(line) => session.reply_to(line).await,
                None => Reply::last("error: the code is not text".to_owned()),
            };
            let text = Bencode::string(&reply.lines.join("\n"));
            let shown = if reply.is_error {
                vec![("err", text)]
            } else {
                vec![("value", text), ("ns", Bencode::string("pseidon"))]
            };
            let done: &[&str] = if reply.is_error {
                &["done", "eval-error"]
            } else {
                &["done"]
            };
            (
                vec![response(shown), response(vec![status(done)])],
                reply.is_last,
            )
        }
        _ => (
            vec![response(vec![status(&["done", "error", "unknown-op"])])],
            false,
        ),
    }
}

/// The line that a client evaluates, which may have been written in several; `None` if it has
/// control characters.
fn line(code: &str) -> Option<String> {
    let is_text = !code.chars().any(|c| c.is_control() && !c.is_whitespace());
    is_text.then(|| code.trim().to_owned())
}

/// A unique name for a session. Sessions have no state here, so they are not registered.
fn new_session() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!(
        "pseidon-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
