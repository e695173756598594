//! Comments in SQL expressions.

use pseidon_dsl::Span;
use pseidon_dsl::expr::{SelectItem, parse, parse_select};
use pseidon_dsl::node::Text;

fn reprinted(text: &str) -> String {
    match parse(&Text::plain(text, 0)) {
        Ok(expr) => expr.to_string(),
        Err(errors) => panic!("{text}: {errors:?}"),
    }
}

/// Each error as `message; label`.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(&Text::plain(text, 0)).expect_err(text);
    let shown = errors.iter();
    shown
        .map(|error| format!("{}; {}", error.message, error.label))
        .collect()
}

#[test]
fn comments_are_skipped() {
    let cases = [
        ("a > 1 -- c", "a > 1"),
        ("a > 1--c", "a > 1"),
        ("-- it's\na -- (\r\n> 1", "a > 1"),
        ("a /* b * ' */ * /**/ 2 /* c */", "a * 2"),
        ("- -a", "-(-a)"),
        ("a - -1", "a - -1"),
        ("a - - -- b\n c", "a - -c"),
        ("'-- x' || '/* y */'", "'-- x' || '/* y */'"),
        ("coalesce(a, /* b, */ c -- d\n)", "coalesce(a, c)"),
        ("-- the “new” limit\u{a0}\na > 1 /* ‘x’ */", "a > 1"),
    ];
    for (text, printed) in cases {
        assert_eq!(reprinted(text), printed, "{text}");
    }
    assert_eq!(
        errors("a /* b"),
        ["unclosed comment; the comment starts here"]
    );
    assert_eq!(
        errors("-- don't match\ns = ‘x’"),
        ["`‘` is a quotation mark of typography; expected a straight quote"]
    );
    assert_eq!(
        errors("-- a"),
        ["unexpected end of input; expected a value"]
    );
    assert_eq!(
        errors("a b -- c"),
        ["unexpected `b`; expected end of input or an operator"]
    );
    let columns = parse_select(&Text::plain("a -- the key\n, b as c /* the value */", 0));
    let places: Vec<Span> = columns
        .unwrap()
        .iter()
        .map(|column| match column {
            SelectItem::Column { expr, .. } => expr.span,
            SelectItem::All { span, .. } => *span,
        })
        .collect();
    assert_eq!(
        places
            .iter()
            .map(|span| (span.start, span.end))
            .collect::<Vec<_>>(),
        [(0, 1), (15, 16)]
    );
}
