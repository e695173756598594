//! The types of a file's values.
//!
//! A schema is read twice: here, to find where values end, and by arrow-avro, to make columns of
//! them. arrow-avro gets a schema that is written from the types found here, with what it needs and
//! no more. In it no type refers to another one by name, so that a part of the fields is a schema
//! too. A value without bytes is a boolean in it, see [`super::padding`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::abbreviate;

/// The maximum number of types that a schema has, if each use of a name counts.
const MAX_TYPES: usize = 10_000;

/// The maximum length of the schema for arrow-avro, in which each use of a name is written out.
const MAX_SCHEMA_BYTES: usize = 4 << 20;

/// How deep types may be nested.
const MAX_DEPTH: usize = 64;

/// The types of a file's records.
pub(super) struct RecordType {
    /// The fields in order, with their names.
    pub(super) fields: Fields,
    /// The schema for arrow-avro.
    pub(super) json: String,
    /// See [`AvroType::is_padded`].
    pub(super) is_padded: bool,
}

/// Fields with their names.
pub(super) type Fields = Vec<(String, Arc<AvroType>)>;

/// The type of a value.
pub(super) struct AvroType {
    pub(super) kind: Kind,
    /// The memory of a value in bytes, as a column. What has no fixed length counts where it is
    /// read.
    pub(super) memory: u64,
    /// Whether it consists of a type whose values have no bytes.
    pub(super) is_padded: bool,
    /// The schema for arrow-avro, of a type without parts.
    json: String,
    /// The length of the whole schema for arrow-avro, about.
    schema_bytes: usize,
    /// How many types it consists of.
    types: usize,
    depth: usize,
}

/// How a value is encoded.
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    /// Bytes of this number, such as a double.
    Fixed(i64),
    Bytes,
    Text,
    /// One of so many symbols.
    Enum(usize),
    Array(Arc<AvroType>),
    Map(Arc<AvroType>),
    Record {
        /// The name in the schema for arrow-avro.
        name: String,
        fields: Fields,
    },
    /// A union with null, which is its first or its second branch.
    Nullable {
        null: i64,
        value: Arc<AvroType>,
    },
}

impl RecordType {
    /// Parses the schema of a file. An error says what of it cannot be read.
    pub(super) fn parse(text: &str) -> Result<RecordType, String> {
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| format!("its schema is not JSON ({error})"))?;
        let mut parser = Parser::default();
        if schema.get("type").and_then(Value::as_str) != Some("record") {
            return Err("its values are not records: write them as the field of a record".into());
        }
        let all = parser.record(&schema, "", &mut Vec::new())?;
        if !all.has_bytes() {
            return Err("its records have no values".to_owned());
        }
        let mut json = String::new();
        all.write_schema(&mut json);
        Ok(RecordType {
            fields: all.fields().to_vec(),
            json,
            is_padded: all.is_padded,
        })
    }
}

#[derive(Default)]
struct Parser {
    /// The named types by their full names; `None` while their definition is being read.
    named: HashMap<String, Option<Arc<AvroType>>>,
    /// How many named types were defined.
    defined: usize,
}

impl Parser {
    /// The type that a schema describes. `namespace` is that of the type around it, and `path` leads
    /// to the value.
    fn value(
        &mut self,
        schema: &Value,
        namespace: &str,
        path: &mut Vec<String>,
    ) -> Result<Arc<AvroType>, String> {
        match schema {
            Value::String(name) => self.by_name(name, namespace, path),
            Value::Array(branches) => self.union(branches, namespace, path),
            Value::Object(attributes) => self.complex(schema, attributes, namespace, path),
            _ => Err(refused(
                path,
                "a type that is not a name, a list or an object",
            )),
        }
    }

    fn by_name(
        &self,
        name: &str,
        namespace: &str,
        path: &[String],
    ) -> Result<Arc<AvroType>, String> {
        let (kind, memory) = match name {
            "null" => (Kind::Null, 1),
            "boolean" => (Kind::Boolean, 1),
            "int" => (Kind::Int, 4),
            "long" => (Kind::Long, 8),
            "float" => (Kind::Fixed(4), 4),
            "double" => (Kind::Fixed(8), 8),
            "bytes" => (Kind::Bytes, 4),
            "string" => (Kind::Text, 4),
            _ => {
                let full = full_name(name, namespace);
                return match self.named.get(&full).or_else(|| self.named.get(name)) {
                    Some(Some(found)) => Ok(found.clone()),
                    Some(None) => Err(refused(
                        path,
                        &format!("the type `{name}`, which contains itself"),
                    )),
                    None => Err(refused(path, &format!("the unknown type `{name}`"))),
                };
            }
        };
        AvroType::of(kind, memory, json!(name), path)
    }

    fn union(
        &mut self,
        branches: &[Value],
        namespace: &str,
        path: &mut Vec<String>,
    ) -> Result<Arc<AvroType>, String> {
        let is_null = |branch: &Value| branch.as_str() == Some("null");
        let (null, other) = match branches {
            [null, other] if is_null(null) && !is_null(other) => (0, other),
            [other, null] if is_null(null) && !is_null(other) => (1, other),
            _ => {
                let names: Vec<String> = branches.iter().map(kind_name).collect();
                let names = abbreviate(&names.join(", "));
                let what = format!("a union of {names}; expected a union of null and one type");
                return Err(refused(path, &what));
            }
        };
        let value = self.value(other, namespace, path)?;
        let memory = value.memory;
        AvroType::of(Kind::Nullable { null, value }, memory, Value::Null, path)
    }

    fn complex(
        &mut self,
        schema: &Value,
        attributes: &Map<String, Value>,
        namespace: &str,
        path: &mut Vec<String>,
    ) -> Result<Arc<AvroType>, String> {
        let part = |name: &str| attributes.get(name).unwrap_or(&Value::Null);
        match part("type") {
            Value::String(name) => match name.as_str() {
                "record" => self.record(schema, namespace, path),
                "enum" => self.symbols(attributes, namespace, path),
                "fixed" => self.fixed(attributes, namespace, path),
                "array" => {
                    let item = self.value(part("items"), namespace, path)?;
                    AvroType::of(Kind::Array(item), 4, Value::Null, path)
                }
                "map" => {
                    let value = self.value(part("values"), namespace, path)?;
                    AvroType::of(Kind::Map(value), 4, Value::Null, path)
                }
                _ => self.primitive(name, attributes, namespace, path),
            },
            other => self.value(other, namespace, path),
        }
    }

    /// A type with a name that may have a logical type.
    fn primitive(
        &self,
        name: &str,
        attributes: &Map<String, Value>,
        namespace: &str,
        path: &[String],
    ) -> Result<Arc<AvroType>, String> {
        let plain = self.by_name(name, namespace, path)?;
        let logical = attributes.get("logicalType").and_then(Value::as_str);
        // A string that is a `uuid` stays a string.
        let Some(logical) = logical.filter(|logical| match name {
            "int" => matches!(*logical, "date" | "time-millis"),
            "long" => {
                *logical == "time-micros"
                    || logical
                        .trim_start_matches("local-")
                        .starts_with("timestamp-")
            }
            "bytes" => *logical == "decimal",
            _ => false,
        }) else {
            return Ok(plain);
        };
        let mut json = json!({"type": name, "logicalType": logical});
        copy(&["precision", "scale"], attributes, &mut json);
        let (kind, memory) = match name {
            "int" => (Kind::Int, 4),
            "long" => (Kind::Long, 8),
            _ => (Kind::Bytes, 32),
        };
        AvroType::of(kind, memory, json, path)
    }

    fn record(
        &mut self,
        schema: &Value,
        namespace: &str,
        path: &mut Vec<String>,
    ) -> Result<Arc<AvroType>, String> {
        let none = Map::new();
        let attributes = schema.as_object().unwrap_or(&none);
        let (full, namespace) = self.begin(attributes, namespace);
        let mut fields = Fields::new();
        for field in attributes
            .get("fields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = field
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            path.push(name.to_owned());
            let value = self.value(field.get("type").unwrap_or(&Value::Null), &namespace, path)?;
            path.pop();
            fields.push((name.to_owned(), value));
        }
        let memory = fields
            .iter()
            .fold(0, |sum, (_, part)| part.memory.saturating_add(sum));
        let name = self.new_name();
        let kind = Kind::Record { name, fields };
        let record = AvroType::of(kind, memory.max(1), Value::Null, path)?;
        self.named.insert(full, Some(record.clone()));
        Ok(record)
    }

    fn symbols(
        &mut self,
        attributes: &Map<String, Value>,
        namespace: &str,
        path: &[String],
    ) -> Result<Arc<AvroType>, String> {
        let (full, _) = self.begin(attributes, namespace);
        let count = attributes.get("symbols").and_then(Value::as_array);
        let kind = Kind::Enum(count.map_or(0, Vec::len));
        let mut json = json!({"type": "enum", "name": self.new_name()});
        copy(&["symbols"], attributes, &mut json);
        let found = AvroType::of(kind, 4, json, path)?;
        self.named.insert(full, Some(found.clone()));
        Ok(found)
    }

    fn fixed(
        &mut self,
        attributes: &Map<String, Value>,
        namespace: &str,
        path: &[String],
    ) -> Result<Arc<AvroType>, String> {
        let (full, _) = self.begin(attributes, namespace);
        let size = attributes.get("size").and_then(Value::as_u64);
        let Some(size) = size.and_then(|size| i32::try_from(size).ok()) else {
            return Err(refused(path, "a `fixed` type without a valid size"));
        };
        let mut json = json!({"type": "fixed", "name": self.new_name(), "size": size});
        let logical = attributes.get("logicalType").and_then(Value::as_str);
        let is_uuid = logical == Some("uuid") && size == 16;
        if is_uuid || matches!(logical, Some("decimal" | "duration")) {
            copy(
                &["logicalType", "precision", "scale"],
                attributes,
                &mut json,
            );
        }
        let memory = (size as u64).max(32);
        let found = AvroType::of(Kind::Fixed(i64::from(size)), memory, json, path)?;
        self.named.insert(full, Some(found.clone()));
        Ok(found)
    }

    /// Begins the definition of a named type. Returns its full name, and the namespace inside of it.
    fn begin(&mut self, attributes: &Map<String, Value>, namespace: &str) -> (String, String) {
        let text = |name: &str| attributes.get(name).and_then(Value::as_str);
        let full = full_name(
            text("name").unwrap_or_default(),
            text("namespace").unwrap_or(namespace),
        );
        self.named.insert(full.clone(), None);
        let inside = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let inside = inside.to_owned();
        (full, inside)
    }

    /// The name of a type in the schema for arrow-avro.
    fn new_name(&mut self) -> String {
        self.defined += 1;
        format!("t{}", self.defined)
    }
}

impl AvroType {
    /// A type. `json` is the schema for arrow-avro of a type without parts.
    fn of(kind: Kind, memory: u64, json: Value, path: &[String]) -> Result<Arc<AvroType>, String> {
        let mut found = AvroType {
            is_padded: kind.has_no_bytes(),
            json: json.to_string(),
            schema_bytes: 0,
            types: 1,
            depth: 1,
            memory,
            kind,
        };
        found.schema_bytes = found.json.len();
        for (name, part) in found.kind.parts() {
            // With the keys around the name and the type.
            let bytes = part.schema_bytes.saturating_add(name.len() + 32);
            found.schema_bytes = found.schema_bytes.saturating_add(bytes);
            found.types = found.types.saturating_add(part.types);
            found.depth = found.depth.max(1 + part.depth);
            found.is_padded |= part.is_padded;
        }
        let what = if found.types > MAX_TYPES {
            format!("more than {MAX_TYPES} types")
        } else if found.depth > MAX_DEPTH {
            format!("types nested more than {MAX_DEPTH} deep")
        } else if found.schema_bytes > MAX_SCHEMA_BYTES {
            let limit = MAX_SCHEMA_BYTES >> 20;
            format!(
                "a type longer than {limit} MiB, if each use of a name is written out: write large \
                 enums as strings, or use their names less often"
            )
        } else {
            return Ok(Arc::new(found));
        };
        Err(refused(path, &what))
    }

    /// Writes the schema for arrow-avro.
    fn write_schema(&self, out: &mut String) {
        match &self.kind {
            kind if kind.has_no_bytes() => out.push_str("\"boolean\""),
            Kind::Array(item) => {
                out.push_str(r#"{"type":"array","items":"#);
                item.write_schema(out);
                out.push('}');
            }
            Kind::Map(value) => {
                out.push_str(r#"{"type":"map","values":"#);
                value.write_schema(out);
                out.push('}');
            }
            Kind::Nullable { null, value } => {
                out.push_str(if *null == 0 { r#"["null","# } else { "[" });
                value.write_schema(out);
                out.push_str(if *null == 0 { "]" } else { r#","null"]"# });
            }
            Kind::Record { name, fields } => {
                let _ = write!(out, r#"{{"type":"record","name":"{name}","fields":["#);
                for (number, (name, value)) in fields.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    let _ = write!(out, r#"{comma}{{"name":{},"type":"#, json!(name));
                    value.write_schema(out);
                    out.push('}');
                }
                out.push_str("]}");
            }
            _ => out.push_str(&self.json),
        }
    }

    /// The fields of a record.
    fn fields(&self) -> &[(String, Arc<AvroType>)] {
        match &self.kind {
            Kind::Record { fields, .. } => fields,
            _ => &[],
        }
    }

    /// Whether each value has at least one byte.
    fn has_bytes(&self) -> bool {
        match &self.kind {
            Kind::Record { fields, .. } => fields.iter().any(|(_, field)| field.has_bytes()),
            kind => !kind.has_no_bytes(),
        }
    }
}

impl Kind {
    /// Whether it is a type without parts whose values have no bytes.
    pub(super) fn has_no_bytes(&self) -> bool {
        match self {
            Kind::Null | Kind::Fixed(0) => true,
            Kind::Record { fields, .. } => fields.is_empty(),
            _ => false,
        }
    }

    /// The types that it consists of, with the names of fields.
    fn parts(&self) -> Vec<(&str, &AvroType)> {
        match self {
            Kind::Array(part) | Kind::Map(part) | Kind::Nullable { value: part, .. } => {
                vec![("", part)]
            }
            Kind::Record { fields, .. } => fields
                .iter()
                .map(|(name, part)| (name.as_str(), part.as_ref()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Says that what is at a path cannot be read.
fn refused(path: &[String], what: &str) -> String {
    match path {
        [] => format!("its schema cannot be read: it has {what}"),
        path => format!(
            "the field `{}` cannot be read: it has {what}",
            path.join(".")
        ),
    }
}

/// The name of a type with its namespace.
fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

/// What a type is called in messages.
fn kind_name(schema: &Value) -> String {
    let named = |schema: &Value| schema.as_str().map(str::to_owned);
    named(schema)
        .or_else(|| schema.get("type").and_then(named))
        .unwrap_or_else(|| "another type".to_owned())
}

fn copy(names: &[&str], from: &Map<String, Value>, to: &mut Value) {
    for name in names {
        if let Some(value) = from.get(*name) {
            to[*name] = value.clone();
        }
    }
}
