//! The EDN reader: values, source positions and errors.

use pseidon_dsl::node::{Substitute, Text};
use pseidon_dsl::{NodeKind, Span, edn, print};

/// Reads a text and prints the value.
fn reprinted(text: &str) -> String {
    match edn::read(text) {
        Ok(node) => print::print(&node),
        Err(errors) => panic!("{text}: {errors:?}"),
    }
}

/// Each error as `underlined text: message; label`.
fn errors(text: &str) -> Vec<String> {
    let errors = edn::read(text).expect_err(text);
    let shown = errors.iter().map(|error| {
        let underlined = &text[error.span.start as usize..error.span.end as usize];
        format!("{underlined}: {}; {}", error.message, error.label)
    });
    shown.collect()
}

/// Texts, and how their values are printed. Nothing is printed for an invalid text.
const VALUES: &[(&str, &str)] = &[
    ("nil", "nil"),
    (" true ", "true"),
    ("false", "false"),
    ("0", "0"),
    ("-0", "0"),
    ("+12", "12"),
    ("-9223372036854775808", "-9223372036854775808"),
    ("9223372036854775808", "9223372036854775808"),
    ("12N", "12N"),
    ("+12N", "12N"),
    ("1.0", "1.0"),
    ("-1.5e3", "-1500.0"),
    ("2E-10", "2e-10"),
    ("1e300", "1e300"),
    ("1M", "1M"),
    ("-1.50M", "-1.50M"),
    ("1e5M", "1e5M"),
    ("\\a", "\\a"),
    ("\\newline", "\\newline"),
    (
        "[\\space \\tab \\return \\formfeed \\backspace]",
        "[\\space \\tab \\return \\formfeed \\backspace]",
    ),
    ("\\u0041", "\\A"),
    ("\\u0000", "\\u0000"),
    ("\\u", "\\u"),
    ("\\\\", "\\\\"),
    ("[\\( \\\" \\; \\{ 1]", "[\\( \\\" \\; \\{ 1]"),
    ("\"a b\"", "\"a b\""),
    (r#""\t\r\n\b\f\\\"""#, r#""\t\r\n\b\f\\\"""#),
    (r#""\u0041\u00e9\uD83D\uDE00""#, "\"Aé😀\""),
    ("\"\u{1}\"", "\"\\u0001\""),
    (
        "\"; no comment, [no vector\"",
        "\"; no comment, [no vector\"",
    ),
    ("kafka", "kafka"),
    ("some.space/name", "some.space/name"),
    (
        "[+ - -> ->> / */* <= a.b$c a:b a#b x' -a .b + ünï]",
        "[+ - -> ->> / */* <= a.b$c a:b a#b x' -a .b + ünï]",
    ),
    ("[nil? trueish true/false]", "[nil? trueish true/false]"),
    (":key", ":key"),
    ("[:a/b :a.b/c :-> :2xx :?]", "[:a/b :a.b/c :-> :2xx :?]"),
    ("()", "()"),
    ("(a (b) ())", "(a (b) ())"),
    ("[1,2,,3]", "[1 2 3]"),
    ("{:b 1 :a 2}", "{:b 1, :a 2}"),
    (
        "{[1 2] {:a nil} \"x\" #{1}}",
        "{[1 2] {:a nil}, \"x\" #{1}}",
    ),
    ("#{:b :a}", "#{:b :a}"),
    ("[1;]\n2]", "[1 2]"),
    ("[1 #_2 3]", "[1 3]"),
    ("[1 #_ #_ 2 3 4]", "[1 4]"),
    ("[1 #_(2 #_3)]", "[1]"),
    ("{:a 1 #_#_:b 2}", "{:a 1}"),
    ("[#_a]", "[]"),
    ("#_a b #_c", "b"),
    ("#my/tag [1]", "#my/tag [1]"),
    ("#a #b c", "#a #b c"),
    ("#a #_b c", "#a c"),
    (
        "#inst \"2024-01-31T12:30:00.123Z\"",
        "#inst \"2024-01-31T12:30:00.123Z\"",
    ),
    (
        "#inst \"2024-01-31T12:30:00+02:00\"",
        "#inst \"2024-01-31T12:30:00+02:00\"",
    ),
    (
        "#uuid \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
        "#uuid \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
    ),
    (r#"#r"a\"b\d+\\""#, r#"#r"a\"b\d+\\""#),
    ("a\"b\"", ""),
];

#[test]
fn values() {
    for &(text, expected) in VALUES {
        if expected.is_empty() {
            assert!(edn::read(text).is_err(), "{text}");
        } else {
            assert_eq!(reprinted(text), expected, "{text}");
            assert_eq!(
                reprinted(expected),
                expected,
                "printing and reading returns the same value"
            );
        }
    }
}

/// Invalid texts, and their errors as [`errors`] shows them.
const ERRORS: &[(&str, &[&str])] = &[
    ("", &[": the input is empty; expected a form such as { … }"]),
    (
        "; just this",
        &["; just this: the input is empty; expected a form such as { … }"],
    ),
    (
        "a b",
        &["b: expected only one form; a symbol after the first form"],
    ),
    (
        "[1 2",
        &["[: unclosed `[`; expected `]` before the end of the input"],
    ),
    (
        "#{1",
        &["#{: unclosed `#{`; expected `}` before the end of the input"],
    ),
    (
        "{:a [1 (2 }",
        &[
            "[: unclosed `[`; expected `]` before the next `}`",
            "(: unclosed `(`; expected `)` before the next `}`",
        ],
    ),
    ("[1)]", &["): unmatched `)`; no open delimiter matches it"]),
    ("}", &["}: unmatched `}`; no open delimiter matches it"]),
    ("[1 \"a", &["\": unclosed string; the string starts here"]),
    (
        "{:a 1 :b}",
        &[":b: a map consists of key-value pairs; this key has no value"],
    ),
    (
        "{:a 1 :b 2 :a 3}",
        &[":a: duplicate key `:a`; second occurrence"],
    ),
    (
        "{{:a 1} 1 {:a 1} 2}",
        &["{:a 1}: duplicate key `{:a 1}`; second occurrence"],
    ),
    (
        "#{1 2 1}",
        &["1: duplicate item `1` in a set; second occurrence"],
    ),
    (
        "012",
        &["012: `012` is not a number; a number cannot start with 0"],
    ),
    (
        "1.2.3",
        &["1.2.3: `1.2.3` is not a number; expected a number such as 12, 1.5, 12N or 1.5M"],
    ),
    (
        "1/2",
        &["1/2: `1/2` is not a number; expected a number such as 12, 1.5, 12N or 1.5M"],
    ),
    (
        "0x1F",
        &["0x1F: `0x1F` is not a number; expected a number such as 12, 1.5, 12N or 1.5M"],
    ),
    (
        "1e999",
        &["1e999: number too large; expected at most 1.7976931348623157e308"],
    ),
    (
        ":",
        &[":: `:` is not valid EDN; expected a keyword such as :name or :space/name"],
    ),
    (
        "::a",
        &["::a: `::a` is not valid EDN; expected a keyword such as :name or :space/name"],
    ),
    (
        "a/b/c",
        &["a/b/c: `a/b/c` is not valid EDN; expected a name such as kafka or some.space/name"],
    ),
    (
        "\\foo",
        &[
            "\\foo: `\\foo` is not valid EDN; expected a character such as \\a, \\newline, \
                \\space, \\tab or \\u0041",
        ],
    ),
    (
        "\\uD800",
        &["\\uD800: `\\uD800` is an unpaired surrogate; expected a complete character"],
    ),
    (
        r#""a\qb""#,
        &[r#"\q: unknown escape `\q`; expected \n \t \r \b \f \\ \" or \u with four hex digits"#],
    ),
    (
        r#""\uD83D x""#,
        &[
            r"\uD83D: `\uD83D` is an unpaired surrogate; expected a second `\u…` that completes the pair",
        ],
    ),
    (
        "#",
        &["#: `#` is not valid EDN; expected #{ … }, #_, #r\"…\", #inst or #uuid"],
    ),
    (
        "[#tag]",
        &["#tag: `#tag` has no value; expected a value after this"],
    ),
    (
        "[1 #_]",
        &["#_: `#_` has no form to discard; expected a form after this"],
    ),
    (
        "#inst \"2024-01-31\"",
        &[
            "inst \"2024-01-31\": invalid `#inst`; expected a timestamp such as \
                \"2024-01-31T12:30:00Z\"",
        ],
    ),
    (
        "#uuid \"1\"",
        &["uuid \"1\": invalid `#uuid`; expected a UUID such as \
                \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\""],
    ),
    (
        "'a'",
        &["': a string is written in double quotes here; expected `\"`"],
    ),
];

#[test]
fn errors_have_a_position_and_a_message() {
    for &(text, expected) in ERRORS {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn the_syntax_for_regular_expressions_of_clojure_is_corrected() {
    let clojure = edn::read("#\"a+\"").expect_err("Clojure's syntax");
    assert_eq!(clojure[0].help.as_deref(), Some("write #r\"a+\""));
}

#[test]
fn all_errors_are_found_at_once() {
    assert_eq!(errors("{:a 01 :b \"\\q\" :a 1 :c}").len(), 4);
}

#[test]
fn several_forms() {
    let forms = edn::read_all("a [b] ; c\n #_d \"e\"").expect("three forms");
    assert_eq!(
        forms.iter().map(print::print).collect::<Vec<_>>(),
        ["a", "[b]", "\"e\""]
    );
    assert!(edn::read_all("").expect("no form is valid").is_empty());
}

#[test]
fn positions_are_those_of_the_file() {
    let text = "[ab \"x\\n\\u0041y\" #t {:k v}]";
    let node = edn::read(text).expect("valid");
    let NodeKind::Vector(items) = node.kind else {
        panic!("a vector")
    };
    let texts: Vec<&str> = items
        .iter()
        .map(|item| &text[item.span.start as usize..item.span.end as usize])
        .collect();
    assert_eq!(texts, ["ab", "\"x\\n\\u0041y\"", "#t {:k v}"]);
    let NodeKind::Str(inner) = &items[1].kind else {
        panic!("a string")
    };
    assert_eq!(inner.value, "x\nAy");
    let places: Vec<&str> = (0..4)
        .map(|at| inner.span_of(at, at + 1))
        .map(|span| &text[span.start as usize..span.end as usize])
        .collect();
    assert_eq!(places, ["x", "\\n", "\\u0041", "y"]);
}

#[test]
fn single_quotes_in_a_string_inside_another_string() {
    let text = Text::plain("(where 'it''s' \"b\")", 100);
    let node = edn::read_quoted(&text).expect("valid");
    assert_eq!(print::print(&node), "(where \"it's\" \"b\")");
    assert_eq!(node.span, Span::new(100, 119));
    let NodeKind::List(items) = node.kind else {
        panic!("a list")
    };
    let NodeKind::Str(quoted) = &items[1].kind else {
        panic!("a string")
    };
    assert_eq!(quoted.span_of(2, 4), Span::new(110, 113));
    let errors = edn::read_quoted(&Text::plain("(a 'b)", 10)).expect_err("not closed");
    assert_eq!(errors[0].span, Span::new(13, 14));
}

#[test]
fn nesting_has_a_limit() {
    for (open, close) in [
        ("[", "]"),
        ("(", ")"),
        ("#{", "}"),
        ("{:a ", "}"),
        ("#t ", "x"),
        ("#_ ", ""),
        ("#_ #t ", "x"),
        ("#_ #_ a ", ""),
    ] {
        let deep = open.repeat(100_000);
        let errors = edn::read(&deep).expect_err("too deep");
        assert!(
            errors[0]
                .message
                .contains("nested too deeply (limit: 128 levels)"),
            "{open}: {:?}",
            errors[0]
        );
        let fine = format!("{}{}", open.repeat(60), close.repeat(60));
        if open.len() < 3 {
            edn::read(&fine).expect("60 levels are fine");
        }
    }
    let deepest = format!("{}{}", "[".repeat(128), "]".repeat(128));
    edn::read(&deepest).expect("128 levels are fine");
    let wide = format!("[{}]", "#_a [] #t [] ".repeat(10_000));
    edn::read(&wide).expect("wide is not deep");
}

#[test]
fn a_secret_is_not_printed() {
    let node = edn::read("{:password \"hunter2\"}").expect("valid");
    let NodeKind::Map(mut entries) = node.kind else {
        panic!("a map")
    };
    if let NodeKind::Str(text) = &mut entries[0].1.kind {
        text.filled.push(Substitute {
            start: 0,
            end: text.value.len() as u32,
            placeholder: "${env:PW}".into(),
        });
    }
    assert_eq!(print::print(&entries[0].1), "\"${env:PW}\"");
    assert!(!format!("{entries:?}").contains("hunter2"));
}
