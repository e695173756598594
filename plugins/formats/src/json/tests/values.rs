//! Tests of values of every type.

use DataType::*;

use super::*;

/// A type, a value in JSON, and the value as shown by Arrow, or the reason why its record is bad.
type Case = (DataType, &'static str, Result<&'static str, &'static str>);

fn check(cases: &[Case]) {
    for (data_type, value, expected) in cases {
        let record = format!(r#"{{"z": [1, "\n"], "a": {value}, "y": {{"a": 0}}}}"#);
        assert_eq!(
            one(wanted("a", data_type.clone()), &record),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{value} as {data_type}"
        );
    }
}

#[test]
fn integers_are_in_range() {
    check(&[
        (Int8, "127", Ok("127")),
        (Int8, "128", Err("`a` is 128; expected int8")),
        (Int16, "-32768", Ok("-32768")),
        (
            Int32,
            "2147483648",
            Err("`a` is 2147483648; expected int32"),
        ),
        (Int64, "-9223372036854775808", Ok("-9223372036854775808")),
        (
            Int64,
            "9223372036854775808",
            Err("`a` is 9223372036854775808; expected int64"),
        ),
        (Int64, "1.5", Err("`a` is 1.5; expected int64")),
        (Int64, "1.0", Ok("1")),
        (Int64, "1e3", Ok("1000")),
        (Int64, "1e300", Err("`a` is 1e300; expected int64")),
        (Int64, r#""1""#, Err("`a` is a string; expected int64")),
        (Int64, "true", Err("`a` is a boolean; expected int64")),
        (Int64, "[1]", Err("`a` is a list; expected int64")),
        (
            Int64,
            r#"{"b": [1]}"#,
            Err("`a` is an object; expected int64"),
        ),
        (Int64, "null", Ok("NULL")),
        (UInt8, "255", Ok("255")),
        (UInt8, "-1", Err("`a` is -1; expected uint8")),
        (UInt16, "65535", Ok("65535")),
        (UInt32, "4294967295", Ok("4294967295")),
        (UInt64, "18446744073709551615", Ok("18446744073709551615")),
        (
            UInt64,
            "18446744073709551616",
            Err("`a` is 1.8446744073709552e19; expected uint64"),
        ),
    ]);
}

#[test]
fn floats() {
    check(&[
        (Float64, "1", Ok("1.0")),
        (Float64, "18446744073709551616", Ok("1.8446744073709552e19")),
        (Float64, "-0.5e-3", Ok("-0.0005")),
        (
            Float64,
            r#""1.5""#,
            Err("`a` is a string; expected float64"),
        ),
        (Float64, "true", Err("`a` is a boolean; expected float64")),
        (Float64, "[1]", Err("`a` is a list; expected float64")),
        (Float64, "{}", Err("`a` is an object; expected float64")),
        (Float64, "null", Ok("NULL")),
        (Float64, "-0.0", Ok("-0.0")),
        (Float64, "-0", Ok("-0.0")),
        (Float64, "-0.000e5", Ok("-0.0")),
        (Float64, "-1e-400", Ok("-0.0")),
        (Float64, "1e308", Ok("1e308")),
        (Float64, "5e-324", Ok("5e-324")),
        (Float64, "1e400", Err("`a` is 1e400; expected float64")),
        (Float64, "-1e400", Err("`a` is -1e400; expected float64")),
        (Float32, "1.5", Ok("1.5")),
        (Float32, "-0.0", Ok("-0.0")),
        (Float32, "1e39", Err("`a` is 1e39; expected float32")),
        // The nearest to it; the nearest float64 is halfway between two, and would be rounded down.
        (Float32, "1.00000005960464477539062500001", Ok("1.0000001")),
    ]);
}

#[test]
fn booleans_strings_and_bytes() {
    check(&[
        (Boolean, "true", Ok("true")),
        (Boolean, "false", Ok("false")),
        (Boolean, "1", Err("`a` is a number; expected boolean")),
        (
            Utf8,
            r#""caf\u00e9 \"x\" \ud83d\ude00""#,
            Ok("café \"x\" 😀"),
        ),
        (Utf8, r#""""#, Ok("")),
        (Utf8, "1", Err("`a` is a number; expected a string")),
        (Utf8, "{}", Err("`a` is an object; expected a string")),
        (Binary, r#""aGk=""#, Ok("6869")),
        (
            Binary,
            r#""a""#,
            Err("`a` is the string \"a\"; expected a base64 string"),
        ),
    ]);
}

#[test]
fn timestamps() {
    let millis = || Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    check(&[
        (millis(), "1500", Ok("1970-01-01T00:00:01.500Z")),
        (
            millis(),
            r#""1970-01-01T02:00:01.5+02:00""#,
            Ok("1970-01-01T00:00:01.500Z"),
        ),
        (
            millis(),
            r#""1970-01-01T00:00:01.5""#,
            Ok("1970-01-01T00:00:01.500Z"),
        ),
        (
            millis(),
            r#""+10019-06-13T00:00:00.001Z""#,
            Ok("+10019-06-13T00:00:00.001Z"),
        ),
        (
            millis(),
            r#""-0043-08-22T02:00:00.001+02:00""#,
            Ok("-0043-08-22T00:00:00.001Z"),
        ),
        (
            millis(),
            r#""-1""#,
            Err("`a` is the string \"-1\"; expected a timestamp"),
        ),
        (millis(), "1.5", Err("`a` is 1.5; expected a timestamp")),
        (
            millis(),
            r#""soon""#,
            Err("`a` is the string \"soon\"; expected a timestamp"),
        ),
        (
            Timestamp(TimeUnit::Nanosecond, None),
            r#""1970-01-01T00:00:00.000000001Z""#,
            Ok("1970-01-01T00:00:00.000000001"),
        ),
        (
            Timestamp(TimeUnit::Nanosecond, None),
            r#""3000-01-01T00:00:00Z""#,
            Err("`a` is the string \"3000-01-01T00:00:00Z\"; expected a timestamp"),
        ),
        (
            millis(),
            "9223372036854775807",
            Err("`a` is 9223372036854775807; expected a timestamp"),
        ),
        (
            Timestamp(TimeUnit::Second, None),
            "1",
            Ok("1970-01-01T00:00:01"),
        ),
        (
            Timestamp(TimeUnit::Microsecond, None),
            "1",
            Ok("1970-01-01T00:00:00.000001"),
        ),
    ]);
}

#[test]
fn dates_and_times_of_day() {
    check(&[
        (Date32, r#""2024-02-29""#, Ok("2024-02-29")),
        (
            Date32,
            r#""2023-02-29""#,
            Err("`a` is the string \"2023-02-29\"; expected a date"),
        ),
        (Date32, "1", Err("`a` is a number; expected a date")),
        (
            Time64(TimeUnit::Microsecond),
            r#""23:59:59.999999""#,
            Ok("23:59:59.999999"),
        ),
        (
            Time64(TimeUnit::Microsecond),
            r#""24:30:00""#,
            Err("`a` is the string \"24:30:00\"; expected a time"),
        ),
        (
            Time64(TimeUnit::Microsecond),
            r#""86400000000""#,
            Err("`a` is the string \"86400000000\"; expected a time"),
        ),
        (
            Time64(TimeUnit::Microsecond),
            "1",
            Err("`a` is a number; expected a time"),
        ),
    ]);
}

#[test]
fn decimals() {
    check(&[
        (Decimal128(5, 2), "12.3", Ok("12.30")),
        (Decimal128(5, 2), r#""-12.30""#, Ok("-12.30")),
        (
            Decimal128(5, 2),
            "12.345",
            Err("`a` is 12.345; expected decimal(5, 2)"),
        ),
        (
            Decimal128(5, 2),
            "1000",
            Err("`a` is 1000; expected decimal(5, 2)"),
        ),
        (
            Decimal128(5, 2),
            "true",
            Err("`a` is true; expected decimal(5, 2)"),
        ),
        (Decimal128(5, 2), "null", Ok("NULL")),
        (
            Decimal256(50, 0),
            "12345678901234567890123456789012345678901234567890",
            Ok("12345678901234567890123456789012345678901234567890"),
        ),
    ]);
}

#[test]
fn lists_and_objects() {
    let point = || {
        object(vec![
            Field::new("x", Int32, true),
            Field::new("tags", list(Utf8), true),
            json_field("any"),
        ])
    };
    check(&[
        (list(Int64), "[1, null, 3]", Ok("[1, , 3]")),
        (list(Int64), "[]", Ok("[]")),
        (
            list(Int64),
            "[1, \"x\"]",
            Err("`a[]` is a string; expected int64"),
        ),
        (list(Int64), "{}", Err("`a` is an object; expected a list")),
        (list(list(Int8)), "[[1], [], null]", Ok("[[1], [], ]")),
        (
            point(),
            r#"{"tags": ["p", "q"], "other": {}, "x": 1, "any": {"k": [ 1 ]}}"#,
            Ok("{x: 1, tags: [p, q], any: {\"k\": [ 1 ]}}"),
        ),
        (point(), "{}", Ok("{x: , tags: , any: }")),
        (
            point(),
            r#"{"x": "1"}"#,
            Err("`a.x` is a string; expected int32"),
        ),
        (
            point(),
            r#"{"tags": [[]]}"#,
            Err("`a.tags[]` is a list; expected a string"),
        ),
        (point(), "[]", Err("`a` is a list; expected an object")),
    ]);
}

#[test]
fn json_columns_keep_the_json_text() {
    for value in [
        "1.50",
        "\"a\\u0062\"",
        "{ \"k\" : [1,\t2] }",
        "[]",
        "true",
        "-0",
    ] {
        assert_eq!(
            one(wanted_json("a"), &format!(r#"{{"a": {value} }}"#)),
            Ok(value.to_owned())
        );
    }
    assert_eq!(
        one(wanted_json("a"), r#"{"a": null}"#),
        Ok("NULL".to_owned())
    );
}
