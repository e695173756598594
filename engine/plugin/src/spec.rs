//! How a plugin declares itself: one declaration gives parsing, checking, defaults and the
//! reference pages.

/// A plugin's declaration.
#[derive(Debug)]
pub struct PluginSpec {
    /// Its name in a pipeline file.
    pub name: &'static str,
    /// What it is.
    pub role: Role,
    /// One sentence, for lists.
    pub summary: &'static str,
    /// The rest of the documentation, as Markdown.
    pub details: &'static str,
    /// The option that the first argument gives when it is not a map: `(where "a > 1")`.
    pub positional: Option<&'static str>,
    /// What it can be told.
    pub options: &'static [OptionSpec],
    /// Options that are texts and yet decide neither lanes nor what is written, such as a broker's
    /// address: they may change after a crash.
    pub free_options: &'static [&'static str],
    /// A stage as it may stand in a pipeline file.
    pub example: &'static str,
}

/// What a plugin is in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Records come from it.
    Source,
    /// Records go through it.
    Transform,
    /// Records leave in it.
    Sink,
}

impl Role {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
        }
    }
}

/// The declaration of one option.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name, as the keyword without the colon.
    pub name: &'static str,
    /// What its value is.
    pub kind: OptionKind,
    /// What holds without it.
    pub default: OptionDefault,
    /// What it does, as Markdown, one or a few sentences.
    pub doc: &'static str,
}

/// What holds when an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionDefault {
    /// The file is wrong without it.
    Required,
    /// There is no value; the option's documentation says what that means.
    None,
    /// This value, written as the user would write it in a text.
    Value(&'static str),
}

/// Kinds of option values. Each scalar kind may also be given as a text, since `${env:NAME}` can
/// only stand in one.
#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// Any text; a keyword or symbol is taken as its name.
    Text,
    /// A text that the function accepts; its error says what was expected.
    Checked(fn(&str) -> Result<(), String>),
    /// One of these words, as a keyword or a text.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number from 0 up.
    Count,
    /// A number, possibly with a fraction.
    Number,
    /// A size in bytes: `"128MB"`, `1000000`.
    Bytes,
    /// A time: `"60s"`; a bare number is milliseconds.
    Duration,
    /// A vector of texts, or one text.
    Texts,
    /// The same, or a regular expression: `#r"clicks-.*"`.
    TextsOrRegex,
    /// A map from texts to texts, numbers or booleans.
    Properties,
    /// An SQL expression.
    Expr,
    /// A map from names to SQL expressions.
    Exprs,
    /// The items of `select`.
    Select,
    /// A path template: `out/{status}/{at:%Y}`.
    Template,
    /// A map from field names to types, or `:infer`.
    Schema,
    /// A map of further options.
    Map(&'static [OptionSpec]),
    /// What happens to a bad record: `:throw`, `:noop`, `{:retry …}`, `{:quarantine …}`.
    OnError,
}

impl OptionKind {
    /// What a value looks like, for messages and reference pages.
    pub fn describe(self) -> String {
        match self {
            OptionKind::Text | OptionKind::Checked(_) => "a text".into(),
            OptionKind::Choice(words) => words
                .iter()
                .map(|word| format!(":{word}"))
                .collect::<Vec<_>>()
                .join(" or "),
            OptionKind::Bool => "true or false".into(),
            OptionKind::Count => "a whole number".into(),
            OptionKind::Number => "a number".into(),
            OptionKind::Bytes => "a size, such as \"128MB\"".into(),
            OptionKind::Duration => "a time, such as \"60s\"".into(),
            OptionKind::Texts => "a text or a vector of texts".into(),
            OptionKind::TextsOrRegex => "a text, a vector of texts or a regular expression".into(),
            OptionKind::Properties => "a map of texts".into(),
            OptionKind::Expr => "an SQL expression in a text".into(),
            OptionKind::Exprs => "a map from names to SQL expressions".into(),
            OptionKind::Select => "a list of columns in a text, such as \"a, b.c as c\"".into(),
            OptionKind::Template => "a path template, such as \"out/{status}\"".into(),
            OptionKind::Schema => "a map from field names to types, or :infer".into(),
            OptionKind::Map(_) => "a map".into(),
            OptionKind::OnError => ":throw, :noop, {:retry …} or {:quarantine …}".into(),
        }
    }
}
