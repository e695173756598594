//! Definitions that contain themselves.

use std::collections::BTreeMap;

use super::Definition;
use crate::expr::{Expr, ExprKind};
use crate::{Diagnostic, Span};

/// How many cycles are reported.
const MAX_SHOWN: usize = 20;

/// The definitions that each one calls, each with the position of the call.
type Calls = BTreeMap<String, Vec<(String, Span)>>;

/// Removes the bodies of definitions that contain themselves. Returns an error for each cycle.
pub(super) fn break_cycles(definitions: &mut BTreeMap<String, Definition>) -> Vec<Diagnostic> {
    let mut calls = calls(definitions);
    let mut errors = Vec::new();
    while errors.len() < MAX_SHOWN {
        remove_finite(&mut calls);
        // What is left calls only what is left, so that following the calls ends in a cycle.
        let Some(cycle) = cycle(&calls) else {
            return errors;
        };
        errors.extend(error(definitions, &cycle));
        for (key, _) in cycle {
            calls.remove(&key);
            if let Some(definition) = definitions.get_mut(&key) {
                definition.body = None;
            }
        }
        let remaining: Vec<String> = calls.keys().cloned().collect();
        for called in calls.values_mut() {
            called.retain(|(key, _)| remaining.binary_search(key).is_ok());
        }
    }
    for key in calls.keys() {
        if let Some(definition) = definitions.get_mut(key) {
            definition.body = None;
        }
    }
    errors
}

fn calls(definitions: &BTreeMap<String, Definition>) -> Calls {
    let of = |definition: &Definition| {
        let mut found = Vec::new();
        let body = definition.body.iter();
        body.for_each(|body| calls_in(body, definitions, &mut found));
        found
    };
    let all = definitions.iter();
    all.map(|(key, definition)| (key.clone(), of(definition)))
        .collect()
}

fn calls_in(
    expr: &Expr,
    definitions: &BTreeMap<String, Definition>,
    found: &mut Vec<(String, Span)>,
) {
    if let ExprKind::Call { name, .. } = &expr.kind
        && definitions.contains_key(name)
    {
        found.push((name.clone(), expr.span));
    }
    let parts = expr.parts().into_iter();
    parts.for_each(|part| calls_in(part, definitions, found));
}

/// Removes the definitions from which no call leads to a cycle.
fn remove_finite(calls: &mut Calls) {
    let mut callers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (caller, called) in calls.iter() {
        for (key, _) in called {
            callers.entry(key.clone()).or_default().push(caller.clone());
        }
    }
    let mut left: BTreeMap<String, usize> = calls
        .iter()
        .map(|(key, called)| (key.clone(), called.len()))
        .collect();
    let mut finite: Vec<String> = left
        .iter()
        .filter(|(_, left)| **left == 0)
        .map(|(key, _)| key.clone())
        .collect();
    while let Some(key) = finite.pop() {
        calls.remove(&key);
        for caller in callers.get(&key).into_iter().flatten() {
            if let Some(left) = left.get_mut(caller) {
                *left -= 1;
                if *left == 0 {
                    finite.push(caller.clone());
                }
            }
        }
    }
    for called in calls.values_mut() {
        called.retain(|(key, _)| left.get(key).is_some_and(|left| *left > 0));
    }
}

/// A cycle of calls: each definition with the position at which it calls the next one, and the last
/// one the first.
fn cycle(calls: &Calls) -> Option<Vec<(String, Span)>> {
    let mut path: Vec<(String, Span)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut key = calls.keys().next()?;
    loop {
        if let Some(begin) = places.insert(key, path.len()) {
            return Some(path.split_off(begin));
        }
        let (next, span) = calls.get(key)?.first()?;
        path.push((key.clone(), *span));
        key = next;
    }
}

fn error(
    definitions: &BTreeMap<String, Definition>,
    cycle: &[(String, Span)],
) -> Option<Diagnostic> {
    let shown = |key: &String| Some(&definitions.get(key)?.name);
    let ((first, span), rest) = cycle.split_first()?;
    let first = shown(first)?;
    let label = if rest.is_empty() {
        "it is used inside its own definition".to_owned()
    } else {
        let between = rest.iter().filter_map(|(key, _)| shown(key));
        let between: Vec<String> = between.map(|name| format!("`{name}`")).collect();
        format!(
            "it uses {}, which uses `{first}`",
            between.join(", which uses ")
        )
    };
    let message = format!("the expression `{first}` contains itself");
    Some(Diagnostic::new(*span, message, label))
}
