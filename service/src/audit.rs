//! The audit log: who has controlled the process or looked into it, and whose token was refused.
//!
//! Its lines begin with `audit:`, and have the target `audit`, so that `--log warn,audit=info`
//! keeps them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::peer::Peer;

/// The target of the lines.
const TARGET: &str = "audit";
/// How many characters of the arguments of an action are logged.
const MAX_ARGUMENTS: usize = 200;
/// Refused tokens are logged at most once in this time, so that guesses do not fill the log.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);

/// Why a client of a Unix socket is refused.
pub(crate) const OTHER_USER: &str = "the client is neither the user of the process nor root";

/// The interface that a client uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interface {
    Http,
    Repl,
}

impl Interface {
    fn as_str(self) -> &'static str {
        match self {
            Interface::Http => "http",
            Interface::Repl => "repl",
        }
    }
}

/// Who is named in a line.
pub(crate) struct Client<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) interface: Interface,
    /// The name of the client's token, if it is from a file of tokens.
    pub(crate) token: Option<&'a str>,
}

/// Logs an action and its error, if it has failed.
pub(crate) fn action(client: &Client, action: &str, arguments: &str, error: Option<&str>) {
    let cut: String = arguments.chars().take(MAX_ARGUMENTS).collect();
    tracing::info!(
        target: TARGET,
        peer = %client.peer,
        certificate = client.peer.certificate(),
        token = client.token,
        interface = client.interface.as_str(),
        action,
        arguments = cut.as_str(),
        error,
        "audit: action"
    );
}

/// The log of refused tokens.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Refusals>);

#[derive(Default)]
struct Refusals {
    /// When the next one is logged.
    next: Option<Instant>,
    /// How many were not logged since the last one that was.
    unlogged: u64,
}

impl RefusalLog {
    /// Logs that a request was refused.
    pub(crate) fn refused(&self, client: &Client, reason: &str) {
        if let Some(unlogged) = self.0.lock().count(Instant::now()) {
            tracing::warn!(
                    target: TARGET,
                    peer = %client.peer,
            certificate = client.peer.certificate(),
                    token = client.token,
                    interface = client.interface.as_str(),
                    reason,
                    unlogged,
                    "audit: refused"
                );
        }
    }
}

impl Refusals {
    /// Counts one. If it has to be logged, returns how many were not logged before it.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.unlogged += 1;
            return None;
        }
        self.next = Some(now + REFUSALS_INTERVAL);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_per_second_with_the_number_of_the_others() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let logged: Vec<_> = [0, 1, 500, 999, 1000, 1001, 5000, 6001]
            .map(|millis| refusals.count(at(millis)))
            .to_vec();
        let expected = [Some(0), None, None, None, Some(3), None, Some(1), Some(0)];
        assert_eq!(logged, expected);
    }
}
