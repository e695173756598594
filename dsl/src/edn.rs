//! A reader for Extensible Data Notation that keeps the source position of every form.
//!
//! It accepts all of EDN, and one addition: `#r"…"` is a regular expression without escapes, so its
//! content is taken exactly as written.
//!
//! Reading has two steps: `scan` checks that delimiters match and do not nest too deeply, and
//! `build` parses the tokens with the grammar `edn.pest` and computes their values. Each step
//! reports all errors that it finds.

mod build;
mod notation;
mod scan;

use crate::node::Text;
use crate::{Diagnostic, Node, NodeKind, Span};
use scan::Quotes;

/// Reads a text that contains exactly one form.
///
/// # Errors
/// All errors, in source order.
pub fn read(text: &str) -> Result<Node, Vec<Diagnostic>> {
    let (node, errors) = recover(text);
    node.filter(|_| errors.is_empty()).ok_or(errors)
}

/// Reads one form with `nil` in place of each invalid token, so that later steps can report more
/// errors in the same text. There is no form if delimiters do not match. All errors are returned,
/// in source order.
pub fn recover(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let (forms, mut errors) = read_forms(text, Quotes::Double);
    let node = only_form(forms, text, &mut errors);
    (node, errors)
}

/// Reads a text that contains any number of forms.
///
/// # Errors
/// All errors, in source order.
pub fn read_all(text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let (forms, errors) = read_forms(text, Quotes::Double);
    if errors.is_empty() {
        Ok(forms)
    } else {
        Err(errors)
    }
}

/// Reads one form in which strings may also be written in single quotes (a quote in such a string
/// is doubled), so that the form can be written inside a TOML or shell string. Source positions are
/// those of `text` in its file.
///
/// # Errors
/// All errors, in source order.
pub fn read_quoted(text: &Text) -> Result<Node, Vec<Diagnostic>> {
    let (forms, mut errors) = read_forms(&text.value, Quotes::Any);
    let node = only_form(forms, &text.value, &mut errors);
    match node.filter(|_| errors.is_empty()) {
        Some(mut node) => {
            relocate(&mut node, text);
            Ok(node)
        }
        None => Err(errors
            .into_iter()
            .map(|error| in_file(error, text))
            .collect()),
    }
}

fn in_file(error: Diagnostic, text: &Text) -> Diagnostic {
    let place = |span: Span| text.span_of(span.start as usize, span.end as usize);
    Diagnostic {
        span: place(error.span),
        first: error.first.map(|first| Box::new(place(*first))),
        ..error
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

/// The only form. No form, or a second form, is reported as an error.
fn only_form(forms: Vec<Node>, text: &str, errors: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut forms = forms.into_iter();
    let first = forms.next();
    if first.is_none() && errors.is_empty() {
        errors.push(Diagnostic::new(
            Span::new(0, text.len()),
            "the input is empty",
            "expected a form such as { … }",
        ));
    }
    if let Some(second) = forms.next() {
        let label = format!("{} after the first form", second.describe());
        errors.push(Diagnostic::new(
            second.span,
            "expected only one form",
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
                "the input is larger than 4 GiB",
                "",
            )],
        );
    }
    let errors = scan::check(text, quotes);
    if errors.is_empty() {
        build::forms(text)
    } else {
        (Vec::new(), errors)
    }
}
