//! The end of a record that does not fit into memory: it is searched piece by piece.

use super::{Framing, QUOTE, Quotes};
use crate::batch::BYTE_ORDER_MARK;

/// A search for the end of one record.
#[derive(Clone, Copy, Debug)]
pub struct EndSearch {
    quotes: Option<Quotes>,
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
}

impl EndSearch {
    /// A search in bytes that begin with a record.
    pub fn new(framing: Framing) -> EndSearch {
        EndSearch {
            quotes: framing.quotes,
            place: Place::Start(0),
        }
    }

    /// Searches the next piece. Returns the index of the line feed that ends the record; if there is
    /// none, the record continues after the piece.
    pub fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let Some(quotes) = self.quotes else {
            return memchr::memchr(b'\n', piece);
        };
        piece.iter().position(|byte| self.is_end(quotes, *byte))
    }

    /// Takes the next byte; whether it ends the record.
    fn is_end(&mut self, quotes: Quotes, byte: u8) -> bool {
        let is_quote = byte == QUOTE;
        if let Place::Start(known) = self.place {
            self.place = match known {
                0 => Place::FieldStart,
                _ => Place::Field,
            };
            if byte == BYTE_ORDER_MARK[known] {
                self.place = match known + 1 == BYTE_ORDER_MARK.len() {
                    true => Place::FieldStart,
                    false => Place::Start(known + 1),
                };
                return false;
            }
        }
        self.place = match self.place {
            Place::Quoted if is_quote => Place::AfterQuote,
            Place::AfterQuote | Place::FieldStart if is_quote => Place::Quoted,
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
            text in "\u{feff}?[a,\"\n\u{feff}]{0,30}",
            piece in 1..8usize,
            has_quotes: bool,
        ) {
            let framing = Framing {
                quotes: has_quotes.then_some(Quotes { separator: b',' }),
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
