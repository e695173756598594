//! Values of expressions for the three rows of the fixture.

use crate::fixture::{compiled, evaluate, shown};
use pseidon_expr::types::field_type_name;

/// Checks cases of an expression, its type and its three values.
fn check(cases: &[(&str, &str, [&str; 3])]) {
    let mut wrong = Vec::new();
    for (text, expected_type, expected) in cases {
        let compiled = match compiled(text) {
            Ok(compiled) => compiled,
            Err(errors) => {
                wrong.push(format!("{text}: {errors:?}"));
                continue;
            }
        };
        match evaluate(&compiled) {
            Ok(values) if shown(&values) == *expected => {}
            Ok(values) => wrong.push(format!("{text}: {:?}", shown(&values))),
            Err(error) => wrong.push(format!("{text}: {error}")),
        }
        let found = field_type_name(compiled.field());
        if found != *expected_type {
            wrong.push(format!("{text} is {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn literals_and_columns() {
    check(&[
        ("12", "int64", ["12", "12", "12"]),
        ("1.5", "float64", ["1.5", "1.5", "1.5"]),
        ("'it''s'", "utf8", ["it's", "it's", "it's"]),
        ("true", "boolean", ["true", "true", "true"]),
        ("null", "null", ["NULL", "NULL", "NULL"]),
        ("status", "int64", ["200", "404", "NULL"]),
        ("any", "json", ["\"12\"", "12", "NULL"]),
        ("geo.city", "utf8", ["Rome", "Oslo", "NULL"]),
        ("@topic", "utf8", ["t1", "t1", "t2"]),
        ("@partition", "int32", ["0", "1", "0"]),
        ("@offset", "int64", ["10", "11", "12"]),
        (
            "@timestamp",
            "timestamp_ms",
            ["2024-02-29T23:59:58.123Z", "NULL", "1970-01-01T00:00:00Z"],
        ),
        ("@key", "utf8", ["k", "NULL", ""]),
        ("@headers", "json", ["{\"h\":\"1\"}", "{}", "{}"]),
        ("@headers.trace", "utf8", ["trace", "NULL", "NULL"]),
    ]);
}

#[test]
fn arithmetic() {
    check(&[
        ("1 + 2 * 3", "int64", ["7", "7", "7"]),
        ("(1 + 2) * 3", "int64", ["9", "9", "9"]),
        ("status + 1", "int64", ["201", "405", "NULL"]),
        ("status / 100", "int64", ["2", "4", "NULL"]),
        ("status % 100", "int64", ["0", "4", "NULL"]),
        ("status / 100.0", "float64", ["2.0", "4.04", "NULL"]),
        ("-status", "int64", ["-200", "-404", "NULL"]),
        ("-price", "float64", ["-1.5", "NULL", "2.0"]),
        ("-byte", "int64", ["0", "-7", "-255"]),
        ("small * price", "float64", ["1.5", "NULL", "-6.0"]),
        ("small - status", "int64", ["-199", "-402", "NULL"]),
        ("byte + 1", "int64", ["1", "8", "256"]),
        ("amount * 2", "decimal(31,2)", ["21.00", "-0.02", "NULL"]),
        ("null + 1", "int64", ["NULL", "NULL", "NULL"]),
        ("1 / 0.0", "float64", ["inf", "inf", "inf"]),
        ("any + 1", "int64", ["13", "13", "NULL"]),
        ("any + any", "float64", ["24.0", "24.0", "NULL"]),
        ("-any", "float64", ["-12.0", "-12.0", "NULL"]),
        (
            "at + '1 day'",
            "timestamp_ms",
            ["2024-03-01T23:59:58.123Z", "1970-01-02T00:00:00Z", "NULL"],
        ),
        (
            "day - '1 month'",
            "date32",
            ["2024-01-29", "1969-12-01", "NULL"],
        ),
        (
            "at - cast('1 hour' as interval)",
            "timestamp_ms",
            ["2024-02-29T22:59:58.123Z", "1969-12-31T23:00:00Z", "NULL"],
        ),
    ]);
}

#[test]
fn comparisons() {
    check(&[
        ("status = 200", "boolean", ["true", "false", "NULL"]),
        ("status <> 200", "boolean", ["false", "true", "NULL"]),
        ("status < 404", "boolean", ["true", "false", "NULL"]),
        ("status <= 404", "boolean", ["true", "true", "NULL"]),
        ("status > 200", "boolean", ["false", "true", "NULL"]),
        ("404 >= status", "boolean", ["true", "true", "NULL"]),
        ("status = 200.0", "boolean", ["true", "false", "NULL"]),
        ("status < 200.5", "boolean", ["true", "false", "NULL"]),
        ("small = 2", "boolean", ["false", "true", "false"]),
        ("small < 5000000000", "boolean", ["true", "true", "true"]),
        ("byte = -1", "boolean", ["false", "false", "false"]),
        ("amount = 10.5", "boolean", ["true", "false", "NULL"]),
        ("amount < 10.505", "boolean", ["true", "true", "NULL"]),
        ("price > small", "boolean", ["true", "NULL", "false"]),
        ("name = 'Ann'", "boolean", ["true", "false", "NULL"]),
        ("name < 'b'", "boolean", ["true", "false", "NULL"]),
        ("name = null", "boolean", ["NULL", "NULL", "NULL"]),
        ("status = '200'", "boolean", ["true", "false", "NULL"]),
        ("at > '2024-01-01'", "boolean", ["true", "false", "NULL"]),
        (
            "at = '1970-01-01T01:00:00+01:00'",
            "boolean",
            ["false", "true", "NULL"],
        ),
        ("day = '2024-02-29'", "boolean", ["true", "false", "NULL"]),
        ("at > day", "boolean", ["true", "false", "NULL"]),
        ("ok = true", "boolean", ["true", "false", "NULL"]),
        ("any = 12", "boolean", ["true", "true", "NULL"]),
        ("any = '12'", "boolean", ["true", "true", "NULL"]),
        ("any = small", "boolean", ["false", "false", "NULL"]),
        ("any < 9", "boolean", ["false", "false", "NULL"]),
        (
            "status between 200 and 300",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "status not between 200 and 300",
            "boolean",
            ["false", "true", "NULL"],
        ),
        (
            "status between 100 and null",
            "boolean",
            ["NULL", "NULL", "NULL"],
        ),
        (
            "day between '2024-01-01' and '2024-12-31'",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "status in (200, 404.0)",
            "boolean",
            ["true", "true", "NULL"],
        ),
        ("status in (1, null)", "boolean", ["NULL", "NULL", "NULL"]),
        ("status not in (200)", "boolean", ["false", "true", "NULL"]),
        (
            "status in (small, 200)",
            "boolean",
            ["true", "false", "NULL"],
        ),
        ("name in ('Ann', 'x')", "boolean", ["true", "false", "NULL"]),
        ("any in (12, 'x')", "boolean", ["true", "true", "NULL"]),
        ("@topic = 't1'", "boolean", ["true", "true", "false"]),
        (
            "@timestamp >= '2024-02-29'",
            "boolean",
            ["true", "NULL", "false"],
        ),
    ]);
}

#[test]
fn logic() {
    check(&[
        ("ok and true", "boolean", ["true", "false", "NULL"]),
        ("ok and false", "boolean", ["false", "false", "false"]),
        ("ok or true", "boolean", ["true", "true", "true"]),
        ("ok or null", "boolean", ["true", "NULL", "NULL"]),
        ("not ok", "boolean", ["false", "true", "NULL"]),
        ("not ok or ok and ok", "boolean", ["true", "true", "NULL"]),
        (
            "(not ok or ok) and ok",
            "boolean",
            ["true", "false", "NULL"],
        ),
        ("ok is true", "boolean", ["true", "false", "false"]),
        ("ok is not true", "boolean", ["false", "true", "true"]),
        ("ok is false", "boolean", ["false", "true", "false"]),
        ("ok is null", "boolean", ["false", "false", "true"]),
        ("name is not null", "boolean", ["true", "true", "false"]),
        ("word is null", "boolean", ["false", "false", "true"]),
        ("any is null", "boolean", ["false", "false", "true"]),
        (
            "small = 1 or small = 2 or small = 3 or small = 4",
            "boolean",
            ["true", "true", "true"],
        ),
        (
            "small > 0 and small > 1 and small > 2",
            "boolean",
            ["false", "false", "true"],
        ),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("name like 'A%'", "boolean", ["true", "false", "NULL"]),
        ("name not like '%b_'", "boolean", ["true", "false", "NULL"]),
        ("name ilike 'a%'", "boolean", ["true", "false", "NULL"]),
        (
            "name like '%!%' escape '!'",
            "boolean",
            ["false", "true", "NULL"],
        ),
        ("name like '%\\%'", "boolean", ["false", "true", "NULL"]),
        (
            "'a\\b' like 'a\\b' escape '!'",
            "boolean",
            ["true", "true", "true"],
        ),
        ("name like null", "boolean", ["NULL", "NULL", "NULL"]),
        ("name like name", "boolean", ["true", "true", "NULL"]),
        ("name ~ '^[A-Z]'", "boolean", ["true", "false", "NULL"]),
        ("name !~ 'o'", "boolean", ["true", "false", "NULL"]),
        ("name || '!' || small", "utf8", ["Ann!1", "bob%!2", "NULL"]),
        ("word || ''", "utf8", ["héllo \"x\"", "true", "NULL"]),
        ("word like 'h_llo%'", "boolean", ["true", "false", "NULL"]),
        ("any || 'x'", "utf8", ["12x", "12x", "NULL"]),
    ]);
}

#[test]
fn nested_values() {
    check(&[
        ("user.id", "utf8", ["u1", "u2", "NULL"]),
        ("user.age + 1", "int64", ["31", "NULL", "NULL"]),
        ("tags[0]", "utf8", ["a", "NULL", "NULL"]),
        ("tags[1]", "utf8", ["b", "NULL", "NULL"]),
        ("points[0].x", "int64", ["10", "20", "NULL"]),
        ("points[1].x", "int64", ["NULL", "21", "NULL"]),
        ("pair[1]", "int64", ["2", "NULL", "6"]),
        ("pair[2]", "int64", ["NULL", "NULL", "NULL"]),
        ("user.more", "json", ["{\"k\":\"v\"}", "[]", "NULL"]),
        ("user.more.z", "json", ["NULL", "NULL", "NULL"]),
        // A separate column, which has the longest path.
        ("user.more.k", "int64", ["7", "8", "9"]),
    ]);
}

#[test]
fn json_values() {
    check(&[
        ("deep.a", "json", ["[1,{\"b\":\"x\"}]", "\"text\"", "NULL"]),
        ("deep.a[0]", "json", ["1", "NULL", "NULL"]),
        ("deep.a[1].b", "json", ["\"x\"", "NULL", "NULL"]),
        ("deep.a[1].b = 'x'", "boolean", ["true", "NULL", "NULL"]),
        ("deep.a[0] = 1", "boolean", ["true", "NULL", "NULL"]),
        ("deep.n", "json", ["NULL", "NULL", "NULL"]),
        ("@headers.h", "utf8", ["h", "NULL", "NULL"]),
        ("cast(any as bigint)", "int64", ["12", "12", "NULL"]),
        ("any::text", "utf8", ["12", "12", "NULL"]),
        ("cast(any as json)", "json", ["\"12\"", "12", "NULL"]),
        (
            "try_cast(word as boolean)",
            "boolean",
            ["NULL", "true", "NULL"],
        ),
        ("upper(word)", "utf8", ["HÉLLO \"X\"", "TRUE", "NULL"]),
        ("round(any)", "float64", ["12.0", "12.0", "NULL"]),
        ("coalesce(any, word)", "json", ["\"12\"", "12", "null"]),
        ("coalesce(any, 'none')", "utf8", ["12", "12", "none"]),
        (
            "case when ok then any end",
            "json",
            ["\"12\"", "NULL", "NULL"],
        ),
        (
            "case any when 12 then 'yes' else 'no' end",
            "utf8",
            ["yes", "yes", "no"],
        ),
    ]);
}

#[test]
fn casts() {
    check(&[
        ("cast(status as text)", "utf8", ["200", "404", "NULL"]),
        ("status::double", "float64", ["200.0", "404.0", "NULL"]),
        ("cast('12' as int)", "int32", ["12", "12", "12"]),
        ("try_cast(name as int)", "int32", ["NULL", "NULL", "NULL"]),
        ("try_cast('x' as int)", "int32", ["NULL", "NULL", "NULL"]),
        ("try_cast(big as int)", "int32", ["NULL", "NULL", "0"]),
        (
            "cast(price as decimal(10,1))",
            "decimal(10,1)",
            ["1.5", "NULL", "-2.0"],
        ),
        (
            "cast(day as timestamp)",
            "timestamp_us",
            ["2024-02-29T00:00:00Z", "1970-01-01T00:00:00Z", "NULL"],
        ),
        (
            "cast(at as date)",
            "date32",
            ["2024-02-29", "1970-01-01", "NULL"],
        ),
        (
            "date '2024-02-29'",
            "date32",
            ["2024-02-29", "2024-02-29", "2024-02-29"],
        ),
        (
            "timestamp '2024-02-29 01:02:03'",
            "timestamp_us",
            [
                "2024-02-29T01:02:03Z",
                "2024-02-29T01:02:03Z",
                "2024-02-29T01:02:03Z",
            ],
        ),
        ("cast(null as bigint)", "int64", ["NULL", "NULL", "NULL"]),
        ("cast(ok as int)", "int32", ["1", "0", "NULL"]),
        ("cast(raw as text)", "utf8", ["ab", "NULL", ""]),
    ]);
}

#[test]
fn cases() {
    check(&[
        (
            "case when status < 300 then 'ok' when status < 500 then 'client' else 'none' end",
            "utf8",
            ["ok", "client", "none"],
        ),
        (
            "case status when 200 then 1 when 404 then 2 end",
            "int64",
            ["1", "2", "NULL"],
        ),
        (
            "case small when 1 then status else 0 end",
            "int64",
            ["200", "0", "0"],
        ),
        (
            "case small when 1 then 1 when 2 then 1.5 end",
            "float64",
            ["1.0", "1.5", "NULL"],
        ),
        (
            "case when ok then day else '2020-01-01' end",
            "date32",
            ["2024-02-29", "2020-01-01", "2020-01-01"],
        ),
        (
            "case when ok then status else 'none' end",
            "utf8",
            ["200", "none", "none"],
        ),
        (
            "case when ok then null else null end",
            "null",
            ["NULL", "NULL", "NULL"],
        ),
        // Only the selected branch is evaluated.
        (
            "case when byte = 0 then 0 else 10 / byte end",
            "int64",
            ["0", "1", "0"],
        ),
        ("coalesce(status, small)", "int64", ["200", "404", "3"]),
        ("coalesce(small, 0)", "int32", ["1", "2", "3"]),
        ("coalesce(null, null)", "null", ["NULL", "NULL", "NULL"]),
        ("coalesce(name)", "utf8", ["Ann", "bob%", "NULL"]),
        ("ifnull(name, '-')", "utf8", ["Ann", "bob%", "-"]),
        ("nvl(status, -1)", "int64", ["200", "404", "-1"]),
        (
            "nvl2(status, 'some', 'none')",
            "utf8",
            ["some", "some", "none"],
        ),
        ("if(ok, 1, 2)", "int64", ["1", "2", "2"]),
        ("nullif(small, 2)", "int32", ["1", "NULL", "3"]),
        ("nullif(any, '12')", "json", ["NULL", "NULL", "NULL"]),
    ]);
}

#[test]
fn functions() {
    check(&[
        ("LOWER(name)", "utf8", ["ann", "bob%", "NULL"]),
        ("length(name)", "int32", ["3", "4", "NULL"]),
        ("substr(name, 2)", "utf8", ["nn", "ob%", "NULL"]),
        ("substring(name, 1, 2)", "utf8", ["An", "bo", "NULL"]),
        ("split_part('a,b', ',', 2)", "utf8", ["b", "b", "b"]),
        ("trim('  x ')", "utf8", ["x", "x", "x"]),
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
        ("abs(small - 3)", "int64", ["2", "1", "0"]),
        ("round(price)", "float64", ["2.0", "NULL", "-2.0"]),
        ("ceiling(price)", "float64", ["2.0", "NULL", "-2.0"]),
        ("power(small, 2)", "float64", ["1.0", "4.0", "9.0"]),
        ("greatest(small, 2)", "int64", ["2", "2", "3"]),
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
        (
            "random() >= 0 and random() < 1",
            "boolean",
            ["true", "true", "true"],
        ),
        ("length(uuid())", "int32", ["36", "36", "36"]),
    ]);
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
        ("any = 12 and word > 3", "Cannot cast string 'héllo \"x\"'"),
        ("word = true", "Boolean"),
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
fn each_used_column_is_an_input_once() {
    use pseidon_dsl::expr::Meta;
    use pseidon_expr::Input;
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
fn volatile_functions_are_not_deterministic() {
    for text in [
        "now()",
        "random() < 0.5",
        "uuid()",
        "current_date()",
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
fn an_expression_is_named_by_its_text() {
    for text in ["status", "geo.city", "lower(name)", "status + 1"] {
        assert_eq!(compiled(text).unwrap().field().name(), text);
    }
}

#[test]
fn random_values_differ_and_now_is_constant_within_a_batch() {
    let values = shown(&evaluate(&compiled("random()").unwrap()).unwrap());
    assert!(values[0] != values[1] && values[1] != values[2]);
    let values = shown(&evaluate(&compiled("now()").unwrap()).unwrap());
    assert!(values[0] == values[1] && values[1] == values[2]);
}

#[test]
fn no_rows_return_no_values() {
    for text in ["1", "now()", "random()", "lower('X')"] {
        let values = compiled(text).unwrap().evaluate(Vec::new(), 0).unwrap();
        assert_eq!(values.len(), 0, "{text}");
    }
}

/// The parser accepts up to 256 levels. They fit in the stack of a normal thread, even in a debug
/// build.
#[test]
fn the_deepest_expressions_can_be_evaluated() {
    let chain = vec!["small > 0"; 250].join(" and ");
    let sum = vec!["small"; 250].join(" + ");
    let nested = format!("{}ok{}", "not (".repeat(60), ")".repeat(60));
    let cases = format!("{}ok{}", "case when ok then ".repeat(60), " end".repeat(60));
    let calls = format!("{}name{}", "lower(".repeat(60), ")".repeat(60));
    check(&[
        (&chain, "boolean", ["true", "true", "true"]),
        (&sum, "int32", ["250", "500", "750"]),
        (&nested, "boolean", ["true", "false", "NULL"]),
        (&cases, "boolean", ["true", "NULL", "NULL"]),
        (&calls, "utf8", ["ann", "bob%", "NULL"]),
    ]);
}
