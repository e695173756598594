//! `& | # ~ << >>`: values, errors and the types that they require.

use crate::demand::wanted;
use crate::{errors, fixture};

#[test]
fn values() {
    let all = "18446744073709551615";
    fixture::check(&[
        ("status & 15", "int64", ["8", "4", "NULL"]),
        ("status | 1", "int64", ["201", "405", "NULL"]),
        ("status # 255", "int64", ["55", "363", "NULL"]),
        ("~status", "int64", ["-201", "-405", "NULL"]),
        ("~~status", "int64", ["200", "404", "NULL"]),
        ("~status + 1", "int64", ["-202", "-406", "NULL"]),
        ("status >> 3", "int64", ["25", "50", "NULL"]),
        ("byte << small", "int64", ["0", "28", "2040"]),
        ("~byte & 255", "int64", ["255", "248", "0"]),
        ("byte & small", "int64", ["0", "2", "3"]),
        ("big >> 63", "int64", ["0", "-1", "0"]),
        ("big << 1", "int64", ["-2", "0", "0"]),
        ("1 << 63", "int64", [i64::MIN.to_string().as_str(); 3]),
        ("1 | 2 & 4", "int64", ["0", "0", "0"]),
        ("2 + 3 << 1", "int64", ["10", "10", "10"]),
        ("3 & 2 = 2", "boolean", ["true", "true", "true"]),
        ("any & 4", "int64", ["4", "4", "NULL"]),
        ("any >> any / 12", "int64", ["6", "6", "NULL"]),
        ("null & 1", "int64", ["NULL", "NULL", "NULL"]),
        ("~null", "int64", ["NULL", "NULL", "NULL"]),
        ("1 << null", "int64", ["NULL", "NULL", "NULL"]),
        ("null >> 99", "int64", ["NULL", "NULL", "NULL"]),
        (
            "cast(null as bigint) >> small * 50",
            "int64",
            ["NULL", "NULL", "NULL"],
        ),
        ("~0::uint64", "uint64", [all, all, all]),
        ("~'0'::uint64 & byte", "uint64", ["0", "7", "255"]),
        (
            "'18446744073709551615'::uint64 >> 63",
            "uint64",
            ["1", "1", "1"],
        ),
        ("1::uint64 << 63", "uint64", ["9223372036854775808"; 3]),
        (
            "'18446744073709551615'::uint64 # 1",
            "uint64",
            ["18446744073709551614"; 3],
        ),
    ]);
}

#[test]
fn constants_have_the_type_of_a_uint64_beside_them() {
    let (all, high) = ("18446744073709551615", "9223372036854775808");
    fixture::check(&[
        ("byte::uint64 & ~4", "uint64", ["0", "3", "251"]),
        ("~4 & byte::uint64", "uint64", ["0", "3", "251"]),
        ("byte::uint64 & ~4 & ~1", "uint64", ["0", "2", "250"]),
        ("byte::uint64 & ~(4 | 1)", "uint64", ["0", "2", "250"]),
        ("byte::uint64 & ~(1 << small)", "uint64", ["0", "3", "247"]),
        ("byte::uint64 | ~0", "uint64", [all, all, all]),
        (
            "byte::uint64 # ~0",
            "uint64",
            [all, "18446744073709551608", "18446744073709551360"],
        ),
        (
            "byte::uint64 | (1 << 63)",
            "uint64",
            [high, "9223372036854775815", "9223372036854776063"],
        ),
        (
            "0::uint64 | (~0 >> 1)",
            "uint64",
            ["9223372036854775807"; 3],
        ),
        ("~0::uint64 & ~4", "uint64", ["18446744073709551611"; 3]),
        ("~(byte::uint64 & ~4) & 15", "uint64", ["15", "12", "4"]),
        ("byte & ~4", "int64", ["0", "3", "251"]),
        ("small & ~4 | 1 << 0", "int64", ["1", "3", "3"]),
    ]);
    // Each operand is compiled once.
    for (before, after) in [
        ("byte::uint64 & (1 << (", "))"),
        ("(1 << (", ") & byte::uint64)"),
    ] {
        let nested = format!("{}1{}", before.repeat(30), after.repeat(30));
        fixture::compiled(&nested).unwrap_or_else(|errors| panic!("{nested}: {errors:?}"));
    }
    errors::check(&[
        ("byte::uint64 & -1", "-1", "-1 is not a valid uint64"),
        (
            "byte::uint64 & (-1 << 3)",
            "(-1 << 3)",
            "-8 is not a valid uint64",
        ),
        (
            "byte::uint64 & (1 << 64)",
            "(1 << 64)",
            "this expression always fails: `<<` by 64 bits; expected 0 to 63",
        ),
        (
            "byte::uint64 & ~'4'",
            "'4'",
            "`~` requires integers, found utf8",
        ),
    ]);
}

#[test]
fn a_number_of_bits_that_cannot_be_shifted_makes_the_record_invalid() {
    for (text, expected) in [
        ("1 << small * 32", "`<<` by 64 bits; expected 0 to 63"),
        ("big >> -small", "`>>` by -1 bits; expected 0 to 63"),
        (
            "1 << big",
            "`<<` by 9223372036854775807 bits; expected 0 to 63",
        ),
        (
            "mixed & 1",
            "Cannot cast string '12.5' to value of Int64 type",
        ),
        ("-small & 1::uint64", "Can't cast value -1 to type UInt64"),
    ] {
        let found = fixture::evaluate(&fixture::compiled(text).expect(text)).expect_err(text);
        assert_eq!(found, format!("Compute error: {expected}"), "{text}");
    }
}

#[test]
fn operators_of_bits_require_integers() {
    errors::check(&[
        ("name & 1", "name", "`&` requires integers, found utf8"),
        ("1 | price", "price", "`|` requires integers, found float64"),
        (
            "status # amount",
            "amount",
            "`#` requires integers, found decimal(10,2)",
        ),
        ("~at", "at", "`~` requires integers, found timestamp_ms"),
        (
            "price << 1",
            "price",
            "`<<` requires integers, found float64",
        ),
        ("1 >> '1'", "'1'", "`>>` requires integers, found utf8"),
        (
            "status & 1.5",
            "1.5",
            "`&` requires integers, found float64",
        ),
        ("1::uint64 & -1", "-1", "-1 is not a valid uint64"),
        (
            "1 << 64",
            "1 << 64",
            "this expression always fails: `<<` by 64 bits; expected 0 to 63",
        ),
    ]);
    for (text, help) in [
        ("ok & ok", "combine conditions with `and`"),
        ("ok | ok", "combine conditions with `or`"),
        ("~ok", "negate a condition with `not`"),
        ("name & 1", "convert it to an integer: cast(x as bigint)"),
        ("xor(1, 2)", "write `x # y`"),
    ] {
        assert_eq!(errors::error(text).help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn a_field_without_a_type_is_an_integer() {
    for (text, expected) in [
        ("a & 4", "a int64"),
        ("a | b", "a int64, b int64"),
        ("a # known_int", "a int64, known_int int64"),
        ("a & b::uint64", "a uint64, b"),
        ("~a", "a int64"),
        ("a << b", "a int64, b int64"),
        ("a >> 1.5", "a int64"),
        ("a & 4 = b", "a int64, b"),
        ("(a & 1) + b", "a int64, b"),
    ] {
        assert_eq!(wanted(text, None), expected, "{text}");
    }
}
