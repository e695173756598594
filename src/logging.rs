//! Log output on standard error. The progress line is hidden while a log line is written.

use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging. `filter` is a level or a list as in `RUST_LOG`; an error says why it is invalid.
/// Lines are colored on a terminal unless `NO_COLOR` is set.
pub(crate) fn start(filter: &str, json: bool, bar: Option<ProgressBar>) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log: {error}"))?;
    let color =
        io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr { bar })
        .log_internal_errors(false)
        .with_target(false);
    if json {
        builder.json().flatten_event(true).init()
    } else {
        builder.with_ansi(color).init()
    }
    Ok(())
}

/// Standard error, with the progress line hidden while a line is written.
struct Stderr {
    bar: Option<ProgressBar>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = StderrWriter<'a>;

    fn make_writer(&'a self) -> StderrWriter<'a> {
        StderrWriter {
            bar: self.bar.as_ref(),
        }
    }
}

struct StderrWriter<'a> {
    bar: Option<&'a ProgressBar>,
}

impl Write for StderrWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A run continues when its log lines cannot be written: a closed pipe, a full disk.
        let _ = match self.bar {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes)),
            None => io::stderr().write_all(bytes),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
