//! Every function is run with the example of its documentation.

use datafusion_functions::all_default_functions;

use crate::fixture::{compiled, evaluate, shown};

/// The expressions in an example, each with the value that it is documented to have.
fn examples(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in text.split("> ").skip(1) {
        let Some((query, rest)) = part.split_once('\n') else {
            continue;
        };
        let query = query.trim().trim_end_matches(';');
        let Some(expr) = query
            .strip_prefix("select ")
            .or_else(|| query.strip_prefix("SELECT "))
        else {
            continue;
        };
        let rows: Vec<&str> = rest.lines().filter(|line| line.starts_with('|')).collect();
        let value = rows.get(1).map_or("", |row| row.trim_matches('|').trim());
        found.push((expr.to_owned(), value.to_owned()));
    }
    found
}

#[test]
fn dump() {
    for function in all_default_functions() {
        let Some(documentation) = function.documentation() else {
            println!("NODOC {}", function.name());
            continue;
        };
        let Some(text) = &documentation.sql_example else {
            println!("NOEX {}", function.name());
            continue;
        };
        for (expr, value) in examples(text) {
            let expr2 = expr.clone();
            let out = std::panic::catch_unwind(|| match compiled(&expr2) {
                Ok(compiled) => match evaluate(&compiled) {
                    Ok(values) => shown(&values)[0].clone(),
                    Err(error) => format!("ERROR {error}"),
                },
                Err(errors) => format!("REFUSED {errors:?}"),
            })
            .unwrap_or("PANIC".to_owned());
            let same = if out == value { "same" } else { "DIFF" };
            println!("{same} {}: {expr} = {out} | {value}", function.name());
        }
    }
}
