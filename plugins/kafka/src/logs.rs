//! What librdkafka says, as log lines; a broker that is down does not fill the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a kind of line is kept quiet after one of it was shown.
const QUIET: Duration = Duration::from_secs(30);
/// syslog's numbers, which librdkafka uses.
const LOG_WARNING: i32 = 4;
const LOG_INFO: i32 = 6;

/// The log of one client.
#[derive(Debug)]
pub(crate) struct ClientLogs {
    /// The stage the client works for.
    stage: String,
    shown: Mutex<HashMap<String, Shown>>,
}

#[derive(Debug)]
struct Shown {
    at: Instant,
    since: u64,
}

impl ClientLogs {
    /// The log of a client of this stage.
    pub(crate) fn new(stage: &str) -> ClientLogs {
        ClientLogs {
            stage: stage.to_owned(),
            shown: Mutex::new(HashMap::new()),
        }
    }

    /// A line of librdkafka: `level` as in syslog, `facility` a short word such as `FAIL`.
    pub(crate) fn line(&self, level: i32, facility: &str, line: &str) {
        // "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Connect failed": the thread
        // is of no use to anybody.
        let line = line.split_once("]: ").map_or(line, |(_, rest)| rest);
        let stage = self.stage.as_str();
        if level <= LOG_WARNING || is_refused_greeting(line) {
            self.client_error(facility, line);
        } else if level <= LOG_INFO {
            tracing::debug!(stage, facility, "{line}");
        } else {
            tracing::trace!(stage, facility, "{line}");
        }
    }

    /// An error that concerns the whole client. librdkafka also reports every connection that a
    /// broker has closed, which is normal, except at the very beginning.
    pub(crate) fn client_error(&self, kind: &str, text: &str) {
        if is_refused_greeting(text) {
            self.warn("GREETING", &format!("{text}: the broker may expect another protocol; say :tls {{}} if it expects TLS"));
        } else if text.contains(DISCONNECTED) {
            tracing::debug!(stage = self.stage, "kafka: {text}");
        } else {
            self.warn(kind, text);
        }
    }

    /// A warning, unless one of its kind was shown a moment ago.
    pub(crate) fn warn(&self, kind: &str, line: &str) {
        let stage = self.stage.as_str();
        match self.admit(kind, Instant::now()) {
            Some(0) => tracing::warn!(stage, "kafka: {line}"),
            Some(hidden) => tracing::warn!(stage, hidden, "kafka: {line}"),
            None => tracing::debug!(stage, "kafka: {line}"),
        }
    }

    /// Whether a line of this kind may be shown now; if so, how many were hidden before it.
    fn admit(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut shown = self.shown.lock();
        match shown.get_mut(kind) {
            Some(last) if now.duration_since(last.at) < QUIET => {
                last.since += 1;
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.since))
            }
            None => {
                shown.insert(kind.to_owned(), Shown { at: now, since: 0 });
                Some(0)
            }
        }
    }
}

/// What librdkafka says of a connection that a broker has closed.
const DISCONNECTED: &str = "Disconnected";

/// Whether the broker has closed the connection when it was asked for its version, the first of all
/// questions. A listener that expects TLS does so with plain text.
fn is_refused_greeting(text: &str) -> bool {
    text.contains(DISCONNECTED) && text.contains("in state APIVERSION_QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_at_once_is_not_a_usual_one() {
        assert!(is_refused_greeting(
            "a:9093/bootstrap: Disconnected: connection closed by peer (after 1ms in state APIVERSION_QUERY)"
        ));
        assert!(!is_refused_greeting(
            "a:9092/1: Disconnected (after 600012ms in state UP)"
        ));
    }

    #[test]
    fn one_line_of_a_kind_is_shown_and_the_hidden_ones_are_counted() {
        let logs = ClientLogs::new("clicks");
        let start = Instant::now();
        assert_eq!(logs.admit("FAIL", start), Some(0));
        assert_eq!(logs.admit("FAIL", start + Duration::from_secs(1)), None);
        assert_eq!(logs.admit("FAIL", start + Duration::from_secs(2)), None);
        assert_eq!(
            logs.admit("CONNWARN", start + Duration::from_secs(2)),
            Some(0)
        );
        assert_eq!(logs.admit("FAIL", start + QUIET), Some(2));
        assert_eq!(logs.admit("FAIL", start + QUIET + QUIET), Some(0));
    }
}
