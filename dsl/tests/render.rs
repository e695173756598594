//! How mistakes are shown.

use pseidon_dsl::diagnostic::render;
use pseidon_dsl::document::from_edn;
use pseidon_dsl::expr;
use pseidon_dsl::{Diagnostic, NodeKind, Span, edn};

#[test]
fn mistakes_in_a_file() {
    let text = "{:nam \"x\"\n a 5\n pipeline (-> a)}\n";
    let mistakes = from_edn(text).expect_err("two mistakes");
    let expected = r#"  × `:nam` is not known here
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
    assert_eq!(render("demo.edn", text, &mistakes, false), expected);
    let reversed: Vec<Diagnostic> = mistakes.iter().rev().cloned().collect();
    assert_eq!(
        render("demo.edn", text, &reversed, false),
        expected,
        "they are put into the order of the file"
    );
    assert!(render("demo.edn", text, &mistakes, true).contains("\u{1b}["));
}

#[test]
fn a_mistake_in_an_expression_is_shown_in_the_file() {
    let text = "{a (where \"status >= \\t 5 5\")}";
    let NodeKind::Map(entries) = edn::read(text).expect("valid").kind else {
        panic!("a map")
    };
    let NodeKind::List(items) = &entries[0].1.kind else {
        panic!("a list")
    };
    let NodeKind::Str(expression) = &items[1].kind else {
        panic!("a text")
    };
    let mistakes = expr::parse(expression).expect_err("two numbers");
    let expected = r#"  × `5` is not expected here
   ╭─[demo.edn:1:27]
 1 │ {a (where "status >= \t 5 5")}
   ·                           ┬
   ·                           ╰── expected the end or an operator
   ╰────

"#;
    assert_eq!(render("demo.edn", text, &mistakes, false), expected);
}

#[test]
fn any_place_can_be_shown() {
    for text in ["", "a", "é\n", "a\tb\r\nc"] {
        for (start, end) in [(0, 0), (0, 1), (1, 1), (1, 2), (3, 2), (100, 200)] {
            let mistake = Diagnostic::new(Span { start, end }, "wrong", "here");
            assert!(
                render("x", text, &[mistake], false).contains("wrong"),
                "{text:?} {start}..{end}"
            );
        }
    }
}
