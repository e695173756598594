//! Where the fields of a record are.

use std::ops::Range;

/// The fields of one record after another. Its memory is used again for the next.
#[derive(Default)]
pub(super) struct Fields {
    spans: Vec<Range<usize>>,
    /// Whether there may be more than one separator between two of them.
    gaps: bool,
    /// Fields put together, where they do not lie so in the record.
    joined: Vec<u8>,
}

impl Fields {
    /// Finds the first fields of a record, not more than `most`. Empty ones do not count.
    ///
    /// Separators are found eight bytes at a time: fields are short, and memchr, made for long ways
    /// between two finds, takes twice the time for records of twenty fields.
    pub(super) fn split(&mut self, record: &[u8], separator: u8, most: usize) {
        self.spans.clear();
        self.gaps = false;
        let mut start = 0;
        let (words, rest) = record.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let mut found = positions(*word, separator);
            while found != 0 {
                let end = number * 8 + found.trailing_zeros() as usize / 8;
                if !self.add(start..end, most) {
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
            if !self.add(start..end, most) {
                return;
            }
            start = end + 1;
        }
        self.add(start..record.len(), most);
    }

    /// Adds what stands between two separators. Gives `false` if there are enough.
    fn add(&mut self, span: Range<usize>, most: usize) -> bool {
        if span.is_empty() {
            self.gaps |= !self.spans.is_empty();
            return true;
        }
        if self.spans.len() >= most {
            return false;
        }
        self.spans.push(span);
        true
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// One of the fields.
    pub(super) fn get<'a>(&self, record: &'a [u8], number: usize) -> Option<&'a [u8]> {
        self.spans.get(number).map(|span| &record[span.clone()])
    }

    /// Some of the fields with one separator between two: a slice of the record, if they lie in it
    /// like that.
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

/// The highest bit of each byte of the word that is the separator, the word's first byte lowest.
/// (Warren, Hacker's Delight, 6-1: a byte is 0 if neither its low bits carry into the highest when
/// 0x7f is added nor the highest is set.)
fn positions(word: [u8; 8], separator: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let different = u64::from_le_bytes(word) ^ u64::from_ne_bytes([separator; 8]);
    !(((different & LOW) + LOW) | different | LOW)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Fields;

    proptest! {
        #[test]
        fn fields_are_those_of_the_standard_library(
            record in prop::collection::vec(prop_oneof![Just(b','), Just(b'-'), any::<u8>()], 0..60),
            separator in prop_oneof![Just(b','), Just(1), Just(0xff), any::<u8>()],
            most in prop_oneof![0..5_usize, Just(usize::MAX)],
        ) {
            let mut fields = Fields::default();
            // What is left of the record before has no part in it.
            fields.split(b"a,,b,,c", b',', usize::MAX);
            fields.split(&record, separator, most);
            let expected: Vec<_> = record.split(|byte| *byte == separator).filter(|field| !field.is_empty()).take(most).collect();
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
