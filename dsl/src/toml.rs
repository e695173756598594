//! A reader for the TOML form of a pipeline file. It returns the same map as the EDN form, with the
//! source position of every value.
//!
//! `name`, `include`, `[settings]`, `[expressions]` and `[[tests]]` correspond to the keywords of the
//! EDN form. `pipeline` is a string that contains the flow, and `[flows]` has such strings by name. A
//! table in `[stages]` has one key, the plugin, whose value is the plugin's argument. A table becomes
//! a map with keywords as keys, and an array becomes a vector. Strings stay strings: options accept a
//! string where EDN has a keyword.

mod syntax;

use std::ops::Range;

use toml_edit::{Document, Item, Key, TableLike, Value};

use crate::node::Text;
use crate::{Diagnostic, Name, Node, NodeKind, Span, edn, nearest};

/// The keys of the top-level table.
const KEYS: [&str; 8] = [
    "name",
    "settings",
    "include",
    "expressions",
    "stages",
    "flows",
    "pipeline",
    "tests",
];

/// Reads a pipeline file as the map of its EDN form.
///
/// # Errors
/// All errors, in source order. For invalid TOML, only the first error.
pub fn read(text: &str) -> Result<Node, Vec<Diagnostic>> {
    let document = Document::parse(text).map_err(|error| {
        let span = error
            .span()
            .map_or(Span::new(text.len(), text.len()), |range| {
                Span::new(range.start, range.end)
            });
        vec![syntax::error(text, error.message(), span)]
    })?;
    let mut reader = Reader {
        text,
        errors: Vec::new(),
    };
    let entries = reader.file(document.as_table());
    if reader.errors.is_empty() {
        return Ok(Node {
            kind: NodeKind::Map(entries),
            span: Span::new(0, text.len()),
        });
    }
    reader.errors.sort_by_key(|error| error.span);
    Err(reader.errors)
}

/// An error of a document with its help in TOML.
pub(crate) fn in_toml(error: Diagnostic) -> Diagnostic {
    let flow = error
        .help
        .as_deref()
        .and_then(|help| help.strip_prefix("add `pipeline "))
        .and_then(|flow| flow.strip_suffix('`'));
    match flow {
        Some(flow) => {
            let help = format!("add `pipeline = \"{flow}\"`, above all tables");
            error.with_help(help)
        }
        None => error,
    }
}

struct Reader<'a> {
    text: &'a str,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn file(&mut self, table: &dyn TableLike) -> Vec<(Node, Node)> {
        let mut entries = Vec::new();
        for (name, item) in table.iter() {
            let span = key_span(table, name);
            match name {
                "name" | "settings" | "include" | "expressions" | "tests" => {
                    entries.push((keyword(name, span), self.item(item, span)))
                }
                "pipeline" => entries.extend(self.flow(name, item, span)),
                "flows" => match item.as_table_like() {
                    Some(flows) => entries.extend(flows.iter().filter_map(|(name, item)| {
                        let span = key_span(flows, name);
                        if name == "pipeline" {
                            self.report_pipeline(span, "flow");
                            return None;
                        }
                        let (name, flow) = self.flow(name, item, span)?;
                        Some((name, thread_of_one(flow)))
                    })),
                    None => self.report(
                        span,
                        "`flows` must be a table",
                        "expected [flows] and below it, for example, cleaned = \"(-> a b)\"",
                    ),
                },
                "stages" => {
                    match item.as_table_like() {
                        Some(stages) => entries.extend(stages.iter().filter_map(|(name, item)| {
                            self.stage(name, item, key_span(stages, name))
                        })),
                        None => self.report(
                            span,
                            "`stages` must be a table",
                            "expected [stages.some-name]",
                        ),
                    }
                }
                unknown => {
                    let error = Diagnostic::new(
                        span,
                        format!("unknown key `{unknown}`"),
                        format!("expected one of {}", KEYS.join(", ")),
                    );
                    let help = nearest(unknown, KEYS).map(|near| format!("did you mean `{near}`?"));
                    self.errors.push(Diagnostic { help, ..error });
                }
            }
        }
        entries
    }

    fn report(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.errors.push(Diagnostic::new(span, message, label));
    }

    /// `pipeline`, or a named flow.
    fn flow(&mut self, name: &str, item: &Item, key: Span) -> Option<(Node, Node)> {
        let node = self.item(item, key);
        let NodeKind::Str(text) = &node.kind else {
            self.report(
                node.span,
                format!("`{name}` must be a string"),
                format!("expected \"(-> …)\", found {}", node.describe()),
            );
            return None;
        };
        if let Some(error) = syntax::without_parentheses(text, node.span) {
            self.errors.push(error);
            return None;
        }
        match edn::read_quoted(text) {
            Ok(flow) => Some((symbol(name, key), flow)),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn report_pipeline(&mut self, span: Span, what: &str) {
        self.report(
            span,
            format!("`pipeline` is reserved and cannot name a {what}"),
            "this word names the flow of the file",
        );
    }

    fn stage(&mut self, name: &str, item: &Item, span: Span) -> Option<(Node, Node)> {
        if name == "pipeline" {
            self.report_pipeline(span, "stage");
            return None;
        }
        let node = self.item(item, span);
        let found = node.describe();
        let call = match node.kind {
            // `out = "drop"`: a plugin without an argument.
            NodeKind::Str(plugin) => Node {
                kind: NodeKind::Symbol(Name::plain(plugin.value)),
                span: node.span,
            },
            NodeKind::Map(mut entries) if entries.len() == 1 => {
                let (mut plugin, argument) = entries.pop()?;
                if let NodeKind::Keyword(name) = plugin.kind {
                    plugin.kind = NodeKind::Symbol(name);
                }
                let span = plugin.span.to(argument.span);
                Node {
                    kind: NodeKind::List(vec![plugin, argument]),
                    span,
                }
            }
            NodeKind::Map(entries) => {
                let label = format!("expected one key, the plugin name; found {}", entries.len());
                let error = Diagnostic::new(span, format!("`{name}` must be one stage"), label);
                self.errors.push(error.with_help(format!(
                    "write [stages.{name}] and below it, for example, kafka = {{ … }}"
                )));
                return None;
            }
            _ => {
                self.report(
                    node.span,
                    format!("`{name}` must be a stage"),
                    format!("expected a table, found {found}"),
                );
                return None;
            }
        };
        Some((symbol(name, span), call))
    }

    /// The value of an item. An item without a position of its own, such as a table that is defined
    /// in several places, gets the position of its `key`.
    fn item(&mut self, item: &Item, key: Span) -> Node {
        let span = span_or(item.span(), key);
        let kind = match item {
            Item::None => NodeKind::Nil,
            Item::Value(value) => return self.value(value, key),
            Item::Table(table) => self.table(table),
            Item::ArrayOfTables(tables) => {
                let items = tables.iter().map(|table| Node {
                    kind: self.table(table),
                    span: span_or(table.span(), key),
                });
                NodeKind::Vector(items.collect())
            }
        };
        Node { kind, span }
    }

    fn table(&mut self, table: &dyn TableLike) -> NodeKind {
        let entries = table.iter().map(|(name, item)| {
            let span = key_span(table, name);
            (keyword(name, span), self.item(item, span))
        });
        NodeKind::Map(entries.collect())
    }

    fn value(&mut self, value: &Value, key: Span) -> Node {
        let span = span_or(value.span(), key);
        let kind = match value {
            Value::String(text) => NodeKind::Str(self.string(text.value(), span)),
            Value::Integer(number) => NodeKind::Int(*number.value()),
            Value::Float(number) => NodeKind::Float(*number.value()),
            Value::Boolean(truth) => NodeKind::Bool(*truth.value()),
            Value::Datetime(time) => self.time(time.value(), span),
            Value::Array(array) => {
                NodeKind::Vector(array.iter().map(|value| self.value(value, span)).collect())
            }
            Value::InlineTable(table) => self.table(table),
        };
        Node { kind, span }
    }

    /// A time with an offset becomes `#inst`; a date or a local time becomes a string.
    fn time(&self, time: &toml_edit::Datetime, span: Span) -> NodeKind {
        let text = NodeKind::Str(Text::plain(time.to_string(), span.start as usize));
        match time.offset {
            Some(_) => NodeKind::Tagged(Name::plain("inst"), Box::new(Node { kind: text, span })),
            None => text,
        }
    }

    fn string(&self, value: &str, span: Span) -> Text {
        let raw = self
            .text
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default();
        with_positions(value, raw, span.start as usize)
    }
}

/// The value of a TOML string with its source positions. `raw` is its source text including quotes,
/// which begins at the offset `start`.
fn with_positions(value: &str, raw: &str, start: usize) -> Text {
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| raw.starts_with(quote))
        .unwrap_or_default();
    let has_escapes = quote.starts_with('"');
    let mut at = quote.len();
    if quote.len() == 3 {
        // A line break directly after the opening quotes is not part of the string.
        at += ["\r\n", "\n"]
            .into_iter()
            .find(|end| raw.get(at..).is_some_and(|rest| rest.starts_with(end)))
            .map_or(0, str::len);
    }
    let opening = at;
    let mut text = Text::plain(value, start + opening);
    for (byte, character) in value.char_indices() {
        at += continuation_length(raw.get(at..).unwrap_or_default(), has_escapes);
        push_shift(&mut text, byte, at - opening);
        at += match raw.get(at..).unwrap_or_default().as_bytes() {
            [b'\\', b'u', ..] if has_escapes => 6,
            [b'\\', b'U', ..] if has_escapes => 10,
            [b'\\', b'x', ..] if has_escapes => 4,
            [b'\\', ..] if has_escapes => 2,
            // The parser may return `\r\n` as `\n`.
            [b'\r', b'\n', ..] if character == '\n' => 2,
            _ => character.len_utf8(),
        };
        push_shift(&mut text, byte + character.len_utf8(), at - opening);
    }
    text
}

/// Records that the value's `byte` is at the byte `at` of the source text.
fn push_shift(text: &mut Text, byte: usize, at: usize) {
    let extra = (at as i64 - byte as i64) as i32;
    if text.shifts.last().map_or(0, |(_, extra)| *extra) != extra {
        text.shifts.push((byte as u32, extra));
    }
}

/// The length of a backslash at the end of a line and the white space after it, which are not part
/// of the string. Otherwise 0.
fn continuation_length(rest: &str, has_escapes: bool) -> usize {
    let Some(after) = rest.strip_prefix('\\').filter(|_| has_escapes) else {
        return 0;
    };
    let trimmed = after.trim_start();
    let space = after.get(..after.len() - trimmed.len()).unwrap_or_default();
    if space.contains('\n') {
        rest.len() - trimmed.len()
    } else {
        0
    }
}

/// A flow that is the name of a stage as `(-> name)`: in the map of the EDN form, a name alone would
/// be a plugin.
fn thread_of_one(flow: Node) -> Node {
    let NodeKind::Symbol(_) = flow.kind else {
        return flow;
    };
    let span = flow.span;
    Node {
        kind: NodeKind::List(vec![symbol("->", span), flow]),
        span,
    }
}

fn key_span(table: &dyn TableLike, name: &str) -> Span {
    span_or(table.key(name).and_then(Key::span), Span::default())
}

fn span_or(range: Option<Range<usize>>, otherwise: Span) -> Span {
    range.map_or(otherwise, |range| Span::new(range.start, range.end))
}

fn keyword(name: &str, span: Span) -> Node {
    Node {
        kind: NodeKind::Keyword(Name::plain(name)),
        span,
    }
}

fn symbol(name: &str, span: Span) -> Node {
    Node {
        kind: NodeKind::Symbol(Name::plain(name)),
        span,
    }
}
