//! Expressions whose result is much larger than their inputs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::error::ArrowError;

use crate::fixture::compiled;

/// Evaluates an expression for `rows` rows, with the value `column` in every string column.
fn evaluate(text: &str, column: &str, rows: usize) -> Result<ArrayRef, ArrowError> {
    let compiled = compiled(text).unwrap();
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
        column, rows,
    )));
    compiled.evaluate(
        compiled.inputs().iter().map(|_| values.clone()).collect(),
        rows,
    )
}

/// Cases of an expression, the value of its column, and the length of the result.
const WIDE: [(&str, &str, usize); 12] = [
    ("repeat('x', 400000)", "", 400_000),
    ("repeat(name, 400000)", "x", 400_000),
    ("name || repeat('x', 400000)", "y", 400_001),
    ("concat(name, repeat('x', 400000), name)", "y", 400_002),
    (
        "case when name = 'y' then repeat('x', 400000) else name end",
        "y",
        400_000,
    ),
    ("lpad(name, 400000)", "y", 400_000),
    ("rpad(name, 400000, 'zä')", "y", 600_000),
    ("replace(name, 'y', repeat('x', 400000))", "y", 400_000),
    (
        "regexp_replace(name, '.', repeat('x', 200000), 'g')",
        "yy",
        400_000,
    ),
    // The arguments are small enough, and the result is not.
    ("to_char(now(), name || repeat('%d', 300))", "%d", 602),
    ("encode(name || repeat('x', 1000), 'hex')", "y", 2002),
    (
        "redact(repeat('::1 ', 20000) || name, 'ip', 'k')",
        "",
        440_000,
    ),
];

#[test]
fn too_large_results_are_rejected_before_they_are_computed() {
    for (text, column, _) in WIDE {
        match evaluate(text, column, 8000) {
            Err(ArrowError::MemoryError(_)) => {}
            other => panic!("{text}: {:?}", other.map(|array| array.len())),
        }
    }
}

#[test]
fn fewer_rows_are_accepted() {
    for (text, column, length) in WIDE {
        for rows in [0, 1, 5] {
            let values =
                evaluate(text, column, rows).unwrap_or_else(|error| panic!("{text}: {error}"));
            let values = values.as_string::<i32>();
            assert_eq!(values.len(), rows, "{text}");
            assert!(
                (0..rows).all(|row| values.value(row).len().abs_diff(length) < 3),
                "{text}: {values:?}"
            );
        }
    }
}

#[test]
fn a_single_value_may_be_large_within_a_limit() {
    assert_eq!(
        evaluate("repeat(name, 1000)", &"x".repeat(10_000), 1)
            .unwrap()
            .as_string::<i32>()
            .value(0)
            .len(),
        10_000_000
    );
    for (text, column) in [
        ("repeat(name, 100000)", "x".repeat(1000)),
        ("replace(name, 'x', name)", "x".repeat(10_000)),
        ("levenshtein(name, reverse(name))", "xy".repeat(50_000)),
    ] {
        let error = evaluate(text, &column, 1).unwrap_err();
        assert!(
            matches!(error, ArrowError::MemoryError(_)),
            "{text}: {error}"
        );
    }
    // A result that is not larger than its arguments is always accepted.
    let large = "x".repeat(20 << 20);
    assert_eq!(
        evaluate("replace(name, 'x', 'y')", &large, 1)
            .unwrap()
            .as_string::<i32>()
            .value(0)
            .len(),
        large.len()
    );
}

#[test]
fn ordinary_batches_are_evaluated_at_once() {
    let text = "some words, as strings have them ".repeat(4);
    for expression in [
        "replace(name, 'words', 'letters')",
        "levenshtein(name, reverse(name))",
        "regexp_replace(name, 'w.*s', 'x')",
        "rpad(name, 200)",
        "repeat(name, 3)",
        "name in ('a', 'b') or name like 'x%' or name || 'constant' = 'other'",
    ] {
        assert_eq!(
            evaluate(expression, &text, 8192)
                .unwrap_or_else(|error| panic!("{expression}: {error}"))
                .len(),
            8192
        );
    }
}
