//! Forms that are written as in other languages: `files("x")`, `events = (files "x")`.
//!
//! They are errors. What was meant takes their place, so that the rest of the file can be checked.

use crate::{Diagnostic, Name, Node, NodeKind, print};

/// The forms of a list or a map, without such notation; it is added to `errors`.
pub(super) fn corrected(forms: Vec<Node>, errors: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut corrected: Vec<Node> = Vec::with_capacity(forms.len());
    for form in forms {
        if is_symbol(&form, "=") && !corrected.is_empty() {
            let error = Diagnostic::new(form.span, "unexpected `=`", "a name and its value");
            errors.push(error.with_help("leave out the `=`: a value follows its name"));
            continue;
        }
        match corrected.pop_if(|name| is_call(name, &form)) {
            Some(name) => {
                let call = call(name, form);
                let message = "a name before a parenthesis";
                let error = Diagnostic::new(call.span, message, "the parenthesis is first");
                errors.push(match &call.kind {
                    NodeKind::List(items) => {
                        error.with_help(format!("write {}", print::list(items.clone())))
                    }
                    _ => error,
                });
                corrected.push(call);
            }
            None => corrected.push(form),
        }
    }
    corrected
}

fn is_symbol(form: &Node, symbol: &str) -> bool {
    matches!(&form.kind, NodeKind::Symbol(Name { namespace: None, name }) if name == symbol)
}

/// Whether two forms are written like a call in other languages: without a space, and with a list
/// that is not a stage.
fn is_call(name: &Node, list: &Node) -> bool {
    let NodeKind::List(items) = &list.kind else {
        return false;
    };
    let is_stage = matches!(
        items.first().map(|first| &first.kind),
        Some(NodeKind::Symbol(_) | NodeKind::List(_))
    );
    matches!(name.kind, NodeKind::Symbol(_))
        && !is_symbol(name, "->")
        && name.span.end == list.span.start
        && !is_stage
}

fn call(name: Node, list: Node) -> Node {
    let span = name.span.to(list.span);
    let arguments = match list.kind {
        NodeKind::List(items) => items,
        _ => Vec::new(),
    };
    let kind = NodeKind::List(std::iter::once(name).chain(arguments).collect());
    Node { kind, span }
}
