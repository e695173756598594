//! A parser for SQL expressions, with the grammar `expr.pest` and pest's Pratt parser.
//!
//! The Pratt parser calls `primary` for each [operand], and `unary`, `binary` and `postfix` for each
//! [operator] around it. Every part knows the depth of its tree, which is limited.

mod cast;
mod characters;
mod name;
mod operand;
mod operator;
mod other_notation;

use std::cell::RefCell;
use std::ops::Range;

use pest::Parser;
use pest::iterators::{Pair, Pairs};

use super::check::{MAX_NESTING, check};
use super::grammar::{Grammar, PRATT, Rule, clock, word};
use super::{Assignment, Expr, ExprKind, Literal, PathStep, PlacedPath, Renaming, SelectItem};
use crate::node::Text;
use crate::{Diagnostic, Span};
pub(super) use characters::is_refused;
use name::name;
use other_notation::help;

/// The maximum depth of an expression tree. All code that processes expressions is recursive, so
/// this bounds its stack usage.
pub(super) const MAX_LEVELS: usize = 256;

/// Parses an expression.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse(text: &Text) -> Result<Expr, Vec<Diagnostic>> {
    let reader = Reader::new(text);
    let expression = reader
        .pairs(Rule::expression)
        .and_then(|mut pairs| pairs.next())
        .map(|pair| reader.expanded(pair));
    reader.finish(expression)
}

/// Parses the items of `select`, separated by commas.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse_select(text: &Text) -> Result<Vec<SelectItem>, Vec<Diagnostic>> {
    items(text, Rule::select, Reader::item)
}

/// Parses the items of `set`, separated by commas.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse_assignments(text: &Text) -> Result<Vec<Assignment>, Vec<Diagnostic>> {
    items(text, Rule::assignments, |reader, pair| {
        let mut inner = pair.into_inner();
        let to = reader.placed_path(inner.next()?);
        let value = inner.find(|part| part.as_rule() == Rule::expr)?;
        Some(Assignment {
            to,
            value: reader.expanded(value),
        })
    })
}

/// Parses the paths of `remove`, separated by commas.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse_paths(text: &Text) -> Result<Vec<PlacedPath>, Vec<Diagnostic>> {
    items(text, Rule::paths, |reader, pair| {
        Some(reader.placed_path(pair))
    })
}

/// Parses the items of `rename`, separated by commas.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse_renamings(text: &Text) -> Result<Vec<Renaming>, Vec<Diagnostic>> {
    items(text, Rule::renamings, |reader, pair| {
        let mut paths = pair
            .into_inner()
            .filter(|part| part.as_rule() == Rule::path)
            .map(|path| reader.placed_path(path));
        Some(Renaming {
            from: paths.next()?,
            to: paths.next()?,
        })
    })
}

/// A parameter and its place in the text.
type Parameter = (String, Range<usize>);

/// Parses the name of a named expression, and its parameters: `share(part, whole)`. `None` for
/// anything else.
pub(crate) fn parse_signature(text: &str) -> Option<(String, Vec<Parameter>)> {
    let signature = Grammar::parse(Rule::signature, text).ok()?.next()?;
    let mut parts = signature.into_inner();
    let name = parts.next()?.as_str().to_owned();
    let parameters = parts.filter(|part| part.as_rule() == Rule::parameter);
    let parameter = |part: Pair<'_, Rule>| {
        let (start, name) = (part.as_span().start(), part.as_str());
        (name.to_owned(), start..start + name.len())
    };
    Some((name, parameters.map(parameter).collect()))
}

/// Parses a list by a rule of the grammar; `item` reads each of its items.
fn items<'a, T>(
    text: &'a Text,
    rule: Rule,
    item: impl Fn(&Reader<'a>, Pair<'a, Rule>) -> Option<T>,
) -> Result<Vec<T>, Vec<Diagnostic>> {
    let is_item = |pair: &Pair<'_, Rule>| !matches!(pair.as_rule(), Rule::comma | Rule::EOI);
    let reader = Reader::new(text);
    let found = reader.pairs(rule).map(|pairs| {
        pairs
            .filter(is_item)
            .filter_map(|pair| item(&reader, pair))
            .collect()
    });
    reader.finish(found)
}

/// A part of an expression during parsing.
struct ParsedExpr<'a> {
    expr: Expr,
    /// The depth of its tree.
    levels: usize,
    /// The digits, if the expression is just a number. A minus before it is part of the number:
    /// -9223372036854775808 fits in 64 bits, but 9223372036854775808 does not.
    number: Option<&'a str>,
}

/// Builds expressions from the pairs of the grammar. The errors are in a cell because several
/// closures of the Pratt parser report errors.
struct Reader<'a> {
    text: &'a Text,
    errors: RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a Text) -> Self {
        Reader {
            text,
            errors: RefCell::default(),
        }
    }

    /// The pairs inside the outermost rule. `None` if an error was reported.
    fn pairs(&self, rule: Rule) -> Option<Pairs<'a, Rule>> {
        if let Err(error) = characters::check(self.text).and_then(|()| check(self.text)) {
            self.errors.borrow_mut().push(error);
            return None;
        }
        if self.text.value.trim().is_empty() {
            let span = self.text.span();
            self.report(span, "this expression is empty", "expected an expression");
            return None;
        }
        match Grammar::parse(rule, &self.text.value) {
            Ok(mut pairs) => pairs.next().map(Pair::into_inner),
            Err(error) => {
                let found = crate::grammar::diagnostic(self.text, &error, word);
                let found = match help(&self.text.value, error.location) {
                    Some(help) => found.with_help(help),
                    None => found,
                };
                self.errors.borrow_mut().push(found);
                None
            }
        }
    }

    fn finish<T>(&self, result: Option<T>) -> Result<T, Vec<Diagnostic>> {
        let errors = self.errors.take();
        match result {
            Some(result) if errors.is_empty() => Ok(result),
            _ => Err(errors
                .into_iter()
                .map(|error| error.without_secrets_of(self.text))
                .collect()),
        }
    }

    /// The position of a pair, without trailing white space.
    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let start = pair.as_span().start();
        self.text
            .span_of(start, start + pair.as_str().trim_ascii_end().len())
    }

    fn placed_path(&self, pair: Pair<'a, Rule>) -> PlacedPath {
        let span = self.span(&pair);
        PlacedPath {
            path: self.path(pair),
            span,
        }
    }

    fn report(&self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.errors
            .borrow_mut()
            .push(Diagnostic::new(span, message, label));
    }

    fn item(&self, pair: Pair<'a, Rule>) -> Option<SelectItem> {
        let span = self.span(&pair);
        match pair.as_rule() {
            Rule::all => {
                let paths = pair
                    .into_inner()
                    .filter(|inner| inner.as_rule() == Rule::path);
                let except = paths
                    .map(|path| (self.path(path.clone()), self.span(&path)))
                    .collect();
                Some(SelectItem::All { except, span })
            }
            Rule::column => {
                let mut inner = pair.into_inner();
                let value = inner.next()?;
                let written = value.as_span().start()..value.as_span().end();
                let mut expr = self.expr(value).expr;
                let alias = inner
                    .find(|part| part.as_rule() == Rule::alias)
                    .map(|alias| (name(&alias), self.span(&alias)));
                let names = self.text.names.as_deref();
                let called = names.and_then(|names| names.called(&expr));
                let implied = called.map(str::to_owned).or_else(|| implied_name(&expr));
                let hidden = self.name_without_secrets(&expr, written);
                let may_hide = names.is_some_and(|names| names.have_secrets);
                let unexpanded = may_hide.then(|| expr.to_string());
                self.expand(&mut expr);
                let changed = unexpanded.filter(|shown| *shown != expr.to_string());
                let implied = implied.or(hidden).or(changed);
                let name = alias.or_else(|| Some((implied?, expr.span)));
                Some(SelectItem::Column { expr, name })
            }
            _ => None,
        }
    }

    /// The name of a column whose expression has the value of an `${env:NAME}`: what is written. The
    /// name of a field is data.
    fn name_without_secrets(&self, expr: &Expr, written: Range<usize>) -> Option<String> {
        if let ExprKind::Path(_) = expr.kind {
            return None;
        }
        let shown = self.text.without_secrets(written)?;
        Some(shown.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The expression of a pair, in which named expressions are expanded.
    fn expanded(&self, pair: Pair<'a, Rule>) -> Expr {
        let mut expr = self.expr(pair).expr;
        self.expand(&mut expr);
        expr
    }

    fn expand(&self, expr: &mut Expr) {
        if let Some(names) = &self.text.names {
            self.errors.borrow_mut().extend(names.expand(expr));
        }
    }

    /// The expression of a pair of the rule `expr` or `operand`.
    fn expr(&self, pair: Pair<'a, Rule>) -> ParsedExpr<'a> {
        let whole = self.span(&pair);
        if prefix_depth(pair.clone().into_inner()) > MAX_NESTING {
            self.report(
                whole,
                format!("more than {MAX_NESTING} consecutive `not`, `-` or `~` operators"),
                "nested too deeply",
            );
            return null(whole);
        }
        PRATT
            .map_primary(|pair| self.primary(pair))
            .map_prefix(|op, operand| self.unary(&op, operand))
            .map_postfix(|operand, op| self.postfix(operand, op))
            .map_infix(|left, op, right| self.binary(left, &op, right))
            .parse(pair.into_inner())
    }

    /// The expressions inside a pair, and the depth of the deepest one.
    fn inner_exprs(&self, pair: Pair<'a, Rule>) -> (Vec<Expr>, usize) {
        let pairs = pair
            .into_inner()
            .filter(|inner| matches!(inner.as_rule(), Rule::expr | Rule::operand));
        let parts: Vec<ParsedExpr<'_>> = pairs.map(|inner| self.expr(inner)).collect();
        let levels = parts.iter().map(|part| part.levels).max().unwrap_or(0);
        (parts.into_iter().map(|part| part.expr).collect(), levels)
    }

    /// An expression whose deepest operand has the depth `levels`. If that exceeds the limit, an
    /// error is reported and the result is null.
    fn node(&self, levels: usize, kind: ExprKind, span: Span) -> ParsedExpr<'a> {
        if levels < MAX_LEVELS {
            return ParsedExpr {
                expr: Expr { kind, span },
                levels: levels + 1,
                number: None,
            };
        }
        let error = Diagnostic::new(
            span,
            format!("expression nested too deeply (limit: {MAX_LEVELS} levels)"),
            "nesting limit exceeded here",
        );
        self.errors.borrow_mut().push(error.with_help(
            "use `in (…)` to compare with many values, or group parts with parentheses",
        ));
        null(span)
    }
}

fn leaf<'a>(kind: ExprKind, span: Span) -> ParsedExpr<'a> {
    ParsedExpr {
        expr: Expr { kind, span },
        levels: 1,
        number: None,
    }
}

/// The replacement for an invalid expression, so that the rest can still be checked.
fn null<'a>(span: Span) -> ParsedExpr<'a> {
    leaf(ExprKind::Literal(Literal::Null), span)
}

/// How deeply the Pratt parser recurses for prefix operators. `and` and `or` bind weaker than all
/// prefix operators and so end their operands. Any infix operator ends the operand of a minus. A
/// `~` applies to the whole sum after it.
fn prefix_depth(pairs: Pairs<'_, Rule>) -> usize {
    let (mut deepest, mut nots, mut tildes, mut minuses) = (0, 0, 0, 0);
    for pair in pairs {
        match pair.as_rule() {
            Rule::or | Rule::and => (nots, tildes, minuses) = (0, 0, 0),
            Rule::not => nots += 1,
            Rule::bit_not => tildes += 1,
            Rule::neg => minuses += 1,
            Rule::concat
            | Rule::bit_and
            | Rule::bit_or
            | Rule::bit_xor
            | Rule::shift_left
            | Rule::shift_right => (tildes, minuses) = (0, 0),
            _ => minuses = 0,
        }
        deepest = deepest.max(nots + tildes + minuses);
    }
    deepest
}

/// The name of a column without `as`: the last field of a path, or that of a function without
/// parentheses. `None` for other expressions.
fn implied_name(expr: &Expr) -> Option<String> {
    let path = match &expr.kind {
        ExprKind::Path(path) => path,
        ExprKind::Call { name, .. } => return clock(name).map(str::to_owned),
        _ => return None,
    };
    path.0.iter().rev().find_map(|step| match step {
        PathStep::Field(name) => Some(name.clone()),
        PathStep::Index(_) => None,
    })
}
