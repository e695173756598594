//! Property tests: no input panics, errors can be rendered, and printed values parse to the same
//! value.

mod exprs;
mod includes;
mod nodes;
mod texts;

use std::sync::Arc;

use exprs::{any_expr, remove_positions};
use nodes::{any_node, without_positions};
use proptest::prelude::*;
use pseidon_dsl::diagnostic::render;
use pseidon_dsl::document::{NamedExpression, from_edn, from_flow, from_toml};
use pseidon_dsl::expr::NamedExpressions;
use pseidon_dsl::interpolate::LookupError;
use pseidon_dsl::node::Text;
use pseidon_dsl::{
    Diagnostic, Node, NodeKind, Span, edn, expr, interpolate, print, template, units,
};
use texts::{VALID, mutated, piece};

fn lookup(kind: &str, arg: &str) -> Result<String, LookupError> {
    if arg.len().is_multiple_of(2) {
        Ok(format!("{kind}\"é😀{arg}"))
    } else {
        Err(LookupError::Unset("no".to_owned()))
    }
}

/// Checks that all errors can be rendered and lie within the text.
fn check_errors<T>(text: &str, result: Result<T, Vec<Diagnostic>>) {
    let Err(errors) = result else { return };
    assert!(
        !errors.is_empty(),
        "a failure without a diagnostic: {text:?}"
    );
    for error in &errors {
        let (start, end) = (error.span.start as usize, error.span.end as usize);
        assert!(start <= end && end <= text.len(), "{error:?} in {text:?}");
    }
    render("file", text, errors.get(..20).unwrap_or(&errors), false);
}

/// An expression with calls of a named one, whose definition is the same text.
fn expand_in_itself(text: &str) {
    let body = Node {
        kind: NodeKind::Str(Text::plain(text, 0)),
        span: Span::new(0, text.len()),
    };
    let named = |name: &str, body: &Node| NamedExpression {
        name: name.to_owned(),
        name_span: Span::default(),
        parameters: vec![("x".to_owned(), Span::default())],
        body: body.clone(),
        included: false,
    };
    let twice = Node {
        kind: NodeKind::Str(Text::plain("x.y or f(f(x.z)) > 1", 0)),
        span: Span::default(),
    };
    let definitions = [named("f", &body), named("g", &twice)];
    let (names, errors) = NamedExpressions::new(&definitions, ["lower"]);
    if !errors.is_empty() {
        check_errors::<()>(text, Err(errors));
    }
    let calls = Text {
        names: Some(Arc::new(names)),
        ..Text::plain("g(a) and g(f(b))", 0)
    };
    if let Ok(expanded) = expr::parse(&calls) {
        let printed = expanded.to_string();
        let again = expr::parse(&Text::plain(printed.as_str(), 0));
        let again = again.unwrap_or_else(|errors| panic!("{text:?}: {printed}: {errors:?}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
    }
}

fn read_everything(text: &str) {
    expand_in_itself(text);
    let plain = Text::plain(text, 0);
    check_errors(text, edn::read_all(text));
    check_errors(text, edn::read_quoted(&plain));
    check_errors(text, from_edn(text));
    check_errors(text, from_toml(text));
    if let Ok(mut document) = from_flow(text) {
        check_errors(text, interpolate::document(&mut document, &mut lookup));
    }
    check_errors(text, expr::parse(&plain));
    check_errors(text, expr::parse_select(&plain));
    check_errors(text, expr::parse_assignments(&plain));
    check_errors(text, expr::parse_paths(&plain));
    check_errors(text, expr::parse_renamings(&plain));
    check_errors(text, template::parse(&plain));
    let _ = (units::size(text), units::duration(text));
    if let Ok(node) = edn::read(text) {
        assert!(edn::read(&print::print(&node)).is_ok(), "{text:?}");
    }
    let mut node = Node {
        kind: NodeKind::Str(plain),
        span: Span::new(0, text.len()),
    };
    check_errors(text, interpolate::node(&mut node, &mut lookup));
    if let NodeKind::Str(filled) = &node.kind {
        check_errors(text, expr::parse(filled));
        check_errors(text, template::parse(filled));
    }
}

#[test]
fn the_inputs_to_mutate_are_valid() {
    for text in VALID {
        let plain = Text::plain(text, 0);
        let is_document =
            from_edn(text).is_ok() || from_toml(text).is_ok() || from_flow(text).is_ok();
        let is_part = edn::read(text).is_ok()
            || expr::parse(&plain).is_ok()
            || expr::parse_select(&plain).is_ok()
            || expr::parse_assignments(&plain).is_ok()
            || expr::parse_renamings(&plain).is_ok();
        assert!(
            is_document
                || is_part
                || template::parse(&plain).is_ok()
                || units::duration(text).is_ok(),
            "{text}"
        );
        read_everything(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        read_everything(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..40)) {
        read_everything(&pieces.concat());
    }

    #[test]
    fn mutated_texts(text in mutated()) {
        read_everything(&text);
    }

    #[test]
    fn printed_edn_parses_to_the_same_value(node in any_node()) {
        let printed = print::print(&node);
        let read = edn::read(&printed)
            .map_err(|errors| TestCaseError::fail(format!("{printed}: {errors:?}")))?;
        prop_assert_eq!(without_positions(&read), without_positions(&node));
        let laid_out = print::pretty(&node);
        let read = edn::read(&laid_out)
            .map_err(|errors| TestCaseError::fail(format!("{laid_out}: {errors:?}")))?;
        prop_assert_eq!(without_positions(&read), without_positions(&node));
    }

    #[test]
    fn printed_expressions_parse_to_the_same_value(expr in any_expr()) {
        let printed = expr.to_string();
        let mut read = expr::parse(&Text::plain(printed.as_str(), 0))
            .map_err(|errors| TestCaseError::fail(format!("{printed}: {errors:?}")))?;
        remove_positions(&mut read);
        prop_assert_eq!(read, expr, "{}", printed);
    }
}
