//! The binary as a child process.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::tail;
use super::wait_until;

/// A child. It does not outlive the test.
pub(crate) struct Pseidon {
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// What a process has resident, in bytes, without the pages of files: those of a debug build's own
/// binary are many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: u64,
    /// At most so far. The pages of files are taken to have been as many as now.
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

    /// What it has resident; `None` when it is gone.
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

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Kills it (SIGKILL) and waits until it is gone. One that has ended by itself must have done
    /// so well.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
        }
        self.died(20);
    }

    /// Freezes it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The state follows the name, which is in parentheses and may hold anything.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    }

    /// Wakes it.
    pub(crate) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to stop (SIGTERM), once it listens: a process that has just been started would die
    /// of it.
    pub(crate) fn terminate(&self) {
        wait_until("it listens to signals", 20, || self.is_listening());
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

    /// Asks it to stop, and it has to do so well.
    pub(crate) fn stop(&mut self, seconds: u64) {
        self.terminate();
        self.expect_exit(0, seconds);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        // A child that has just ended is still there until it is waited for, so this cannot meet
        // another process.
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self, seconds: u64) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if !self.is_running() {
                return self.status.expect("it has ended");
            }
            assert!(
                Instant::now() < deadline,
                "it still runs after {seconds} s:\n{}",
                tail(&self.log)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, with this exit code.
    pub(crate) fn expect_exit(&mut self, code: i32, seconds: u64) {
        let status = self.wait_exit(seconds);
        assert_eq!(
            status.code(),
            Some(code),
            "it ended with {status}:\n{}",
            tail(&self.log)
        );
    }

    /// Waits for its death at a fail point, or a good end before it came there. Gives whether it
    /// died.
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

    /// Waits for its death at a fail point.
    pub(crate) fn expect_death(&mut self, step: &str, seconds: u64) {
        let status = self.wait_exit(seconds);
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(
            killed,
            "it was to die at `{step}` but ended with {status}:\n{}",
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
