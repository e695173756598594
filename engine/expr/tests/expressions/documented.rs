//! Every function does what its reference shows: with constants, which are computed when the
//! expression is compiled, and with columns.

use pseidon_dsl::expr::{Expr, ExprKind, Literal};
use pseidon_expr::aggregate::is_aggregate;
use pseidon_expr::{FunctionExample, functions};

use crate::fixture::{compiled, evaluate, parse, shown};

/// Whether a value is the documented one, apart from how many digits and which time zone are
/// printed.
fn is_value(found: &str, expected: &str) -> bool {
    let (found, expected) = (found.trim(), expected.trim());
    if found == expected || found.strip_suffix('Z') == Some(expected) {
        return true;
    }
    match (found.parse::<f64>(), expected.parse::<f64>()) {
        (Ok(found), Ok(expected)) => (found - expected).abs() < 1e-4,
        _ => false,
    }
}

/// An expression that has the value of a constant, and depends on a column. `None` for NULL and
/// booleans.
fn as_column(constant: &Expr) -> Option<String> {
    match &constant.kind {
        ExprKind::Literal(Literal::Str(_)) => Some(format!("concat({constant}, left(name, 0))")),
        ExprKind::Literal(Literal::Int(_) | Literal::Float(_)) => {
            Some(format!("{constant} + (small - small)"))
        }
        _ => None,
    }
}

/// Whether an error says that an argument must be a constant.
fn must_be_constant(error: &str) -> bool {
    error.ends_with("must be a constant") || error.contains("`named_struct` does not accept")
}

/// The calls in which one constant argument is a column with that value in every row.
fn with_columns(call: &Expr) -> Vec<String> {
    let ExprKind::Call { name, args, .. } = &call.kind else {
        return Vec::new();
    };
    let texts: Vec<String> = args.iter().map(Expr::to_string).collect();
    let columns = args.iter().map(as_column).enumerate();
    columns
        .filter_map(|(at, column)| {
            let mut texts = texts.clone();
            texts[at] = column?;
            Some(format!("{name}({})", texts.join(", ")))
        })
        .collect()
}

#[test]
fn functions_return_what_their_documentation_shows() {
    let mut wrong = Vec::new();
    for function in functions() {
        if function.examples.is_empty() || function.syntax.is_empty() {
            wrong.push(format!("{} has no example or no syntax", function.name));
        }
        // Those are tested with `group`.
        if is_aggregate(&function.name) {
            continue;
        }
        for FunctionExample { call, value } in function.examples {
            let compiled = match compiled(&call) {
                Ok(compiled) => compiled,
                Err(errors) => {
                    wrong.push(format!("{call}: {}", errors[0].message));
                    continue;
                }
            };
            match evaluate(&compiled) {
                Ok(values) if shown(&values).iter().all(|found| is_value(found, &value)) => {}
                Ok(values) => wrong.push(format!("{call} is {:?}, not {value}", shown(&values)[0])),
                Err(error) => wrong.push(format!("{call}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Those of DataFusion are among them, and ours.
    let names: Vec<String> = functions()
        .into_iter()
        .map(|function| function.name)
        .collect();
    assert!(names.len() > 100, "{names:?}");
    for name in ["abs", "if", "now", "regexp_match"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn functions_of_columns_return_the_same_as_of_constants() {
    let mut wrong = Vec::new();
    let examples = functions()
        .into_iter()
        .filter(|function| !is_aggregate(&function.name))
        .flat_map(|function| function.examples);
    for FunctionExample { call, value } in examples {
        for text in with_columns(&parse(&call)) {
            let compiled = match compiled(&text) {
                Ok(compiled) => compiled,
                Err(errors) if must_be_constant(&errors[0].message) => continue,
                Err(errors) => {
                    wrong.push(format!("{text}: {}", errors[0].message));
                    continue;
                }
            };
            match evaluate(&compiled) {
                Ok(values) if shown(&values).iter().all(|found| is_value(found, &value)) => {}
                Ok(values) => wrong.push(format!("{text} is {:?}, not {value}", shown(&values)[0])),
                Err(error) => wrong.push(format!("{text}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
