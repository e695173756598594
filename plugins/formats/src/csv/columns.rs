//! Decodes records into the wanted columns.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use bytes::Bytes;
use pseidon_dsl::expr::PathStep;
use pseidon_plugin::format::{DecodedColumns, Decoder, WantedColumn, is_json};
use pseidon_plugin::{BadRow, Payloads};

use super::fields::{Fields, Value};
use super::layout::{CsvLayout, FieldNames, place_of};
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

#[derive(Clone, Copy)]
enum Width {
    Exactly(usize),
    /// It is not known, but these are used.
    AtLeast(usize),
}

#[derive(Clone)]
struct FoundColumns {
    /// How many fields each record has.
    width: Width,
    /// For each wanted column the number of its field, if the records have it.
    fields: Vec<Option<usize>>,
}

struct Column {
    name: String,
    values: Values,
    /// Whether its values are numbers with a decimal comma.
    has_comma: bool,
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
            match &layout.names {
                FieldNames::Given { names, .. } if !names.contains(name) => {
                    return Err(format!(
                        "the records have no field `{name}`; expected one of {}",
                        names.join(", ")
                    ));
                }
                FieldNames::Numbered if place_of(name).is_none() => {
                    return Err(format!(
                        "the records have no field `{name}`; without a header, the fields are \
                         column1, column2, …, or those that :schema or the setting `fields` names"
                    ));
                }
                _ => {}
            }
            let values = match is_json(&column.field) {
                true => Values::Json(StringBuilder::new()),
                false => Values::Typed(TextColumn::new(&column.field)?),
            };
            let data_type = column.field.data_type();
            Ok(Column {
                name: name.clone(),
                values,
                has_comma: layout.has_decimal_comma
                    && (data_type.is_floating() || data_type.is_decimal()),
            })
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
        let names = match (&self.layout.names, header) {
            (FieldNames::Given { names, .. }, _) => names.clone(),
            (FieldNames::Numbered, _) => return Ok(self.numbered()),
            (FieldNames::InHeader, Some(header)) => self.fields.names(header, &self.layout)?,
            (FieldNames::InHeader, None) => {
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
            width: Width::Exactly(names.len()),
            fields,
        })
    }

    /// The places of columns that are named by them.
    fn numbered(&self) -> FoundColumns {
        let columns = self.columns.iter();
        let fields: Vec<_> = columns.map(|column| place_of(&column.name)).collect();
        let used = fields.iter().flatten().map(|place| place + 1).max();
        FoundColumns {
            width: Width::AtLeast(used.unwrap_or(0)),
            fields,
        }
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
        let found = self.fields.len();
        match places.width {
            Width::Exactly(width) if found != width => {
                return Err(format!("expected {width} fields, found {found}"));
            }
            Width::AtLeast(used) if found < used => {
                return Err(format!("expected at least {used} fields, found {found}"));
            }
            _ => {}
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
                let added = match self.has_comma {
                    true => with_point(text).is_some_and(|number| values.add(&number)),
                    false => values.add(text),
                };
                if !added {
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

/// A number with a decimal comma as one with a point. `None` if it has a point, which separates
/// thousands where a comma separates fractions.
pub(super) fn with_point(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr(b'.', text).is_some() {
        return None;
    }
    Some(match memchr::memchr(b',', text) {
        None => Cow::Borrowed(text),
        Some(comma) => {
            let mut number = text.to_vec();
            number[comma] = b'.';
            Cow::Owned(number)
        }
    })
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
