//! Rows as lines of JSON, and the evaluation of expressions on rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::error::ArrowError;
use pseidon_delivery::WithCauses;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{self, Expr, Path, PathStep};
use pseidon_dsl::node::Text;
use pseidon_dsl::printable::printable_json;
use pseidon_expr::demand::collect;
use pseidon_expr::{Scope, compile};
use pseidon_plan::PlannedSource;
use pseidon_plugin::batch::Payloads;
use pseidon_plugin::format::{WantedColumn, json_field};
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::RecordShape;
use serde_json::Value;

use super::CommandResult;
use crate::JsonLines;
use crate::stages::scope_of;

/// How many bytes of JSON are shown of a row or a value. An expression can make megabytes of each.
const MAX_SHOWN: usize = 256 << 10;

/// Each row as JSON: its columns, or the unchanged record as JSON or as a JSON string. Of a record
/// without bytes these are the columns that the pipeline uses.
pub(super) fn lines(
    rows: &Rows,
    source: &PlannedSource,
    json: JsonLines,
) -> Result<Vec<String>, String> {
    let lines = json_lines(rows, source, json)?;
    Ok(lines.iter().map(|line| shown(line)).collect())
}

/// A row or a value as the client gets it: JSON without control characters, unless it is too long.
fn shown(json: &str) -> String {
    match json.len() {
        0..=MAX_SHOWN => printable_json(json).into_owned(),
        bytes => super::error(&format!(
            "{bytes} bytes are too many to be shown; expected at most {MAX_SHOWN}"
        )),
    }
}

fn json_lines(rows: &Rows, source: &PlannedSource, json: JsonLines) -> Result<Vec<String>, String> {
    if rows.is_changed() || !source.format.has_bytes() {
        return json(rows, RecordShape::Columns(rows.columns().schema()));
    }
    if source.format.name() == "json" {
        return json(
            rows,
            RecordShape::AsCame {
                format: "json".to_owned(),
            },
        );
    }
    let text = |row| {
        rows.payload(row).map_or(Value::Null, |payload| {
            Value::String(String::from_utf8_lossy(payload).into_owned())
        })
    };
    Ok((0..rows.len()).map(|row| text(row).to_string()).collect())
}

/// Parses an expression. Each error is one line.
pub(super) fn parse(text: &str) -> Result<Expr, Vec<String>> {
    expr::parse(&Text::plain(text, 0)).map_err(reasons)
}

/// The value of an expression for each row, or its error. For an unchanged record, the expression
/// can use fields that the pipeline does not decode.
pub(super) fn evaluate(
    expr: &Expr,
    rows: &Rows,
    source: &PlannedSource,
    json: JsonLines,
) -> CommandResult {
    let (rows, scope, bad) = if rows.is_changed() {
        (rows.clone(), scope_of(rows, source), Vec::new())
    } else {
        decoded_for(expr, rows, source).map_err(|reason| vec![reason])?
    };
    let compiled = compile(expr, &scope).map_err(reasons)?;
    let field = Arc::new(
        compiled
            .field()
            .as_ref()
            .clone()
            .with_name(VALUE)
            .with_nullable(true),
    );
    let value = |row: usize| {
        if let Some(bad) = bad.iter().find(|bad| bad.row as usize == row) {
            return super::error(&bad.reason);
        }
        let row = rows.slice(row, 1);
        let value = row
            .evaluate(&compiled)
            .map_err(|error| error.to_string())
            .and_then(|value| json_of(&row, &field, value, json));
        value.unwrap_or_else(|reason| super::error(&reason))
    };
    Ok((0..rows.len()).map(value).collect())
}

/// The rows with the columns that an expression uses, decoded from their bytes. Returns the
/// invalid ones separately.
fn decoded_for(
    expr: &Expr,
    rows: &Rows,
    source: &PlannedSource,
) -> Result<(Rows, Scope, Vec<BadRow>), String> {
    let schema = source
        .facts
        .schema
        .clone()
        .or(source.format.schema(&source.format_settings)?);
    let known = |path: &Path| -> Option<FieldRef> {
        let decoded = source
            .columns
            .wanted
            .iter()
            .find(|column| column.path == *path)
            .map(|column| column.field.clone());
        let named = || match path.0.as_slice() {
            [PathStep::Field(name)] => schema
                .as_ref()?
                .fields()
                .iter()
                .find(|field| field.name() == name)
                .cloned(),
            _ => None,
        };
        decoded.or_else(named)
    };
    let mut demands = Vec::new();
    collect(
        expr,
        None,
        &|path| known(path).map(|field| field.data_type().clone()),
        &mut demands,
    );
    let mut wanted: Vec<WantedColumn> = Vec::new();
    for demand in demands {
        if wanted.iter().any(|column| column.path == demand.path) {
            continue;
        }
        let name = demand.path.to_string();
        let field = known(&demand.path).unwrap_or_else(|| {
            Arc::new(demand.wanted.map_or_else(
                || json_field(&name),
                |data_type| Field::new(&name, data_type, true),
            ))
        });
        let field = Arc::new(field.as_ref().clone().with_name(name).with_nullable(true));
        wanted.push(WantedColumn {
            path: demand.path,
            field,
        });
    }
    let (decoded, bad) = decode_rows(&wanted, rows, source)?;
    let columns = wanted
        .into_iter()
        .map(|column| pseidon_expr::Column {
            path: column.path,
            field: column.field,
        })
        .collect();
    Ok((rows.with_columns(decoded), Scope { columns }, bad))
}

/// The columns of rows, decoded from their bytes, and the invalid rows.
fn decode_rows(
    wanted: &[WantedColumn],
    rows: &Rows,
    source: &PlannedSource,
) -> Result<(RecordBatch, Vec<BadRow>), String> {
    let (payloads, numbers) = rows.bytes();
    let (columns, bad) = decode(wanted, payloads, source)?;
    // Arrow does not count the rows that are taken of a batch without columns.
    let taken = match wanted {
        [] => without_columns(numbers.len()),
        _ => take_record_batch(&columns, numbers),
    };
    let columns = taken.map_err(|error| error.to_string())?;
    let of_row = |row: usize| {
        let found = bad.iter().find(|bad| bad.row == numbers.value(row))?;
        Some(BadRow {
            row: row as u32,
            reason: found.reason.clone(),
        })
    };
    Ok((columns, (0..rows.len()).filter_map(of_row).collect()))
}

fn without_columns(rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
}

fn decode(
    wanted: &[WantedColumn],
    payloads: &Payloads,
    source: &PlannedSource,
) -> Result<(RecordBatch, Vec<BadRow>), String> {
    let schema = Arc::new(Schema::new(
        wanted
            .iter()
            .map(|column| column.field.clone())
            .collect::<Vec<_>>(),
    ));
    let (columns, bad) = if wanted.is_empty() {
        (Vec::new(), Vec::new())
    } else {
        let mut decoder = source.format.decoder(&source.format_settings, wanted)?;
        decoder
            .prepare(payloads)
            .map_err(|error| WithCauses(&error).to_string())?;
        let decoded = decoder.decode(payloads);
        (decoded.columns, decoded.bad)
    };
    let options = RecordBatchOptions::new().with_row_count(Some(payloads.len()));
    let columns = RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| error.to_string())?;
    Ok((columns, bad))
}

/// The name of the column that holds the values of an expression.
const VALUE: &str = "value";

/// A value of one row as JSON.
fn json_of(
    row: &Rows,
    field: &FieldRef,
    value: ArrayRef,
    json: JsonLines,
) -> Result<String, String> {
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let record = RecordBatch::try_new(schema, vec![value]).map_err(|error| error.to_string())?;
    let shape = RecordShape::Columns(record.schema());
    let line = json(&row.with_record(record), shape)?
        .pop()
        .unwrap_or_default();
    let inner = line
        .strip_prefix(&format!("{{\"{VALUE}\":"))
        .and_then(|rest| rest.strip_suffix('}'));
    Ok(shown(inner.unwrap_or(&line)))
}

/// Converts errors to sentences.
fn reasons(errors: Vec<Diagnostic>) -> Vec<String> {
    let sentence = |error: &Diagnostic| {
        let more = [
            error.label.as_str(),
            error.help.as_deref().unwrap_or_default(),
        ];
        let more: Vec<&str> = more.into_iter().filter(|part| !part.is_empty()).collect();
        if more.is_empty() {
            error.message.clone()
        } else {
            format!("{} ({})", error.message, more.join("; "))
        }
    };
    errors.iter().map(sentence).collect()
}
