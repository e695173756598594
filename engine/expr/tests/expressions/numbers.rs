//! Numbers keep their kind and their digits: untyped ones, decimals, and constants beside decimals.

use crate::fixture::{check, compiled, evaluate};

/// The first two rows of `mixed` are numbers.
const MIXED: &str = "case when small < 3 then mixed end";

#[test]
fn untyped_integers_keep_their_digits() {
    let cases = [
        ("abs(MIXED)", ["12.5", "9007199254740993", "NULL"]),
        ("abs(-(MIXED))", ["12.5", "9007199254740993", "NULL"]),
        ("round(MIXED)", ["13.0", "9007199254740993", "NULL"]),
        ("round(MIXED, -1)", ["10.0", "9007199254740990", "NULL"]),
        ("ceiling(MIXED)", ["13.0", "9007199254740993", "NULL"]),
        ("floor(MIXED)", ["12.0", "9007199254740993", "NULL"]),
        ("trunc(MIXED)", ["12.0", "9007199254740993", "NULL"]),
        ("coalesce(MIXED, 0.5)", ["12.5", "9007199254740993", "0.5"]),
        (
            "case when small < 3 then mixed else -0.5 end",
            ["12.5", "9007199254740993", "-0.5"],
        ),
        ("greatest(MIXED, 2.5)", ["12.5", "9007199254740993", "2.5"]),
        ("least(MIXED, 1e300)", ["12.5", "9007199254740993", "1e300"]),
        ("nullif(MIXED, 12.5)", ["NULL", "9007199254740993", "NULL"]),
    ];
    for (text, expected) in cases {
        check(&[(text.replace("MIXED", MIXED).as_str(), "json", expected)]);
    }
    check(&[
        (
            "round(big)",
            "int64",
            ["9223372036854775807", "-9223372036854775808", "0"],
        ),
        ("floor(small)", "int32", ["1", "2", "3"]),
    ]);
    for text in ["abs(mixed)", "round(word)"] {
        let error = evaluate(&compiled(text).unwrap()).unwrap_err();
        assert!(error.contains("Cannot cast string"), "{text}: {error}");
    }
}

#[test]
fn a_float_and_a_decimal_are_floats() {
    check(&[
        (
            "coalesce(price, amount)",
            "float64",
            ["1.5", "-0.01", "-2.0"],
        ),
        ("least(price, amount)", "float64", ["1.5", "-0.01", "-2.0"]),
        (
            "case when small < 3 then amount else price / 1e20 end",
            "float64",
            ["10.5", "-0.01", "-2e-20"],
        ),
        (
            "price / 1e20 + amount * 0",
            "float64",
            ["1.5e-20", "NULL", "NULL"],
        ),
        (
            "amount * 0 < coalesce(price, 1) / 1e20",
            "boolean",
            ["true", "true", "NULL"],
        ),
    ]);
}

#[test]
fn a_constant_beside_a_decimal_is_a_decimal() {
    check(&[
        (
            "amount * 1.5",
            "decimal(13,3)",
            ["15.750", "-0.015", "NULL"],
        ),
        (
            "'99999999.99'::decimal(10,2) * 1.5",
            "decimal(13,3)",
            ["149999999.985"; 3],
        ),
        ("1.005::decimal(10,2)", "decimal(10,2)", ["1.01"; 3]),
        ("-1.005::decimal(10,2)", "decimal(10,2)", ["-1.01"; 3]),
        (
            "123456789.987654321::decimal(18,9)",
            "decimal(18,9)",
            ["123456789.987654321"; 3],
        ),
        (
            "amount::decimal(18,9) + 123456779.487654321 = 123456789.987654321",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "amount in (10.5, 1.005)",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "big > 9223372036854775806.5",
            "boolean",
            ["true", "false", "false"],
        ),
        (
            "coalesce(amount, 1.005)",
            "decimal(11,3)",
            ["10.500", "-0.010", "1.005"],
        ),
        (
            "greatest(amount, 1.005)",
            "decimal(11,3)",
            ["10.500", "1.005", "1.005"],
        ),
        ("price + 1.5", "float64", ["3.0", "NULL", "-0.5"]),
    ]);
}

#[test]
fn rounded_decimals_have_room_for_their_last_digit() {
    check(&[
        (
            "ceil(('99999999.99'::decimal(11,2) - (amount - amount))::decimal(10,2))",
            "decimal(9,0)",
            ["100000000", "100000000", "NULL"],
        ),
        (
            "floor(('-99999999.99'::decimal(11,2) - (amount - amount))::decimal(10,2))",
            "decimal(9,0)",
            ["-100000000", "-100000000", "NULL"],
        ),
        ("ceiling(amount)", "decimal(9,0)", ["11", "0", "NULL"]),
        ("floor(amount)", "decimal(9,0)", ["10", "-1", "NULL"]),
        ("trunc(amount)", "decimal(9,0)", ["10", "0", "NULL"]),
        (
            "trunc(amount, 1)",
            "decimal(10,2)",
            ["10.50", "0.00", "NULL"],
        ),
        ("ceil(amount % 0.75)", "decimal(1,0)", ["0", "0", "NULL"]),
        (
            "ceil(('0.' || repeat('9', 38))::decimal(38,38))",
            "decimal(1,0)",
            ["1"; 3],
        ),
        (
            "floor(small::decimal(5,0))",
            "decimal(5,0)",
            ["1", "2", "3"],
        ),
    ]);
}

#[test]
fn a_constant_is_the_same_decimal_in_both_casts() {
    check(&[
        (
            "try_cast(1.005 as decimal(10,2))",
            "decimal(10,2)",
            ["1.01"; 3],
        ),
        (
            "try_cast(123456789.987654321 as decimal(18,9))",
            "decimal(18,9)",
            ["123456789.987654321"; 3],
        ),
        (
            "try_cast(1000.5 as decimal(3,1))",
            "decimal(3,1)",
            ["NULL"; 3],
        ),
    ]);
}

/// A value without a type beside one of a known type is of that type, as if it had been decoded so.
#[test]
fn untyped_alternatives_take_the_type_of_the_others() {
    check(&[
        ("coalesce(any, price)", "float64", ["12.0", "12.0", "-2.0"]),
        ("greatest(any, price)", "float64", ["12.0", "12.0", "-2.0"]),
        (
            "least(any, price * 100)",
            "float64",
            ["12.0", "12.0", "-200.0"],
        ),
        (
            "coalesce(any, amount)",
            "decimal(10,2)",
            ["12.00", "12.00", "NULL"],
        ),
        (
            "case when ok then any else price end",
            "float64",
            ["12.0", "NULL", "-2.0"],
        ),
        (
            "nvl2(price, any, price)",
            "float64",
            ["12.0", "NULL", "NULL"],
        ),
        (
            "coalesce(word, name)",
            "utf8",
            ["héllo \"x\"", "true", "NULL"],
        ),
    ]);
    let error = evaluate(&compiled("coalesce(mixed, price)").unwrap()).unwrap_err();
    assert!(error.contains("Cannot cast string 'abc'"), "{error}");
}
