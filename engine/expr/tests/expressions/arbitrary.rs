//! Property tests: every parsed expression compiles or has errors within its text, and every
//! compiled expression evaluates or returns an error.

use crate::fixture::{ROWS, evaluate, scope};
use proptest::prelude::*;
use pseidon_dsl::node::Text;
use pseidon_expr::demand::collect;

const ATOMS: [&str; 42] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "1.5",
    "1e300",
    "''",
    "'x'",
    "'2024-01-01'",
    "'hour'",
    "'%a_'",
    "'['",
    "'1 day'",
    "status",
    "small",
    "byte",
    "big",
    "price",
    "name",
    "ok",
    "at",
    "day",
    "amount",
    "raw",
    "user",
    "user.id",
    "user.more",
    "tags",
    "tags[0]",
    "points[0].x",
    "pair",
    "any",
    "word",
    "deep.a[1].b",
    "broken",
    "@timestamp",
    "@key",
    "@headers",
    "@headers.x",
];

const BINARY: [&str; 22] = [
    "or", "and", "=", "<>", "<", "<=", ">", ">=", "~", "!~", "||", "+", "-", "*", "/", "%", "like",
    "&", "|", "#", "<<", ">>",
];

const TYPES: [&str; 12] = [
    "tinyint",
    "bigint",
    "double",
    "text",
    "boolean",
    "date",
    "timestamp",
    "timestamp_s",
    "decimal(5,2)",
    "binary",
    "interval",
    "json",
];

/// The names of all DataFusion functions, including those that are not available here.
fn function_names() -> Vec<String> {
    let functions = datafusion_functions::all_default_functions();
    functions
        .iter()
        .flat_map(|function| {
            function
                .aliases()
                .iter()
                .cloned()
                .chain([function.name().to_owned()])
        })
        .chain(["if".to_owned()])
        .collect()
}

fn expressions() -> impl Strategy<Value = String> {
    let atom = proptest::sample::select(&ATOMS[..]).prop_map(str::to_owned);
    atom.prop_recursive(3, 12, 4, |inner| {
        let call = (proptest::sample::select(function_names()), proptest::collection::vec(inner.clone(), 0..4));
        prop_oneof![
            4 => (inner.clone(), proptest::sample::select(&BINARY[..]), inner.clone()).prop_map(|(left, op, right)| format!("({left} {op} {right})")),
            4 => call.prop_map(|(name, args)| format!("{name}({})", args.join(", "))),
            1 => inner.clone().prop_map(|operand| format!("(-({operand}))")),
            1 => inner.clone().prop_map(|operand| format!("(~{operand})")),
            1 => inner.clone().prop_map(|operand| format!("(not {operand})")),
            1 => inner.clone().prop_map(|operand| format!("({operand} is not null)")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(operand, low, high)| format!("({operand} between {low} and {high})")),
            1 => (inner.clone(), proptest::collection::vec(inner.clone(), 1..4)).prop_map(|(operand, list)| format!("({operand} in ({}))", list.join(", "))),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(test, then, other)| format!("case when {test} then {then} else {other} end")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(operand, when, then)| format!("case {operand} when {when} then {then} end")),
            1 => (inner.clone(), proptest::sample::select(&TYPES[..])).prop_map(|(operand, to)| format!("cast({operand} as {to})")),
            1 => (inner, proptest::sample::select(&TYPES[..])).prop_map(|(operand, to)| format!("try_cast({operand} as {to})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(text in expressions()) {
        let Ok(expr) = pseidon_dsl::expr::parse(&Text::plain(text.as_str(), 0)) else { return Ok(()) };
        collect(&expr, None, &|_| None, &mut Vec::new());
        match pseidon_expr::compile(&expr, &scope()) {
            Ok(compiled) => {
                if let Ok(values) = evaluate(&compiled) {
                    prop_assert_eq!(values.len(), ROWS);
                }
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(error.span.start <= error.span.end);
                    prop_assert!(error.span.end as usize <= text.len());
                }
            }
        }
    }
}
