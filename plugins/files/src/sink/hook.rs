//! Calling somebody for each file that is in its place.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what a command says about its failure is passed on.
const LONGEST_COMPLAINT: u64 = 500;

/// Who is called.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    /// How.
    pub(super) way: Way,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// The folder in which a program runs, an absolute path.
    pub(super) folder: PathBuf,
}

/// How somebody is called.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// A program with its arguments.
    Command(String, Vec<String>),
    /// A POST to this URL.
    Post(String),
}

impl Hook {
    /// Calls with this JSON object, which is about the file `path`. Gives up when `is_over` says
    /// so. An error is a sentence.
    pub(super) fn call(
        &self,
        path: &str,
        json: &str,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        match &self.way {
            Way::Post(url) => self.post(url, json),
            Way::Command(program, args) => {
                // A relative path is meant from the folder in which it runs; a bare name is looked
                // for in PATH.
                let program = if program.contains('/') {
                    self.folder.join(program)
                } else {
                    PathBuf::from(program)
                };
                let mut command = Command::new(&program);
                command
                    .args(args)
                    .current_dir(&self.folder)
                    .env("PSEIDON_PATH", path)
                    .process_group(0);
                self.run(command, json, is_over)
                    .map_err(|error| format!("{}: {error}", program.display()))?
            }
        }
    }

    fn run(
        &self,
        mut command: Command,
        json: &str,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<Result<(), String>> {
        // Files, and not pipes, which somebody would have to fill and empty meanwhile.
        let mut input = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
        input.write_all(json.as_bytes())?;
        input.rewind()?;
        let mut complaints = File::from(memfd_create("complaints", MemfdFlags::CLOEXEC)?);
        let child = command
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(complaints.try_clone()?)
            .spawn()?;
        let Some(status) = self.wait(child, is_over)? else {
            return Ok(Err(format!("it took longer than {:?}", self.timeout)));
        };
        if status.success() {
            return Ok(Ok(()));
        }
        let end = complaints.seek(io::SeekFrom::End(0))?;
        complaints.seek(io::SeekFrom::Start(end.saturating_sub(LONGEST_COMPLAINT)))?;
        let mut said = Vec::new();
        complaints.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        Ok(Err(format!("{status}: {}", said.trim())
            .trim_end_matches([':', ' '])
            .to_owned()))
    }

    /// How the program ended; `None` if it had to be killed.
    fn wait(&self, mut child: Child, is_over: &dyn Fn() -> bool) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if is_over() || Instant::now() >= deadline {
                // With everything that it has started.
                let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                group.map_or(Ok(()), |group| kill_process_group(group, Signal::KILL))?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn post(&self, url: &str, json: &str) -> Result<(), String> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        let response = agent
            .post(url)
            .content_type("application/json")
            .send(json)
            .map_err(|error| format!("{url}: {error}"))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("{url} answered {status}")),
        }
    }
}
