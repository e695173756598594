//! The functions available in expressions: DataFusion's, and our own.
//!
//! Each of our own functions is a module of this one: [`wall_clock`], [`regexp_match`],
//! [`regexp_groups`], [`logfmt`] and [`redact`]. Those of lists and JSON are in [`values`];
//! [`mod@json_struct`], [`rounding`] and [`duration`] replace functions of DataFusion for some
//! types. [`probe`] finds calls that always fail, [`foreign`] what to write for functions of other
//! systems. [`argument_types`] finds what a function requires of untyped arguments;
//! [`mod@reference`] is what users read about them.

mod argument_types;
mod duration;
mod foreign;
mod json_struct;
mod lists;
mod logfmt;
mod probe;
mod redact;
mod reference;
mod regexp_groups;
mod regexp_match;
mod rounding;
mod values;
mod wall_clock;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::ScalarValue;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{ReturnFieldArgs, ScalarUDF};
use datafusion_physical_expr::ScalarFunctionExpr;
use pseidon_dsl::{Diagnostic, Span};

pub(crate) use self::argument_types::argument_type;
use self::json_struct::json_struct;
use self::lists::{ListFunction, item_type, of_list};
use self::logfmt::Logfmt;
use self::redact::{Redact, check_redaction};
pub use self::reference::{FunctionExample, FunctionReference, functions};
use self::regexp_groups::{RegexpGroups, check_groups};
use self::regexp_match::RegexpMatch;
pub(crate) use self::values::{call_of_values, is_of_values};
pub use self::wall_clock::at_one_time;
use self::wall_clock::{Clock, WallClock};
use crate::decimal::is_decimal;
use crate::length::{LENGTHENING, LengthLimit};
use crate::operand::{Operand, alternatives};
use crate::operator::check_regex;
use crate::scalar::{config, unary_call};
use crate::types::{canonical, is_json, is_text};
use crate::{constants, growth};

/// DataFusion's functions that are not available here, because they are only useful inside
/// DataFusion or are replaced by `cast` and paths.
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

/// Functions that are compiled to `case`, because they evaluate only the argument that is the
/// result.
pub(crate) const CONDITIONAL: [&str; 6] = ["coalesce", "if", "ifnull", "nullif", "nvl", "nvl2"];

/// Names of functions in other systems, each with the name here.
const ALIASES: [(&str, &str); 6] = [
    ("ceiling", "ceil"),
    ("lcase", "lower"),
    ("len", "length"),
    ("sign", "signum"),
    ("strlen", "length"),
    ("ucase", "upper"),
];

static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        if HIDDEN.contains(&function.name()) || CONDITIONAL.contains(&function.name()) {
            continue;
        }
        add(&mut functions, function);
    }
    let ours = [
        ScalarUDF::from(WallClock::new(Clock::Now)),
        ScalarUDF::from(WallClock::new(Clock::Today)),
        ScalarUDF::from(WallClock::new(Clock::TimeOfDay)),
        ScalarUDF::from(RegexpMatch::new()),
        ScalarUDF::from(RegexpGroups::new()),
        ScalarUDF::from(Redact::new()),
        ScalarUDF::from(Logfmt::new()),
    ];
    for function in ours {
        add(&mut functions, Arc::new(function));
    }
    for (alias, name) in ALIASES {
        if let Some(function) = functions.get(name).cloned() {
            functions.insert(alias.to_owned(), function);
        }
    }
    functions
});

/// Adds a function under all of its names.
fn add(functions: &mut HashMap<String, Arc<ScalarUDF>>, function: Arc<ScalarUDF>) {
    for alias in function.aliases() {
        functions.insert(alias.clone(), Arc::clone(&function));
    }
    functions.insert(function.name().to_owned(), function);
}

/// The names of all functions of one record, in lower case.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let known = FUNCTIONS.keys().map(String::as_str);
    known.chain(CONDITIONAL).chain(values::names())
}

/// The function named `name`, which is not [`CONDITIONAL`] and not [of values](is_of_values).
pub(crate) fn find(name: &str, span: Span) -> Result<&'static Arc<ScalarUDF>, Diagnostic> {
    FUNCTIONS.get(name).ok_or_else(|| {
        let unknown = Diagnostic::new(span, format!("unknown function `{name}`"), "not a function");
        if let Some(same) = foreign::instead_of(name) {
            return unknown.with_help(format!("write `{same}`"));
        }
        match pseidon_dsl::nearest(name, names()) {
            Some(nearest) => unknown.with_help(format!("did you mean `{nearest}`?")),
            None => unknown,
        }
    })
}

/// Compiles a call of a function that is not [`CONDITIONAL`].
pub(crate) fn call(
    name: &str,
    function: &Arc<ScalarUDF>,
    args: Vec<Operand>,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let args = match is_extreme(function.name()) && has_decimal_or_date(&args) {
        true => alternatives(args)?,
        false => args,
    };
    if function.name() == "character_length"
        && let Some(length) = length_of_list(&args, span)?
    {
        return Ok(length);
    }
    let own = json_struct(function.name(), &args, span)
        .or_else(|| rounding::of_integer(function, &args, span))
        .or_else(|| duration::seconds(function, &args, span));
    match own {
        Some(compiled) => compiled,
        None => call_as_is(name, function, args, span),
    }
}

/// Compiles a call as DataFusion has it.
fn call_as_is(
    name: &str,
    function: &Arc<ScalarUDF>,
    args: Vec<Operand>,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let wanted = accepted_types(function, &args);
    let Some(wanted) = wanted else {
        return Err(misuse(name, function, &args, span));
    };
    let is_text_of_list = |(arg, field): (&Operand, &FieldRef)| {
        !arg.json && arg.data_type.is_nested() && is_text(field.data_type())
    };
    if args.iter().zip(&wanted).any(is_text_of_list) {
        return Err(misuse(name, function, &args, span));
    }
    let args: Vec<Operand> = args
        .into_iter()
        .zip(&wanted)
        .map(|(arg, field)| arg.cast(field.data_type()))
        .collect::<Result<_, _>>()?;
    let args = if LENGTHENING.contains(&name) {
        with_limited_length(args)?
    } else {
        args
    };
    check_constants(name, function, &args)?;
    let fields: Vec<FieldRef> = args.iter().map(|arg| argument(&arg.data_type)).collect();
    let literals: Vec<Option<&ScalarValue>> = args.iter().map(Operand::as_literal).collect();
    let returned = function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: &literals,
    });
    let Ok(returned) = returned else {
        return Err(misuse(name, function, &args, span));
    };
    probe::check(function, &args, &returned, span)?;
    let (data_type, is_json) = (returned.data_type().clone(), is_json(&returned));
    let physical = args.into_iter().map(|arg| arg.physical).collect();
    let call = ScalarFunctionExpr::new(
        name,
        growth::bounded(function),
        physical,
        returned,
        config(),
    );
    let simplest = canonical(&data_type);
    let result = Operand::computed(Arc::new(call), data_type, span)?
        .in_range()?
        .cast(&simplest)?;
    Ok(Operand {
        json: is_json,
        ..result
    })
}

/// The types of the arguments that a function accepts. `None` if it accepts none like them.
fn accepted_types(function: &ScalarUDF, args: &[Operand]) -> Option<Vec<FieldRef>> {
    // A JSON value is passed as a string if the function accepts one, else as a number.
    let readings = [DataType::Utf8, DataType::Float64, DataType::Int64];
    let has_json = args.iter().any(|arg| arg.json);
    readings
        .iter()
        .take(if has_json { readings.len() } else { 1 })
        .find_map(|json_as| {
            let fields = args
                .iter()
                .map(|arg| argument(if arg.json { json_as } else { &arg.data_type }));
            fields_with_udf(&fields.collect::<Vec<_>>(), function).ok()
        })
}

/// `length` of a list. `None` if the argument is not a list.
fn length_of_list(args: &[Operand], span: Span) -> Result<Option<Operand>, Diagnostic> {
    match args {
        [list] if item_type(&list.data_type).is_some() => of_list(ListFunction::Length, args, span),
        _ => Ok(None),
    }
}

/// Checks the constant arguments of a call.
fn check_constants(name: &str, function: &ScalarUDF, args: &[Operand]) -> Result<(), Diagnostic> {
    constants::check(function.name(), args)?;
    if name.starts_with("regexp_")
        && let Some(pattern) = args.get(1)
    {
        check_regex(pattern)?;
    }
    match name {
        Redact::NAME => check_redaction(args),
        RegexpGroups::NAME => check_groups(args),
        _ => Ok(()),
    }
}

/// Whether the result of a function is one of its arguments, of one type.
fn is_extreme(name: &str) -> bool {
    matches!(name, "greatest" | "least")
}

/// Whether the common type that DataFusion takes may have too few digits for the arguments.
fn has_decimal_or_date(args: &[Operand]) -> bool {
    args.iter()
        .any(|arg| is_decimal(&arg.data_type) || arg.data_type == DataType::Date32)
}

fn with_limited_length(mut args: Vec<Operand>) -> Result<Vec<Operand>, Diagnostic> {
    if let Some(length) = args.get_mut(1) {
        *length = Operand::computed(
            unary_call(LengthLimit, length.physical.clone()),
            DataType::Int64,
            length.span,
        )?;
    }
    Ok(args)
}

fn argument(data_type: &DataType) -> FieldRef {
    Arc::new(Field::new("argument", data_type.clone(), true))
}

fn misuse(name: &str, function: &ScalarUDF, args: &[Operand], span: Span) -> Diagnostic {
    let types: Vec<String> = args.iter().map(Operand::type_name).collect();
    let diagnostic = Diagnostic::new(
        span,
        format!("`{name}` does not accept ({})", types.join(", ")),
        "invalid argument types",
    );
    match function.documentation() {
        Some(documentation) => {
            diagnostic.with_help(format!("usage: {}", documentation.syntax_example))
        }
        None => diagnostic,
    }
}

/// The result type of a function for these argument types. `None` if the function is unknown or
/// does not accept them.
pub(crate) fn return_type(name: &str, arguments: &[DataType]) -> Option<DataType> {
    let function = FUNCTIONS.get(name)?;
    let fields: Vec<FieldRef> = arguments.iter().map(argument).collect();
    let wanted = fields_with_udf(&fields, function.as_ref()).ok()?;
    let literals = vec![None; wanted.len()];
    let returned = function
        .return_field_from_args(ReturnFieldArgs {
            arg_fields: &wanted,
            scalar_arguments: &literals,
        })
        .ok()?;
    Some(canonical(returned.data_type()))
}
