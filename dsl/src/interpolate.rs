//! `${env:NAME}` and `${file:/path}`: what is filled in when a pipeline file is loaded.
//!
//! It is done after reading, so that what comes in is never syntax, and by the caller's own lookup,
//! so that this crate does no I/O. A text that something was filled into is [secret](Text::secret):
//! neither `Debug` nor a diagnostic prints it. `$${` is `${` itself.

use crate::document::Flow;
use crate::node::Text;
use crate::{Call, Diagnostic, Document, Node, NodeKind};

/// Finds a value: `lookup("env", "NAME")`. An error is a short reason, which is shown.
pub type Lookup<'a> = dyn FnMut(&str, &str) -> Result<String, String> + 'a;

/// Fills in all texts of the settings and of the stages' arguments.
///
/// # Errors
/// All lookups that failed, each at its place.
pub fn document(document: &mut Document, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    for (_, _, value) in &mut document.settings {
        fill(value, lookup, &mut mistakes);
    }
    for stage in &mut document.stages {
        fill_call(&mut stage.call, lookup, &mut mistakes);
    }
    fill_flow(&mut document.pipeline, lookup, &mut mistakes);
    mistakes.sort_by_key(|mistake| mistake.span);
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

/// Fills in all texts of one value; the keys of maps are left alone.
///
/// # Errors
/// All lookups that failed, each at its place.
pub fn node(node: &mut Node, lookup: &mut Lookup<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    fill(node, lookup, &mut mistakes);
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

fn fill_flow(flow: &mut Flow, lookup: &mut Lookup<'_>, mistakes: &mut Vec<Diagnostic>) {
    match flow {
        Flow::Named(..) => {}
        Flow::Inline(call) => fill_call(call, lookup, mistakes),
        Flow::Thread(flows, _) | Flow::All(flows, _) => flows
            .iter_mut()
            .for_each(|flow| fill_flow(flow, lookup, mistakes)),
        Flow::Match {
            branches,
            otherwise,
            ..
        } => {
            branches
                .iter_mut()
                .for_each(|branch| fill_flow(&mut branch.flow, lookup, mistakes));
            otherwise
                .iter_mut()
                .for_each(|flow| fill_flow(flow, lookup, mistakes));
        }
    }
}

fn fill_call(call: &mut Call, lookup: &mut Lookup<'_>, mistakes: &mut Vec<Diagnostic>) {
    call.args
        .iter_mut()
        .for_each(|arg| fill(arg, lookup, mistakes));
}

fn fill(node: &mut Node, lookup: &mut Lookup<'_>, mistakes: &mut Vec<Diagnostic>) {
    match &mut node.kind {
        NodeKind::Str(text) => fill_text(text, lookup, mistakes),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items
                .iter_mut()
                .for_each(|item| fill(item, lookup, mistakes));
        }
        NodeKind::Map(entries) => entries
            .iter_mut()
            .for_each(|(_, value)| fill(value, lookup, mistakes)),
        NodeKind::Tagged(_, value) => fill(value, lookup, mistakes),
        _ => {}
    }
}

fn fill_text(text: &mut Text, lookup: &mut Lookup<'_>, mistakes: &mut Vec<Diagnostic>) {
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
            Some((kind, arg)) => match lookup(kind, arg) {
                Ok(value) => {
                    filled.value.push_str(&value);
                    filled.secret = true;
                }
                Err(reason) => {
                    let span = template.span_of(found.start, found.end);
                    mistakes.push(Diagnostic::new(
                        span,
                        format!("`${{{kind}:{arg}}}` cannot be filled in"),
                        reason,
                    ));
                }
            },
        }
        copied = found.end;
    }
    append(&mut filled, &template, copied, template.value.len());
    *text = filled;
}

/// Adds the part `start..end` of `template` to the end of `filled`, which keeps knowing where it
/// stands.
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
    /// Kind and argument; none for `$${`.
    inner: Option<(&'a str, &'a str)>,
}

/// The first `${kind:argument}` or `$${` after `from`. Any other `${` is left as it is.
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
