//! librdkafka's messages as log lines, limited so that a broker that is down does not flood the
//! log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long lines of a kind are hidden after one of them was shown.
const QUIET: Duration = Duration::from_secs(30);
/// syslog's levels, which librdkafka uses.
const LOG_WARNING: i32 = 4;
const LOG_INFO: i32 = 6;

/// The log output of one client.
#[derive(Debug)]
pub(crate) struct ClientLogs {
    /// The stage that the client belongs to.
    stage: String,
    shown: Mutex<HashMap<String, LastShown>>,
}

/// The last line of a kind that was shown.
#[derive(Debug)]
struct LastShown {
    at: Instant,
    /// The number of lines hidden since then.
    hidden: u64,
}

impl ClientLogs {
    /// The log output of a client of this stage.
    pub(crate) fn new(stage: &str) -> ClientLogs {
        ClientLogs {
            stage: stage.to_owned(),
            shown: Mutex::new(HashMap::new()),
        }
    }

    /// Logs a line of librdkafka: `level` as in syslog, `facility` a short word such as `FAIL`.
    pub(crate) fn line(&self, level: i32, facility: &str, line: &str) {
        // "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Connect failed": the name of
        // the thread is of no use to the reader.
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

    /// Logs an error that concerns the whole client. librdkafka also reports every connection that
    /// a broker closes, which is normal, except for the first request.
    pub(crate) fn client_error(&self, kind: &str, text: &str) {
        if is_refused_greeting(text) {
            self.warn(
                "GREETING",
                &format!(
                    "{text}: the broker may expect another protocol; set `:tls {{}}` if it expects \
                     TLS"
                ),
            );
        } else if text.contains(DISCONNECTED) {
            tracing::debug!(stage = self.stage, "kafka: {text}");
        } else {
            self.warn(kind, text);
        }
    }

    /// Logs a warning, unless one of its kind was shown within [`QUIET`].
    pub(crate) fn warn(&self, kind: &str, line: &str) {
        let stage = self.stage.as_str();
        match self.admit(kind, Instant::now()) {
            Some(0) => tracing::warn!(stage, "kafka: {line}"),
            Some(hidden) => tracing::warn!(stage, hidden, "kafka: {line}"),
            None => tracing::debug!(stage, "kafka: {line}"),
        }
    }

    /// Returns the number of lines of this kind that were hidden before this one, or `None` if this
    /// one is to be hidden too.
    fn admit(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut shown = self.shown.lock();
        match shown.get_mut(kind) {
            Some(last) if now.duration_since(last.at) < QUIET => {
                last.hidden += 1;
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.hidden))
            }
            None => {
                shown.insert(kind.to_owned(), LastShown { at: now, hidden: 0 });
                Some(0)
            }
        }
    }
}

/// librdkafka's word for a connection that a broker has closed.
const DISCONNECTED: &str = "Disconnected";

/// Whether the broker closed the connection on the version request, which is the first of every
/// connection. A listener that expects TLS does so when it receives plain text.
fn is_refused_greeting(text: &str) -> bool {
    text.contains(DISCONNECTED) && text.contains("in state APIVERSION_QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_closed_on_its_first_request_is_recognized() {
        assert!(is_refused_greeting(
            "a:9093/bootstrap: Disconnected: connection closed by peer (after 1ms in state \
             APIVERSION_QUERY)"
        ));
        assert!(!is_refused_greeting(
            "a:9092/1: Disconnected (after 600012ms in state UP)"
        ));
    }

    #[test]
    fn repeated_lines_are_hidden_and_counted() {
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
