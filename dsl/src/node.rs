//! EDN values with their source positions.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use regex::Regex;

use crate::expr::NamedExpressions;
use crate::{Diagnostic, Span};

/// The name of a symbol or keyword, with its optional namespace: `a.b/c` is `c` in `a.b`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The part before the slash.
    pub namespace: Option<String>,
    /// The part after the slash, or the whole name.
    pub name: String,
}

impl Name {
    /// A name without a namespace.
    pub fn plain(name: impl Into<String>) -> Self {
        Name {
            namespace: None,
            name: name.into(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A value with its position in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value, with its type as the variant.
    pub kind: NodeKind,
    /// The position of its text, including delimiters.
    pub span: Span,
}

/// An EDN value. Equality of two [`Node`]s includes their positions. To ignore positions, compare
/// the `NodeKind`s of leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// An integer that fits in 64 bits.
    Int(i64),
    /// A larger integer, or one with the suffix `N`: its sign and digits.
    BigInt(String),
    /// A floating-point number.
    Float(f64),
    /// An exact decimal number with the suffix `M`: its text without the suffix.
    Decimal(String),
    /// `\a`, `\newline`, `\u0041`
    Char(char),
    /// A string, with its escapes resolved.
    Str(Text),
    /// A symbol: `->`, `kafka`, `few`.
    Symbol(Name),
    /// A keyword, without its colon.
    Keyword(Name),
    /// `( … )`
    List(Vec<Node>),
    /// `[ … ]`
    Vector(Vec<Node>),
    /// `{ … }`, in source order.
    Map(Vec<(Node, Node)>),
    /// `#{ … }`
    Set(Vec<Node>),
    /// `#r"…"`: a string exactly as written between the quotes, such as a regular expression. Whether
    /// it is valid is checked where it is used as one, by [`Text::to_regex`].
    Regex(Text),
    /// `#tag value`. The values of `#inst` and `#uuid` are validated by the reader.
    Tagged(Name, Box<Node>),
}

/// A string with the source position of each character, so that an error in an expression inside a
/// string can be underlined in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// The string, with its escapes resolved.
    pub value: String,
    /// The byte offset of its first character in the file.
    pub start: u32,
    /// How far the file offset is ahead of the offset in `value` after each escape: pairs of
    /// `(byte in value, extra bytes in the file)`, in order. The extra bytes can be negative,
    /// because a value substituted for `${env:NAME}` can be longer than the placeholder.
    pub shifts: Vec<(u32, i32)>,
    /// The substitutes for `${env:NAME}` and the like in `value`, in order. A string with one is
    /// never printed. Use [`Text::shown`] in messages.
    pub filled: Vec<Substitute>,
    /// The named expressions that an expression in the string may call.
    pub names: Option<Arc<NamedExpressions>>,
}

/// What was substituted for a placeholder in a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitute {
    /// The byte of [`Text::value`] at which the substitute begins.
    pub start: u32,
    /// The byte behind the substitute.
    pub end: u32,
    /// The placeholder, such as `${env:NAME}`.
    pub placeholder: Arc<str>,
}

impl Substitute {
    /// Whether the substitute is from outside of the file and of the command, as a secret is.
    fn is_secret(&self) -> bool {
        ["${env:", "${file:"]
            .iter()
            .any(|kind| self.placeholder.starts_with(kind))
    }
}

impl Text {
    /// A string without escapes that begins at the byte `start` of the file.
    pub fn plain(value: impl Into<String>, start: usize) -> Self {
        Text {
            value: value.into(),
            start: start as u32,
            shifts: Vec::new(),
            filled: Vec::new(),
            names: None,
        }
    }

    /// The string to show in messages: with placeholders instead of their substitutes.
    pub fn shown(&self) -> Cow<'_, str> {
        self.unfilled(0..self.value.len())
    }

    /// The part `range` of the value, with placeholders instead of their substitutes.
    pub fn unfilled(&self, range: Range<usize>) -> Cow<'_, str> {
        self.replaced(range, |_| true)
    }

    /// The part `range` of the value with placeholders instead of values of `${env:NAME}` and
    /// `${file:PATH}`; `None` if it has none.
    pub fn without_secrets(&self, range: Range<usize>) -> Option<String> {
        match self.replaced(range, Substitute::is_secret) {
            Cow::Borrowed(_) => None,
            Cow::Owned(replaced) => Some(replaced),
        }
    }

    fn replaced(
        &self,
        range: Range<usize>,
        is_replaced: impl Fn(&Substitute) -> bool,
    ) -> Cow<'_, str> {
        let part = |range: Range<usize>| self.value.get(range).unwrap_or_default();
        let mut shown = String::new();
        let mut copied = range.start;
        let is_inside = |filled: &&Substitute| {
            (filled.start as usize) < range.end && range.start < filled.end as usize
        };
        let inside = self.filled.iter().filter(is_inside);
        for filled in inside.filter(|filled| is_replaced(filled)) {
            shown.push_str(part(copied..(filled.start as usize).max(copied)));
            shown.push_str(&filled.placeholder);
            copied = (filled.end as usize).min(range.end);
        }
        match shown.is_empty() {
            true => part(range).into(),
            false => (shown + part(copied..range.end)).into(),
        }
    }

    /// Whether the value has a substitute.
    pub fn is_filled(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Compiles the string as a regular expression.
    ///
    /// # Errors
    /// It is not valid; the error says why.
    pub fn to_regex(&self) -> Result<Regex, Diagnostic> {
        Regex::new(&self.value).map_err(|error| {
            // The last line of the error is the reason. The lines before it show the expression,
            // which the diagnostic shows as well.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            Diagnostic::new(self.span(), "invalid regular expression", reason)
        })
    }

    /// The position in the file of the range `start..end` of [`Text::value`].
    pub fn span_of(&self, start: usize, end: usize) -> Span {
        Span::new(self.place(start), self.place(end))
    }

    /// The position in the file of the whole value, without its quotes.
    pub fn span(&self) -> Span {
        self.span_of(0, self.value.len())
    }

    /// The part `start..end` of the value, with its own source positions. It is empty if the range
    /// is not on character boundaries.
    pub fn slice(&self, start: usize, end: usize) -> Text {
        let value = self.value.get(start..end).unwrap_or_default().to_owned();
        self.locate(&Text::plain(value, start))
    }

    /// Translates the positions of `inner`, which was read from [`Text::value`], from offsets in
    /// that value to offsets in the file.
    pub(crate) fn locate(&self, inner: &Text) -> Text {
        let start = self.place(inner.start as usize);
        let outer_breaks = self
            .shifts
            .iter()
            .filter_map(|(at, _)| inner.byte_at(*at as usize));
        let inner_breaks = inner.shifts.iter().map(|(at, _)| *at as usize);
        let mut breaks: Vec<usize> = outer_breaks
            .chain(inner_breaks)
            .filter(|at| *at > 0)
            .collect();
        breaks.sort_unstable();
        breaks.dedup();
        let extra_at =
            |at: usize| (self.place(inner.place(at)) as i64 - start as i64 - at as i64) as i32;
        let shifts = breaks
            .into_iter()
            .map(|at| (at as u32, extra_at(at)))
            .collect();
        Text {
            value: inner.value.clone(),
            start: start as u32,
            shifts,
            filled: self.filled_of(inner),
            names: self.names.clone(),
        }
    }

    /// The substitutes in a part of the value.
    fn filled_of(&self, part: &Text) -> Vec<Substitute> {
        let (first, last) = (part.start, part.place(part.value.len()) as u32);
        let byte = |at: u32, other| part.byte_at(at as usize).unwrap_or(other) as u32;
        let inside = self.filled.iter();
        let inside = inside.filter(|filled| filled.start < last && first < filled.end);
        inside
            .map(|filled| Substitute {
                start: byte(filled.start.max(first), 0),
                end: byte(filled.end.min(last), part.value.len()),
                placeholder: filled.placeholder.clone(),
            })
            .collect()
    }

    /// The byte of the value at the file offset `place`, if there is one. File offsets increase
    /// with bytes, so it is found by binary search.
    fn byte_at(&self, place: usize) -> Option<usize> {
        let (mut low, mut high) = (0, self.value.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.place(middle) < place {
                low = middle + 1
            } else {
                high = middle
            }
        }
        (self.place(low) == place).then_some(low)
    }

    fn place(&self, byte: usize) -> usize {
        let after = self.shifts.partition_point(|(at, _)| *at as usize <= byte);
        let ahead = after
            .checked_sub(1)
            .and_then(|last| self.shifts.get(last))
            .map_or(0, |(_, extra)| *extra);
        let place = |byte: usize, ahead: i32| {
            (i64::from(self.start) + byte as i64 + i64::from(ahead)).max(0) as usize
        };
        // A substituted value can be longer than its placeholder. Its position must not extend into
        // the text after the placeholder.
        let limit = self
            .shifts
            .get(after)
            .map_or(usize::MAX, |(at, extra)| place(*at as usize, *extra));
        place(byte, ahead).min(limit)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text")
            .field("value", &self.shown())
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// The type of the value for messages: `a number`, `a string`, `a map` …
    pub fn describe(&self) -> &'static str {
        match self.kind {
            NodeKind::Nil => "nil",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::Int(_) | NodeKind::BigInt(_) | NodeKind::Float(_) | NodeKind::Decimal(_) => {
                "a number"
            }
            NodeKind::Char(_) => "a character",
            NodeKind::Str(_) => "a string",
            NodeKind::Symbol(_) => "a symbol",
            NodeKind::Keyword(_) => "a keyword",
            NodeKind::List(_) => "a list",
            NodeKind::Vector(_) => "a vector",
            NodeKind::Map(_) => "a map",
            NodeKind::Set(_) => "a set",
            NodeKind::Regex(_) => "a regular expression",
            NodeKind::Tagged(..) => "a tagged value",
        }
    }
}
