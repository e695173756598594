//! A parser for path templates, with the grammar `template.pest`.

use chrono::format::{Item, StrftimeItems};
use pest::Parser;
use pest::iterators::Pair;

use super::{Template, TemplatePart};
use crate::node::Text;
use crate::{Diagnostic, expr};

#[derive(pest_derive::Parser)]
#[grammar = "template.pest"]
struct Grammar;

/// Parses a template.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse(text: &Text) -> Result<Template, Vec<Diagnostic>> {
    let template = Grammar::parse(Rule::template, &text.value);
    let mut template = template.map_err(|error| {
        vec![crate::grammar::diagnostic(text, &error, |_| None).without_secrets_of(text)]
    })?;
    let mut reader = Reader {
        text,
        parts: Vec::new(),
        errors: Vec::new(),
    };
    for pair in template.next().into_iter().flat_map(Pair::into_inner) {
        reader.part(pair);
    }
    if reader.errors.is_empty() {
        return Ok(Template {
            parts: reader.parts,
        });
    }
    Err(reader
        .errors
        .into_iter()
        .map(|error| error.without_secrets_of(text))
        .collect())
}

struct Reader<'a> {
    text: &'a Text,
    parts: Vec<TemplatePart>,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn part(&mut self, pair: Pair<'_, Rule>) {
        match pair.as_rule() {
            Rule::literal => self.literal(pair.as_str()),
            Rule::open_brace => self.literal("{"),
            Rule::close_brace => self.literal("}"),
            Rule::value => self.value(pair),
            Rule::stray => {
                let (start, brace) = (pair.as_span().start(), pair.as_str());
                let message = if brace == "{" {
                    "unclosed `{`"
                } else {
                    "unmatched `}`"
                };
                let error = Diagnostic::new(
                    self.text.span_of(start, start + 1),
                    message,
                    "expected {expression} or {expression:%Y-%m-%d}",
                );
                self.errors
                    .push(error.with_help(format!("write a literal brace as {brace}{brace}")));
            }
            _ => {}
        }
    }

    fn literal(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(TemplatePart::Literal(before)) => before.push_str(text),
            _ => self.parts.push(TemplatePart::Literal(text.to_owned())),
        }
    }

    fn value(&mut self, pair: Pair<'_, Rule>) {
        let span = self
            .text
            .span_of(pair.as_span().start(), pair.as_span().end());
        let mut inner = pair.into_inner();
        let Some(expression) = inner.next() else {
            return;
        };
        let expression = expr::parse(
            &self
                .text
                .slice(expression.as_span().start(), expression.as_span().end()),
        );
        let format = inner.next().map(|format| {
            self.check_format(&format);
            format.as_str().to_owned()
        });
        match expression {
            Ok(expr) => self.parts.push(TemplatePart::Value { expr, format, span }),
            Err(errors) => self.errors.extend(errors),
        }
    }

    fn check_format(&mut self, format: &Pair<'_, Rule>) {
        let (text, start) = (format.as_str(), format.as_span().start());
        if text.is_empty() {
            let span = self.text.span_of(start.saturating_sub(1), start);
            self.errors.push(Diagnostic::new(
                span,
                "missing time format",
                "expected a format such as %Y-%m-%d",
            ));
        }
        let mut at = 0;
        while let Some(offset) = text.get(at..).and_then(|rest| rest.find('%')) {
            let rest = text.get(at + offset..).unwrap_or_default();
            // Only the first item is checked. The items after it are checked at their own `%`.
            let is_wrong = StrftimeItems::new(rest).next() == Some(Item::Error);
            let letter = rest.chars().nth(1).map_or(0, char::len_utf8);
            if is_wrong {
                let from = start + at + offset;
                let message = format!(
                    "unknown time format specifier `{}`",
                    rest.get(..1 + letter).unwrap_or_default()
                );
                let error = Diagnostic::new(
                    self.text.span_of(from, from + 1 + letter),
                    message,
                    "expected a strftime specifier such as %Y, %m, %d, %H or %M",
                );
                self.errors
                    .push(error.with_help("write a literal percent sign as %%"));
            }
            at += offset + 1 + letter;
        }
    }
}
