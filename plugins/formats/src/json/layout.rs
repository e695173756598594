//! The layout of records: which fields they have, in which order.
//!
//! The records of a log are written by few programs, so that nearly every record has the keys of
//! the records before it, in the same order and with the same white space. A layout remembers what
//! was before each value. If the next record has the same bytes there, only its value is left to
//! [scan]:
//!
//! ```text
//! {"id":1,"kind":"a"}    remembered: `"id":` and `,"kind":`
//! {"id":2,"kind":"b"}
//!  ‾‾‾‾‾ ‾‾‾‾‾‾‾‾         compared with the bytes that are remembered
//! ```
//!
//! A layout has the fields of all records so far, and a record may lack some of them. A field that
//! the layout does not have is scanned, and added if there is room.

use super::keys::KeySet;
use super::scan::{self, ScannedEntry};

/// The number of fields that are remembered.
const MAX_FIELDS: usize = 256;

/// The number of fields in a row that a record may lack.
const MAX_MISSING: usize = 3;

/// The fields of records, in the order in which they are expected.
#[derive(Default)]
pub(super) struct Layout {
    fields: Vec<KnownField>,
}

/// A field that some record had.
struct KnownField {
    /// What was before its value: white space, the comma, the key, the colon.
    before: Prefix,
    /// Whether it was the first field of its record, which has no comma.
    is_first: bool,
    /// The start of its key in `before`.
    key: usize,
    /// The end of its key in `before`.
    key_end: usize,
    /// The number of its key, if it is wanted.
    number: Option<usize>,
}

/// What is expected next.
#[derive(Default)]
pub(super) struct ExpectedField {
    /// The number of a field of the layout.
    field: usize,
    /// The number of a name.
    name: usize,
}

impl Layout {
    /// Begins a batch. A layout that is full is cleared, since the records may have changed.
    pub(super) fn begin_batch(&mut self) {
        if self.fields.len() == MAX_FIELDS {
            self.fields.clear();
        }
    }

    /// The entry of a record after `from`, like [`scan::next_entry`], and the number of its key
    /// among the names, which are always the same. `None` also for a key that has escapes.
    #[inline]
    pub(super) fn next_entry(
        &mut self,
        text: &str,
        from: usize,
        is_first: bool,
        expected: &mut ExpectedField,
        names: &KeySet,
    ) -> Option<(ScannedEntry, Option<usize>)> {
        let bytes = text.as_bytes();
        let is_next =
            |field: &KnownField| field.is_first == is_first && field.before.is_at(bytes, from);
        if !self.fields.get(expected.field).is_some_and(is_next) {
            match self.position(expected.field, is_next) {
                Some(field) => expected.field = field,
                None => return self.learn(text, from, is_first, expected, names),
            }
        }
        let field = &self.fields[expected.field];
        let value = from + field.before.len;
        let Some(end) = scan::value_end(bytes, value) else {
            // There may be white space after the colon.
            return self.learn(text, from, is_first, expected, names);
        };
        expected.field += 1;
        if let Some(name) = field.number {
            expected.name = name + 1;
        }
        let entry = ScannedEntry {
            key: from + field.key,
            key_end: from + field.key_end,
            is_escaped: false,
            value,
            end,
        };
        Some((entry, field.number))
    }

    /// The number of the field that is there instead of the expected one: one of those after it, or,
    /// in a record of another kind, any other.
    fn position(&self, expected: usize, is_next: impl Fn(&KnownField) -> bool) -> Option<usize> {
        let after = self.fields.iter().skip(expected + 1);
        let near = after.take(MAX_MISSING).position(&is_next);
        match near {
            Some(missing) => Some(expected + 1 + missing),
            None if self.fields.len() == MAX_FIELDS => None,
            None => self.fields.iter().position(is_next),
        }
    }

    /// Scans an entry that is not expected, and adds it to the layout.
    #[inline(never)]
    fn learn(
        &mut self,
        text: &str,
        from: usize,
        is_first: bool,
        expected: &mut ExpectedField,
        names: &KeySet,
    ) -> Option<(ScannedEntry, Option<usize>)> {
        let entry = scan::next_entry(text.as_bytes(), from, is_first)?;
        if entry.is_escaped {
            return None;
        }
        let number = names.find(&text[entry.key + 1..entry.key_end - 1], expected.name);
        if let Some(name) = number {
            expected.name = name + 1;
        }
        if self.fields.len() < MAX_FIELDS
            && let Some(before) = Prefix::new(&text.as_bytes()[from..entry.value])
        {
            let field = KnownField {
                before,
                is_first,
                key: entry.key - from,
                key_end: entry.key_end - from,
                number,
            };
            let at = expected.field.min(self.fields.len());
            self.fields.insert(at, field);
            expected.field = at + 1;
        }
        Some((entry, number))
    }
}

/// The number of bytes that are compared at once.
const WORD: usize = size_of::<u128>();

/// The maximum length of a prefix, in bytes.
const MAX_PREFIX: usize = 4 * WORD;

/// Bytes with which a text is compared.
struct Prefix {
    bytes: [u8; MAX_PREFIX],
    len: usize,
    /// The first of the bytes, and zeros. They are compared at once, which does for nearly all
    /// prefixes.
    word: u128,
    /// All bits of the bytes that are in `word`.
    mask: u128,
}

impl Prefix {
    /// `None` if there are too many bytes.
    fn new(prefix: &[u8]) -> Option<Prefix> {
        let mut bytes = [0; MAX_PREFIX];
        bytes.get_mut(..prefix.len())?.copy_from_slice(prefix);
        let mut mask = [0; WORD];
        mask[..prefix.len().min(WORD)].fill(u8::MAX);
        Some(Prefix {
            bytes,
            len: prefix.len(),
            word: u128::from_ne_bytes(*bytes.first_chunk()?),
            mask: u128::from_ne_bytes(mask),
        })
    }

    /// Whether the text has these bytes at an index.
    #[inline(always)]
    fn is_at(&self, text: &[u8], at: usize) -> bool {
        let Some(rest) = text.get(at..) else {
            return false;
        };
        match rest.first_chunk() {
            Some(first) if u128::from_ne_bytes(*first) & self.mask != self.word => false,
            Some(_) if self.len <= WORD => true,
            _ => rest.starts_with(&self.bytes[..self.len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entries = Vec<(ScannedEntry, Option<usize>)>;

    fn names() -> KeySet {
        let mut names = KeySet::default();
        names.find_or_add("a");
        names.find_or_add("c");
        names
    }

    /// The entries that a layout finds in a record, and whether the record ends after them.
    fn expected(layout: &mut Layout, text: &str) -> Option<(Entries, bool)> {
        let (mut found, mut field) = (Vec::new(), ExpectedField::default());
        let mut at = scan::after_open(text.as_bytes())?;
        while let Some(entry) = layout.next_entry(text, at, found.is_empty(), &mut field, &names())
        {
            at = entry.0.end;
            found.push(entry);
        }
        Some((found, scan::is_closed(text.as_bytes(), at)))
    }

    /// The same without a layout.
    fn scanned(text: &str) -> Option<(Entries, bool)> {
        let mut found: Entries = Vec::new();
        let mut at = scan::after_open(text.as_bytes())?;
        while let Some(entry) = scan::next_entry(text.as_bytes(), at, found.is_empty())
            && !entry.is_escaped
        {
            let number = names().find(&text[entry.key + 1..entry.key_end - 1], 0);
            at = entry.end;
            found.push((entry, number));
        }
        Some((found, scan::is_closed(text.as_bytes(), at)))
    }

    fn assert_equal_to_the_scan<'t>(records: impl IntoIterator<Item = &'t str>) -> Layout {
        let mut layout = Layout::default();
        for text in records {
            assert_eq!(expected(&mut layout, text), scanned(text), "{text}");
        }
        layout
    }

    #[test]
    fn records_may_lack_fields() {
        let layout = assert_equal_to_the_scan([
            r#"{"a":1,"b":{"x":[1]},"c":"d"}"#,
            r#"{"a":2,"c":"e"}"#,
            r#"{"b":null,"c":""}"#,
            r#"{"a":3,"b":4,"c":5}"#,
            r#"{"c":6}"#,
            r#"{}"#,
        ]);
        // `"a":`, `,"b":`, `,"c":`, `"b":` and `"c":`
        assert_eq!(layout.fields.len(), 5);
    }

    #[test]
    fn records_of_several_kinds_share_a_layout() {
        let kinds = [
            r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#,
            r#"{"v":1,"w":2,"x":3,"y":4,"z":5}"#,
        ];
        let layout = assert_equal_to_the_scan((0..100).map(|number| kinds[number % 2]));
        assert_eq!(layout.fields.len(), 10);
    }

    #[test]
    fn a_known_field_at_a_wrong_place_is_no_field() {
        assert_equal_to_the_scan([
            r#"{"a":1,"b":2}"#,
            r#"{"b":1}"#,
            // Each field is known, but not after what is before it.
            r#"{,"b":1}"#,
            r#"{"a":1"b":2}"#,
            r#"{"a":1,"b":}"#,
            r#"{"a":1,"b":2"#,
            r#"{"a":1,"b""#,
            r#"{"a":01,"b":2}"#,
        ]);
    }

    #[test]
    fn white_space_after_the_colon_is_a_part_of_the_layout() {
        let layout = assert_equal_to_the_scan([
            r#"{"a":1,"b":2}"#,
            r#"{"a": 1, "b": 2}"#,
            r#"{"a": 3, "b": 4}"#,
            r#"{"a":5,"b":6}"#,
        ]);
        assert_eq!(layout.fields.len(), 4);
    }

    #[test]
    fn long_keys_are_scanned() {
        for length in [11, 12, 13, 40, MAX_PREFIX, 1000] {
            let key = "k".repeat(length);
            let (record, other) = (format!("{{\"{key}\":1}}"), format!("{{\"{key}l\":1}}"));
            let layout = assert_equal_to_the_scan([&*record, &other, &record]);
            assert_eq!(layout.fields.is_empty(), length >= MAX_PREFIX);
        }
    }

    #[test]
    fn a_full_layout_is_cleared() {
        let record = |first: usize| {
            let fields: Vec<_> = (first..first + MAX_FIELDS + 10)
                .map(|key| format!("\"{key}\":1"))
                .collect();
            format!("{{{}}}", fields.join(","))
        };
        let records = [record(0), record(1000), record(0)];
        let mut layout = assert_equal_to_the_scan(records.iter().map(String::as_str));
        assert_eq!(layout.fields.len(), MAX_FIELDS);
        layout.begin_batch();
        assert!(layout.fields.is_empty());
        expected(&mut layout, r#"{"a":1}"#);
        layout.begin_batch();
        assert_eq!(layout.fields.len(), 1);
    }

    proptest! {
        #[test]
        fn a_layout_finds_what_the_scan_finds(
            records in prop::collection::vec(
                r#"\{( ?,?"(a|b|c|\\n|a long key of a field)" ?: ?(1|-20|"x"|\{"a":1\}|\[\]|nul)){0,5} ?\}?"#,
                0..30,
            ),
        ) {
            assert_equal_to_the_scan(records.iter().map(String::as_str));
        }
    }
}
