//! The expansion of calls of named expressions.

use std::mem::take;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Definition, NamedExpressions, Use};
use crate::diagnostic::ExpressionUse;
use crate::expr::parse::MAX_LEVELS;
use crate::expr::{Expr, ExprKind, Literal, Meta, Path, PathStep};
use crate::{Diagnostic, Span};

/// How many parts of syntax trees the named expressions of a document may expand to: a name, a
/// constant, an operator or a call is a part, and so are each further bytes of a string or a path.
const MAX_PARTS: usize = 200_000;

/// How many bytes of a text are a part.
const BYTES_OF_PART: usize = 16;

impl NamedExpressions {
    /// Expands the calls in an expression. Returns the errors.
    pub(in crate::expr) fn expand(&self, expr: &mut Expr) -> Vec<Diagnostic> {
        let mut expander = Expander {
            names: self,
            errors: Vec::new(),
            is_stopped: false,
        };
        let written = Scope {
            definition: None,
            arguments: &[],
            expansion: 0,
        };
        expander.fill(expr, &written, 0);
        expander.errors
    }

    /// Counts parts that are added. Returns whether there may be so many.
    fn count(&self, parts: usize) -> Result<(), IsFirst> {
        let before = self.parts.fetch_add(parts, Ordering::Relaxed);
        if before.saturating_add(parts) <= MAX_PARTS {
            Ok(())
        } else {
            Err(IsFirst(before <= MAX_PARTS))
        }
    }

    /// The number of a new use, which is inside of the one with the number `within`.
    fn add_use(&self, shown: ExpressionUse, within: u32) -> u32 {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.push(Use { shown, within });
        uses.len() as u32
    }
}

/// Whether it was not exceeded before.
struct IsFirst(bool);

/// How many parts a syntax tree has.
pub(super) fn parts(expr: &Expr) -> usize {
    let bytes = match &expr.kind {
        ExprKind::Literal(Literal::Str(text)) => text.len(),
        ExprKind::Path(path) => path_bytes(&path.0),
        ExprKind::Meta(Meta::Headers(Some(name))) => name.len(),
        _ => 0,
    };
    1 + bytes / BYTES_OF_PART + expr.parts().into_iter().map(parts).sum::<usize>()
}

/// The bytes of the names of a path, with something for each step.
fn path_bytes(steps: &[PathStep]) -> usize {
    let bytes = |step: &PathStep| match step {
        PathStep::Field(name) => name.len() + BYTES_OF_PART,
        PathStep::Index(_) => BYTES_OF_PART,
    };
    steps.iter().map(bytes).sum()
}

/// The depth of a syntax tree.
fn levels(expr: &Expr) -> usize {
    let deepest = expr.parts().into_iter().map(levels).max();
    1 + deepest.unwrap_or(0)
}

/// What the names in a text stand for.
struct Scope<'s> {
    /// The definition that the text is; `None` for an expression where it is written.
    definition: Option<&'s Definition>,
    arguments: &'s [Argument],
    /// The use of the text; 0 for an expression where it is written.
    expansion: u32,
}

/// An argument without calls of named expressions.
struct Argument {
    expr: Expr,
    parts: usize,
    levels: usize,
}

struct Expander<'n> {
    names: &'n NamedExpressions,
    errors: Vec<Diagnostic>,
    /// Whether a limit is exceeded, so that nothing more is expanded.
    is_stopped: bool,
}

impl Expander<'_> {
    /// Expands an expression of a text, at this level of the syntax tree. The recursion is bounded by
    /// the limit of levels.
    fn fill(&mut self, expr: &mut Expr, scope: &Scope<'_>, level: usize) {
        mark(expr, scope.expansion);
        if level > MAX_LEVELS {
            self.too_deep(expr.span);
            *expr = null(expr.span);
            return;
        }
        if let ExprKind::Path(path) = &expr.kind {
            if let Some(argument) = self.argument(path, expr.span, scope, level) {
                *expr = argument;
            }
            return;
        }
        for part in expr.parts_mut() {
            self.fill(part, scope, level + 1);
        }
        // The calls in definitions have been checked.
        let wrong = match scope.expansion {
            0 => self.names.wrong_call(expr),
            _ => None,
        };
        let span = expr.span;
        if let Some(error) = wrong {
            self.errors.push(error);
            *expr = null(span);
        } else if let ExprKind::Call { name, args, .. } = &mut expr.kind
            && let Some(definition) = self.names.definitions.get(name)
        {
            let expanded = self.call(definition, take(args), span, level);
            *expr = expanded.unwrap_or_else(|| null(span));
        }
    }

    /// The definition with these arguments. `None` if there is an error, here or in the definition.
    fn call(
        &mut self,
        definition: &Definition,
        args: Vec<Expr>,
        span: Span,
        level: usize,
    ) -> Option<Expr> {
        let body = definition.body.as_ref().filter(|_| !self.is_stopped)?;
        self.count(
            definition.parts + definition.name.len() / BYTES_OF_PART,
            span,
        )?;
        let mut expanded = body.clone();
        let arguments = args.into_iter().map(|expr| Argument {
            parts: parts(&expr),
            levels: levels(&expr),
            expr,
        });
        let shown = ExpressionUse {
            name: definition.name.clone(),
            parameter: None,
            span,
        };
        let scope = Scope {
            definition: Some(definition),
            arguments: &arguments.collect::<Vec<_>>(),
            expansion: self.names.add_use(shown, span.expansion),
        };
        // A use is a level too, so that definitions which are only calls do not nest without end.
        self.fill(&mut expanded, &scope, level + 1);
        Some(expanded)
    }

    /// What takes the place of a parameter, or of a part of one. `None` for other paths.
    fn argument(
        &mut self,
        path: &Path,
        span: Span,
        scope: &Scope<'_>,
        level: usize,
    ) -> Option<Expr> {
        let (PathStep::Field(name), rest) = path.0.split_first()? else {
            return None;
        };
        let definition = scope.definition?;
        let arguments = definition.parameters.iter().zip(scope.arguments);
        let mut named = arguments.filter(|(known, _)| known.as_ref() == name);
        let (parameter, argument) = named.next()?;
        let parts = argument.parts + path_bytes(rest) / BYTES_OF_PART;
        if self.count(parts, span).is_none() {
            return Some(null(span));
        }
        if level + argument.levels > MAX_LEVELS {
            self.too_deep(span);
            return Some(null(span));
        }
        let shown = ExpressionUse {
            name: definition.name.clone(),
            parameter: Some(parameter.clone()),
            span,
        };
        // An error is in the argument, and also shows where the definition needs another one.
        let mut place = argument.expr.span;
        place.expansion = self.names.add_use(shown, place.expansion);
        let kind = part(&argument.expr.kind, rest).unwrap_or_else(|| {
            let message = format!("the argument `{name}` is not a field");
            let error = Diagnostic::new(place, message, "only a field has parts");
            self.errors.push(error);
            ExprKind::Literal(Literal::Null)
        });
        Some(Expr { kind, span: place })
    }

    /// Counts parts that are added at a position. `None` if there are too many.
    fn count(&mut self, parts: usize, span: Span) -> Option<()> {
        let counted = self.names.count(parts);
        self.is_stopped |= counted.is_err();
        if let Err(IsFirst(true)) = counted {
            let message = format!("named expressions expand to more than {MAX_PARTS} parts");
            let label = "this use exceeds the limit";
            let help = "expressions that it uses have further ones in them, several times; compute \
                        the value once, in a `set` or `select` of its own";
            self.errors
                .push(Diagnostic::new(span, message, label).with_help(help));
        }
        counted.ok()
    }

    fn too_deep(&mut self, span: Span) {
        let message = format!("expression nested too deeply (limit: {MAX_LEVELS} levels)");
        let error = Diagnostic::new(span, message, "nesting limit exceeded here");
        if !self.is_stopped {
            let help = "each use of a named expression is a level";
            self.errors.push(error.with_help(help));
        }
        self.is_stopped = true;
    }
}

/// The part of an argument at this path. `None` if it has no parts.
fn part(argument: &ExprKind, path: &[PathStep]) -> Option<ExprKind> {
    match (argument, path) {
        (_, []) => Some(argument.clone()),
        (ExprKind::Path(outer), path) => {
            let steps = outer.0.iter().chain(path).cloned();
            Some(ExprKind::Path(Path(steps.collect())))
        }
        (ExprKind::Meta(Meta::Headers(None)), [PathStep::Field(header)]) => {
            Some(ExprKind::Meta(Meta::Headers(Some(header.clone()))))
        }
        _ => None,
    }
}

/// Notes for which use the positions of an expression stand, without its operands.
fn mark(expr: &mut Expr, expansion: u32) {
    expr.span.expansion = expansion;
    match &mut expr.kind {
        ExprKind::Cast { to_span, .. } => to_span.expansion = expansion,
        ExprKind::Call { name_span, .. } => name_span.expansion = expansion,
        _ => {}
    }
}

/// The replacement for an invalid expression, so that the rest can still be checked.
fn null(span: Span) -> Expr {
    Expr {
        kind: ExprKind::Literal(Literal::Null),
        span,
    }
}
