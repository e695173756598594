//! Connections to Thrift servers: time limits, and what their errors mean.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use thrift::{ApplicationErrorKind, Error, TransportErrorKind};

use crate::HiveError;

/// How long making a connection may take, for each address that the host's name stands for.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// No server says more than this about one table. In bytes.
const MOST: u64 = 16 << 20;

/// Connects to `HOST:PORT`.
pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last_error =
        io::Error::new(ErrorKind::NotFound, "the host's name stands for no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// The reading side of a connection: until a point in time, and so many bytes.
pub(crate) struct Limited {
    stream: io::Take<TcpStream>,
    limit: Duration,
    until: Instant,
}

impl Limited {
    /// Everything that is read has to come within `limit` from now.
    pub(crate) fn new(stream: &TcpStream, limit: Duration) -> io::Result<Limited> {
        stream.set_write_timeout(Some(limit))?;
        Ok(Limited {
            stream: stream.try_clone()?.take(MOST),
            limit,
            until: Instant::now() + limit,
        })
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let late = || {
            io::Error::new(
                ErrorKind::TimedOut,
                format!("no answer within {} s", self.limit.as_secs()),
            )
        };
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        self.stream.get_ref().set_read_timeout(Some(left))?;
        match self.stream.read(buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(late())
            }
            outcome => outcome,
        }
    }
}

/// Whether waiting can help. `server` says who it is, `otherwise` what such servers may ask for
/// that is not spoken.
pub(crate) fn classified(server: &str, otherwise: &str, error: Error) -> HiveError {
    match error {
        Error::Transport(error)
            if matches!(
                error.kind,
                TransportErrorKind::EndOfFile | TransportErrorKind::NotOpen
            ) =>
        {
            HiveError::Unreachable(format!("{server} closed the connection; {otherwise}"))
        }
        Error::Transport(error) => HiveError::Unreachable(format!("{server}: {}", error.message)),
        Error::Application(error) if error.kind == ApplicationErrorKind::InternalError => {
            HiveError::Unreachable(format!("{server}: {}", error.message))
        }
        Error::Application(error) => HiveError::Refused(format!("{server}: {}", error.message)),
        Error::Protocol(error) => HiveError::Refused(format!(
            "{server} does not speak as expected ({}); {otherwise}",
            error.message
        )),
        Error::User(error) => HiveError::Refused(format!("{server}: {error}")),
    }
}
