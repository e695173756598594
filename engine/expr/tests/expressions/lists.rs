//! Functions of lists and of JSON.

use crate::fixture::{check, compiled, evaluate};

#[test]
fn functions_of_lists() {
    check(&[
        ("length(tags)", "int64", ["2", "0", "NULL"]),
        ("array_length(pair)", "int64", ["2", "NULL", "2"]),
        ("cardinality(points)", "int64", ["1", "2", "0"]),
        (
            "array_length(case when small = 1 then deep.a end)",
            "int64",
            ["2", "NULL", "NULL"],
        ),
        (
            "list_contains(tags, 'b')",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "array_contains(pair, 5.0)",
            "boolean",
            ["false", "NULL", "true"],
        ),
        (
            "array_has(pair, small)",
            "boolean",
            ["true", "NULL", "false"],
        ),
        ("list_contains(tags, null)", "boolean", ["NULL"; 3]),
        ("array_position(tags, 'b')", "int64", ["2", "NULL", "NULL"]),
        (
            "array_position(parse_json('[1, \"1\", null, 9007199254740993]'), 9007199254740993)",
            "int64",
            ["4"; 3],
        ),
        ("array_to_string(tags, '-')", "utf8", ["a-b", "", "NULL"]),
        (
            "array_to_string(parse_json('[1, null, \"\\u0062\"]'), ',', '?')",
            "utf8",
            ["1,?,b"; 3],
        ),
        ("split(name, 'n')", "[utf8]", ["[A, , ]", "[bob%]", "NULL"]),
        (
            "array_length(string_to_array('a,b', ','))",
            "int64",
            ["2"; 3],
        ),
    ]);
    let error = evaluate(&compiled("array_length(mixed)").unwrap()).unwrap_err();
    assert!(error.contains("the value is not a list"), "{error}");
}

#[test]
fn json_in_strings() {
    check(&[
        ("parse_json('{\n \"a\": 1}')", "json", ["{\"a\":1}"; 3]),
        ("'[1]'::json", "json", ["[1]"; 3]),
        ("try_cast(name as json)", "json", ["NULL"; 3]),
        ("to_json(name)", "json", ["\"Ann\"", "\"bob%\"", "NULL"]),
        ("to_json(price)", "json", ["1.5", "NULL", "-2.0"]),
        ("to_json(raw)", "json", ["\"YWI=\"", "NULL", "\"\""]),
        (
            "to_json(at)",
            "json",
            [
                "\"2024-02-29T23:59:58.123Z\"",
                "\"1970-01-01T00:00:00Z\"",
                "NULL",
            ],
        ),
        ("to_json('inf'::double)", "json", ["null"; 3]),
        ("json_array_length('[[1], 2]'::json)", "int64", ["2"; 3]),
    ]);
    let error = evaluate(&compiled("parse_json(name)").unwrap()).unwrap_err();
    assert!(error.contains("'Ann' is not JSON"), "{error}");
}

#[test]
fn lists_and_structs_are_json_as_text() {
    check(&[
        ("tags::text", "utf8", ["[\"a\",\"b\"]", "[]", "NULL"]),
        ("try_cast(pair as text)", "utf8", ["[1,2]", "NULL", "[5,6]"]),
        (
            "'p' || points",
            "utf8",
            ["p[{\"x\":10}]", "p[{\"x\":20},{\"x\":21}]", "p[]"],
        ),
        (
            "user::text",
            "utf8",
            [
                r#"{"id":"u1","age":30,"more":{"k":"v"}}"#,
                r#"{"id":"u2","age":null,"more":[]}"#,
                "NULL",
            ],
        ),
    ]);
}

/// A value without a type beside an interval is a time.
#[test]
fn json_and_intervals() {
    let time = "parse_json(concat('\"2024-02-29T10:00:0', small, 'Z\"'))";
    let later = [
        "2024-02-29T11:00:01Z",
        "2024-02-29T11:00:02Z",
        "2024-02-29T11:00:03Z",
    ];
    for text in ["TIME + interval '1 hour'", "interval '1 hour' + TIME"] {
        check(&[(&text.replace("TIME", time), "timestamp_us", later)]);
    }
    let earlier = [
        "2024-02-28T10:00:01Z",
        "2024-02-28T10:00:02Z",
        "2024-02-28T10:00:03Z",
    ];
    let text = format!("{time} - interval '1 day'");
    check(&[(&text, "timestamp_us", earlier)]);
}

#[test]
fn structs_of_lists() {
    check(&[(
        "named_struct('n', small, 'list', tags)::text",
        "utf8",
        [
            r#"{"n":1,"list":["a","b"]}"#,
            r#"{"n":2,"list":[]}"#,
            r#"{"n":3,"list":null}"#,
        ],
    )]);
}
