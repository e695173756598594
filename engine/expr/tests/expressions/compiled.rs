//! Compiled expressions: their inputs and names, errors of evaluation, and extreme sizes.

use std::thread;

use pseidon_dsl::expr::Meta;
use pseidon_expr::Input;

use crate::fixture::{check, compiled, evaluate};

#[test]
fn each_used_column_is_an_input_once() {
    let compiled = compiled("small + status > small and @offset > 1 and @offset < 100").unwrap();
    assert_eq!(
        compiled.inputs(),
        [
            Input::Column(1),
            Input::Column(0),
            Input::Meta(Meta::Offset)
        ]
    );
}

#[test]
fn an_expression_is_named_by_its_text() {
    for text in ["status", "geo.city", "lower(name)", "status + 1"] {
        assert_eq!(compiled(text).unwrap().field().name(), text);
    }
}

#[test]
fn evaluation_errors_are_not_silent() {
    let cases = [
        ("1 / (small - 1)", "division by zero"),
        ("small % byte", "division by zero"),
        ("big + 1", "Overflow"),
        ("big - 1", "Overflow"),
        ("big * 2", "Overflow"),
        ("-big", "Overflow"),
        ("cast(name as int)", "Cannot cast string 'Ann'"),
        ("cast(big as int)", "9223372036854775807"),
        ("word::boolean", "Boolean"),
        ("(name || '1e400')::double", "Cannot cast string"),
        (
            "(small || 'e400')::double",
            "1e400 is too large for float64",
        ),
        ("(small || 'e39')::real", "1e39 is too large for float32"),
        ("(small * 1e39)::real", "1e39 is too large for float32"),
        ("huge::double", "1e400 is too large for float64"),
        ("huge + 0.5", "1e400 is too large for float64"),
        (
            "repeat('x', big)",
            "the length 9223372036854775807 is too large; expected at most 1048576",
        ),
        ("broken || ''", "JSON"),
        ("broken.a", "invalid JSON on the path to a"),
    ];
    for (text, expected) in cases {
        let compiled = compiled(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        let error = evaluate(&compiled).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn no_rows_return_no_values() {
    for text in ["1", "now()", "random()", "lower('X')"] {
        let values = compiled(text).unwrap().evaluate(Vec::new(), 0).unwrap();
        assert_eq!(values.len(), 0, "{text}");
    }
}

/// The parser accepts up to 256 levels. They fit in three quarters of the stack of a normal thread,
/// even in a debug build.
#[test]
fn the_deepest_expressions_can_be_evaluated() {
    let chain = vec!["small > 0"; 250].join(" and ");
    let sum = vec!["small"; 250].join(" + ");
    let nested = format!("{}ok{}", "not (".repeat(60), ")".repeat(60));
    let cases = format!("{}ok{}", "case when ok then ".repeat(60), " end".repeat(60));
    let calls = format!("{}name{}", "lower(".repeat(60), ")".repeat(60));
    let check_all = move || {
        check(&[
            (&chain, "boolean", ["true", "true", "true"]),
            (&sum, "int32", ["250", "500", "750"]),
            (&nested, "boolean", ["true", "false", "NULL"]),
            (&cases, "boolean", ["true", "NULL", "NULL"]),
            (&calls, "utf8", ["ann", "bob%", "NULL"]),
        ]);
    };
    let thread = thread::Builder::new().stack_size(1536 << 10);
    thread.spawn(check_all).unwrap().join().unwrap();
}
