//! From EDN tokens to [`Node`]s.

use std::collections::{HashMap, HashSet};

use pest::Parser;
use pest::iterators::{Pair, Pairs};

use super::notation;
use crate::node::Text;
use crate::{Diagnostic, Name, Node, NodeKind, Span, print};

#[derive(pest_derive::Parser)]
#[grammar = "edn.pest"]
struct Grammar;

/// The forms of a text whose delimiters match, and the errors in them. An invalid form is replaced
/// by `nil`.
pub(super) fn forms(text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
    let mut file = match Grammar::parse(Rule::file, text) {
        Ok(file) => file,
        Err(error) => {
            return (
                Vec::new(),
                vec![crate::grammar::diagnostic(
                    &Text::plain(text, 0),
                    &error,
                    |_| Some("a form"),
                )],
            );
        }
    };
    let mut builder = Builder { errors: Vec::new() };
    let forms = file
        .next()
        .map_or_else(Vec::new, |file| builder.forms(file.into_inner()));
    (forms, builder.errors)
}

/// Computes the values of tokens and collects errors.
struct Builder {
    errors: Vec<Diagnostic>,
}

impl Builder {
    fn forms(&mut self, pairs: Pairs<'_, Rule>) -> Vec<Node> {
        let forms = pairs.filter_map(|pair| self.form(pair)).collect();
        notation::corrected(forms, &mut self.errors)
    }

    fn report(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.errors.push(Diagnostic::new(span, message, label));
    }

    /// The value of a form. `None` for anything else, such as a discard.
    fn form(&mut self, pair: Pair<'_, Rule>) -> Option<Node> {
        let span = span_of(&pair);
        match pair.as_rule() {
            Rule::EOI => None,
            Rule::discard => {
                self.discard(pair, span);
                None
            }
            // An invalid form is reported and replaced by `nil`, so that the forms after it keep
            // their meaning, for example as keys and values of a map.
            _ => Some(Node {
                kind: self.kind(pair, span).unwrap_or(NodeKind::Nil),
                span,
            }),
        }
    }

    fn kind(&mut self, pair: Pair<'_, Rule>, span: Span) -> Option<NodeKind> {
        let text = pair.as_str();
        Some(match pair.as_rule() {
            Rule::list => NodeKind::List(self.forms(pair.into_inner())),
            Rule::vector => NodeKind::Vector(self.forms(pair.into_inner())),
            Rule::map => self.map(pair, span),
            Rule::set => self.set(pair),
            Rule::string => NodeKind::Str(self.string(pair)),
            Rule::quoted => NodeKind::Str(quoted(pair)),
            Rule::regex => {
                let inner = pair.into_inner().next()?;
                NodeKind::Regex(Text::plain(inner.as_str(), inner.as_span().start()))
            }
            Rule::tagged => self.tagged(pair, span)?,
            Rule::character => self.character(text, span)?,
            Rule::word => match text {
                "true" => NodeKind::Bool(true),
                "false" => NodeKind::Bool(false),
                _ => NodeKind::Nil,
            },
            Rule::number => self.number(pair, span)?,
            Rule::keyword => NodeKind::Keyword(name(pair)),
            Rule::symbol => NodeKind::Symbol(name(pair)),
            Rule::clojure_regex => {
                let error = Diagnostic::new(
                    span,
                    "a regular expression is written `#r\"…\"`",
                    "expected `r` after the `#`",
                );
                self.errors
                    .push(error.with_help(format!("write #r{}", text.trim_start_matches('#'))));
                return None;
            }
            Rule::junk => {
                let (message, label) = junk_message(text);
                self.report(span, message, label);
                return None;
            }
            _ => return None,
        })
    }

    fn discard(&mut self, pair: Pair<'_, Rule>, span: Span) {
        let mut nothing = true;
        for inner in pair.into_inner() {
            nothing = inner.as_rule() == Rule::discard;
            self.form(inner);
        }
        if nothing {
            self.report(
                span,
                "`#_` has no form to discard",
                "expected a form after this",
            );
        }
    }

    fn map(&mut self, pair: Pair<'_, Rule>, span: Span) -> NodeKind {
        let forms = self.forms(pair.into_inner());
        if forms.len() % 2 == 1 {
            let last = forms.last().map_or(span, |last| last.span);
            self.report(
                last,
                "a map consists of key-value pairs",
                "this key has no value",
            );
        }
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut entries = Vec::with_capacity(forms.len() / 2);
        let mut forms = forms.into_iter();
        while let (Some(key), Some(value)) = (forms.next(), forms.next()) {
            let name = print::print(&key);
            match seen.get(&name) {
                Some(first) => {
                    let error = Diagnostic::duplicate_key(&name, key.span, Some(*first));
                    self.errors.push(error);
                }
                None => {
                    seen.insert(name, key.span);
                }
            }
            entries.push((key, value));
        }
        NodeKind::Map(entries)
    }

    fn set(&mut self, pair: Pair<'_, Rule>) -> NodeKind {
        let items = self.forms(pair.into_inner());
        let mut seen = HashSet::new();
        for item in &items {
            if !seen.insert(print::print(item)) {
                self.report(
                    item.span,
                    format!("duplicate item `{}` in a set", print::print(item)),
                    "second occurrence",
                );
            }
        }
        NodeKind::Set(items)
    }

    fn string(&mut self, pair: Pair<'_, Rule>) -> Text {
        let mut text = Text::plain(String::new(), pair.as_span().start() + 1);
        for piece in pair.into_inner() {
            let span = piece.as_span();
            match piece.as_rule() {
                Rule::chunk => text.value.push_str(piece.as_str()),
                Rule::escape | Rule::pair => match unescape(piece.as_str()) {
                    Some(character) => text.value.push(character),
                    None => {
                        let message = format!("`{}` is an unpaired surrogate", piece.as_str());
                        self.report(
                            span_of(&piece),
                            message,
                            "expected a second `\\u…` that completes the pair",
                        );
                    }
                },
                _ => {
                    let message = format!("unknown escape `{}`", piece.as_str());
                    let error = Diagnostic::new(
                        span_of(&piece),
                        message,
                        "expected \\n \\t \\r \\b \\f \\\\ \\\" or \\u with four hex digits",
                    );
                    self.errors
                        .push(error.with_help("write a backslash as \\\\"));
                }
            }
            if piece.as_rule() != Rule::chunk {
                text.shifts
                    .push((text.value.len() as u32, shift(&text, span.end())));
            }
        }
        text
    }

    fn tagged(&mut self, pair: Pair<'_, Rule>, span: Span) -> Option<NodeKind> {
        let mut tag = None;
        let mut value = None;
        for inner in pair.into_inner() {
            match (inner.as_rule(), &tag) {
                (Rule::symbol, None) => tag = Some((name(inner.clone()), span_of(&inner))),
                (Rule::discard, _) => {
                    self.form(inner);
                }
                _ => value = self.form(inner),
            }
        }
        let (tag, tag_span) = tag?;
        let Some(value) = value else {
            self.report(
                span,
                format!("`#{tag}` has no value"),
                "expected a value after this",
            );
            return None;
        };
        let wrong = match tag.to_string().as_str() {
            "inst" if !is_instant(&value) => Some("a timestamp such as \"2024-01-31T12:30:00Z\""),
            "uuid" if !is_uuid(&value) => {
                Some("a UUID such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"")
            }
            _ => None,
        };
        if let Some(expected) = wrong {
            self.report(
                tag_span.to(value.span),
                format!("invalid `#{tag}`"),
                format!("expected {expected}"),
            );
            return None;
        }
        Some(NodeKind::Tagged(tag, Box::new(value)))
    }

    fn character(&mut self, text: &str, span: Span) -> Option<NodeKind> {
        let character = match text.trim_start_matches('\\') {
            // `\\` is the backslash character.
            "" => Some('\\'),
            "newline" => Some('\n'),
            "return" => Some('\r'),
            "space" => Some(' '),
            "tab" => Some('\t'),
            "formfeed" => Some('\u{c}'),
            "backspace" => Some('\u{8}'),
            name if name.chars().count() > 1 => u32::from_str_radix(name.get(1..)?, 16)
                .ok()
                .and_then(char::from_u32),
            name => name.chars().next(),
        };
        if character.is_none() {
            self.report(
                span,
                format!("`{text}` is an unpaired surrogate"),
                "expected a complete character",
            );
        }
        character.map(NodeKind::Char)
    }

    fn number(&mut self, pair: Pair<'_, Rule>, span: Span) -> Option<NodeKind> {
        let number = pair.into_inner().next()?;
        let is_float = number.as_rule() == Rule::float;
        let mut inner = number.into_inner();
        let digits = inner.next()?.as_str().trim_start_matches('+');
        let marked = inner.next().is_some();
        if is_float && marked {
            return Some(NodeKind::Decimal(digits.to_owned()));
        }
        if !is_float {
            let fits = digits.parse().ok().filter(|_| !marked);
            return Some(fits.map_or_else(|| NodeKind::BigInt(digits.to_owned()), NodeKind::Int));
        }
        match digits.parse::<f64>() {
            Ok(value) if value.is_finite() => Some(NodeKind::Float(value)),
            _ => {
                let error = Diagnostic::new(
                    span,
                    "number too large",
                    "expected at most 1.7976931348623157e308",
                );
                self.errors
                    .push(error.with_help("append M for an exact number of any size"));
                None
            }
        }
    }
}

fn span_of(pair: &Pair<'_, Rule>) -> Span {
    Span::new(pair.as_span().start(), pair.as_span().end())
}

/// The distance in bytes from the end of the value so far to the source offset `end`.
fn shift(text: &Text, end: usize) -> i32 {
    (end as i64 - i64::from(text.start) - text.value.len() as i64) as i32
}

fn quoted(pair: Pair<'_, Rule>) -> Text {
    let mut text = Text::plain(String::new(), pair.as_span().start() + 1);
    for piece in pair.into_inner() {
        if piece.as_rule() == Rule::quote {
            text.value.push('\'');
            text.shifts
                .push((text.value.len() as u32, shift(&text, piece.as_span().end())));
        } else {
            text.value.push_str(piece.as_str());
        }
    }
    text
}

/// The character for `\n`, `\u0041` or a surrogate pair of the latter form. `None` for an unpaired
/// surrogate.
fn unescape(escape: &str) -> Option<char> {
    let mut units = escape
        .split("\\u")
        .skip(1)
        .map(|hex| u16::from_str_radix(hex, 16));
    if let Some(first) = units.next() {
        let units = std::iter::once(first)
            .chain(units)
            .collect::<Result<Vec<u16>, _>>()
            .ok()?;
        return char::decode_utf16(units).next()?.ok();
    }
    let code = escape.chars().nth(1)?;
    Some(match code {
        't' => '\t',
        'r' => '\r',
        'n' => '\n',
        'b' => '\u{8}',
        'f' => '\u{c}',
        itself => itself,
    })
}

fn name(pair: Pair<'_, Rule>) -> Name {
    let mut parts = pair.into_inner().map(|part| part.as_str().to_owned());
    let first = parts.next().unwrap_or_default();
    match parts.next() {
        Some(name) => Name {
            namespace: Some(first),
            name,
        },
        None => Name::plain(first),
    }
}

/// The message and label for a token that is not valid EDN.
fn junk_message(text: &str) -> (String, &'static str) {
    let unsigned = text.trim_start_matches(['+', '-']);
    let first = text.chars().next();
    if unsigned.starts_with(|first: char| first.is_ascii_digit()) {
        let label = if unsigned.len() > 1
            && unsigned.starts_with('0')
            && unsigned.chars().all(|digit| digit.is_ascii_digit())
        {
            "a number cannot start with 0"
        } else {
            "expected a number such as 12, 1.5, 12N or 1.5M"
        };
        return (format!("`{text}` is not a number"), label);
    }
    let label = match first {
        Some(':') => "expected a keyword such as :name or :space/name",
        Some('\\') => "expected a character such as \\a, \\newline, \\space, \\tab or \\u0041",
        Some('#') => "expected #{ … }, #_, #r\"…\", #inst or #uuid",
        Some('@') => {
            "expected a name; record metadata is written in an expression string: \"@topic = 'a'\""
        }
        _ => "expected a name such as kafka or some.space/name",
    };
    (format!("`{text}` is not valid EDN"), label)
}

fn is_instant(value: &Node) -> bool {
    matches!(&value.kind, NodeKind::Str(text) if chrono::DateTime::parse_from_rfc3339(&text.value).is_ok())
}

fn is_uuid(value: &Node) -> bool {
    let NodeKind::Str(text) = &value.kind else {
        return false;
    };
    let groups: Vec<&str> = text.value.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
