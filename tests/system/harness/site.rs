//! The folder of a test. It is removed when the test passes; when the test fails, it is kept, and
//! the ends of its logs are printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Pseidon, Random};

/// How many lines of how many logs are printed when a test fails.
const LINES_SHOWN: usize = 25;
const LOGS_SHOWN: usize = 4;

/// A folder with pipeline files, output and logs.
pub(crate) struct Site {
    /// A name that is unique among all tests and runs, for topics, groups and namespaces.
    pub(crate) name: String,
    /// The test's randomness.
    pub(crate) random: Random,
    dir: PathBuf,
    logs: AtomicU32,
}

impl Site {
    /// Creates the folder for the test of this name.
    pub(crate) fn new(test: &str) -> Site {
        let random = Random::new(test);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64 / 1000);
        let name = format!("{test}-{:x}-{now:x}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("pseidon-{test}-"))
            .tempdir()
            .expect("a temporary folder")
            .keep();
        fs::create_dir(dir.join("logs")).expect("a folder for logs");
        Site {
            name,
            random,
            dir,
            logs: AtomicU32::new(0),
        }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file, creates its folders, and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folders can be made");
        fs::write(&path, content).expect("the file can be written");
        path
    }

    /// The command that runs a pipeline file, to be passed to [`Site::start`].
    pub(crate) fn command(&self, pipeline: &str) -> Command {
        let mut command = self.pseidon();
        command.arg("run").arg(self.path(pipeline));
        command
    }

    /// Like [`Site::command`] for a user to whom permissions apply.
    pub(crate) fn unprivileged(&self, pipeline: &str) -> Command {
        self.without_privileges(self.command(pipeline))
    }

    /// The command for a user to whom permissions apply. They do not apply to root.
    pub(crate) fn without_privileges(&self, command: Command) -> Command {
        if !rustix::process::geteuid().is_root() {
            return command;
        }
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(&self.dir);
        wrapped
    }

    /// The command for the binary without arguments, in the folder.
    pub(crate) fn pseidon(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pseidon"));
        command.current_dir(&self.dir).env_remove("PSEIDON_FAIL");
        command
    }

    /// Starts a command from [`Site::command`] or [`Site::pseidon`]. Its log output is written to a
    /// new file.
    pub(crate) fn start(&self, mut command: Command) -> Pseidon {
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("logs/{number:03}.log"));
        let stderr = fs::File::create(&log).expect("a log file");
        command.stderr(stderr).stdin(Stdio::null());
        Pseidon::start(command, log)
    }

    /// Starts a run of a pipeline file.
    pub(crate) fn run(&self, pipeline: &str) -> Pseidon {
        self.start(self.command(pipeline))
    }

    /// Runs a pipeline file to its end, and expects exit code 0.
    pub(crate) fn finish(&self, pipeline: &str, seconds: u64) -> Pseidon {
        let mut pseidon = self.run(pipeline);
        pseidon.expect_exit(0, seconds);
        pseidon
    }

    fn show_logs(&self) {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.path("logs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        logs.sort();
        for log in logs.iter().skip(logs.len().saturating_sub(LOGS_SHOWN)) {
            println!("--- the end of {}", log.display());
            println!("{}", tail(log));
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
            println!("--- the folder is kept: {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
