//! The HTTP connections: how many there are, and which are served although there are too many.
//!
//! A client that connects and then sends nothing costs a file descriptor, which the sinks need too.
//! So the number of connections is limited, and each has to keep up ([`TimedStream`]), beginning
//! with the handshake of TLS. While slow
//! clients use all of them, a few more connections are accepted, so that `/live` and `/ready` are
//! answered whatever happens. Of these, the oldest is closed for a new one: a probe sends its
//! request at once, and is answered long before that.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::audit::{Client, Interface, OTHER_USER};
use crate::listener::{Listener, NewConnection};
use crate::peer::Peer;
use crate::status_pages::StatusPages;
use crate::timed_stream::TimedStream;
use crate::tls::certificate_error;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// The connection on which a request came.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// The client.
    pub(crate) peer: Peer,
    /// Whether there were too many connections when it was accepted.
    pub(crate) is_reserved: bool,
}

/// Serves connections until the process exits.
pub(crate) async fn serve(listener: Listener, routes: Router, pages: Arc<StatusPages>) {
    let limits = pages.limits.of(&listener);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut reserve = Reserve::new(limits.reserved);
    loop {
        let accepted = listener.accept().await;
        let place = places.clone().try_acquire_owned();
        let served = serve_connection(accepted, place.is_err(), routes.clone(), pages.clone());
        match place {
            Ok(place) => {
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => reserve.push(tokio::spawn(served).abort_handle()),
        }
        // Clients that connect quickly do not keep those from being served that have connected.
        tokio::task::yield_now().await;
    }
}

/// Serves one connection until it is closed.
async fn serve_connection(
    accepted: NewConnection,
    is_reserved: bool,
    routes: Router,
    pages: Arc<StatusPages>,
) {
    let peer = accepted.peer.clone();
    let client = Client {
        peer: &peer,
        interface: Interface::Http,
        token: None,
    };
    if accepted.is_of_other_user() {
        return pages.refusals.refused(&client, OTHER_USER);
    }
    if let Err(error) = try_serve(accepted, is_reserved, routes, &pages).await {
        tracing::debug!(%peer, %error, "closed an HTTP connection");
        if let Some(reason) = error.downcast_ref().and_then(certificate_error) {
            pages.refusals.refused(&client, &reason);
        }
    }
}

async fn try_serve(
    accepted: NewConnection,
    is_reserved: bool,
    routes: Router,
    pages: &StatusPages,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let since = accepted.since;
    let (stream, peer) = accepted.open(pages.limits.request).await?;
    let connection = Connection { peer, is_reserved };
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        routes.call(request)
    });
    let stream = TokioIo::new(TimedStream::new(stream, pages.limits, since));
    http1::Builder::new()
        .keep_alive(!is_reserved)
        .max_buf_size(MAX_HEAD)
        .serve_connection(stream, service)
        .await?;
    Ok(())
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
