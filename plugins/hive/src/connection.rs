//! Connections to Thrift servers, with time limits, and the classification of their errors.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use thrift::{ApplicationErrorKind, Error, TransportErrorKind};

use crate::HiveError;

/// The time limit for connecting, per address of the host.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes that are read from a connection: more than any response about one table.
const MAX_READ: u64 = 16 << 20;

/// Connects to `HOST:PORT`. The addresses of the host are tried in turn; the error is the last
/// one's.
pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// The reading side of a connection, limited in time and bytes.
pub(crate) struct DeadlineReader {
    stream: io::Take<TcpStream>,
    limit: Duration,
    deadline: Instant,
}

impl DeadlineReader {
    /// Limits reading to `limit` from now. Each write is limited to `limit` too.
    pub(crate) fn new(stream: &TcpStream, limit: Duration) -> io::Result<DeadlineReader> {
        stream.set_write_timeout(Some(limit))?;
        Ok(DeadlineReader {
            stream: stream.try_clone()?.take(MAX_READ),
            limit,
            deadline: Instant::now() + limit,
        })
    }
}

impl Read for DeadlineReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timed_out = || {
            io::Error::new(
                ErrorKind::TimedOut,
                format!("no response within {} s", self.limit.as_secs()),
            )
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timed_out());
        }
        self.stream.get_ref().set_read_timeout(Some(left))?;
        match self.stream.read(buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(timed_out())
            }
            outcome => outcome,
        }
    }
}

/// Converts an error: [`HiveError::Unreachable`] if retrying may help. `server` is the server's
/// name, `unsupported` describes the requirements of such servers that are not supported.
pub(crate) fn classify(server: &str, unsupported: &str, error: Error) -> HiveError {
    match error {
        Error::Transport(error)
            if matches!(
                error.kind,
                TransportErrorKind::EndOfFile | TransportErrorKind::NotOpen
            ) =>
        {
            HiveError::Unreachable(format!("{server} closed the connection; {unsupported}").into())
        }
        Error::Transport(error) => {
            HiveError::Unreachable(format!("{server}: {}", error.message).into())
        }
        Error::Application(error) if error.kind == ApplicationErrorKind::InternalError => {
            HiveError::Unreachable(format!("{server}: {}", error.message).into())
        }
        Error::Application(error) => {
            HiveError::Refused(format!("{server}: {}", error.message).into())
        }
        Error::Protocol(error) => HiveError::Refused(
            format!(
                "unexpected response from {server} ({}); {unsupported}",
                error.message
            )
            .into(),
        ),
        Error::User(error) => HiveError::Refused(Reason::caused_by(server.to_owned(), error)),
    }
}
