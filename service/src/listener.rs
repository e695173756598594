//! A port that clients connect to, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::peer::Peer;
use crate::tls::{self, Tls};

/// The pause after a failure to accept a connection, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A connection of any kind.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A port.
pub(crate) struct Listener {
    port: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// A connection before its handshake.
pub(crate) struct Accepted {
    /// When it was accepted. What a client has to do first is limited from then on.
    pub(crate) since: Instant,
    pub(crate) peer: Peer,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on an address.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let port = TcpListener::bind(address).await?;
        Ok(Listener { port, tls })
    }

    /// The address that clients connect to.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// Accepts a connection. If that fails, it is tried again.
    pub(crate) async fn accept(&self) -> Accepted {
        loop {
            match self.port.accept().await {
                Ok((stream, address)) => {
                    return Accepted {
                        since: Instant::now(),
                        peer: Peer {
                            address,
                            certificate: None,
                        },
                        stream,
                        acceptor: self.tls.as_ref().map(|tls| tls.acceptor()),
                    };
                }
                // The client has already gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Accepted {
    /// Whether a handshake comes before what is sent.
    pub(crate) fn has_handshake(&self) -> bool {
        self.acceptor.is_some()
    }

    /// The connection, and the client with what its handshake has shown. The handshake may take as
    /// long as the head of a request, `limit`, and counts as a part of it.
    pub(crate) async fn open(mut self, limit: Duration) -> io::Result<(Box<dyn ByteStream>, Peer)> {
        let Some(acceptor) = self.acceptor else {
            return Ok((Box::new(self.stream), self.peer));
        };
        let stream = timeout_at(self.since + limit, acceptor.accept(self.stream)).await??;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|chain| chain.first());
        self.peer.certificate = certificate.map(|own| tls::fingerprint(own).into());
        Ok((Box::new(stream), self.peer))
    }
}
