//! The nREPL protocol (<https://nrepl.org/nrepl/design/overview.html>), so that its clients can be
//! used. The code that they evaluate is a line of the REPL.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::bencode::{Bencode, BencodeError};
use super::{MAX_IDLE, MAX_LINE, ReplSession};
use crate::status_pages::StatusPages;

/// The supported operations, as `describe` lists them.
const OPS: [&str; 4] = ["clone", "close", "describe", "eval"];

/// Serves one connection until the client disconnects or sends an invalid message.
pub(super) async fn serve_connection(
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    pages: &Arc<StatusPages>,
) -> io::Result<()> {
    let mut session = ReplSession::new(pages.clone());
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let request = match Bencode::read(&bytes) {
            Ok((request, rest)) => {
                bytes = rest.to_vec();
                request
            }
            Err(BencodeError::Incomplete) if bytes.len() <= MAX_LINE => {
                let Ok(more) = timeout(MAX_IDLE, input.fill_buf()).await else {
                    return Ok(());
                };
                let more = more?;
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
        let (responses, is_last) = respond(&mut session, &request).await;
        let mut written = Vec::new();
        responses
            .iter()
            .for_each(|response| response.write(&mut written));
        output.write_all(&written).await?;
        if is_last {
            return Ok(());
        }
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
            let line = request
                .get_str("code")
                .unwrap_or_default()
                .trim()
                .to_owned();
            let reply = session.reply_to(line).await;
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

/// A unique name for a session. Sessions have no state here, so they are not registered.
fn new_session() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!(
        "pseidon-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
