//! Infers a schema from sample records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::json_field;
use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use super::check::CheckedRecord;
use crate::decimal::fits_float64;
use crate::inferred_fields::{InferredFields, MAX_FIELDS, check_count};

/// Infers the fields of JSON records from samples, in the order of their first occurrence: `int64`,
/// `uint64`, `float64`, `utf8`, `boolean`, structs and lists. A field that has several types, or is
/// always null, is `json`, and so is one with numbers whose digits none of these types keeps, such
/// as fractions and large integers. Samples that are not JSON objects are ignored; it is an error
/// if all of them are, or if they have too many fields.
pub(super) fn infer(samples: &[Payloads]) -> Result<SchemaRef, String> {
    let mut fields = InferredFields::default();
    let mut objects = 0;
    let records = samples.iter().flat_map(Payloads::iter).flatten();
    let count = records.clone().count();
    for sample in records {
        let parsed = CheckedRecord::new(sample).and_then(|checked| {
            checked.parse(|text| {
                let value: LazyValue<'_> = sonic_rs::from_str(text)?;
                InferredType::of(value)
            })
        });
        let Ok(InferredType::Object(more)) = parsed else {
            continue;
        };
        objects += 1;
        merge_fields(&mut fields, more);
    }
    if objects == 0 {
        return Err(format!("none of {count} sample records is a JSON object"));
    }
    let fields = fields.into_iter();
    let schema = Schema::new(
        fields
            .map(|(name, inferred)| inferred.field(&name))
            .collect::<Vec<_>>(),
    );
    check_count(&schema, MAX_FIELDS)?;
    Ok(Arc::new(schema))
}

enum InferredType {
    Null,
    Boolean,
    Integer {
        is_negative: bool,
        /// Whether float64 may not represent it.
        is_large: bool,
    },
    /// An integer that is larger than those of `int64`.
    Unsigned,
    Float,
    Text,
    Object(InferredFields<InferredType>),
    List(Box<InferredType>),
    Mixed,
}

impl InferredType {
    fn of(value: LazyValue<'_>) -> sonic_rs::Result<InferredType> {
        Ok(match value.get_type() {
            JsonType::Null => InferredType::Null,
            JsonType::Boolean => InferredType::Boolean,
            JsonType::Number => InferredType::of_number(value.as_raw_str()),
            JsonType::String => InferredType::Text,
            JsonType::Object => {
                let mut fields = InferredFields::default();
                for entry in value.into_object_iter().into_iter().flatten() {
                    let (name, value) = entry?;
                    merge_field(&mut fields, &name, InferredType::of(value)?);
                }
                InferredType::Object(fields)
            }
            JsonType::Array => {
                let mut elements = InferredType::Null;
                for element in value.into_array_iter().into_iter().flatten() {
                    elements = elements.merge(InferredType::of(element?)?);
                }
                InferredType::List(Box::new(elements))
            }
        })
    }

    fn of_number(number: &str) -> InferredType {
        if let Ok(integer) = number.parse::<i64>() {
            return InferredType::Integer {
                is_negative: integer < 0,
                is_large: integer.unsigned_abs() > 1 << f64::MANTISSA_DIGITS,
            };
        }
        match number.parse::<u64>() {
            Ok(_) => InferredType::Unsigned,
            Err(_) if fits_float64(number) => InferredType::Float,
            Err(_) => InferredType::Mixed,
        }
    }

    /// The type that covers both.
    fn merge(self, other: InferredType) -> InferredType {
        match (self, other) {
            (InferredType::Null, one) | (one, InferredType::Null) => one,
            (InferredType::Boolean, InferredType::Boolean) => InferredType::Boolean,
            (
                InferredType::Integer {
                    is_negative: one_negative,
                    is_large: one_large,
                },
                InferredType::Integer {
                    is_negative,
                    is_large,
                },
            ) => InferredType::Integer {
                is_negative: one_negative || is_negative,
                is_large: one_large || is_large,
            },
            (
                InferredType::Integer {
                    is_negative: false, ..
                }
                | InferredType::Unsigned,
                InferredType::Unsigned,
            )
            | (
                InferredType::Unsigned,
                InferredType::Integer {
                    is_negative: false, ..
                },
            ) => InferredType::Unsigned,
            (
                InferredType::Integer {
                    is_large: false, ..
                }
                | InferredType::Float,
                InferredType::Float,
            )
            | (
                InferredType::Float,
                InferredType::Integer {
                    is_large: false, ..
                },
            ) => InferredType::Float,
            (InferredType::Text, InferredType::Text) => InferredType::Text,
            (InferredType::Object(mut fields), InferredType::Object(more)) => {
                merge_fields(&mut fields, more);
                InferredType::Object(fields)
            }
            (InferredType::List(one), InferredType::List(other)) => {
                InferredType::List(Box::new(one.merge(*other)))
            }
            _ => InferredType::Mixed,
        }
    }

    fn field(self, name: &str) -> Field {
        let data_type = match self {
            InferredType::Boolean => DataType::Boolean,
            InferredType::Integer { .. } => DataType::Int64,
            InferredType::Unsigned => DataType::UInt64,
            InferredType::Float => DataType::Float64,
            InferredType::Text => DataType::Utf8,
            InferredType::Object(fields) if !fields.is_empty() => DataType::Struct(
                fields
                    .into_iter()
                    .map(|(name, inferred)| Arc::new(inferred.field(&name)))
                    .collect(),
            ),
            InferredType::List(elements) => {
                DataType::List(Arc::new(elements.field(Field::LIST_FIELD_DEFAULT_NAME)))
            }
            InferredType::Null | InferredType::Mixed | InferredType::Object(_) => {
                return json_field(name);
            }
        };
        Field::new(name, data_type, true)
    }
}

fn merge_fields(fields: &mut InferredFields<InferredType>, more: InferredFields<InferredType>) {
    for (name, inferred) in more {
        merge_field(fields, &name, inferred);
    }
}

fn merge_field(fields: &mut InferredFields<InferredType>, name: &str, inferred: InferredType) {
    let place = fields.place(name, || InferredType::Null);
    let known = fields.at(place);
    *known = std::mem::replace(known, InferredType::Null).merge(inferred);
}
