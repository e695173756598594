//! Source positions in a pipeline file.

/// A range of bytes in the source text: `start..end`.
///
/// The text of a named expression stands for all of its uses, and an argument of it for all places
/// of its parameter. `expansion` is the number of the one that is meant
/// ([`NamedExpressions`](crate::expr::NamedExpressions)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u32,
    /// The offset after the last byte.
    pub end: u32,
    /// The use of the named expression that the text defines, or of the argument that it is; 0 for
    /// any other text.
    pub expansion: u32,
}

impl Span {
    /// The range `start..end`. Offsets from 4 GiB on do not fit: the reader of EDN refuses such an
    /// input.
    pub fn new(start: usize, end: usize) -> Self {
        Span {
            start: start as u32,
            end: end as u32,
            expansion: 0,
        }
    }

    /// The smallest range that covers both ranges. It is the first one if they are parts of different
    /// texts: there may be anything between a definition and an argument.
    pub fn to(self, other: Span) -> Span {
        if self.expansion != other.expansion {
            return self;
        }
        Span {
            expansion: self.expansion,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}
