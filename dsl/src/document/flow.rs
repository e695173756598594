//! A parser for flows: `->`, `all`, `match`, names of stages and inline stages.

use super::{Branch, Call, Flow, Pattern};
use crate::{Diagnostic, Name, Node, NodeKind};

/// The words that combine stages. They are reserved: no stage or plugin can have these names.
pub(super) const FORMS: [&str; 3] = ["->", "all", "match"];

/// Parses a flow. `None` if an error was added to `errors`.
pub(super) fn flow(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Flow> {
    let NodeKind::List(items) = &node.kind else {
        if let NodeKind::Symbol(name) = &node.kind {
            return Some(Flow::Named(name.clone(), node.span));
        }
        let error = Diagnostic::new(
            node.span,
            format!("{} cannot be part of a flow", node.describe()),
            "expected a stage or (-> …)",
        );
        errors.push(error);
        return None;
    };
    let call = call(node, errors)?;
    if call.plugin.namespace.is_some() {
        return Some(Flow::Inline(call));
    }
    let rest = items.get(1..).unwrap_or_default();
    match call.plugin.name.as_str() {
        "->" => Some(Flow::Thread(flows(node, rest, errors)?, node.span)),
        "all" => Some(Flow::All(flows(node, rest, errors)?, node.span)),
        "match" => branches(node, rest, errors),
        _ => Some(Flow::Inline(call)),
    }
}

/// Parses a use of a plugin: a list that starts with the plugin's name. `None` if `node` is not a
/// list, or if an error was added to `errors`.
pub(super) fn call(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Call> {
    let NodeKind::List(items) = &node.kind else {
        return None;
    };
    let Some((head, args)) = items.split_first() else {
        errors.push(Diagnostic::new(
            node.span,
            "this list is empty",
            "expected a stage such as (kafka {…})",
        ));
        return None;
    };
    let NodeKind::Symbol(plugin) = &head.kind else {
        errors.push(Diagnostic::new(
            head.span,
            format!("{} is not a plugin name", head.describe()),
            "expected a name such as kafka",
        ));
        return None;
    };
    Some(Call {
        plugin: plugin.clone(),
        plugin_span: head.span,
        args: args.to_vec(),
        span: node.span,
    })
}

/// Whether `name` is `->`, `all` or `match`.
pub(super) fn is_form(name: &Name) -> bool {
    name.namespace.is_none() && FORMS.contains(&name.name.as_str())
}

fn flows(form: &Node, parts: &[Node], errors: &mut Vec<Diagnostic>) -> Option<Vec<Flow>> {
    if parts.is_empty() {
        errors.push(Diagnostic::new(
            form.span,
            "this form has no stages",
            "expected at least one stage",
        ));
        return None;
    }
    // Parse all parts before returning, so that the errors in every part are reported.
    let flows: Vec<Option<Flow>> = parts.iter().map(|part| flow(part, errors)).collect();
    flows.into_iter().collect()
}

fn branches(form: &Node, parts: &[Node], errors: &mut Vec<Diagnostic>) -> Option<Flow> {
    let before = errors.len();
    if parts.is_empty() {
        errors.push(Diagnostic::new(
            form.span,
            "this `match` has no branches",
            "expected a string or #r\"…\", then a flow",
        ));
    }
    let (mut found, mut otherwise) = (Vec::new(), None);
    for pair in parts.chunks(2) {
        let [pattern_node, rest @ ..] = pair else {
            continue;
        };
        let Some(target) = rest.first() else {
            errors.push(Diagnostic::new(
                pattern_node.span,
                "this `match` branch has no flow",
                "expected a flow after this",
            ));
            continue;
        };
        let is_else =
            matches!(&pattern_node.kind, NodeKind::Keyword(name) if name.to_string() == "else");
        if otherwise.is_some() {
            errors.push(Diagnostic::new(
                pattern_node.span,
                "`:else` must be the last branch",
                "unreachable branch",
            ));
        }
        let pattern = if is_else {
            None
        } else {
            pattern(pattern_node, errors)
        };
        let Some(target) = flow(target, errors) else {
            continue;
        };
        if is_else {
            otherwise = Some(Box::new(target));
        } else if let Some(pattern) = pattern {
            found.push(Branch {
                pattern,
                span: pattern_node.span,
                flow: target,
            });
        }
    }
    (errors.len() == before).then_some(Flow::Match {
        branches: found,
        otherwise,
        span: form.span,
    })
}

fn pattern(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Pattern> {
    match &node.kind {
        NodeKind::Str(text) => Some(Pattern::Text(text.value.clone())),
        NodeKind::Regex(text) => match text.to_regex() {
            Ok(_) => Some(Pattern::Regex(text.clone())),
            Err(error) => {
                errors.push(error);
                None
            }
        },
        _ => {
            let message = format!("`match` cannot compare a topic with {}", node.describe());
            errors.push(Diagnostic::new(
                node.span,
                message,
                "expected a string, #r\"…\" or :else",
            ));
            None
        }
    }
}
