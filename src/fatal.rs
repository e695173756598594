//! The file of fatal errors (`:fatal-errors`): one line for each time that a process exited because
//! of an error, for a monitoring system.
//!
//! It is usually in `/tmp`, where any user can create a file in its place. Therefore symbolic links
//! are not followed, and only a regular file is written to.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use chrono::{SecondsFormat, Utc};
use pseidon_dsl::printable;
use pseidon_expr::panics;

/// The mode of the file: a reason may quote a value of a record.
const MODE: u32 = 0o640;

/// Appends a line with the time, the pipeline and the reason. If that fails, a warning is logged.
pub(crate) fn append(path: &Path, pipeline: &str, reason: &str) {
    if let Err(error) = try_append(path, pipeline, reason) {
        tracing::warn!(path = %path.display(), %error, "cannot append to the file of fatal errors");
    }
}

/// Logs panics, with a backtrace if `RUST_BACKTRACE` is set. Panics that are handled as invalid
/// records are not errors; the records are reported instead.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        if panics::is_expected() {
            tracing::debug!(%panic, "panic while processing records; retrying in smaller parts");
            return;
        }
        panics::note_location(panic);
        let thread = thread::current();
        let (thread, message) = (
            thread.name().unwrap_or("?"),
            panics::message(panic.payload()),
        );
        let place = panic.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(
            thread,
            message,
            place,
            backtrace,
            "panic: this is a bug; please report it with this message (see CONTRIBUTING.md)"
        );
    }));
}

/// Appends every panic that is not handled to the file of fatal errors, before it is logged.
pub(crate) fn append_panics(path: PathBuf, pipeline: String) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panics::is_expected() {
            append(&path, &pipeline, &panic.to_string());
        }
        report(panic);
    }));
}

fn try_append(path: &Path, pipeline: &str, reason: &str) -> io::Result<()> {
    let mut file = open(path)?;
    // In one write: several processes may share the file.
    file.write_all(
        line(
            &Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            pipeline,
            reason,
        )
        .as_bytes(),
    )
}

/// Opens the file for appending, or creates it with [`MODE`]. A symbolic link is an error. Without
/// `O_NONBLOCK`, a pipe without a reader would block.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(flags)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if found.len() == 0 {
        // A monitoring system of the group reads it, whatever the umask of the process is.
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
    Ok(file)
}

/// The line for an error. White space in the reason, such as line breaks, becomes single spaces;
/// other control characters are escaped.
fn line(time: &str, pipeline: &str, reason: &str) -> String {
    let words: Vec<_> = reason.split_whitespace().collect();
    format!("{time} {pipeline} {}\n", printable(&words.join(" ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_line_has_the_time_the_pipeline_and_the_reason() {
        assert_eq!(
            line("2026-01-31T00:00:00.000Z", "etl", "it\n  is\r\nso\u{1b}[2J"),
            "2026-01-31T00:00:00.000Z etl it is so\\u{1b}[2J\n"
        );
    }

    #[test]
    fn lines_are_appended_to_a_file_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fatalerrors");
        append(&path, "etl", "one");
        append(&path, "etl", "two");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .collect();
        assert_eq!(
            lines.iter().map(|(_, rest)| *rest).collect::<Vec<_>>(),
            ["etl one", "etl two"]
        );
        for (time, _) in lines {
            assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        }
        assert_eq!(
            std::fs::metadata(&path).unwrap().mode() & 0o7137,
            0,
            "only the owner may write to it, and the group may read it"
        );
    }

    #[test]
    fn only_a_regular_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        let [link, dangling, socket] =
            ["link", "dangling", "socket"].map(|name| folder.path().join(name));
        symlink(&victim, &link).unwrap();
        symlink(folder.path().join("new"), &dangling).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [
            &link,
            &dangling,
            &socket,
            &folder.path().to_owned(),
            &folder.path().join("no/such/folder"),
            &"/dev/null".into(),
        ] {
            assert!(
                try_append(path, "etl", "reason").is_err(),
                "{}",
                path.display()
            );
            append(path, "etl", "only logs a warning");
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
        assert!(!folder.path().join("new").exists());
    }
}
