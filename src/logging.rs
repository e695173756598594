//! Log output on standard error. The progress line is hidden while a log line is written.
//!
//! Whatever a field contains, such as the name of a file, a line stays one line, changes nothing in
//! a terminal but its colors, and has no value that was filled in. The fields of a plain line are
//! changed one by one, since time, level and names of fields stay as they are; those of JSON in the
//! text of the line, since its formatter cannot be extended.

use std::fmt;
use std::io::{self, Write};

use indicatif::ProgressBar;
use pseidon_dsl::printable;
use pseidon_dsl::printable::printable_json;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

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
        builder.with_ansi(color).fmt_fields(PlainFields).init()
    }
    Ok(())
}

/// The fields of a plain line: `name=value`, or the message alone.
struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter {
            writer,
            is_first: true,
            written: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.written
    }
}

/// Writes the fields of a line. A text has no value that was filled in; a number is one of the
/// program's, whatever value it is equal to.
struct FieldWriter<'w> {
    writer: Writer<'w>,
    is_first: bool,
    written: fmt::Result,
}

impl FieldWriter<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        if self.written.is_err() {
            return;
        }
        let space = if self.is_first { "" } else { " " };
        self.is_first = false;
        let has_color = self.writer.has_ansi_escapes();
        let writer = &mut self.writer;
        self.written = match (field.name(), has_color) {
            ("message", _) => write!(writer, "{space}{value}"),
            (name, true) => write!(
                writer,
                "{space}\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"
            ),
            (name, false) => write!(writer, "{space}{name}={value}"),
        };
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &printable(&format!("{value:?}")));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value.to_string());
    }
}

/// The fields of a line in JSON whose values are not from outside.
const OWN_WORDS: &[&str] = &["timestamp", "level", "target"];

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

impl Write for StderrWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = match self.json {
            true => printable_json(&text, OWN_WORDS),
            false => text,
        };
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
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written for one event.
    fn written(json: bool, color: bool, log: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let of_writer = lines.clone();
        let writer = move || Lines(of_writer.clone());
        let builder = tracing_subscriber::fmt().without_time().with_target(false);
        if json {
            let subscriber = builder
                .json()
                .flatten_event(true)
                .with_writer(writer)
                .finish();
            tracing::subscriber::with_default(subscriber, log);
        } else {
            let builder = builder.with_ansi(color).fmt_fields(PlainFields);
            tracing::subscriber::with_default(builder.with_writer(writer).finish(), log);
        }
        let bytes = lines.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_with_no_sequences_but_colors() {
        let event = || {
            let error = io::Error::other("a\nb\u{9b}2J\u{7}\u{202e}");
            tracing::warn!(path = "a\n\u{1b}[2J", n = 1, %error, "is\u{1b}so");
        };
        assert_eq!(
            written(false, false, event),
            " WARN is\\u{1b}so path=\"a\\n\\u{1b}[2J\" n=1 error=a\\nb\\u{9b}2J\\u{7}\\u{202e}\n"
        );
        let colored = written(false, true, event);
        assert!(
            colored.starts_with("\u{1b}[33m WARN\u{1b}[0m is\\u{1b}so \u{1b}[3mpath\u{1b}[0m"),
            "{colored:?}"
        );
        let json = written(true, false, event);
        assert!(json.contains("\"path\":\"a\\n\\u001b[2J\""), "{json}");
    }

    #[test]
    fn a_value_that_was_filled_in_is_in_no_field() {
        pseidon_dsl::conceal::register("${env:LOG_PW}", "log-s3cret").expect("it is short");
        pseidon_dsl::conceal::register("${env:LOG_WORD}", "message").expect("it is short");
        pseidon_dsl::conceal::register("${env:LOG_PIN}", "271828").expect("it is short");
        let event = || {
            tracing::warn!(
                url = "http://log-s3cret@h",
                pin = "271828",
                number = 271_828,
                "cannot reach log-s3cret: message"
            )
        };
        assert_eq!(
            written(false, false, event),
            " WARN cannot reach ${env:LOG_PW}: ${env:LOG_WORD} url=\"http://${env:LOG_PW}@h\" \
             pin=\"${env:LOG_PIN}\" number=271828\n"
        );
        let json = r#"{"level":"message","target":"message","message":"no log-s3cret"}"#;
        assert_eq!(
            printable_json(json, OWN_WORDS),
            r#"{"level":"message","target":"message","message":"no ${env:LOG_PW}"}"#
        );
    }
}
