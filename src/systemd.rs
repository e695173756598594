//! Notifications to systemd for a service with `Type=notify`: that it is ready, its status, that it
//! is alive, that it stops.
//!
//! The protocol is sd_notify(3): lines `NAME=value` in a datagram to the socket that the
//! environment variable `NOTIFY_SOCKET` names. Without the variable, nothing is sent. Notifications
//! never block the process: a message that cannot be sent is lost.

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

/// How often the status is sent, unless the watchdog demands a shorter interval.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The socket of systemd and the watchdog interval, from the environment of the process.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    address: SocketAddr,
    /// The time within which the watchdog expects a message; `None` if it is disabled.
    watchdog: Option<Duration>,
}

impl NotifySocket {
    /// Reads the environment of this process; `None` if it was not started by systemd.
    pub(crate) fn from_environment() -> Option<NotifySocket> {
        NotifySocket::from(|name| std::env::var_os(name), std::process::id())
    }

    /// `WATCHDOG_USEC` applies only if `WATCHDOG_PID` is this process or is not set, see
    /// sd_watchdog_enabled(3).
    fn from(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Option<NotifySocket> {
        let socket = variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        let address = match address(&socket) {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(%error, "cannot notify systemd: NOTIFY_SOCKET is invalid");
                return None;
            }
        };
        let number =
            |name| variable(name).and_then(|value| value.to_str()?.trim().parse::<u64>().ok());
        let is_for_us = variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(process));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|micros| is_for_us && *micros > 0)
            .map(Duration::from_micros);
        Some(NotifySocket { address, watchdog })
    }
}

/// The address of a socket: a path, or an abstract name after an `@`.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other(
            "expected an absolute path, or a name that starts with @",
        )),
    }
}

/// The progress of a service, which is part of its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceProgress {
    /// Records read since the start.
    pub(crate) records: u64,
    /// The size of these records in bytes.
    pub(crate) bytes: u64,
    /// Records that have not been read yet.
    pub(crate) lag: i64,
}

/// A thread that sends the status to systemd. When it is dropped, systemd is notified that the
/// service stops.
pub(crate) struct Notifier {
    sender: Arc<NotifySender>,
    /// Dropped to stop the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Notifies systemd that the service is ready, and starts the thread. It sends a status from
    /// `progress` every few seconds. While `is_alive` returns true, it also notifies the watchdog,
    /// twice in each of its intervals.
    pub(crate) fn start(
        socket: &NotifySocket,
        is_alive: impl Fn() -> bool + Send + 'static,
        progress: impl Fn() -> ServiceProgress + Send + 'static,
    ) -> io::Result<Notifier> {
        let sender = Arc::new(NotifySender {
            socket: UnixDatagram::unbound()?,
            address: socket.address.clone(),
        });
        // A full socket must not block the process.
        sender.socket.set_nonblocking(true)?;
        sender.send("READY=1");
        let interval = socket.watchdog.map_or(STATUS_INTERVAL, |watchdog| {
            (watchdog / 2).min(STATUS_INTERVAL)
        });
        let has_watchdog = socket.watchdog.is_some();
        let (end, ended) = bounded::<()>(0);
        let of_thread = sender.clone();
        let work = move || {
            let mut meter = Meter::start();
            loop {
                let status = status(progress(), &mut meter);
                let alive = has_watchdog && is_alive();
                of_thread.send(&if alive {
                    format!("STATUS={status}\nWATCHDOG=1")
                } else {
                    format!("STATUS={status}")
                });
                if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("systemd".to_owned())
            .spawn(work)?;
        Ok(Notifier {
            sender,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Notifies systemd that the service stops.
    pub(crate) fn stopping(&self) {
        self.sender.send("STOPPING=1");
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.stopping();
    }
}

/// The status line: throughput since the last one, and lag.
fn status(progress: ServiceProgress, meter: &mut Meter) -> String {
    let now = meter.sample(progress.records, progress.bytes);
    format!("{now}, lag {}", HumanCount(progress.lag.max(0) as u64))
}

struct NotifySender {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl NotifySender {
    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::debug!(%error, message, "cannot notify systemd");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn socket_from(variables: &[(&str, &str)]) -> Option<NotifySocket> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        NotifySocket::from(|name| variables.get(name).map(OsString::from), 42)
    }

    /// Receives the next message.
    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn the_environment_configures_the_socket_and_the_watchdog() {
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
                socket_from(variables).unwrap().watchdog,
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
            assert!(socket_from(nothing).is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn a_service_notifies_from_its_start_to_its_end() {
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
            let socket =
                socket_from(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "2000")]).unwrap();
            let alive = Arc::new(AtomicBool::new(true));
            let is_alive = alive.clone();
            let progress = || ServiceProgress {
                records: 0,
                bytes: 0,
                lag: 17_000,
            };
            let notifier =
                Notifier::start(&socket, move || is_alive.load(Ordering::SeqCst), progress)
                    .unwrap();
            assert_eq!(next(&systemd), "READY=1", "{address}");
            let fed = "STATUS=0 records/s, 0.0 MB/s, lag 17,000\nWATCHDOG=1";
            assert_eq!(
                (next(&systemd).as_str(), next(&systemd).as_str()),
                (fed, fed)
            );

            alive.store(false, Ordering::SeqCst);
            // Messages that were already sent still have WATCHDOG=1; later ones do not.
            while next(&systemd).contains("WATCHDOG") {}
            assert!((0..3).all(|_| !next(&systemd).contains("WATCHDOG")));

            let drain = std::thread::spawn(move || {
                let mut message = String::new();
                while message != "STOPPING=1" {
                    message = next(&systemd);
                }
            });
            drop(notifier);
            drain.join().unwrap();
        }
    }

    #[test]
    fn a_socket_without_a_listener_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unbound");
        let socket = socket_from(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        drop(Notifier::start(&socket, || true, ServiceProgress::default).unwrap());
    }
}
