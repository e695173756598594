//! Decodes records into the wanted columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use bytes::Bytes;
use pseidon_dsl::expr::PathStep;
use pseidon_plugin::format::{DecodedColumns, Decoder, WantedColumn, is_json};
use pseidon_plugin::{BadRow, Payloads};

use super::fields::{Fields, Value};
use super::layout::CsvLayout;
use super::sniff::likelier_separator;
use crate::abbreviate;
use crate::values::TextColumn;

/// Splits records into fields and builds the wanted columns.
pub(super) struct CsvDecoder {
    layout: CsvLayout,
    columns: Vec<Column>,
    fields: Fields,
    places: Option<Places>,
}

/// Where the columns are in the records of a file.
struct Places {
    header: Option<Bytes>,
    found: Result<FoundColumns, String>,
}

#[derive(Clone)]
struct FoundColumns {
    /// How many fields each record has.
    width: usize,
    /// For each wanted column the number of its field, if the records have it.
    fields: Vec<Option<usize>>,
}

struct Column {
    name: String,
    values: Values,
}

enum Values {
    Typed(TextColumn),
    /// JSON strings, for a field without a declared type.
    Json(StringBuilder),
}

impl CsvDecoder {
    pub(super) fn new(layout: CsvLayout, wanted: &[WantedColumn]) -> Result<CsvDecoder, String> {
        let column = |column: &WantedColumn| {
            let [PathStep::Field(name)] = column.path.0.as_slice() else {
                return Err(format!(
                    "`{}` is inside another field, but the fields of csv records are strings",
                    column.path
                ));
            };
            if let Some(names) = &layout.fields
                && !names.contains(name)
            {
                return Err(format!(
                    "the records have no field `{name}`; expected one of {}",
                    names.join(", ")
                ));
            }
            let values = match is_json(&column.field) {
                true => Values::Json(StringBuilder::new()),
                false => Values::Typed(TextColumn::new(&column.field)?),
            };
            let name = name.clone();
            Ok(Column { name, values })
        };
        let columns = wanted.iter().map(column).collect::<Result<_, String>>()?;
        Ok(CsvDecoder {
            layout,
            columns,
            fields: Fields::default(),
            places: None,
        })
    }

    /// Finds the columns in the records of a file with this header.
    fn places(&mut self, header: Option<&Bytes>) -> Result<FoundColumns, String> {
        if let Some(places) = self
            .places
            .as_ref()
            .filter(|it| it.header.as_ref() == header)
        {
            return places.found.clone();
        }
        let found = self.find(header.map(Bytes::as_ref));
        self.places = Some(Places {
            header: header.cloned(),
            found: found.clone(),
        });
        found
    }

    fn find(&mut self, header: Option<&[u8]>) -> Result<FoundColumns, String> {
        let names = match (&self.layout.fields, header) {
            (Some(names), _) => names.clone(),
            (None, Some(header)) => self.fields.names(header, &self.layout)?,
            (None, None) => {
                return Err("the fields have no names: the header is missing".to_owned());
            }
        };
        let place = |column: &Column| {
            let mut places = (0..names.len()).filter(|number| names[*number] == column.name);
            let place = places.next();
            match places.next() {
                Some(_) => Err(format!("the header has several fields `{}`", column.name)),
                None => Ok(place),
            }
        };
        let fields: Vec<_> = self.columns.iter().map(place).collect::<Result<_, _>>()?;
        if let Some(header) = header
            && !fields.is_empty()
            && fields.iter().all(Option::is_none)
            && let Some(separator) = likelier_separator(header, &self.layout)
        {
            return Err(self.no_column(header, separator));
        }
        Ok(FoundColumns {
            width: names.len(),
            fields,
        })
    }

    /// Why records are invalid if their header has none of the columns, but another separator.
    fn no_column(&self, header: &[u8], separator: &str) -> String {
        let names: Vec<&str> = self.columns.iter().map(|it| it.name.as_str()).collect();
        format!(
            "the header `{}` has none of the fields that are used ({}); its separator may be a \
             {separator}: set sep={separator}",
            abbreviate(&String::from_utf8_lossy(header)),
            abbreviate(&names.join(", "))
        )
    }

    /// Appends the record's values to the columns. If the record is bad, some columns may already
    /// have a value.
    fn decode_record(&mut self, record: &[u8], places: &FoundColumns) -> Result<(), String> {
        simdutf8::basic::from_utf8(record).map_err(|_| "the record is not valid UTF-8")?;
        self.fields.split(record, &self.layout)?;
        if self.fields.len() != places.width {
            return Err(format!(
                "expected {} fields, found {}",
                places.width,
                self.fields.len()
            ));
        }
        for (column, place) in self.columns.iter_mut().zip(&places.fields) {
            let value = place.map_or(Value::Null, |place| self.fields.value(record, place));
            column.add(value)?;
        }
        Ok(())
    }
}

impl Column {
    fn add(&mut self, value: Value<'_>) -> Result<(), String> {
        match (&mut self.values, value) {
            (Values::Typed(values), Value::Null) => values.add_null(),
            (Values::Typed(values), Value::Text(b"")) => values.add_empty(),
            (Values::Typed(values), Value::Text(text)) => {
                if !values.add(text) {
                    let found = crate::abbreviate(&String::from_utf8_lossy(text));
                    return Err(format!(
                        "`{}` is the string {found:?}; expected {}",
                        self.name,
                        values.type_name()
                    ));
                }
            }
            (Values::Json(values), Value::Null) => values.append_null(),
            (Values::Json(values), Value::Text(text)) => {
                let text = String::from_utf8_lossy(text);
                values.append_value(sonic_rs::to_string(&text).map_err(|it| it.to_string())?);
            }
        }
        Ok(())
    }

    /// Appends a null unless the column already has `len` values.
    fn fill(&mut self, len: usize) {
        match &mut self.values {
            Values::Typed(values) if values.len() < len => values.add_null(),
            Values::Json(values) if arrow::array::ArrayBuilder::len(values) < len => {
                values.append_null();
            }
            _ => {}
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Typed(values) => values.finish(),
            Values::Json(values) => Arc::new(values.finish()),
        }
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        if self.columns.is_empty() {
            return DecodedColumns::new(Vec::new(), Vec::new());
        }
        let places = self.places(payloads.header());
        let mut bad = Vec::new();
        let mut total = 0;
        for (row, record) in payloads.iter().enumerate() {
            if let Some(record) = record {
                total += record.len();
                // Arrow's string columns are limited to 2 GiB, and JSON may be six times as long.
                let is_small = total.saturating_mul(6) <= i32::MAX as usize;
                let decoded = match &places {
                    _ if !is_small => Err("the batch is too large".to_owned()),
                    Ok(places) => self.decode_record(record, places),
                    Err(reason) => Err(reason.clone()),
                };
                if let Err(reason) = decoded {
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
