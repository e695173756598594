//! Every function of DataFusion does here what its documentation shows: with constants, which are
//! computed when the expression is compiled, and with columns.

use std::collections::BTreeSet;

use datafusion_functions::all_default_functions;
use pseidon_dsl::expr::{Expr, ExprKind, Literal};

use crate::fixture::{compiled, evaluate, parse, shown};

/// Functions that are not available here.
const HIDDEN: [&str; 14] = [
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "cast_to_type",
    "current_time",
    "file_row_index",
    "get_field",
    "input_file_name",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "version",
    "with_metadata",
];

/// Functions whose documentation has no example that can be compared, each with one that can.
const EXAMPLES: [(&str, &str, &str); 21] = [
    ("arrow_typeof", "arrow_typeof('foo')", "Utf8"),
    ("concat_ws", "concat_ws('-', 'a', 'b')", "a-b"),
    ("current_date", "current_date() > '2024-01-01'", "true"),
    (
        "date_bin",
        "date_bin('15 minutes', to_timestamp('2023-01-01T18:18:18Z'))",
        "2023-01-01T18:15:00",
    ),
    ("decode", "decode('616263', 'hex')", "616263"),
    ("encode", "encode('abc', 'hex')", "616263"),
    (
        "from_unixtime",
        "from_unixtime(1599572549, 'UTC')",
        "2020-09-08T13:42:29",
    ),
    (
        "named_struct",
        "named_struct('a', 1, 'b', 'x')",
        "{a: 1, b: x}",
    ),
    ("now", "now() > '2024-01-01'", "true"),
    ("nullif", "nullif('a', 'b')", "a"),
    ("overlay", "overlay('Txxxxas', 'hom', 2, 4)", "Thomas"),
    ("pi", "pi()", "3.141592653589793"),
    ("random", "random() < 1", "true"),
    ("regexp_like", "regexp_like('Köln', 'k(ö)', 'i')", "true"),
    (
        "regexp_match",
        "regexp_match('Köln', '(a)?(ö)(l)')",
        "[NULL, ö, l]",
    ),
    (
        "regexp_replace",
        "regexp_replace('foobar', 'b(..)', 'X${1}Y')",
        "fooXarY",
    ),
    ("sqrt", "sqrt(9)", "3.0"),
    ("struct", "struct(1, 'x')", "{c0: 1, c1: x}"),
    (
        "to_local_time",
        "to_local_time('2024-04-01T00:00:20Z'::timestamp)",
        "2024-04-01T00:00:20",
    ),
    ("trunc", "trunc(42.738)", "42.0"),
    ("uuid", "length(uuid())", "36"),
];

/// A call, and the value that it must have.
struct Example {
    function: String,
    call: String,
    value: String,
}

/// The examples in a function's documentation that this language can express: `> select CALL;`,
/// and a table with the value.
fn documented(function: &str, text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    for part in text.split("> ").skip(1) {
        let Some((query, table)) = part.split_once('\n') else {
            continue;
        };
        let query = query.trim().trim_end_matches(';');
        let call = query
            .strip_prefix("select ")
            .or(query.strip_prefix("SELECT "));
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        if let (Some(call), [_, row]) = (call, rows.as_slice()) {
            found.push(Example {
                function: function.to_owned(),
                call: call.to_owned(),
                value: row.trim_matches('|').trim().to_owned(),
            });
        }
    }
    found
}

fn is_readable(call: &str) -> bool {
    let text = pseidon_dsl::node::Text::plain(call, 0);
    pseidon_dsl::expr::parse(&text).is_ok()
}

fn examples() -> Vec<Example> {
    let mut all = Vec::new();
    for function in all_default_functions() {
        let name = function.name().to_owned();
        if HIDDEN.contains(&name.as_str()) {
            continue;
        }
        if let Some((_, call, value)) = EXAMPLES.iter().find(|(known, ..)| *known == name) {
            all.push(Example {
                function: name,
                call: (*call).to_owned(),
                value: (*value).to_owned(),
            });
            continue;
        }
        let text = function
            .documentation()
            .and_then(|documentation| documentation.sql_example.clone());
        let of_function = documented(&name, &text.unwrap_or_default());
        all.extend(
            of_function
                .into_iter()
                .filter(|example| is_readable(&example.call)),
        );
    }
    all
}

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
    let mut run = BTreeSet::new();
    for Example {
        function,
        call,
        value,
    } in examples()
    {
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
        run.insert(function);
    }
    for function in all_default_functions() {
        let name = function.name();
        if !HIDDEN.contains(&name) && !run.contains(name) {
            wrong.push(format!("{name} is not run"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_of_columns_return_the_same_as_of_constants() {
    let mut wrong = Vec::new();
    for Example { call, value, .. } in examples() {
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
