//! What is looked at before a record is parsed.
//!
//! sonic-rs skips values fast, but recursively without a limit, and without a look at the digits of a `\u` escape. Both are made up for
//! here, with searches that cost next to nothing where there is nothing to find.

/// How deep objects and lists may be nested, as in serde_json.
const MAX_DEPTH: usize = 128;

/// The record's text, if its nesting and its escapes are sound.
pub(super) fn text(record: &[u8]) -> Result<&str, String> {
    let text = simdutf8::basic::from_utf8(record).map_err(|_| "the record is not utf-8".to_owned())?;
    if openings(record) > MAX_DEPTH && depth(record) > MAX_DEPTH {
        return Err(format!("the record is nested more than {MAX_DEPTH} deep"));
    }
    match bad_escape(record) {
        Some(at) => Err(format!("the record is not json: invalid \\u escape at byte {at}")),
        None => Ok(text),
    }
}

/// A parser's error as a short reason.
pub(super) fn reason(error: &sonic_rs::Error, text: &str) -> String {
    if error.is_eof() || error.offset() >= text.len() {
        return "the record is not json: it ends too early".to_owned();
    }
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    format!("the record is not json at byte {}: {}", error.offset(), what.to_lowercase())
}

/// How many `{` and `[` there are, in texts too.
fn openings(record: &[u8]) -> usize {
    // `{` differs from `[` in one bit. The compiler makes vector code of this.
    record.iter().map(|byte| usize::from(byte & 0xdf == b'[')).sum()
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

/// Where there is a `\u` without four hexadecimal digits. JSON has backslashes in texts only; others are the parser's to find.
fn bad_escape(record: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'\\', record.get(from..)?) {
        let at = from + found;
        let unicode = record.get(at + 1) == Some(&b'u');
        if unicode && !record.get(at + 2..at + 6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Some(at);
        }
        from = at + 2;
    }
    None
}
