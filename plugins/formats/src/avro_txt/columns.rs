//! Builds the wanted columns from the columns of a schema.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, RecordBatch, StringBuilder,
    TimestampMillisecondArray, UnionArray, new_null_array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type, TimestampMillisecondType};
use arrow::json::writer::make_encoder;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pseidon_expr::floats::overflowed;
use pseidon_expr::ranges::rows_out_of_range;
use pseidon_plugin::format::WantedColumn;

use crate::encode::{RecordEncoder, json_options};
use crate::event::{self, EventColumn};
use crate::record_format::{EventLayout, EventTime, EventUnit};
use crate::values::{self, TextColumn};

/// The records whose value cannot be decoded: their row in the batch and the reason.
pub(super) type Mismatches = Vec<(usize, String)>;

/// Builds one wanted column.
pub(super) struct ColumnBuilder {
    field: FieldRef,
    source: ColumnSource,
}

enum ColumnSource {
    Time(EventTime),
    /// One field as a string, or the whole record as JSON if `None`.
    Message(Option<usize>),
    /// The field with this name, in lower case.
    Field(String),
}

impl ColumnBuilder {
    /// The error says why this column cannot be decoded.
    pub(super) fn new(event: &EventLayout, column: &WantedColumn) -> Result<ColumnBuilder, String> {
        let source = match (event::event_column("avro-txt", event, column)?, event.time) {
            (EventColumn::Time, Some(time)) => ColumnSource::Time(time),
            (EventColumn::Field(number), _) => {
                // The field may be a string in the Avro schema, so its type must be decodable from
                // strings.
                TextColumn::new(&column.field)?;
                ColumnSource::Field(
                    event
                        .fields
                        .get(number)
                        .map_or_else(String::new, |name| name.to_lowercase()),
                )
            }
            _ => ColumnSource::Message(event.message.single()),
        };
        Ok(ColumnBuilder {
            field: column.field.clone(),
            source,
        })
    }

    pub(super) fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// Builds the column for a batch of records.
    pub(super) fn column(&self, batch: &RecordBatch, mismatches: &mut Mismatches) -> ArrayRef {
        let rows = batch.num_rows();
        let made = match &self.source {
            ColumnSource::Time(time) => match batch.columns().get(time.field) {
                Some(column) => Ok(self.times(column, *time, mismatches)),
                None => Err(format!(
                    "`{}` is field {}, but the record has {} fields",
                    self.field.name(),
                    time.field,
                    batch.num_columns()
                )),
            },
            ColumnSource::Message(None) => {
                json_objects(batch).and_then(|objects| self.text(&objects, true, mismatches))
            }
            ColumnSource::Message(Some(index)) => match batch.columns().get(*index) {
                // The column already has the wanted type.
                Some(column)
                    if column.data_type() == self.data_type() && column.null_count() == 0 =>
                {
                    Ok(column.clone())
                }
                Some(column) => to_text(batch.schema_ref().field(*index), column)
                    .and_then(|texts| self.text(&texts, true, mismatches)),
                None => self.text(&BinaryArray::new_null(rows), true, mismatches),
            },
            ColumnSource::Field(name) => {
                match batch
                    .schema_ref()
                    .fields()
                    .iter()
                    .zip(batch.columns())
                    .find(|(field, _)| field.name().to_lowercase() == *name)
                {
                    Some((field, column)) => self.typed(field, column, mismatches),
                    None => Ok(new_null_array(self.data_type(), rows)),
                }
            }
        };
        made.unwrap_or_else(|reason| {
            mismatches.extend((0..rows).map(|row| (row, reason.clone())));
            new_null_array(self.data_type(), rows)
        })
    }

    fn times(&self, column: &ArrayRef, time: EventTime, mismatches: &mut Mismatches) -> ArrayRef {
        let read = event_times(column, time.unit);
        for row in (0..column.len()).filter(|row| read.is_null(*row)) {
            let reason = match column.is_null(row) {
                true => format!(
                    "`{}` is field {}, which is null",
                    self.field.name(),
                    time.field
                ),
                false => {
                    let expected = event::expected_time(time.unit);
                    format!(
                        "`{}` is field {}, which is {}; expected {expected}",
                        self.field.name(),
                        time.field,
                        display_value(column, row)
                    )
                }
            };
            mismatches.push((row, reason));
        }
        Arc::new(read)
    }

    /// Converts values to strings, or to binary if that is the wanted type. If `filled`, null
    /// becomes an empty string.
    fn text(
        &self,
        texts: &BinaryArray,
        filled: bool,
        mismatches: &mut Mismatches,
    ) -> Result<ArrayRef, String> {
        let value = |row: usize| match texts.is_null(row) {
            true => filled.then_some(&b""[..]),
            false => Some(texts.value(row)),
        };
        if *self.data_type() == DataType::Binary {
            return Ok(Arc::new(
                (0..texts.len()).map(value).collect::<BinaryArray>(),
            ));
        }
        let mut builder = StringBuilder::with_capacity(texts.len(), texts.values().len());
        for row in 0..texts.len() {
            match value(row).map(simdutf8::basic::from_utf8) {
                Some(Ok(text)) => builder.append_value(text),
                Some(Err(_)) => {
                    mismatches.push((row, format!("`{}` is not valid UTF-8", self.field.name())));
                    builder.append_null();
                }
                None => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    /// Converts the values of a field to the wanted type.
    fn typed(
        &self,
        field: &FieldRef,
        column: &ArrayRef,
        mismatches: &mut Mismatches,
    ) -> Result<ArrayRef, String> {
        if column.data_type() == self.data_type() {
            return Ok(column.clone());
        }
        if matches!(self.data_type(), DataType::Utf8 | DataType::Binary) {
            return self.text(&to_text(field, column)?, false, mismatches);
        }
        let made = match column.data_type() {
            DataType::Utf8 | DataType::Dictionary(..) => self.parsed(&to_text(field, column)?)?,
            from if can_cast_types(from, self.data_type()) => {
                cast_exactly(column, self.data_type())?
            }
            _ => new_null_array(self.data_type(), column.len()),
        };
        for row in (0..column.len()).filter(|row| made.is_null(*row) && column.is_valid(*row)) {
            // An empty string means null.
            if column
                .as_string_opt::<i32>()
                .is_some_and(|texts| texts.value(row).is_empty())
            {
                continue;
            }
            mismatches.push((
                row,
                format!(
                    "`{}` is {}; expected {}",
                    self.field.name(),
                    display_value(column, row),
                    values::type_name(self.data_type())
                ),
            ));
        }
        Ok(made)
    }

    fn parsed(&self, texts: &BinaryArray) -> Result<ArrayRef, String> {
        let mut column = TextColumn::new(&self.field)?;
        for text in texts {
            column.add(text.unwrap_or_default());
        }
        Ok(column.finish())
    }
}

/// Casts values to another type. Values that the type cannot represent exactly become null.
fn cast_exactly(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let cast = |column: &ArrayRef, to: &DataType| {
        cast_with_options(
            column,
            to,
            &CastOptions {
                safe: true,
                ..CastOptions::default()
            },
        )
        .map_err(|error| error.to_string())
    };
    let made = in_range(cast(column, to)?)?;
    let from = column.data_type();
    let cuts = (from.is_floating() || is_decimal(from)) && (to.is_integer() || is_decimal(to));
    let changed = match cuts {
        true => distinct(&cast(&made, from)?, column),
        false => overflowed(column, &made),
    };
    let fitting = changed.and_then(|changed| arrow::compute::nullif(&made, &changed));
    fitting.map_err(|error| error.to_string())
}

/// Values with null for those that are outside of their type.
fn in_range(values: ArrayRef) -> Result<ArrayRef, String> {
    let rows = rows_out_of_range(&values);
    if rows.is_empty() {
        return Ok(values);
    }
    let mut is_outside = vec![false; values.len()];
    rows.into_iter().for_each(|row| is_outside[row] = true);
    let outside = BooleanArray::from(is_outside);
    arrow::compute::nullif(&values, &outside).map_err(|error| error.to_string())
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// Converts a column to event times in milliseconds. Values that are not event times become null.
fn event_times(column: &ArrayRef, unit: EventUnit) -> TimestampMillisecondArray {
    let factor = match unit {
        EventUnit::Milliseconds => 1_i64,
        EventUnit::Seconds => 1000,
    };
    let cast = |to: &DataType| {
        cast_with_options(
            column,
            to,
            &CastOptions {
                safe: true,
                ..CastOptions::default()
            },
        )
        .ok()
    };
    let read: Option<TimestampMillisecondArray> = match column.data_type() {
        DataType::Timestamp(..) | DataType::Date32 => cast(&event::time_type())
            .map(|times| times.as_primitive::<TimestampMillisecondType>().clone()),
        DataType::Int32 | DataType::Int64 => {
            let numbers = cast(&DataType::Int64);
            numbers.map(|numbers| {
                numbers
                    .as_primitive::<Int64Type>()
                    .unary_opt(|number| number.checked_mul(factor))
            })
        }
        DataType::Float32 | DataType::Float64 => cast(&DataType::Float64).map(|numbers| {
            let milliseconds = |number: f64| {
                Some(number * factor as f64).filter(|number| number.abs() < i64::MAX as f64)
            };
            numbers
                .as_primitive::<Float64Type>()
                .unary_opt(|number| milliseconds(number).map(|number| number as i64))
        }),
        DataType::Utf8 => column
            .as_string_opt::<i32>()
            .map(|texts| texts.iter().map(|text| event::time(text?, unit)).collect()),
        _ => None,
    };
    read.unwrap_or_else(|| TimestampMillisecondArray::new_null(column.len()))
        .with_data_type(event::time_type())
}

/// Encodes the records as JSON objects.
fn json_objects(batch: &RecordBatch) -> Result<BinaryArray, String> {
    let encoder = RecordEncoder::objects(batch.schema_ref())?;
    let mut values = encoder
        .object_values(batch)
        .map_err(|error| error.to_string())?;
    let mut objects = BinaryBuilder::new();
    let mut object = Vec::new();
    for row in 0..batch.num_rows() {
        object.clear();
        values.encode(row, &mut object);
        objects.append_value(&object);
    }
    Ok(objects.finish())
}

/// Converts a field to text: strings and binary unchanged, everything else as in JSON, but without
/// quotes.
fn to_text(field: &arrow::datatypes::Field, column: &ArrayRef) -> Result<BinaryArray, String> {
    let as_bytes = |column: &ArrayRef| {
        let cast = cast_with_options(column, &DataType::Binary, &CastOptions::default())
            .map_err(|error| error.to_string())?;
        cast.as_binary_opt::<i32>()
            .cloned()
            .ok_or_else(|| "the column is not a string or binary".to_owned())
    };
    match column.data_type() {
        DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(_) => as_bytes(column),
        DataType::Dictionary(..) => as_bytes(
            &cast_with_options(column, &DataType::Utf8, &CastOptions::default())
                .map_err(|error| error.to_string())?,
        ),
        DataType::Union(fields, _) => {
            let union = column
                .as_union_opt()
                .ok_or_else(|| "the column is not a union".to_owned())?;
            let children = fields
                .iter()
                .map(|(id, field)| Ok((id, to_text(field, union.child(id))?)))
                .collect::<Result<Vec<_>, String>>()?;
            Ok((0..union.len())
                .map(|row| union_text(union, row, &children))
                .collect())
        }
        _ => json_texts(field, column),
    }
}

/// The text of a union's value. `children` are the texts of all its types.
fn union_text<'a>(
    union: &UnionArray,
    row: usize,
    children: &'a [(i8, BinaryArray)],
) -> Option<&'a [u8]> {
    let (_, texts) = children.iter().find(|(id, _)| *id == union.type_id(row))?;
    let at = union.value_offset(row);
    texts.is_valid(at).then(|| texts.value(at))
}

fn json_texts(field: &arrow::datatypes::Field, column: &ArrayRef) -> Result<BinaryArray, String> {
    let options = json_options();
    let field = Arc::new(field.clone());
    let mut encoder = make_encoder(&field, column, &options)
        .map_err(|error| format!("cannot convert `{}` to a string: {error}", field.name()))?;
    let mut texts = BinaryBuilder::new();
    let mut text = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(
            text.strip_prefix(b"\"")
                .and_then(|text| text.strip_suffix(b"\""))
                .unwrap_or(&text),
        );
    }
    Ok(texts.finish())
}

/// Formats a value for messages.
fn display_value(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    let text =
        ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string());
    crate::abbreviate(&text.unwrap_or_else(|_| column.data_type().to_string()))
}
