//! What clients of the service may use: how many connections, and for how long they may keep the
//! service waiting.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::listener::Listener;

/// The limits of the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most simultaneous HTTP connections that every endpoint is served on.
    pub(crate) connections: usize,
    /// How many more HTTP connections there may be. On these, only `/live` and `/ready` are served.
    pub(crate) reserved: usize,
    /// The most simultaneous connections of the REPL.
    pub(crate) repl_connections: usize,
    /// How long a client may take to send the head of an HTTP request, or its first line or message
    /// to the REPL and its token.
    pub(crate) request: Duration,
    /// How long a connection may be idle between two HTTP requests.
    pub(crate) idle: Duration,
    /// How long a connection of the REPL may be idle between two lines.
    pub(crate) repl_idle: Duration,
    /// How long a client may take to receive an answer.
    pub(crate) answer: Duration,
    /// How long the answer to a wrong token is delayed, so that tokens cannot be guessed quickly.
    pub(crate) wrong_token: Duration,
    /// How long the REPL evaluates an expression.
    pub(crate) evaluation: Duration,
}

impl Limits {
    /// The limits of this process.
    pub(crate) fn of_process() -> Limits {
        Limits::with_descriptors(getrlimit(Resource::Nofile).current)
    }

    /// The limits of what clients connect to. Through a socket, fewer clients are expected, and they
    /// are not kept out by those that use all connections of a port.
    pub(crate) fn of(self, listener: &Listener) -> Limits {
        if !listener.is_local() {
            return self;
        }
        let quarter = |count: usize| (count / 4).max(1);
        Limits {
            connections: quarter(self.connections),
            reserved: quarter(self.reserved),
            repl_connections: quarter(self.repl_connections),
            ..self
        }
    }

    /// The limits of a process that may open this many files; `None` if there is no limit. The
    /// ports use at most an eighth of them, and sockets a quarter of that, so that enough remain for
    /// sources and sinks.
    fn with_descriptors(descriptors: Option<u64>) -> Limits {
        let share = |part: u64, most: usize| {
            let part = descriptors.map_or(u64::MAX, |all| all / part);
            usize::try_from(part).unwrap_or(usize::MAX).clamp(1, most)
        };
        Limits {
            connections: share(16, 64),
            reserved: share(32, 8),
            repl_connections: share(32, 16),
            request: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            repl_idle: Duration::from_secs(15 * 60),
            answer: Duration::from_secs(10),
            wrong_token: Duration::from_millis(200),
            evaluation: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_use_at_most_an_eighth_of_the_descriptors() {
        let counts = |descriptors| {
            let limits = Limits::with_descriptors(descriptors);
            [limits.connections, limits.reserved, limits.repl_connections]
        };
        assert_eq!(counts(None), [64, 8, 16]);
        assert_eq!(counts(Some(65_536)), [64, 8, 16]);
        assert_eq!(counts(Some(1024)), [64, 8, 16]);
        assert_eq!(counts(Some(256)), [16, 8, 8]);
        assert_eq!(counts(Some(10)), [1, 1, 1]);
        for descriptors in (64..4096).step_by(7) {
            let all: usize = counts(Some(descriptors)).iter().sum();
            assert!(all as u64 <= descriptors / 8, "{descriptors}: {all}");
        }
    }
}
