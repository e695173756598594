//! Fields in quotes.

use crate::batch::BYTE_ORDER_MARK;

/// How fields in quotes are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotes {
    /// The byte between two fields.
    pub separator: u8,
    /// The byte before and behind the content of a field.
    pub quote: u8,
    /// How a quote inside of a field in quotes is written.
    pub escape: Escape,
}

/// How a quote inside of a field in quotes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As two quotes.
    Doubled,
    /// With a backslash before it. A backslash before a backslash is one backslash, and before
    /// another byte it is an ordinary one.
    Backslash,
}

impl Quotes {
    /// Those of RFC 4180, with this separator.
    pub const fn double(separator: u8) -> Quotes {
        Quotes {
            separator,
            quote: b'"',
            escape: Escape::Doubled,
        }
    }

    /// The index of the quote that closes a field whose content begins at `start`; `None` if it is
    /// not closed.
    pub fn closing(self, bytes: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let rest = bytes.get(at..)?;
            let found = match self.escape {
                Escape::Doubled => at + memchr::memchr(self.quote, rest)?,
                Escape::Backslash => at + memchr::memchr2(self.quote, b'\\', rest)?,
            };
            let is_escape = match self.escape {
                Escape::Doubled => bytes.get(found + 1) == Some(&self.quote),
                Escape::Backslash => bytes[found] == b'\\',
            };
            if !is_escape {
                return Some(found);
            }
            at = found + 2;
        }
    }

    /// The line feed that ends the record that begins at `start`.
    pub(super) fn end(self, bytes: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let found = at + memchr::memchr2(b'\n', self.quote, &bytes[at..])?;
            if bytes[found] == b'\n' {
                return Some(found);
            }
            let opens = found == start
                || bytes[found - 1] == self.separator
                || &bytes[start..found] == BYTE_ORDER_MARK;
            at = match opens {
                true => self.closing(bytes, found + 1)? + 1,
                false => found + 1,
            };
        }
    }
}
