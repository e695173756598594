//! Mistakes in a pipeline file, and how they are shown.

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report,
};

use crate::Span;
use crate::node::Text;

/// Draws mistakes the way rustc does: each with its file, its line, the text underlined, and help.
/// They are put into the order of the file. `name` is the file's name, `text` all of what was read;
/// with `color` the result holds ANSI escapes.
pub fn render(name: &str, text: &str, mistakes: &[Diagnostic], color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_context_lines(1)
        .with_wrap_lines(false);
    let mut in_order: Vec<&Diagnostic> = mistakes.iter().collect();
    in_order.sort_by_key(|mistake| mistake.span);
    let mut out = String::new();
    for mistake in in_order {
        let (start, end) = shown_range(text, mistake.span);
        let label = (!mistake.label.is_empty()).then(|| mistake.label.clone());
        let mut shown = MietteDiagnostic::new(&mistake.message).with_label(LabeledSpan::new(
            label,
            start,
            end - start,
        ));
        shown.help = mistake.help.clone();
        let report = Report::new(shown).with_source_code(NamedSource::new(name, text.to_owned()));
        let drawn = handler.render_report(&mut out, report.as_ref());
        drawn.expect("writing to a String cannot fail, and the label lies within the text");
        out.push('\n');
    }
    out
}

/// The bytes to underline: within the text and not within a character, whatever the span says. Of
/// an empty span it is the character there, or at the end of the text the one before.
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

/// One mistake: what is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, as a short lowercase sentence.
    pub message: String,
    /// The text that is underlined.
    pub span: Span,
    /// What stands under the underlined text, for example `expected a number`.
    pub label: String,
    /// What the user can do, for example the nearest name that exists.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at `span`.
    pub fn new(span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            span,
            label: label.into(),
            help: None,
        }
    }

    /// The same with advice.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same without any word of `text`, if that must not be seen: its place still tells where
    /// the mistake is.
    pub(crate) fn without_secrets_of(self, text: &Text) -> Self {
        if !text.secret {
            return self;
        }
        let message = "this text is wrong once its `${…}` is filled in";
        Diagnostic::new(text.span(), message, "what was filled in is not shown")
    }
}
