//! Text to expression, by the grammar `expr.pest` and pest's Pratt parser.

use std::cell::RefCell;
use std::sync::LazyLock;

use pest::Parser;
use pest::iterators::{Pair, Pairs};
use pest::pratt_parser::{Assoc, Op, PrattParser};

use super::check::{MAX_NESTING, check};
use super::{BinaryOp, Expr, ExprKind, IsWhat, Literal, Meta, Path, SelectItem, Step, UnaryOp};
use crate::node::Text;
use crate::{Diagnostic, Span, nearest};

/// How many levels an expression may have. Everything that looks at expressions recurses, so this
/// bounds the stack that it needs.
const MAX_LEVELS: usize = 256;

#[derive(pest_derive::Parser)]
#[grammar = "expr.pest"]
struct Grammar;

static PRATT: LazyLock<PrattParser<Rule>> = LazyLock::new(|| {
    let left = |rule| Op::infix(rule, Assoc::Left);
    let comparisons = [
        Rule::not_eq,
        Rule::lt_eq,
        Rule::gt_eq,
        Rule::lt,
        Rule::gt,
        Rule::regex_not_match,
        Rule::regex_match,
    ];
    let tests = [Rule::is, Rule::between, Rule::within, Rule::like];
    let comparison = comparisons
        .into_iter()
        .map(left)
        .chain(tests.into_iter().map(Op::postfix))
        .fold(left(Rule::eq), |all, op| all | op);
    PrattParser::new()
        .op(left(Rule::or))
        .op(left(Rule::and))
        .op(Op::prefix(Rule::not))
        .op(comparison)
        .op(left(Rule::concat))
        .op(left(Rule::add) | left(Rule::sub))
        .op(left(Rule::mul) | left(Rule::div) | left(Rule::rem))
        .op(Op::prefix(Rule::neg))
        .op(Op::postfix(Rule::cast_to))
});

/// Reads an expression.
///
/// # Errors
/// All mistakes, at their places in the file.
pub fn parse(text: &Text) -> Result<Expr, Vec<Diagnostic>> {
    let reader = Reader::new(text);
    let expression = reader
        .pairs(Rule::expression)
        .and_then(|mut pairs| pairs.next())
        .map(|pair| reader.expr(pair).expr);
    reader.finish(expression)
}

/// Reads the items of `select`, separated by commas.
///
/// # Errors
/// All mistakes, at their places in the file.
pub fn parse_select(text: &Text) -> Result<Vec<SelectItem>, Vec<Diagnostic>> {
    let reader = Reader::new(text);
    let items = reader
        .pairs(Rule::select)
        .map(|pairs| pairs.filter_map(|pair| reader.item(pair)).collect());
    reader.finish(items)
}

/// Whether `word` cannot begin a path.
pub(super) fn is_reserved(word: &str) -> bool {
    Grammar::parse(Rule::reserved, word).is_ok_and(|pairs| pairs.as_str().len() == word.len())
}

impl Meta {
    const NAMES: [&'static str; 6] = [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        "headers",
    ];

    /// The name without the `@`.
    pub fn name(&self) -> &'static str {
        match self {
            Meta::Topic => "topic",
            Meta::Partition => "partition",
            Meta::Offset => "offset",
            Meta::Timestamp => "timestamp",
            Meta::Key => "key",
            Meta::Headers(_) => "headers",
        }
    }
}

/// An expression while it is put together.
struct Part<'a> {
    expr: Expr,
    /// How many levels it has.
    levels: usize,
    /// The text of a number that stands alone. A minus before it belongs to it:
    /// -9223372036854775808 fits 64 bits, the rest of it does not.
    number: Option<&'a str>,
}

/// Turns what the grammar found into expressions. The Pratt parser wants several closures that all
/// report, hence the cell.
struct Reader<'a> {
    text: &'a Text,
    mistakes: RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a Text) -> Self {
        Reader {
            text,
            mistakes: RefCell::default(),
        }
    }

    /// What stands inside the outermost rule, or none if the text does not fit the grammar.
    fn pairs(&self, rule: Rule) -> Option<Pairs<'a, Rule>> {
        if let Err(mistake) = check(self.text) {
            self.mistakes.borrow_mut().push(mistake);
            return None;
        }
        match Grammar::parse(rule, &self.text.value) {
            Ok(mut pairs) => pairs.next().map(Pair::into_inner),
            Err(error) => {
                self.mistakes
                    .borrow_mut()
                    .push(crate::grammar::mistake(self.text, &error, word));
                None
            }
        }
    }

    fn finish<T>(&self, result: Option<T>) -> Result<T, Vec<Diagnostic>> {
        let mistakes = self.mistakes.take();
        match result {
            Some(result) if mistakes.is_empty() => Ok(result),
            _ => Err(mistakes
                .into_iter()
                .map(|mistake| mistake.without_secrets_of(self.text))
                .collect()),
        }
    }

    /// The place of what a rule found, without the white space that it skipped in search of more.
    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let start = pair.as_span().start();
        self.text
            .span_of(start, start + pair.as_str().trim_ascii_end().len())
    }

    fn report(&self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.mistakes
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
                let expr = self.expr(inner.next()?).expr;
                let alias = inner
                    .find(|part| part.as_rule() == Rule::alias)
                    .map(|alias| (name(&alias), self.span(&alias)));
                let name = alias.or_else(|| Some((own_name(&expr)?, expr.span)));
                Some(SelectItem::Column { expr, name })
            }
            _ => None,
        }
    }

    /// What the rules `expr` and `operand` stand for.
    fn expr(&self, pair: Pair<'a, Rule>) -> Part<'a> {
        let whole = self.span(&pair);
        if prefixes(pair.clone().into_inner()) > MAX_NESTING {
            self.report(
                whole,
                format!("more than {MAX_NESTING} `not` or `-` follow each other"),
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

    /// The expressions inside a rule, and the levels of the highest.
    fn inner_exprs(&self, pair: Pair<'a, Rule>) -> (Vec<Expr>, usize) {
        let pairs = pair
            .into_inner()
            .filter(|inner| matches!(inner.as_rule(), Rule::expr | Rule::operand));
        let parts: Vec<Part<'_>> = pairs.map(|inner| self.expr(inner)).collect();
        let levels = parts.iter().map(|part| part.levels).max().unwrap_or(0);
        (parts.into_iter().map(|part| part.expr).collect(), levels)
    }

    /// An expression whose parts have up to `levels` levels, or null (and a mistake) where that is
    /// too much.
    fn above(&self, levels: usize, kind: ExprKind, span: Span) -> Part<'a> {
        if levels < MAX_LEVELS {
            return Part {
                expr: Expr { kind, span },
                levels: levels + 1,
                number: None,
            };
        }
        let mistake = Diagnostic::new(
            span,
            format!("this expression has more than {MAX_LEVELS} levels"),
            "one operator too many",
        );
        self.mistakes.borrow_mut().push(
            mistake.with_help(
                "compare with many values by `in (…)`, or put parts of it in parentheses",
            ),
        );
        null(span)
    }

    fn unary(&self, op: &Pair<'a, Rule>, operand: Part<'a>) -> Part<'a> {
        let span = self.span(op).to(operand.expr.span);
        match (op.as_rule(), operand.number) {
            (Rule::not, _) => self.above(
                operand.levels,
                ExprKind::Unary(UnaryOp::Not, Box::new(operand.expr)),
                span,
            ),
            (_, Some(digits)) => leaf(ExprKind::Literal(negative(digits)), span),
            (_, None) => self.above(
                operand.levels,
                ExprKind::Unary(UnaryOp::Neg, Box::new(operand.expr)),
                span,
            ),
        }
    }

    fn binary(&self, left: Part<'a>, op: &Pair<'a, Rule>, right: Part<'a>) -> Part<'a> {
        let op = match op.as_rule() {
            Rule::or => BinaryOp::Or,
            Rule::and => BinaryOp::And,
            Rule::eq => BinaryOp::Eq,
            Rule::not_eq => BinaryOp::NotEq,
            Rule::lt => BinaryOp::Lt,
            Rule::lt_eq => BinaryOp::LtEq,
            Rule::gt => BinaryOp::Gt,
            Rule::gt_eq => BinaryOp::GtEq,
            Rule::regex_match => BinaryOp::RegexMatch,
            Rule::regex_not_match => BinaryOp::RegexNotMatch,
            Rule::concat => BinaryOp::Concat,
            Rule::add => BinaryOp::Add,
            Rule::sub => BinaryOp::Sub,
            Rule::mul => BinaryOp::Mul,
            Rule::div => BinaryOp::Div,
            rule => {
                debug_assert_eq!(
                    rule,
                    Rule::rem,
                    "the other operators of the grammar stand above"
                );
                BinaryOp::Mod
            }
        };
        let span = left.expr.span.to(right.expr.span);
        self.above(
            left.levels.max(right.levels),
            ExprKind::Binary(Box::new(left.expr), op, Box::new(right.expr)),
            span,
        )
    }

    fn postfix(&self, operand: Part<'a>, op: Pair<'a, Rule>) -> Part<'a> {
        let span = operand.expr.span.to(self.span(&op));
        let has = |rule| op.clone().into_inner().any(|part| part.as_rule() == rule);
        let negated = has(Rule::not);
        let expr = Box::new(operand.expr);
        let (mut parts, part_levels) = self.inner_exprs(op.clone());
        let kind = match op.as_rule() {
            Rule::cast_to => {
                let (to, to_span) = self.type_name(op);
                ExprKind::Cast {
                    expr,
                    to,
                    to_span,
                    try_cast: false,
                }
            }
            Rule::is => {
                let asked = op.into_inner().last().map_or("", |last| last.as_str());
                let what = match asked {
                    asked if asked.eq_ignore_ascii_case("true") => IsWhat::True,
                    asked if asked.eq_ignore_ascii_case("false") => IsWhat::False,
                    _ => IsWhat::Null,
                };
                ExprKind::Is {
                    expr,
                    what,
                    negated,
                }
            }
            Rule::within => ExprKind::In {
                expr,
                list: parts,
                negated,
            },
            Rule::like => {
                let escape = op
                    .clone()
                    .into_inner()
                    .find(|part| part.as_rule() == Rule::string);
                let escape = escape.and_then(|text| self.escape(&text));
                let Some(pattern) = parts.pop().map(Box::new) else {
                    return null(span);
                };
                ExprKind::Like {
                    expr,
                    pattern,
                    escape,
                    case_insensitive: has(Rule::kw_ilike),
                    negated,
                }
            }
            rule => {
                debug_assert_eq!(
                    rule,
                    Rule::between,
                    "the other tests of the grammar stand above"
                );
                let (Some(high), Some(low)) =
                    (parts.pop().map(Box::new), parts.pop().map(Box::new))
                else {
                    return null(span);
                };
                ExprKind::Between {
                    expr,
                    low,
                    high,
                    negated,
                }
            }
        };
        self.above(operand.levels.max(part_levels), kind, span)
    }

    /// The character after `escape`.
    fn escape(&self, pair: &Pair<'a, Rule>) -> Option<char> {
        let value = unquoted(pair.as_str(), '\'');
        let mut characters = value.chars();
        let first = characters.next();
        if first.is_none() || characters.next().is_some() {
            self.report(
                self.span(pair),
                "`escape` takes one character",
                "expected a text of one character",
            );
        }
        first
    }

    fn primary(&self, pair: Pair<'a, Rule>) -> Part<'a> {
        let span = self.span(&pair);
        match pair.as_rule() {
            Rule::number => {
                let digits = pair.as_str();
                Part {
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
            Rule::path => leaf(ExprKind::Path(self.path(pair)), span),
            Rule::meta => self
                .meta(pair)
                .map_or_else(|| null(span), |meta| leaf(ExprKind::Meta(meta), span)),
            Rule::paren => match pair
                .into_inner()
                .find(|inner| inner.as_rule() == Rule::expr)
            {
                // Parentheses leave no trace but the place of what they hold.
                Some(inner) => {
                    let inner = self.expr(inner);
                    Part {
                        expr: Expr { span, ..inner.expr },
                        levels: inner.levels,
                        number: None,
                    }
                }
                None => null(span),
            },
            Rule::case => self.case(pair, span),
            Rule::cast => {
                let try_cast = pair
                    .clone()
                    .into_inner()
                    .any(|part| part.as_rule() == Rule::kw_try_cast);
                let (to, to_span) = self.type_name(pair.clone());
                let (mut parts, levels) = self.inner_exprs(pair);
                let Some(expr) = parts.pop().map(Box::new) else {
                    return null(span);
                };
                self.above(
                    levels,
                    ExprKind::Cast {
                        expr,
                        to,
                        to_span,
                        try_cast,
                    },
                    span,
                )
            }
            Rule::dated => self.dated(pair, span),
            Rule::call => {
                let Some(function) = pair.clone().into_inner().next() else {
                    return null(span);
                };
                let (args, levels) = self.inner_exprs(pair);
                let name = function.as_str().to_ascii_lowercase();
                self.above(
                    levels,
                    ExprKind::Call {
                        name,
                        name_span: self.span(&function),
                        args,
                    },
                    span,
                )
            }
            _ => null(span),
        }
    }

    fn number(&self, digits: &str, span: Span) -> Literal {
        if let Ok(value) = digits.parse() {
            return Literal::Int(value);
        }
        match digits.parse::<f64>() {
            Ok(value) if value.is_finite() => Literal::Float(value),
            _ => {
                self.report(
                    span,
                    "this number is too large",
                    "expected at most 1.7976931348623157e308",
                );
                Literal::Null
            }
        }
    }

    fn path(&self, pair: Pair<'a, Rule>) -> Path {
        let steps = pair.into_inner().map(|step| {
            if step.as_rule() != Rule::index {
                return Step::Field(name(&step));
            }
            let digits = step.as_str().trim_matches(['[', ']']);
            Step::Index(digits.parse().unwrap_or_else(|_| {
                self.report(
                    self.span(&step),
                    "this index is too large",
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
                let mistake = Diagnostic::new(
                    span,
                    format!("there is no `@{unknown}`"),
                    format!("expected one of {listed}"),
                );
                let help =
                    nearest(unknown, Meta::NAMES).map(|near| format!("did you mean `@{near}`?"));
                self.mistakes
                    .borrow_mut()
                    .push(Diagnostic { help, ..mistake });
                return None;
            }
        };
        if let Some(part) = part {
            self.report(
                self.span(&part),
                format!("`@{}` has no parts", meta.name()),
                "only @headers has",
            );
        }
        Some(meta)
    }

    fn case(&self, pair: Pair<'a, Rule>, span: Span) -> Part<'a> {
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
        self.above(
            most_levels,
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            },
            span,
        )
    }

    /// `date '2024-01-31'`
    fn dated(&self, pair: Pair<'a, Rule>, span: Span) -> Part<'a> {
        let mut parts = pair.into_inner();
        let (Some(type_pair), Some(value)) = (parts.next(), parts.next()) else {
            return null(span);
        };
        let value = self.primary(value);
        let to = type_pair.as_str().to_ascii_lowercase();
        self.above(
            value.levels,
            ExprKind::Cast {
                expr: Box::new(value.expr),
                to,
                to_span: self.span(&type_pair),
                try_cast: false,
            },
            span,
        )
    }

    /// The type inside a cast, in lower case, with single spaces between words and none elsewhere.
    fn type_name(&self, cast: Pair<'a, Rule>) -> (String, Span) {
        let Some(pair) = cast
            .into_inner()
            .find(|part| part.as_rule() == Rule::type_name)
        else {
            return Default::default();
        };
        let span = self.span(&pair);
        let mut name = String::new();
        for part in pair.into_inner() {
            if part.as_rule() == Rule::zone {
                name.push(' ');
            }
            let words: Vec<&str> = part.as_str().split_whitespace().collect();
            name.push_str(&words.join(" ").to_ascii_lowercase());
        }
        (name, span)
    }
}

fn leaf<'a>(kind: ExprKind, span: Span) -> Part<'a> {
    Part {
        expr: Expr { kind, span },
        levels: 1,
        number: None,
    }
}

/// What stands in for an expression that is wrong, so that the rest can be looked at.
fn null<'a>(span: Span) -> Part<'a> {
    leaf(ExprKind::Literal(Literal::Null), span)
}

/// The number with a minus before it. One that is too large has been reported already.
fn negative(digits: &str) -> Literal {
    let text = format!("-{digits}");
    text.parse()
        .map(Literal::Int)
        .or_else(|_| text.parse().map(Literal::Float))
        .unwrap_or(Literal::Null)
}

/// How deep the Pratt parser recurses for prefixes: `and` and `or` are weaker than all of them and
/// end their reach, and any operator ends that of a minus.
fn prefixes(pairs: Pairs<'_, Rule>) -> usize {
    let (mut deepest, mut nots, mut minuses) = (0, 0, 0);
    for pair in pairs {
        match pair.as_rule() {
            Rule::or | Rule::and => (nots, minuses) = (0, 0),
            Rule::not => nots += 1,
            Rule::neg => minuses += 1,
            _ => minuses = 0,
        }
        deepest = deepest.max(nots + minuses);
    }
    deepest
}

/// The text of a name, without its quotes.
fn name(pair: &Pair<'_, Rule>) -> String {
    let text = pair.as_str();
    match text.chars().next() {
        Some(quote @ ('"' | '`')) => unquoted(text, quote),
        _ => text.to_owned(),
    }
}

fn unquoted(text: &str, quote: char) -> String {
    let inner = text
        .strip_prefix(quote)
        .and_then(|text| text.strip_suffix(quote))
        .unwrap_or(text);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// What a column is called that has no `as`.
fn own_name(expr: &Expr) -> Option<String> {
    let ExprKind::Path(path) = &expr.kind else {
        return None;
    };
    path.0.iter().rev().find_map(|step| match step {
        Step::Field(name) => Some(name.clone()),
        Step::Index(_) => None,
    })
}

/// What a user calls what a rule stands for.
fn word(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::close => "`)`",
        Rule::comma => "`,`",
        Rule::kw_and => "`and`",
        Rule::kw_as => "`as`",
        Rule::kw_except => "`except`",
        Rule::kw_escape => "`escape`",
        Rule::kw_then => "`then`",
        Rule::kw_end => "`end`",
        Rule::when | Rule::kw_when => "`when`",
        Rule::otherwise | Rule::kw_else => "`else`",
        Rule::type_name | Rule::type_word | Rule::double_precision | Rule::varying => "a type",
        Rule::asked => "`null`, `true` or `false`",
        Rule::alias | Rule::field | Rule::meta_name => "a name",
        Rule::whole => "a whole number",
        Rule::EOI => "the end",
        Rule::or
        | Rule::and
        | Rule::eq
        | Rule::not_eq
        | Rule::lt_eq
        | Rule::gt_eq
        | Rule::lt
        | Rule::gt => "an operator",
        Rule::regex_match
        | Rule::regex_not_match
        | Rule::concat
        | Rule::add
        | Rule::sub
        | Rule::mul
        | Rule::div
        | Rule::rem => "an operator",
        Rule::is | Rule::between | Rule::within | Rule::like | Rule::cast_to => "an operator",
        Rule::kw_is | Rule::kw_between | Rule::kw_in | Rule::kw_like | Rule::kw_ilike => {
            "an operator"
        }
        Rule::expr
        | Rule::operand
        | Rule::column
        | Rule::number
        | Rule::string
        | Rule::null
        | Rule::boolean => "a value",
        Rule::case
        | Rule::cast
        | Rule::dated
        | Rule::call
        | Rule::function
        | Rule::meta
        | Rule::path
        | Rule::ident
        | Rule::paren => "a value",
        Rule::open_paren => "a value",
        Rule::all | Rule::star => "`*`",
        // The rest may always be left out, or is part of what has been named.
        _ => return None,
    })
}
