//! Values that are outside of the range of their type: a cast to them fails.

use crate::fixture::{check, compiled, evaluate};

#[test]
fn try_cast_is_null_for_what_is_not_a_time() {
    check(&[
        (
            "try_cast(big as time)",
            "time64",
            ["NULL", "NULL", "00:00:00"],
        ),
        (
            "try_cast(big as timestamp_ms)",
            "timestamp_ms",
            ["NULL", "NULL", "1970-01-01T00:00:00Z"],
        ),
        (
            "try_cast(big / 5 as timestamp_s) is null",
            "boolean",
            ["true", "true", "false"],
        ),
        (
            "try_cast((small + 2147483644)::int as date)",
            "date32",
            ["NULL"; 3],
        ),
        ("try_cast(86400000000 as time)", "time64", ["NULL"; 3]),
        ("try_cast('86400000000' as time)", "time64", ["NULL"; 3]),
        (
            "try_cast(case when small = 2 then mixed end as time)",
            "time64",
            ["NULL"; 3],
        ),
        (
            "try_cast(86399999999 as time)",
            "time64",
            ["23:59:59.999999"; 3],
        ),
    ]);
}

#[test]
fn casts_and_functions_fail_for_what_is_not_a_time() {
    let cases = [
        ("big::time", "a value is out of range for time64"),
        ("big::timestamp", "a value is out of range for timestamp_us"),
        (
            "(small + 2147483644)::int::date",
            "a value is out of range for date32",
        ),
        (
            "to_timestamp_millis(big)",
            "a value is out of range for timestamp_ms",
        ),
        (
            "'99999999999999999999999999999999999999'::decimal(38,0) + small::decimal(38,0)",
            "a value is out of range for decimal(38,0)",
        ),
    ];
    for (text, reason) in cases {
        let compiled = compiled(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        let error = evaluate(&compiled).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let always = compiled("9223372036854775807::time").unwrap_err();
    assert_eq!(
        always[0].message,
        "9223372036854775807 is not a valid time64"
    );
}
