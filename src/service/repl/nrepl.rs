//! nREPL's protocol (<https://nrepl.org/nrepl/design/overview.html>), so that its clients can be
//! used: what they evaluate is a line of the REPL.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::super::watched::Watched;
use super::bencode::{Bencode, Broken};
use super::{Dialogue, MAX_IDLE, MAX_LINE};

/// What a client can ask for.
const OPS: [&str; 4] = ["clone", "close", "describe", "eval"];

pub(super) async fn talk(
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    watched: &Arc<Watched>,
) -> io::Result<()> {
    let mut dialogue = Dialogue::new(watched.clone());
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let request = match Bencode::read(&bytes) {
            Ok((request, rest)) => {
                bytes = rest.to_vec();
                request
            }
            Err(Broken::Short) if bytes.len() <= MAX_LINE => {
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
        let (responses, is_last) = respond(&mut dialogue, &request).await;
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

/// The responses to a request, and whether the connection ends after them.
async fn respond(dialogue: &mut Dialogue, request: &Bencode) -> (Vec<Bencode>, bool) {
    let of_request = |entries: Vec<(&'static str, Bencode)>| {
        let back = ["id", "session"].map(|name| {
            request
                .get_text(name)
                .map(|value| (name, Bencode::text(&value)))
        });
        Bencode::dict(entries.into_iter().chain(back.into_iter().flatten()))
    };
    let status = |words: &[&str]| {
        (
            "status",
            Bencode::List(words.iter().map(|word| Bencode::text(word)).collect()),
        )
    };
    match request.get_text("op").as_deref() {
        Some("clone") => (
            vec![of_request(vec![
                ("new-session", Bencode::text(&new_session())),
                status(&["done"]),
            ])],
            false,
        ),
        Some("close") => (
            vec![of_request(vec![status(&["done", "session-closed"])])],
            false,
        ),
        Some("describe") => {
            let ops = Bencode::dict(OPS.map(|op| (op, Bencode::dict([]))));
            let version =
                Bencode::dict([("version-string", Bencode::text(env!("CARGO_PKG_VERSION")))]);
            let versions = Bencode::dict([("pseidon", version)]);
            (
                vec![of_request(vec![
                    ("ops", ops),
                    ("versions", versions),
                    status(&["done"]),
                ])],
                false,
            )
        }
        Some("eval") => {
            let line = request
                .get_text("code")
                .unwrap_or_default()
                .trim()
                .to_owned();
            let answer = dialogue.answer(line).await;
            let text = Bencode::text(&answer.lines.join("\n"));
            let shown = if answer.is_error {
                vec![("err", text)]
            } else {
                vec![("value", text), ("ns", Bencode::text("pseidon"))]
            };
            let done: &[&str] = if answer.is_error {
                &["done", "eval-error"]
            } else {
                &["done"]
            };
            (
                vec![of_request(shown), of_request(vec![status(done)])],
                answer.is_last,
            )
        }
        _ => (
            vec![of_request(vec![status(&["done", "error", "unknown-op"])])],
            false,
        ),
    }
}

/// A name for a session. Sessions hold nothing here, and so a name that nobody else has is enough.
fn new_session() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!(
        "pseidon-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
