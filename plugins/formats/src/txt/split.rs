//! Locates the fields of a record.

use std::ops::Range;

/// The locations of one record's fields. The memory is reused for the next record.
#[derive(Default)]
pub(super) struct FieldSpans {
    spans: Vec<Range<usize>>,
    /// Whether some neighbouring fields may have more than one separator between them.
    gaps: bool,
    /// A buffer for joined fields that are not adjacent in the record.
    joined: Vec<u8>,
    /// Whether empty fields count.
    keeps_empty: bool,
}

impl FieldSpans {
    /// `keeps_empty` says whether empty fields count.
    pub(super) fn new(keeps_empty: bool) -> FieldSpans {
        FieldSpans {
            keeps_empty,
            ..FieldSpans::default()
        }
    }

    /// Locates the fields of a record, at most `max`.
    ///
    /// Separators are searched eight bytes at a time. Fields are short, and memchr, which is
    /// optimized for long distances between matches, takes twice the time for records of twenty
    /// fields.
    pub(super) fn split(&mut self, record: &[u8], separator: u8, max: usize) {
        self.spans.clear();
        self.gaps = false;
        let mut start = 0;
        let (words, rest) = record.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let mut found = positions(*word, separator);
            while found != 0 {
                let end = number * 8 + found.trailing_zeros() as usize / 8;
                if !self.add(start..end, max) {
                    return;
                }
                start = end + 1;
                found &= found - 1;
            }
        }
        for (end, _) in (words.len() * 8..)
            .zip(rest)
            .filter(|(_, byte)| **byte == separator)
        {
            if !self.add(start..end, max) {
                return;
            }
            start = end + 1;
        }
        self.add(start..record.len(), max);
    }

    /// Adds the field between two separators. Returns `false` if there are already `max` fields.
    fn add(&mut self, span: Range<usize>, max: usize) -> bool {
        if span.is_empty() && !self.keeps_empty {
            self.gaps |= !self.spans.is_empty();
            return true;
        }
        if self.spans.len() >= max {
            return false;
        }
        self.spans.push(span);
        true
    }

    /// The number of located fields.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The bytes of a field; `None` if the record has too few fields.
    pub(super) fn get<'a>(&self, record: &'a [u8], number: usize) -> Option<&'a [u8]> {
        self.spans.get(number).map(|span| &record[span.clone()])
    }

    /// Joins a range of fields with one separator between them. Borrows a slice of the record if
    /// they are adjacent in it.
    pub(super) fn joined<'a>(
        &'a mut self,
        record: &'a [u8],
        chosen: Range<usize>,
        separator: u8,
    ) -> &'a [u8] {
        let spans = self.spans.get(chosen).unwrap_or_default();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return &[];
        };
        if !self.gaps
            || spans
                .windows(2)
                .all(|pair| pair[0].end + 1 == pair[1].start)
        {
            return &record[first.start..last.end];
        }
        self.joined.clear();
        for (number, span) in spans.iter().enumerate() {
            if number > 0 {
                self.joined.push(separator);
            }
            self.joined.extend_from_slice(&record[span.clone()]);
        }
        &self.joined
    }
}

/// Returns a word in which the highest bit of each byte that equals the separator is set. The
/// word's first byte is the lowest. (Warren, Hacker's Delight, 6-1: a byte is 0 if adding 0x7f to
/// its low bits does not carry into the highest bit, and the highest bit is not set.)
fn positions(word: [u8; 8], separator: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let different = u64::from_le_bytes(word) ^ u64::from_ne_bytes([separator; 8]);
    !(((different & LOW) + LOW) | different | LOW)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::FieldSpans;

    proptest! {
        #[test]
        fn fields_match_the_standard_library(
            record in prop::collection::vec(prop_oneof![Just(b','), Just(b'-'), any::<u8>()], 0..60),
            separator in prop_oneof![Just(b','), Just(1), Just(0xff), any::<u8>()],
            max in prop_oneof![0..5_usize, Just(usize::MAX)],
            keeps_empty: bool,
        ) {
            let mut fields = FieldSpans::new(keeps_empty);
            // Leftovers of the previous record must not matter.
            fields.split(b"a,,b,,c", b',', usize::MAX);
            fields.split(&record, separator, max);
            let expected: Vec<_> = record.split(|byte| *byte == separator).filter(|field| keeps_empty || !field.is_empty()).take(max).collect();
            prop_assert_eq!(fields.len(), expected.len());
            let found: Vec<_> = (0..fields.len()).filter_map(|number| fields.get(&record, number)).collect();
            prop_assert_eq!(found, expected.clone());
            for start in 0..=expected.len() {
                let joined = expected[start..].join(&separator);
                prop_assert_eq!(fields.joined(&record, start..expected.len(), separator), joined);
            }
        }
    }
}
