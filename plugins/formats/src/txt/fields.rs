//! Decodes `txt` records with settings: fields between separators.
//!
//! A record is scanned once, up to the last field that a column needs. Only the start and end of
//! each field are recorded, so no memory is allocated per field. A message whose fields are
//! adjacent in the record is one slice of it.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, StringBuilder, TimestampMillisecondBuilder,
};
use pseidon_plugin::format::{DecodedColumns, Decoder, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use super::split::FieldSpans;
use crate::event::{self, EventColumn};
use crate::record_format::{EventTime, TxtLayout};
use crate::values::TextColumn;

const NOT_UTF8: &str = "the record is not valid UTF-8";

/// Splits records into fields and builds the wanted columns.
pub(super) struct FieldsDecoder {
    layout: TxtLayout,
    /// How many fields must be located.
    needed: usize,
    fields: FieldSpans,
    columns: Vec<Column>,
}

enum Column {
    Time(EventTime, TimestampMillisecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    /// An individual field: its name, its index in the message, and its values.
    Field(String, usize, TextColumn),
}

impl FieldsDecoder {
    pub(super) fn new(layout: TxtLayout, wanted: &[WantedColumn]) -> Result<FieldsDecoder, String> {
        let mut columns = Vec::new();
        let mut needed = Some(0);
        let mut need = |fields: Option<usize>| {
            needed = needed
                .zip(fields)
                .map(|(one, other): (usize, usize)| one.max(other))
        };
        for column in wanted {
            columns.push(
                match (
                    event::event_column("txt", &layout.event, column)?,
                    layout.event.time,
                ) {
                    (EventColumn::Time, Some(time)) => {
                        need(Some(time.field.saturating_add(1)));
                        Column::Time(
                            time,
                            TimestampMillisecondBuilder::new().with_data_type(event::time_type()),
                        )
                    }
                    (EventColumn::Field(number), _) => {
                        need(Some(
                            layout
                                .event
                                .message
                                .clamped(usize::MAX)
                                .start
                                .saturating_add(number)
                                .saturating_add(1),
                        ));
                        Column::Field(
                            column.path.to_string(),
                            number,
                            TextColumn::new(&column.field)?,
                        )
                    }
                    _ => {
                        need(layout.event.message.fields_needed());
                        if layout.event.bytes {
                            Column::Bytes(BinaryBuilder::new())
                        } else {
                            Column::Text(StringBuilder::new())
                        }
                    }
                },
            );
        }
        Ok(FieldsDecoder {
            needed: needed.unwrap_or(usize::MAX),
            fields: FieldSpans::new(layout.keeps_empty),
            layout,
            columns,
        })
    }

    /// Appends the record's values to the columns. If the record is bad, some columns may already
    /// have a value.
    fn decode_record(&mut self, record: &[u8]) -> Result<(), String> {
        let event = &self.layout.event;
        if !event.bytes && simdutf8::basic::from_utf8(record).is_err() {
            return Err(NOT_UTF8.to_owned());
        }
        self.fields
            .split(record, self.layout.separator, self.needed);
        let chosen = event.message.clamped(self.fields.len());
        for column in &mut self.columns {
            match column {
                Column::Time(time, values) => {
                    let field = self.fields.get(record, time.field);
                    values.append_value(read_time(
                        field,
                        *time,
                        event.time_name(),
                        self.fields.len(),
                    )?);
                }
                Column::Text(values) => {
                    let message = self
                        .fields
                        .joined(record, chosen.clone(), self.layout.separator);
                    values.append_value(simdutf8::basic::from_utf8(message).map_err(|_| NOT_UTF8)?);
                }
                Column::Bytes(values) => values.append_value(self.fields.joined(
                    record,
                    chosen.clone(),
                    self.layout.separator,
                )),
                Column::Field(name, number, values) => {
                    let number =
                        Some(chosen.start + *number).filter(|number| chosen.contains(number));
                    let text = number
                        .and_then(|number| self.fields.get(record, number))
                        .unwrap_or_default();
                    if !values.add(text) {
                        let found = crate::abbreviate(&String::from_utf8_lossy(text));
                        return Err(format!(
                            "`{name}` is the string {found:?}; expected {}",
                            values.type_name()
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn read_time(
    field: Option<&[u8]>,
    time: EventTime,
    name: &str,
    fields: usize,
) -> Result<i64, String> {
    let EventTime { field: index, unit } = time;
    let field = field
        .ok_or_else(|| format!("`{name}` is field {index}, but the record has {fields} fields"))?;
    let read = std::str::from_utf8(field)
        .ok()
        .and_then(|text| event::time(text, unit));
    read.ok_or_else(|| {
        let found = crate::abbreviate(&String::from_utf8_lossy(field));
        format!(
            "`{name}` is field {index}, which is {found:?}; expected {}",
            event::expected_time(unit)
        )
    })
}

impl Decoder for FieldsDecoder {
    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        if self.columns.is_empty() {
            return DecodedColumns::new(Vec::new(), Vec::new());
        }
        let mut bad = Vec::new();
        let mut total = 0;
        for row in 0..payloads.len() {
            if let Some(record) = payloads.get(row) {
                total += record.len();
                // Arrow's string columns are limited to 2 GiB.
                let fits =
                    i32::try_from(total).map_err(|_| "the batch is larger than 2 GiB".to_owned());
                if let Err(reason) = fits.and_then(|_| self.decode_record(record)) {
                    bad.push(BadRow {
                        row: row as u32,
                        reason,
                    });
                }
            }
            for column in &mut self.columns {
                column.fill(row + 1);
            }
        }
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        DecodedColumns::new(crate::null_bad_rows(columns, &bad, payloads.len()), bad)
    }
}

impl Column {
    /// Appends a null unless the column already has `len` values.
    fn fill(&mut self, len: usize) {
        match self {
            Column::Time(_, values) if values.len() < len => values.append_null(),
            Column::Text(values) if values.len() < len => values.append_null(),
            Column::Bytes(values) if values.len() < len => values.append_null(),
            Column::Field(_, _, values) if values.len() < len => values.add_null(),
            _ => {}
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Time(_, values) => Arc::new(values.finish()),
            // The next batch will need about the same capacity.
            Column::Text(values) => {
                let (len, bytes) = (values.len(), values.values_slice().len());
                Arc::new(
                    std::mem::replace(values, StringBuilder::with_capacity(len, bytes)).finish(),
                )
            }
            Column::Bytes(values) => {
                let (len, bytes) = (values.len(), values.values_slice().len());
                Arc::new(
                    std::mem::replace(values, BinaryBuilder::with_capacity(len, bytes)).finish(),
                )
            }
            Column::Field(_, _, values) => values.finish(),
        }
    }
}
