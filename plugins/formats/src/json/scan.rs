//! A fast scan of the entries of an object.
//!
//! Nearly all records are well-formed, shallow, and of short keys and values. This scan finds and
//! checks their entries eight bytes at a time, without building values. It accepts strict JSON
//! only, up to [`MAX_DEPTH`] levels: whatever it accepts, the parser accepts too. A record that it
//! does not accept may be valid, or is invalid for a reason that the parser finds: the caller reads
//! it again in the other way, so that the scan needs no errors.

/// The maximum nesting of objects and lists inside an entry. The parser needs no large stack for
/// so few levels.
const MAX_DEPTH: u32 = 15;

/// A word with this byte eight times.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// An entry of an object: where its parts are in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScannedEntry {
    /// The opening quote of the key.
    pub(super) key: usize,
    /// The end of the key, after its closing quote.
    pub(super) key_end: usize,
    /// Whether the key has escapes.
    pub(super) is_escaped: bool,
    pub(super) value: usize,
    pub(super) end: usize,
}

/// The index after the opening brace of an object.
#[inline]
pub(super) fn after_open(text: &[u8]) -> Option<usize> {
    let open = after_space(text, 0);
    (text.get(open) == Some(&b'{')).then_some(open + 1)
}

/// The entry after `from`, the end of the entry before it or of the opening brace. `None` if the
/// scan does not accept what is there, or if there is no other entry.
#[inline]
pub(super) fn next_entry(text: &[u8], from: usize, is_first: bool) -> Option<ScannedEntry> {
    let key = key_start(text, from, is_first)?;
    let (key_end, is_escaped) = string_end(text, after(text, key, b'"')?)?;
    let colon = after_space(text, key_end);
    let value = after_space(text, after(text, colon, b':')?);
    Some(ScannedEntry {
        key,
        key_end,
        is_escaped,
        value,
        end: value_end(text, value)?,
    })
}

/// The index of the key of the entry after `from`. `None` if there is no comma.
#[inline(always)]
pub(super) fn key_start(text: &[u8], from: usize, is_first: bool) -> Option<usize> {
    let at = after_space(text, from);
    if is_first {
        return Some(at);
    }
    after(text, at, b',').map(|at| after_space(text, at))
}

/// Whether the text ends with an object whose last entry ends at `from`.
#[inline]
pub(super) fn is_closed(text: &[u8], from: usize) -> bool {
    after(text, after_space(text, from), b'}')
        .is_some_and(|end| after_space(text, end) == text.len())
}

/// The index after a byte, if it is the one that is expected.
#[inline(always)]
fn after(text: &[u8], at: usize, expected: u8) -> Option<usize> {
    (*text.get(at)? == expected).then_some(at + 1)
}

#[inline(always)]
fn after_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// The highest bit of each byte that is a quote, a backslash or a control character. Bytes after
/// the first of them may be marked too.
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = repeated(1);
    let quote = word ^ repeated(b'"');
    let backslash = word ^ repeated(b'\\');
    let found = quote.wrapping_sub(ONES) & !quote
        | backslash.wrapping_sub(ONES) & !backslash
        | word.wrapping_sub(repeated(b' ')) & !word;
    found & repeated(0x80)
}

/// Whether a string has quotes, backslashes or control characters, which JSON writes as escapes.
pub(crate) fn has_special_bytes(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut words = words.iter().chain([&last]);
    words.any(|word| special_bytes(u64::from_le_bytes(*word)) != 0)
}

/// The highest bit of each byte that is no digit. Bytes after the first of them may be marked
/// wrongly.
#[inline(always)]
fn other_than_digits(word: u64) -> u64 {
    // A digit becomes its value, up to 9. Adding 0x76 to more than 9 sets the highest bit.
    let values = word ^ repeated(b'0');
    (values.wrapping_add(repeated(0x76)) | values) & repeated(0x80)
}

/// The index after the closing quote of a string whose content begins at `at`, and whether the
/// string has escapes.
#[inline(always)]
fn string_end(text: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut is_escaped = false;
    loop {
        while let Some(next) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let found = special_bytes(u64::from_le_bytes(*next));
            if found != 0 {
                at += found.trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match *text.get(at)? {
            b'"' => return Some((at + 1, is_escaped)),
            b'\\' => {
                at = escape_end(text, at + 1)?;
                is_escaped = true;
            }
            0..b' ' => return None,
            _ => at += 1,
        }
    }
}

/// The index after an escape, of which `at` is the index after the backslash.
#[cold]
fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = text.get(at + 1..at + 5)?;
            digits
                .iter()
                .all(u8::is_ascii_hexdigit)
                .then_some(at + 1 + digits.len())
        }
        _ => None,
    }
}

/// The index after the value at `at`. `None` if the scan does not accept it.
#[inline(always)]
pub(super) fn value_end(text: &[u8], at: usize) -> Option<usize> {
    value_end_to(text, at, MAX_DEPTH)
}

/// Like [`value_end`], for values of this maximum nesting.
#[inline(always)]
fn value_end_to(text: &[u8], at: usize, depth: u32) -> Option<usize> {
    match *text.get(at)? {
        b'"' => string_end(text, at + 1).map(|(end, _)| end),
        b'-' | b'0'..=b'9' => number_end(text, at),
        b'{' => object_end(text, at + 1, depth.checked_sub(1)?),
        b'[' => list_end(text, at + 1, depth.checked_sub(1)?),
        b't' => word_end(text, at, b"true"),
        b'f' => word_end(text, at, b"false"),
        b'n' => word_end(text, at, b"null"),
        _ => None,
    }
}

fn word_end(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    text.get(at..)?.starts_with(word).then_some(at + word.len())
}

#[inline(always)]
fn number_end(text: &[u8], from: usize) -> Option<usize> {
    let first = from + usize::from(text.get(from) == Some(&b'-'));
    let mut end = digits_end(text, first)?;
    if end > first + 1 && text.get(first) == Some(&b'0') {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end = digits_end(text, end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let has_sign = matches!(text.get(end + 1), Some(b'-' | b'+'));
        end = digits_end(text, end + 1 + usize::from(has_sign))?;
    }
    Some(end)
}

/// The index after digits; `None` if there is not one.
#[inline(always)]
fn digits_end(text: &[u8], from: usize) -> Option<usize> {
    let mut end = from;
    while let Some(next) = text.get(end..).and_then(<[u8]>::first_chunk) {
        let found = other_than_digits(u64::from_le_bytes(*next));
        if found != 0 {
            end += found.trailing_zeros() as usize / 8;
            return (end > from).then_some(end);
        }
        end += 8;
    }
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    (end > from).then_some(end)
}

/// The index after an object, of which `at` is the index after the brace.
fn object_end(text: &[u8], at: usize, depth: u32) -> Option<usize> {
    let mut at = after_space(text, at);
    if let Some(end) = after(text, at, b'}') {
        return Some(end);
    }
    loop {
        let (key_end, _) = string_end(text, after(text, at, b'"')?)?;
        let value = after(text, after_space(text, key_end), b':')?;
        let end = value_end_to(text, after_space(text, value), depth)?;
        at = after_space(text, end);
        match *text.get(at)? {
            b',' => at = after_space(text, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The index after a list, of which `at` is the index after the bracket.
fn list_end(text: &[u8], at: usize, depth: u32) -> Option<usize> {
    let mut at = after_space(text, at);
    if let Some(end) = after(text, at, b']') {
        return Some(end);
    }
    loop {
        at = after_space(text, value_end_to(text, at, depth)?);
        match *text.get(at)? {
            b',' => at = after_space(text, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys, without quotes, and the values of an object that the scan accepts.
    fn scanned(text: &str) -> Option<Vec<(&str, &str)>> {
        let bytes = text.as_bytes();
        let mut entries = Vec::new();
        let mut at = after_open(bytes)?;
        while let Some(entry) = next_entry(bytes, at, entries.is_empty()) {
            let key = &text[entry.key + 1..entry.key_end - 1];
            assert_eq!(entry.is_escaped, key.contains('\\'), "{text}");
            entries.push((key, &text[entry.value..entry.end]));
            at = entry.end;
        }
        is_closed(bytes, at).then_some(entries)
    }

    #[test]
    fn entries_are_found_with_their_values() {
        let long = format!("\"{}\"", "é".repeat(50));
        for (text, entries) in [
            ("{}", vec![]),
            (" { } \r\n", vec![]),
            (r#"{"a":1}"#, vec![("a", "1")]),
            (
                r#" {"a" : -0.5e+3 ,"b":[ ] , "":{ }}"#,
                vec![("a", "-0.5e+3"), ("b", "[ ]"), ("", "{ }")],
            ),
            (
                r#"{"a":"\u00e9\"x","\n":{"b":[true,false,null,{"c":0}]}}"#,
                vec![
                    ("a", r#""\u00e9\"x""#),
                    (r"\n", r#"{"b":[true,false,null,{"c":0}]}"#),
                ],
            ),
            (&format!("{{\"a\":{long}}}"), vec![("a", long.as_str())]),
        ] {
            assert_eq!(scanned(text), Some(entries), "{text}");
        }
    }

    #[test]
    fn only_strict_json_is_accepted() {
        for text in [
            "",
            "{",
            "[]",
            "{}x",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":nul}"#,
            r#"{"a":truer}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"\u123"#,
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"0123456789\n\"}",
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":[1}}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":{"b":1,}}"#,
            r#"{"a":{b:1}}"#,
            r#"{a:1}"#,
        ] {
            assert_eq!(scanned(text), None, "{text}");
        }
    }

    #[test]
    fn deep_values_are_left_to_the_parser() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(scanned(&nested(MAX_DEPTH as usize)).is_some());
        assert!(scanned(&nested(MAX_DEPTH as usize + 1)).is_none());
    }
}
