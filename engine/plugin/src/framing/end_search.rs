//! The end of a record that does not fit into memory: it is searched piece by piece.

use super::{Escape, Framing, Quotes};
use crate::batch::BYTE_ORDER_MARK;

const MARK_BYTES: usize = BYTE_ORDER_MARK.len();

/// A search for the end of one record.
#[derive(Clone, Copy, Debug)]
pub struct EndSearch {
    quotes: Option<Quotes>,
    comment: Option<u8>,
    place: Place,
}

/// Where in a record the next byte is, if fields may be in quotes.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At the beginning of the record, after as many bytes of a byte order mark.
    Start(usize),
    /// At the beginning of a field.
    FieldStart,
    /// In a field without quotes, or after one in quotes.
    Field,
    /// In quotes.
    Quoted,
    /// After a quote in quotes, which closes them unless another quote follows.
    AfterQuote,
    /// After a backslash in quotes.
    AfterBackslash,
    /// In a comment.
    Comment,
}

impl EndSearch {
    /// A search in bytes that begin with a record.
    pub fn new(framing: Framing) -> EndSearch {
        EndSearch {
            quotes: framing.quotes,
            comment: framing.comment,
            place: Place::Start(0),
        }
    }

    /// Searches the next piece. Returns the index of the line feed that ends the record. Without
    /// one, the record continues after the piece.
    pub fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let Some(quotes) = self.quotes else {
            return memchr::memchr(b'\n', piece);
        };
        piece.iter().position(|byte| self.is_end(quotes, *byte))
    }

    /// Takes the next byte; whether it ends the record.
    fn is_end(&mut self, quotes: Quotes, byte: u8) -> bool {
        let is_quote = byte == quotes.quote;
        if let Place::Start(known) = self.place {
            if BYTE_ORDER_MARK.get(known) == Some(&byte) {
                self.place = Place::Start(known + 1);
                return false;
            }
            self.place = match known {
                0 | MARK_BYTES if self.comment == Some(byte) => Place::Comment,
                0 | MARK_BYTES => Place::FieldStart,
                _ => Place::Field,
            };
        }
        let escapes = quotes.escape == Escape::Backslash && byte == b'\\';
        let is_doubled = quotes.escape == Escape::Doubled;
        self.place = match self.place {
            Place::Comment if byte != b'\n' => Place::Comment,
            Place::Quoted if escapes => Place::AfterBackslash,
            Place::AfterBackslash => Place::Quoted,
            Place::Quoted if is_quote => Place::AfterQuote,
            Place::AfterQuote if is_quote && is_doubled => Place::Quoted,
            Place::FieldStart if is_quote => Place::Quoted,
            Place::Quoted => Place::Quoted,
            _ if byte == b'\n' => return true,
            _ if byte == quotes.separator => Place::FieldStart,
            _ => Place::Field,
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_end_where_the_whole_record_ends(
            text in "\u{feff}?[a#,\"'\\\\\n\u{feff}]{0,30}",
            piece in 1..8usize,
            quotes in prop_oneof![
                Just(None),
                Just(Some(Quotes::double(b','))),
                Just(Some(Quotes {
                    separator: b',',
                    quote: b'\'',
                    escape: Escape::Backslash,
                })),
            ],
            has_comments: bool,
        ) {
            let framing = Framing {
                quotes,
                comment: has_comments.then_some(b'#'),
                ..Framing::default()
            };
            let mut search = EndSearch::new(framing);
            let mut before = 0;
            let found = text.as_bytes().chunks(piece).find_map(|piece| {
                let end = search.find(piece).map(|end| before + end);
                before += piece.len();
                end
            });
            prop_assert_eq!(found, framing.first_end(text.as_bytes()));
        }
    }
}
