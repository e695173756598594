//! Sets and cases find equal values: -0.0 equals 0 also where bits are compared, and items of `in`
//! may be of any kind.

use crate::fixture::check;

/// -0.0 in the rows in which `small` is 1 or 2.
const ZERO: &str = "(case when small < 3 then -0.0 else price end)";

#[test]
fn sets_and_cases_compare_numbers() {
    let cases = [
        ("ZERO = 0", ["true", "true", "false"]),
        ("ZERO in (0.0)", ["true", "true", "false"]),
        ("ZERO in (0, 1, price)", ["true", "true", "true"]),
        ("ZERO not in (0, 1)", ["false", "false", "true"]),
        ("0.0 in (ZERO)", ["true", "true", "false"]),
        (
            "ZERO::float in (0.0::float, 2::float)",
            ["true", "true", "false"],
        ),
        (
            "case ZERO when 0 then true when -2 then false end",
            ["true", "true", "false"],
        ),
        (
            "list_contains(parse_json('[-0.0, 1]'), ZERO)",
            ["true", "true", "false"],
        ),
        (
            "list_contains(parse_json('[0]'), ZERO)",
            ["true", "true", "false"],
        ),
    ];
    for (text, expected) in cases {
        check(&[(&text.replace("ZERO", ZERO), "boolean", expected)]);
    }
}

/// DataFusion takes a `case` in the list for a constant NULL.
#[test]
fn items_of_a_list_may_be_alternatives() {
    check(&[
        (
            "small in (case when small = 1 then 5 else small end)",
            "boolean",
            ["false", "true", "true"],
        ),
        (
            "small not in (7, nullif(small, 1))",
            "boolean",
            ["NULL", "false", "false"],
        ),
        (
            "name in (coalesce(name, 'x'))",
            "boolean",
            ["true", "true", "NULL"],
        ),
        (
            "any in (if(small = 2, 12, 5), 7)",
            "boolean",
            ["false", "true", "NULL"],
        ),
        (
            "at in (case when small = 2 then at end)",
            "boolean",
            ["NULL", "true", "NULL"],
        ),
        ("small in (2, small)", "boolean", ["true", "true", "true"]),
    ]);
}
