//! Connections to Thrift servers, with time limits and TLS, and the classification of their errors.

use std::cell::RefCell;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use native_tls::{Certificate, HandshakeError, Protocol, TlsConnector, TlsStream};
use pseidon_delivery::Reason;
use thrift::{ApplicationErrorKind, Error, TransportErrorKind};

use crate::HiveError;

/// The time limit for connecting, per address of the host.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes that are read from a connection: more than any response about one table.
const MAX_READ: u64 = 16 << 20;

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// They are not.
    None,
    /// With TLS. The server's certificate has to name the host, and to be signed by an authority
    /// whose certificate is in this PEM file. Default: one that the system trusts.
    Tls { ca: Option<PathBuf> },
}

impl Encryption {
    /// TLS with the file of an option, whose path has to be absolute: the URL may be in a table,
    /// which is in no folder.
    pub(crate) fn tls(ca: Option<&str>) -> Result<Encryption, String> {
        match ca.map(PathBuf::from) {
            Some(ca) if !ca.is_absolute() => {
                Err("the path of `sslCa` has to begin with a slash".to_owned())
            }
            ca => Ok(Encryption::Tls { ca }),
        }
    }
}

/// A connection to a server, which one thread reads and writes. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Connection(Rc<RefCell<Channel>>);

enum Channel {
    Plain(DeadlineStream),
    Encrypted(Box<TlsStream<DeadlineStream>>),
}

impl Connection {
    /// Connects to `HOST:PORT`. All that is read, in all [`MAX_READ`] bytes, has to arrive within
    /// `limit`. `server` is the server's name in errors.
    pub(crate) fn open(
        address: &str,
        encryption: &Encryption,
        limit: Duration,
        server: &str,
    ) -> Result<Connection, HiveError> {
        let connector = match encryption {
            Encryption::None => None,
            Encryption::Tls { ca } => Some(connector(ca.as_deref()).map_err(HiveError::Refused)?),
        };
        let unreachable =
            |error: io::Error| HiveError::Unreachable(Reason::caused_by(server.to_owned(), error));
        let stream = connect(address).map_err(unreachable)?;
        let stream = DeadlineStream::new(stream, limit).map_err(unreachable)?;
        let channel = match connector {
            None => Channel::Plain(stream),
            Some(connector) => {
                let encrypted = connector.connect(host_of(address), stream);
                let encrypted = encrypted.map_err(|error| {
                    let what = format!("{server}: cannot establish a TLS connection");
                    HiveError::Unreachable(Reason::caused_by(what, tls_error(error)))
                })?;
                Channel::Encrypted(Box::new(encrypted))
            }
        };
        Ok(Connection(Rc::new(RefCell::new(channel))))
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Channel::Plain(stream) => stream.read(buffer),
            Channel::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Channel::Plain(stream) => stream.write(bytes),
            Channel::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.0.borrow_mut() {
            Channel::Plain(stream) => stream.flush(),
            Channel::Encrypted(stream) => stream.flush(),
        }
    }
}

/// A TLS client that trusts the authorities of a PEM file, or those of the system.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, Reason> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(path) = ca {
        let invalid = || format!("cannot use the certificates in {}", path.display());
        let pem = fs::read(path).map_err(|error| Reason::caused_by(invalid(), error))?;
        let certificates = Certificate::stack_from_pem(&pem)
            .map_err(|error| Reason::caused_by(invalid(), error))?;
        if certificates.is_empty() {
            return Err(format!("{}: it is not a PEM file", invalid()).into());
        }
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    builder
        .build()
        .map_err(|error| Reason::caused_by("cannot set up TLS", error))
}

/// The cause of a failed handshake. The stream never asks for another try: it ends with an error
/// when its time is over.
fn tls_error(error: HandshakeError<DeadlineStream>) -> io::Error {
    match error {
        HandshakeError::Failure(error) => io::Error::other(error),
        HandshakeError::WouldBlock(_) => io::Error::from(ErrorKind::WouldBlock),
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Connects to `HOST:PORT`. The addresses of the host are tried in turn; the error is the last
/// one's.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// A TCP connection, limited in time and in the bytes that are read.
#[derive(Debug)]
struct DeadlineStream {
    stream: TcpStream,
    limit: Duration,
    deadline: Instant,
    unread: u64,
}

impl DeadlineStream {
    /// Limits reading to `limit` from now. Each write is limited to `limit` too.
    fn new(stream: TcpStream, limit: Duration) -> io::Result<DeadlineStream> {
        stream.set_write_timeout(Some(limit))?;
        Ok(DeadlineStream {
            stream,
            limit,
            deadline: Instant::now() + limit,
            unread: MAX_READ,
        })
    }
}

impl Read for DeadlineStream {
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
        self.stream.set_read_timeout(Some(left))?;
        let most = buffer.len().min(self.unread as usize);
        match self.stream.read(&mut buffer[..most]) {
            Ok(read) => {
                self.unread -= read as u64;
                Ok(read)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(timed_out())
            }
            Err(error) => Err(error),
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
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
