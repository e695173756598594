//! The small languages inside strings: templates, sizes, durations and placeholders.

use std::time::Duration;

use pseidon_dsl::document::{from_edn, from_flow};
use pseidon_dsl::expr::SelectItem;
use pseidon_dsl::interpolate::LookupError;
use pseidon_dsl::node::Text;
use pseidon_dsl::template::{self, TemplatePart};
use pseidon_dsl::units::{duration, size};
use pseidon_dsl::{NodeKind, Span, edn, expr, interpolate, nearest};

fn shown_template(text: &str) -> String {
    let template = template::parse(&Text::plain(text, 0)).expect(text);
    let parts = template.parts.iter().map(|part| match part {
        TemplatePart::Literal(text) => format!("<{text}>"),
        TemplatePart::Value {
            expr,
            format: Some(format),
            ..
        } => format!("[{expr} | {format}]"),
        TemplatePart::Value {
            expr, format: None, ..
        } => format!("[{expr}]"),
    });
    parts.collect()
}

#[test]
fn templates() {
    let cases = [
        ("", ""),
        ("out", "<out>"),
        (
            "out/{@topic}/date={at:%Y-%m-%d}/hour={at:%H}",
            "<out/>[@topic]</date=>[at | %Y-%m-%d]</hour=>[at | %H]",
        ),
        ("{a}{b}", "[a][b]"),
        ("{{a}}", "<{a}>"),
        ("{{{a}}}", "<{>[a]<}>"),
        ("{a::date:%Y}", "[cast(a as date) | %Y]"),
        ("{a::int}", "[cast(a as int)]"),
        ("{coalesce(a, 'x:y}')}", "[coalesce(a, 'x:y}')]"),
        ("{\"a:b\":%H:%M}", "[\"a:b\" | %H:%M]"),
        ("{at:%%%-d %3f %:z}", "[at | %%%-d %3f %:z]"),
    ];
    for (text, expected) in cases {
        assert_eq!(shown_template(text), expected, "{text}");
    }
}

#[test]
fn errors_in_templates() {
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("a{b", &[("{", "unclosed `{`")]),
        ("a}b", &[("}", "unmatched `}`")]),
        ("a{}", &[("}", "this expression is empty")]),
        ("{a b}", &[("b", "unexpected `b`")]),
        ("{a:}", &[(":", "missing time format")]),
        ("{a:%Y-%Q}", &[("%Q", "unknown time format specifier `%Q`")]),
        ("{a:%}", &[("%", "unknown time format specifier `%`")]),
        (
            "{@topik}/{a +}/{b:%!}",
            &[
                ("@topik", "unknown metadata field `@topik`"),
                ("}", "unexpected end of input"),
                ("%!", "unknown time format specifier `%!`"),
            ],
        ),
    ];
    for (text, expected) in cases {
        let errors = template::parse(&Text::plain(text, 0)).expect_err(text);
        let shown: Vec<(&str, &str)> = errors
            .iter()
            .map(|error| {
                let (start, end) = (error.span.start as usize, error.span.end as usize);
                (&text[start..end.max(start + 1)], error.message.as_str())
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn positions_in_templates_after_escapes() {
    let source = r#""\u0061/{bad bad}""#;
    let NodeKind::Str(text) = edn::read(source).expect("a string").kind else {
        panic!("a string")
    };
    let errors = template::parse(&text).expect_err("two names");
    assert_eq!(errors[0].span, Span::new(13, 16));
    assert_eq!(&source[13..16], "bad");
}

#[test]
fn sizes() {
    let cases = [
        ("0", 0),
        ("1700", 1700),
        ("1B", 1),
        ("64k", 64_000),
        ("64 KB", 64_000),
        ("64KiB", 65_536),
        ("64Ki", 65_536),
        ("128MB", 128_000_000),
        ("128 mib", 134_217_728),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("2TB", 2_000_000_000_000),
        (" 1g ", 1_000_000_000),
        ("18446744073709551615", u64::MAX),
    ];
    for (text, expected) in cases {
        assert_eq!(size(text), Ok(expected), "{text}");
    }
    let wrong = [
        ("", "expected a size such as \"128MB\", found nothing"),
        (
            "MB",
            "`MB` does not start with a number; expected a size such as \"128MB\"",
        ),
        (
            "-1",
            "`-1` does not start with a number; expected a size such as \"128MB\"",
        ),
        (
            "1.MB",
            "`1.MB` does not start with a number; expected a size such as \"128MB\"",
        ),
        (
            "1..2",
            "`1..2` does not start with a number; expected a size such as \"128MB\"",
        ),
        (
            "1XB",
            "unknown unit `XB`; expected one of B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB",
        ),
        (
            "1MB2",
            "unknown unit `MB2`; expected one of B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB",
        ),
        ("18446744073709551616", "the value is too large"),
        ("128", "`128` has no unit; write \"128MB\", or \"128B\""),
        (
            "99999999999999999999999999999999999999999999",
            "the value is too large",
        ),
    ];
    for (text, expected) in wrong {
        assert_eq!(size(text).expect_err(text).to_string(), expected);
    }
}

#[test]
fn durations() {
    let cases = [
        ("250ms", 250),
        ("60s", 60_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1h 30m 5s", 5_405_000),
        ("1.5s", 1_500),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("0", 0),
    ];
    for (text, expected) in cases {
        assert_eq!(
            duration(text),
            Ok(Duration::from_millis(expected)),
            "{text}"
        );
    }
    assert_eq!(duration("5us"), Ok(Duration::from_micros(5)));
    let wrong = [
        (
            "",
            "expected a duration such as \"90s\" or \"1h30m\", found nothing",
        ),
        (
            "soon",
            "`soon` does not start with a number; expected a duration such as \"90s\" or \"1h30m\"",
        ),
        (
            "1h30",
            "missing unit after the last number; expected one of ns, us, ms, s, m, h, d, w",
        ),
        (
            "1h 5",
            "missing unit after the last number; expected one of ns, us, ms, s, m, h, d, w",
        ),
        (
            "1.h",
            "`1.h` does not start with a number; expected a duration such as \"90s\" or \"1h30m\"",
        ),
        (
            "1y",
            "unknown unit `y`; expected one of ns, us, ms, s, m, h, d, w",
        ),
        ("5 min", "unknown unit `min`; write `m`"),
        ("90 Seconds", "unknown unit `Seconds`; write `s`"),
        ("60", "`60` has no unit; write \"60s\", or \"60ms\""),
        ("999999999999d", "the value is too large"),
    ];
    for (text, expected) in wrong {
        assert_eq!(duration(text).expect_err(text).to_string(), expected);
    }
}

/// The lookup of the tests: `env:USER`, `env:LONG`, `file:/run/pw`.
fn lookup(kind: &str, arg: &str) -> Result<String, LookupError> {
    match (kind, arg) {
        ("env", "EMPTY") => Ok(String::new()),
        ("env", "USER") => Ok("me".to_owned()),
        ("env", "LONG") => Ok("x".repeat(100)),
        ("file", "/run/pw") => Ok("hunter2 ${env:USER}".to_owned()),
        ("env", _) => Err(LookupError::Unset("it is not set".to_owned())),
        _ => Err(LookupError::Failed(format!("unknown kind `{kind}`"))),
    }
}

fn filled(value: &str) -> Text {
    let mut node = edn::read(&format!("\"{value}\"")).expect("a string");
    interpolate::node(&mut node, &mut lookup).expect("valid names");
    let NodeKind::Str(text) = node.kind else {
        panic!("a string")
    };
    text
}

#[test]
fn substitution() {
    let cases = [
        ("plain", "plain", false),
        ("${env:USER}", "me", true),
        ("a ${env:USER} b ${env:USER}", "a me b me", true),
        (
            "redis://:${file:/run/pw}@host",
            "redis://:hunter2 ${env:USER}@host",
            true,
        ),
        (
            "$${env:USER} $ ${ ${x} ${year}-${1} $${HOME} ${env",
            "${env:USER} $ ${ ${x} ${year}-${1} ${HOME} ${env",
            false,
        ),
        ("cost: $5 ${1:2}", "cost: $5 ${1:2}", false),
        ("${env:USER:-you} ${env:NONE:-you}", "me you", true),
        ("${env:NONE:-a:b:9092}|${env:NONE:-}", "a:b:9092|", false),
        ("${env:EMPTY:-x}|${env:EMPTY}|", "x||", true),
    ];
    for (text, expected, secret) in cases {
        let text = filled(text);
        assert_eq!((text.value.as_str(), text.is_filled()), (expected, secret));
        assert!(!secret || !format!("{text:?}").contains("me"), "{text:?}");
    }
}

#[test]
fn what_is_like_a_variable_is_an_error() {
    for (text, place, help) in [
        ("a${HOME}/out", "${HOME}", "write `${env:HOME}`"),
        ("${ENV:IN}", "${ENV:IN}", "write `${env:IN}`"),
        ("${IN:-x}", "${IN:-x}", "write `${env:IN:-x}`"),
        ("x ${env:USER", "${env:USER", "add the `}`"),
        ("${env:IN:x}", "${env:IN:x}", "`${env:IN:-x}`"),
    ] {
        let mut node = edn::read(&format!("\"{text}\"")).expect("a string");
        let errors = interpolate::node(&mut node, &mut lookup).expect_err(text);
        let [error] = errors.as_slice() else {
            panic!("{text}: {errors:?}");
        };
        let (start, end) = (error.span.start as usize - 1, error.span.end as usize - 1);
        assert_eq!(&text[start..end], place, "{text}");
        let shown = error.help.as_deref().unwrap_or_default();
        assert!(shown.contains(help), "{text}: {shown}");
    }
}

#[test]
fn text_after_a_substituted_value_keeps_its_position() {
    let source = r#"\u0061 ${env:LONG}, \u0062 c"#;
    let text = filled(source);
    let place_of = |character| {
        let at = text.value.rfind(character).expect("it is there");
        let span = text.span_of(at, at + 1);
        (span.start as usize - 1, span.end as usize - 1)
    };
    assert_eq!(place_of('c'), (source.len() - 1, source.len()));
    assert_eq!(
        place_of('b'),
        (source.find("\\u0062").expect("there"), source.len() - 2)
    );
    assert_eq!(place_of('a'), (0, 6));
    let (start, end) = place_of('x');
    assert!(
        start >= 7 && end <= 18,
        "a long value stays within its placeholder: {start}..{end}"
    );
}

#[test]
fn substitution_in_a_document() {
    let text = r#"{:settings {:state "redis://${env:USER}"} a (kafka {:x ["${env:USER}"]}) b (b "${env:A}" "${env:A:-b}")
        pipeline (-> a (match "t" (c "${nix:B:-d}") :else (all (d "${env:USER}"))))}"#;
    let mut document = from_edn(text).expect("valid");
    let errors = interpolate::document(&mut document, &mut lookup).expect_err("two lookups fail");
    let shown: Vec<(&str, &str, &str)> = errors
        .iter()
        .map(|error| {
            (
                &text[error.span.start as usize..error.span.end as usize],
                error.message.as_str(),
                error.label.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("${env:A}", "cannot substitute `${env:A}`", "it is not set"),
            (
                "${nix:B:-d}",
                "cannot substitute `${nix:B:-d}`",
                "unknown kind `nix`"
            ),
        ]
    );
    let mut fine = from_flow("(-> (kafka {:password '${file:/run/pw}'}))").expect("valid");
    interpolate::document(&mut fine, &mut lookup).expect("known");
    assert!(!format!("{fine:?}").contains("hunter2"));
}

#[test]
fn a_substituted_value_is_not_in_an_error() {
    let expression = filled("a = ${file:/run/pw}");
    let template = filled("{${file:/run/pw}}");
    let errors = [
        expr::parse(&expression).expect_err("not an expression"),
        template::parse(&template).expect_err("not a template"),
    ]
    .concat();
    assert!(!format!("{errors:?}").contains("hunter2"), "{errors:?}");
}

#[test]
fn a_column_is_named_by_what_is_written() {
    let named = |text: &str| -> Vec<Option<String>> {
        let items = expr::parse_select(&filled(text)).expect(text);
        let name = |item: SelectItem| match item {
            SelectItem::Column { name, .. } => name.map(|(name, _)| name),
            SelectItem::All { .. } => panic!("a column"),
        };
        items.into_iter().map(name).collect()
    };
    let text = "concat('${env:USER}',  a), a, '${env:USER}' as b, a + 1, concat( '${env:USER}' )";
    assert_eq!(
        named(text),
        [
            Some("concat('${env:USER}', a)".to_owned()),
            Some("a".to_owned()),
            Some("b".to_owned()),
            None,
            Some("concat( '${env:USER}' )".to_owned()),
        ]
    );
    // It is the name of a field.
    assert_eq!(named("x.${env:USER}"), [Some("me".to_owned())]);
}

#[test]
fn the_nearest_name() {
    let names = ["brokers", "topic", "topics", "format", "start"];
    let cases = [
        ("broker", Some("brokers")),
        ("Brokers", Some("brokers")),
        ("borkers", Some("brokers")),
        ("topcs", Some("topics")),
        ("topic", Some("topic")),
        ("strat", Some("start")),
        ("compression", None),
        ("x", None),
        ("", None),
    ];
    for (name, expected) in cases {
        assert_eq!(nearest(name, names), expected, "{name}");
    }
}
