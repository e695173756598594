//! The functions available in expressions: DataFusion's, and our own functions for wall-clock time.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono::Utc;
use datafusion_common::{Result as DataFusionResult, ScalarValue};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{
    Coercion, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion_physical_expr::ScalarFunctionExpr;
use pseidon_dsl::{Diagnostic, Span};

use crate::length::{LENGTHENING, LengthLimit};
use crate::operand::Operand;
use crate::operator::check_regex;
use crate::regexp_match::RegexpMatch;
use crate::scalar::{config, unary_call};
use crate::types::{canonical, is_text, timestamp};
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
const ALIASES: [(&str, &str); 5] = [
    ("ceiling", "ceil"),
    ("lcase", "lower"),
    ("len", "length"),
    ("strlen", "length"),
    ("ucase", "upper"),
];

static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        if HIDDEN.contains(&function.name()) || CONDITIONAL.contains(&function.name()) {
            continue;
        }
        functions.extend(
            function
                .aliases()
                .iter()
                .map(|alias| (alias.clone(), Arc::clone(&function))),
        );
        functions.insert(function.name().to_owned(), Arc::clone(&function));
    }
    for clock in [Clock::Now, Clock::Today] {
        let function = Arc::new(ScalarUDF::from(WallClock::new(clock)));
        functions.extend(
            clock
                .names()
                .map(|name| (name.to_owned(), Arc::clone(&function))),
        );
    }
    let regexp_match = Arc::new(ScalarUDF::from(RegexpMatch::new()));
    functions.insert("regexp_match".to_owned(), regexp_match);
    for (alias, name) in ALIASES {
        if let Some(function) = functions.get(name).cloned() {
            functions.insert(alias.to_owned(), function);
        }
    }
    functions
});

/// The function named `name`, which is not [`CONDITIONAL`].
pub(crate) fn find(name: &str, span: Span) -> Result<&'static Arc<ScalarUDF>, Diagnostic> {
    FUNCTIONS.get(name).ok_or_else(|| {
        let unknown = Diagnostic::new(span, format!("unknown function `{name}`"), "not a function");
        let known = FUNCTIONS.keys().map(String::as_str).chain(CONDITIONAL);
        match pseidon_dsl::nearest(name, known) {
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
    // A JSON value is passed as a string if the function accepts one, else as a number.
    let readings = [DataType::Utf8, DataType::Float64, DataType::Int64];
    let has_json = args.iter().any(|arg| arg.json);
    let wanted = readings
        .iter()
        .take(if has_json { readings.len() } else { 1 })
        .find_map(|json_as| {
            let fields = args
                .iter()
                .map(|arg| argument(if arg.json { json_as } else { &arg.data_type }));
            fields_with_udf(&fields.collect::<Vec<_>>(), function.as_ref()).ok()
        });
    let Some(wanted) = wanted else {
        return Err(misuse(name, function, &args, span));
    };
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
    constants::check(function.name(), &args)?;
    if name.starts_with("regexp_")
        && let Some(pattern) = args.get(1)
    {
        check_regex(pattern)?;
    }
    let fields: Vec<FieldRef> = args.iter().map(|arg| argument(&arg.data_type)).collect();
    let literals: Vec<Option<&ScalarValue>> = args.iter().map(Operand::as_literal).collect();
    let returned = function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: &literals,
    });
    let Ok(returned) = returned else {
        return Err(misuse(name, function, &args, span));
    };
    let data_type = returned.data_type().clone();
    let physical = args.into_iter().map(|arg| arg.physical).collect();
    let call = ScalarFunctionExpr::new(
        name,
        growth::bounded(function),
        physical,
        returned,
        config(),
    );
    let simplest = canonical(&data_type);
    Operand::computed(Arc::new(call), data_type, span)?.cast(&simplest)
}

fn with_limited_length(mut args: Vec<Operand>) -> Result<Vec<Operand>, Diagnostic> {
    if let Some(length) = args.get_mut(1) {
        *length = Operand::computed(
            unary_call(LengthLimit::new(), length.physical.clone(), DataType::Int64),
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

/// The type that a function requires of its argument `at` (starting at 0) of `count` arguments.
/// `None` if it requires none, or one that JSON does not have.
pub(crate) fn argument_type(name: &str, at: usize, count: usize) -> Option<DataType> {
    match name {
        "to_timestamp_seconds"
        | "to_timestamp_millis"
        | "to_timestamp_micros"
        | "to_timestamp_nanos"
            if at == 0 =>
        {
            Some(DataType::Int64)
        }
        "to_timestamp" | "to_date" | "to_time" => Some(DataType::Utf8),
        _ => signature_type(&FUNCTIONS.get(name)?.signature().type_signature, at, count),
    }
}

fn signature_type(signature: &TypeSignature, at: usize, count: usize) -> Option<DataType> {
    match signature {
        TypeSignature::Exact(types) if types.len() == count => json_type(types.get(at)?),
        TypeSignature::Uniform(length, types) if *length == count => json_type(types.first()?),
        TypeSignature::Variadic(types) => json_type(types.first()?),
        TypeSignature::Coercible(coercions) if coercions.len() == count => {
            class_type(coercions.get(at)?)
        }
        TypeSignature::Numeric(length) if *length == count => Some(DataType::Float64),
        TypeSignature::String(length) if *length == count => Some(DataType::Utf8),
        TypeSignature::OneOf(signatures) => signatures
            .iter()
            .find_map(|signature| signature_type(signature, at, count)),
        _ => None,
    }
}

/// The JSON type that is closest to `data_type`: string, integer, float or boolean.
fn json_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        text if is_text(text) => Some(DataType::Utf8),
        integer if integer.is_integer() => Some(DataType::Int64),
        number if number.is_numeric() => Some(DataType::Float64),
        DataType::Boolean => Some(DataType::Boolean),
        _ => None,
    }
}

fn class_type(coercion: &Coercion) -> Option<DataType> {
    match coercion.desired_type() {
        TypeSignatureClass::Native(native) => {
            json_type(&native.default_cast_for(&DataType::Utf8).ok()?)
        }
        TypeSignatureClass::Integer => Some(DataType::Int64),
        TypeSignatureClass::Float | TypeSignatureClass::Decimal | TypeSignatureClass::Numeric => {
            Some(DataType::Float64)
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Clock {
    Now,
    Today,
}

impl Clock {
    fn names(self) -> impl Iterator<Item = &'static str> {
        match self {
            Clock::Now => ["now", "current_timestamp"],
            Clock::Today => ["current_date", "today"],
        }
        .into_iter()
    }
}

/// A function that returns the time at which the batch is evaluated. DataFusion's own functions are
/// replaced at planning time by the time of planning.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WallClock {
    clock: Clock,
    signature: Signature,
}

impl WallClock {
    fn new(clock: Clock) -> WallClock {
        WallClock {
            clock,
            signature: Signature::nullary(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for WallClock {
    fn name(&self) -> &str {
        match self.clock {
            Clock::Now => "now",
            Clock::Today => "current_date",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match self.clock {
            Clock::Now => timestamp(TimeUnit::Microsecond),
            Clock::Today => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let now = ScalarValue::TimestampMicrosecond(
            Some(Utc::now().timestamp_micros()),
            Some("UTC".into()),
        );
        Ok(ColumnarValue::Scalar(
            now.cast_to(args.return_field.data_type())?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::type_name;

    #[test]
    fn required_types_of_arguments() {
        let cases = [
            ("lower(text)", "lower", 0, 1, "utf8"),
            ("length(text)", "length", 0, 1, "utf8"),
            ("substr(text, from)", "substr", 0, 2, "utf8"),
            ("substr(text, from)", "substr", 1, 2, "int64"),
            ("split_part(text, by, nth)", "split_part", 2, 3, "int64"),
            ("lpad(text, length, fill)", "lpad", 2, 3, "utf8"),
            ("round(number)", "round", 0, 1, "float64"),
            ("round(number, digits)", "round", 1, 2, "int64"),
            ("sqrt(number)", "sqrt", 0, 1, "float64"),
            ("abs(number)", "abs", 0, 1, "float64"),
            ("to_hex(number)", "to_hex", 0, 1, "int64"),
            ("chr(number)", "chr", 0, 1, "int64"),
            ("from_unixtime(number)", "from_unixtime", 0, 1, "int64"),
            (
                "to_timestamp_millis(number)",
                "to_timestamp_millis",
                0,
                1,
                "int64",
            ),
            ("to_timestamp(text)", "to_timestamp", 0, 1, "utf8"),
            ("regexp_like(text, pattern)", "regexp_like", 0, 2, "utf8"),
            ("md5(text)", "md5", 0, 1, "utf8"),
            ("starts_with(text, text)", "starts_with", 1, 2, "utf8"),
        ];
        for (shown, name, at, count, expected) in cases {
            let wanted = argument_type(name, at, count).map(|data_type| type_name(&data_type));
            assert_eq!(
                wanted.as_deref(),
                Some(expected),
                "argument {at} of {shown}"
            );
        }
        for (name, at, count) in [
            ("date_trunc", 1, 2),
            ("concat", 0, 2),
            ("no_such_function", 0, 1),
            ("lower", 1, 2),
        ] {
            assert_eq!(argument_type(name, at, count), None, "{name}");
        }
    }
}
