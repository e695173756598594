//! Rows as lines of JSON, and the evaluation of expressions on rows.
//!
//! Both are bounded, as a client can ask for more than the process has: the bytes of a reply, the
//! memory that an expression can use, and the time that its evaluation takes.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::error::ArrowError;
use pseidon_delivery::WithCauses;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{self, Expr, ExprKind, Path, PathStep};
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

use crate::JsonLines;
use crate::stages::scope_of;

/// How many bytes of JSON are shown of a row or a value. An expression can make megabytes of each.
const MAX_SHOWN: usize = 256 << 10;
/// The most bytes of the lines that show records.
const MAX_LINES: usize = 4 << 20;
/// The most bytes that the values of an expression for one row can have together.
const MAX_MEMORY: usize = 256 << 20;
/// The most bytes of the result of a function, unless its arguments are larger.
const MAX_OF_CALL: usize = 16 << 20;

/// The lines of a reply that shows records.
#[derive(Default)]
pub(super) struct RecordLines {
    lines: Vec<String>,
    bytes: usize,
    is_cut: bool,
}

impl RecordLines {
    /// Adds a line, unless there would be too many bytes.
    fn push(&mut self, line: String) {
        let line = shown(&line);
        self.bytes = self.bytes.saturating_add(line.len());
        if self.bytes > MAX_LINES {
            self.cut(&format!("the reply would exceed {} MiB", MAX_LINES >> 20));
        } else if !self.is_cut {
            self.lines.push(line);
        }
    }

    /// Ends the lines with an error.
    fn cut(&mut self, reason: &str) {
        if !self.is_cut {
            self.is_cut = true;
            self.lines.push(super::error(reason));
        }
    }

    /// All lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// A row or a value as the client gets it: JSON without control characters, unless it is too long.
fn shown(json: &str) -> String {
    match json.len() {
        0..=MAX_SHOWN => printable_json(json, &[]).into_owned(),
        bytes => super::error(&format!(
            "{bytes} bytes are too many to be shown; expected at most {MAX_SHOWN}"
        )),
    }
}

/// Adds each row as JSON: its columns, or the unchanged record as JSON or as a JSON string. Of a
/// record without bytes these are the columns that the pipeline uses.
pub(super) fn show(
    rows: &Rows,
    source: &PlannedSource,
    json: JsonLines,
    lines: &mut RecordLines,
) -> Result<(), String> {
    for row in 0..rows.len() {
        if lines.is_cut {
            break;
        }
        lines.push(line(&rows.slice(row, 1), source, json)?);
    }
    Ok(())
}

/// One row as JSON.
fn line(row: &Rows, source: &PlannedSource, json: JsonLines) -> Result<String, String> {
    let first = |mut lines: Vec<String>| lines.pop().unwrap_or_default();
    if row.is_changed() || !source.format.has_bytes() {
        return json(row, RecordShape::Columns(row.columns().schema())).map(first);
    }
    if source.format.name() == "json" {
        let shape = RecordShape::AsCame {
            format: "json".to_owned(),
        };
        return json(row, shape).map(first);
    }
    let text = row.payload(0).map_or(Value::Null, |payload| {
        Value::String(String::from_utf8_lossy(payload).into_owned())
    });
    Ok(text.to_string())
}

/// Parses an expression. Each error is one line.
pub(super) fn parse(text: &str) -> Result<Expr, Vec<String>> {
    expr::parse(&Text::plain(text, 0)).map_err(reasons)
}

/// Adds the value of an expression for each row, or its error, until the deadline. For an unchanged
/// record, the expression can use fields that the pipeline does not decode.
pub(super) fn evaluate(
    expr: &Expr,
    rows: &Rows,
    source: &PlannedSource,
    json: JsonLines,
    deadline: Instant,
    lines: &mut RecordLines,
) -> Result<(), Vec<String>> {
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
    for number in 0..rows.len() {
        if lines.is_cut {
            break;
        }
        if Instant::now() >= deadline {
            lines.cut("the evaluation took too long");
            break;
        }
        if let Some(bad) = bad.iter().find(|bad| bad.row as usize == number) {
            lines.push(super::error(&bad.reason));
            continue;
        }
        let row = rows.slice(number, 1);
        let value = check_memory(expr, &row).and_then(|()| {
            let value = row.evaluate(&compiled).map_err(|error| error.to_string())?;
            json_of(&row, &field, value, json)
        });
        lines.push(value.unwrap_or_else(|reason| super::error(&reason)));
    }
    Ok(())
}

/// Checks that the values of an expression for a row cannot be too large together: each column that
/// it names is as large as the record at most, and each call has a result of [`MAX_OF_CALL`].
fn check_memory(expr: &Expr, row: &Rows) -> Result<(), String> {
    let columns = row.columns().columns().iter();
    let in_columns = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    let record = row.record_bytes() + in_columns.sum::<usize>();
    let (mut bytes, mut parts) = (0usize, vec![expr]);
    while let Some(part) = parts.pop() {
        bytes = bytes.saturating_add(match part.kind {
            ExprKind::Path(_) => record,
            ExprKind::Call { .. } => MAX_OF_CALL,
            _ => 0,
        });
        parts.extend(part.parts());
    }
    if bytes <= MAX_MEMORY {
        return Ok(());
    }
    let most = MAX_MEMORY >> 20;
    Err(format!(
        "the expression could use more than {most} MiB for a record; use fewer functions"
    ))
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
    Ok(inner.unwrap_or(&line).to_owned())
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
