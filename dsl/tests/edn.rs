//! EDN: what is read, where it stands, and what is said of what cannot be read.

use pseidon_dsl::node::Text;
use pseidon_dsl::{NodeKind, Span, edn, print};

/// What is read, printed again.
fn reprinted(text: &str) -> String {
    match edn::read(text) {
        Ok(node) => print::print(&node),
        Err(mistakes) => panic!("{text}: {mistakes:?}"),
    }
}

/// Each mistake as `underlined text: message; label`.
fn mistakes(text: &str) -> Vec<String> {
    let mistakes = edn::read(text).expect_err(text);
    let shown = mistakes.iter().map(|mistake| {
        let underlined = &text[mistake.span.start as usize..mistake.span.end as usize];
        format!("{underlined}: {}; {}", mistake.message, mistake.label)
    });
    shown.collect()
}

#[test]
fn values() {
    let cases = [
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
    for (text, expected) in cases {
        if expected.is_empty() {
            assert!(edn::read(text).is_err(), "{text}");
        } else {
            assert_eq!(reprinted(text), expected, "{text}");
            assert_eq!(
                reprinted(expected),
                expected,
                "what is printed is read as the same"
            );
        }
    }
}

#[test]
fn mistakes_say_where_and_what() {
    let cases: [(&str, &[&str]); 31] = [
        (
            "",
            &[": there is nothing here; expected a form such as { … }"],
        ),
        (
            "; just this",
            &["; just this: there is nothing here; expected a form such as { … }"],
        ),
        (
            "a b",
            &["b: only one form may stand here; a symbol after the end of the first form"],
        ),
        (
            "[1 2",
            &["[: `[` is never closed; expected `]` before the end"],
        ),
        (
            "#{1",
            &["#{: `#{` is never closed; expected `}` before the end"],
        ),
        (
            "{:a [1 (2 }",
            &[
                "[: `[` is never closed; expected `]` before the next `}`",
                "(: `(` is never closed; expected `)` before the next `}`",
            ],
        ),
        (
            "[1)]",
            &["): `)` closes nothing; nothing is open that this could close"],
        ),
        (
            "}",
            &["}: `}` closes nothing; nothing is open that this could close"],
        ),
        (
            "[1 \"a",
            &["\": this text is never closed; the quote that begins it"],
        ),
        (
            "{:a 1 :b}",
            &[":b: a map holds pairs of a key and a value; this key has no value"],
        ),
        (
            "{:a 1 :b 2 :a 3}",
            &[":a: the key `:a` is there twice; this is the second one"],
        ),
        (
            "{{:a 1} 1 {:a 1} 2}",
            &["{:a 1}: the key `{:a 1}` is there twice; this is the second one"],
        ),
        (
            "#{1 2 1}",
            &["1: `1` is in this set twice; this is the second one"],
        ),
        (
            "012",
            &["012: `012` is not a number; a number does not begin with 0"],
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
            &["1e999: this number is too large; expected at most 1.7976931348623157e308"],
        ),
        (
            ":",
            &[":: `:` is not a form of EDN; expected a keyword such as :name or :space/name"],
        ),
        (
            "::a",
            &["::a: `::a` is not a form of EDN; expected a keyword such as :name or :space/name"],
        ),
        (
            "a/b/c",
            &[
                "a/b/c: `a/b/c` is not a form of EDN; expected a name such as kafka or some.space/name",
            ],
        ),
        (
            "\\foo",
            &[
                "\\foo: `\\foo` is not a form of EDN; expected a character such as \\a, \\newline, \\space, \\tab or \\u0041",
            ],
        ),
        (
            "\\uD800",
            &["\\uD800: `\\uD800` is half of a character; expected a whole one"],
        ),
        (
            r#""a\qb""#,
            &[
                r#"\q: `\q` is not an escape; expected \n \t \r \b \f \\ \" or \u with four hex digits"#,
            ],
        ),
        (
            r#""\uD83D x""#,
            &[
                r"\uD83D: `\uD83D` is half of a character; expected the other half as a second `\u…`",
            ],
        ),
        (
            "#",
            &["#: `#` is not a form of EDN; expected #{ … }, #_, #r\"…\", #inst or #uuid"],
        ),
        (
            "[#tag]",
            &["#tag: `#tag` stands before a value, but there is none; expected a value after this"],
        ),
        (
            "[1 #_]",
            &["#_: `#_` takes the next form away, but there is none; expected a form after this"],
        ),
        (
            "#inst \"2024-01-31\"",
            &[
                "inst \"2024-01-31\": this is not an `#inst`; expected a time such as \"2024-01-31T12:30:00Z\"",
            ],
        ),
        (
            "#uuid \"1\"",
            &[
                "uuid \"1\": this is not an `#uuid`; expected a text such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
            ],
        ),
        (
            "'a'",
            &["': a text stands in double quotes here; expected `\"`"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(mistakes(text), expected, "{text}");
    }
}

#[test]
fn regular_expressions_are_checked() {
    assert_eq!(
        mistakes("#r\"a(b\""),
        ["a(b: this is not a regular expression; unclosed group"]
    );
    let clojure = edn::read("#\"a+\"").expect_err("this is Clojure's form");
    assert_eq!(clojure[0].help.as_deref(), Some("write #r\"a+\""));
}

#[test]
fn all_mistakes_are_found_at_once() {
    assert_eq!(mistakes("{:a 01 :b \"\\q\" :a 1 :c}").len(), 4);
}

#[test]
fn several_forms() {
    let forms = edn::read_all("a [b] ; c\n #_d \"e\"").expect("three forms");
    assert_eq!(
        forms.iter().map(print::print).collect::<Vec<_>>(),
        ["a", "[b]", "\"e\""]
    );
    assert!(edn::read_all("").expect("no form is fine").is_empty());
}

#[test]
fn places_are_those_of_the_file() {
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
        panic!("a text")
    };
    assert_eq!(inner.value, "x\nAy");
    let places: Vec<&str> = (0..4)
        .map(|at| inner.span_of(at, at + 1))
        .map(|span| &text[span.start as usize..span.end as usize])
        .collect();
    assert_eq!(places, ["x", "\\n", "\\u0041", "y"]);
}

#[test]
fn single_quotes_in_a_text_that_is_part_of_another() {
    let text = Text::plain("(where 'it''s' \"b\")", 100);
    let node = edn::read_quoted(&text).expect("valid");
    assert_eq!(print::print(&node), "(where \"it's\" \"b\")");
    assert_eq!(node.span, Span::new(100, 119));
    let NodeKind::List(items) = node.kind else {
        panic!("a list")
    };
    let NodeKind::Str(quoted) = &items[1].kind else {
        panic!("a text")
    };
    assert_eq!(quoted.span_of(2, 4), Span::new(110, 113));
    let mistakes = edn::read_quoted(&Text::plain("(a 'b)", 10)).expect_err("not closed");
    assert_eq!(mistakes[0].span, Span::new(13, 14));
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
        let mistakes = edn::read(&deep).expect_err("too deep");
        assert!(
            mistakes[0].message.contains("nests more than 128 levels"),
            "{open}: {:?}",
            mistakes[0]
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
        text.secret = true;
    }
    assert_eq!(print::print(&entries[0].1), "\"…\"");
    assert!(!format!("{entries:?}").contains("hunter2"));
}
