//! A schema from sample records.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use pseidon_plugin::format::json_field;
use sonic_rs::{JsonContainerTrait, JsonNumberTrait, JsonValueTrait, Value};
use std::sync::Arc;

use super::check::Checked;

/// The fields of JSON records, as far as the samples show them, in the order in which they first
/// came: `int64`, `float64` (also for integers beyond 64 bits), `utf8`, `boolean`, structs and
/// lists. What is of several types, or always null, is `json`. Samples that are no JSON objects are
/// left out; it is an error if none is one.
pub fn infer_json_schema(samples: &[Bytes]) -> Result<SchemaRef, String> {
    let mut fields = Vec::new();
    let mut objects = 0;
    for sample in samples {
        let parsed =
            Checked::new(sample).and_then(|checked| checked.parse(sonic_rs::from_str::<Value>));
        let Ok(Shape::Object(more)) = parsed.map(|value| Shape::of(&value)) else {
            continue;
        };
        objects += 1;
        merge_fields(&mut fields, more);
    }
    if objects == 0 {
        return Err(format!(
            "none of {} sample records is a json object",
            samples.len()
        ));
    }
    Ok(Arc::new(Schema::new(
        fields
            .into_iter()
            .map(|(name, shape)| shape.field(&name))
            .collect::<Vec<_>>(),
    )))
}

enum Shape {
    Null,
    Boolean,
    Integer,
    Float,
    Text,
    Object(Vec<(String, Shape)>),
    List(Box<Shape>),
    Mixed,
}

impl Shape {
    fn of(value: &Value) -> Shape {
        if let Some(object) = value.as_object() {
            let mut fields = Vec::new();
            for (name, value) in object {
                merge_fields(&mut fields, vec![(name.to_owned(), Shape::of(value))]);
            }
            return Shape::Object(fields);
        }
        if let Some(list) = value.as_array() {
            return Shape::List(Box::new(
                list.iter().map(Shape::of).fold(Shape::Null, Shape::merge),
            ));
        }
        if let Some(number) = value.as_number() {
            return if number.is_i64() {
                Shape::Integer
            } else {
                Shape::Float
            };
        }
        match () {
            () if value.is_boolean() => Shape::Boolean,
            () if value.is_str() => Shape::Text,
            () => Shape::Null,
        }
    }

    /// What covers both.
    fn merge(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Null, one) | (one, Shape::Null) => one,
            (Shape::Boolean, Shape::Boolean) => Shape::Boolean,
            (Shape::Integer, Shape::Integer) => Shape::Integer,
            (Shape::Integer | Shape::Float, Shape::Integer | Shape::Float) => Shape::Float,
            (Shape::Text, Shape::Text) => Shape::Text,
            (Shape::Object(mut fields), Shape::Object(more)) => {
                merge_fields(&mut fields, more);
                Shape::Object(fields)
            }
            (Shape::List(one), Shape::List(other)) => Shape::List(Box::new(one.merge(*other))),
            _ => Shape::Mixed,
        }
    }

    fn field(self, name: &str) -> Field {
        let data_type = match self {
            Shape::Boolean => DataType::Boolean,
            Shape::Integer => DataType::Int64,
            Shape::Float => DataType::Float64,
            Shape::Text => DataType::Utf8,
            Shape::Object(fields) if !fields.is_empty() => DataType::Struct(
                fields
                    .into_iter()
                    .map(|(name, shape)| Arc::new(shape.field(&name)))
                    .collect(),
            ),
            Shape::List(elements) => {
                DataType::List(Arc::new(elements.field(Field::LIST_FIELD_DEFAULT_NAME)))
            }
            Shape::Null | Shape::Mixed | Shape::Object(_) => return json_field(name),
        };
        Field::new(name, data_type, true)
    }
}

fn merge_fields(fields: &mut Vec<(String, Shape)>, more: Vec<(String, Shape)>) {
    for (name, shape) in more {
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = std::mem::replace(known, Shape::Null).merge(shape),
            None => fields.push((name, shape)),
        }
    }
}
