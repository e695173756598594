//! What clients connect to: a port, with TLS or without, or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::peer::Peer;
use crate::tls::{self, Tls};

/// The pause after a failure to accept a connection, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A connection of any kind.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A place where clients connect.
pub(crate) enum Listener {
    /// A port, with TLS or without.
    Port(TcpListener, Option<Arc<Tls>>),
    /// A Unix socket.
    Socket(UnixListener),
}

/// A connection before its handshake.
pub(crate) struct NewConnection {
    /// When it was accepted. What a client has to do first is limited from then on.
    pub(crate) since: Instant,
    pub(crate) peer: Peer,
    stream: NewStream,
}

enum NewStream {
    Plain(Box<dyn ByteStream>),
    BeforeTls(TcpStream, TlsAcceptor),
}

impl Listener {
    /// Accepts a connection. If that fails, it is tried again.
    pub(crate) async fn accept(&self) -> NewConnection {
        loop {
            let accepted = match self {
                Listener::Port(port, tls) => port.accept().await.map(|(stream, address)| {
                    let acceptor = tls.as_ref().map(|tls| tls.acceptor());
                    NewConnection::from_port(stream, address, acceptor)
                }),
                Listener::Socket(socket) => match socket.accept().await {
                    Ok((stream, _)) => NewConnection::from_socket(stream),
                    Err(error) => Err(error),
                },
            };
            match accepted {
                Ok(accepted) => return accepted,
                // The client has already gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whether clients connect through a Unix socket.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Listener::Socket(_))
    }
}

impl NewConnection {
    fn from_port(
        stream: TcpStream,
        address: SocketAddr,
        acceptor: Option<TlsAcceptor>,
    ) -> NewConnection {
        NewConnection {
            since: Instant::now(),
            peer: Peer::Network {
                address,
                certificate: None,
            },
            stream: match acceptor {
                Some(acceptor) => NewStream::BeforeTls(stream, acceptor),
                None => NewStream::Plain(Box::new(stream)),
            },
        }
    }

    fn from_socket(stream: UnixStream) -> io::Result<NewConnection> {
        let client = stream.peer_cred()?;
        Ok(NewConnection {
            since: Instant::now(),
            peer: Peer::Local {
                uid: client.uid(),
                pid: client.pid(),
            },
            stream: NewStream::Plain(Box::new(stream)),
        })
    }

    /// Whether the client is another user of this machine. The mode of a socket's file keeps those
    /// away, unless it was changed.
    pub(crate) fn is_of_other_user(&self) -> bool {
        match self.peer {
            Peer::Network { .. } => false,
            Peer::Local { uid, .. } => !may_use(uid, geteuid().as_raw()),
        }
    }

    /// Whether a handshake comes before what is sent.
    pub(crate) fn has_handshake(&self) -> bool {
        matches!(self.stream, NewStream::BeforeTls(..))
    }

    /// The connection, and the client with what its handshake has shown. The handshake may take as
    /// long as the head of a request, `limit`, and counts as a part of it.
    pub(crate) async fn open(self, limit: Duration) -> io::Result<(Box<dyn ByteStream>, Peer)> {
        let (stream, acceptor) = match self.stream {
            NewStream::Plain(stream) => return Ok((stream, self.peer)),
            NewStream::BeforeTls(stream, acceptor) => (stream, acceptor),
        };
        let stream = timeout_at(self.since + limit, acceptor.accept(stream)).await??;
        let certificates = stream.get_ref().1.peer_certificates();
        let own = certificates.and_then(|chain| chain.first());
        let fingerprint = own.map(|own| tls::fingerprint(own).into());
        let mut peer = self.peer;
        if let Peer::Network { certificate, .. } = &mut peer {
            *certificate = fingerprint;
        }
        Ok((Box::new(stream), peer))
    }
}

/// Whether a user may use a socket of the other one.
fn may_use(user: u32, owner: u32) -> bool {
    user == owner || user == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_its_user_and_root() {
        assert!(may_use(1000, 1000) && may_use(0, 1000) && may_use(0, 0));
        assert!(!may_use(1001, 1000) && !may_use(1000, 0));
    }
}
