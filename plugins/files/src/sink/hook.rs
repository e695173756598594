//! The hook that is called for each file in its final place: a program or an HTTP request.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_dsl::conceal::conceal;
use pseidon_plugin::options::kinds::Properties;
use pseidon_plugin::secret::{Secret, hosts_of_urls};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::lane_name;

/// How often to check whether a command has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How many bytes of a failed command's standard error are read, counted from its end.
const MAX_READ_BYTES: u64 = 64 << 10;
/// How many of them are reported.
const MAX_REPORTED_BYTES: usize = 500;

/// The variables of this process that a program gets, and those that begin with `LC_`.
const KEPT_VARIABLES: &[&str] = &["PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "TMPDIR"];

/// The hook of a sink.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    /// The program to run, or the URL to request.
    pub(super) target: HookTarget,
    /// The time limit of a call.
    pub(super) timeout: Duration,
    /// The working directory of a program, an absolute path.
    pub(super) folder: PathBuf,
}

/// What a hook calls.
#[derive(Clone, Debug)]
pub(super) enum HookTarget {
    /// A program.
    Command(HookCommand),
    /// A POST to this URL.
    Post(Secret),
}

/// A program that a hook runs.
#[derive(Clone, Debug)]
pub(super) struct HookCommand {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    /// The variables that it gets in addition to [`KEPT_VARIABLES`].
    pub(super) env: Properties,
}

impl HookCommand {
    /// The command, which runs in a folder with a new environment: that of this process has
    /// passwords.
    fn to_command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(&self.args).current_dir(folder).env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
        command.envs(self.env.0.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn is_kept(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"LC_") || KEPT_VARIABLES.iter().any(|kept| kept.as_bytes() == name)
}

impl Hook {
    /// A digest of what is called.
    pub(super) fn digest(&self) -> String {
        // The length of each part keeps two calls with the same letters apart.
        let parts: Vec<&str> = match &self.target {
            HookTarget::Post(url) => vec![url.expose()],
            HookTarget::Command(command) => {
                let args = command.args.iter().map(String::as_str);
                let env = command.env.0.iter();
                let env = env.flat_map(|(name, value)| [name.as_str(), value.as_str()]);
                [command.program.as_str(), "args"]
                    .into_iter()
                    .chain(args)
                    .chain(["env"])
                    .chain(env)
                    .collect()
            }
        };
        let text: String = parts
            .iter()
            .map(|part| format!("{}:{part}", part.len()))
            .collect();
        lane_name::digest(&text, 32)
    }

    /// Calls the hook with this JSON object, which describes the file `path`. Kills a program and
    /// fails as soon as `is_over` returns true. An error is a message without a final period.
    pub(super) fn call(
        &self,
        path: &str,
        json: &str,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), Reason> {
        match &self.target {
            HookTarget::Post(url) => self.post(url.expose(), json),
            HookTarget::Command(run) => {
                // A relative path is resolved against the working directory; a bare name is
                // searched for in PATH.
                let program = if run.program.contains('/') {
                    self.folder.join(&run.program)
                } else {
                    PathBuf::from(&run.program)
                };
                let mut command = run.to_command(&program, &self.folder);
                command.env("PSEIDON_PATH", path).process_group(0);
                self.run(command, json, is_over)
                    .map_err(|error| Reason::caused_by(program.display().to_string(), error))?
            }
        }
    }

    fn run(
        &self,
        mut command: Command,
        json: &str,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<Result<(), Reason>> {
        // Files instead of pipes, which would have to be filled and drained meanwhile.
        let mut input = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
        input.write_all(json.as_bytes())?;
        input.rewind()?;
        let mut stderr_file = File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?);
        let child = command
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(stderr_file.try_clone()?)
            .spawn()?;
        let Some(status) = self.wait(child, is_over)? else {
            return Ok(Err(format!("it took longer than {:?}", self.timeout).into()));
        };
        if status.success() {
            return Ok(Ok(()));
        }
        let end = stderr_file.seek(io::SeekFrom::End(0))?;
        stderr_file.seek(io::SeekFrom::Start(end.saturating_sub(MAX_READ_BYTES)))?;
        let mut stderr = Vec::new();
        stderr_file.read_to_end(&mut stderr)?;
        let reason = format!("{status}: {}", reported(&stderr));
        Ok(Err(reason.trim_end_matches([':', ' ']).to_owned().into()))
    }

    /// The program's exit status; `None` if it had to be killed.
    fn wait(&self, mut child: Child, is_over: &dyn Fn() -> bool) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if is_over() || Instant::now() >= deadline {
                // With all processes that it has started.
                let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                group.map_or(Ok(()), |group| kill_process_group(group, Signal::KILL))?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn post(&self, url: &str, json: &str) -> Result<(), Reason> {
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
            .map_err(|error| Reason::caused_by(hosts_of_urls(url).into_owned(), error))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("{} answered {status}", hosts_of_urls(url)).into()),
        }
    }
}

/// The end of what a program has written. It can have repeated its arguments and variables: they are
/// concealed before the text is cut, since a part of one would not be found any more.
fn reported(stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    let stderr = conceal(stderr.trim());
    let start = stderr.len().saturating_sub(MAX_REPORTED_BYTES);
    stderr[stderr.ceil_char_boundary(start)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_repeats_is_concealed_before_it_is_cut() {
        let value = "hook-s3cret".repeat(30);
        pseidon_dsl::conceal::register("${env:HOOK}", &value).expect("it is short");
        let stderr = format!("{value}{}", "x".repeat(480));
        let shown = reported(stderr.as_bytes());
        assert_eq!(shown, format!("${{env:HOOK}}{}", "x".repeat(480)));
        assert_eq!(reported("é".repeat(400).as_bytes()), "é".repeat(250));
    }
}
