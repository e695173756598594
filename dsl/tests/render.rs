//! The rendering of errors.

use pseidon_dsl::diagnostic::{MAX_SHOWN, render};
use pseidon_dsl::document::from_edn;
use pseidon_dsl::expr;
use pseidon_dsl::printable::is_printable;
use pseidon_dsl::{Diagnostic, NodeKind, Span, edn};

#[test]
fn errors_in_a_file() {
    let text = "{:nam \"x\"\n a 5\n pipeline (-> a)}\n";
    let errors = from_edn(text).expect_err("two errors");
    let expected = r#"  × unknown key `:nam`
   ╭─[demo.edn:1:2]
 1 │ {:nam "x"
   ·  ──┬─
   ·    ╰── expected one of :name, :settings, :include, :expressions, :tests
 2 │  a 5
   ╰────
  help: did you mean `:name`?

  × `a` must be a stage or a flow
   ╭─[demo.edn:2:4]
 1 │ {:nam "x"
 2 │  a 5
   ·    ┬
   ·    ╰── expected (plugin …) or (-> …), found a number
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
    let long = format!(
        "{}\r\n{}\n\n{}",
        "é".repeat(700),
        "b".repeat(900),
        "ü".repeat(600)
    );
    for text in ["", "a", "é\n", "a\tb\r\nc", &long] {
        let spans = [(0, 0), (0, 1), (1, 1), (1, 2), (3, 2), (100, 200)];
        let far = [
            (0, 5000),
            (1399, 1403),
            (1401, 1402),
            (1500, 3000),
            (2302, 2303),
            (3503, 3504),
        ];
        for (start, end) in spans.into_iter().chain(far) {
            let error = Diagnostic::new(Span::new(start, end), "wrong", "here");
            assert!(
                render("x", text, &[error], false).contains("wrong"),
                "{text:?} {start}..{end}"
            );
        }
    }
}

#[test]
fn a_long_line_is_cut_around_the_label() {
    let before = "a".repeat(70_000);
    let text = format!("{{:name \"x\"\n src (files \"{before}\") pipeline (-> src (sdtout))}}\n");
    let start = text.find("sdtout").unwrap();
    let span = Span::new(start, start + 6);
    let shown = render(
        "demo.edn",
        &text,
        &[Diagnostic::new(span, "unknown", "here")],
        false,
    );
    let column = start - text.find('\n').unwrap();
    assert!(shown.contains(&format!("demo.edn:2:{column}")), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains("sdtout"))
        .unwrap();
    assert!(lines[at].chars().count() < 150, "{shown}");
    assert!(lines[at].contains('…'), "{shown}");
    let underline = lines[at + 1].chars().position(|c| c == '─').unwrap();
    let marked: String = lines[at].chars().skip(underline).take(6).collect();
    assert_eq!(marked, "sdtout", "{shown}");
}

/// A generated file can have an error in each of its keys, all of them on one line.
#[test]
fn many_errors_are_answered_briefly() {
    let keys: Vec<String> = (0..16_000).map(|key| format!(":wrong{key} 1")).collect();
    let text = format!("{{{} pipeline (-> (stdin) (stdout))}}", keys.join(" "));
    let errors = from_edn(&text).expect_err("wrong keys");
    assert_eq!(errors.len(), 16_000);
    let shown = render("demo.edn", &text, &errors, false);
    assert_eq!(shown.matches("× unknown key").count(), MAX_SHOWN);
    assert!(shown.ends_with("\nand 15980 more\n"), "{shown}");
    assert!(shown.len() < 16 << 10, "{} bytes", shown.len());
    assert_eq!(
        render("demo.edn", &text, &errors[..20], false) + "and 15980 more\n",
        shown
    );
}

#[test]
fn control_characters_of_a_file_are_escaped() {
    let text = "{:name \"\u{1b}]0;title\u{7}\u{202e}\" src (sdtin)\r\n\u{9b}2J}";
    let at = text.find("sdtin").unwrap();
    let error = Diagnostic::new(Span::new(at, at + 5), "unknown \u{1b}[2J", "a\u{7}\nb")
        .with_help("use\n\u{202e}this");
    let shown = render("de\u{1b}mo.edn", text, &[error], false);
    assert!(
        shown.chars().all(|c| c == '\n' || is_printable(c)),
        "{shown:?}"
    );
    for part in [
        "de\\u{1b}mo.edn:1:29",
        "\\u{1b}]0;title\\u{7}\\u{202e}",
        "unknown \\u{1b}[2J",
        "\\u{202e}this",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let lines: Vec<&str> = shown.lines().collect();
    let at = lines.iter().position(|line| line.contains("sdtin"));
    let at = at.expect("the line");
    let underline = lines[at + 1].chars().position(|c| c == '─').unwrap();
    let marked: String = lines[at].chars().skip(underline).take(5).collect();
    assert_eq!(marked, "sdtin", "{shown}");
}
