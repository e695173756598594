//! Checks a record before it is parsed.
//!
//! sonic-rs skips values fast, but it recurses without a limit, and it does not check the digits of
//! a `\u` escape. Both are checked here, by searches that cost next to nothing for ordinary
//! records.

use std::{panic, thread};

use super::reasons::unexpected_end;

/// The maximum nesting of objects and lists, as in serde_json.
const MAX_DEPTH: usize = 128;

/// A record nested deeper than this is parsed on a stack of its own: unoptimized, the parser uses
/// up to 64 KiB of stack per level.
const DEEP: usize = 16;

/// The stack size, in bytes, for deeply nested records.
const DEEP_STACK: usize = MAX_DEPTH * (128 << 10);

/// The text of a record that can be parsed safely by [`CheckedRecord::parse`].
#[derive(Clone, Copy)]
pub(super) struct CheckedRecord<'a> {
    text: &'a str,
    deep: bool,
}

impl<'a> CheckedRecord<'a> {
    /// Checks the encoding, the nesting and the escapes of a record.
    pub(super) fn new(record: &'a [u8]) -> Result<CheckedRecord<'a>, String> {
        let text = simdutf8::basic::from_utf8(record)
            .map_err(|_| "the record is not valid UTF-8".to_owned())?;
        if let Some(at) = bad_escape(record) {
            return Err(format!("invalid JSON at byte {at}: invalid \\u escape"));
        }
        let depth = if openings(record) <= DEEP {
            0
        } else {
            depth(record)
        };
        if depth > MAX_DEPTH {
            return Err(format!(
                "the record is nested deeper than {MAX_DEPTH} levels"
            ));
        }
        Ok(CheckedRecord {
            text,
            deep: depth > DEEP,
        })
    }

    pub(super) fn text(self) -> &'a str {
        self.text
    }

    /// Runs `parse` on the text, on a thread with a larger stack if the record is deeply nested.
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
            let parser = parser.map_err(|error| {
                format!("cannot start a thread for a deeply nested record: {error}")
            })?;
            parser
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }
}

/// Formats a parser's error as a short reason.
pub(super) fn reason(error: &sonic_rs::Error, text: &str) -> String {
    if error.is_eof() || error.offset() >= text.len() {
        return unexpected_end(text);
    }
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    if what.contains("must be finite") {
        return format!(
            "a number that ends at byte {} is too large for float64",
            error.offset()
        );
    }
    format!(
        "invalid JSON at byte {}: {}",
        error.offset(),
        what.to_lowercase()
    )
}

/// The number of `{` and `[`, including those in strings.
fn openings(record: &[u8]) -> usize {
    // `{` differs from `[` in one bit. The compiler vectorizes this.
    record
        .iter()
        .map(|byte| usize::from(byte & 0xdf == b'['))
        .sum()
}

/// The nesting depth of objects and lists.
fn depth(record: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_string = false;
    let mut bytes = record.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The index of the first `\u` without four hexadecimal digits. Backslashes are valid in JSON
/// strings only; the parser finds the others.
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
