//! Converts Hive types to Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use pest::Parser;
use pest::iterators::Pair;
use pest_derive::Parser;

#[derive(Parser)]
#[grammar = "hive_type.pest"]
struct Grammar;

/// The maximum nesting of types. Parsing them is recursive and uses the stack.
const MAX_DEPTH: usize = 64;

/// Hive's default precision and scale of a decimal.
const DEFAULT_DECIMAL: (u8, i8) = (10, 0);

/// The types without parameters.
const NAMES: [(&str, DataType); 15] = [
    ("tinyint", DataType::Int8),
    ("smallint", DataType::Int16),
    ("int", DataType::Int32),
    ("integer", DataType::Int32),
    ("bigint", DataType::Int64),
    ("float", DataType::Float32),
    ("double", DataType::Float64),
    ("double precision", DataType::Float64),
    ("string", DataType::Utf8),
    ("varchar", DataType::Utf8),
    ("char", DataType::Utf8),
    ("boolean", DataType::Boolean),
    ("date", DataType::Date32),
    ("binary", DataType::Binary),
    ("long", DataType::Int64),
];

/// Returns the Arrow type of a Hive type. The error says which part of the type is not supported.
pub(crate) fn arrow_type(text: &str) -> Result<DataType, String> {
    if text.matches('<').count() > MAX_DEPTH {
        return Err(format!("types are nested too deeply (limit {MAX_DEPTH})"));
    }
    let mut pairs = Grammar::parse(Rule::hive_type, text).map_err(|_| "invalid type".to_owned())?;
    pairs
        .next()
        .ok_or_else(|| "missing type".to_owned())
        .and_then(read)
}

fn read(pair: Pair<'_, Rule>) -> Result<DataType, String> {
    match pair.as_rule() {
        Rule::array => {
            let [item] = inner(pair)?;
            Ok(DataType::List(Arc::new(Field::new("item", item, true))))
        }
        Rule::map => {
            // Named as in Parquet. A key is never null.
            let [key, value] = inner(pair)?;
            let entry = Fields::from(vec![
                Field::new("key", key, false),
                Field::new("value", value, true),
            ]);
            Ok(DataType::Map(
                Arc::new(Field::new("key_value", DataType::Struct(entry), false)),
                false,
            ))
        }
        Rule::structure => {
            let fields = pair
                .into_inner()
                .map(field)
                .collect::<Result<Vec<_>, _>>()?;
            if fields.is_empty() {
                return Err("a struct without fields is not supported".to_owned());
            }
            Ok(DataType::Struct(fields.into()))
        }
        Rule::union => Err("unions are not supported in parquet and avro files".to_owned()),
        _ => named(pair),
    }
}

/// The type's parameters. The grammar ensures their number.
fn inner<const N: usize>(pair: Pair<'_, Rule>) -> Result<[DataType; N], String> {
    let types = pair.into_inner().map(read).collect::<Result<Vec<_>, _>>()?;
    types.try_into().map_err(|_| "invalid type".to_owned())
}

fn field(pair: Pair<'_, Rule>) -> Result<Field, String> {
    let mut parts = pair.into_inner();
    let name = parts
        .next()
        .map_or("", |name| name.as_str())
        .trim_matches('`')
        .to_lowercase();
    let [data_type] = [parts
        .next()
        .ok_or_else(|| format!("the field {name} has no type"))
        .and_then(read)?];
    Ok(Field::new(name, data_type, true))
}

fn named(pair: Pair<'_, Rule>) -> Result<DataType, String> {
    let mut parts = pair.into_inner().map(|part| part.as_str());
    let words: Vec<String> = parts
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let name = words.join(" ");
    let numbers: Vec<&str> = parts.collect();
    match name.as_str() {
        "decimal" | "numeric" => decimal(&numbers),
        "timestamp" | "timestamp with local time zone" => Ok(DataType::Timestamp(
            TimeUnit::Microsecond,
            Some("UTC".into()),
        )),
        _ => match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, data_type)) => Ok(data_type.clone()),
            None => Err(format!("{name} is not supported in parquet and avro files")),
        },
    }
}

fn decimal(numbers: &[&str]) -> Result<DataType, String> {
    let (precision, scale) = match numbers {
        [] => return Ok(DataType::Decimal128(DEFAULT_DECIMAL.0, DEFAULT_DECIMAL.1)),
        [precision] => (*precision, "0"),
        [precision, scale, ..] => (*precision, *scale),
    };
    match (precision.parse::<u8>(), scale.parse::<i8>()) {
        (Ok(precision @ 1..=DECIMAL128_MAX_PRECISION), Ok(scale)) if scale as u8 <= precision => {
            Ok(DataType::Decimal128(precision, scale))
        }
        _ => Err(format!(
            "invalid decimal; expected a precision of 1 to {DECIMAL128_MAX_PRECISION} and a scale \
             of at most the precision"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }

    fn map(key: DataType, value: DataType) -> DataType {
        let entry = vec![
            Field::new("key", key, false),
            Field::new("value", value, true),
        ];
        DataType::Map(
            Arc::new(Field::new(
                "key_value",
                DataType::Struct(entry.into()),
                false,
            )),
            false,
        )
    }

    fn structure(fields: Vec<(&str, DataType)>) -> DataType {
        DataType::Struct(
            fields
                .into_iter()
                .map(|(name, data_type)| Field::new(name, data_type, true))
                .collect(),
        )
    }

    #[test]
    fn supported_types_are_converted() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (hive, arrow) in [
            ("tinyint", DataType::Int8),
            ("smallint", DataType::Int16),
            ("int", DataType::Int32),
            ("INTEGER", DataType::Int32),
            ("bigint", DataType::Int64),
            ("float", DataType::Float32),
            ("double", DataType::Float64),
            ("double  precision", DataType::Float64),
            ("decimal", DataType::Decimal128(10, 0)),
            ("decimal(12)", DataType::Decimal128(12, 0)),
            ("decimal(38,38)", DataType::Decimal128(38, 38)),
            ("Decimal( 10 , 2 )", DataType::Decimal128(10, 2)),
            ("string", DataType::Utf8),
            ("varchar(20)", DataType::Utf8),
            ("char(3)", DataType::Utf8),
            ("boolean", DataType::Boolean),
            ("timestamp", time.clone()),
            ("timestamp with local time zone", time.clone()),
            ("date", DataType::Date32),
            ("binary", DataType::Binary),
            ("array<string>", list(DataType::Utf8)),
            ("array < array<int> >", list(list(DataType::Int32))),
            ("map<string,bigint>", map(DataType::Utf8, DataType::Int64)),
            (
                "map<string,array<decimal(5,1)>>",
                map(DataType::Utf8, list(DataType::Decimal128(5, 1))),
            ),
            (
                "struct<a:int,B:string>",
                structure(vec![("a", DataType::Int32), ("b", DataType::Utf8)]),
            ),
            (
                "struct<`odd name`:int, array:array<int>>",
                structure(vec![
                    ("odd name", DataType::Int32),
                    ("array", list(DataType::Int32)),
                ]),
            ),
            (
                "array<struct<at:timestamp>>",
                list(structure(vec![("at", time)])),
            ),
        ] {
            assert_eq!(arrow_type(hive), Ok(arrow), "{hive}");
        }
    }

    #[test]
    fn unsupported_types_are_rejected() {
        for (hive, expected) in [
            ("uniontype<int,string>", "unions are not supported"),
            ("array<uniontype<int>>", "unions are not supported"),
            (
                "interval_year_month",
                "interval_year_month is not supported",
            ),
            ("void", "void is not supported"),
            ("struct<>", "without fields"),
            ("decimal(39,0)", "precision of 1 to 38"),
            ("decimal(0)", "precision of 1 to 38"),
            ("decimal(3,4)", "precision of 1 to 38"),
            ("decimal(999,1)", "precision of 1 to 38"),
            ("", "invalid type"),
            ("array<int", "invalid type"),
            ("array<>", "invalid type"),
            ("map<string>", "invalid type"),
            ("struct<a>", "invalid type"),
            ("int,int", "invalid type"),
        ] {
            let reason = arrow_type(hive).unwrap_err();
            assert!(reason.contains(expected), "{hive}: {reason}");
        }
        let deep = format!("{}int{}", "array<".repeat(100_000), ">".repeat(100_000));
        assert!(arrow_type(&deep).unwrap_err().contains("nested"));
    }

    proptest! {
        #[test]
        fn no_type_panics(text in "(array|map|struct|decimal|int|[<>:,() `a0])*") {
            let _ = arrow_type(&text);
        }
    }
}
