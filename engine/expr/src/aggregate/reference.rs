//! The reference of the aggregate functions. It is also the list of those that exist here.

use crate::function::{FunctionExample, FunctionReference};

/// Name, syntax, what it returns, a call and its value. The calls are computed over the rows
/// (1, 'a', true), (2, 'b', true) and (3, 'b', false) with the columns `n`, `s` and `b`.
pub(super) const REFERENCE: [[&str; 5]; 25] = [
    [
        "any_value",
        "any_value(value)",
        "One of the values that are not NULL.",
        "any_value(b or true)",
        "true",
    ],
    [
        "approx_distinct",
        "approx_distinct(value)",
        "About how many different values there are, with little memory.",
        "approx_distinct(s)",
        "2",
    ],
    [
        "approx_percentile_cont",
        "approx_percentile_cont(number, percentile)",
        "About the number below which this share of the numbers is, with little memory.",
        "approx_percentile_cont(n, 0.5)",
        "2.0",
    ],
    [
        "array_agg",
        "array_agg([distinct] value)",
        "A list of the values.",
        "array_agg(s)",
        "[a, b, b]",
    ],
    [
        "avg",
        "avg(number)",
        "The mean, a float64.",
        "avg(n)",
        "2.0",
    ],
    [
        "bit_and",
        "bit_and(integer)",
        "The bits that all integers have.",
        "bit_and(n)",
        "0",
    ],
    [
        "bit_or",
        "bit_or(integer)",
        "The bits that one of the integers has.",
        "bit_or(n)",
        "3",
    ],
    [
        "bit_xor",
        "bit_xor([distinct] integer)",
        "The bits that an odd number of the integers has.",
        "bit_xor(n)",
        "0",
    ],
    [
        "bool_and",
        "bool_and(condition)",
        "Whether the condition is true for all records for which it is not NULL.",
        "bool_and(b)",
        "false",
    ],
    [
        "bool_or",
        "bool_or(condition)",
        "Whether the condition is true for a record.",
        "bool_or(b)",
        "true",
    ],
    [
        "corr",
        "corr(number, other)",
        "The correlation of two numbers.",
        "corr(n, n * 2)",
        "1.0",
    ],
    [
        "count",
        "count(*) or count([distinct] value)",
        "The number of records, of values that are not NULL, or of different ones.",
        "count(distinct s)",
        "2",
    ],
    [
        "covar_pop",
        "covar_pop(number, other)",
        "The covariance of a population.",
        "covar_pop(n, n * 3)",
        "2.0",
    ],
    [
        "covar_samp",
        "covar_samp(number, other)",
        "The covariance of a sample.",
        "covar_samp(n, n)",
        "1.0",
    ],
    [
        "first_value",
        "first_value(value)",
        "The value of the first record that was read. Records of one file or partition are in \
         order.",
        "first_value(s)",
        "a",
    ],
    [
        "last_value",
        "last_value(value)",
        "The value of the last record that was read. Records of one file or partition are in order.",
        "last_value(s)",
        "b",
    ],
    ["max", "max(value)", "The greatest value.", "max(s)", "b"],
    [
        "median",
        "median(number)",
        "The median, a float64. All numbers of a group are kept until it is computed.",
        "median(n)",
        "2.0",
    ],
    ["min", "min(value)", "The least value.", "min(n)", "1"],
    [
        "stddev",
        "stddev(number)",
        "The standard deviation of a sample.",
        "stddev(n)",
        "1.0",
    ],
    [
        "stddev_pop",
        "stddev_pop(number)",
        "The standard deviation of a population.",
        "round(stddev_pop(n), 4)",
        "0.8165",
    ],
    [
        "string_agg",
        "string_agg([distinct] string, separator)",
        "The strings with a separator between them.",
        "string_agg(s, ',')",
        "a,b,b",
    ],
    [
        "sum",
        "sum([distinct] number)",
        "The sum. A sum of integers is an integer.",
        "sum(n)",
        "6",
    ],
    [
        "var",
        "var(number)",
        "The variance of a sample.",
        "var(n)",
        "1.0",
    ],
    [
        "var_pop",
        "var_pop(number)",
        "The variance of a population.",
        "var_pop(n * 3)",
        "6.0",
    ],
];

/// All aggregate functions, by name. `other_names` returns the other names of one.
pub(super) fn functions(
    other_names: impl Fn(&str) -> Vec<String>,
) -> impl Iterator<Item = FunctionReference> {
    REFERENCE.into_iter().map(
        move |[name, syntax, description, call, value]| FunctionReference {
            name: name.to_owned(),
            other_names: other_names(name),
            section: "Aggregate Functions".to_owned(),
            syntax: syntax.to_owned(),
            description: format!("{description} A function of `group`."),
            arguments: Vec::new(),
            examples: vec![FunctionExample {
                call: call.to_owned(),
                value: value.to_owned(),
            }],
        },
    )
}
