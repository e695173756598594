//! Records as text.

use std::ops::Range;

use pseidon_plugin::Payloads;

/// The text of some records. That it is UTF-8 is checked for all of them at once, which takes much
/// less time than for one short record after the other.
pub(crate) struct Texts<'p> {
    payloads: &'p Payloads,
    /// The buffer from `start` on, if the records and what is between them are UTF-8.
    all: Option<&'p str>,
    start: usize,
}

impl<'p> Texts<'p> {
    /// The text of the records with these numbers.
    pub(crate) fn new(payloads: &'p Payloads, mut records: Range<usize>) -> Texts<'p> {
        let first = records.find_map(|record| payloads.place(record));
        let last = records.rev().find_map(|record| payloads.place(record));
        let start = first.as_ref().map_or(0, |first| first.start);
        let end = last.or(first).map_or(0, |last| last.end);
        Texts {
            payloads,
            all: simdutf8::basic::from_utf8(&payloads.buffer()[start..end]).ok(),
            start,
        }
    }

    /// The text of one of the records; `None` if it has no payload, or is not UTF-8.
    #[inline]
    pub(crate) fn get(&self, record: usize) -> Option<&'p str> {
        let place = self.payloads.place(record)?;
        let whole = self
            .all
            .and_then(|all| all.get(place.start - self.start..place.end - self.start));
        whole.or_else(|| simdutf8::basic::from_utf8(&self.payloads.buffer()[place]).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_checked_by_itself() {
        // The end of one record and the beginning of the next are a character together.
        let halves: [&[u8]; 2] = [b"a\xc3", b"\xa9b"];
        for (records, expected) in [
            (
                vec![&b"a"[..], b"", "\u{e9}".as_bytes()],
                vec![Some("a"), Some(""), Some("\u{e9}")],
            ),
            (halves.to_vec(), vec![None, None]),
            (vec![b"a", b"\xff", b"b"], vec![Some("a"), None, Some("b")]),
            (vec![], vec![]),
        ] {
            let payloads = Payloads::copied(records);
            let texts = Texts::new(&payloads, 0..payloads.len());
            let found: Vec<_> = (0..payloads.len())
                .map(|record| texts.get(record))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn some_records_do_not_depend_on_the_others() {
        let payloads = Payloads::copied([&b"\xff"[..], b"a", b"b", b"\xfe"]);
        let texts = Texts::new(&payloads, 1..3);
        assert!(texts.all.is_some());
        assert_eq!(
            [1, 2].map(|record| texts.get(record)),
            [Some("a"), Some("b")]
        );
    }

    #[test]
    fn a_record_without_a_payload_has_no_text() {
        let payloads = crate::testing::payloads(&[None, Some(b"a"), None]);
        let texts = Texts::new(&payloads, 0..3);
        let found = [0, 1, 2].map(|record| texts.get(record));
        assert_eq!(found, [None, Some("a"), None]);
    }
}
