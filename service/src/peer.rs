//! The client at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

/// A client, as it is known from its connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) address: SocketAddr,
    /// The fingerprint of the certificate that it has presented, if it had to.
    pub(crate) certificate: Option<Arc<str>>,
}
