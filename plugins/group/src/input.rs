//! What is grouped: the input of a grouping, and the records that its results are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::Expr;
use pseidon_expr::aggregate::{AggregateArg, AggregateCall, Grouping};
use pseidon_expr::{CompiledExpr, compile};
use pseidon_formats::ColumnFormat;
use pseidon_plugin::batch::{Batch, BatchBuilder, Payloads, RecordMeta, Split, WantedMetadata};
use pseidon_plugin::format::Format;
use pseidon_plugin::group::{GroupContent, GroupStage};
use pseidon_plugin::options::ParseResult;
use pseidon_plugin::rows::{BadRow, BadRows, Rows};
use pseidon_plugin::sink::{RecordShape, SinkInput};

/// A format of records that are columns.
const COLUMNS: ColumnFormat = ColumnFormat::Parquet;

/// How the records of a stage are grouped.
pub(crate) struct GroupPlan {
    pub(crate) grouping: Arc<Grouping>,
    /// The types of the grouping's input, for comparison with what was stored.
    pub(crate) types: String,
    form: Form,
}

/// What the input and the results are.
enum Form {
    /// Both are columns as they are.
    Columns,
    /// The input is the keys and the record's bytes; a result is a record.
    Bytes(Vec<CompiledExpr>, SchemaRef, String),
    /// The input is the keys and the record's columns; a result is a record.
    Record(Vec<CompiledExpr>, SchemaRef, SchemaRef),
}

impl GroupPlan {
    /// The plan for this input of a stage.
    ///
    /// # Errors
    /// Keys and functions that are not valid.
    pub(crate) fn new(stage: &GroupStage, input: &SinkInput) -> ParseResult<GroupPlan> {
        let (keys, last) = match &stage.content {
            GroupContent::Results { keys, calls } => {
                return GroupPlan::results(*keys, calls, input);
            }
            GroupContent::Record { keys, last } => (keys, *last),
        };
        let keys = compiled(keys, input)?;
        let named = |(at, key): (usize, &CompiledExpr)| -> FieldRef {
            let name = format!("(key {})", at + 1);
            Arc::new(
                key.field()
                    .as_ref()
                    .clone()
                    .with_name(name)
                    .with_nullable(true),
            )
        };
        let mut fields: Vec<FieldRef> = keys.iter().enumerate().map(named).collect();
        let key_count = fields.len();
        match &input.record {
            RecordShape::AsCame { .. } => {
                fields.push(Arc::new(Field::new("record", DataType::Binary, true)));
            }
            RecordShape::Columns(schema) => fields.extend(schema.fields().iter().cloned()),
        }
        let span = stage.span;
        let function = if last { "last_value" } else { "first_value" };
        let calls: Vec<(String, AggregateCall)> = (key_count..fields.len())
            .map(|number| {
                let call = AggregateCall {
                    name: function.to_owned(),
                    span,
                    distinct: false,
                    args: vec![AggregateArg::Column(number)],
                };
                (fields[number].name().clone(), call)
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let grouping = Arc::new(Grouping::new(&schema, key_count, &calls)?);
        let types = types(&schema);
        let form = match &input.record {
            RecordShape::AsCame { format } => Form::Bytes(keys, schema, format.clone()),
            RecordShape::Columns(record) => Form::Record(keys, schema, record.clone()),
        };
        Ok(GroupPlan {
            grouping,
            types,
            form,
        })
    }

    fn results(
        keys: usize,
        calls: &[(String, AggregateCall)],
        input: &SinkInput,
    ) -> ParseResult<GroupPlan> {
        let RecordShape::Columns(schema) = &input.record else {
            // The step before it is a `select`.
            return Err(Vec::new());
        };
        Ok(GroupPlan {
            grouping: Arc::new(Grouping::new(schema, keys, calls)?),
            types: types(schema),
            form: Form::Columns,
        })
    }

    /// The first key that is not deterministic. Those of a `group` are in the `select` before it.
    pub(crate) fn nondeterminism(&self) -> Option<String> {
        let (Form::Bytes(keys, ..) | Form::Record(keys, ..)) = &self.form else {
            return None;
        };
        let key = keys.iter().find(|key| !key.is_deterministic())?;
        Some(key.field().name().clone())
    }

    /// The format of the results.
    pub(crate) fn format(&self) -> &str {
        match &self.form {
            Form::Bytes(_, _, format) => format,
            Form::Columns | Form::Record(..) => COLUMNS.name(),
        }
    }

    /// The fields of the results, if they are columns.
    pub(crate) fn fields(&self) -> Option<SchemaRef> {
        match &self.form {
            Form::Columns => Some(self.grouping.output().clone()),
            Form::Bytes(..) => None,
            Form::Record(_, _, record) => Some(record.clone()),
        }
    }

    /// Rows whose columns are the input of the grouping, and the rows whose keys are invalid.
    pub(crate) fn convert(&self, rows: Rows) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let (Form::Bytes(keys, schema, _) | Form::Record(keys, schema, _)) = &self.form else {
            return Ok((rows, Vec::new()));
        };
        let columns = |rows: &Rows| self.columns(rows, keys, schema);
        let mut bad = BadRows::new(rows.len());
        let (good, columns) = match columns(&rows) {
            Ok(columns) => (rows, columns),
            Err(_) => {
                let failing = rows.failing(|some| columns(some).map(drop));
                let good = rows.without(&failing)?;
                bad.add(failing);
                let columns = columns(&good)?;
                (good, columns)
            }
        };
        Ok((good.with_record(columns), bad.into_sorted()))
    }

    fn columns(
        &self,
        rows: &Rows,
        keys: &[CompiledExpr],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for key in keys {
            columns.push(rows.evaluate(key)?);
        }
        match &self.form {
            Form::Bytes(..) => {
                let records: BinaryArray = (0..rows.len()).map(|row| rows.payload(row)).collect();
                columns.push(Arc::new(records));
            }
            _ => columns.extend(rows.columns().columns().iter().cloned()),
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options)
    }

    /// A batch of the results of some groups, of which the first has this position.
    pub(crate) fn batch(
        &self,
        results: RecordBatch,
        split: Arc<Split>,
        first: Position,
    ) -> Result<Batch, ArrowError> {
        let next = first + results.num_rows() as u64;
        let columns = match &self.form {
            Form::Columns => results,
            Form::Record(_, schema, record) => {
                let keys = schema.fields().len() - record.fields().len();
                let columns = results.columns()[keys..].to_vec();
                RecordBatch::try_new(record.clone(), columns)?
            }
            Form::Bytes(..) => return Ok(records(&results, split, first)),
        };
        let payloads = Payloads::of_columns(columns);
        Ok(Batch::from_payloads(
            split,
            payloads,
            (first..next).collect(),
            next,
        ))
    }
}

/// The records in the last column.
fn records(results: &RecordBatch, split: Arc<Split>, first: Position) -> Batch {
    let rows = results.num_rows();
    let mut builder = BatchBuilder::new(split, WantedMetadata::default(), 0);
    if let Some(records) = results.columns().last() {
        let records = records.as_binary::<i32>();
        for row in 0..rows {
            let record = records.is_valid(row).then(|| records.value(row));
            builder.push(first + row as u64, record, RecordMeta::default());
        }
    }
    builder.finish(first + rows as u64)
}

/// Keys for records of this input.
fn compiled(keys: &[Expr], input: &SinkInput) -> ParseResult<Vec<CompiledExpr>> {
    let mut errors: Vec<Diagnostic> = Vec::new();
    let compiled = keys.iter().filter_map(|key| {
        let compiled = compile(key, &input.scope);
        compiled.map_err(|more| errors.extend(more)).ok()
    });
    let compiled = compiled.collect();
    match errors.is_empty() {
        true => Ok(compiled),
        false => Err(errors),
    }
}

fn types(schema: &Schema) -> String {
    let types = schema.fields().iter().map(|field| field.data_type());
    types
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
