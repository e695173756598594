//! The binary as a child process.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::tail;
use super::{BUSY, wait_until};

/// A child process, which is killed when it is dropped.
pub(crate) struct Pseidon {
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// The resident memory of a process in bytes, without the pages of files: a debug build's binary
/// has many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: u64,
    /// The peak so far, assuming that the pages of files were as many as now.
    pub(crate) peak: u64,
}

impl Pseidon {
    pub(super) fn start(mut command: Command, log: PathBuf) -> Pseidon {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Pseidon {
            child,
            log,
            status: None,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory; `None` if it has ended.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
                .map(|kilobytes| kilobytes << 10)
        };
        let of_files = bytes("RssFile:")?;
        Some(Memory {
            now: bytes("VmRSS:")?.saturating_sub(of_files),
            peak: bytes("VmHWM:")?.saturating_sub(of_files),
        })
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()))
            .into_iter()
            .flatten()
            .flatten();
        tasks
            .filter_map(|task| {
                Some(
                    fs::read_to_string(task.path().join("comm"))
                        .ok()?
                        .trim()
                        .to_owned(),
                )
            })
            .collect()
    }

    /// Its log output so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it is running.
    pub(crate) fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Kills it (SIGKILL) and waits for its end. If it has ended by itself, its exit code must be
    /// 0.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
        }
        self.died(20);
    }

    /// Freezes it (SIGSTOP).
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The state follows the name, which is in parentheses and may contain any character.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    }

    /// Resumes it (SIGCONT).
    pub(crate) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGTERM once the process handles it: a process that has just been started would die.
    pub(crate) fn terminate(&self) {
        wait_until("it handles signals", 20, || self.is_listening());
        self.signal(Signal::TERM);
    }

    /// Whether SIGTERM would be handled, or the process is gone.
    pub(crate) fn is_listening(&self) -> bool {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .map(str::trim);
        caught.is_none_or(|mask| {
            u64::from_str_radix(mask, 16)
                .is_ok_and(|mask| mask >> (Signal::TERM.as_raw() - 1) & 1 == 1)
        })
    }

    /// Sends SIGTERM while another instance shares its work. The exit code is 1 if the other one has
    /// taken over what this one had read and not committed.
    pub(crate) fn stop_beside_others(&mut self, seconds: u64) {
        self.terminate();
        let status = self.wait_exit(seconds);
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "it ended with {status}:\n{}",
            tail(&self.log)
        );
    }

    /// Sends SIGTERM to a run that has failed before. The exit code is 1 if it has not yet read
    /// again what it had read, and not committed, before the last failure.
    pub(crate) fn stop_after_failures(&mut self, seconds: u64) {
        self.terminate();
        let code = self.wait_exit(seconds).code();
        let log = self.log();
        let is_behind = log.contains("records that were read before the last failure");
        assert!(
            code == Some(0) || code == Some(1) && is_behind,
            "it ended with {code:?}:\n{}",
            tail(&self.log)
        );
    }

    /// Sends SIGTERM, and expects exit code 0.
    pub(crate) fn stop(&mut self, seconds: u64) {
        self.terminate();
        self.expect_exit(0, seconds);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        // A child keeps its id until it is waited for, so this cannot signal another process.
        kill_process(pid, signal).expect("a child can be signaled");
    }

    /// Waits for its end, [`BUSY`] times as long as it may take on an idle machine.
    pub(crate) fn wait_exit(&mut self, seconds: u64) -> ExitStatus {
        let limit = Duration::from_secs(seconds) * BUSY;
        let began = Instant::now();
        loop {
            if !self.is_running() {
                return self.status.expect("it has ended");
            }
            assert!(
                began.elapsed() < limit,
                "it is still running after {limit:?}:\n{}",
                tail(&self.log)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, and expects this exit code.
    pub(crate) fn expect_exit(&mut self, code: i32, seconds: u64) {
        let status = self.wait_exit(seconds);
        assert_eq!(
            status.code(),
            Some(code),
            "it ended with {status}:\n{}",
            tail(&self.log)
        );
    }

    /// Waits until it is killed at a fail point, or exits with 0 before that. Returns whether it
    /// was killed.
    pub(crate) fn died(&mut self, seconds: u64) -> bool {
        let status = self.wait_exit(seconds);
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(
            killed || status.success(),
            "it ended with {status}:\n{}",
            tail(&self.log)
        );
        killed
    }

    /// Waits until it is killed at a fail point.
    pub(crate) fn expect_death(&mut self, step: &str, seconds: u64) {
        let status = self.wait_exit(seconds);
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(
            killed,
            "expected a kill at `{step}`, but it ended with {status}:\n{}",
            tail(&self.log)
        );
    }
}

impl Drop for Pseidon {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
