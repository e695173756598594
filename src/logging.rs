//! Log output on standard error. The progress line is hidden while a log line is written.

use std::io::{self, Write};

use indicatif::ProgressBar;
use pseidon_dsl::printable;
use pseidon_dsl::printable::printable_json;
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
        .with_writer(Stderr { json, bar })
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
    json: bool,
    bar: Option<ProgressBar>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = StderrWriter<'a>;

    fn make_writer(&'a self) -> StderrWriter<'a> {
        StderrWriter {
            json: self.json,
            bar: self.bar.as_ref(),
        }
    }
}

struct StderrWriter<'a> {
    json: bool,
    bar: Option<&'a ProgressBar>,
}

/// An event as it is written. Whatever its fields contain, such as the name of a file, it stays one
/// line and changes nothing in a terminal but its colors: the formatter escapes ESC in fields.
fn one_line(event: &[u8], json: bool) -> String {
    let text = String::from_utf8_lossy(event);
    if json {
        return printable_json(&text).into_owned();
    }
    let colored: Vec<_> = text.trim_end().split('\u{1b}').map(printable).collect();
    colored.join("\u{1b}") + "\n"
}

impl Write for StderrWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = one_line(bytes, self.json);
        // A run continues when its log lines cannot be written: a closed pipe, a full disk.
        let _ = match self.bar {
            Some(bar) => bar.suspend(|| io::stderr().write_all(line.as_bytes())),
            None => io::stderr().write_all(line.as_bytes()),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_no_sequences_but_colors() {
        let event = "\u{1b}[33m WARN\u{1b}[0m path=a\nb\u{9b}2J\u{7}\u{202e}\n";
        let shown = "\u{1b}[33m WARN\u{1b}[0m path=a\\nb\\u{9b}2J\\u{7}\\u{202e}\n";
        assert_eq!(one_line(event.as_bytes(), false), shown);
        let event = "{\"path\":\"a\\nb\u{9b}\"}\n";
        let shown = "{\"path\":\"a\\nb\\u009b\"}\n";
        assert_eq!(one_line(event.as_bytes(), true), shown);
    }
}
