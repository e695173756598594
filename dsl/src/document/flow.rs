//! A parser for flows: `->`, `all`, `match`, `route`, names of stages and inline stages.

use super::{Branch, Call, Flow, Pattern, RouteBranch};
use crate::expr::{self, BinaryOp, ExprKind};
use crate::node::Text;
use crate::{Diagnostic, Name, Node, NodeKind, Span, print};

/// The words that combine stages and that are reserved: no stage or plugin can have these names.
/// `route` is not one of them, so that files with a stage of this name stay valid: the form is a
/// list.
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
        "match" => {
            let (branches, otherwise) = branches(node, "match", rest, pattern, errors)?;
            let branch = |(pattern, span, flow)| Branch {
                pattern,
                span,
                flow,
            };
            Some(Flow::Match {
                branches: branches.into_iter().map(branch).collect(),
                otherwise,
                span: node.span,
            })
        }
        "route" => {
            let (branches, otherwise) = branches(node, "route", rest, condition, errors)?;
            let branch = |(condition, _, flow)| RouteBranch { condition, flow };
            Some(Flow::Route {
                branches: branches.into_iter().map(branch).collect(),
                otherwise,
                span: node.span,
            })
        }
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
        let error = Diagnostic::new(
            head.span,
            format!("{} is not a plugin name", head.describe()),
            "expected a name such as kafka",
        );
        let named = args
            .iter()
            .position(|arg| matches!(arg.kind, NodeKind::Symbol(_)));
        errors.push(match named {
            Some(at) => {
                let mut sorted = items.clone();
                sorted.remove(at + 1);
                sorted.insert(0, args[at].clone());
                error.with_help(format!("the name is first: {}", print::list(sorted)))
            }
            None => error,
        });
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

/// Whether the node is a form that combines stages, such as `(-> a b)`.
pub(super) fn is_flow(node: &Node) -> bool {
    let name = match &node.kind {
        NodeKind::List(items) => match items.first().map(|first| &first.kind) {
            Some(NodeKind::Symbol(name)) => name,
            _ => return false,
        },
        _ => return false,
    };
    is_form(name) || (name.namespace.is_none() && name.name == "route")
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

/// The branches of a form, each with what selects it and its position, and the flow after `:else`.
type Branches<P> = (Vec<(P, Span, Flow)>, Option<Box<Flow>>);

/// Parses the branches of a form with this name; `selector` parses what selects a branch.
fn branches<P>(
    form: &Node,
    name: &str,
    parts: &[Node],
    selector: fn(&Node, &mut Vec<Diagnostic>) -> Option<P>,
    errors: &mut Vec<Diagnostic>,
) -> Option<Branches<P>> {
    let before = errors.len();
    if parts.is_empty() {
        errors.push(Diagnostic::new(
            form.span,
            format!("this `{name}` has no branches"),
            match name {
                "route" => "expected a condition, then a flow",
                _ => "expected a string or #r\"…\", then a flow",
            },
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
                format!("this `{name}` branch has no flow"),
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
        let selector = if is_else {
            None
        } else {
            selector(pattern_node, errors)
        };
        let Some(target) = flow(target, errors) else {
            continue;
        };
        if is_else {
            otherwise = Some(Box::new(target));
        } else if let Some(selector) = selector {
            found.push((selector, pattern_node.span, target));
        }
    }
    (errors.len() == before).then_some((found, otherwise))
}

fn condition(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Node> {
    if matches!(node.kind, NodeKind::Str(_) | NodeKind::Regex(_)) {
        return Some(node.clone());
    }
    let message = format!("{} is not a condition", node.describe());
    let label = "expected an SQL expression in quotes, or :else";
    errors.push(Diagnostic::new(node.span, message, label));
    None
}

fn pattern(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Pattern> {
    match &node.kind {
        NodeKind::Str(text) if is_condition(text) => {
            let message = format!("`{}` is a condition, not the name of a topic", text.value);
            let error = Diagnostic::new(node.span, message, "expected a topic");
            errors.push(
                error.with_help("`route` chooses by conditions: (route \"CONDITION\" FLOW …)"),
            );
            None
        }
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

/// Whether a string is an expression that is true or false, with the spaces that hardly any topic
/// has.
fn is_condition(text: &Text) -> bool {
    text.value.contains(' ')
        && expr::parse(text).is_ok_and(|expr| match expr.kind {
            // A path may have the signs of the others.
            ExprKind::Binary(_, op, _) => {
                op.is_comparison() || matches!(op, BinaryOp::And | BinaryOp::Or)
            }
            ExprKind::Between { .. }
            | ExprKind::In { .. }
            | ExprKind::Is { .. }
            | ExprKind::Like { .. } => true,
            _ => false,
        })
}
