//! Extensible Data Notation, read with the place of every piece.
//!
//! All of EDN, and one addition: `#r"…"` is a regular expression, whose text is taken exactly as it
//! is written.
//!
//! Reading has two steps: `scan` checks that delimiters match and do not nest too deeply, `build`
//! finds the tokens by the grammar `edn.pest` and gives them their values. Each step reports all
//! the mistakes that it finds.

mod build;
mod scan;

use crate::node::Text;
use crate::{Diagnostic, Node, NodeKind, Span};
use scan::Quotes;

/// Reads a text that holds one form and nothing after it.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn read(text: &str) -> Result<Node, Vec<Diagnostic>> {
    let (node, mistakes) = recover(text);
    node.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

/// Reads one form with `nil` in place of each token that is wrong, so that more can be said of the
/// text than its first mistakes.
pub(crate) fn recover(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let (forms, mut mistakes) = read_forms(text, Quotes::Double);
    let node = only_form(forms, text, &mut mistakes);
    (node, mistakes)
}

/// Reads a text that holds any number of forms.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn read_all(text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let (forms, mistakes) = read_forms(text, Quotes::Double);
    if mistakes.is_empty() {
        Ok(forms)
    } else {
        Err(mistakes)
    }
}

/// Reads one form in which texts may also stand in single quotes (a quote in such a text is
/// doubled), so that it can stand inside a TOML or shell string. The places of the form are those
/// of `text` in its file.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn read_quoted(text: &Text) -> Result<Node, Vec<Diagnostic>> {
    let (forms, mut mistakes) = read_forms(&text.value, Quotes::Any);
    let node = only_form(forms, &text.value, &mut mistakes);
    match node.filter(|_| mistakes.is_empty()) {
        Some(mut node) => {
            relocate(&mut node, text);
            Ok(node)
        }
        None => Err(mistakes
            .into_iter()
            .map(|mistake| in_file(mistake, text))
            .collect()),
    }
}

fn in_file(mistake: Diagnostic, text: &Text) -> Diagnostic {
    Diagnostic {
        span: text.span_of(mistake.span.start as usize, mistake.span.end as usize),
        ..mistake
    }
}

fn relocate(node: &mut Node, outer: &Text) {
    node.span = outer.span_of(node.span.start as usize, node.span.end as usize);
    match &mut node.kind {
        NodeKind::Str(text) | NodeKind::Regex(text) => *text = outer.locate(text),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items.iter_mut().for_each(|item| relocate(item, outer))
        }
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                relocate(key, outer);
                relocate(value, outer);
            }
        }
        NodeKind::Tagged(_, value) => relocate(value, outer),
        _ => {}
    }
}

/// The first of the forms; that there is none, or a second one, is a mistake.
fn only_form(forms: Vec<Node>, text: &str, mistakes: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut forms = forms.into_iter();
    let first = forms.next();
    if first.is_none() && mistakes.is_empty() {
        mistakes.push(Diagnostic::new(
            Span::new(0, text.len()),
            "there is nothing here",
            "expected a form such as { … }",
        ));
    }
    if let Some(second) = forms.next() {
        let label = format!("{} after the end of the first form", second.describe());
        mistakes.push(Diagnostic::new(
            second.span,
            "only one form may stand here",
            label,
        ));
    }
    first
}

fn read_forms(text: &str, quotes: Quotes) -> (Vec<Node>, Vec<Diagnostic>) {
    if u32::try_from(text.len()).is_err() {
        return (
            Vec::new(),
            vec![Diagnostic::new(
                Span::default(),
                "the text is longer than 4 GiB",
                "",
            )],
        );
    }
    let mistakes = scan::check(text, quotes);
    if mistakes.is_empty() {
        build::forms(text)
    } else {
        (Vec::new(), mistakes)
    }
}
