//! Functions: their values for the three rows of the fixture, and whether they are deterministic.

use crate::fixture::{check, compiled, evaluate, shown};

#[test]
fn functions_of_strings() {
    check(&[
        ("LOWER(name)", "utf8", ["ann", "bob%", "NULL"]),
        ("length(name)", "int32", ["3", "4", "NULL"]),
        ("substr(name, 2)", "utf8", ["nn", "ob%", "NULL"]),
        ("substring(name, 1, 2)", "utf8", ["An", "bo", "NULL"]),
        ("split_part('a,b', ',', 2)", "utf8", ["b", "b", "b"]),
        ("trim('  x ')", "utf8", ["x", "x", "x"]),
        ("trim(both from '  x ')", "utf8", ["x"; 3]),
        ("trim(both 'xy' from 'xyaxy')", "utf8", ["a"; 3]),
        ("trim(leading 'xy' from 'yxaxy')", "utf8", ["axy"; 3]),
        ("trim(trailing 'xy' from 'yxaxy')", "utf8", ["yxa"; 3]),
        ("trim('A%' from name)", "utf8", ["nn", "bob", "NULL"]),
        ("trim(both null from name)", "utf8", ["NULL"; 3]),
        ("replace(name, 'n', 'm')", "utf8", ["Amm", "bob%", "NULL"]),
        (
            "concat(name, '-', small)",
            "utf8",
            ["Ann-1", "bob%-2", "-3"],
        ),
        ("lpad(small, 3, '0')", "utf8", ["001", "002", "003"]),
        ("rpad(name, small, 'x')", "utf8", ["A", "bo", "NULL"]),
        ("lpad(name, -1, 'x')", "utf8", ["", "", "NULL"]),
        ("repeat('x', small)", "utf8", ["x", "xx", "xxx"]),
        (
            "starts_with(name, 'A')",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "regexp_replace(name, '[a-z]+', '*')",
            "utf8",
            ["A*", "*%", "NULL"],
        ),
        (
            "regexp_like(name, 'b')",
            "boolean",
            ["false", "true", "NULL"],
        ),
        ("md5('x')", "utf8", ["9dd4e461268c8034f5c8564e155c67a6"; 3]),
        ("encode(raw, 'hex')", "utf8", ["6162", "NULL", ""]),
    ]);
}

#[test]
fn functions_of_numbers() {
    check(&[
        ("abs(small - 3)", "int64", ["2", "1", "0"]),
        ("round(price)", "float64", ["2.0", "NULL", "-2.0"]),
        ("ceiling(price)", "float64", ["2.0", "NULL", "-2.0"]),
        ("power(small, 2)", "float64", ["1.0", "4.0", "9.0"]),
        ("greatest(small, 2)", "int64", ["2", "2", "3"]),
    ]);
}

#[test]
fn functions_of_times() {
    check(&[
        (
            "to_timestamp_millis(status)",
            "timestamp_ms",
            [
                "1970-01-01T00:00:00.200Z",
                "1970-01-01T00:00:00.404Z",
                "NULL",
            ],
        ),
        (
            "to_timestamp_seconds(0)",
            "timestamp_s",
            ["1970-01-01T00:00:00Z"; 3],
        ),
        (
            "to_timestamp('2024-02-29T01:00:00+01:00')",
            "timestamp_ns",
            ["2024-02-29T00:00:00Z"; 3],
        ),
        (
            "date_trunc('hour', at)",
            "timestamp_ms",
            ["2024-02-29T23:00:00Z", "1970-01-01T00:00:00Z", "NULL"],
        ),
        ("date_part('year', at)", "int32", ["2024", "1970", "NULL"]),
        (
            "date_bin('1 hour', at)",
            "timestamp_ns",
            ["2024-02-29T23:00:00Z", "1970-01-01T00:00:00Z", "NULL"],
        ),
        ("to_char(day, '%Y')", "utf8", ["2024", "1970", "NULL"]),
        ("to_date('2024-02-29')", "date32", ["2024-02-29"; 3]),
        (
            "from_unixtime(0)",
            "timestamp_s",
            ["1970-01-01T00:00:00Z"; 3],
        ),
        ("now() > '2024-01-01'", "boolean", ["true", "true", "true"]),
        (
            "current_timestamp() > at",
            "boolean",
            ["true", "true", "NULL"],
        ),
        ("current_date() > day", "boolean", ["true", "true", "NULL"]),
        ("Current_Date > day", "boolean", ["true", "true", "NULL"]),
        ("current_timestamp = now()", "boolean", ["true"; 3]),
        ("current_time = now()::time", "boolean", ["true"; 3]),
        ("now() = now() and now() <= now()", "boolean", ["true"; 3]),
        (
            "case when random() < 2 then now() end = now()",
            "boolean",
            ["true"; 3],
        ),
    ]);
}

#[test]
fn structs_of_json_keep_its_values() {
    check(&[
        (
            "named_struct('id', any, 'w', word, 'n', small)",
            "{id json, w json, n int32}",
            [
                r#"{id: "12", w: "h\u00e9llo \"x\"", n: 1}"#,
                "{id: 12, w: true, n: 2}",
                "{id: NULL, w: null, n: 3}",
            ],
        ),
        (
            "struct(mixed, 'x')",
            "{c0 json, c1 utf8}",
            [
                "{c0: 12.5, c1: x}",
                "{c0: 9007199254740993, c1: x}",
                r#"{c0: "abc", c1: x}"#,
            ],
        ),
        (
            "named_struct('inner', struct(mixed))",
            "{inner {c0 json}}",
            [
                "{inner: {c0: 12.5}}",
                "{inner: {c0: 9007199254740993}}",
                r#"{inner: {c0: "abc"}}"#,
            ],
        ),
    ]);
}

#[test]
fn random_functions() {
    check(&[
        (
            "random() >= 0 and random() < 1",
            "boolean",
            ["true", "true", "true"],
        ),
        ("length(uuid())", "int32", ["36", "36", "36"]),
    ]);
}

#[test]
fn volatile_functions_are_not_deterministic() {
    for text in [
        "now()",
        "random() < 0.5",
        "uuid()",
        "current_date",
        "current_time",
        "case when random() < 2 then 1 end",
        "to_char(now(), '%Y')",
    ] {
        assert!(!compiled(text).unwrap().is_deterministic(), "{text}");
    }
    for text in ["1", "status", "lower(name)", "@timestamp"] {
        assert!(compiled(text).unwrap().is_deterministic(), "{text}");
    }
}

#[test]
fn random_values_differ_and_now_is_constant_within_a_batch() {
    let values = shown(&evaluate(&compiled("random()").unwrap()).unwrap());
    assert!(values[0] != values[1] && values[1] != values[2]);
    let values = shown(&evaluate(&compiled("now()").unwrap()).unwrap());
    assert!(values[0] == values[1] && values[1] == values[2]);
}
