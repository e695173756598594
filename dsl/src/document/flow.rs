//! The flow: `->`, `all`, `match`, names of stages and stages in place.

use super::{Branch, Call, Flow, Pattern};
use crate::{Diagnostic, Name, Node, NodeKind};

/// The words that put stages together, so that no plugin can be called so.
pub(super) const FORMS: [&str; 3] = ["->", "all", "match"];

/// What `node` says, or none where that is reported in `mistakes`.
pub(super) fn flow(node: &Node, mistakes: &mut Vec<Diagnostic>) -> Option<Flow> {
    let NodeKind::List(items) = &node.kind else {
        if let NodeKind::Symbol(name) = &node.kind {
            return Some(Flow::Named(name.clone(), node.span));
        }
        let mistake = Diagnostic::new(
            node.span,
            format!("{} is no part of a flow", node.describe()),
            "expected a stage or (-> …)",
        );
        mistakes.push(mistake);
        return None;
    };
    let call = call(node, mistakes)?;
    if call.plugin.namespace.is_some() {
        return Some(Flow::Inline(call));
    }
    let rest = items.get(1..).unwrap_or_default();
    match call.plugin.name.as_str() {
        "->" => Some(Flow::Thread(flows(node, rest, mistakes)?, node.span)),
        "all" => Some(Flow::All(flows(node, rest, mistakes)?, node.span)),
        "match" => branches(node, rest, mistakes),
        _ => Some(Flow::Inline(call)),
    }
}

/// The use of a plugin: a list that begins with its name.
pub(super) fn call(node: &Node, mistakes: &mut Vec<Diagnostic>) -> Option<Call> {
    let NodeKind::List(items) = &node.kind else {
        return None;
    };
    let Some((head, args)) = items.split_first() else {
        mistakes.push(Diagnostic::new(
            node.span,
            "this list is empty",
            "expected a stage such as (kafka {…})",
        ));
        return None;
    };
    let NodeKind::Symbol(plugin) = &head.kind else {
        mistakes.push(Diagnostic::new(
            head.span,
            format!("{} cannot begin a stage", head.describe()),
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

fn flows(form: &Node, parts: &[Node], mistakes: &mut Vec<Diagnostic>) -> Option<Vec<Flow>> {
    if parts.is_empty() {
        mistakes.push(Diagnostic::new(
            form.span,
            "there are no stages in this",
            "expected at least one stage",
        ));
        return None;
    }
    // All parts are looked at, so that the mistakes in each are found.
    let flows: Vec<Option<Flow>> = parts.iter().map(|part| flow(part, mistakes)).collect();
    flows.into_iter().collect()
}

fn branches(form: &Node, parts: &[Node], mistakes: &mut Vec<Diagnostic>) -> Option<Flow> {
    let before = mistakes.len();
    if parts.is_empty() {
        mistakes.push(Diagnostic::new(
            form.span,
            "there are no branches in this `match`",
            "expected a text or #r\"…\", then a flow",
        ));
    }
    let (mut found, mut otherwise) = (Vec::new(), None);
    for pair in parts.chunks(2) {
        let [pattern_node, rest @ ..] = pair else {
            continue;
        };
        let Some(target) = rest.first() else {
            mistakes.push(Diagnostic::new(
                pattern_node.span,
                "this branch of `match` leads nowhere",
                "expected a flow after this",
            ));
            continue;
        };
        let is_else =
            matches!(&pattern_node.kind, NodeKind::Keyword(name) if name.to_string() == "else");
        if otherwise.is_some() {
            mistakes.push(Diagnostic::new(
                pattern_node.span,
                "nothing may follow `:else`",
                "this branch is never reached",
            ));
        }
        let pattern = if is_else {
            None
        } else {
            pattern(pattern_node, mistakes)
        };
        let Some(target) = flow(target, mistakes) else {
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
    (mistakes.len() == before).then_some(Flow::Match {
        branches: found,
        otherwise,
        span: form.span,
    })
}

fn pattern(node: &Node, mistakes: &mut Vec<Diagnostic>) -> Option<Pattern> {
    match &node.kind {
        NodeKind::Str(text) => Some(Pattern::Text(text.value.clone())),
        NodeKind::Regex(text) => Some(Pattern::Regex(text.clone())),
        _ => {
            let message = format!("`match` cannot compare a topic with {}", node.describe());
            mistakes.push(Diagnostic::new(
                node.span,
                message,
                "expected a text, #r\"…\" or :else",
            ));
            None
        }
    }
}
