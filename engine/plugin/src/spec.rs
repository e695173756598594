//! Plugin declarations. One declaration is the source of parsing, checks, defaults and the
//! reference pages.

/// The declaration of a plugin or a transform.
#[derive(Debug)]
pub struct PluginSpec {
    /// The name in a pipeline file.
    pub name: &'static str,
    /// The place of the plugin in a flow.
    pub role: Role,
    /// One sentence, for lists.
    pub summary: &'static str,
    /// The rest of the documentation, as Markdown.
    pub details: &'static str,
    /// The option that the first argument sets if it is not a map: `(where "a > 1")`.
    pub positional: &'static [&'static str],
    /// The options in the order of the reference page.
    pub options: &'static [OptionSpec],
    /// An example stage of a pipeline file.
    pub example: &'static str,
}

/// Options that belong to no plugin, such as `:settings`.
#[derive(Debug)]
pub struct OptionGroup {
    /// Its name in messages.
    pub name: &'static str,
    /// One sentence about it.
    pub summary: &'static str,
    /// The options in the order of the reference page.
    pub options: &'static [OptionSpec],
    /// A map of options as it may be in a pipeline file.
    pub example: &'static str,
}

/// The place of a plugin in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Emits records.
    Source,
    /// Transforms or filters records.
    Transform,
    /// Writes records.
    Sink,
}

impl Role {
    /// The role in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
        }
    }
}

/// The declaration of one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name: the keyword without the colon.
    pub name: &'static str,
    /// The kind of the value.
    pub kind: OptionKind,
    /// The value without the option.
    pub default: OptionDefault,
    /// The documentation, as Markdown: one or a few sentences.
    pub doc: &'static str,
}

/// The value of an option that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionDefault {
    /// The option must be set.
    Required,
    /// There is no value; the option's documentation says what that means.
    None,
    /// This value, written as a user would write it in a string.
    Value(&'static str),
}

/// The kinds of option values. Each scalar kind may also be written as a string, since
/// `${env:NAME}` is only allowed in strings.
#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// Any string; a keyword or symbol stands for its name.
    String,
    /// One of these words, as a keyword or a string.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// An integer that is not negative.
    Integer,
    /// An integer in a range.
    IntegerIn {
        /// The least value.
        min: u64,
        /// The greatest value; `u64::MAX` for no limit.
        max: u64,
    },
    /// A number, possibly with a fraction.
    Number,
    /// A size in bytes: `"128MB"`, `1000000`.
    Bytes,
    /// A duration: `"60s"`; a bare number is in milliseconds.
    Duration,
    /// A vector of strings, or one string.
    Strings,
    /// Strings, or a regular expression: `#r"clicks-.*"`.
    StringsOrRegex,
    /// A regular expression: `#r"^\d"`.
    Regex,
    /// A map from strings to strings, numbers or booleans.
    Properties,
    /// An SQL expression in a string: `"n > 3"`.
    Expr,
    /// A map from names to SQL expressions.
    Exprs,
    /// The items of `select`.
    Select,
    /// The items of `set`.
    Assignments,
    /// The paths of `remove`.
    Paths,
    /// The items of `rename`.
    Renamings,
    /// A path template: `out/{status}/{at:%Y}`.
    Template,
    /// A map from field names to types, or `:infer`.
    Schema,
    /// A map of further options.
    Map(&'static [OptionSpec]),
    /// What happens to an invalid record: `:throw`, `:noop`, `{:retry …}`, `{:quarantine …}`.
    OnError,
}

impl OptionKind {
    /// What a value looks like, with an article, for messages and reference pages.
    pub fn describe(self) -> String {
        match self {
            OptionKind::String => "a string".into(),
            OptionKind::Choice(words) => words
                .iter()
                .map(|word| format!(":{word}"))
                .collect::<Vec<_>>()
                .join(" or "),
            OptionKind::Bool => "true or false".into(),
            OptionKind::Integer => "an integer".into(),
            OptionKind::IntegerIn { min, max: u64::MAX } => {
                format!("an integer of at least {min}")
            }
            OptionKind::IntegerIn { min, max } => format!("an integer from {min} to {max}"),
            OptionKind::Number => "a number".into(),
            OptionKind::Bytes => "a size, such as \"128MB\"".into(),
            OptionKind::Duration => "a duration, such as \"60s\"".into(),
            OptionKind::Strings => "a string or a vector of strings".into(),
            OptionKind::StringsOrRegex => {
                "a string, a vector of strings or a regular expression".into()
            }
            OptionKind::Regex => "a regular expression, such as #r\"^[0-9]\"".into(),
            OptionKind::Properties => "a map of strings".into(),
            OptionKind::Expr => "a string with an SQL expression".into(),
            OptionKind::Exprs => "a map from names to SQL expressions".into(),
            OptionKind::Select => "a string with a list of columns, such as \"a, b.c as c\"".into(),
            OptionKind::Assignments => {
                "a string with a list of assignments, such as \"kind = upper(type)\"".into()
            }
            OptionKind::Paths => "a string with a list of fields, such as \"a, b.c\"".into(),
            OptionKind::Renamings => {
                "a string with a list of fields and their new names, such as \"usr as user\"".into()
            }
            OptionKind::Template => "a path template, such as \"out/{status}\"".into(),
            OptionKind::Schema => "a map from field names to types, or :infer".into(),
            OptionKind::Map(_) => "a map".into(),
            OptionKind::OnError => ":throw, :noop, {:retry …} or {:quarantine …}".into(),
        }
    }
}
