//! The parser and printer of SQL expressions. Printed expressions have only the required
//! parentheses.

use pseidon_dsl::Span;
use pseidon_dsl::expr::{
    ExprKind, SelectItem, parse, parse_assignments, parse_paths, parse_renamings, parse_select,
};
use pseidon_dsl::node::{Substitute, Text};

fn reprinted(text: &str) -> String {
    match parse(&Text::plain(text, 0)) {
        Ok(expr) => expr.to_string(),
        Err(errors) => panic!("{text}: {errors:?}"),
    }
}

/// Each error as `underlined text: message; label`.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(&Text::plain(text, 0)).expect_err(text);
    let shown = errors.iter().map(|error| {
        let underlined = &text[error.span.start as usize..error.span.end as usize];
        format!("{underlined}: {}; {}", error.message, error.label)
    });
    shown.collect()
}

#[test]
fn values() {
    let cases = [
        ("NULL", "null"),
        ("True", "true"),
        ("12", "12"),
        ("-12", "-12"),
        ("- 12", "-12"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551615", "18446744073709551615"),
        ("-(9223372036854775808)", "-(9223372036854775808)"),
        ("18446744073709551616.0", "18446744073709551616.0"),
        ("-123456789.987654321", "-123456789.987654321"),
        ("100.50", "100.5"),
        ("-99999999999999999999e1", "-1e21"),
        ("1.5", "1.5"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("1E-3", "0.001"),
        ("''", "''"),
        ("'it''s'", "'it''s'"),
        ("'\"'", "'\"'"),
        ("a", "a"),
        ("user.address[0].city", "user.address[0].city"),
        ("\"odd name\".x", "\"odd name\".x"),
        ("`odd name`.`x`", "\"odd name\".x"),
        ("\"a\"\"b\"", "\"a\"\"b\""),
        ("\"case\".end", "\"case\".end"),
        ("date", "date"),
        ("größe", "größe"),
        ("notes", "notes"),
        ("@topic", "@topic"),
        ("@headers.name", "@headers.name"),
        ("@headers.\"content-type\"", "@headers.\"content-type\""),
        ("@headers", "@headers"),
        ("Lower( a )", "lower(a)"),
        ("now()", "now()"),
        ("CURRENT_DATE", "current_date()"),
        ("current_date - 1", "current_date() - 1"),
        ("\"current_date\"", "\"current_date\""),
        ("a.current_time", "a.current_time"),
        ("coalesce(a, b, 'x')", "coalesce(a, b, 'x')"),
        ("left(a, 1)", "left(a, 1)"),
    ];
    for (text, expected) in cases {
        assert_eq!(reprinted(text), expected, "{text}");
        assert_eq!(reprinted(expected), expected, "{text}");
    }
}

/// Expressions, and how they are printed.
const PRECEDENCE: &[(&str, &str)] = &[
    ("a or b and c", "a or b and c"),
    ("(a or b) and c", "(a or b) and c"),
    ("not a and b", "not a and b"),
    ("not (a and b)", "not (a and b)"),
    ("not a = b", "not a = b"),
    ("(not a) = b", "(not a) = b"),
    ("a = not b", "a = (not b)"),
    ("not not a", "not not a"),
    ("a = b = c", "(a = b) = c"),
    ("a == b", "a = b"),
    ("a != b", "a <> b"),
    ("a<=b", "a <= b"),
    ("a ~ 'x' and b !~ 'y'", "a ~ 'x' and b !~ 'y'"),
    ("a + b || c", "a + b || c"),
    ("(a || b) + c", "(a || b) + c"),
    ("a || b = c", "a || b = c"),
    ("a - b - c", "a - b - c"),
    ("a - (b - c)", "a - (b - c)"),
    ("a + b * c % d / e", "a + b * c % d / e"),
    ("(a + b) * c", "(a + b) * c"),
    ("-a * b", "-a * b"),
    ("-(a * b)", "-(a * b)"),
    ("-a::int", "-cast(a as int)"),
    ("(-a)::int", "cast(-a as int)"),
    ("-5::text", "-cast(5 as text)"),
    ("- -5", "-(-5)"),
    ("-(5)", "-(5)"),
    ("a - -5", "a - -5"),
    ("a -5", "a - 5"),
    ("a::int::text", "cast(cast(a as int) as text)"),
    ("a is null or b is not true", "a is null or b is not true"),
    ("not a is null", "not a is null"),
    ("a = b is false", "(a = b) is false"),
    ("trim(both 'x' from a)", "btrim(a, 'x')"),
    ("TRIM(Leading b || 'x' FROM a)", "ltrim(a, b || 'x')"),
    ("trim(trailing ('x') from (a))", "rtrim(a, 'x')"),
    ("trim('x' from a)", "btrim(a, 'x')"),
    ("trim(both from a)", "btrim(a)"),
    ("trim (leading from a) = b", "ltrim(a) = b"),
    ("trim(both both from both)", "btrim(both, both)"),
    (
        "trim(both trim(leading from a) from b)",
        "btrim(b, ltrim(a))",
    ),
    ("trim(both)", "trim(both)"),
    ("trim(leading, 'x')", "trim(leading, 'x')"),
    ("trim(both.a)", "trim(both.a)"),
    ("trim(trailing || 'x')", "trim(trailing || 'x')"),
    ("trim(bothers)", "trim(bothers)"),
    ("substring(both from 2)", "substr(both, 2)"),
    ("a & b | c # d", "a & b | c # d"),
    ("a & (b | c)", "a & (b | c)"),
    ("a & b = c", "a & b = c"),
    ("a + 1 << b * 2", "a + 1 << b * 2"),
    ("a <<(b>>c)", "a << (b >> c)"),
    ("(a & b) + 1", "(a & b) + 1"),
    ("a || b & c", "a || b & c"),
    ("a < b >> c", "a < b >> c"),
    ("a between b & c and ~d", "a between b & c and ~d"),
    ("~a & ~b", "~a & ~b"),
    ("~a + 1", "~(a + 1)"),
    ("(~a) + 1", "(~a) + 1"),
    ("a + ~b + c", "a + (~(b + c))"),
    ("-~a * 2", "-(~(a * 2))"),
    ("~-a", "~-a"),
    ("~ -5", "~-5"),
    ("~~a", "~(~a)"),
    ("~(a & b)", "~(a & b)"),
    ("~a::int", "~cast(a as int)"),
    ("not ~a = b", "not ~a = b"),
    ("a ~ 'x' or ~b = 1", "a ~ 'x' or ~b = 1"),
    ("a between 1 and 2 and b", "a between 1 and 2 and b"),
    (
        "a not between b + 1 and -c || 'x' or d",
        "a not between b + 1 and -c || 'x' or d",
    ),
    ("a between (b = c) and d", "a between (b = c) and d"),
    ("a in (1, 2 + 3, b or c)", "a in (1, 2 + 3, b or c)"),
    ("a NOT IN (1)", "a not in (1)"),
    ("a like '%x' and b", "a like '%x' and b"),
    ("a not like 'x' || b", "a not like 'x' || b"),
    ("a ilike '!%' escape '!'", "a ilike '!%' escape '!'"),
    ("not a like 'x'", "not a like 'x'"),
    ("case when a then 1 end", "case when a then 1 end"),
    (
        "CASE x WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE c END || 'z'",
        "case x when 1 then 'a' when 2 then 'b' else c end || 'z'",
    ),
    (
        "case case when a then b end when c then d end",
        "case case when a then b end when c then d end",
    ),
    ("cast(a AS BigInt)", "cast(a as bigint)"),
    (
        "try_cast(a as decimal(10, 2))",
        "try_cast(a as decimal(10,2))",
    ),
    ("a::double  precision", "cast(a as double precision)"),
    (
        "a::timestamp(3) with  time zone",
        "cast(a as timestamp(3) with time zone)",
    ),
    ("a::timestamp and b", "cast(a as timestamp) and b"),
    (
        "a::character varying(10)",
        "cast(a as character varying(10))",
    ),
    ("date '2024-01-01'", "cast('2024-01-01' as date)"),
    (
        "at > TIMESTAMP '2024-01-01 00:00:00'",
        "at > cast('2024-01-01 00:00:00' as timestamp)",
    ),
    (
        "status < 500 and agent not like '%bot%'",
        "status < 500 and agent not like '%bot%'",
    ),
];

#[test]
fn precedence() {
    for &(text, expected) in PRECEDENCE {
        assert_eq!(reprinted(text), expected, "{text}");
        assert_eq!(reprinted(expected), expected, "{text}");
    }
}

#[test]
fn errors_have_a_position_and_a_message() {
    let cases = [
        ("", ": this expression is empty; expected an expression"),
        ("a +", ": unexpected end of input; expected a value"),
        (
            "a b",
            "b: unexpected `b`; expected end of input or an operator",
        ),
        ("a in ()", "): unexpected `)`; expected a value"),
        (
            "a in (1",
            ": unexpected end of input; expected an operator, `,` or `)`",
        ),
        ("f(a,)", "): unexpected `)`; expected a value"),
        (
            "a between 1 or 2",
            "or: unexpected `or`; expected an operator or `and`",
        ),
        (
            "a is 5",
            "5: unexpected `5`; expected `null`, `true`, `false` or `distinct from`",
        ),
        (
            "case when a then b",
            ": unexpected end of input; expected an operator, `else`, `end` or `when`",
        ),
        ("cast(a as )", "): unexpected `)`; expected a type"),
        ("a.", ": unexpected end of input; expected a name"),
        ("a[x]", "x: unexpected `x`; expected an integer"),
        (
            "a[4294967296]",
            "[4294967296]: index too large; expected at most 4294967295",
        ),
        (
            "1e999",
            "1e999: number too large; expected at most 1.7976931348623157e308",
        ),
        (
            "-1e999",
            "1e999: number too large; expected at most 1.7976931348623157e308",
        ),
        ("a = 'x", "': unclosed string; the string starts here"),
        ("\"x", "\": unclosed name; the name starts here"),
        ("12abc", "12abc: unexpected `12abc`; expected a value"),
        ("a and and b", "and: unexpected `and`; expected a value"),
        (
            "@topik",
            "@topik: unknown metadata field `@topik`; expected one of @topic, @partition, \
                @offset, @timestamp, @key, @headers",
        ),
        (
            "@topic.x",
            "x: `@topic` has no fields; only @headers has fields",
        ),
        (
            "a like 'x' escape 'ab'",
            "'ab': `escape` requires a single character; expected a string of one character",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(text), [expected], "{text}");
    }
    let help = parse(&Text::plain("@ofset > 1", 0)).expect_err("unknown metadata")[0]
        .help
        .clone();
    assert_eq!(help.as_deref(), Some("did you mean `@offset`?"));
    assert_eq!(errors("@a = 1e999 and @topic.x").len(), 3);
}

#[test]
fn errors_in_trim() {
    let cases = [
        (
            "trim(both 'x')",
            "): unexpected `)`; expected an operator or `from`",
        ),
        (
            "trim('x' from a for 2)",
            "trim('x' from a for 2): `trim` has no arguments with `in`, `from` or `for`; expected \
                arguments separated by commas",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn positions_are_those_of_the_file() {
    let expr = parse(&Text::plain(" a + lower(b)::int ", 100)).expect("valid");
    assert_eq!(expr.span, Span::new(101, 118));
    let ExprKind::Binary(left, _, right) = expr.kind else {
        panic!("a sum")
    };
    assert_eq!(left.span, Span::new(101, 102));
    let ExprKind::Cast { expr, to_span, .. } = right.kind else {
        panic!("a cast")
    };
    assert_eq!(
        (expr.span, to_span),
        (Span::new(105, 113), Span::new(115, 118))
    );
}

#[test]
fn select_items() {
    let shown = |text: &str| {
        let items = parse_select(&Text::plain(text, 0)).expect(text);
        let shown = items.into_iter().map(|item| match item {
            SelectItem::All { except, .. } => format!(
                "* {:?}",
                except
                    .iter()
                    .map(|(path, _)| path.to_string())
                    .collect::<Vec<_>>()
            ),
            SelectItem::Column { expr, name } => {
                format!("{expr} as {:?}", name.map(|(name, _)| name))
            }
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        shown("user.id as user, url, status, to_timestamp_millis(ts) as at"),
        [
            "user.id as Some(\"user\")",
            "url as Some(\"url\")",
            "status as Some(\"status\")",
            "to_timestamp_millis(ts) as Some(\"at\")"
        ]
    );
    assert_eq!(shown("*"), ["* []"]);
    assert_eq!(
        shown("* EXCEPT (a, b.c), a + 1"),
        ["* [\"a\", \"b.c\"]", "a + 1 as None"]
    );
    assert_eq!(
        shown("tags[0], a.b AS \"odd name\""),
        ["tags[0] as Some(\"tags\")", "a.b as Some(\"odd name\")"]
    );
    for wrong in ["", ",", "a,", "* except ()", "a as", "a as 1", "a b"] {
        parse_select(&Text::plain(wrong, 0)).expect_err(wrong);
    }
}

#[test]
fn edits() {
    let text = "kind = upper(type), \"odd name\".b=c = 1";
    let assignments = parse_assignments(&Text::plain(text, 100)).expect(text);
    let shown: Vec<_> = assignments
        .iter()
        .map(|item| format!("{} := {}", item.to.path, item.value))
        .collect();
    assert_eq!(shown, ["kind := upper(type)", "\"odd name\".b := c = 1"]);
    assert_eq!(assignments[1].to.span, Span::new(120, 132));

    let paths = parse_paths(&Text::plain("a, b.c ,`d`", 0)).expect("paths");
    let shown: Vec<_> = paths.iter().map(|place| place.path.to_string()).collect();
    assert_eq!(shown, ["a", "b.c", "d"]);
    assert_eq!(paths[1].span, Span::new(3, 6));

    let text = "usr as user, mail AS contact.mail";
    let renamings = parse_renamings(&Text::plain(text, 0)).expect(text);
    let shown: Vec<_> = renamings
        .iter()
        .map(|item| format!("{} -> {}", item.from.path, item.to.path))
        .collect();
    assert_eq!(shown, ["usr -> user", "mail -> contact.mail"]);

    for wrong in ["", "a", "a =", "= 1", "a = 1,", "a as b", "a + 1 = 2"] {
        parse_assignments(&Text::plain(wrong, 0)).expect_err(wrong);
    }
    for wrong in ["", ",", "a,", "a b", "a = 1", "upper(a)", "*"] {
        parse_paths(&Text::plain(wrong, 0)).expect_err(wrong);
    }
    for wrong in ["", "a", "a as", "a as b,", "a = b", "a as 1"] {
        parse_renamings(&Text::plain(wrong, 0)).expect_err(wrong);
    }
}

#[test]
fn nesting_has_a_limit() {
    let many = 5_000;
    let deep = [
        "(".repeat(100_000),
        "f(".repeat(100_000),
        "cast(".repeat(many),
        "case when ".repeat(many),
        "not ".repeat(many),
        "- ".repeat(many) + "a",
        format!("{}a", "not ".repeat(many)),
        format!("{}a", "a = not ".repeat(many)),
        "~".repeat(many) + "a",
        format!("{}a", "a + ~".repeat(many)),
        format!("{}a", "a * -~".repeat(many)),
        format!("{}a", "a + ".repeat(many)),
        format!("{}a", "a and ".repeat(many)),
        format!("a{}", "::int".repeat(many)),
        format!("a{}", " is null".repeat(many)),
        format!("a{}", " like b".repeat(many)),
    ];
    for text in deep {
        let errors = parse(&Text::plain(text.as_str(), 0)).expect_err("too deep");
        assert!(!errors.is_empty(), "{}", &text[..20]);
    }
    let fine = [
        format!("{}a{}", "(".repeat(64), ")".repeat(64)),
        format!("{}a", "a or ".repeat(250)),
        format!("{}a", "not a and ".repeat(250)),
        format!("{}a", "~a & ".repeat(250)),
    ];
    for text in fine {
        parse(&Text::plain(text, 0)).expect("not too deep");
    }
    // A malformed cast or `trim` must not be parsed twice on each level.
    for text in [
        format!("{}a{}", "cast(".repeat(60), ")".repeat(60)),
        format!("{}a{}", "trim(both ".repeat(60), ")".repeat(60)),
        format!("{}a", "trim(both from ".repeat(60)),
        format!("{}a{}", "trim(both (".repeat(30), "))".repeat(30)),
    ] {
        parse(&Text::plain(text, 0)).expect_err("missing types, `from` and `)`");
    }
}

#[test]
fn a_secret_is_not_in_an_error() {
    let text = Text {
        filled: vec![Substitute {
            start: 2,
            end: 9,
            placeholder: "${env:PW}".into(),
        }],
        ..Text::plain("a hunter2", 0)
    };
    let errors = parse(&text).expect_err("two values");
    assert!(!format!("{errors:?}").contains("hunter2"));
    assert_eq!(errors[0].span, Span::new(0, 9));
}

#[test]
fn integers_that_do_not_fit_in_64_bits() {
    let cases = [
        (
            "18446744073709551616",
            "18446744073709551616: integer too large; expected at most 18446744073709551615",
        ),
        (
            "-9223372036854775809",
            "-9223372036854775809: integer too small; expected at least -9223372036854775808",
        ),
        (
            "a > -100000000000000000000",
            "100000000000000000000: integer too large; expected at most 18446744073709551615",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(text), [expected], "{text}");
    }
    let errors = parse(&Text::plain("100000000000000000000", 0)).expect_err("too large");
    let help = errors[0].help.as_deref();
    assert_eq!(help, Some("for a float, write 1e20"));
}

#[test]
fn operators_of_other_languages_have_help() {
    for (text, help) in [
        ("a = 1 && b = 2", "write `and`"),
        ("!a", "write `not`"),
        (
            "a ^ 2",
            "write `power(x, y)`, or `x # y` for the exclusive or of bits",
        ),
        ("a ? 1 : 2", "write `case when … then … else … end`"),
    ] {
        let errors = parse(&Text::plain(text, 0)).unwrap_err();
        assert_eq!(errors[0].help.as_deref(), Some(help), "{text}");
    }
}
