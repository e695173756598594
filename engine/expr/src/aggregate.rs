//! Aggregate functions, as in `sum(price)` or `count(distinct user)`: DataFusion's, and our own for
//! JSON values.
//!
//! A [`Grouping`] is the plan of a `group by`: the input's first columns are the keys, and each
//! [`AggregateCall`] is computed over its other columns. [`Groups`] are the groups of some rows in
//! memory. Their states can be stored as bytes, merged with those of other rows, and turned into
//! results, so that groups need neither fit into memory nor be completed by the process that began
//! them.

mod function;
mod grouping;
mod groups;
mod json;
mod reference;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion_expr::AggregateUDF;
use pseidon_dsl::Span;
use pseidon_dsl::expr::{BinaryOp, Expr, ExprKind, Literal};

pub use self::grouping::{Group, Grouping};
pub use self::groups::Groups;
use crate::function::FunctionReference;

/// Names of functions in other systems, each with the name here.
const ALIASES: [(&str, &str); 8] = [
    ("any", "any_value"),
    ("approx_quantile", "approx_percentile_cont"),
    ("arbitrary", "any_value"),
    ("first", "first_value"),
    ("last", "last_value"),
    ("list", "array_agg"),
    ("quantile", "approx_percentile_cont"),
    ("variance", "var"),
];

/// The functions by all of their names.
static FUNCTIONS: LazyLock<HashMap<String, Arc<AggregateUDF>>> = LazyLock::new(|| {
    let is_here = |function: &Arc<AggregateUDF>| {
        let mut known = reference::REFERENCE.iter();
        known.any(|[name, ..]| *name == function.name())
    };
    let mut functions = HashMap::new();
    let all = datafusion_functions_aggregate::all_default_aggregate_functions();
    for function in all.into_iter().filter(is_here) {
        for alias in function.aliases() {
            functions.insert(alias.clone(), function.clone());
        }
        functions.insert(function.name().to_owned(), function);
    }
    for (alias, name) in ALIASES {
        if let Some(function) = functions.get(name).cloned() {
            functions.insert(alias.to_owned(), function);
        }
    }
    functions
});

/// What users read about the aggregate functions.
pub(crate) fn references() -> impl Iterator<Item = FunctionReference> {
    reference::functions(|name| {
        let named = FUNCTIONS
            .iter()
            .filter(|(_, function)| function.name() == name);
        let mut others: Vec<String> = named
            .map(|(other, _)| other.clone())
            .filter(|other| other != name)
            .collect();
        others.sort_unstable();
        others
    })
}

/// Whether a function of this name, in lower case, is an aggregate function.
pub fn is_aggregate(name: &str) -> bool {
    FUNCTIONS.contains_key(name)
}

/// The names of all aggregate functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().map(AsRef::as_ref)
}

/// A call of an aggregate function on columns of the input of a [`Grouping`].
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// The name of the function, in lower case; see [`is_aggregate`].
    pub name: String,
    /// The position of the call.
    pub span: Span,
    /// Whether equal values count once.
    pub distinct: bool,
    /// The arguments.
    pub args: Vec<AggregateArg>,
}

/// An argument of an aggregate function.
#[derive(Clone, Debug)]
pub enum AggregateArg {
    /// The input column with this number.
    Column(usize),
    /// A constant.
    Literal(Literal),
}

/// The value of which an aggregate function is computed, for an argument as written. A value without
/// a known type gets one here, so that one that does not fit makes its own record invalid, and not
/// the group.
pub fn argument(function: &str, arg: Expr) -> Expr {
    let name = FUNCTIONS
        .get(function)
        .map_or(function, |known| known.name());
    let to = match name {
        "sum" => return plus_zero(arg),
        "bool_and" | "bool_or" => "boolean",
        "bit_and" | "bit_or" | "bit_xor" => "bigint",
        "string_agg" => "text",
        "count" | "min" | "max" | "first_value" | "last_value" | "any_value" | "array_agg"
        | "approx_distinct" => return arg,
        _ => "double",
    };
    let span = arg.span;
    let kind = ExprKind::Cast {
        expr: Box::new(arg),
        to: to.to_owned(),
        to_span: span,
        try_cast: false,
    };
    Expr { kind, span }
}

/// `arg + 0`: a number of its own type, and an error of the record if it is not one.
fn plus_zero(arg: Expr) -> Expr {
    let span = arg.span;
    let zero = Expr {
        kind: ExprKind::Literal(Literal::Int(0)),
        span,
    };
    let kind = ExprKind::Binary(Box::new(arg), BinaryOp::Add, Box::new(zero));
    Expr { kind, span }
}
