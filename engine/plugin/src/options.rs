//! Checked option values.
//!
//! [`Options::parse`] converts the arguments of a stage to values by the plugin's declaration, and
//! reports all errors at once. After that a plugin reads its options by name and kind; reading an
//! option that it did not declare is a programming error and panics.

use std::collections::BTreeMap;
use std::time::Duration;

use pseidon_dsl::expr::{Expr, SelectItem};
use pseidon_dsl::template::Template;
use pseidon_dsl::{
    Diagnostic, Name, Node, NodeKind, Span, expr, nearest, node::Text, template, units,
};

use crate::spec::{OptionDefault, OptionGroup, OptionKind, OptionSpec, PluginSpec};

mod on_error;
mod schema;

pub use on_error::OnError;
pub use schema::{SchemaOption, print_schema, read_schema};

/// The parsed value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// [`OptionKind::String`], [`OptionKind::CheckedString`], [`OptionKind::Choice`]
    String(String),
    /// [`OptionKind::Bool`]
    Bool(bool),
    /// [`OptionKind::Integer`], [`OptionKind::Bytes`]
    Integer(u64),
    /// [`OptionKind::Number`]
    Number(f64),
    /// [`OptionKind::Duration`]
    Duration(Duration),
    /// [`OptionKind::Strings`], [`OptionKind::StringsOrRegex`]
    Strings(Vec<String>),
    /// [`OptionKind::StringsOrRegex`]
    Regex(String),
    /// [`OptionKind::Properties`]
    Properties(Vec<(String, String)>),
    /// [`OptionKind::Expr`]
    Expr(Expr),
    /// [`OptionKind::Exprs`]
    Exprs(Vec<(String, Expr)>),
    /// [`OptionKind::Select`]
    Select(Vec<SelectItem>),
    /// [`OptionKind::Template`]
    Template(Template),
    /// [`OptionKind::Schema`]
    Schema(SchemaOption),
    /// [`OptionKind::Map`]
    Map(Options),
    /// [`OptionKind::OnError`]
    OnError(OnError),
}

/// The checked options of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    values: BTreeMap<&'static str, (OptionValue, Span)>,
    span: Span,
}

impl Options {
    /// Checks a stage's arguments against the declaration.
    pub fn parse(spec: &PluginSpec, args: &[Node], span: Span) -> Result<Options, Vec<Diagnostic>> {
        let context = format!("`{}`", spec.name);
        match (args, spec.positional) {
            ([], _) => Options::parse_entries(&context, spec.options, &[], None, span),
            (
                [
                    Node {
                        kind: NodeKind::Map(entries),
                        ..
                    },
                ],
                _,
            ) => Options::parse_entries(&context, spec.options, entries, None, span),
            ([value], Some(first)) => {
                Options::parse_entries(&context, spec.options, &[], Some((first, value)), span)
            }
            (
                [
                    value,
                    Node {
                        kind: NodeKind::Map(entries),
                        ..
                    },
                ],
                Some(first),
            ) if !matches!(value.kind, NodeKind::Map(_)) => {
                Options::parse_entries(&context, spec.options, entries, Some((first, value)), span)
            }
            ([first, ..], _) => {
                let expected = if spec.positional.is_some() {
                    "one value, a map of options, or both"
                } else {
                    "a map of options"
                };
                let wrong = args
                    .iter()
                    .skip(1)
                    .fold(first.span, |span, arg| span.to(arg.span));
                Err(vec![
                    Diagnostic::new(
                        wrong,
                        format!("{context} does not accept these arguments"),
                        format!("expected {expected}"),
                    )
                    .with_help(format!("for example: {}", spec.example)),
                ])
            }
        }
    }

    /// Checks the entries of a map that is at `span` against the declaration.
    pub fn parse_group(
        group: &OptionGroup,
        entries: &[(Node, Node)],
        span: Span,
    ) -> Result<Options, Vec<Diagnostic>> {
        let context = format!("`{}`", group.name);
        Options::parse_entries(&context, group.options, entries, None, span)
    }

    fn parse_entries(
        context: &str,
        declared: &'static [OptionSpec],
        entries: &[(Node, Node)],
        positional: Option<(&'static str, &Node)>,
        span: Span,
    ) -> Result<Options, Vec<Diagnostic>> {
        let mut values = BTreeMap::new();
        let mut errors = Vec::new();
        let mut set = |option: &'static OptionSpec, value: &Node, errors: &mut Vec<Diagnostic>| {
            match parse_value(option, value) {
                Ok(parsed) => {
                    if values.insert(option.name, (parsed, value.span)).is_some() {
                        errors.push(Diagnostic::new(
                            value.span,
                            format!("duplicate option `:{}`", option.name),
                            "second occurrence",
                        ));
                    }
                }
                Err(more) => errors.extend(more),
            }
        };
        let mut mentioned = Vec::new();
        if let Some((name, value)) = positional
            && let Some(option) = declared.iter().find(|option| option.name == name)
        {
            mentioned.push(name);
            set(option, value, &mut errors);
        }
        for (key, value) in entries {
            let Some(name) = word(key) else {
                errors.push(Diagnostic::new(
                    key.span,
                    "this is not an option name",
                    "expected a keyword",
                ));
                continue;
            };
            match declared.iter().find(|option| option.name == name) {
                Some(option) => {
                    mentioned.push(option.name);
                    set(option, value, &mut errors);
                }
                None => errors.push(unknown_option(context, declared, name, key.span)),
            }
        }
        for option in declared
            .iter()
            .filter(|option| !mentioned.contains(&option.name))
        {
            match option.default {
                OptionDefault::None => {}
                OptionDefault::Required => {
                    let message =
                        format!("missing required option `:{}` of {context}", option.name);
                    errors.push(Diagnostic::new(
                        span,
                        message,
                        format!(
                            "expected `:{}` with {}",
                            option.name,
                            option.kind.describe()
                        ),
                    ));
                }
                OptionDefault::Value(text) => {
                    let text = Text::plain(text, span.start as usize);
                    let node = Node {
                        kind: NodeKind::Str(text),
                        span,
                    };
                    match parse_value(option, &node) {
                        Ok(parsed) => drop(values.insert(option.name, (parsed, span))),
                        Err(more) => errors.extend(more),
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(Options { values, span })
        } else {
            Err(errors)
        }
    }

    /// The span of the stage in the file.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The span of the option's value; the stage's span for a default.
    pub fn span_of(&self, name: &str) -> Span {
        self.values.get(name).map_or(self.span, |(_, span)| *span)
    }

    /// All values with their names, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptionValue)> {
        self.values.iter().map(|(name, (value, _))| (*name, value))
    }

    /// The value, if the option is set or has a default.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.values.get(name).map(|(value, _)| value)
    }

    /// Every expression in the options, including those of templates, selected columns and nested
    /// maps.
    pub fn exprs(&self) -> Vec<&Expr> {
        let mut found = Vec::new();
        for (_, value) in self.iter() {
            match value {
                OptionValue::Expr(expr) => found.push(expr),
                OptionValue::Exprs(exprs) => found.extend(exprs.iter().map(|(_, expr)| expr)),
                OptionValue::Select(items) => {
                    found.extend(items.iter().filter_map(|item| match item {
                        SelectItem::Column { expr, .. } => Some(expr),
                        SelectItem::All { .. } => None,
                    }))
                }
                OptionValue::Template(template) => {
                    found.extend(template.parts.iter().filter_map(|part| match part {
                        template::TemplatePart::Value { expr, .. } => Some(expr),
                        template::TemplatePart::Literal(_) => None,
                    }))
                }
                OptionValue::Map(options) => found.extend(options.exprs()),
                _ => {}
            }
        }
        found
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $variant:ident => $type:ty, $convert:expr;)*) => {
        impl Options {
            $(
                $(#[$doc])*
                pub fn $name(&self, name: &str) -> Option<$type> {
                    match self.get(name) {
                        None => None,
                        Some(OptionValue::$variant(value)) => Some($convert(value)),
                        Some(other) => {
                            panic!("the option `{name}` is declared as another kind: {other:?}")
                        }
                    }
                }
            )*
        }
    };
}

getters! {
    /// A string or a choice.
    string: String => &str, String::as_str;
    /// A boolean.
    bool: Bool => bool, |value: &bool| *value;
    /// An integer or a size in bytes.
    integer: Integer => u64, |value: &u64| *value;
    /// A number.
    number: Number => f64, |value: &f64| *value;
    /// A duration.
    duration: Duration => Duration, |value: &Duration| *value;
    /// A list of strings.
    strings: Strings => &[String], Vec::as_slice;
    /// Properties.
    properties: Properties => &[(String, String)], Vec::as_slice;
    /// An expression.
    expr: Expr => &Expr, |value| value;
    /// Named expressions.
    named_exprs: Exprs => &[(String, Expr)], Vec::as_slice;
    /// The items of `select`.
    select: Select => &[SelectItem], Vec::as_slice;
    /// A path template.
    template: Template => &Template, |value| value;
    /// A schema.
    schema: Schema => &SchemaOption, |value| value;
    /// Nested options.
    map: Map => &Options, |value| value;
    /// An error policy.
    on_error: OnError => &OnError, |value| value;
}

fn unknown_option(
    context: &str,
    declared: &'static [OptionSpec],
    name: &str,
    span: Span,
) -> Diagnostic {
    let error = Diagnostic::new(
        span,
        format!("{context} has no option `:{name}`"),
        "unknown option",
    );
    match nearest(name, declared.iter().map(|option| option.name)) {
        Some(near) => error.with_help(format!("did you mean `:{near}`?")),
        None => {
            let all = declared
                .iter()
                .map(|option| format!(":{}", option.name))
                .collect::<Vec<_>>();
            error.with_help(format!("available options: {}", all.join(" ")))
        }
    }
}

/// The name of a keyword, a symbol or, as in TOML, a string.
fn word(node: &Node) -> Option<&str> {
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
fn scalar(node: &Node) -> Option<String> {
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

fn parse_value(option: &'static OptionSpec, node: &Node) -> Result<OptionValue, Vec<Diagnostic>> {
    let wrong = || {
        let message = format!("`:{}` cannot be {}", option.name, node.describe());
        vec![Diagnostic::new(
            node.span,
            message,
            format!("expected {}", option.kind.describe()),
        )]
    };
    let because = |reason: String| {
        vec![Diagnostic::new(
            node.span,
            format!("invalid value for `:{}`", option.name),
            reason,
        )]
    };
    let value = match option.kind {
        OptionKind::String => OptionValue::String(scalar(node).ok_or_else(wrong)?),
        OptionKind::CheckedString(check) => {
            let text = scalar(node).ok_or_else(wrong)?;
            check(&text).map_err(because)?;
            OptionValue::String(text)
        }
        OptionKind::Choice(words) => OptionValue::String(parse_choice(option, words, node)?),
        OptionKind::Bool => OptionValue::Bool(
            scalar(node)
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)?,
        ),
        OptionKind::Integer => OptionValue::Integer(
            scalar(node)
                .and_then(|text| text.replace('_', "").parse().ok())
                .ok_or_else(wrong)?,
        ),
        OptionKind::Number => OptionValue::Number(
            scalar(node)
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)?,
        ),
        OptionKind::Bytes => OptionValue::Integer(
            units::size(&scalar(node).ok_or_else(wrong)?)
                .map_err(|error| because(error.to_string()))?,
        ),
        OptionKind::Duration => OptionValue::Duration(
            units::duration(&scalar(node).ok_or_else(wrong)?)
                .map_err(|error| because(error.to_string()))?,
        ),
        OptionKind::Strings => OptionValue::Strings(parse_texts(node).ok_or_else(wrong)?),
        OptionKind::StringsOrRegex => match &node.kind {
            NodeKind::Regex(regex) => OptionValue::Regex(regex.value.clone()),
            _ => OptionValue::Strings(parse_texts(node).ok_or_else(wrong)?),
        },
        OptionKind::Properties => {
            OptionValue::Properties(parse_properties(node).ok_or_else(wrong)?)
        }
        OptionKind::Expr => OptionValue::Expr(expr::parse(text(node).ok_or_else(wrong)?)?),
        OptionKind::Exprs => OptionValue::Exprs(parse_exprs(node, wrong)?),
        OptionKind::Select => match text(node).ok_or_else(wrong)? {
            // A variable that may be empty is allowed if the option is optional.
            text if text.value.is_empty() && option.default != OptionDefault::Required => {
                OptionValue::Select(Vec::new())
            }
            text => OptionValue::Select(expr::parse_select(text)?),
        },
        OptionKind::Template => {
            OptionValue::Template(template::parse(text(node).ok_or_else(wrong)?)?)
        }
        OptionKind::Schema => OptionValue::Schema(SchemaOption::parse(node)?),
        OptionKind::Map(declared) => {
            let context = format!("`:{}`", option.name);
            match &node.kind {
                NodeKind::Map(entries) => OptionValue::Map(Options::parse_entries(
                    &context, declared, entries, None, node.span,
                )?),
                // The default of a nested map is written as an empty string: all of its own
                // defaults.
                NodeKind::Str(text) if text.value.is_empty() => OptionValue::Map(
                    Options::parse_entries(&context, declared, &[], None, node.span)?,
                ),
                _ => return Err(wrong()),
            }
        }
        OptionKind::OnError => OptionValue::OnError(OnError::parse(node)?),
    };
    Ok(value)
}

fn parse_choice(
    option: &OptionSpec,
    words: &[&str],
    node: &Node,
) -> Result<String, Vec<Diagnostic>> {
    let expected = option.kind.describe();
    let Some(given) = scalar(node) else {
        return Err(vec![Diagnostic::new(
            node.span,
            format!("`:{}` cannot be {}", option.name, node.describe()),
            format!("expected {expected}"),
        )]);
    };
    if words.contains(&given.as_str()) {
        return Ok(given);
    }
    let shown = text(node).map_or(given.as_str(), Text::shown);
    let error = Diagnostic::new(
        node.span,
        format!("`:{}` cannot be `{shown}`", option.name),
        format!("expected {expected}"),
    );
    Err(vec![match nearest(&given, words.iter().copied()) {
        Some(near) => error.with_help(format!("did you mean `:{near}`?")),
        None => error,
    }])
}

fn text(node: &Node) -> Option<&Text> {
    match &node.kind {
        NodeKind::Str(text) => Some(text),
        _ => None,
    }
}

fn parse_texts(node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        NodeKind::Vector(items) | NodeKind::List(items) | NodeKind::Set(items) => {
            items.iter().map(scalar).collect()
        }
        _ => Some(vec![scalar(node)?]),
    }
}

fn parse_properties(node: &Node) -> Option<Vec<(String, String)>> {
    let NodeKind::Map(entries) = &node.kind else {
        return None;
    };
    entries
        .iter()
        .map(|(key, value)| Some((scalar(key)?, scalar(value)?)))
        .collect()
}

fn parse_exprs(
    node: &Node,
    wrong: impl Fn() -> Vec<Diagnostic>,
) -> Result<Vec<(String, Expr)>, Vec<Diagnostic>> {
    let NodeKind::Map(entries) = &node.kind else {
        return Err(wrong());
    };
    let mut exprs = Vec::new();
    for (key, value) in entries {
        let (Some(name), Some(text)) = (scalar(key), text(value)) else {
            return Err(wrong());
        };
        exprs.push((name, expr::parse(text)?));
    }
    Ok(exprs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Role;

    static SPEC: PluginSpec = PluginSpec {
        name: "test",
        role: Role::Sink,
        summary: "",
        details: "",
        positional: None,
        options: &[
            OptionSpec {
                name: "columns",
                kind: OptionKind::Select,
                default: OptionDefault::None,
                doc: "",
            },
            OptionSpec {
                name: "needed",
                kind: OptionKind::Select,
                default: OptionDefault::Required,
                doc: "",
            },
        ],
        free_options: &[],
        example: "",
    };

    fn parse(text: &str) -> Result<Options, Vec<Diagnostic>> {
        Options::parse(
            &SPEC,
            &pseidon_dsl::edn::read_all(text).unwrap(),
            Span::default(),
        )
    }

    #[test]
    fn selected_columns_are_expressions_too() {
        let options = parse(r#"{:columns "a, b + 1 as c" :needed "*, d"}"#).unwrap();
        assert_eq!(
            options
                .exprs()
                .into_iter()
                .map(Expr::to_string)
                .collect::<Vec<_>>(),
            ["a", "b + 1", "d"]
        );
    }

    #[test]
    fn only_an_optional_list_may_be_empty() {
        assert_eq!(
            parse(r#"{:columns "" :needed "a"}"#)
                .unwrap()
                .select("columns"),
            Some(&[][..])
        );
        assert!(parse(r#"{:needed ""}"#).is_err());
    }
}
