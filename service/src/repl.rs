//! The REPL: the client sends a line, the reply is any number of lines and an empty one.
//!
//! An error is a line that starts with `error: `. With a token, the first line has to be `auth
//! TOKEN`. A connection that starts with a bencoded dictionary uses the nREPL protocol instead
//! ([`nrepl`]).
//!
//! A client of another protocol, such as a browser that a web page makes connect, must not execute
//! a command with bytes that the page chooses. So the first line has to be a command, and the
//! connection is closed at the first line that is not text.

mod bencode;
mod commands;
mod nrepl;
mod rows;
mod target;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pseidon_dsl::printable;
use pseidon_plugin::Secret;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use self::commands::{Command, Handler};
use crate::audit::{self, Client, Interface, OTHER_USER};
use crate::listener::{Listener, NewConnection};
use crate::peer::Peer;
use crate::status_pages::StatusPages;
use crate::tls::certificate_error;
use crate::tokens::{Grant, Role, missing_role};

/// The longest line, in bytes.
const MAX_LINE: usize = 16 << 10;

/// Accepts connections until the process exits.
pub(crate) async fn serve(listener: Listener, pages: Arc<StatusPages>) {
    let limits = pages.limits.of(&listener);
    let places = Arc::new(Semaphore::new(limits.repl_connections));
    loop {
        let accepted = listener.accept().await;
        let (pages, place) = (pages.clone(), places.clone().try_acquire_owned());
        tokio::spawn(async move {
            let peer = accepted.peer.clone();
            let client = Client {
                peer: &peer,
                interface: Interface::Repl,
                token: None,
            };
            if accepted.is_of_other_user() {
                return pages.refusals.refused(&client, OTHER_USER);
            }
            let served = serve_connection(accepted, &pages, place.is_ok()).await;
            // The client may have disconnected.
            let error = served.err();
            if let Some(reason) = error.as_ref().and_then(certificate_error) {
                pages.refusals.refused(&client, &reason);
            }
            drop(place);
        });
        // Clients that connect quickly do not keep those from being served that have connected.
        tokio::task::yield_now().await;
    }
}

/// Serves a connection, or refuses it if there is no place for it. One without a place is not worth
/// a handshake.
async fn serve_connection(
    accepted: NewConnection,
    pages: &Arc<StatusPages>,
    has_place: bool,
) -> io::Result<()> {
    if !has_place && accepted.has_handshake() {
        return Ok(());
    }
    let since = accepted.since;
    let (mut stream, peer) = accepted.open(pages.limits.request).await?;
    if !has_place {
        let refusal = b"error: too many connections\n\n";
        return send(&mut stream, refusal, pages.limits.answer).await;
    }
    let (input, output) = split(stream);
    serve_client(BufReader::new(input), output, pages, peer, since).await
}

/// Serves a client that has connected at this time, over either protocol, until it disconnects or is
/// disconnected; its first byte decides which.
pub(crate) async fn serve_client(
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    pages: &Arc<StatusPages>,
    peer: Peer,
    since: Instant,
) -> io::Result<()> {
    let mut session = ReplSession::new(pages.clone(), peer, since);
    let first = timeout_at(session.deadline(), input.fill_buf()).await??;
    if first.first() == Some(&b'd') {
        nrepl::serve_connection(input, &mut output, session).await?;
    } else {
        serve_lines(input, &mut output, &mut session).await?;
    }
    timeout(pages.limits.answer, output.shutdown()).await?
}

/// Serves the line protocol.
async fn serve_lines(
    mut input: impl AsyncBufRead + Unpin,
    output: &mut (impl AsyncWrite + Unpin),
    session: &mut ReplSession,
) -> io::Result<()> {
    loop {
        let line = timeout_at(session.deadline(), read_line(&mut input)).await??;
        let reply = match line {
            InputLine::End => return Ok(()),
            InputLine::TooLong => Reply::last(format!(
                "error: line too long; the limit is {MAX_LINE} bytes"
            )),
            InputLine::NotText => Reply::last("error: the line is not text".to_owned()),
            InputLine::Text(line) => session.reply_to_line(line).await,
        };
        let mut text = String::new();
        reply
            .lines
            .iter()
            .for_each(|line| text.extend([line, "\n"]));
        text.push('\n');
        send(output, text.as_bytes(), session.pages.limits.answer).await?;
        if reply.is_last {
            return Ok(());
        }
    }
}

/// Sends a reply, which the client has to receive in time.
async fn send(
    output: &mut (impl AsyncWrite + Unpin),
    reply: &[u8],
    limit: Duration,
) -> io::Result<()> {
    let sent = async {
        output.write_all(reply).await?;
        // TLS may hold it back.
        output.flush().await
    };
    timeout(limit, sent).await?
}

/// A line from the client.
enum InputLine {
    Text(String),
    /// Not UTF-8, or with control characters.
    NotText,
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
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(match std::str::from_utf8(line) {
        Ok(line) if !line.chars().any(|c| c.is_control() && c != '\t') => {
            InputLine::Text(line.trim().to_owned())
        }
        _ => InputLine::NotText,
    })
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
    fn last(error: String) -> Reply {
        Reply {
            lines: vec![error],
            is_error: true,
            is_last: true,
        }
    }
}

/// An error on one line.
fn error(reason: &str) -> String {
    format!("error: {}", commands::one_line(reason))
}

/// Splits off the first word.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// The state of a connection.
struct ReplSession {
    pages: Arc<StatusPages>,
    peer: Peer,
    since: Instant,
    /// The token with which the client has authenticated.
    token: Option<Secret>,
    /// Whether the client has shown that it speaks the protocol.
    is_known: bool,
}

impl ReplSession {
    fn new(pages: Arc<StatusPages>, peer: Peer, since: Instant) -> ReplSession {
        ReplSession {
            token: None,
            is_known: false,
            since,
            peer,
            pages,
        }
    }

    /// What the client may do now; `None` if it is not authenticated, or its token is no longer
    /// valid.
    fn grant(&self) -> Option<Arc<Grant>> {
        let access = &self.pages.access;
        match &self.token {
            Some(token) => access.with_token(token.expose()),
            None => access.without_token(&self.peer),
        }
    }

    /// When the connection is closed if nothing further arrives.
    fn deadline(&self) -> Instant {
        if self.is_known && self.grant().is_some() {
            Instant::now() + self.pages.limits.repl_idle
        } else {
            self.since + self.pages.limits.request
        }
    }

    /// The reply to a line of the line protocol. The first one has to be a command.
    async fn reply_to_line(&mut self, line: String) -> Reply {
        // A web page can make a browser send a request with any body to this port.
        if line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0") {
            return Reply::last("error: this port speaks the REPL protocol, not HTTP".to_owned());
        }
        let (name, _) = split_word(&line);
        if !self.is_known && Command::named(name).is_none() {
            return Reply::last(
                "error: the first line has to be a command, such as help".to_owned(),
            );
        }
        self.is_known = true;
        self.reply_to(line).await
    }

    async fn reply_to(&mut self, line: String) -> Reply {
        let (name, arguments) = split_word(&line);
        let handler = Command::named(name).map(|command| &command.handler);
        if let Some(Handler::Authenticate) = handler
            && !arguments.is_empty()
        {
            return self.authenticate(arguments).await;
        }
        let Some(grant) = self.grant() else {
            self.refused(None, "no token");
            return Reply::last(if self.token.is_some() {
                "error: the token was revoked".to_owned()
            } else {
                "error: not authenticated; send: auth TOKEN".to_owned()
            });
        };
        if let Some(Handler::Quit) = handler
            && arguments.is_empty()
        {
            return Reply {
                lines: Vec::new(),
                is_error: false,
                is_last: true,
            };
        }
        if let Some(role) = commands::role_of(&line)
            && !grant.allows(role)
        {
            let reason = missing_role(role);
            self.refused(grant.name.as_deref(), &reason);
            return Reply::of(Err(vec![reason]));
        }
        self.execute(line, &grant).await
    }

    /// Executes a line on another thread, as some commands wait for records.
    async fn execute(&self, line: String, grant: &Grant) -> Reply {
        let shows_records = grant.allows(Role::Records);
        let pages = self.pages.clone();
        let execute = {
            let line = line.clone();
            move || commands::execute(&pages, &line, shows_records)
        };
        let result = match tokio::task::spawn_blocking(execute).await {
            Ok(result) => result,
            Err(panic) => Err(vec![format!("internal error: {panic}")]),
        };
        if commands::role_of(&line).is_some() {
            let (name, arguments) = split_word(&line);
            let error = result.as_ref().err().and_then(|errors| errors.first());
            let client = self.client(grant.name.as_deref());
            audit::action(&client, name, arguments, error.map(String::as_str));
        }
        Reply::of(result)
    }

    async fn authenticate(&mut self, token: &str) -> Reply {
        if self.pages.access.with_token(token).is_none() {
            self.refused(None, "wrong token");
            tokio::time::sleep(self.pages.limits.wrong_token).await;
            return Reply::last("error: invalid token".to_owned());
        }
        self.token = Some(Secret::new(token));
        Reply::of(Ok(Vec::new()))
    }

    /// The client with a token of this name.
    fn client<'a>(&'a self, token: Option<&'a str>) -> Client<'a> {
        Client {
            peer: &self.peer,
            interface: Interface::Repl,
            token,
        }
    }

    fn refused(&self, token: Option<&str>, reason: &str) {
        self.pages.refusals.refused(&self.client(token), reason);
    }
}
