//! The client at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A client, as it is known from its connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Through a port.
    Network {
        /// Where it connects from.
        address: SocketAddr,
        /// The fingerprint of the certificate that it has presented, if it had to.
        certificate: Option<Arc<str>>,
    },
    /// Through a Unix socket, where the kernel knows it.
    Local {
        /// Its user.
        uid: u32,
        /// Its process.
        pid: Option<i32>,
    },
}

impl Peer {
    /// Whether the kernel has said who it is.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Peer::Local { .. })
    }

    /// The fingerprint of its certificate, if it has presented one.
    pub(crate) fn certificate(&self) -> Option<&str> {
        match self {
            Peer::Network { certificate, .. } => certificate.as_deref(),
            Peer::Local { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Network { address, .. } => address.fmt(f),
            Peer::Local { uid, pid } => {
                write!(f, "unix:uid={uid}")?;
                pid.map_or(Ok(()), |pid| write!(f, ",pid={pid}"))
            }
        }
    }
}
