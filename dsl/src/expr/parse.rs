//! A parser for SQL expressions, with the grammar `expr.pest` and pest's Pratt parser.

use std::cell::RefCell;
use std::sync::LazyLock;

use pest::Parser;
use pest::iterators::{Pair, Pairs};
use pest::pratt_parser::{Assoc, Op, PrattParser};

use super::check::{MAX_NESTING, check};
use super::{
    BinaryOp, Expr, ExprKind, IsPredicate, Literal, Meta, Path, PathStep, SelectItem, UnaryOp,
};
use crate::node::Text;
use crate::{Diagnostic, Span, nearest};

/// The maximum depth of an expression tree. All code that processes expressions is recursive, so
/// this bounds its stack usage.
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
    let tests = [Rule::is, Rule::between, Rule::in_list, Rule::like];
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

/// Parses an expression.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse(text: &Text) -> Result<Expr, Vec<Diagnostic>> {
    let reader = Reader::new(text);
    let expression = reader
        .pairs(Rule::expression)
        .and_then(|mut pairs| pairs.next())
        .map(|pair| reader.expr(pair).expr);
    reader.finish(expression)
}

/// Parses the items of `select`, separated by commas.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn parse_select(text: &Text) -> Result<Vec<SelectItem>, Vec<Diagnostic>> {
    let reader = Reader::new(text);
    let items = reader
        .pairs(Rule::select)
        .map(|pairs| pairs.filter_map(|pair| reader.item(pair)).collect());
    reader.finish(items)
}

/// Whether `word` is a keyword that cannot begin a path.
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

    /// The name without the `@`, such as `topic`.
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
        if let Err(error) = check(self.text) {
            self.errors.borrow_mut().push(error);
            return None;
        }
        match Grammar::parse(rule, &self.text.value) {
            Ok(mut pairs) => pairs.next().map(Pair::into_inner),
            Err(error) => {
                self.errors
                    .borrow_mut()
                    .push(crate::grammar::diagnostic(self.text, &error, word));
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
                let expr = self.expr(inner.next()?).expr;
                let alias = inner
                    .find(|part| part.as_rule() == Rule::alias)
                    .map(|alias| (name(&alias), self.span(&alias)));
                let name = alias.or_else(|| Some((implied_name(&expr)?, expr.span)));
                Some(SelectItem::Column { expr, name })
            }
            _ => None,
        }
    }

    /// The expression of a pair of the rule `expr` or `operand`.
    fn expr(&self, pair: Pair<'a, Rule>) -> ParsedExpr<'a> {
        let whole = self.span(&pair);
        if prefix_depth(pair.clone().into_inner()) > MAX_NESTING {
            self.report(
                whole,
                format!("more than {MAX_NESTING} consecutive `not` or `-` operators"),
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

    fn unary(&self, op: &Pair<'a, Rule>, operand: ParsedExpr<'a>) -> ParsedExpr<'a> {
        let span = self.span(op).to(operand.expr.span);
        match (op.as_rule(), operand.number) {
            (Rule::not, _) => self.node(
                operand.levels,
                ExprKind::Unary(UnaryOp::Not, Box::new(operand.expr)),
                span,
            ),
            (_, Some(digits)) => leaf(ExprKind::Literal(negative(digits)), span),
            (_, None) => self.node(
                operand.levels,
                ExprKind::Unary(UnaryOp::Neg, Box::new(operand.expr)),
                span,
            ),
        }
    }

    fn binary(
        &self,
        left: ParsedExpr<'a>,
        op: &Pair<'a, Rule>,
        right: ParsedExpr<'a>,
    ) -> ParsedExpr<'a> {
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
                    "every other operator of the grammar has an arm above"
                );
                BinaryOp::Mod
            }
        };
        let span = left.expr.span.to(right.expr.span);
        self.node(
            left.levels.max(right.levels),
            ExprKind::Binary(Box::new(left.expr), op, Box::new(right.expr)),
            span,
        )
    }

    fn postfix(&self, operand: ParsedExpr<'a>, op: Pair<'a, Rule>) -> ParsedExpr<'a> {
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
                let word = op.into_inner().last().map_or("", |last| last.as_str());
                let predicate = match word {
                    word if word.eq_ignore_ascii_case("true") => IsPredicate::True,
                    word if word.eq_ignore_ascii_case("false") => IsPredicate::False,
                    _ => IsPredicate::Null,
                };
                ExprKind::Is {
                    expr,
                    predicate,
                    negated,
                }
            }
            Rule::in_list => ExprKind::In {
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
                    "every other postfix operator of the grammar has an arm above"
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
        self.node(operand.levels.max(part_levels), kind, span)
    }

    /// The character in the string after `escape`.
    fn escape(&self, pair: &Pair<'a, Rule>) -> Option<char> {
        let value = unquoted(pair.as_str(), '\'');
        let mut characters = value.chars();
        let first = characters.next();
        if first.is_none() || characters.next().is_some() {
            self.report(
                self.span(pair),
                "`escape` requires a single character",
                "expected a string of one character",
            );
        }
        first
    }

    fn primary(&self, pair: Pair<'a, Rule>) -> ParsedExpr<'a> {
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
            Rule::path => leaf(ExprKind::Path(self.path(pair)), span),
            Rule::meta => self
                .meta(pair)
                .map_or_else(|| null(span), |meta| leaf(ExprKind::Meta(meta), span)),
            Rule::paren => match pair
                .into_inner()
                .find(|inner| inner.as_rule() == Rule::expr)
            {
                // Parentheses are not part of the tree. They only extend the span.
                Some(inner) => {
                    let inner = self.expr(inner);
                    ParsedExpr {
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
                self.node(
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
            Rule::typed_literal => self.typed_literal(pair, span),
            Rule::call => {
                let Some(function) = pair.clone().into_inner().next() else {
                    return null(span);
                };
                let (args, levels) = self.inner_exprs(pair);
                let name = function.as_str().to_ascii_lowercase();
                self.node(
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
                    "number too large",
                    "expected at most 1.7976931348623157e308",
                );
                Literal::Null
            }
        }
    }

    fn path(&self, pair: Pair<'a, Rule>) -> Path {
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

    /// A literal with its type before it: `date '2024-01-31'`.
    fn typed_literal(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let mut parts = pair.into_inner();
        let (Some(type_pair), Some(value)) = (parts.next(), parts.next()) else {
            return null(span);
        };
        let value = self.primary(value);
        let to = type_pair.as_str().to_ascii_lowercase();
        self.node(
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

    /// The name of the type inside a cast and its position. The name is in lower case, with single
    /// spaces between words and none elsewhere.
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

/// The negative number with these digits. A number that is too large has already been reported.
fn negative(digits: &str) -> Literal {
    let text = format!("-{digits}");
    text.parse()
        .map(Literal::Int)
        .or_else(|_| text.parse().map(Literal::Float))
        .unwrap_or(Literal::Null)
}

/// How deeply the Pratt parser recurses for prefix operators. `and` and `or` bind weaker than all
/// prefix operators and so end their operands. Any infix operator ends the operand of a minus.
fn prefix_depth(pairs: Pairs<'_, Rule>) -> usize {
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

/// A name without its quotes.
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

/// The name of a column without `as`: the last field of a path. `None` for other expressions.
fn implied_name(expr: &Expr) -> Option<String> {
    let ExprKind::Path(path) = &expr.kind else {
        return None;
    };
    path.0.iter().rev().find_map(|step| match step {
        PathStep::Field(name) => Some(name.clone()),
        PathStep::Index(_) => None,
    })
}

/// The name of a grammar rule for the user. `None` for rules that are not listed in errors.
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
        Rule::is_value => "`null`, `true` or `false`",
        Rule::alias | Rule::field | Rule::meta_name => "a name",
        Rule::whole => "an integer",
        Rule::EOI => "end of input",
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
        Rule::is | Rule::between | Rule::in_list | Rule::like | Rule::cast_to => "an operator",
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
        | Rule::typed_literal
        | Rule::call
        | Rule::function
        | Rule::meta
        | Rule::path
        | Rule::ident
        | Rule::paren => "a value",
        Rule::open_paren => "a value",
        Rule::all | Rule::star => "`*`",
        // The other rules are optional everywhere, or are part of a rule above.
        _ => return None,
    })
}
