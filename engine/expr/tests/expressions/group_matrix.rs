//! Every aggregate function with columns of every kind: either it is refused, or its results are of
//! the type that was declared.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use pseidon_dsl::Span;
use pseidon_dsl::expr::{Expr, Literal};
use pseidon_expr::aggregate::{
    AggregateArg, AggregateCall, Grouping, Groups, argument, is_aggregate,
};
use pseidon_expr::{compile, functions};

use crate::fixture::{evaluate_rows, parse, scope};

const VALUES: [&str; 18] = [
    "name", "status", "byte", "price", "amount", "ok", "at", "day", "at::time", "raw", "tags",
    "user", "mixed", "null", "1.5", "'a'", "true", "any",
];

/// The rows of a value, of which those are left out for which it is an error; `None` if it is
/// refused.
fn rows(function: &str, value: &str) -> Option<RecordBatch> {
    let expr: Expr = argument(function, parse(value));
    let compiled = compile(&expr, &scope()).ok()?;
    let schema = Arc::new(Schema::new(vec![FieldRef::clone(compiled.field())]));
    let batches: Vec<RecordBatch> = evaluate_rows(&compiled)
        .into_iter()
        .filter_map(Result::ok)
        .map(|column| RecordBatch::try_new(schema.clone(), vec![column]).expect("one column"))
        .collect();
    Some(arrow::compute::concat_batches(&schema, &batches).expect("one schema"))
}

fn call(name: &str, distinct: bool, more: Option<Literal>) -> (String, AggregateCall) {
    let args = [AggregateArg::Column(0)];
    let more = more.into_iter().map(AggregateArg::Literal);
    let call = AggregateCall {
        name: name.to_owned(),
        span: Span::default(),
        distinct,
        args: args.into_iter().chain(more).collect(),
    };
    ("v".to_owned(), call)
}

/// Whether a call is evaluated, and not refused. An error says what is wrong with it.
fn is_evaluated(call: (String, AggregateCall), rows: &RecordBatch) -> Result<bool, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let Ok(grouping) = Grouping::new(&rows.schema(), 0, &[call]) else {
            return Ok(false);
        };
        let grouping = Arc::new(grouping);
        let declared = grouping.output().field(0).data_type().clone();
        // All rows, and none.
        for rows in [rows.clone(), rows.slice(0, 0)] {
            match Groups::results_of(&grouping, &rows) {
                Err(error) => return Err(error.to_string()),
                Ok(results) if *results.column(0).data_type() != declared => {
                    let found = results.column(0).data_type().clone();
                    return Err(format!("{found} and not {declared}"));
                }
                Ok(_) => {}
            }
        }
        Ok(true)
    }));
    outcome.unwrap_or_else(|_| Err("panics".to_owned()))
}

#[test]
fn every_aggregate_function_with_values_of_every_kind() {
    let (mut evaluated, mut wrong) = (0, Vec::new());
    let aggregates = functions().into_iter().flat_map(|function| {
        let others = function.other_names.clone();
        std::iter::once(function.name).chain(others)
    });
    for name in aggregates.filter(|name| is_aggregate(name)) {
        for value in VALUES {
            let Some(rows) = rows(&name, value) else {
                continue;
            };
            let more = [
                None,
                Some(Literal::Float(0.5)),
                Some(Literal::Str("-".to_owned())),
                Some(Literal::Null),
            ];
            for (more, distinct) in more
                .into_iter()
                .flat_map(|more| [(more.clone(), false), (more, true)])
            {
                let shown = format!("{name}({value}, {more:?}), distinct: {distinct}");
                match is_evaluated(call(&name, distinct, more), &rows) {
                    Ok(is_evaluated) => evaluated += usize::from(is_evaluated),
                    Err(fault) => wrong.push(format!("{shown}: {fault}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(evaluated > 1200, "only {evaluated} calls");
}
