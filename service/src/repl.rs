//! The REPL over TCP: the client sends a line, the reply is any number of lines and an empty one.
//!
//! An error is a line that starts with `error: `. With a token, the first line has to be `auth
//! TOKEN`. A connection that starts with a bencoded dictionary uses the nREPL protocol instead
//! ([`nrepl`]).

mod bencode;
mod commands;
mod nrepl;
mod rows;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pseidon_dsl::printable;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::commands::{Command, Handler};
use crate::status_pages::StatusPages;

/// The most simultaneous connections.
const MAX_CONNECTIONS: usize = 16;
/// The longest line, in bytes.
const MAX_LINE: usize = 16 << 10;
/// A connection that sends nothing for this time is closed.
const MAX_IDLE: Duration = Duration::from_secs(15 * 60);
/// The pause after a failure to accept a connection, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections until the process exits.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<StatusPages>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a REPL connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (pages, permit) = (pages.clone(), permits.clone().try_acquire_owned());
        tokio::spawn(async move {
            // The client may have disconnected.
            let _ = match permit {
                Ok(_permit) => serve_connection(stream, &pages).await,
                Err(_) => stream.write_all(b"error: too many connections\n\n").await,
            };
        });
    }
}

/// Serves one connection until the client disconnects or is disconnected.
async fn serve_connection(stream: TcpStream, pages: &Arc<StatusPages>) -> io::Result<()> {
    let (input, output) = stream.into_split();
    serve_client(BufReader::new(input), output, pages).await
}

/// Serves a client over either protocol; its first byte decides which.
pub(crate) async fn serve_client(
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    pages: &Arc<StatusPages>,
) -> io::Result<()> {
    let Ok(first) = timeout(MAX_IDLE, input.fill_buf()).await else {
        return Ok(());
    };
    if first?.first() == Some(&b'd') {
        return nrepl::serve_connection(input, output, pages).await;
    }
    let mut session = ReplSession::new(pages.clone());
    loop {
        let line = match timeout(MAX_IDLE, read_line(&mut input)).await {
            Ok(line) => line?,
            Err(_) => return Ok(()),
        };
        let reply = match line {
            InputLine::End => return Ok(()),
            InputLine::TooLong => Reply::last(vec![format!(
                "error: line too long; the limit is {MAX_LINE} bytes"
            )]),
            InputLine::Text(line) => session.reply_to(line).await,
        };
        let mut text = String::new();
        reply
            .lines
            .iter()
            .for_each(|line| text.extend([line, "\n"]));
        text.push('\n');
        output.write_all(text.as_bytes()).await?;
        if reply.is_last {
            return Ok(());
        }
    }
}

/// A line from the client.
enum InputLine {
    Text(String),
    /// Longer than [`MAX_LINE`].
    TooLong,
    /// The client has closed the connection.
    End,
}

async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<InputLine> {
    let mut bytes = Vec::new();
    let read = input
        .take(MAX_LINE as u64)
        .read_until(b'\n', &mut bytes)
        .await?;
    if read == 0 {
        return Ok(InputLine::End);
    }
    if read == MAX_LINE && bytes.last() != Some(&b'\n') {
        return Ok(InputLine::TooLong);
    }
    Ok(InputLine::Text(
        String::from_utf8_lossy(&bytes).trim().to_owned(),
    ))
}

/// The lines of a reply, or errors.
type CommandResult = Result<Vec<String>, Vec<String>>;

/// The reply to a line.
struct Reply {
    lines: Vec<String>,
    is_error: bool,
    /// Whether the connection is closed after it.
    is_last: bool,
}

impl Reply {
    /// What a record, a row of a table or a server contains does not change the client's terminal.
    fn of(lines: CommandResult) -> Reply {
        let shown = |line: &String| printable(line).into_owned();
        match lines {
            Ok(lines) => Reply {
                lines: lines.iter().map(shown).collect(),
                is_error: false,
                is_last: false,
            },
            Err(reasons) => Reply {
                lines: reasons.iter().map(|reason| shown(&error(reason))).collect(),
                is_error: true,
                is_last: false,
            },
        }
    }

    /// An error after which the connection is closed.
    fn last(lines: Vec<String>) -> Reply {
        Reply {
            lines,
            is_error: true,
            is_last: true,
        }
    }
}

/// An error on one line.
fn error(reason: &str) -> String {
    format!("error: {}", commands::one_line(reason))
}

/// The state of a connection.
struct ReplSession {
    pages: Arc<StatusPages>,
    is_authenticated: bool,
}

impl ReplSession {
    fn new(pages: Arc<StatusPages>) -> ReplSession {
        let is_authenticated = pages.token.is_none();
        ReplSession {
            pages,
            is_authenticated,
        }
    }

    async fn reply_to(&mut self, line: String) -> Reply {
        // A web page can make a browser send a request with any body to this port.
        if line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0") {
            return Reply::last(vec![
                "error: this port speaks the REPL protocol, not HTTP".to_owned(),
            ]);
        }
        let (name, arguments) = commands::split_word(&line);
        let handler = Command::named(name).map(|command| &command.handler);
        if let Some(Handler::Authenticate) = handler
            && !arguments.is_empty()
        {
            return self.authenticate(arguments);
        }
        if !self.is_authenticated {
            return Reply::last(vec![
                "error: not authenticated; send: auth TOKEN".to_owned(),
            ]);
        }
        if let Some(Handler::Quit) = handler
            && arguments.is_empty()
        {
            return Reply {
                lines: Vec::new(),
                is_error: false,
                is_last: true,
            };
        }
        let pages = self.pages.clone();
        // Some commands wait for records.
        match tokio::task::spawn_blocking(move || commands::execute(&pages, &line)).await {
            Ok(lines) => Reply::of(lines),
            Err(panic) => Reply::of(Err(vec![format!("internal error: {panic}")])),
        }
    }

    fn authenticate(&mut self, token: &str) -> Reply {
        if self
            .pages
            .token
            .as_ref()
            .is_some_and(|expected| !expected.matches(token))
        {
            return Reply::last(vec!["error: invalid token".to_owned()]);
        }
        self.is_authenticated = true;
        Reply::of(Ok(Vec::new()))
    }
}
