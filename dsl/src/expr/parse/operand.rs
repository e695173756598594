//! Operands: literals, paths, metadata, parentheses, `case` and calls.

use pest::iterators::Pair;

use super::name::{name, unquoted};
use super::{ParsedExpr, Reader, leaf, null};
use crate::expr::grammar::{Rule, clock};
use crate::expr::{COUNT, Expr, ExprKind, Literal, Meta, Path, PathStep};
use crate::{Diagnostic, Span, nearest};

impl<'a> Reader<'a> {
    pub(super) fn primary(&self, pair: Pair<'a, Rule>) -> ParsedExpr<'a> {
        let span = self.span(&pair);
        match pair.as_rule() {
            Rule::number => {
                let digits = pair.as_str();
                ParsedExpr {
                    number: Some(digits),
                    ..leaf(ExprKind::Literal(self.number(digits, span)), span)
                }
            }
            Rule::string => leaf(
                ExprKind::Literal(Literal::Str(unquoted(pair.as_str(), '\''))),
                span,
            ),
            Rule::boolean => leaf(
                ExprKind::Literal(Literal::Bool(pair.as_str().eq_ignore_ascii_case("true"))),
                span,
            ),
            Rule::path => match clock(pair.as_str()) {
                Some(name) => leaf(clock_call(name, span), span),
                None => leaf(ExprKind::Path(self.path(pair)), span),
            },
            Rule::meta => self
                .meta(pair)
                .map_or_else(|| null(span), |meta| leaf(ExprKind::Meta(meta), span)),
            Rule::paren => self.parentheses(pair, span),
            Rule::case => self.case(pair, span),
            Rule::cast => self.cast(pair, span),
            Rule::typed_literal => self.typed_literal(pair, span),
            Rule::trim => self.trim(pair, span),
            Rule::call => self.call(pair, span),
            _ => null(span),
        }
    }

    fn number(&self, digits: &str, span: Span) -> Literal {
        if let Ok(value) = digits.parse() {
            return Literal::Int(value);
        }
        if let Ok(value) = digits.parse() {
            return Literal::UInt(value);
        }
        match digits.parse::<f64>() {
            Ok(value) if value.is_finite() && !is_integer(digits) => fraction(digits, value),
            Ok(value) if value.is_finite() => {
                let label = format!("expected at most {}", u64::MAX);
                let error = Diagnostic::new(span, "integer too large", label);
                let help = format!("for a float, write {value:?}");
                self.errors.borrow_mut().push(error.with_help(help));
                Literal::Null
            }
            _ => {
                self.report(
                    span,
                    "number too large",
                    "expected at most 1.7976931348623157e308",
                );
                Literal::Null
            }
        }
    }

    pub(super) fn path(&self, pair: Pair<'a, Rule>) -> Path {
        let steps = pair.into_inner().map(|step| {
            if step.as_rule() != Rule::index {
                return PathStep::Field(name(&step));
            }
            let digits = step.as_str().trim_matches(['[', ']']);
            PathStep::Index(digits.parse().unwrap_or_else(|_| {
                self.report(
                    self.span(&step),
                    "index too large",
                    format!("expected at most {}", u32::MAX),
                );
                0
            }))
        });
        Path(steps.collect())
    }

    fn meta(&self, pair: Pair<'a, Rule>) -> Option<Meta> {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let (name_pair, part) = (inner.next()?, inner.next());
        let meta = match name_pair.as_str() {
            "topic" => Meta::Topic,
            "partition" => Meta::Partition,
            "offset" => Meta::Offset,
            "timestamp" => Meta::Timestamp,
            "key" => Meta::Key,
            "headers" => return Some(Meta::Headers(part.map(|part| name(&part)))),
            unknown => {
                let listed = Meta::NAMES.map(|name| format!("@{name}")).join(", ");
                let error = Diagnostic::new(
                    span,
                    format!("unknown metadata field `@{unknown}`"),
                    format!("expected one of {listed}"),
                );
                let help =
                    nearest(unknown, Meta::NAMES).map(|near| format!("did you mean `@{near}`?"));
                self.errors.borrow_mut().push(Diagnostic { help, ..error });
                return None;
            }
        };
        if let Some(part) = part {
            self.report(
                self.span(&part),
                format!("`@{}` has no fields", meta.name()),
                "only @headers has fields",
            );
        }
        Some(meta)
    }

    /// Parentheses are not part of the tree. They only extend the span.
    fn parentheses(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let Some(inner) = pair
            .into_inner()
            .find(|inner| inner.as_rule() == Rule::expr)
        else {
            return null(span);
        };
        let inner = self.expr(inner);
        ParsedExpr {
            expr: Expr { span, ..inner.expr },
            levels: inner.levels,
            number: None,
        }
    }

    fn case(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let (mut operand, mut whens, mut otherwise) = (None, Vec::new(), None);
        let mut most_levels = 0;
        for clause in pair.into_inner() {
            let rule = clause.as_rule();
            let (parts, levels) = self.inner_exprs(clause);
            most_levels = most_levels.max(levels);
            let mut parts = parts.into_iter();
            match (rule, parts.next(), parts.next()) {
                (Rule::case_operand, Some(expr), _) => operand = Some(Box::new(expr)),
                (Rule::when, Some(when), Some(then)) => whens.push((when, then)),
                (Rule::otherwise, Some(expr), _) => otherwise = Some(Box::new(expr)),
                _ => {}
            }
        }
        self.node(
            most_levels,
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            },
            span,
        )
    }

    fn call(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let Some(function) = pair.clone().into_inner().next() else {
            return null(span);
        };
        let name = function.as_str().to_ascii_lowercase();
        let part = |is_it: fn(Rule) -> bool| {
            let mut parts = pair.clone().into_inner();
            parts.find(|part| is_it(part.as_rule()))
        };
        if let Some(words) = part(|rule| matches!(rule, Rule::in_arg | Rule::from_args)) {
            return self.call_with_words(&name, &function, pair, words, span);
        }
        if let Some(every) = part(|rule| rule == Rule::every)
            && name != COUNT
        {
            let message = format!("`{name}` has no argument `*`");
            self.report(self.span(&every), message, "expected a value");
        }
        let distinct = part(|rule| rule == Rule::kw_distinct_values).is_some();
        let (args, levels) = self.inner_exprs(pair);
        let (name, args) = part_in_parentheses(name, args);
        self.node(
            levels,
            ExprKind::Call {
                name,
                name_span: self.span(&function),
                distinct,
                args,
            },
            span,
        )
    }

    /// `trim(both 'x' from string)`, or without the characters.
    fn trim(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let part = |rule| {
            let mut parts = pair.clone().into_inner();
            parts.find(|part| part.as_rule() == rule)
        };
        let (Some(function), Some(side)) = (part(Rule::kw_trim), part(Rule::side)) else {
            return null(span);
        };
        let name = match side.as_str() {
            side if side.eq_ignore_ascii_case("leading") => "ltrim",
            side if side.eq_ignore_ascii_case("trailing") => "rtrim",
            _ => "btrim",
        };
        // The string is the last of them.
        let (mut args, levels) = self.inner_exprs(pair.clone());
        args.reverse();
        self.node(
            levels,
            ExprKind::Call {
                name: name.to_owned(),
                name_span: self.span(&function),
                distinct: false,
                args,
            },
            span,
        )
    }

    /// A call with words between its arguments, as SQL has for four functions. `words` is what
    /// follows the first argument.
    fn call_with_words(
        &self,
        name: &str,
        function: &Pair<'a, Rule>,
        call: Pair<'a, Rule>,
        words: Pair<'a, Rule>,
        span: Span,
    ) -> ParsedExpr<'a> {
        let rule = words.as_rule();
        let (mut first, levels) = self.inner_exprs(call);
        let (mut rest, rest_levels) = self.inner_exprs(words);
        let (name, args) = match (name, rule, first.pop()) {
            ("position", Rule::in_arg, Some(part)) => {
                rest.push(part);
                ("strpos", rest)
            }
            ("extract", Rule::from_args, Some(unit)) if rest.len() == 1 => {
                let kind = match unit.kind {
                    ExprKind::Path(path) => ExprKind::Literal(Literal::Str(path.to_string())),
                    other => other,
                };
                rest.insert(0, Expr { kind, ..unit });
                ("date_part", rest)
            }
            ("trim", Rule::from_args, Some(characters)) if rest.len() == 1 => {
                rest.push(characters);
                ("btrim", rest)
            }
            ("substr" | "substring", Rule::from_args, Some(text)) => {
                rest.insert(0, text);
                ("substr", rest)
            }
            _ => {
                self.report(
                    span,
                    format!("`{name}` has no arguments with `in`, `from` or `for`"),
                    "expected arguments separated by commas",
                );
                return null(span);
            }
        };
        self.node(
            levels.max(rest_levels),
            ExprKind::Call {
                name: name.to_owned(),
                name_span: self.span(function),
                distinct: false,
                args,
            },
            span,
        )
    }
}

/// Whether a number is only digits.
pub(super) fn is_integer(number: &str) -> bool {
    number.bytes().all(|byte| byte.is_ascii_digit())
}

/// `position(part in (string))`: the string in parentheses is parsed as the list of an `in`.
fn part_in_parentheses(name: String, mut args: Vec<Expr>) -> (String, Vec<Expr>) {
    if name != "position" || args.len() != 1 {
        return (name, args);
    }
    match args.pop() {
        Some(Expr {
            kind:
                ExprKind::In {
                    expr,
                    mut list,
                    negated: false,
                },
            ..
        }) if list.len() == 1 => {
            list.push(*expr);
            ("strpos".to_owned(), list)
        }
        other => (name, other.into_iter().collect()),
    }
}

/// A number that is not an integer. Its digits are kept if a float64 does not have them.
pub(super) fn fraction(text: &str, value: f64) -> Literal {
    let has_exponent = text.contains(['e', 'E']);
    let significant = |text: &str| {
        let text = text.trim_start_matches(['-', '0']);
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => text,
        };
        text.to_owned()
    };
    if has_exponent || significant(&value.to_string()) == significant(text) {
        return Literal::Float(value);
    }
    Literal::Decimal(text.to_owned())
}

/// A call of a function that SQL writes without parentheses.
fn clock_call(name: &str, span: Span) -> ExprKind {
    ExprKind::Call {
        name: name.to_owned(),
        name_span: span,
        distinct: false,
        args: Vec::new(),
    }
}
