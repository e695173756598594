//! EDN values with their places.

use crate::Span;

/// A symbol's or keyword's name with its optional namespace: `a.b/c` is `c` in `a.b`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// What stands before the slash.
    pub namespace: Option<String>,
    /// What stands after it, or the whole name.
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

/// A value and where it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub kind: NodeKind,
    /// Its text, delimiters included.
    pub span: Span,
}

/// An EDN value. Equality of two nodes includes their places; compare [`NodeKind`]s of leaves to
/// leave them out.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits 64 bits.
    Int(i64),
    /// A whole number that does not fit, or one marked with `N`: its digits and sign.
    BigInt(String),
    /// A floating-point number.
    Float(f64),
    /// An exact number marked with `M`: its text without the mark.
    Decimal(String),
    /// `\a`, `\newline`, `\u0041`
    Char(char),
    /// A text, its escapes resolved.
    Str(Text),
    /// A symbol.
    Symbol(Name),
    /// A keyword, without its colon.
    Keyword(Name),
    /// `( … )`
    List(Vec<Node>),
    /// `[ … ]`
    Vector(Vec<Node>),
    /// `{ … }`, in the order of the file.
    Map(Vec<(Node, Node)>),
    /// `#{ … }`
    Set(Vec<Node>),
    /// `#r"…"`: a regular expression, exactly as written between the quotes.
    Regex(Text),
    /// `#tag value`, with `#inst` and `#uuid` checked when read.
    Tagged(Name, Box<Node>),
}

/// A text whose characters know where they stand in the file, so that a mistake in an expression
/// inside a string can be underlined there.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// What the text says.
    pub value: String,
    /// Where its first character stands in the file.
    pub start: u32,
    /// After each escape, how far the file's place runs ahead: `(byte in value, extra bytes in the
    /// file before it)`, in order. What `${env:NAME}` brought in may be longer than its own text,
    /// hence the sign.
    pub shifts: Vec<(u32, i32)>,
    /// Whether the value holds something that `${env:NAME}` or `${file:/path}` brought in. Such a
    /// text is never printed; use [`Text::shown`] in messages.
    pub secret: bool,
}

impl Text {
    /// A text that stands in the file as it is, without escapes, from the byte `start` on.
    pub fn plain(value: impl Into<String>, start: usize) -> Self {
        Text {
            value: value.into(),
            start: start as u32,
            shifts: Vec::new(),
            secret: false,
        }
    }

    /// The text for a message: its value, or `…` where that must not be seen.
    pub fn shown(&self) -> &str {
        if self.secret { "…" } else { &self.value }
    }

    /// The place in the file of the range `start..end` of [`Text::value`].
    pub fn span_of(&self, start: usize, end: usize) -> Span {
        Span::new(self.place(start), self.place(end))
    }

    /// The place in the file of the whole value, without its quotes.
    pub fn span(&self) -> Span {
        self.span_of(0, self.value.len())
    }

    /// The part `start..end` of the value as a text of its own. A range that does not lie between
    /// characters gives an empty text.
    pub fn slice(&self, start: usize, end: usize) -> Text {
        let value = self.value.get(start..end).unwrap_or_default().to_owned();
        self.locate(&Text::plain(value, start))
    }

    /// `inner` was read from [`Text::value`], so its places are bytes of that value; the result has
    /// places in the file.
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
            secret: self.secret || inner.secret,
        }
    }

    /// The byte of the value that stands at `place`, if it is one of this text's. Places grow with
    /// bytes, so it can be searched for.
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
        // A value that was brought in may be longer than the text it replaced: it must not reach
        // into what follows.
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
    /// What kind of value this is, for messages: `a number`, `a text`, `a map` …
    pub fn describe(&self) -> &'static str {
        match self.kind {
            NodeKind::Nil => "nil",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::Int(_) | NodeKind::BigInt(_) | NodeKind::Float(_) | NodeKind::Decimal(_) => {
                "a number"
            }
            NodeKind::Char(_) => "a character",
            NodeKind::Str(_) => "a text",
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
