//! The grammar of expressions: `expr.pest`, and the precedence of its operators.

use std::sync::LazyLock;

use pest::Parser;
use pest::pratt_parser::{Assoc, Op, PrattParser};

#[derive(pest_derive::Parser)]
#[grammar = "expr.pest"]
pub(super) struct Grammar;

/// The operators in order of increasing precedence.
pub(super) static PRATT: LazyLock<PrattParser<Rule>> = LazyLock::new(|| {
    let left = |rule| Op::infix(rule, Assoc::Left);
    let comparisons = [
        Rule::not_eq,
        Rule::lt_eq,
        Rule::gt_eq,
        Rule::lt,
        Rule::gt,
        Rule::regex_not_imatch,
        Rule::regex_not_match,
        Rule::regex_imatch,
        Rule::regex_match,
        Rule::not_distinct,
        Rule::distinct,
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
        .op(left(Rule::concat)
            | left(Rule::bit_and)
            | left(Rule::bit_or)
            | left(Rule::bit_xor)
            | left(Rule::shift_left)
            | left(Rule::shift_right))
        // As in PostgreSQL, it applies to the sum after it: `~a + 1` is `~(a + 1)`.
        .op(Op::prefix(Rule::bit_not))
        .op(left(Rule::add) | left(Rule::sub))
        .op(left(Rule::mul) | left(Rule::div) | left(Rule::rem))
        .op(Op::prefix(Rule::neg))
        .op(Op::postfix(Rule::cast_to))
});

/// The functions that are called without parentheses, as in SQL. A field with such a name is written
/// in quotes.
const CLOCKS: [&str; 3] = ["current_date", "current_time", "current_timestamp"];

/// The name of the function that a word calls without parentheses. `None` for other words.
pub(super) fn clock(word: &str) -> Option<&'static str> {
    let mut names = CLOCKS.iter().copied();
    names.find(|name| name.eq_ignore_ascii_case(word.trim_ascii_end()))
}

/// Whether `word` is a keyword that cannot begin a path.
pub(super) fn is_reserved(word: &str) -> bool {
    Grammar::parse(Rule::reserved, word).is_ok_and(|pairs| pairs.as_str().len() == word.len())
}

/// The name of a grammar rule for the user. `None` for rules that are not listed in errors.
pub(super) fn word(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::close => "`)`",
        Rule::comma => "`,`",
        Rule::assign => "`=`",
        Rule::kw_and => "`and`",
        Rule::kw_as => "`as`",
        Rule::kw_except => "`except`",
        Rule::kw_escape => "`escape`",
        Rule::kw_then => "`then`",
        Rule::kw_end => "`end`",
        Rule::when | Rule::kw_when => "`when`",
        Rule::otherwise | Rule::kw_else => "`else`",
        Rule::type_name | Rule::type_word | Rule::double_precision | Rule::varying => "a type",
        Rule::is_value => "`null`, `true`, `false`",
        Rule::kw_distinct => "`distinct from`",
        Rule::kw_from => "`from`",
        Rule::alias | Rule::field | Rule::meta_name => "a name",
        Rule::whole => "an integer",
        Rule::EOI => "end of input",
        operator if is_operator(operator) => "an operator",
        Rule::expr
        | Rule::operand
        | Rule::column
        | Rule::number
        | Rule::string
        | Rule::null
        | Rule::boolean
        | Rule::case
        | Rule::cast
        | Rule::typed_literal
        | Rule::trim
        | Rule::call
        | Rule::function
        | Rule::meta
        | Rule::path
        | Rule::ident
        | Rule::paren
        | Rule::open_paren => "a value",
        Rule::all | Rule::star => "`*`",
        // The other rules are optional everywhere, or are part of a rule above.
        _ => return None,
    })
}

/// Whether the rule is an infix or a postfix operator, or the word that begins one.
fn is_operator(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::or
            | Rule::and
            | Rule::eq
            | Rule::not_eq
            | Rule::lt_eq
            | Rule::gt_eq
            | Rule::lt
            | Rule::gt
            | Rule::regex_match
            | Rule::regex_imatch
            | Rule::regex_not_match
            | Rule::regex_not_imatch
            | Rule::distinct
            | Rule::not_distinct
            | Rule::concat
            | Rule::add
            | Rule::sub
            | Rule::mul
            | Rule::div
            | Rule::rem
            | Rule::bit_and
            | Rule::bit_or
            | Rule::bit_xor
            | Rule::shift_left
            | Rule::shift_right
            | Rule::is
            | Rule::between
            | Rule::in_list
            | Rule::like
            | Rule::cast_to
            | Rule::kw_is
            | Rule::kw_between
            | Rule::kw_in
            | Rule::kw_like
            | Rule::kw_ilike
    )
}
