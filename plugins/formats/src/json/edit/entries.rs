//! The entries of an object, found without parsing their values.
//!
//! An entry is the text from the end of the entry before it to the end of its value:
//!
//! ```text
//! { "a": 1 , "b": [2] }
//!  ‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾ the entries ` "a": 1` and ` , "b": [2]`
//! ```
//!
//! The [fast scan](scan) finds nearly all entries. Of the others, strings, brackets, colons and
//! commas are checked, since they decide where a value ends. The characters inside numbers, words
//! and strings are not: they are copied as they came.

use pseidon_plugin::places::FieldPlace;

use super::super::reasons::unexpected_end;
use super::super::scan::{self, ScannedEntry};

/// The maximum nesting of objects and lists, as in the decoder.
const MAX_DEPTH: u32 = 128;

/// An entry of an object: where its parts are in the text.
pub(super) struct Entry<'t> {
    text: &'t str,
    /// The start: white space before the key, with the comma of an entry that is not the first.
    pub(super) start: usize,
    /// The key with its quotes.
    pub(super) key: usize,
    /// The colon with the white space around it.
    pub(super) colon: usize,
    pub(super) value: usize,
    pub(super) end: usize,
    is_escaped: bool,
}

impl<'t> Entry<'t> {
    /// The entry at a place that the decoder has found. Its key has no escapes.
    #[inline]
    pub(super) fn at(text: &'t str, place: &FieldPlace) -> Entry<'t> {
        Entry {
            text,
            start: place.start as usize,
            key: place.name as usize,
            colon: place.name_end as usize,
            value: place.value as usize,
            end: place.end.get() as usize,
            is_escaped: false,
        }
    }

    /// Entries that stay, as one: only the first key matters.
    #[inline]
    pub(super) fn between(text: &'t str, start: usize, key: usize, end: usize) -> Entry<'t> {
        Entry {
            text,
            start,
            key,
            colon: end,
            value: end,
            end,
            is_escaped: false,
        }
    }

    /// White space before the key, with the comma of an entry that is not the first.
    pub(super) fn gap(&self) -> &'t str {
        &self.text[self.start..self.key]
    }

    pub(super) fn value(&self) -> &'t str {
        &self.text[self.value..self.end]
    }

    /// Whether this is the key, without quotes and escapes.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let key = &self.text[self.key..self.colon];
        if self.is_escaped {
            return sonic_rs::from_str::<String>(key).is_ok_and(|key| key == name);
        }
        key.as_bytes()[1..key.len() - 1] == *name.as_bytes()
    }
}

/// Finds one entry after the other.
pub(super) struct Entries<'t> {
    text: &'t str,
    /// The end of the last entry.
    at: usize,
    is_first: bool,
}

impl<'t> Entries<'t> {
    /// The entries of an object. An error says that the text is not an object.
    pub(super) fn new(text: &'t str) -> Result<Entries<'t>, String> {
        let mut entries = Entries {
            text,
            at: 0,
            is_first: true,
        };
        let open = entries.skip_space(0);
        entries.at = entries.expect(b'{', "`{`", open)?;
        Ok(entries)
    }

    /// The next entry; `None` at the end of the object.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Entry<'t>>, String> {
        let start = self.at;
        let scanned = scan::next_entry(self.text.as_bytes(), start, self.is_first);
        let found = match scanned.filter(|found| self.is_whole(found)) {
            Some(found) => found,
            None => match self.next_unscanned()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        self.is_first = false;
        self.at = found.end;
        Ok(Some(Entry {
            text: self.text,
            start,
            key: found.key,
            colon: found.key_end,
            value: found.value,
            end: found.end,
            is_escaped: found.is_escaped,
        }))
    }

    /// Whether the value ends where the scan says. Numbers and words are not checked in a record that
    /// is edited, so one such as `12ab` is copied as it is.
    fn is_whole(&self, found: &ScannedEntry) -> bool {
        matches!(
            self.text.as_bytes().get(found.end),
            None | Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}')
        )
    }

    /// The next entry, which the fast scan does not accept; `None` at the end of the object.
    fn next_unscanned(&self) -> Result<Option<ScannedEntry>, String> {
        let mut quote = self.skip_space(self.at);
        match self.byte(quote) {
            Some(b'}') => return Ok(None),
            Some(b',') if !self.is_first => quote = self.skip_space(quote + 1),
            _ if self.is_first => {}
            _ => return Err(self.error(quote, "`,` or `}`")),
        }
        let key_start = self.expect(b'"', "a key", quote)?;
        let key_end = self.string_end(key_start)?;
        let colon = self.skip_space(key_end);
        let value = self.expect(b':', "`:`", colon)?;
        let value = self.skip_space(value);
        let is_escaped = memchr::memchr(b'\\', &self.text.as_bytes()[quote..key_end]).is_some();
        Ok(Some(ScannedEntry {
            key: quote,
            key_end,
            is_escaped,
            value,
            end: self.value_end(value)?,
        }))
    }

    /// The text after the last entry, from white space and the closing brace on. An error says that
    /// something else follows the object.
    pub(super) fn closing(&self) -> Result<&'t str, String> {
        let close = self.skip_space(self.at);
        let after = self.expect(b'}', "`}`", close)?;
        match self.skip_space(after) {
            end if end == self.text.len() => Ok(&self.text[self.at..]),
            end => Err(self.error(end, "the end of the record")),
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip_space(&self, from: usize) -> usize {
        let bytes = self.text.as_bytes();
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let rest = bytes.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| is_space(byte)).count()
    }

    fn expect(&self, byte: u8, what: &str, at: usize) -> Result<usize, String> {
        match self.byte(at) {
            Some(found) if found == byte => Ok(at + 1),
            _ => Err(self.error(at, what)),
        }
    }

    fn error(&self, at: usize, what: &str) -> String {
        if at >= self.text.len() {
            return unexpected_end(self.text);
        }
        format!("invalid JSON at byte {at}: expected {what}")
    }

    /// The index after the closing quote of a string whose content begins at `from`.
    fn string_end(&self, from: usize) -> Result<usize, String> {
        let bytes = self.text.as_bytes();
        let mut at = from;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let found = memchr::memchr2(b'"', b'\\', rest)
                .ok_or_else(|| self.error(bytes.len(), "`\"`"))?;
            at += found;
            match bytes[at] {
                b'"' => return Ok(at + 1),
                _ => at += 2,
            }
        }
    }

    fn value_end(&self, from: usize) -> Result<usize, String> {
        match self.byte(from) {
            Some(b'"') => self.string_end(from + 1),
            Some(b'{' | b'[') => self.container_end(from),
            _ => self.word_end(from),
        }
    }

    /// The index after a number or a word.
    fn word_end(&self, from: usize) -> Result<usize, String> {
        let rest = &self.text.as_bytes()[from.min(self.text.len())..];
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        match rest.iter().take_while(|byte| is_part(byte)).count() {
            0 => Err(self.error(from, "a value")),
            length => Ok(from + length),
        }
    }

    /// The index after an object or a list.
    fn container_end(&self, from: usize) -> Result<usize, String> {
        let bytes = self.text.as_bytes();
        // A bit for each open container: whether it is an object. The last one is the lowest bit.
        let (mut objects, mut depth, mut at) = (0_u128, 0, from);
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = self.string_end(at)?,
                b'{' | b'[' => {
                    if depth == MAX_DEPTH {
                        return Err(format!(
                            "the record is nested deeper than {MAX_DEPTH} levels"
                        ));
                    }
                    objects = objects << 1 | u128::from(*byte == b'{');
                    depth += 1;
                }
                b'}' | b']' => {
                    if (objects & 1 == 1) != (*byte == b'}') {
                        return Err(self.error(at - 1, "the other closing bracket"));
                    }
                    objects >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at);
                    }
                }
                _ => {}
            }
        }
        Err(self.error(bytes.len(), "a closing bracket"))
    }
}

/// The value at a path inside of a value, if it exists. Of a repeated key, the first value counts.
pub(super) fn inside<'t>(value: &'t str, path: &[String]) -> Option<&'t str> {
    let Some((name, rest)) = path.split_first() else {
        return Some(value);
    };
    let mut entries = Entries::new(value).ok()?;
    while let Ok(Some(entry)) = entries.next() {
        if entry.is_named(name) {
            return inside(entry.value(), rest);
        }
    }
    None
}
