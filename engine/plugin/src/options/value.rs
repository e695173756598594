//! The value of an option: the trait of its types, and what a pipeline file has for it.

use pseidon_dsl::expr::Expr;
use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span, nearest, node::Text};

use crate::spec::{OptionDefault, OptionKind, OptionSpec};

/// A parsed value, or all errors in it.
pub type ParseResult<T> = Result<T, Vec<Diagnostic>>;

/// A type of values that an option can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type of option values",
    note = "derive `Options` for a group, `Choice` for an enum, or implement `OptionValue`"
)]
pub trait OptionValue: Sized {
    /// What a value looks like, for messages and the reference pages.
    const KIND: OptionKind;

    /// Whether the option can be missing without a default in its declaration.
    const OPTIONAL: bool = false;

    /// Parses the value that a pipeline file has for the option.
    ///
    /// # Errors
    /// All errors in the value.
    fn parse(argument: &Argument<'_>) -> ParseResult<Self>;

    /// The value of a missing option, if it is [`OptionValue::OPTIONAL`].
    fn missing() -> Option<Self> {
        None
    }

    /// The value as a string, if it decides which lanes a stage has or what it writes. Numbers,
    /// sizes, durations and nested groups do not.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Appends the expressions in the value.
    fn exprs<'a>(&'a self, _found: &mut Vec<&'a Expr>) {}
}

/// An enum of names, such as `:earliest` and `:latest`. Use the derive macro to implement it.
pub trait Choice: OptionValue {
    /// All names, in the order of the variants.
    const NAMES: &'static [&'static str];

    /// The value with this name.
    fn named(name: &str) -> Option<Self>;

    /// The name of the value.
    fn name(&self) -> &'static str;
}

/// A value with its position in the file. The position of a default is that of the stage or map to
/// which the option belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpannedValue<T> {
    /// The parsed value.
    pub value: T,
    /// Where it is written, for errors.
    pub span: Span,
}

impl<T> SpannedValue<T> {
    /// An error at this position.
    pub fn error(&self, message: impl Into<String>, expected: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.span, message, expected)
    }
}

/// What a pipeline file has as the value of an option.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a> {
    option: &'static OptionSpec,
    node: &'a Node,
}

impl<'a> Argument<'a> {
    pub(super) fn new(option: &'static OptionSpec, node: &'a Node) -> Argument<'a> {
        Argument { option, node }
    }

    /// The name of the option.
    pub fn name(&self) -> &'static str {
        self.option.name
    }

    /// Whether the option must be set.
    pub fn is_required(&self) -> bool {
        self.option.default == OptionDefault::Required
    }

    /// The value as it is in the file.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The position of the value.
    pub fn span(&self) -> Span {
        self.node.span
    }

    /// A scalar as it would be written in a string. Any scalar can be written as a string, because
    /// `${env:NAME}` is only allowed in strings.
    pub fn scalar(&self) -> ParseResult<String> {
        scalar(self.node).ok_or_else(|| self.wrong_kind())
    }

    /// A scalar that this function accepts; its error says what was expected.
    pub fn checked<T, E: ToString>(&self, parse: impl Fn(&str) -> Result<T, E>) -> ParseResult<T> {
        parse(&self.scalar()?).map_err(|error| self.invalid(error.to_string()))
    }

    /// A string. A keyword or a symbol is its name. A number is not a string: where one is expected,
    /// such as a path, a number is probably not meant.
    pub fn string(&self) -> ParseResult<String> {
        string(self.node).ok_or_else(|| self.wrong_kind())
    }

    /// A string with its positions. It may be written as `#r"…"`, in which a backslash is a
    /// backslash.
    pub fn text(&self) -> ParseResult<&'a Text> {
        match &self.node.kind {
            NodeKind::Regex(text) => Ok(text),
            _ => text(self.node).ok_or_else(|| self.wrong_kind()),
        }
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> ParseResult<&'a [(Node, Node)]> {
        match &self.node.kind {
            NodeKind::Map(entries) => Ok(entries),
            _ => Err(self.wrong_kind()),
        }
    }

    /// One of the names of a choice.
    pub fn choice<T: Choice>(&self) -> ParseResult<T> {
        let name = self.scalar()?;
        if let Some(value) = T::named(&name) {
            return Ok(value);
        }
        let shown = text(self.node).map_or(name.as_str().into(), Text::shown);
        let error = Diagnostic::new(
            self.node.span,
            format!("`:{}` cannot be `{shown}`", self.option.name),
            format!("expected {}", self.option.kind.describe()),
        );
        if let Some(plain) = name.strip_prefix(':').and_then(T::named) {
            let help = format!("write \"{}\" without the colon", plain.name());
            return Err(vec![error.with_help(help)]);
        }
        let mut synonyms = SYNONYMS.iter().filter(|(other, _)| *other == name);
        let synonym = synonyms.find_map(|(_, ours)| T::NAMES.iter().copied().find(|it| it == ours));
        Err(vec![
            match synonym.or(nearest(&name, T::NAMES.iter().copied())) {
                Some(near) => error.with_help(format!("did you mean `:{near}`?")),
                None => error,
            },
        ])
    }

    /// The error of a value that is not of the option's kind.
    pub fn wrong_kind(&self) -> Vec<Diagnostic> {
        self.error(
            format!("`:{}` cannot be {}", self.option.name, self.node.describe()),
            format!("expected {}", self.option.kind.describe()),
        )
    }

    /// The error of a value that is not valid for this reason.
    pub fn invalid(&self, reason: String) -> Vec<Diagnostic> {
        self.error(format!("invalid value for `:{}`", self.option.name), reason)
    }

    /// An error at the value.
    pub fn error(
        &self,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) -> Vec<Diagnostic> {
        vec![Diagnostic::new(self.node.span, message, expected)]
    }
}

/// Names that other tools have for a choice.
const SYNONYMS: [(&str, &str); 13] = [
    ("beginning", "earliest"),
    ("bz2", "bzip2"),
    ("end", "latest"),
    ("first", "earliest"),
    ("gz", "gzip"),
    ("jsonl", "json"),
    ("last", "latest"),
    ("ndjson", "json"),
    ("newest", "latest"),
    ("oldest", "earliest"),
    ("text", "txt"),
    ("zstandard", "zstd"),
    ("zst", "zstd"),
];

/// The name of a keyword, a symbol or, as in TOML, a string.
pub(super) fn word(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Keyword(Name {
            namespace: None,
            name,
        })
        | NodeKind::Symbol(Name {
            namespace: None,
            name,
        }) => Some(name),
        NodeKind::Str(text) => Some(&text.value),
        _ => None,
    }
}

/// A scalar as a user would write it in a string.
pub(super) fn scalar(node: &Node) -> Option<String> {
    Some(match &node.kind {
        NodeKind::Str(text) => text.value.clone(),
        NodeKind::Keyword(name) | NodeKind::Symbol(name) => name.to_string(),
        NodeKind::Int(number) => number.to_string(),
        NodeKind::BigInt(digits) | NodeKind::Decimal(digits) => digits.clone(),
        NodeKind::Float(number) => number.to_string(),
        NodeKind::Bool(value) => value.to_string(),
        _ => return None,
    })
}

/// A string, or the name of a keyword or a symbol.
pub(super) fn string(node: &Node) -> Option<String> {
    match &node.kind {
        NodeKind::Str(_) | NodeKind::Keyword(_) | NodeKind::Symbol(_) => scalar(node),
        _ => None,
    }
}

pub(super) fn text(node: &Node) -> Option<&Text> {
    match &node.kind {
        NodeKind::Str(text) => Some(text),
        _ => None,
    }
}
