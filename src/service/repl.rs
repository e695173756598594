//! A REPL over TCP: a line in, an answer of some lines and an empty one out.
//!
//! An answer that is no answer begins with `error: `. With a token the first line has to be `auth
//! TOKEN`. A connection that begins with a bencoded dictionary speaks nREPL instead ([`nrepl`]).

mod bencode;
mod commands;
mod nrepl;
mod rows;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::watched::Watched;

/// How many may be connected at once.
const MAX_CONNECTIONS: usize = 16;
/// The longest line, in bytes.
const MAX_LINE: usize = 16 << 10;
/// A connection that says nothing for so long is closed.
const MAX_IDLE: Duration = Duration::from_secs(15 * 60);
/// How long to wait before connections are accepted again after that has failed, as it does when
/// too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, watched: Arc<Watched>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a REPL connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (watched, place) = (watched.clone(), places.clone().try_acquire_owned());
        tokio::spawn(async move {
            // Whoever has gone away needs no answer.
            let _ = match place {
                Ok(_place) => talk(stream, &watched).await,
                Err(_) => stream.write_all(b"error: too many connections\n\n").await,
            };
        });
    }
}

async fn talk(stream: TcpStream, watched: &Arc<Watched>) -> io::Result<()> {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    let Ok(first) = timeout(MAX_IDLE, input.fill_buf()).await else {
        return Ok(());
    };
    if first?.first() == Some(&b'd') {
        return nrepl::talk(input, output, watched).await;
    }
    let mut dialogue = Dialogue::new(watched.clone());
    loop {
        let line = match timeout(MAX_IDLE, read_line(&mut input)).await {
            Ok(line) => line?,
            Err(_) => return Ok(()),
        };
        let answer = match line {
            Line::End => return Ok(()),
            Line::TooLong => {
                Answer::last(vec![format!("error: a line has at most {MAX_LINE} bytes")])
            }
            Line::Text(line) => dialogue.answer(line).await,
        };
        let mut text = String::new();
        answer
            .lines
            .iter()
            .for_each(|line| text.extend([line, "\n"]));
        text.push('\n');
        output.write_all(text.as_bytes()).await?;
        if answer.is_last {
            return Ok(());
        }
    }
}

enum Line {
    Text(String),
    TooLong,
    End,
}

async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut bytes = Vec::new();
    let read = input
        .take(MAX_LINE as u64)
        .read_until(b'\n', &mut bytes)
        .await?;
    if read == 0 {
        return Ok(Line::End);
    }
    if read == MAX_LINE && bytes.last() != Some(&b'\n') {
        return Ok(Line::TooLong);
    }
    Ok(Line::Text(
        String::from_utf8_lossy(&bytes).trim().to_owned(),
    ))
}

/// The answer to a line.
struct Answer {
    lines: Vec<String>,
    is_error: bool,
    /// Whether the connection ends after it.
    is_last: bool,
}

impl Answer {
    fn of(lines: Result<Vec<String>, Vec<String>>) -> Answer {
        match lines {
            Ok(lines) => Answer {
                lines,
                is_error: false,
                is_last: false,
            },
            Err(reasons) => Answer {
                lines: reasons.iter().map(|reason| error(reason)).collect(),
                is_error: true,
                is_last: false,
            },
        }
    }

    fn last(lines: Vec<String>) -> Answer {
        Answer {
            lines,
            is_error: true,
            is_last: true,
        }
    }
}

/// A reason on one line.
fn error(reason: &str) -> String {
    format!("error: {}", reason.lines().collect::<Vec<_>>().join(" "))
}

/// What has been said on a connection.
struct Dialogue {
    watched: Arc<Watched>,
    is_known: bool,
}

impl Dialogue {
    fn new(watched: Arc<Watched>) -> Dialogue {
        let is_known = watched.token.is_none();
        Dialogue { watched, is_known }
    }

    async fn answer(&mut self, line: String) -> Answer {
        // A browser can be made to send what a page says to any port, after its own first line.
        if line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0") {
            return Answer::last(vec!["error: this is no web server".to_owned()]);
        }
        if let Some(token) = line.strip_prefix("auth ") {
            return self.authenticate(token.trim());
        }
        if !self.is_known {
            return Answer::last(vec![
                "error: the first line has to be: auth TOKEN".to_owned(),
            ]);
        }
        if line == "quit" {
            return Answer {
                lines: Vec::new(),
                is_error: false,
                is_last: true,
            };
        }
        let watched = self.watched.clone();
        // Some answers wait for records.
        match tokio::task::spawn_blocking(move || commands::answer(&watched, &line)).await {
            Ok(lines) => Answer::of(lines),
            Err(panic) => Answer::of(Err(vec![format!("this could not be answered: {panic}")])),
        }
    }

    fn authenticate(&mut self, token: &str) -> Answer {
        if self
            .watched
            .token
            .as_ref()
            .is_some_and(|known| !known.is(token))
        {
            return Answer::last(vec!["error: this is not the token".to_owned()]);
        }
        self.is_known = true;
        Answer::of(Ok(Vec::new()))
    }
}
