//! What is looked at before a record is parsed.
//!
//! sonic-rs skips values fast, but recursively without a limit, and without a look at the digits of
//! a `\u` escape. Both are made up for here, with searches that cost next to nothing where there is
//! nothing to find.

use std::{panic, thread};

/// How deep objects and lists may be nested, as in serde_json.
const MAX_DEPTH: usize = 128;

/// From here on a record is parsed on a stack of its own: unoptimized, the parser takes up to 64
/// KiB of it for each level.
const DEEP: usize = 16;

/// The stack for the deepest records.
const DEEP_STACK: usize = MAX_DEPTH * (128 << 10);

/// A record's text that is safe to parse through [`Checked::parse`].
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    text: &'a str,
    deep: bool,
}

impl<'a> Checked<'a> {
    /// The record's text, if its nesting and its escapes are sound.
    pub(super) fn new(record: &'a [u8]) -> Result<Checked<'a>, String> {
        let text =
            simdutf8::basic::from_utf8(record).map_err(|_| "the record is not utf-8".to_owned())?;
        if let Some(at) = bad_escape(record) {
            return Err(format!(
                "the record is not json: invalid \\u escape at byte {at}"
            ));
        }
        let depth = if openings(record) <= DEEP {
            0
        } else {
            depth(record)
        };
        if depth > MAX_DEPTH {
            return Err(format!("the record is nested more than {MAX_DEPTH} deep"));
        }
        Ok(Checked {
            text,
            deep: depth > DEEP,
        })
    }

    /// The text.
    pub(super) fn text(self) -> &'a str {
        self.text
    }

    /// Parses it with `parse`, where there is stack enough for it.
    pub(super) fn parse<T: Send>(
        self,
        parse: impl FnOnce(&'a str) -> sonic_rs::Result<T> + Send,
    ) -> Result<T, String> {
        let run = || parse(self.text).map_err(|error| reason(&error, self.text));
        if !self.deep {
            return run();
        }
        thread::scope(|scope| {
            let parser = thread::Builder::new()
                .stack_size(DEEP_STACK)
                .spawn_scoped(scope, run);
            let parser =
                parser.map_err(|error| format!("no thread for a deeply nested record: {error}"))?;
            parser
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }
}

/// A parser's error as a short reason.
fn reason(error: &sonic_rs::Error, text: &str) -> String {
    if error.is_eof() || error.offset() >= text.len() {
        return "the record is not json: it ends too early".to_owned();
    }
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    format!(
        "the record is not json at byte {}: {}",
        error.offset(),
        what.to_lowercase()
    )
}

/// How many `{` and `[` there are, in texts too.
fn openings(record: &[u8]) -> usize {
    // `{` differs from `[` in one bit. The compiler makes vector code of this.
    record
        .iter()
        .map(|byte| usize::from(byte & 0xdf == b'['))
        .sum()
}

/// How deep objects and lists are nested.
fn depth(record: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_text = false;
    let mut bytes = record.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                bytes.next();
            }
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Where there is a `\u` without four hexadecimal digits. JSON has backslashes in texts only;
/// others are the parser's to find.
fn bad_escape(record: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'\\', record.get(from..)?) {
        let at = from + found;
        let unicode = record.get(at + 1) == Some(&b'u');
        if unicode
            && !record
                .get(at + 2..at + 6)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        {
            return Some(at);
        }
        from = at + 2;
    }
    None
}
