//! The reader of a group: matches what a file sets with the declared options, and collects errors.

use pseidon_dsl::{Diagnostic, Node, NodeKind, Span, nearest, node::Text};

use super::Options;
use super::value::{Argument, OptionValue, ParseResult, word};
use crate::spec::{OptionDefault, OptionSpec};

/// The reader of the options of a stage or of a map. The code that the derive macro generates uses
/// it.
pub struct Reader<'a> {
    /// The stage or map, for messages.
    context: String,
    declared: &'static [OptionSpec],
    /// The position of the stage or map.
    span: Span,
    /// The name and the value of each option that is set, in the order of the file.
    settings: Vec<(&'static str, &'a Node)>,
    /// Errors in settings, each with its place in `settings`.
    errors: Vec<(usize, Diagnostic)>,
    /// The options that were probably meant by unknown ones. They do not count as missing.
    suggested: Vec<&'static str>,
    /// Missing options. They are reported after all other errors.
    missing: Vec<Diagnostic>,
}

/// Names that other tools have for an option, or that another stage has for it.
const SYNONYMS: [(&str, &str); 30] = [
    ("bootstrap-servers", "brokers"),
    ("bootstrap.servers", "brokers"),
    ("bootstrap_servers", "brokers"),
    ("codec", "format"),
    ("consumer-group", "group"),
    ("consumer_group", "group"),
    ("dir", "path"),
    ("directory", "path"),
    ("encoding", "codec"),
    ("encoding", "format"),
    ("expr", "condition"),
    ("expression", "condition"),
    ("file", "path"),
    ("files", "path"),
    ("folder", "path"),
    ("format", "codec"),
    ("from", "start"),
    ("glob", "path"),
    ("group-id", "group"),
    ("group.id", "group"),
    ("group_id", "group"),
    ("hosts", "brokers"),
    ("include", "path"),
    ("offset", "start"),
    ("query", "condition"),
    ("servers", "brokers"),
    ("source", "path"),
    ("start-from", "start"),
    ("when", "condition"),
    ("where", "condition"),
];

impl<'a> Reader<'a> {
    pub(super) fn new(context: String, declared: &'static [OptionSpec], span: Span) -> Reader<'a> {
        Reader {
            context,
            declared,
            span,
            settings: Vec::new(),
            errors: Vec::new(),
            suggested: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The position of the stage or map in the file.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Adds the arguments of a stage: values for the options `positional`, a map, or both.
    pub(super) fn add_arguments(
        &mut self,
        args: &'a [Node],
        positional: &'static [&'static str],
        example: &str,
    ) -> ParseResult<()> {
        let (values, entries) = match args.split_last() {
            Some((last, values)) if entries_of(last).is_some() => (values, entries_of(last)),
            _ => (args, None),
        };
        let has_map = values.iter().any(|value| entries_of(value).is_some());
        if has_map || values.len() > positional.len() {
            return Err(self.unexpected(args, positional, example));
        }
        self.settings.extend(positional.iter().copied().zip(values));
        self.add_entries(entries.unwrap_or_default());
        Ok(())
    }

    fn unexpected(
        &self,
        args: &[Node],
        positional: &'static [&'static str],
        example: &str,
    ) -> Vec<Diagnostic> {
        let expected = match positional {
            [] => "expected a map of options",
            [_] => "expected one value, a map of options, or both",
            _ => "expected values, a map of options, or both",
        };
        let spans = args.iter().map(|arg| arg.span);
        let place = spans.reduce(Span::to).unwrap_or(self.span);
        let message = format!("{} does not accept these arguments", self.context);
        let error = Diagnostic::new(place, message, expected);
        vec![error.with_help(format!("for example: {example}"))]
    }

    /// Adds the entries of a map.
    pub(super) fn add_entries(&mut self, entries: &'a [(Node, Node)]) {
        for (key, value) in entries {
            let Some(name) = word(key) else {
                self.add_error(Diagnostic::new(
                    key.span,
                    "this is not an option name",
                    "expected a keyword",
                ));
                continue;
            };
            match self.declared.iter().find(|option| option.name == name) {
                Some(option) => self.settings.push((option.name, value)),
                None => {
                    let error = self.unknown(name, key.span);
                    self.add_error(error);
                }
            }
        }
    }

    /// Adds an error that is before the next setting.
    fn add_error(&mut self, error: Diagnostic) {
        self.errors.push((self.settings.len(), error));
    }

    fn unknown(&mut self, name: &str, span: Span) -> Diagnostic {
        let error = Diagnostic::new(
            span,
            format!("{} has no option `:{name}`", self.context),
            "unknown option",
        );
        let names = self.declared.iter().map(|option| option.name);
        let mut synonyms = SYNONYMS.iter().filter(|(other, _)| *other == name);
        let synonym = synonyms.find_map(|(_, ours)| names.clone().find(|name| name == ours));
        if let Some(near) = synonym.or(nearest(name, names.clone())) {
            self.suggested.push(near);
            return error.with_help(format!("did you mean `:{near}`?"));
        }
        if let Some(help) = self.setting_of_format(name) {
            return error.with_help(help);
        }
        let all: Vec<String> = names.map(|name| format!(":{name}")).collect();
        error.with_help(format!("available options: {}", all.join(" ")))
    }

    /// The help for a setting of CSV that other programs have as an option: where it is here. A
    /// sink has the options of `:csv`.
    fn setting_of_format(&self, name: &str) -> Option<&'static str> {
        let has = |name: &str| self.declared.iter().any(|option| option.name == name);
        let setting = match name {
            "has-header" => "header",
            "columns" | "names" | "column-names" => "fields",
            "separator" | "delimiter" | "delim" => "sep",
            "quotes" | "quotechar" => "quote",
            "escapechar" => "escape",
            "comments" => "comment",
            "nullstr" | "null-values" => "null",
            "decimal-separator" => "decimal",
            other => other,
        };
        match setting {
            "header" if has("csv") => Some("it is an option of CSV: :csv {:header false}"),
            "sep" if has("csv") => Some("it is an option of CSV: :csv {:sep \"semicolon\"}"),
            "null" if has("csv") => Some("it is an option of CSV: :csv {:null \"NULL\"}"),
            "decimal" if has("csv") => Some("it is an option of CSV: :csv {:decimal :comma}"),
            _ if has("csv") || !has("format") => None,
            "header" => Some(
                "the first line of a CSV file is its header; if there is none, set :format \
                 \"csv:header=false\"",
            ),
            "fields" => Some(
                "the first line of a CSV file is its header; if there is none, name the fields: \
                 :format \"csv:fields=a,b,c\"",
            ),
            "sep" => Some("it is a setting of the format: :format \"csv:sep=semicolon\""),
            "quote" => Some("it is a setting of the format: :format \"csv:quote=none\""),
            "escape" => Some("it is a setting of the format: :format \"csv:escape=backslash\""),
            "comment" => Some("it is a setting of the format: :format \"csv:comment=#\""),
            "null" => Some("it is a setting of the format: :format \"csv:null=NULL\""),
            "decimal" => Some("it is a setting of the format: :format \"csv:decimal=comma\""),
            _ => None,
        }
    }

    /// The value of an option, or its default. Returns `None` if it is missing or invalid, which
    /// the reader reports.
    pub fn value<T: OptionValue>(&mut self, option: &'static OptionSpec) -> Option<T> {
        let mut settings = self
            .settings
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| *name == option.name);
        let Some((place, (_, node))) = settings.next() else {
            return self.default_value(option);
        };
        for (place, (_, node)) in settings {
            let message = format!("duplicate option `:{}`", option.name);
            let error = Diagnostic::new(node.span, message, "second occurrence");
            self.errors.push((place, error));
        }
        T::parse(&Argument::new(option, node))
            .map_err(|errors| {
                let errors = errors.into_iter().map(|error| (place, error));
                self.errors.extend(errors);
            })
            .ok()
    }

    fn default_value<T: OptionValue>(&mut self, option: &'static OptionSpec) -> Option<T> {
        match option.default {
            OptionDefault::None => T::missing(),
            OptionDefault::Value(text) => {
                let text = Text::plain(text, self.span.start as usize);
                let node = Node {
                    kind: NodeKind::Str(text),
                    span: self.span,
                };
                T::parse(&Argument::new(option, &node))
                    .map_err(|errors| self.missing.extend(errors))
                    .ok()
            }
            OptionDefault::Required if self.suggested.contains(&option.name) => None,
            OptionDefault::Required => {
                self.missing.push(Diagnostic::new(
                    self.span,
                    format!(
                        "missing required option `:{}` of {}",
                        option.name, self.context
                    ),
                    format!(
                        "expected `:{}` with {}",
                        option.name,
                        option.kind.describe()
                    ),
                ));
                None
            }
        }
    }

    /// Reads the options. All errors are reported together: those in settings in the order of the
    /// file, then missing options.
    pub(super) fn finish<T: Options>(mut self) -> ParseResult<T> {
        let options = T::read(&mut self);
        self.errors.sort_by_key(|(place, _)| *place);
        let errors = self.errors.into_iter().map(|(_, error)| error);
        let errors: Vec<Diagnostic> = errors.chain(self.missing).collect();
        match options {
            Some(options) if errors.is_empty() => Ok(options),
            _ => Err(errors),
        }
    }
}

impl Argument<'_> {
    /// The options in a map.
    pub fn map<T: Options>(&self) -> ParseResult<T> {
        let entries = match &self.node().kind {
            NodeKind::Map(entries) => entries.as_slice(),
            // The default of a group is written as an empty string: all of its own defaults.
            NodeKind::Str(text) if text.value.is_empty() => &[],
            _ => return Err(self.wrong_kind()),
        };
        T::parse_map(&format!(":{}", self.name()), entries, self.span())
    }
}

fn entries_of(node: &Node) -> Option<&[(Node, Node)]> {
    match &node.kind {
        NodeKind::Map(entries) => Some(entries),
        _ => None,
    }
}
