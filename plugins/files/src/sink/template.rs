//! Templates: strings that contain values of the record, such as a bucket's path, a file's name or
//! the folder where a file is moved.

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use pseidon_dsl::expr::{Expr, ExprKind, Meta};
use pseidon_dsl::template::TemplatePart;
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::time::{self, strftime};
use pseidon_expr::types::field_type_name;
use pseidon_expr::{CompiledExpr, Scope};
use pseidon_plugin::Rows;
use pseidon_plugin::format::is_json;

use super::lane_name::Piece;

/// The template of a path, compiled over the columns in scope.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTemplate {
    parts: Vec<Part>,
    /// The first nondeterministic expression; `None` if all are deterministic.
    pub(super) nondeterminism: Option<String>,
    /// Whether the topic is one of its values.
    pub(super) has_topic: bool,
}

#[derive(Clone, Debug)]
enum Part {
    /// Fixed text.
    Literal(String),
    /// The value of an expression, with the `strftime` format of a timestamp.
    Value {
        expr: CompiledExpr,
        format: Option<String>,
    },
}

impl PathTemplate {
    /// Compiles a template over the columns in scope.
    pub(super) fn compile(
        parts: &[TemplatePart],
        scope: &Scope,
        errors: &mut Vec<Diagnostic>,
    ) -> PathTemplate {
        let mut template = PathTemplate::default();
        for part in parts {
            match part {
                TemplatePart::Literal(text) if text.is_empty() => {}
                TemplatePart::Literal(text) => template.parts.push(Part::Literal(text.clone())),
                TemplatePart::Value { expr, format, span } => {
                    match pseidon_expr::compile(expr, scope) {
                        Ok(compiled) => {
                            if let Some(format) = format
                                && !time::is_time(compiled.field().data_type())
                            {
                                errors.push(not_a_time(expr, &compiled, format, *span));
                            }
                            if !compiled.is_deterministic() {
                                template
                                    .nondeterminism
                                    .get_or_insert_with(|| expr.to_string());
                            }
                            template.has_topic |= matches!(expr.kind, ExprKind::Meta(Meta::Topic));
                            template.push_value(compiled, format.as_deref());
                        }
                        Err(more) => errors.extend(more),
                    }
                }
            }
        }
        template
    }

    /// Splits a timestamp's format at each `/`, which separates folders like any other `/` of the
    /// template: it does not come from the record.
    fn push_value(&mut self, expr: CompiledExpr, format: Option<&str>) {
        let Some(format) = format else {
            return self.parts.push(Part::Value { expr, format: None });
        };
        for (number, part) in format.split('/').enumerate() {
            if number > 0 {
                self.parts.push(Part::Literal("/".to_owned()));
            }
            if !part.is_empty() {
                self.parts.push(Part::Value {
                    expr: expr.clone(),
                    format: Some(part.to_owned()),
                });
            }
        }
    }

    /// The fixed text between the values.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Value { .. } => None,
        })
    }

    /// Whether it renders to an empty string.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The pieces of the template with some string for each value: the topic, if it has that. No
    /// glob is likely to have the other string, or to match only strings like it.
    pub(super) fn example<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = Piece<'a>> {
        let value = if self.has_topic { topic } else { "example" };
        self.parts.iter().map(move |part| match part {
            Part::Literal(text) => Piece::Literal(text),
            Part::Value { .. } => Piece::Value(Some(value)),
        })
    }

    /// The value of each expression for each row, as strings.
    pub(super) fn values(&self, rows: &Rows) -> Result<Vec<StringArray>, ArrowError> {
        let values = self.parts.iter().filter_map(|part| match part {
            Part::Value { expr, format } => Some((expr, format)),
            Part::Literal(_) => None,
        });
        values
            .map(|(expr, format)| strings(rows, expr, format.as_deref()))
            .collect()
    }

    /// The pieces of the template for one row; `values` comes from [`PathTemplate::values`].
    pub(super) fn pieces<'a>(
        &'a self,
        values: &'a [StringArray],
        row: usize,
    ) -> impl Iterator<Item = Piece<'a>> {
        let mut values = values.iter();
        self.parts.iter().map(move |part| match part {
            Part::Literal(text) => Piece::Literal(text),
            Part::Value { .. } => Piece::Value(
                values
                    .next()
                    .filter(|values| values.is_valid(row))
                    .map(|values| values.value(row)),
            ),
        })
    }
}

/// The error for a time format of values that are not times.
fn not_a_time(expr: &Expr, compiled: &CompiledExpr, format: &str, span: Span) -> Diagnostic {
    let label = format!(
        "expected a timestamp, a date or milliseconds since 1970, found {}",
        field_type_name(compiled.field())
    );
    Diagnostic::new(span, "a time format requires a time", label)
        .with_help(format!("convert it: `{{{expr}::timestamp:{format}}}`"))
}

fn strings(
    rows: &Rows,
    expr: &CompiledExpr,
    format: Option<&str>,
) -> Result<StringArray, ArrowError> {
    let values = rows.evaluate(expr)?;
    if let Some(format) = format {
        return strftime(&values, format);
    }
    let strings = cast(&values, &DataType::Utf8)?;
    let strings = strings.as_string::<i32>();
    if !is_json(expr.field()) {
        return Ok(strings.clone());
    }
    // A field without a type is JSON text, in which a string is quoted.
    Ok(strings
        .iter()
        .map(|text| text.and_then(json_to_string))
        .collect())
}

/// The string for a JSON value in a path: the unquoted characters of a string, `None` for null, the
/// JSON text for all other values.
fn json_to_string(json: &str) -> Option<String> {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => Some(json.to_owned()),
    }
}
