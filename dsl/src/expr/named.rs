//! Named expressions: a call such as `share(errors, requests)` stands for the expression that a file
//! defines under this name.
//!
//! The definition takes the place of the call in the syntax tree, and the arguments those of its
//! parameters ([`expand`]). So no precedence can change, and a field in an argument is never taken
//! for a parameter. The positions of a definition's parts say for which use they stand
//! ([`Span::expansion`]), so that an error in it also shows where it is used. The position of an
//! argument says for which parameter it stands, so that an error in it also shows what needs another
//! argument.
//!
//! None may contain itself ([`cycle`]), and what they expand to is limited: a few lines in which each
//! uses the next one twice would otherwise be an expression of any size.

mod cycle;
mod expand;
mod unused;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Expr, ExprKind, parse};
use crate::diagnostic::ExpressionUse;
use crate::document::NamedExpression;
use crate::{Diagnostic, Node, NodeKind, Span, nearest};

/// The named expressions of a document, and their uses so far.
#[derive(Debug)]
pub struct NamedExpressions {
    /// By their names in lower case.
    definitions: BTreeMap<String, Definition>,
    /// Whether no definition has an error.
    is_valid: bool,
    /// Whether one has the value of an `${env:NAME}`.
    pub(super) have_secrets: bool,
    /// The names of all functions.
    functions: BTreeSet<&'static str>,
    /// How many parts the uses have added to syntax trees.
    parts: AtomicUsize,
    /// [`Span::expansion`] is the number of a use, from 1.
    uses: Mutex<Vec<Use>>,
}

/// A use of a named expression, or of an argument in it.
#[derive(Debug)]
struct Use {
    shown: ExpressionUse,
    /// The number of the use in which the call is, or from which the argument comes; 0 for none.
    within: u32,
}

#[derive(Debug)]
struct Definition {
    /// As it is written.
    name: Arc<str>,
    name_span: Span,
    parameters: Vec<Arc<str>>,
    /// The expression, in which named ones are calls. `None` if there is an error in it.
    body: Option<Expr>,
    /// How many parts the body has.
    parts: usize,
    included: bool,
}

impl NamedExpressions {
    /// Parses and checks the named expressions of a document. `functions` are the names of all
    /// functions. The errors in definitions are returned too. The calls of such definitions have no
    /// further errors, unless only a parameter is not used.
    pub fn new(
        definitions: &[NamedExpression],
        functions: impl IntoIterator<Item = &'static str>,
    ) -> (NamedExpressions, Vec<Diagnostic>) {
        let mut names = NamedExpressions {
            definitions: BTreeMap::new(),
            is_valid: true,
            have_secrets: false,
            functions: functions.into_iter().collect(),
            parts: AtomicUsize::new(0),
            uses: Mutex::default(),
        };
        let mut errors = Vec::new();
        for definition in definitions {
            errors.extend(names.add(definition));
        }
        errors.extend(names.check_calls());
        errors.extend(cycle::break_cycles(&mut names.definitions));
        names.is_valid = errors.is_empty();
        (names, errors)
    }

    /// Adds a definition. Returns its errors.
    fn add(&mut self, definition: &NamedExpression) -> Vec<Diagnostic> {
        let key = definition.name.to_ascii_lowercase();
        let mut errors = Vec::new();
        let is_taken_by = |what: &str| {
            let message = format!("`{}` is {what}", definition.name);
            let label = "a named expression cannot have its name";
            Diagnostic::new(definition.name_span, message, label).with_help("choose another name")
        };
        if self.functions.contains(key.as_str()) {
            errors.push(is_taken_by("a function"));
        } else if let "both" | "distinct" | "leading" | "trailing" = key.as_str() {
            errors.push(is_taken_by("a word of expressions"));
        }
        let body = match &definition.body.kind {
            NodeKind::Str(text) | NodeKind::Regex(text) if errors.is_empty() => {
                self.have_secrets |= text.without_secrets(0..text.value.len()).is_some();
                parse(text)
            }
            _ => Err(Vec::new()),
        };
        let body = body.map_err(|more| errors.extend(more)).ok();
        errors.extend(unused::parameters(definition, body.as_ref()));
        let parts = body.as_ref().map_or(0, expand::parts);
        let parameters = definition.parameters.iter();
        self.definitions.insert(
            key,
            Definition {
                name: definition.name.as_str().into(),
                name_span: definition.name_span,
                parameters: parameters.map(|(name, _)| name.as_str().into()).collect(),
                body,
                parts,
                included: definition.included,
            },
        );
        errors
    }

    /// Checks the calls inside the definitions, and removes the bodies of those with an error.
    fn check_calls(&mut self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        let mut wrong = Vec::new();
        for (key, definition) in &self.definitions {
            let before = errors.len();
            let body = definition.body.iter();
            body.for_each(|body| self.check_calls_in(body, &mut errors));
            if errors.len() > before {
                wrong.push(key.clone());
            }
        }
        for key in wrong {
            if let Some(definition) = self.definitions.get_mut(&key) {
                definition.body = None;
            }
        }
        errors
    }

    fn check_calls_in(&self, expr: &Expr, errors: &mut Vec<Diagnostic>) {
        errors.extend(self.wrong_call(expr));
        let parts = expr.parts().into_iter();
        parts.for_each(|part| self.check_calls_in(part, errors));
    }

    /// The error in a call of a named expression, or of a name that is nearly one.
    fn wrong_call(&self, expr: &Expr) -> Option<Diagnostic> {
        let ExprKind::Call {
            name,
            name_span,
            distinct,
            args,
        } = &expr.kind
        else {
            return None;
        };
        let Some(definition) = self.definitions.get(name) else {
            return self.nearly(name, *name_span);
        };
        // Without a body, its error is reported. The call may be one of a function with its name.
        definition.body.as_ref()?;
        let (name, usage) = (&definition.name, definition.usage());
        if *distinct {
            let message = format!("`{name}` is a named expression");
            let error = Diagnostic::new(*name_span, message, "it cannot have `distinct`");
            return Some(error.with_help(format!("write `{usage}`")));
        }
        let (expected, found) = (definition.parameters.len(), args.len());
        if expected == found {
            return None;
        }
        let arguments = if expected == 1 {
            "argument"
        } else {
            "arguments"
        };
        let message = format!("`{name}` needs {expected} {arguments}, found {found}");
        let error = Diagnostic::new(expr.span, message, "wrong number of arguments");
        Some(error.with_help(format!("usage: {usage}")))
    }

    /// The error for a name that is not a function, and most like a named expression.
    fn nearly(&self, name: &str, span: Span) -> Option<Diagnostic> {
        if self.functions.contains(name) {
            return None;
        }
        let named = self.definitions.keys().map(String::as_str);
        let near = nearest(name, named.chain(self.functions.iter().copied()))?;
        let usage = self.definitions.get(near)?.usage();
        let message = format!("unknown function `{name}`");
        let error = Diagnostic::new(span, message, "not a function");
        Some(error.with_help(format!("did you mean `{usage}`?")))
    }

    /// Makes the named expressions known to all strings in a value, which may be expressions.
    pub fn attach(self: &Arc<Self>, node: &mut Node) {
        match &mut node.kind {
            NodeKind::Str(text) | NodeKind::Regex(text) => text.names = Some(self.clone()),
            NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
                items.iter_mut().for_each(|item| self.attach(item));
            }
            NodeKind::Map(entries) => {
                entries.iter_mut().for_each(|(_, value)| self.attach(value));
            }
            NodeKind::Tagged(_, value) => self.attach(value),
            _ => {}
        }
    }

    /// The name of the named expression that is called, as it is defined.
    pub(super) fn called(&self, expr: &Expr) -> Option<&str> {
        let ExprKind::Call { name, .. } = &expr.kind else {
            return None;
        };
        self.definitions.get(name).map(|found| &*found.name)
    }

    /// The first definition of the pipeline file itself that is not used: its name and position.
    /// `None` if a definition has an error, since it may be the one that uses the others.
    pub fn unused(&self) -> Option<(&str, Span)> {
        if !self.is_valid {
            return None;
        }
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let used: BTreeSet<&str> = uses.iter().map(|used| &*used.shown.name).collect();
        let unused = self
            .definitions
            .values()
            .filter(|found| !found.included && !used.contains(&*found.name));
        unused
            .map(|found| (&*found.name, found.name_span))
            .min_by_key(|(_, span)| *span)
    }

    /// Adds to each error in a definition or in an argument where it is used. An error that several
    /// uses have is kept once.
    pub fn explained(&self, errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let mut explained: Vec<Diagnostic> = Vec::new();
        for error in errors {
            let place = (error.span.start, error.span.end);
            let is_known = explained.iter().any(|known| {
                known.message == error.message && (known.span.start, known.span.end) == place
            });
            if !is_known || error.span.expansion == 0 {
                let uses = self.uses_of(error.span);
                explained.push(Diagnostic { uses, ..error });
            }
        }
        explained
    }

    /// The uses for which a position stands, the innermost first.
    fn uses_of(&self, span: Span) -> Vec<ExpressionUse> {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let mut number = span.expansion as usize;
        while let Some(used) = number.checked_sub(1).and_then(|at| uses.get(at)) {
            found.push(used.shown.clone());
            number = used.within as usize;
        }
        found
    }
}

/// They are equal if they are the same: a string is not another one because of them.
impl PartialEq for NamedExpressions {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for NamedExpressions {}

impl Definition {
    /// How it is called: `share(part, whole)`.
    fn usage(&self) -> String {
        format!("{}({})", self.name, self.parameters.join(", "))
    }
}
