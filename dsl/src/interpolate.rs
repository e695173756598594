//! Substitution of `${env:NAME}`, `${env:NAME:-default}` and the like when a pipeline file is loaded.
//!
//! As in a shell, the default stands for a value that is not set or empty.
//!
//! It runs after parsing, so that a substituted value is never syntax. The caller provides the
//! lookup, so that this crate does no I/O. A string knows what was [substituted](Text::filled) in
//! it: neither `Debug` nor a diagnostic prints that. `$${` is a literal `${`.

use crate::document::Flow;
use crate::filled_string::FilledString;
use crate::node::{Substitute, Text};
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

/// What a substitution found.
#[derive(Default)]
struct Outcome {
    errors: Vec<Diagnostic>,
    substituted: Vec<FilledString>,
}

/// Substitutes the placeholders in all strings of the settings, of named expressions and of the
/// stages' arguments.
///
/// # Errors
/// All failed lookups, in source order.
pub fn document(document: &mut Document, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut outcome = Outcome::default();
    for (_, _, value) in &mut document.settings {
        fill(value, lookup, &mut outcome);
    }
    for named in &mut document.expressions {
        fill(&mut named.body, lookup, &mut outcome);
    }
    for stage in &mut document.stages {
        fill_call(&mut stage.call, lookup, &mut outcome);
    }
    for named in &mut document.flows {
        fill_flow(&mut named.flow, lookup, &mut outcome);
    }
    fill_flow(&mut document.pipeline, lookup, &mut outcome);
    document.substituted = outcome.substituted;
    outcome.errors.sort_by_key(|error| error.span);
    if outcome.errors.is_empty() {
        Ok(())
    } else {
        Err(outcome.errors)
    }
}

/// Substitutes the placeholders in all strings of one value, except in the keys of maps.
///
/// # Errors
/// All failed lookups.
pub fn node(node: &mut Node, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut outcome = Outcome::default();
    fill(node, lookup, &mut outcome);
    if outcome.errors.is_empty() {
        Ok(())
    } else {
        Err(outcome.errors)
    }
}

fn fill_flow(flow: &mut Flow, lookup: &mut Lookup<'_>, outcome: &mut Outcome) {
    match flow {
        Flow::Named(..) => {}
        Flow::Inline(call) => fill_call(call, lookup, outcome),
        Flow::Thread(flows, _) | Flow::All(flows, _) => flows
            .iter_mut()
            .for_each(|flow| fill_flow(flow, lookup, outcome)),
        Flow::Match {
            branches,
            otherwise,
            ..
        } => {
            branches
                .iter_mut()
                .for_each(|branch| fill_flow(&mut branch.flow, lookup, outcome));
            otherwise
                .iter_mut()
                .for_each(|flow| fill_flow(flow, lookup, outcome));
        }
        Flow::Route {
            branches,
            otherwise,
            ..
        } => {
            for branch in branches {
                fill(&mut branch.condition, lookup, outcome);
                fill_flow(&mut branch.flow, lookup, outcome);
            }
            otherwise
                .iter_mut()
                .for_each(|flow| fill_flow(flow, lookup, outcome));
        }
    }
}

fn fill_call(call: &mut Call, lookup: &mut Lookup<'_>, outcome: &mut Outcome) {
    call.args
        .iter_mut()
        .for_each(|arg| fill(arg, lookup, outcome));
}

fn fill(node: &mut Node, lookup: &mut Lookup<'_>, outcome: &mut Outcome) {
    match &mut node.kind {
        NodeKind::Str(text) => fill_text(text, lookup, outcome),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items
                .iter_mut()
                .for_each(|item| fill(item, lookup, outcome));
        }
        NodeKind::Map(entries) => entries
            .iter_mut()
            .for_each(|(_, value)| fill(value, lookup, outcome)),
        NodeKind::Tagged(_, value) => fill(value, lookup, outcome),
        _ => {}
    }
}

fn fill_text(text: &mut Text, lookup: &mut Lookup<'_>, outcome: &mut Outcome) {
    let template = text.clone();
    let mut filled = Text {
        value: String::new(),
        shifts: Vec::new(),
        filled: Vec::new(),
        ..template.clone()
    };
    let mut copied = 0;
    while let Some(found) = next_placeholder(&template.value, copied) {
        append(&mut filled, &template, copied, found.start);
        match found.inner {
            Inner::Escape => filled.value.push_str("${"),
            Inner::Invalid { name, help } => {
                let span = template.span_of(found.start, found.end);
                let message = format!("`{name}` is not a variable");
                let label = "expected `${KIND:NAME}`, such as `${env:HOME}`";
                let error = Diagnostic::new(span, message, label).with_help(help);
                outcome.errors.push(error);
            }
            Inner::Variable(kind, arg) => {
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
                        let start = filled.value.len() as u32;
                        filled.value.push_str(&value);
                        filled.filled.push(Substitute {
                            start,
                            end: filled.value.len() as u32,
                            placeholder: format!("${{{kind}:{name}}}").into(),
                        });
                    }
                    (Err(LookupError::Unset(reason) | LookupError::Failed(reason)), _) => {
                        let span = template.span_of(found.start, found.end);
                        let message = format!("cannot substitute `${{{kind}:{arg}}}`");
                        let error = Diagnostic::new(span, message, reason);
                        outcome.errors.push(with_default_help(error, kind, arg));
                    }
                }
            }
        }
        copied = found.end;
    }
    append(&mut filled, &template, copied, template.value.len());
    if filled.is_filled() {
        outcome.substituted.push(FilledString {
            span: template.span(),
            text: filled.clone(),
        });
    }
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

/// An error whose help says how a default is written, if the name has a colon as in other tools.
fn with_default_help(error: Diagnostic, kind: &str, arg: &str) -> Diagnostic {
    match arg.split_once(':') {
        Some((name, default)) if kind == "env" && !default.starts_with('-') => error.with_help(
            format!("a default follows `:-`: `${{env:{name}:-{default}}}`"),
        ),
        _ => error,
    }
}

struct Placeholder<'a> {
    start: usize,
    end: usize,
    inner: Inner<'a>,
}

enum Inner<'a> {
    /// `$${`
    Escape,
    /// `${kind:argument}`
    Variable(&'a str, &'a str),
    /// What was probably meant as a variable: `${HOME}`, `${ENV:HOME}`, or one without its end.
    Invalid { name: &'a str, help: String },
}

/// The kinds of variables of which an unclosed one is an error. The caller decides which there are.
const KINDS: [&str; 5] = ["env:", "set:", "file:", "host:", "log:"];

/// The first `${kind:argument}` or `$${` at or after `from`. Any other `${` is literal text, as in
/// the replacement of a regular expression, unless it is like a variable of a shell.
fn next_placeholder(text: &str, from: usize) -> Option<Placeholder<'_>> {
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find('$')?;
        let rest = text.get(start..)?;
        let found = |length: usize, inner| {
            Some(Placeholder {
                start,
                end: start + length,
                inner,
            })
        };
        if rest.starts_with("$${") {
            return found(3, Inner::Escape);
        }
        let Some(body) = rest.strip_prefix("${") else {
            at = start + 1;
            continue;
        };
        let Some((body, _)) = body.split_once('}') else {
            if KINDS.iter().any(|kind| body.starts_with(kind)) {
                let help = "add the `}`; for the characters `${`, write `$${`".to_owned();
                return found(rest.len(), Inner::Invalid { name: rest, help });
            }
            at = start + 1;
            continue;
        };
        let length = body.len() + 3;
        match body.split_once(':') {
            Some((kind, arg)) if is_kind(kind) => {
                return found(length, Inner::Variable(kind, arg));
            }
            _ => {}
        }
        if let Some(meant) = meant(body) {
            let help = format!("write `${{{meant}}}`; for the characters `${{`, write `$${{`");
            let name = &rest[..length];
            return found(length, Inner::Invalid { name, help });
        }
        at = start + 1;
    }
}

fn is_kind(kind: &str) -> bool {
    !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// The variable that is meant by the part between the braces of `${HOME}` or `${ENV:HOME}`.
fn meant(body: &str) -> Option<String> {
    let is_upper = |name: &str| {
        let rest = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let starts = name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_');
        starts && name.bytes().all(rest)
    };
    match body.split_once(':') {
        None => is_upper(body).then(|| format!("env:{body}")),
        Some((kind, arg)) if KINDS.contains(&format!("{}:", kind.to_lowercase()).as_str()) => {
            Some(format!("{}:{arg}", kind.to_lowercase()))
        }
        // `${HOME:-/root}`, as in a shell.
        Some((name, default)) if default.starts_with('-') && is_upper(name) => {
            Some(format!("env:{name}:{default}"))
        }
        Some(_) => None,
    }
}
