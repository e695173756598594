//! The types of a file's values.
//!
//! A schema is read twice: here, to find where values end, and by arrow-avro, to make columns of
//! them. arrow-avro gets a schema that is written from the types found here, with what it needs and
//! no more. In it no type refers to another one by name, so that a part of the fields is a schema
//! too.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// The maximum number of types that a schema has, if each use of a name counts.
const MAX_TYPES: usize = 10_000;

/// How deep types may be nested.
const MAX_DEPTH: usize = 64;

/// The types of a file's records.
pub(super) struct RecordType {
    /// The fields in order, with their names.
    pub(super) fields: Vec<(String, Arc<AvroType>)>,
    /// The schema for arrow-avro.
    pub(super) json: String,
}

/// The type of a value.
pub(super) struct AvroType {
    pub(super) kind: Kind,
    /// The memory of a value in bytes, as a column. What has no fixed length counts where it is
    /// read.
    pub(super) memory: u64,
    /// The schema for arrow-avro.
    json: Value,
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
    Record(Vec<Arc<AvroType>>),
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
        let (fields, all) = parser.record(&schema, "", &mut Vec::new())?;
        if !all.has_bytes() {
            return Err("its records have no values".to_owned());
        }
        Ok(RecordType {
            fields,
            json: all.json.to_string(),
        })
    }
}

/// Fields with their names.
type Fields = Vec<(String, Arc<AvroType>)>;

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
        AvroType::of(kind, memory, json!(name), &[], path)
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
                let what = format!(
                    "a union of {}; expected a union of null and one type",
                    names.join(", ")
                );
                return Err(refused(path, &what));
            }
        };
        let value = self.value(other, namespace, path)?;
        let json = match null {
            0 => json!(["null", value.json]),
            _ => json!([value.json, "null"]),
        };
        let kind = Kind::Nullable {
            null,
            value: value.clone(),
        };
        AvroType::of(kind, value.memory, json, &[value], path)
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
                "record" => self.record(schema, namespace, path).map(|(_, all)| all),
                "enum" => self.symbols(attributes, namespace, path),
                "fixed" => self.fixed(attributes, namespace, path),
                "array" => {
                    let item = self.value(part("items"), namespace, path)?;
                    let json = json!({"type": "array", "items": item.json});
                    AvroType::of(Kind::Array(item.clone()), 4, json, &[item], path)
                }
                "map" => {
                    let value = self.value(part("values"), namespace, path)?;
                    let json = json!({"type": "map", "values": value.json});
                    AvroType::of(Kind::Map(value.clone()), 4, json, &[value], path)
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
        AvroType::of(kind, memory, json, &[], path)
    }

    /// A record: its fields, and the type itself.
    fn record(
        &mut self,
        schema: &Value,
        namespace: &str,
        path: &mut Vec<String>,
    ) -> Result<(Fields, Arc<AvroType>), String> {
        let none = Map::new();
        let attributes = schema.as_object().unwrap_or(&none);
        let (full, namespace) = self.begin(attributes, namespace);
        let mut fields = Vec::new();
        let mut all = Vec::new();
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
            all.push(json!({"name": name, "type": value.json}));
            fields.push((name.to_owned(), value));
        }
        let types: Vec<Arc<AvroType>> = fields.iter().map(|(_, value)| value.clone()).collect();
        let memory = types
            .iter()
            .fold(0, |sum, part| part.memory.saturating_add(sum));
        let json = json!({"type": "record", "name": self.new_name(), "fields": all});
        let kind = Kind::Record(types.clone());
        let record = AvroType::of(kind, memory.max(1), json, &types, path)?;
        self.named.insert(full, Some(record.clone()));
        Ok((fields, record))
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
        let found = AvroType::of(kind, 4, json, &[], path)?;
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
        if matches!(logical, Some("decimal" | "duration")) {
            copy(
                &["logicalType", "precision", "scale"],
                attributes,
                &mut json,
            );
        }
        let memory = (size as u64).max(32);
        let found = AvroType::of(Kind::Fixed(i64::from(size)), memory, json, &[], path)?;
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
    fn of(
        kind: Kind,
        memory: u64,
        json: Value,
        parts: &[Arc<AvroType>],
        path: &[String],
    ) -> Result<Arc<AvroType>, String> {
        let types = parts
            .iter()
            .fold(1, |sum: usize, part| sum.saturating_add(part.types));
        let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
        if types > MAX_TYPES {
            return Err(refused(path, &format!("more than {MAX_TYPES} types")));
        }
        if depth > MAX_DEPTH {
            return Err(refused(
                path,
                &format!("types nested more than {MAX_DEPTH} deep"),
            ));
        }
        Ok(Arc::new(AvroType {
            kind,
            memory,
            json,
            types,
            depth,
        }))
    }
}

impl AvroType {
    /// Whether each value has at least one byte.
    fn has_bytes(&self) -> bool {
        match &self.kind {
            Kind::Null | Kind::Fixed(0) => false,
            Kind::Record(fields) => fields.iter().any(|field| field.has_bytes()),
            _ => true,
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
