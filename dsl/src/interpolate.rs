//! Substitution of `${env:NAME}`, `${env:NAME:-default}` and the like when a pipeline file is loaded.
//!
//! As in a shell, the default stands for a value that is not set or empty.
//!
//! It runs after parsing, so that a substituted value is never syntax. The caller provides the
//! lookup, so that this crate does no I/O. A string with a substituted value is
//! [secret](Text::secret): neither `Debug` nor a diagnostic prints it. `$${` is a literal `${`.

use crate::document::Flow;
use crate::node::Text;
use crate::{Call, Diagnostic, Document, Node, NodeKind};

/// Returns the value of a placeholder: `lookup("env", "NAME")`.
pub type Lookup<'a> = dyn FnMut(&str, &str) -> Result<String, LookupError> + 'a;

/// Why a placeholder has no value: a short reason, which is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It has none. A default stands for it.
    Unset(String),
    /// It cannot be determined.
    Failed(String),
}

/// Substitutes the placeholders in all strings of the settings, of named expressions and of the
/// stages' arguments.
///
/// # Errors
/// All failed lookups, in source order.
pub fn document(document: &mut Document, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    for (_, _, value) in &mut document.settings {
        fill(value, lookup, &mut errors);
    }
    for named in &mut document.expressions {
        fill(&mut named.body, lookup, &mut errors);
    }
    for stage in &mut document.stages {
        fill_call(&mut stage.call, lookup, &mut errors);
    }
    for named in &mut document.flows {
        fill_flow(&mut named.flow, lookup, &mut errors);
    }
    fill_flow(&mut document.pipeline, lookup, &mut errors);
    errors.sort_by_key(|error| error.span);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Substitutes the placeholders in all strings of one value, except in the keys of maps.
///
/// # Errors
/// All failed lookups.
pub fn node(node: &mut Node, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    fill(node, lookup, &mut errors);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn fill_flow(flow: &mut Flow, lookup: &mut Lookup<'_>, errors: &mut Vec<Diagnostic>) {
    match flow {
        Flow::Named(..) => {}
        Flow::Inline(call) => fill_call(call, lookup, errors),
        Flow::Thread(flows, _) | Flow::All(flows, _) => flows
            .iter_mut()
            .for_each(|flow| fill_flow(flow, lookup, errors)),
        Flow::Match {
            branches,
            otherwise,
            ..
        } => {
            branches
                .iter_mut()
                .for_each(|branch| fill_flow(&mut branch.flow, lookup, errors));
            otherwise
                .iter_mut()
                .for_each(|flow| fill_flow(flow, lookup, errors));
        }
        Flow::Route {
            branches,
            otherwise,
            ..
        } => {
            for branch in branches {
                fill(&mut branch.condition, lookup, errors);
                fill_flow(&mut branch.flow, lookup, errors);
            }
            otherwise
                .iter_mut()
                .for_each(|flow| fill_flow(flow, lookup, errors));
        }
    }
}

fn fill_call(call: &mut Call, lookup: &mut Lookup<'_>, errors: &mut Vec<Diagnostic>) {
    call.args
        .iter_mut()
        .for_each(|arg| fill(arg, lookup, errors));
}

fn fill(node: &mut Node, lookup: &mut Lookup<'_>, errors: &mut Vec<Diagnostic>) {
    match &mut node.kind {
        NodeKind::Str(text) => fill_text(text, lookup, errors),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items.iter_mut().for_each(|item| fill(item, lookup, errors));
        }
        NodeKind::Map(entries) => entries
            .iter_mut()
            .for_each(|(_, value)| fill(value, lookup, errors)),
        NodeKind::Tagged(_, value) => fill(value, lookup, errors),
        _ => {}
    }
}

fn fill_text(text: &mut Text, lookup: &mut Lookup<'_>, errors: &mut Vec<Diagnostic>) {
    let template = text.clone();
    let mut filled = Text {
        value: String::new(),
        shifts: Vec::new(),
        ..template.clone()
    };
    let mut copied = 0;
    while let Some(found) = next_placeholder(&template.value, copied) {
        append(&mut filled, &template, copied, found.start);
        match found.inner {
            None => filled.value.push_str("${"),
            Some((kind, arg)) => {
                let (name, default) = match arg.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (arg, None),
                };
                match (lookup(kind, name), default) {
                    (Err(LookupError::Unset(_)), Some(default)) => filled.value.push_str(default),
                    (Ok(value), Some(default)) if value.is_empty() => {
                        filled.value.push_str(default);
                    }
                    (Ok(value), _) => {
                        filled.value.push_str(&value);
                        filled.secret = true;
                    }
                    (Err(LookupError::Unset(reason) | LookupError::Failed(reason)), _) => {
                        let span = template.span_of(found.start, found.end);
                        let message = format!("cannot substitute `${{{kind}:{arg}}}`");
                        errors.push(Diagnostic::new(span, message, reason));
                    }
                }
            }
        }
        copied = found.end;
    }
    append(&mut filled, &template, copied, template.value.len());
    *text = filled;
}

/// Appends the part `start..end` of `template` to `filled`, and keeps the source positions of
/// `filled` correct.
fn append(filled: &mut Text, template: &Text, start: usize, end: usize) {
    let part = template.slice(start, end);
    let at = filled.value.len();
    let base = i64::from(part.start) - i64::from(filled.start) - at as i64;
    if start > 0 {
        filled.shifts.push((at as u32, base as i32));
    }
    filled.shifts.extend(
        part.shifts
            .iter()
            .map(|(byte, extra)| (byte + at as u32, (base + i64::from(*extra)) as i32)),
    );
    filled.value.push_str(&part.value);
}

struct Placeholder<'a> {
    start: usize,
    end: usize,
    /// The kind and the argument. `None` for `$${`.
    inner: Option<(&'a str, &'a str)>,
}

/// The first `${kind:argument}` or `$${` at or after `from`. Any other `${` is literal text.
fn next_placeholder(text: &str, from: usize) -> Option<Placeholder<'_>> {
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find('$')?;
        let rest = text.get(start..)?;
        if rest.starts_with("$${") {
            return Some(Placeholder {
                start,
                end: start + 3,
                inner: None,
            });
        }
        let body = rest
            .strip_prefix("${")
            .and_then(|rest| rest.split_once('}'))
            .map(|(body, _)| body);
        let inner = body.and_then(|body| body.split_once(':'));
        let is_kind =
            |kind: &str| !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        match (body, inner) {
            (Some(body), Some((kind, arg))) if is_kind(kind) => {
                return Some(Placeholder {
                    start,
                    end: start + body.len() + 3,
                    inner: Some((kind, arg)),
                });
            }
            _ => at = start + 1,
        }
    }
}
