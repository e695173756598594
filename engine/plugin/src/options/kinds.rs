//! The kinds of option values: the types of this crate, of the language of pipeline files, and of
//! the standard library that a field of options can have.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::expr::{Expr, SelectItem, parse, parse_select};
use pseidon_dsl::template::{self, Template, TemplatePart};
use pseidon_dsl::{Diagnostic, Node, NodeKind, units};

use super::value::{Argument, OptionValue, ParseResult, SpannedValue, scalar, string, text};
use crate::secret::MASK;
use crate::spec::OptionKind;

impl<T: OptionValue> OptionValue for Option<T> {
    const KIND: OptionKind = T::KIND;
    const OPTIONAL: bool = true;

    fn parse(argument: &Argument<'_>) -> ParseResult<Option<T>> {
        T::parse(argument).map(Some)
    }

    fn missing() -> Option<Option<T>> {
        Some(None)
    }

    fn identity(&self) -> Option<String> {
        self.as_ref()?.identity()
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        self.iter().for_each(|value| value.exprs(found));
    }
}

impl<T: OptionValue> OptionValue for SpannedValue<T> {
    const KIND: OptionKind = T::KIND;

    fn parse(argument: &Argument<'_>) -> ParseResult<SpannedValue<T>> {
        Ok(SpannedValue {
            value: T::parse(argument)?,
            span: argument.span(),
        })
    }

    fn identity(&self) -> Option<String> {
        self.value.identity()
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        self.value.exprs(found);
    }
}

/// Any string; a keyword or symbol stands for its name.
impl OptionValue for String {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<String> {
        argument.string()
    }

    fn identity(&self) -> Option<String> {
        Some(self.clone())
    }
}

/// A path, absolute or relative to the folder of the pipeline file.
impl OptionValue for PathBuf {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<PathBuf> {
        argument.string().map(PathBuf::from)
    }

    fn identity(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl OptionValue for IpAddr {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<IpAddr> {
        let expected = "expected an IP address such as \"127.0.0.1\"";
        argument.checked(|text| text.parse().map_err(|_| expected))
    }
}

impl OptionValue for bool {
    const KIND: OptionKind = OptionKind::Bool;

    fn parse(argument: &Argument<'_>) -> ParseResult<bool> {
        let text = argument.scalar()?;
        text.parse().map_err(|_| argument.wrong_kind())
    }
}

/// An integer that is not negative.
impl OptionValue for u64 {
    const KIND: OptionKind = OptionKind::Integer;

    fn parse(argument: &Argument<'_>) -> ParseResult<u64> {
        let digits = argument.scalar()?.replace('_', "");
        digits.parse().map_err(|_| argument.wrong_kind())
    }
}

/// An integer from `MIN` to `MAX`; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IntegerIn<const MIN: u64, const MAX: u64>(u64);

/// An integer of at least 1.
pub type PositiveInteger = IntegerIn<1, { u64::MAX }>;

impl<const MIN: u64, const MAX: u64> IntegerIn<MIN, MAX> {
    /// The number, from `MIN` to `MAX`.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> OptionValue for IntegerIn<MIN, MAX> {
    const KIND: OptionKind = OptionKind::IntegerIn { min: MIN, max: MAX };

    fn parse(argument: &Argument<'_>) -> ParseResult<IntegerIn<MIN, MAX>> {
        let number = u64::parse(argument)?;
        if !(MIN..=MAX).contains(&number) {
            let message = format!("`:{}` is out of range", argument.name());
            return Err(argument.error(message, format!("expected {}", Self::KIND.describe())));
        }
        Ok(IntegerIn(number))
    }
}

/// A number, possibly with a fraction.
impl OptionValue for f64 {
    const KIND: OptionKind = OptionKind::Number;

    fn parse(argument: &Argument<'_>) -> ParseResult<f64> {
        let text = argument.scalar()?;
        text.parse().map_err(|_| argument.wrong_kind())
    }
}

/// A size in bytes: `"128MB"`, `1000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl OptionValue for ByteSize {
    const KIND: OptionKind = OptionKind::Bytes;

    fn parse(argument: &Argument<'_>) -> ParseResult<ByteSize> {
        argument.checked(units::size).map(ByteSize)
    }
}

/// A duration: `"60s"`; a bare number is in milliseconds.
impl OptionValue for Duration {
    const KIND: OptionKind = OptionKind::Duration;

    fn parse(argument: &Argument<'_>) -> ParseResult<Duration> {
        argument.checked(units::duration)
    }
}

/// A vector of strings, or one string.
impl OptionValue for Vec<String> {
    const KIND: OptionKind = OptionKind::Strings;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<String>> {
        let (NodeKind::Vector(items) | NodeKind::List(items) | NodeKind::Set(items)) =
            &argument.node().kind
        else {
            return argument.string().map(|only| vec![only]);
        };
        let item = |node: &Node| {
            string(node).ok_or_else(|| {
                let message = format!("`:{}` cannot contain {}", argument.name(), node.describe());
                vec![Diagnostic::new(node.span, message, "expected a string")]
            })
        };
        items.iter().map(item).collect()
    }

    fn identity(&self) -> Option<String> {
        Some(self.join("\u{1}"))
    }
}

/// Names, or a regular expression for names: `#r"clicks-.*"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesOrRegex {
    /// These names.
    Names(Vec<String>),
    /// All names that match.
    Regex(String),
}

impl OptionValue for NamesOrRegex {
    const KIND: OptionKind = OptionKind::StringsOrRegex;

    fn parse(argument: &Argument<'_>) -> ParseResult<NamesOrRegex> {
        match &argument.node().kind {
            NodeKind::Regex(regex) => match regex.to_regex() {
                Ok(_) => Ok(NamesOrRegex::Regex(regex.value.clone())),
                Err(error) => Err(vec![error]),
            },
            _ => Vec::parse(argument).map(NamesOrRegex::Names),
        }
    }

    fn identity(&self) -> Option<String> {
        match self {
            NamesOrRegex::Names(names) => names.identity(),
            NamesOrRegex::Regex(pattern) => pattern.identity(),
        }
    }
}

/// A regular expression in the syntax of the crate `regex`: `#r"^\d{4}-"`, or a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(
    /// Its text, which is a valid regular expression.
    pub String,
);

impl OptionValue for Pattern {
    const KIND: OptionKind = OptionKind::Regex;

    fn parse(argument: &Argument<'_>) -> ParseResult<Pattern> {
        let text = argument.text()?;
        match text.to_regex() {
            Ok(_) => Ok(Pattern(text.value.clone())),
            Err(error) => Err(vec![error]),
        }
    }

    fn identity(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A map from strings to strings, numbers or booleans, in the order of the file. Any value may be a
/// secret, so `{:?}` prints only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(String, String)>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = self.0.iter().map(|(name, _)| (name, MASK));
        f.debug_map().entries(masked).finish()
    }
}

impl OptionValue for Properties {
    const KIND: OptionKind = OptionKind::Properties;

    fn parse(argument: &Argument<'_>) -> ParseResult<Properties> {
        argument
            .entries()?
            .iter()
            .map(|(key, value)| Some((scalar(key)?, scalar(value)?)))
            .collect::<Option<_>>()
            .map(Properties)
            .ok_or_else(|| argument.wrong_kind())
    }
}

/// An SQL expression, always in a string: `"n > 3"`.
impl OptionValue for Expr {
    const KIND: OptionKind = OptionKind::Expr;

    fn parse(argument: &Argument<'_>) -> ParseResult<Expr> {
        parse(argument.text()?)
    }

    fn identity(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        found.push(self);
    }
}

/// A map from names to SQL expressions, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedExprs(pub Vec<(String, Expr)>);

impl OptionValue for NamedExprs {
    const KIND: OptionKind = OptionKind::Exprs;

    fn parse(argument: &Argument<'_>) -> ParseResult<NamedExprs> {
        let mut exprs = Vec::new();
        for (key, value) in argument.entries()? {
            let (Some(name), Some(text)) = (scalar(key), text(value)) else {
                return Err(argument.wrong_kind());
            };
            exprs.push((name, parse(text)?));
        }
        Ok(NamedExprs(exprs))
    }

    fn identity(&self) -> Option<String> {
        let entries = self.0.iter();
        Some(
            entries
                .map(|(name, expr)| format!("{name}\u{1}{expr}\u{1}"))
                .collect(),
        )
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        found.extend(self.0.iter().map(|(_, expr)| expr));
    }
}

/// The columns of `select`. They may be an empty string if the option is not required, because a
/// variable that a file inserts may be empty.
impl OptionValue for Vec<SelectItem> {
    const KIND: OptionKind = OptionKind::Select;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<SelectItem>> {
        let text = argument.text()?;
        if text.value.is_empty() && !argument.is_required() {
            return Ok(Vec::new());
        }
        parse_select(text)
    }

    fn identity(&self) -> Option<String> {
        Some(self.iter().map(describe_item).collect())
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        found.extend(self.iter().filter_map(|item| match item {
            SelectItem::Column { expr, .. } => Some(expr),
            SelectItem::All { .. } => None,
        }));
    }
}

/// A column, as part of the identity of a stage.
pub fn describe_item(item: &SelectItem) -> String {
    match item {
        SelectItem::All { except, .. } => {
            let except = except.iter().map(|(path, _)| format!("\u{1}{path}"));
            format!("*{}", except.collect::<String>())
        }
        SelectItem::Column { expr, name } => {
            format!("{expr}\u{1}{}", name.as_ref().map_or("", |(name, _)| name))
        }
    }
}

/// A path template: `out/{status}/{at:%Y}`.
impl OptionValue for Template {
    const KIND: OptionKind = OptionKind::Template;

    fn parse(argument: &Argument<'_>) -> ParseResult<Template> {
        template::parse(argument.text()?)
    }

    fn identity(&self) -> Option<String> {
        Some(self.parts.iter().map(describe_part).collect())
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        found.extend(self.parts.iter().filter_map(|part| match part {
            TemplatePart::Value { expr, .. } => Some(expr),
            TemplatePart::Literal(_) => None,
        }));
    }
}

/// A part of a template, as part of the identity of a stage.
fn describe_part(part: &TemplatePart) -> String {
    match part {
        TemplatePart::Literal(text) => format!("\u{1}{text}"),
        TemplatePart::Value { expr, format, .. } => {
            format!("\u{2}{expr}\u{1}{}", format.as_deref().unwrap_or_default())
        }
    }
}
