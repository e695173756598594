//! Every function with arguments of every kind: either it is refused, or each record has a value of
//! the type that was declared, or an error of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pseidon_dsl::expr::{Expr, ExprKind};
use pseidon_expr::aggregate::is_aggregate;
use pseidon_expr::{FunctionReference, functions};

use crate::fixture::{compiled, evaluate_rows, parse};

/// Arguments: constants, columns of every type, of which most have a NULL, and fields without a
/// type.
const ARGUMENTS: [&str; 27] = [
    "'a'",
    "''",
    "'2024-02-29'",
    "2",
    "-1",
    "18446744073709551615",
    "1.5",
    "1.5::decimal(3,1)",
    "true",
    "timestamp '2024-02-29 12:34:56'",
    "interval '1 day'",
    "null",
    "name",
    "status",
    "byte",
    "big",
    "price",
    "amount",
    "ok",
    "at",
    "day",
    "at::time",
    "raw",
    "tags",
    "user",
    "mixed",
    "deep",
];

/// Those of which pairs are formed.
const PAIRED: [&str; 13] = [
    "'a'", "2", "1.5", "null", "name", "status", "price", "amount", "ok", "at", "raw", "mixed",
    "deep",
];

/// What an error of one record does not say.
const INTERNAL: [&str; 5] = [
    "Internal error",
    "cannot evaluate the expression",
    "bug in DataFusion",
    "not implemented",
    "downcast",
];

/// The functions of one record, under each of their names.
fn known() -> impl Iterator<Item = (String, FunctionReference)> {
    let functions = functions().into_iter();
    let scalar = functions.filter(|function| !is_aggregate(&function.name));
    scalar.flat_map(|function| {
        let others = function.other_names.clone();
        let names = std::iter::once(function.name.clone()).chain(others);
        names.map(move |name| (name, function.clone()))
    })
}

/// Whether a call is evaluated to a value or an error for each row, and not refused. An error says
/// what is wrong with it.
fn is_evaluated(call: &str) -> Result<bool, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let Ok(compiled) = compiled(call) else {
            return Ok(false);
        };
        let rows = evaluate_rows(&compiled);
        let mut errors = rows.into_iter().filter_map(Result::err);
        let internal = |error: &String| INTERNAL.iter().any(|internal| error.contains(internal));
        errors.find(internal).map_or(Ok(true), Err)
    }));
    match outcome {
        Ok(found) => found.map_err(|error| format!("{call}: {error}")),
        Err(_) => Err(format!("{call}: panics, or has another type than declared")),
    }
}

/// At least this number of the calls must be evaluated.
fn assert_sound(calls: impl Iterator<Item = String>, at_least: usize) {
    let (mut evaluated, mut wrong) = (0, Vec::new());
    for call in calls {
        match is_evaluated(&call) {
            Ok(is_evaluated) => evaluated += usize::from(is_evaluated),
            Err(fault) => wrong.push(fault),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(evaluated > at_least, "only {evaluated} calls");
}

#[test]
fn every_function_with_up_to_one_argument_of_every_kind() {
    let calls = known().flat_map(|(name, _)| {
        let none = std::iter::once(format!("{name}()"));
        let calls = ARGUMENTS.iter().map(move |arg| format!("{name}({arg})"));
        none.chain(calls)
    });
    assert_sound(calls, 1100);
}

#[test]
fn every_function_with_two_arguments_of_every_kind() {
    let calls = known().flat_map(|(name, function)| {
        // The other names are the same function.
        let is_first = name == function.name;
        let pairs = PAIRED
            .iter()
            .flat_map(|one| PAIRED.iter().map(move |other| (one, other)));
        let pairs = pairs.filter(move |_| is_first);
        pairs.map(move |(one, other)| format!("{name}({one}, {other})"))
    });
    assert_sound(calls, 3000);
}

/// The documented calls with another argument in each place, and with one more.
#[test]
fn every_documented_call_with_each_argument_of_every_kind() {
    let calls = known().flat_map(|(name, function)| {
        let examples = function.examples.into_iter();
        examples.flat_map(move |example| variants(&name, &parse(&example.call)))
    });
    assert_sound(calls, 3800);
}

fn variants(name: &str, call: &Expr) -> Vec<String> {
    let ExprKind::Call { args, .. } = &call.kind else {
        return Vec::new();
    };
    let texts: Vec<String> = args.iter().map(Expr::to_string).collect();
    let places = 0..=texts.len();
    let changed = places.flat_map(|at| ARGUMENTS.iter().map(move |arg| (at, *arg)));
    changed
        .map(|(at, arg)| {
            let mut texts = texts.clone();
            texts.splice(at..(at + 1).min(texts.len()), [arg.to_owned()]);
            format!("{name}({})", texts.join(", "))
        })
        .collect()
}
