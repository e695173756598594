//! The reference of the functions: what users read about them, with examples that the tests run.

use std::collections::BTreeMap;

use datafusion_expr::{Documentation, ScalarUDF};
use pseidon_dsl::node::Text;

use super::{ALIASES, FUNCTIONS, values};
use crate::aggregate;

/// What users read about a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionReference {
    /// The name.
    pub name: String,
    /// Other names of it.
    pub other_names: Vec<String>,
    /// The group of functions that it belongs to, such as `Math Functions`.
    pub section: String,
    /// How it is called, such as `round(numeric_expression[, decimal_places])`.
    pub syntax: String,
    /// What it returns.
    pub description: String,
    /// Its arguments, each with a description.
    pub arguments: Vec<(String, String)>,
    /// Calls of it with their values.
    pub examples: Vec<FunctionExample>,
}

/// A call with constants, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionExample {
    /// The call, such as `abs(-5)`.
    pub call: String,
    /// Its value as text.
    pub value: String,
}

/// Functions whose documentation has no example that this language can express, each with one that
/// it can.
const EXAMPLES: [(&str, &str, &str); 21] = [
    ("arrow_typeof", "arrow_typeof('foo')", "Utf8"),
    ("concat_ws", "concat_ws('-', 'a', 'b')", "a-b"),
    ("current_date", "current_date() > '2024-01-01'", "true"),
    ("current_time", "current_time() = now()::time", "true"),
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

/// The functions that evaluate only the argument that is the result: name, other name, syntax, what
/// it returns, a call and its value.
const CONDITIONAL: [[&str; 6]; 5] = [
    [
        "coalesce",
        "",
        "coalesce(first[, …])",
        "The first argument that is not NULL.",
        "coalesce(null, 'a', 'b')",
        "a",
    ],
    [
        "if",
        "",
        "if(condition, then, else)",
        "`then` if the condition is true, otherwise `else`.",
        "if(1 > 2, 'a', 'b')",
        "b",
    ],
    [
        "ifnull",
        "nvl",
        "ifnull(tested, if_null)",
        "`if_null` if the first argument is NULL, otherwise the first argument.",
        "ifnull(null, 5)",
        "5",
    ],
    [
        "nullif",
        "",
        "nullif(value, null_value)",
        "NULL if both arguments are equal, otherwise the first.",
        "nullif('a', 'b')",
        "a",
    ],
    [
        "nvl2",
        "",
        "nvl2(tested, if_not_null, if_null)",
        "The second argument if the first is not NULL, otherwise the third.",
        "nvl2(null, 'a', 'b')",
        "b",
    ],
];

/// All functions, by name.
pub fn functions() -> Vec<FunctionReference> {
    let mut all: BTreeMap<String, FunctionReference> = FUNCTIONS
        .values()
        .map(|function| (function.name().to_owned(), of_function(function)))
        .collect();
    for [name, other_name, syntax, description, call, value] in CONDITIONAL {
        let reference = FunctionReference {
            name: name.to_owned(),
            other_names: (!other_name.is_empty())
                .then(|| other_name.to_owned())
                .into_iter()
                .collect(),
            section: "Conditional Functions".to_owned(),
            syntax: syntax.to_owned(),
            description: description.to_owned(),
            arguments: Vec::new(),
            examples: vec![FunctionExample {
                call: call.to_owned(),
                value: value.to_owned(),
            }],
        };
        all.insert(name.to_owned(), reference);
    }
    for function in &values::FUNCTIONS {
        all.insert(function.name.to_owned(), of_values(function));
    }
    let aggregates = aggregate::references();
    all.extend(aggregates.map(|reference| (reference.name.clone(), reference)));
    all.into_values().collect()
}

fn of_values(function: &values::ValueFunction) -> FunctionReference {
    let (call, value) = function.example;
    let others = function.other_names.iter();
    FunctionReference {
        name: function.name.to_owned(),
        other_names: others.map(|name| (*name).to_owned()).collect(),
        section: "List and JSON Functions".to_owned(),
        syntax: function.syntax.to_owned(),
        description: function.description.to_owned(),
        arguments: Vec::new(),
        examples: vec![FunctionExample {
            call: call.to_owned(),
            value: value.to_owned(),
        }],
    }
}

fn of_function(function: &ScalarUDF) -> FunctionReference {
    let name = function.name();
    let documentation = function.documentation();
    let text = |of: fn(&Documentation) -> &str| {
        documentation.map(of).unwrap_or_default().trim().to_owned()
    };
    let aliases = function.aliases().iter().map(String::as_str);
    let is_same = |of: &str| FUNCTIONS.get(of).is_some_and(|known| known.name() == name);
    let ours = ALIASES.iter().filter(|(_, of)| is_same(of));
    let mut other_names: Vec<String> = aliases
        .chain(ours.map(|(alias, _)| *alias))
        .map(str::to_owned)
        .collect();
    other_names.sort_unstable();
    other_names.dedup();
    FunctionReference {
        name: name.to_owned(),
        other_names,
        section: text(|of| of.doc_section.label),
        syntax: text(|of| &of.syntax_example),
        description: text(|of| &of.description),
        arguments: documentation
            .and_then(|of| of.arguments.clone())
            .unwrap_or_default(),
        examples: examples(name, documentation),
    }
}

fn examples(name: &str, documentation: Option<&Documentation>) -> Vec<FunctionExample> {
    if let Some((_, call, value)) = EXAMPLES.iter().find(|(known, ..)| *known == name) {
        return vec![FunctionExample {
            call: (*call).to_owned(),
            value: (*value).to_owned(),
        }];
    }
    let text = documentation.and_then(|of| of.sql_example.as_deref());
    let mut found = documented(text.unwrap_or_default());
    found.retain(|example| pseidon_dsl::expr::parse(&Text::plain(&*example.call, 0)).is_ok());
    found
}

/// The examples in a text: `> select CALL;`, and a table with the value.
fn documented(text: &str) -> Vec<FunctionExample> {
    let example = |part: &str| {
        let (query, table) = part.split_once('\n')?;
        let query = query.trim().trim_end_matches(';');
        let call = query
            .strip_prefix("select ")
            .or(query.strip_prefix("SELECT "))?;
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        let [_, row] = rows.as_slice() else {
            return None;
        };
        Some(FunctionExample {
            call: call.to_owned(),
            value: row.trim_matches('|').trim().to_owned(),
        })
    };
    text.split("> ").skip(1).filter_map(example).collect()
}
