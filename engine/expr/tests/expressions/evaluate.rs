//! Values of operators, paths, casts and `case` for the three rows of the fixture.

use crate::fixture::check;

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
        ("any + 1", "json", ["13", "13", "NULL"]),
        ("any + any", "json", ["24", "24", "NULL"]),
        ("any + small", "json", ["13", "14", "NULL"]),
        ("any * 1.5", "float64", ["18.0", "18.0", "NULL"]),
        ("any % 5 = 2", "boolean", ["true", "true", "NULL"]),
        ("-any", "json", ["-12", "-12", "NULL"]),
        (
            "case when mixed ~ '^[0-9.]+$' then mixed + 1 end",
            "json",
            ["13.5", "9007199254740994", "NULL"],
        ),
        ("coalesce(any, 0)", "json", ["\"12\"", "12", "0"]),
        ("sign(price)", "float64", ["1.0", "NULL", "-1.0"]),
        // A constant NULL has a type too.
        (
            "case when ok then cast(null as text) end",
            "utf8",
            ["NULL", "NULL", "NULL"],
        ),
        (
            "coalesce(cast(null as double), null) + 1",
            "float64",
            ["NULL", "NULL", "NULL"],
        ),
        (
            "upper(nullif(cast(null as text), 'x'))",
            "utf8",
            ["NULL", "NULL", "NULL"],
        ),
        ("greatest(any, 3)", "json", ["\"12\"", "12", "3"]),
        ("least(any, 30, small)", "json", ["1", "2", "3"]),
        ("nullif(any, 13)", "json", ["\"12\"", "12", "NULL"]),
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
        ("@topic = 't1'", "boolean", ["true", "true", "false"]),
        (
            "@timestamp >= '2024-02-29'",
            "boolean",
            ["true", "NULL", "false"],
        ),
    ]);
}

#[test]
fn ranges_and_lists() {
    check(&[
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
        ("round(any)", "json", ["12", "12", "NULL"]),
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
fn comparing_a_json_value_is_never_an_error() {
    check(&[
        ("mixed > 12", "boolean", ["true", "true", "NULL"]),
        ("mixed = 12.5", "boolean", ["true", "false", "NULL"]),
        (
            "mixed between 12 and 13",
            "boolean",
            ["true", "false", "NULL"],
        ),
        ("mixed in (12, 12.5)", "boolean", ["true", "false", "NULL"]),
        ("mixed = 'abc'", "boolean", ["false", "false", "true"]),
        ("mixed like '%.5'", "boolean", ["true", "false", "false"]),
        ("mixed = true", "boolean", ["NULL", "NULL", "NULL"]),
        ("mixed > @timestamp", "boolean", ["NULL", "NULL", "NULL"]),
        ("mixed || ''", "utf8", ["12.5", "9007199254740993", "abc"]),
        (
            "case mixed when 12.5 then 'x' end",
            "utf8",
            ["x", "NULL", "NULL"],
        ),
        // Integers that a float does not represent are compared exactly.
        (
            "mixed = 9007199254740993",
            "boolean",
            ["false", "true", "NULL"],
        ),
        (
            "mixed = 9007199254740992",
            "boolean",
            ["false", "false", "NULL"],
        ),
        (
            "mixed = 9007199254740993::decimal(50, 2)",
            "boolean",
            ["false", "true", "NULL"],
        ),
        (
            "mixed = 9007199254740992::decimal(50, 2)",
            "boolean",
            ["false", "false", "NULL"],
        ),
        ("mixed = small", "boolean", ["false", "false", "NULL"]),
        ("mixed > big", "boolean", ["false", "true", "NULL"]),
        ("mixed > price", "boolean", ["true", "NULL", "NULL"]),
        ("mixed > amount", "boolean", ["true", "true", "NULL"]),
        // Two JSON numbers are compared as numbers, other pairs as strings.
        ("mixed > any", "boolean", ["true", "true", "NULL"]),
        ("mixed = mixed", "boolean", ["true", "true", "true"]),
        ("word < mixed", "boolean", ["false", "false", "NULL"]),
    ]);
}

#[test]
fn the_words_of_sql_between_arguments() {
    check(&[
        ("position('o' in name)", "int32", ["0", "2", "NULL"]),
        ("position('o' in (name))", "int32", ["0", "2", "NULL"]),
        (
            "position('o' in (lower(name) || 'o'))",
            "int32",
            ["4", "2", "NULL"],
        ),
        ("extract(year from at)", "int32", ["2024", "1970", "NULL"]),
        ("extract('year' from at)", "int32", ["2024", "1970", "NULL"]),
        ("substring(name from 2 for 1)", "utf8", ["n", "o", "NULL"]),
        ("substring(name from 2)", "utf8", ["nn", "ob%", "NULL"]),
        (
            "at + interval '1 hour'",
            "timestamp_ms",
            ["2024-03-01T00:59:58.123Z", "1970-01-01T01:00:00Z", "NULL"],
        ),
        ("name ~* 'ANN'", "boolean", ["true", "false", "NULL"]),
        ("name !~* 'ANN'", "boolean", ["false", "true", "NULL"]),
        (
            "status is distinct from 404",
            "boolean",
            ["true", "false", "true"],
        ),
        (
            "status is not distinct from null",
            "boolean",
            ["false", "false", "true"],
        ),
        (
            "mixed is distinct from 12.5",
            "boolean",
            ["false", "true", "true"],
        ),
    ]);
}
