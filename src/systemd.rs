//! What systemd wants to hear of a service with `Type=notify`: that it has begun, how it is getting
//! on, that it is alive, that it ends.
//!
//! The protocol is sd_notify(3): lines `NAME=value` in a datagram to the socket that the
//! environment variable `NOTIFY_SOCKET` names. Where it names none nobody wants to hear anything,
//! and nothing happens. Telling never keeps the process from its work: a message that cannot be
//! sent is lost.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use indicatif::HumanCount;

use crate::throughput::Meter;

/// How often the status line is told anew, where the watchdog does not want to be fed more often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What systemd has asked for, in the environment of the process.
#[derive(Debug)]
pub(crate) struct Asked {
    address: SocketAddr,
    /// How long the watchdog waits for a sign of life, if it is on.
    watchdog: Option<Duration>,
}

impl Asked {
    /// What the environment of this process says; `None` where nobody asks.
    pub(crate) fn from_environment() -> Option<Asked> {
        Asked::from(|name| std::env::var_os(name), std::process::id())
    }

    /// `WATCHDOG_USEC` counts only where `WATCHDOG_PID` names this process or nobody, see
    /// sd_watchdog_enabled(3).
    fn from(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Option<Asked> {
        let socket = variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        let address = match address(&socket) {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(%error, "systemd cannot be notified: NOTIFY_SOCKET names no socket");
                return None;
            }
        };
        let number =
            |name| variable(name).and_then(|value| value.to_str()?.trim().parse::<u64>().ok());
        let is_meant = variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(process));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|micros| is_meant && *micros > 0)
            .map(Duration::from_micros);
        Some(Asked { address, watchdog })
    }
}

/// A path, or an abstract name after an `@`.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other(
            "expected a path, or a name that begins with @",
        )),
    }
}

/// What can be told of a service while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Records read since the start.
    pub(crate) records: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// Records that wait to be read.
    pub(crate) lag: i64,
}

/// Tells systemd how the service is getting on, until it is dropped: then it tells that the service
/// ends.
pub(crate) struct Notifying {
    teller: Arc<Teller>,
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifying {
    /// Tells that the service has begun. From now on tells what `progress` says every few seconds,
    /// and feeds the watchdog for as long as `is_alive`: twice in the time that it waits. Both are
    /// called on a thread of their own.
    pub(crate) fn start(
        asked: &Asked,
        is_alive: impl Fn() -> bool + Send + 'static,
        progress: impl Fn() -> Progress + Send + 'static,
    ) -> io::Result<Notifying> {
        let teller = Arc::new(Teller {
            socket: UnixDatagram::unbound()?,
            address: asked.address.clone(),
        });
        // A full socket must not hold us.
        teller.socket.set_nonblocking(true)?;
        teller.tell("READY=1");
        let every = asked
            .watchdog
            .map_or(TELL_EVERY, |watchdog| (watchdog / 2).min(TELL_EVERY));
        let has_watchdog = asked.watchdog.is_some();
        let (end, ended) = bounded::<()>(0);
        let of_thread = teller.clone();
        let work = move || {
            let mut meter = Meter::start();
            loop {
                let status = status(progress(), &mut meter);
                let alive = has_watchdog && is_alive();
                of_thread.tell(&if alive {
                    format!("STATUS={status}\nWATCHDOG=1")
                } else {
                    format!("STATUS={status}")
                });
                if ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("systemd".to_owned())
            .spawn(work)?;
        Ok(Notifying {
            teller,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Tells that the service is about to end. The watchdog is fed until then.
    pub(crate) fn stopping(&self) {
        self.teller.tell("STOPPING=1");
    }
}

impl Drop for Notifying {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.stopping();
    }
}

fn status(progress: Progress, meter: &mut Meter) -> String {
    let now = meter.look(progress.records, progress.bytes);
    format!("{now}, lag {}", HumanCount(progress.lag.max(0) as u64))
}

struct Teller {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Teller {
    fn tell(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::debug!(%error, message, "systemd was not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn asked(variables: &[(&str, &str)]) -> Option<Asked> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Asked::from(|name| variables.get(name).map(OsString::from), 42)
    }

    /// What comes next; the watchdog's time is as short as a test may take.
    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn the_environment_says_what_is_asked_for() {
        let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
        for (variables, watchdog) in [
            (&[socket][..], None),
            (
                &[socket, ("WATCHDOG_USEC", "30000000")],
                Some(Duration::from_secs(30)),
            ),
            (
                &[
                    socket,
                    ("WATCHDOG_USEC", "30000000"),
                    ("WATCHDOG_PID", "42"),
                ],
                Some(Duration::from_secs(30)),
            ),
            (
                &[
                    socket,
                    ("WATCHDOG_USEC", "30000000"),
                    ("WATCHDOG_PID", "43"),
                ],
                None,
            ),
            (
                &[
                    socket,
                    ("WATCHDOG_USEC", "30000000"),
                    ("WATCHDOG_PID", "me"),
                ],
                None,
            ),
            (&[socket, ("WATCHDOG_USEC", "0")], None),
            (&[socket, ("WATCHDOG_USEC", "soon")], None),
        ] {
            assert_eq!(
                asked(variables).unwrap().watchdog,
                watchdog,
                "{variables:?}"
            );
        }
        for nothing in [
            &[][..],
            &[("NOTIFY_SOCKET", "")],
            &[("NOTIFY_SOCKET", "run/notify")],
            &[("WATCHDOG_USEC", "1")],
        ] {
            assert!(asked(nothing).is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn a_service_tells_from_its_beginning_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("pseidon-test-{}", std::process::id());
        let by_path = (
            UnixDatagram::bind(&path).unwrap(),
            path.to_str().unwrap().to_owned(),
        );
        let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let by_name = (
            UnixDatagram::bind_addr(&by_name).unwrap(),
            format!("@{abstract_name}"),
        );
        for (systemd, address) in [by_path, by_name] {
            let asked = asked(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "2000")]).unwrap();
            let alive = Arc::new(AtomicBool::new(true));
            let is_alive = alive.clone();
            let progress = || Progress {
                records: 0,
                bytes: 0,
                lag: 17_000,
            };
            let notifying =
                Notifying::start(&asked, move || is_alive.load(Ordering::SeqCst), progress)
                    .unwrap();
            assert_eq!(next(&systemd), "READY=1", "{address}");
            let fed = "STATUS=0 records/s, 0.0 MB/s, lag 17,000\nWATCHDOG=1";
            assert_eq!(
                (next(&systemd).as_str(), next(&systemd).as_str()),
                (fed, fed)
            );

            alive.store(false, Ordering::SeqCst);
            // Those on their way say that it is alive; then none does.
            while next(&systemd).contains("WATCHDOG") {}
            assert!((0..3).all(|_| !next(&systemd).contains("WATCHDOG")));

            let drain = std::thread::spawn(move || {
                let mut message = String::new();
                while message != "STOPPING=1" {
                    message = next(&systemd);
                }
            });
            drop(notifying);
            drain.join().unwrap();
        }
    }

    #[test]
    fn nobody_listening_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nobody");
        let asked = asked(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        drop(Notifying::start(&asked, || true, Progress::default).unwrap());
    }
}
