//! The HTTP connections: how many there are, and which are served although there are too many.
//!
//! A client that connects and then sends nothing costs a file descriptor, which the sinks need too.
//! So the number of connections is limited, and each has to keep up ([`TimedStream`]). While slow
//! clients use all of them, a few more connections are accepted, so that `/live` and `/ready` are
//! answered whatever happens. Of these, the oldest is closed for a new one: a probe sends its
//! request at once, and is answered long before that.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::limits::Limits;
use crate::timed_stream::TimedStream;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// The pause after a failure to accept a connection, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The connection on which a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// Whether there were too many connections when it was accepted.
    pub(crate) is_reserved: bool,
}

/// Serves connections until the process exits.
pub(crate) async fn serve(listener: TcpListener, routes: Router, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut reserve = Reserve::new(limits.reserved);
    loop {
        let (stream, peer) = accept(&listener).await;
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let connection = Connection {
                    peer,
                    is_reserved: false,
                };
                let served = serve_connection(stream, connection, routes.clone(), limits);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => {
                let connection = Connection {
                    peer,
                    is_reserved: true,
                };
                let served = serve_connection(stream, connection, routes.clone(), limits);
                reserve.push(tokio::spawn(served).abort_handle());
            }
        }
        // Clients that connect quickly do not keep those from being served that have connected.
        tokio::task::yield_now().await;
    }
}

/// Accepts a connection. If that fails, it is tried again.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
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

/// Serves one connection until it is closed.
async fn serve_connection(
    stream: TcpStream,
    connection: Connection,
    routes: Router,
    limits: Limits,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection);
        routes.call(request)
    });
    let stream = TokioIo::new(TimedStream::new(stream, limits));
    let served = http1::Builder::new()
        .keep_alive(!connection.is_reserved)
        .max_buf_size(MAX_HEAD)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(peer = %connection.peer, %error, "closed an HTTP connection");
    }
}

/// The connections beyond the limit.
struct Reserve {
    connections: VecDeque<AbortHandle>,
    limit: usize,
}

impl Reserve {
    fn new(limit: usize) -> Reserve {
        Reserve {
            connections: VecDeque::new(),
            limit,
        }
    }

    /// Adds a connection. If there are too many, closes the oldest one.
    fn push(&mut self, connection: AbortHandle) {
        self.connections.retain(|open| !open.is_finished());
        if self.connections.len() >= self.limit
            && let Some(oldest) = self.connections.pop_front()
        {
            oldest.abort();
        }
        self.connections.push_back(connection);
    }
}
