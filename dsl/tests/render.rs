//! The rendering of errors.

use pseidon_dsl::diagnostic::render;
use pseidon_dsl::document::from_edn;
use pseidon_dsl::expr;
use pseidon_dsl::{Diagnostic, NodeKind, Span, edn};

#[test]
fn errors_in_a_file() {
    let text = "{:nam \"x\"\n a 5\n pipeline (-> a)}\n";
    let errors = from_edn(text).expect_err("two errors");
    let expected = r#"  × unknown key `:nam`
   ╭─[demo.edn:1:2]
 1 │ {:nam "x"
   ·  ──┬─
   ·    ╰── expected one of :name, :settings, :tests
 2 │  a 5
   ╰────
  help: did you mean `:name`?

  × `a` must be a stage
   ╭─[demo.edn:2:4]
 1 │ {:nam "x"
 2 │  a 5
   ·    ┬
   ·    ╰── expected (plugin …), found a number
 3 │  pipeline (-> a)}
   ╰────

"#;
    assert_eq!(render("demo.edn", text, &errors, false), expected);
    let reversed: Vec<Diagnostic> = errors.iter().rev().cloned().collect();
    assert_eq!(
        render("demo.edn", text, &reversed, false),
        expected,
        "errors are sorted by position"
    );
    assert!(render("demo.edn", text, &errors, true).contains("\u{1b}["));
}

#[test]
fn a_error_in_an_expression_is_shown_in_the_file() {
    let text = "{a (where \"status >= \\t 5 5\")}";
    let NodeKind::Map(entries) = edn::read(text).expect("valid").kind else {
        panic!("a map")
    };
    let NodeKind::List(items) = &entries[0].1.kind else {
        panic!("a list")
    };
    let NodeKind::Str(expression) = &items[1].kind else {
        panic!("a string")
    };
    let errors = expr::parse(expression).expect_err("two numbers");
    let expected = r#"  × unexpected `5`
   ╭─[demo.edn:1:27]
 1 │ {a (where "status >= \t 5 5")}
   ·                           ┬
   ·                           ╰── expected end of input or an operator
   ╰────

"#;
    assert_eq!(render("demo.edn", text, &errors, false), expected);
}

#[test]
fn any_span_can_be_rendered() {
    for text in ["", "a", "é\n", "a\tb\r\nc"] {
        for (start, end) in [(0, 0), (0, 1), (1, 1), (1, 2), (3, 2), (100, 200)] {
            let error = Diagnostic::new(Span { start, end }, "wrong", "here");
            assert!(
                render("x", text, &[error], false).contains("wrong"),
                "{text:?} {start}..{end}"
            );
        }
    }
}
