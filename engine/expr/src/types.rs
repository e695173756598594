//! Names of Arrow types as users write them.
//!
//! Both Arrow's names (`int64`, `utf8`, `timestamp_ms`) and SQL's names (`bigint`, `text`,
//! `timestamp`) are accepted. Types are printed with Arrow's names, a struct as `{a int64, b utf8}`
//! and a list as `[int64]`. Timestamps are in UTC. SQL's `timestamp` has microseconds.

use std::collections::HashMap;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, IntervalUnit, TimeUnit,
};

/// The name of Arrow's canonical extension type for JSON text.
const JSON_EXTENSION: &str = "arrow.json";
const EXTENSION_KEY: &str = "ARROW:extension:name";

/// The name of the type of a column of JSON values.
const JSON: &str = "json";

/// The time zone of all timestamps.
const UTC: &str = "UTC";

/// The names of types without parameters. The first name of each type is the one that is printed.
const NAMES: [(&str, DataType); 43] = [
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("utf8", DataType::Utf8),
    ("binary", DataType::Binary),
    ("boolean", DataType::Boolean),
    ("date32", DataType::Date32),
    ("time64", DataType::Time64(TimeUnit::Microsecond)),
    ("interval", DataType::Interval(IntervalUnit::MonthDayNano)),
    ("null", DataType::Null),
    ("tinyint", DataType::Int8),
    ("smallint", DataType::Int16),
    ("int", DataType::Int32),
    ("integer", DataType::Int32),
    ("bigint", DataType::Int64),
    ("long", DataType::Int64),
    ("real", DataType::Float32),
    ("float", DataType::Float32),
    ("double", DataType::Float64),
    ("double precision", DataType::Float64),
    ("text", DataType::Utf8),
    ("string", DataType::Utf8),
    ("varchar", DataType::Utf8),
    ("char", DataType::Utf8),
    ("char varying", DataType::Utf8),
    ("character varying", DataType::Utf8),
    ("bytea", DataType::Binary),
    ("blob", DataType::Binary),
    ("varbinary", DataType::Binary),
    ("bytes", DataType::Binary),
    ("bool", DataType::Boolean),
    ("date", DataType::Date32),
    ("time", DataType::Time64(TimeUnit::Microsecond)),
    ("large_utf8", DataType::LargeUtf8),
    ("utf8_view", DataType::Utf8View),
    ("large_binary", DataType::LargeBinary),
];

/// Names of types in other systems, each with the name here.
const FOREIGN_NAMES: [(&str, &str); 14] = [
    ("float4", "float32"),
    ("float8", "float64"),
    ("hugeint", "decimal(38,0)"),
    ("int1", "int8"),
    ("int128", "decimal(38,0)"),
    ("int2", "int16"),
    ("int4", "int32"),
    ("jsonb", "json"),
    ("long", "int64"),
    ("short", "int16"),
    ("ubigint", "uint64"),
    ("uinteger", "uint32"),
    ("usmallint", "uint16"),
    ("utinyint", "uint8"),
];

/// The names of timestamps. The first name of each unit is the one that is printed.
const TIMESTAMPS: [(&str, TimeUnit); 6] = [
    ("timestamp_s", TimeUnit::Second),
    ("timestamp_ms", TimeUnit::Millisecond),
    ("timestamp_us", TimeUnit::Microsecond),
    ("timestamp_ns", TimeUnit::Nanosecond),
    ("timestamp", TimeUnit::Microsecond),
    ("timestamptz", TimeUnit::Microsecond),
];

/// The names of durations: the differences of timestamps.
const DURATIONS: [(&str, TimeUnit); 4] = [
    ("duration_s", TimeUnit::Second),
    ("duration_ms", TimeUnit::Millisecond),
    ("duration_us", TimeUnit::Microsecond),
    ("duration_ns", TimeUnit::Nanosecond),
];

/// The precision and scale of `decimal` without parameters.
const DEFAULT_DECIMAL: (u8, i8) = (38, 10);

/// The type of a timestamp in UTC.
pub(crate) fn timestamp(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some(UTC.into()))
}

/// The type in which a date and a timestamp are combined: that of the timestamp. Arrow takes
/// nanoseconds, which end in the year 2262. `None` for other types.
pub(crate) fn with_date(left: &DataType, right: &DataType) -> Option<DataType> {
    match (left, right) {
        (DataType::Date32, DataType::Timestamp(unit, _))
        | (DataType::Timestamp(unit, _), DataType::Date32) => Some(timestamp(*unit)),
        _ => None,
    }
}

/// A column of JSON values as source text: the column of a payload path without a known type.
pub fn json_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true).with_metadata(HashMap::from([(
        EXTENSION_KEY.to_owned(),
        JSON_EXTENSION.to_owned(),
    )]))
}

/// Whether a column contains JSON values as source text.
pub fn is_json(field: &Field) -> bool {
    field
        .metadata()
        .get(EXTENSION_KEY)
        .is_some_and(|name| name == JSON_EXTENSION)
}

/// A column named `column` of the type named `name`. It accepts the names of [`parse_type`] and
/// `json`, which is not an Arrow type but a string column with the metadata of [`json_field`].
pub fn parse_field(column: &str, name: &str) -> Result<Field, String> {
    if name.trim().eq_ignore_ascii_case(JSON) {
        return Ok(json_field(column));
    }
    Ok(Field::new(column, parse_type(name)?, true))
}

/// The type with this name, ignoring case: Arrow's names (`int64`, `utf8`, `timestamp_ms`), SQL's
/// names (`bigint`, `text`, `timestamp`, `varchar(20)`, whose length is not enforced) and
/// `decimal(10,2)`. The error is a message for the user and suggests the nearest name.
pub fn parse_type(name: &str) -> Result<DataType, String> {
    let lower = name.trim().to_ascii_lowercase();
    // All times are in UTC, so both forms are the same type.
    let lower = lower
        .strip_suffix(" with time zone")
        .or_else(|| lower.strip_suffix(" without time zone"))
        .unwrap_or(&lower);
    let (word, parameters) = match lower.split_once('(') {
        Some((word, rest)) => {
            let inner = rest
                .strip_suffix(')')
                .ok_or_else(|| format!("the type `{lower}` is missing its closing parenthesis"))?;
            (word.trim(), Some(inner))
        }
        None => (lower, None),
    };
    if matches!(word, "decimal" | "numeric") {
        return decimal(word, parameters);
    }
    if let Some(parameters) = parameters {
        return match word {
            "varchar" | "char" | "char varying" | "character varying"
                if parameters.trim().parse::<u32>().is_ok() =>
            {
                Ok(DataType::Utf8)
            }
            "timestamp" => match parameters.trim() {
                "0" => Ok(timestamp(TimeUnit::Second)),
                "3" => Ok(timestamp(TimeUnit::Millisecond)),
                "6" => Ok(timestamp(TimeUnit::Microsecond)),
                "9" => Ok(timestamp(TimeUnit::Nanosecond)),
                _ => Err(format!(
                    "invalid precision in timestamp({parameters}); expected timestamp(0), (3), \
                        (6) or (9)"
                )),
            },
            _ => Err(format!(
                "the type `{word}` does not accept parameters, found ({parameters})"
            )),
        };
    }
    if let Some((_, data_type)) = NAMES.iter().find(|(known, _)| *known == word) {
        return Ok(data_type.clone());
    }
    if let Some((_, unit)) = TIMESTAMPS.iter().find(|(known, _)| *known == word) {
        return Ok(timestamp(*unit));
    }
    if let Some((_, unit)) = DURATIONS.iter().find(|(known, _)| *known == word) {
        return Ok(DataType::Duration(*unit));
    }
    let timestamps = TIMESTAMPS.iter().chain(&DURATIONS);
    let timestamps = timestamps.map(|(known, _)| *known);
    let known = NAMES
        .iter()
        .map(|(known, _)| *known)
        .chain(timestamps)
        .chain(["decimal", "numeric", JSON]);
    let foreign = FOREIGN_NAMES.iter().find(|(foreign, _)| *foreign == word);
    let near = foreign.map(|(_, here)| *here);
    Err(match near.or_else(|| pseidon_dsl::nearest(word, known)) {
        Some(nearest) => format!("unknown type `{word}`; did you mean `{nearest}`?"),
        None => format!(
            "unknown type `{word}`; expected a type such as int64, float64, utf8, boolean, \
                timestamp, date or decimal(10,2)"
        ),
    })
}

/// Parses `decimal`, `decimal(10)` and `decimal(10,2)`. `word` is `decimal` or `numeric`.
fn decimal(word: &str, parameters: Option<&str>) -> Result<DataType, String> {
    let Some(parameters) = parameters else {
        return Ok(DataType::Decimal128(DEFAULT_DECIMAL.0, DEFAULT_DECIMAL.1));
    };
    let (precision, scale) = parameters.split_once(',').unwrap_or((parameters, "0"));
    let numbers = precision
        .trim()
        .parse::<u8>()
        .ok()
        .zip(scale.trim().parse::<u8>().ok());
    match numbers {
        Some((precision, scale))
            if precision > 0 && scale <= precision && precision <= DECIMAL128_MAX_PRECISION =>
        {
            Ok(DataType::Decimal128(precision, scale as i8))
        }
        Some((precision, scale))
            if scale <= precision
                && (DECIMAL128_MAX_PRECISION..=DECIMAL256_MAX_PRECISION).contains(&precision) =>
        {
            Ok(DataType::Decimal256(precision, scale as i8))
        }
        _ => Err(format!(
            "invalid {word}({parameters}); expected a precision from 1 to \
                {DECIMAL256_MAX_PRECISION} and a scale of at most the precision"
        )),
    }
}

/// The name of a type for users. [`parse_type`] accepts it, except for structs and lists.
pub fn type_name(data_type: &DataType) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, known)| known == data_type) {
        return (*name).to_owned();
    }
    match data_type {
        DataType::Timestamp(unit, _) => TIMESTAMPS
            .iter()
            .find(|(_, known)| known == unit)
            .map_or_else(String::new, |(name, _)| (*name).to_owned()),
        DataType::Duration(unit) => DURATIONS
            .iter()
            .find(|(_, known)| known == unit)
            .map_or_else(String::new, |(name, _)| (*name).to_owned()),
        DataType::Map(entries, _) => match map_parts(entries) {
            Some((key, value)) => {
                format!("map({}, {})", field_type_name(key), field_type_name(value))
            }
            None => "map".to_owned(),
        },
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), field_type_name(field)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("[{}]", field_type_name(item))
        }
        DataType::Dictionary(_, value) => type_name(value),
        other => other.to_string().to_ascii_lowercase(),
    }
}

/// The keys and the values of a map with these entries.
pub fn map_parts(entries: &Field) -> Option<(&Field, &Field)> {
    match entries.data_type() {
        DataType::Struct(fields) => match fields.iter().as_slice() {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

/// The name of a column's type for users: `json` for a column of JSON values, else [`type_name`].
pub fn field_type_name(field: &Field) -> String {
    if is_json(field) {
        JSON.to_owned()
    } else {
        type_name(field.data_type())
    }
}

/// Whether the type is one of Arrow's string types.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// The canonical type for the same values. Some functions return strings as views, or times without
/// a zone.
pub(crate) fn canonical(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => canonical(value),
        DataType::Timestamp(unit, _) => timestamp(*unit),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_are_parsed_and_printed() {
        let cases = [
            ("int64", "int64"),
            ("BIGINT", "int64"),
            (" integer ", "int32"),
            ("smallint", "int16"),
            ("tinyint", "int8"),
            ("uint32", "uint32"),
            ("double", "float64"),
            ("double precision", "float64"),
            ("real", "float32"),
            ("text", "utf8"),
            ("varchar(20)", "utf8"),
            ("bool", "boolean"),
            ("date", "date32"),
            ("timestamp", "timestamp_us"),
            ("timestamp_ms", "timestamp_ms"),
            ("timestamp_ns", "timestamp_ns"),
            ("timestamp_s", "timestamp_s"),
            ("decimal(10,2)", "decimal(10,2)"),
            ("numeric( 12 , 0 )", "decimal(12,0)"),
            ("decimal(60,5)", "decimal(60,5)"),
            ("decimal(10)", "decimal(10,0)"),
            ("decimal", "decimal(38,10)"),
            ("interval", "interval"),
            ("duration_s", "duration_s"),
            ("DURATION_NS", "duration_ns"),
            ("time", "time64"),
            ("timestamp(3)", "timestamp_ms"),
            ("timestamp(9) with time zone", "timestamp_ns"),
            ("timestamp without time zone", "timestamp_us"),
            ("character varying(3)", "utf8"),
        ];
        for (name, printed) in cases {
            let data_type = parse_type(name).unwrap();
            assert_eq!(type_name(&data_type), printed, "{name}");
            assert_eq!(parse_type(printed).unwrap(), data_type, "{name}");
        }
    }

    #[test]
    fn timestamps_are_in_utc() {
        assert_eq!(
            parse_type("timestamp_ms"),
            Ok(DataType::Timestamp(
                TimeUnit::Millisecond,
                Some("UTC".into())
            ))
        );
    }

    #[test]
    fn every_printed_name_is_parsed() {
        for (_, data_type) in &NAMES {
            assert_eq!(parse_type(&type_name(data_type)).as_ref(), Ok(data_type));
        }
    }

    #[test]
    fn nested_types_are_printed() {
        let user = Field::new(
            "user",
            DataType::Struct(
                vec![Field::new("id", DataType::Utf8, true), json_field("more")].into(),
            ),
            true,
        );
        assert_eq!(field_type_name(&user), "{id utf8, more json}");
        assert_eq!(
            type_name(&DataType::List(Arc::new(Field::new_list_field(
                DataType::Int64,
                true
            )))),
            "[int64]"
        );
        assert_eq!(
            type_name(&DataType::List(Arc::new(user))),
            "[{id utf8, more json}]"
        );
    }

    #[test]
    fn json_is_a_string_with_metadata() {
        let field = parse_field("a", "JSON").unwrap();
        assert!(is_json(&field));
        assert_eq!(field.data_type(), &DataType::Utf8);
        assert!(!is_json(&parse_field("a", "utf8").unwrap()));
    }

    #[test]
    fn errors_are_explained() {
        let cases = [
            (
                "decimal(10,11)",
                "invalid decimal(10,11); expected a precision from 1 to 76 and a scale of at most \
                    the precision",
            ),
            (
                "decimal(0,0)",
                "invalid decimal(0,0); expected a precision from 1 to 76 and a scale of at most \
                    the precision",
            ),
            (
                "decimal(99)",
                "invalid decimal(99); expected a precision from 1 to 76 and a scale of at most \
                    the precision",
            ),
            ("ubigint", "unknown type `ubigint`; did you mean `uint64`?"),
            ("int4", "unknown type `int4`; did you mean `int32`?"),
            ("float8", "unknown type `float8`; did you mean `float64`?"),
            (
                "hugeint",
                "unknown type `hugeint`; did you mean `decimal(38,0)`?",
            ),
            (
                "decimal(1",
                "the type `decimal(1` is missing its closing parenthesis",
            ),
            (
                "int64(3)",
                "the type `int64` does not accept parameters, found (3)",
            ),
        ];
        for (name, message) in cases {
            assert_eq!(parse_type(name).unwrap_err(), message);
        }
        assert!(
            parse_type("in64")
                .unwrap_err()
                .starts_with("unknown type `in64`")
        );
        assert!(parse_type("").is_err());
    }
}
