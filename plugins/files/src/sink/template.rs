//! Texts with values of the record in them: a bucket's path, a file's name, the folder where a file
//! is moved.

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{ExprKind, Meta};
use pseidon_dsl::template::Part as Written;
use pseidon_expr::time::strftime;
use pseidon_expr::{Compiled, Scope};
use pseidon_plugin::Rows;
use pseidon_plugin::format::is_json;

use super::lane_name::Piece;

/// A template, compiled.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// The first expression that does not always give the same.
    pub(super) nondeterminism: Option<String>,
    /// Whether the topic stands in it as it is.
    pub(super) tells_topic: bool,
}

#[derive(Clone, Debug)]
enum Part {
    /// Text as it stands.
    Literal(String),
    /// What an expression gives, and how a time is written.
    Value {
        expr: Compiled,
        format: Option<String>,
    },
}

impl Template {
    /// The template that these parts make, over the columns in scope.
    pub(super) fn compile(
        parts: &[Written],
        scope: &Scope,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Template {
        let mut template = Template::default();
        for part in parts {
            match part {
                Written::Literal(text) if text.is_empty() => {}
                Written::Literal(text) => template.parts.push(Part::Literal(text.clone())),
                Written::Value { expr, format, .. } => match pseidon_expr::compile(expr, scope) {
                    Ok(compiled) => {
                        if !compiled.is_deterministic() {
                            template
                                .nondeterminism
                                .get_or_insert_with(|| expr.to_string());
                        }
                        template.tells_topic |= matches!(expr.kind, ExprKind::Meta(Meta::Topic));
                        template.push_value(compiled, format.as_deref());
                    }
                    Err(more) => mistakes.extend(more),
                },
            }
        }
        template
    }

    /// A `/` in a time's format parts folders as any other of the template does: it is not the
    /// record that names it.
    fn push_value(&mut self, expr: Compiled, format: Option<&str>) {
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

    /// The texts between the values.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Value { .. } => None,
        })
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What each expression gives for each row, as texts.
    pub(super) fn values(&self, rows: &Rows) -> Result<Vec<StringArray>, ArrowError> {
        let values = self.parts.iter().filter_map(|part| match part {
            Part::Value { expr, format } => Some((expr, format)),
            Part::Literal(_) => None,
        });
        values
            .map(|(expr, format)| texts(rows, expr, format.as_deref()))
            .collect()
    }

    /// The template for one row; `values` is what [`Template::values`] gave.
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

fn texts(rows: &Rows, expr: &Compiled, format: Option<&str>) -> Result<StringArray, ArrowError> {
    let values = rows.evaluate(expr)?;
    if let Some(format) = format {
        return strftime(&values, format);
    }
    let texts = cast(&values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    if !is_json(expr.field()) {
        return Ok(texts.clone());
    }
    // A field without a type is JSON text: a string stands there in quotes.
    Ok(texts.iter().map(|text| text.and_then(json_text)).collect())
}

/// What a JSON value is in a path: a string is its characters, null is null, everything else is as
/// it is written.
fn json_text(json: &str) -> Option<String> {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => Some(json.to_owned()),
    }
}
