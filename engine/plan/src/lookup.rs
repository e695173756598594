//! `lookup`: fields from the row of a table that has a record's key.
//!
//! The stage is two steps, like `unnest`: the first finds the row of each record, whose values are
//! columns with names that no field has; the second is an edit that sets fields to them.
//!
//! The table is read when the pipeline is planned, and its digest is part of the plan's
//! [fingerprint](mod@crate::fingerprint): a run that continues after a crash with another table is
//! the run of another plan, so its records are not mixed with those of this one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use pseidon_dsl::expr::{
    Assignment, BinaryOp, Expr, ExprKind, Path, PathStep, PlacedPath, SelectItem,
};
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_expr::json_text;
use pseidon_expr::types::is_json;
use pseidon_plugin::options::{SpannedValue, check_local_path};

use crate::edits::{FieldEdit, field};
use crate::tables::{Table, TableCache};

/// The most names of columns that an error shows.
const MAX_SHOWN: usize = 10;

/// The rows of a table by their keys.
pub struct LookupTable {
    /// The path of its file, as in the pipeline file.
    path: String,
    /// The columns that records get, with names that no field has.
    columns: RecordBatch,
    /// The bytes of each row of `columns`.
    sizes: Vec<usize>,
    rows: HashMap<Box<str>, u32>,
    /// Whether the keys are numbers, which are the same in different digits: `1` and `1.0`.
    has_numbers: bool,
    /// The column of the keys.
    key: String,
    /// A digest of its content.
    digest: String,
    /// How often its file is looked at for changes.
    reload: Option<Duration>,
}

impl LookupTable {
    /// The path of its file, as in the pipeline file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The column of the keys.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How often its file is looked at for changes; `None` if it is not.
    pub fn reload(&self) -> Option<Duration> {
        self.reload
    }

    /// The columns that [`LookupTable::find`] returns.
    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    /// What determines the row of a key: the column of the keys, and a digest of the content.
    pub(crate) fn identity(&self) -> [&str; 2] {
        [&self.key, &self.digest]
    }

    /// The values of the row of each key. Without such a row, all are NULL.
    ///
    /// # Errors
    /// The values are larger than `largest` together, in bytes ([`ArrowError::MemoryError`]).
    pub fn find(&self, keys: &StringArray, largest: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let row = |key: Option<&str>| match self.has_numbers {
            true => self.rows.get(number(key?)).copied(),
            false => self.rows.get(key?).copied(),
        };
        let rows: UInt32Array = keys.iter().map(row).collect();
        let found = rows.iter().flatten();
        let bytes: usize = found.map(|row| self.sizes[row as usize]).sum();
        if bytes > largest {
            let reason = "the records would become too large together".to_owned();
            return Err(ArrowError::MemoryError(reason));
        }
        let columns = self.columns.columns().iter();
        columns.map(|column| take(column, &rows, None)).collect()
    }
}

/// A `lookup` as it is written.
pub(crate) struct Lookup<'a> {
    /// The position of the stage.
    pub(crate) span: Span,
    pub(crate) path: &'a SpannedValue<String>,
    /// `column = key`, or a name for both.
    pub(crate) on: &'a Expr,
    pub(crate) fields: &'a [SelectItem],
    /// How often the table is looked at for changes.
    pub(crate) reload: Option<Duration>,
}

/// The steps of a `lookup`: the key and the table, and the edits that follow.
pub(crate) struct LookupSteps {
    /// The key, as a string.
    pub(crate) key: Expr,
    pub(crate) table: LookupTable,
    pub(crate) edits: Vec<FieldEdit>,
}

impl Lookup<'_> {
    /// Reads the table.
    ///
    /// # Errors
    /// The table cannot be read, does not have the columns, or has a key twice.
    pub(crate) fn steps(&self, tables: &TableCache<'_>) -> Result<LookupSteps, Diagnostic> {
        if self.reload.is_some() && !tables.allows_reload {
            let message = "`:reload` requires a pipeline file";
            let error = Diagnostic::new(self.span, message, "a flow of `-e` keeps no state");
            return Err(error.with_help("write the pipeline to a file, or leave out `:reload`"));
        }
        let path = self.path.value.as_str();
        check_local_path(path, self.path.span)?;
        let Table { rows, digest } = tables.table(path, self.reload).map_err(|reason| {
            let error = Diagnostic::new(self.path.span, "the table cannot be read", reason);
            error.with_help(
                "expected a CSV, TSV, JSON, Parquet, Avro or Arrow file; its path begins at the pipeline file's \
                 folder",
            )
        })?;
        let (key_column, key) = self.key(&rows)?;
        let (keys_from, keys) = self.column(&rows, key_column, self.on.span)?;
        let (mut names, mut columns, mut edits) = (Vec::new(), Vec::new(), Vec::new());
        for (name, to, span) in self.fields(&rows, key_column)? {
            let column = format!("({path} {name})");
            let value = Expr {
                kind: ExprKind::Path(field(&column)),
                span,
            };
            let (from, values) = self.column(&rows, &name, span)?;
            names.push(from.as_ref().clone().with_name(column).with_nullable(true));
            columns.push(values);
            let to = PlacedPath {
                path: field(&to),
                span,
            };
            edits.push(FieldEdit::Set(Assignment { to, value }));
        }
        let unusable = |error: ArrowError| {
            let message = "the table cannot be used";
            Diagnostic::new(self.path.span, message, error.to_string())
        };
        let keys = Keys::new(&keys_from, &keys).map_err(unusable)?;
        let columns = RecordBatch::try_new(Arc::new(Schema::new(names)), columns);
        let columns = columns.map_err(unusable)?;
        let table = LookupTable {
            sizes: sizes(&columns).map_err(unusable)?,
            path: path.to_owned(),
            columns,
            rows: self.index(&keys)?,
            has_numbers: keys.are_numbers,
            key: key_column.to_owned(),
            digest,
            reload: self.reload,
        };
        Ok(LookupSteps { key, table, edits })
    }

    /// The column of the table with the keys, and the key of a record.
    fn key<'r>(&'r self, rows: &RecordBatch) -> Result<(&'r str, Expr), Diagnostic> {
        let has = |name: &&str| rows.column_by_name(name).is_some();
        let (column, key) = match &self.on.kind {
            ExprKind::Path(_) => (name_of(self.on), self.on),
            ExprKind::Binary(left, BinaryOp::Eq, right) => match name_of(left).filter(has) {
                None if name_of(right).filter(has).is_some() => (name_of(right), &**left),
                _ => (name_of(left), &**right),
            },
            _ => (None, self.on),
        };
        let Some(column) = column else {
            let message = "`lookup` requires a column of the table and the key of a record";
            let error = Diagnostic::new(self.on.span, message, "expected `column = key`");
            return Err(error);
        };
        Ok((column, key.clone().as_text()))
    }

    /// The columns that become fields, which the table need not have: each with the name of the field
    /// and its position in the file.
    fn fields(
        &self,
        rows: &RecordBatch,
        key: &str,
    ) -> Result<Vec<(String, String, Span)>, Diagnostic> {
        let mut fields = Vec::new();
        for item in self.fields {
            match item {
                SelectItem::All { except, span } => {
                    let left_out = |name: &str| {
                        let is_named = |(path, _): &(Path, Span)| *path == field(name);
                        name == key || except.iter().any(is_named)
                    };
                    let schema = rows.schema();
                    let names = schema.fields().iter().map(|column| column.name().clone());
                    let all = names.filter(|name| !left_out(name));
                    fields.extend(all.map(|name| (name.clone(), name, *span)));
                }
                SelectItem::Column { expr, name } => {
                    let Some(column) = name_of(expr) else {
                        let message = "`lookup` adds columns of its table";
                        let error = Diagnostic::new(expr.span, message, "expected a column");
                        return Err(error.with_help("compute with it in a `set` that follows"));
                    };
                    let name = expr.column_name(name.as_ref());
                    fields.push((column.to_owned(), name, expr.span));
                }
            }
        }
        if fields.is_empty() {
            let message = "this `lookup` adds no fields";
            return Err(Diagnostic::new(
                self.span,
                message,
                "expected columns of the table",
            ));
        }
        Ok(fields)
    }

    /// The row of each key. Rows without a key are never found.
    fn index(&self, keys: &Keys) -> Result<HashMap<Box<str>, u32>, Diagnostic> {
        let mut rows = HashMap::with_capacity(keys.texts.len());
        for (row, key) in keys.texts.iter().enumerate() {
            let Some(key) = key else { continue };
            match rows.entry(Box::from(key)) {
                Entry::Vacant(entry) => _ = entry.insert(row as u32),
                Entry::Occupied(entry) => {
                    let (first, second) = (entry.get() + 1, row + 1);
                    let message = format!("the table has two rows with the key `{key}`");
                    let label = format!("rows {first} and {second} of `{}`", self.path.value);
                    let error = Diagnostic::new(self.path.span, message, label);
                    let help = "remove one of them: a record gets the fields of one row";
                    return Err(error.with_help(help));
                }
            }
        }
        Ok(rows)
    }

    /// A column of the table. The name is at this position in the file.
    fn column(
        &self,
        rows: &RecordBatch,
        name: &str,
        span: Span,
    ) -> Result<(FieldRef, ArrayRef), Diagnostic> {
        match rows.schema_ref().fields().find(name) {
            Some((number, field)) => Ok((field.clone(), rows.column(number).clone())),
            None => Err(self.no_column(rows, name, span)),
        }
    }

    fn no_column(&self, rows: &RecordBatch, name: &str, span: Span) -> Diagnostic {
        let schema = rows.schema();
        let known: Vec<&str> = schema
            .fields()
            .iter()
            .map(|column| column.name().as_str())
            .collect();
        let message = format!("the table `{}` has no column `{name}`", self.path.value);
        let error = Diagnostic::new(span, message, "not a column of the table");
        let near = nearest(name, known.iter().copied());
        error.with_help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let more = if known.len() > MAX_SHOWN { ", …" } else { "" };
                let shown = known[..known.len().min(MAX_SHOWN)].join("`, `");
                format!("its columns are `{shown}`{more}")
            }
        })
    }
}

/// The keys of a table.
struct Keys {
    texts: StringArray,
    are_numbers: bool,
}

impl Keys {
    /// The keys in a column: values of `json` are the texts that they are in an expression.
    fn new(column: &Field, values: &ArrayRef) -> Result<Keys, ArrowError> {
        let texts = cast(values, &DataType::Utf8)?;
        let (texts, are_numbers) = (texts.as_string::<i32>(), column.data_type().is_numeric());
        let text = |key: &str| match () {
            () if is_json(column) => json_text(key).ok().flatten().map(Cow::into_owned),
            () if are_numbers => Some(number(key).to_owned()),
            () => Some(key.to_owned()),
        };
        Ok(Keys {
            texts: texts.iter().map(|key| key.and_then(text)).collect(),
            are_numbers,
        })
    }
}

/// A number of digits without the zeros at the end of its fraction. Other texts stay as they are.
fn number(text: &str) -> &str {
    let are_digits =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_prefix('-').unwrap_or(text).split_once('.') {
        Some((whole, fraction)) if are_digits(whole) && are_digits(fraction) => {
            text.trim_end_matches('0').trim_end_matches('.')
        }
        _ => text,
    }
}

/// The name, if the expression is a field of the record itself.
fn name_of(expr: &Expr) -> Option<&str> {
    match &expr.kind {
        ExprKind::Path(Path(steps)) => match steps.as_slice() {
            [PathStep::Field(name)] => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The bytes of each row.
fn sizes(columns: &RecordBatch) -> Result<Vec<usize>, ArrowError> {
    let mut sizes = vec![0; columns.num_rows()];
    for column in columns.columns() {
        let fixed = column.data_type().primitive_width();
        for (row, size) in sizes.iter_mut().enumerate() {
            *size += match fixed {
                Some(width) => width,
                None => column.slice(row, 1).to_data().get_slice_memory_size()?,
            };
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use pseidon_dsl::expr::{parse, parse_select};
    use pseidon_dsl::node::Text;
    use pseidon_expr::types::json_field;

    use super::*;

    fn steps(on: &str, fields: &str) -> LookupSteps {
        let strings = |values: [&str; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let rows = RecordBatch::try_from_iter([
            ("code", strings(["no", "pe", "li"])),
            ("name", strings(["Norway", "Peru", "Liechtenstein"])),
            (
                "area",
                Arc::new(Int64Array::from(vec![385_207, 1_285_216, 160])),
            ),
        ]);
        let rows = rows.unwrap();
        let path = SpannedValue {
            value: "t.csv".to_owned(),
            span: Span::default(),
        };
        let on = parse(&Text::plain(on, 0)).unwrap();
        let fields = parse_select(&Text::plain(fields, 0)).unwrap();
        let lookup = Lookup {
            span: Span::default(),
            path: &path,
            on: &on,
            fields: &fields,
            reload: None,
        };
        let read = |_: &str| {
            Ok(Table {
                rows: rows.clone(),
                digest: String::new(),
            })
        };
        lookup.steps(&TableCache::new(&read, true)).unwrap()
    }

    #[test]
    fn values_that_are_too_large_together_are_not_built() {
        let table = steps("code", "name, area").table;
        let keys = StringArray::from(vec![Some("li"), None, Some("xx"), Some("no"), Some("li")]);
        let found = table.find(&keys, 1 << 10).unwrap();
        let names: Vec<_> = found[0].as_string::<i32>().iter().collect();
        let long = Some("Liechtenstein");
        assert_eq!(names, [long, None, None, Some("Norway"), long]);
        // Three names, areas and offsets of strings.
        let bytes = 13 + 6 + 13 + 3 * 8;
        let result = table.find(&keys, bytes);
        assert!(matches!(result, Err(ArrowError::MemoryError(_))));
        assert!(table.find(&keys, bytes + 3 * 16).is_ok());
    }

    #[test]
    fn keys_are_the_same_if_their_values_are() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![r#""n\u006f""#, "47", "true"]));
        let keys = Keys::new(&json_field("code"), &texts).unwrap();
        let keys: Vec<_> = keys.texts.iter().flatten().collect();
        assert_eq!(keys, ["no", "47", "true"]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.5, 100.0]));
        let keys = Keys::new(&Field::new("x", DataType::Float64, true), &floats).unwrap();
        let texts: Vec<_> = keys.texts.iter().flatten().collect();
        assert_eq!(texts, ["1", "1.5", "100"]);
        for (one, other) in [("1", "1.0"), ("1.5", "1.500"), ("100", "100")] {
            assert_eq!(number(one), number(other));
        }
    }

    #[test]
    fn texts_that_are_not_numbers_have_no_fraction() {
        for text in [
            "1.2.0", "1.", ".0", "-.0", "1.x0", "v1.0", "--1.0", "1.0e0", "1.5E10", "", "-", ".",
            "10", "1 .0",
        ] {
            assert_eq!(number(text), text);
        }
        for (text, normal) in [("-1.50", "-1.5"), ("10.0", "10"), ("0.00", "0")] {
            assert_eq!(number(text), normal);
        }
    }

    #[test]
    fn the_key_of_the_record_is_the_other_side() {
        for on in ["code = lower(country)", "lower(country) = code"] {
            let key = steps(on, "name").key.to_string();
            assert_eq!(key, "cast(lower(country) as utf8)");
        }
        assert_eq!(steps("code", "*").edits.len(), 2);
    }
}
