//! `:schema`: the fields of a source's records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span, edn, node::Text, print};
use pseidon_expr::types::{field_type_name, map_parts};

use super::value::{Argument, OptionValue, ParseResult, SpannedValue, scalar, word};
use crate::spec::OptionKind;

/// The value of `:schema`.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaOption {
    /// Infer the fields from the first records, once.
    Infer,
    /// Exactly these fields.
    Fields(SchemaRef),
}

impl OptionValue for SchemaOption {
    const KIND: OptionKind = OptionKind::Schema;

    fn parse(argument: &Argument<'_>) -> ParseResult<SchemaOption> {
        let node = argument.node();
        if word(node) == Some("infer") {
            return Ok(SchemaOption::Infer);
        }
        if word(node) == Some(":infer") {
            let error = argument.error("`:schema` cannot be `:infer`", "a string with a colon");
            let help = "write \"infer\" without the colon";
            return Err(error.into_iter().map(|it| it.with_help(help)).collect());
        }
        let fields = parse_fields(node)?;
        Ok(SchemaOption::Fields(Arc::new(Schema::new(fields))))
    }

    fn identity(&self) -> Option<String> {
        Some(match self {
            SchemaOption::Fields(schema) => format!("{schema:?}"),
            SchemaOption::Infer => "infer".to_owned(),
        })
    }
}

impl SpannedValue<SchemaOption> {
    /// The fields, if they are not to be inferred.
    pub fn fields(&self) -> Option<SchemaRef> {
        match &self.value {
            SchemaOption::Fields(schema) => Some(schema.clone()),
            SchemaOption::Infer => None,
        }
    }

    /// The position of `:infer`.
    pub fn infer(&self) -> Option<Span> {
        (self.value == SchemaOption::Infer).then_some(self.span)
    }
}

/// Prints the fields as EDN that can be pasted after `:schema`; [`read_schema`] reads it.
pub fn print_schema(schema: &Schema) -> String {
    print::print(&fields_node(schema.fields()))
}

/// Reads the output of [`print_schema`]. An error says what is wrong with it.
pub fn read_schema(text: &str) -> Result<SchemaRef, String> {
    let say = |errors: Vec<Diagnostic>| {
        errors
            .into_iter()
            .map(|error| error.message)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let fields = parse_fields(&edn::read(text).map_err(say)?).map_err(say)?;
    Ok(Arc::new(Schema::new(fields)))
}

fn fields_node(fields: &Fields) -> Node {
    let entry = |field: &Arc<Field>| {
        let is_plain = field
            .name()
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let starts_plain = field.name().starts_with(|c: char| c.is_ascii_alphabetic());
        let name = if is_plain && starts_plain {
            NodeKind::Keyword(Name::plain(field.name().as_str()))
        } else {
            NodeKind::Str(Text::plain(field.name().as_str(), 0))
        };
        (node(name), type_node(field))
    };
    node(NodeKind::Map(fields.iter().map(entry).collect()))
}

fn type_node(field: &Field) -> Node {
    match field.data_type() {
        DataType::Struct(fields) => fields_node(fields),
        DataType::List(item) => node(NodeKind::Vector(vec![type_node(item)])),
        DataType::Map(entries, is_sorted) => {
            let name = map_name(entries, *is_sorted);
            node(NodeKind::Str(Text::plain(name, 0)))
        }
        _ => {
            let name = field_type_name(field);
            // A name with parentheses, such as decimal(10,2), is not a keyword.
            if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                node(NodeKind::Keyword(Name::plain(name)))
            } else {
                node(NodeKind::Str(Text::plain(name, 0)))
            }
        }
    }
}

/// A map, and one whose keys are sorted.
const MAPS: [(&str, bool); 2] = [("map(", false), ("sorted_map(", true)];

/// The type of a map: `map(utf8, :int64)`, with a type of the schema for the values.
fn map_name(entries: &Field, is_sorted: bool) -> String {
    let [(unsorted, _), (sorted, _)] = MAPS;
    let map = if is_sorted { sorted } else { unsorted };
    match map_parts(entries) {
        Some((key, value)) => {
            let value = print::print(&type_node(value));
            format!("{map}{}, {value})", field_type_name(key))
        }
        None => map.to_owned(),
    }
}

/// The map with a name of [`map_name`]. `None` if the name is not that of a map.
fn parse_map(name: &str, text: &str) -> Option<Result<Field, Vec<Diagnostic>>> {
    let mut maps = MAPS.iter();
    let (inner, is_sorted) =
        maps.find_map(|(map, is_sorted)| Some((text.trim().strip_prefix(map)?, *is_sorted)))?;
    let inner = inner.strip_suffix(')')?;
    let (key, value) = inner.split_at_checked(end_of_key(inner)?)?;
    let value = value.strip_prefix(',')?;
    let key = pseidon_expr::types::parse_type(key).ok()?;
    let value = edn::read(value).and_then(|value| parse_field("value".to_owned(), &value));
    Some(value.map(|value| {
        let fields = vec![Field::new("key", key, false), value];
        let entries = Field::new("entries", DataType::Struct(fields.into()), false);
        Field::new(name, DataType::Map(Arc::new(entries), is_sorted), true)
    }))
}

/// The index of the comma behind the key's type, which may have commas in parentheses.
fn end_of_key(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        byte == b',' && depth == 0
    })
}

fn node(kind: NodeKind) -> Node {
    Node {
        kind,
        span: Span::default(),
    }
}

fn parse_fields(node: &Node) -> Result<Fields, Vec<Diagnostic>> {
    let NodeKind::Map(entries) = &node.kind else {
        return Err(vec![Diagnostic::new(
            node.span,
            "a schema is a map from field names to types",
            "expected a map such as {:id :int64}",
        )]);
    };
    let mut fields = Vec::new();
    let mut errors = Vec::new();
    for (key, value) in entries {
        let Some(name) = field_name(key) else {
            errors.push(Diagnostic::new(
                key.span,
                "this is not a field name",
                "expected a keyword or a string",
            ));
            continue;
        };
        match parse_field(name, value) {
            Ok(field) => fields.push(field),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(fields.into())
    } else {
        Err(errors)
    }
}

/// Field names are not split at a slash: `:a/b` is the field `a/b`.
fn field_name(node: &Node) -> Option<String> {
    match &node.kind {
        NodeKind::Keyword(name) | NodeKind::Symbol(name) => Some(name.to_string()),
        NodeKind::Str(text) => Some(text.value.clone()),
        _ => None,
    }
}

fn parse_field(name: String, node: &Node) -> Result<Field, Vec<Diagnostic>> {
    match &node.kind {
        NodeKind::Map(_) => Ok(Field::new(
            name,
            DataType::Struct(parse_fields(node)?),
            true,
        )),
        NodeKind::Vector(items) => match items.as_slice() {
            [item] => {
                let item = parse_field("item".to_owned(), item)?;
                Ok(Field::new(name, DataType::List(Arc::new(item)), true))
            }
            _ => Err(vec![Diagnostic::new(
                node.span,
                "the items of a list have one type",
                "expected one type, such as [:utf8]",
            )]),
        },
        _ => {
            let Some(text) = scalar(node) else {
                return Err(vec![Diagnostic::new(
                    node.span,
                    "this is not a type",
                    "expected a type such as :int64, a map or a vector",
                )]);
            };
            if let Some(map) = parse_map(&name, &text) {
                return map;
            }
            pseidon_expr::types::parse_field(&name, &text).map_err(|reason| {
                vec![Diagnostic::new(
                    node.span,
                    format!("`{text}` is not a type"),
                    reason,
                )]
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A type, or nearly one.
    fn data_type() -> impl Strategy<Value = String> {
        let names = [
            ":utf8",
            ":int64",
            ":json",
            ":timestamp_ms",
            ":duration_us",
            ":null",
            ":int6",
        ];
        let plain = prop_oneof![
            prop::sample::select(names.to_vec()).prop_map(str::to_owned),
            (0..80_u8, 0..80_u8).prop_map(|(p, s)| format!("\"decimal({p},{s})\"")),
        ];
        plain.prop_recursive(3, 12, 3, |inner| {
            let quoted = |text: &str| print::print(&node(NodeKind::Str(Text::plain(text, 0))));
            prop_oneof![
                inner.clone().prop_map(|item| format!("[{item}]")),
                (
                    "(sorted_)?map",
                    "(utf8|int32|decimal[(]9,2[)]|json),? ?",
                    inner.clone()
                )
                    .prop_map(move |(map, key, value)| quoted(&format!("{map}({key}{value})"))),
                prop::collection::vec(("[a-c]", inner), 0..3).prop_map(|fields| {
                    let fields = fields.iter().map(|(name, of)| format!(":{name} {of}"));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_schema_is_refused_or_means_what_it_prints(
            fields in prop::collection::vec(("[a-z/]{1,3}|\"[a-z\\. é]{0,4}\"", data_type()), 0..4),
        ) {
            let fields = fields.iter().map(|(name, of)| match name.starts_with('"') {
                true => format!("{name} {of}"),
                false => format!(":{name} {of}"),
            });
            let text = format!("{{{}}}", fields.collect::<Vec<_>>().join(", "));
            match read_schema(&text) {
                Ok(schema) => {
                    let printed = print_schema(&schema);
                    prop_assert_eq!(read_schema(&printed), Ok(schema), "{}", printed);
                }
                Err(reason) => prop_assert!(!reason.is_empty(), "{}", text),
            }
        }
    }

    #[test]
    fn a_printed_schema_reads_back() {
        let texts = [
            "{:user {:id :utf8}, :status :int64, :tags [:utf8]}",
            r#"{"odd name" :float64, :price "decimal(10,2)", :any :json, :rows [{:at :timestamp_ms}]}"#,
            r#"{:m "map(utf8, :int64)", :n "sorted_map(int32, {:a [:utf8]})", :d :duration_us}"#,
            r#"{:m "map(utf8, \"map(utf8, \\\"decimal(9,2)\\\")\")"}"#,
            r#"{:m "map(decimal(9,2), \"decimal(9,2)\")"}"#,
            "{}",
        ];
        for text in texts {
            let schema = read_schema(text).unwrap();
            assert_eq!(
                read_schema(&print_schema(&schema)).unwrap(),
                schema,
                "{text} was printed as {}",
                print_schema(&schema)
            );
        }
        assert!(read_schema("{:a :inmt64}").unwrap_err().contains("inmt64"));
    }
}
