//! The file of fatal errors: one line for each time that a process ended by itself, for whoever
//! watches over it.
//!
//! It usually lies in `/tmp`, where anybody can put something in its place. So nothing is followed,
//! and nothing is written to that is not a plain file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use pseidon_expr::panics;

/// Appends a line with the time, the pipeline and the reason. What keeps that from being done is
/// only a warning in the log.
pub(crate) fn append(path: &Path, pipeline: &str, reason: &str) {
    if let Err(error) = try_append(path, pipeline, reason) {
        tracing::warn!(path = %path.display(), %error, "the fatal error was not written down");
    }
}

/// From now on a panic that is handled as an error of some records is not reported: the records
/// are.
pub(crate) fn keep_quiet_about_handled_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panics::is_expected() {
            tracing::debug!(%panic, "records that are tried again in smaller parts");
        } else {
            report(panic);
        }
    }));
}

/// Has every panic appended too that is not handled, from now on, before it is reported as it was
/// until now.
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
    // In one piece: several processes may share the file.
    file.write_all(
        line(
            &Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            pipeline,
            reason,
        )
        .as_bytes(),
    )
}

/// Opens the file to append to it; a new one can be read by everybody. A symbolic link is refused.
/// A pipe without a reader would hold us without `O_NONBLOCK`.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

/// A reason may have several lines; the file has one for each error.
fn line(time: &str, pipeline: &str, reason: &str) -> String {
    let words: Vec<_> = reason.split_whitespace().collect();
    format!("{time} {pipeline} {}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_line_has_the_time_the_pipeline_and_the_reason() {
        assert_eq!(
            line("2026-01-31T00:00:00.000Z", "etl", "it\n  is\r\nso"),
            "2026-01-31T00:00:00.000Z etl it is so\n"
        );
    }

    #[test]
    fn lines_are_appended_to_a_file_that_everybody_can_read() {
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
            std::fs::metadata(&path).unwrap().mode() & 0o7133,
            0,
            "nobody else may write to it"
        );
    }

    #[test]
    fn nothing_but_a_file_is_written_to() {
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
            append(path, "etl", "a warning is all that comes of it");
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
        assert!(!folder.path().join("new").exists());
    }
}
