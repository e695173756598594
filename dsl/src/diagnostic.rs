//! Errors in a pipeline file, and their rendering.

mod excerpt;

use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, Report};

use self::excerpt::Excerpt;
use crate::Span;
use crate::node::{Substitute, Text};
use crate::printable::{printable_lines, shortened};

/// How many errors are shown. A generated file can have an error in each of its keys.
pub const MAX_SHOWN: usize = 20;

/// The errors that are shown: the first [`MAX_SHOWN`], by position.
pub fn first(errors: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut in_order: Vec<&Diagnostic> = errors.iter().collect();
    in_order.sort_by_key(|error| error.span);
    in_order.into_iter().take(MAX_SHOWN).cloned().collect()
}

/// The last line for errors of which `more` are not shown; `None` for no more.
pub fn and_more(more: usize) -> Option<String> {
    (more > 0).then(|| format!("and {more} more"))
}

/// Renders errors as rustc does: each with the file name, the line, the underlined source text and
/// a help line. The [first] errors are shown, by position, and then how many more there are. `name`
/// is the file name, and `text` is the whole source. With `color`, the result contains ANSI
/// escapes; those of the source are escaped.
pub fn render(name: &str, text: &str, errors: &[Diagnostic], color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_context_lines(1)
        .with_wrap_lines(false);
    let mut out = String::new();
    let shown = first(errors);
    for error in &shown {
        let error = error.with_uses_as_help(|span| place(name, text, span));
        let (start, end) = shown_range(text, error.span);
        let label = (!error.label.is_empty()).then(|| sentence(&error.label));
        let excerpt = Excerpt::new(name, text, start..end);
        let place = excerpt.label();
        let mut drawing = MietteDiagnostic::new(sentence(&error.message))
            .with_label(LabeledSpan::new(label, place.start, place.len()));
        // It may have a replacement of the code, to be copied as a whole.
        let lines = |help: &str| printable_lines(help).into_owned();
        drawing.help = error.help.as_deref().map(lines);
        let report = Report::new(drawing).with_source_code(excerpt);
        let drawn = handler.render_report(&mut out, report.as_ref());
        drawn.expect("writing to a String cannot fail, and the label lies within the text");
        out.push('\n');
    }
    if let Some(more) = and_more(errors.len() - shown.len()) {
        out = out + &more + "\n";
    }
    out
}

/// A message, a label or the lines of a help as they are shown.
fn sentence(text: &str) -> String {
    printable_lines(&shortened(text)).into_owned()
}

/// The place of a position in a file: `pipeline.edn:12:5`.
pub fn place(name: &str, text: &str, span: Span) -> String {
    let (start, _) = shown_range(text, span);
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = start - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    format!("{name}:{line}:{column}")
}

/// The byte range to underline: `span` clamped to the text and widened to whole characters. For an
/// empty span it is the character at that position, or the last character at the end of the text.
fn shown_range(text: &str, span: Span) -> (usize, usize) {
    let end = text.ceil_char_boundary((span.end as usize).min(text.len()));
    let start = text.floor_char_boundary((span.start as usize).min(end));
    if start < end {
        return (start, end);
    }
    if start < text.len() {
        return (start, text.ceil_char_boundary(start + 1));
    }
    (text.floor_char_boundary(start.saturating_sub(1)), end)
}

/// An error in the user's source text: what is wrong, where, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, as one short sentence in lower case.
    pub message: String,
    /// The source text to underline.
    pub span: Span,
    /// The text below the underline, for example `expected a number`. Empty for no label.
    pub label: String,
    /// A suggested fix, for example the nearest valid name.
    pub help: Option<String>,
    /// For something that is defined twice: where it is defined first.
    pub first: Option<Box<Span>>,
    /// For an error in a named expression or in an argument: its use, then the use of the one in
    /// which that is, and so on. The planner adds them.
    pub uses: Vec<ExpressionUse>,
}

/// A use of a named expression, or of an argument in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionUse {
    /// The name of the expression.
    pub name: Arc<str>,
    /// The parameter in whose place an argument is; `None` for the use of the expression.
    pub parameter: Option<Arc<str>>,
    /// The position of the call, or of the parameter in the definition.
    pub span: Span,
}

impl Diagnostic {
    /// An error at `span`, without help.
    pub fn new(span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            span,
            label: label.into(),
            help: None,
            first: None,
            uses: Vec::new(),
        }
    }

    /// The error for a key that a file has twice. `name` is the key as it is written.
    pub(crate) fn duplicate_key(name: &str, span: Span, first: Option<Span>) -> Diagnostic {
        let message = format!("duplicate key `{name}`");
        let error = Diagnostic::new(span, message, "second occurrence");
        let first = first.map(Box::new);
        Diagnostic { first, ..error }
    }

    /// Sets the help line.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// This error with the first place and its uses as lines of the help. `place` returns where a
    /// position is, such as `common.edn:3:20`.
    #[must_use]
    pub fn with_uses_as_help(&self, place: impl Fn(Span) -> String) -> Diagnostic {
        /// Of more uses, some in the middle are left out.
        const MAX_SHOWN: usize = 8;

        let shown = |used: &ExpressionUse| {
            let (name, place) = (&used.name, place(used.span));
            match &used.parameter {
                None => format!("in `{name}`, which is used at {place}"),
                Some(parameter) => {
                    format!(
                        "this is the argument `{parameter}` of `{name}`, which uses it at {place}"
                    )
                }
            }
        };
        let mut lines: Vec<String> = self.help.iter().cloned().collect();
        lines.extend(
            self.first
                .as_deref()
                .map(|first| format!("the first one is at {}", place(*first))),
        );
        match self.uses.as_slice() {
            [first @ .., last] if first.len() >= MAX_SHOWN => {
                lines.extend(first.iter().take(MAX_SHOWN - 2).map(shown));
                lines.push("…".to_owned());
                lines.push(shown(last));
            }
            uses => lines.extend(uses.iter().map(shown)),
        }
        Diagnostic {
            help: (!lines.is_empty()).then(|| lines.join("\n")),
            first: None,
            uses: Vec::new(),
            ..self.clone()
        }
    }

    /// Replaces the message of an error in what was substituted in `text`: it would show a part of
    /// it. The span still shows where the error is.
    pub(crate) fn without_secrets_of(self, text: &Text) -> Self {
        let is_at = |filled: &Substitute| {
            let place = text.span_of(filled.start as usize, filled.end as usize);
            place.start <= self.span.end && self.span.start <= place.end
        };
        if !text.filled.iter().any(is_at) {
            return self;
        }
        let message = "this string is invalid after its `${…}` is substituted";
        Diagnostic::new(text.span(), message, "the substituted value is not shown")
    }
}
