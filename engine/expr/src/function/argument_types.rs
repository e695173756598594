//! The types that functions require of their arguments, from which the types of untyped JSON fields
//! follow.

use arrow::datatypes::DataType;
use datafusion_expr::{Coercion, TypeSignature, TypeSignatureClass};

use super::FUNCTIONS;
use crate::types::is_text;

/// The type that a function requires of its argument `at` (starting at 0) of `count` arguments.
/// `None` if it requires none, or one that JSON does not have.
pub(crate) fn argument_type(name: &str, at: usize, count: usize) -> Option<DataType> {
    match name {
        // They accept more than one of the types that a JSON value can have, so their signatures do
        // not decide.
        "to_timestamp_seconds"
        | "to_timestamp_millis"
        | "to_timestamp_micros"
        | "to_timestamp_nanos"
            if at == 0 =>
        {
            Some(DataType::Int64)
        }
        "to_timestamp" | "to_date" | "to_time" => Some(DataType::Utf8),
        // An integer stays one.
        "abs" | "ceil" | "ceiling" | "floor" | "round" | "trunc" if at == 0 => None,
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
            ("round(number, digits)", "round", 1, 2, "int64"),
            ("sqrt(number)", "sqrt", 0, 1, "float64"),
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
            ("abs", 0, 1),
            ("round", 0, 2),
        ] {
            assert_eq!(argument_type(name, at, count), None, "{name}");
        }
    }
}
