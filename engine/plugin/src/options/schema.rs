//! `:schema`: the fields of a source's records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use pseidon_dsl::{Diagnostic, Node, NodeKind};

/// What `:schema` says.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaOption {
    /// Look at the first records, once.
    Infer,
    /// These fields.
    Fields(SchemaRef),
}

impl SchemaOption {
    pub(super) fn parse(node: &Node) -> Result<SchemaOption, Vec<Diagnostic>> {
        if super::word(node) == Some("infer") {
            return Ok(SchemaOption::Infer);
        }
        let fields = parse_fields(node)?;
        Ok(SchemaOption::Fields(Arc::new(Schema::new(fields))))
    }
}

fn parse_fields(node: &Node) -> Result<Fields, Vec<Diagnostic>> {
    let NodeKind::Map(entries) = &node.kind else {
        return Err(vec![Diagnostic::new(node.span, "a schema is a map from field names to types", "expected a map such as {:id :int64}")]);
    };
    let mut fields = Vec::new();
    let mut mistakes = Vec::new();
    for (key, value) in entries {
        let Some(name) = field_name(key) else {
            mistakes.push(Diagnostic::new(key.span, "this is not a field name", "expected a keyword or a text"));
            continue;
        };
        match parse_field(name, value) {
            Ok(field) => fields.push(field),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() { Ok(fields.into()) } else { Err(mistakes) }
}

/// Field names keep what they are: `:a/b` is the field `a/b`.
fn field_name(node: &Node) -> Option<String> {
    match &node.kind {
        NodeKind::Keyword(name) | NodeKind::Symbol(name) => Some(name.to_string()),
        NodeKind::Str(text) => Some(text.value.clone()),
        _ => None,
    }
}

fn parse_field(name: String, node: &Node) -> Result<Field, Vec<Diagnostic>> {
    match &node.kind {
        NodeKind::Map(_) => Ok(Field::new(name, DataType::Struct(parse_fields(node)?), true)),
        NodeKind::Vector(items) => match items.as_slice() {
            [item] => {
                let item = parse_field("item".to_owned(), item)?;
                Ok(Field::new(name, DataType::List(Arc::new(item)), true))
            }
            _ => Err(vec![Diagnostic::new(node.span, "a list has items of one type", "expected one type, such as [:utf8]")]),
        },
        _ => {
            let Some(text) = super::scalar(node) else {
                return Err(vec![Diagnostic::new(node.span, "this is not a type", "expected a type such as :int64, a map or a vector")]);
            };
            pseidon_expr::types::parse_field(&name, &text).map_err(|reason| vec![Diagnostic::new(node.span, format!("`{text}` is not a type"), reason)])
        }
    }
}
