//! Routing: decides to which lane each row goes and which columns of it are written.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use pseidon_delivery::LaneId;
use pseidon_plugin::rows::BadRows;
use pseidon_plugin::sink::{Chunk, RoutedRows};
use pseidon_plugin::{BadRow, Rows};

use super::lane_name::{MAX_PATH_BYTES, digest, lane_id, lane_number, render, render_name};
use super::projection::Projection;
use super::template::PathTemplate;

/// Groups rows by lane.
#[derive(Clone, Debug)]
pub(super) struct Router {
    /// The template of a bucket's path, relative to the base directory.
    pub(super) path: PathTemplate,
    /// The template of the beginning of its files' names; `None` for the topic.
    pub(super) name: Option<PathTemplate>,
    /// The template of the folder where files are moved. Its values are passed to the writer with
    /// the rows if only some columns are written.
    pub(super) destination: Option<PathTemplate>,
    /// The columns that are written; `None` for the whole record.
    pub(super) projection: Option<Projection>,
    /// How many lanes share a bucket.
    pub(super) lanes: u32,
    /// The name of a null value.
    pub(super) null_name: String,
}

/// The values of the expressions for some rows.
struct Values {
    path: Vec<StringArray>,
    name: Vec<StringArray>,
    destination: Vec<StringArray>,
    record: Option<RecordBatch>,
}

impl Router {
    /// Groups the rows by lane, in the order in which lanes appear. `check` returns the rows that
    /// cannot be written.
    pub(super) fn route(&self, rows: Rows, check: impl Fn(&Rows) -> Vec<BadRow>) -> RoutedRows {
        let count = rows.len();
        let mut good = rows;
        let mut bad = BadRows::new(count);
        let routed = loop {
            let found = match self.values(&good) {
                Ok(values) => {
                    let projected = values
                        .record
                        .as_ref()
                        .map_or_else(|| good.clone(), |record| good.with_record(record.clone()));
                    let found = check(&projected);
                    if found.is_empty() {
                        match self.group(projected, &values) {
                            Ok(routed) => break routed,
                            Err(error) => return RoutedRows::all_bad(count, &error),
                        }
                    }
                    found
                }
                Err(error) => {
                    let found = good.failing(|rows| self.values(rows).map(drop));
                    if found.is_empty() {
                        return RoutedRows::all_bad(count, &error);
                    }
                    found
                }
            };
            good = match good.without(&found) {
                Ok(good) => good,
                Err(error) => return RoutedRows::all_bad(count, &error),
            };
            bad.add(found);
        };
        bad.add(routed.bad);
        RoutedRows {
            chunks: routed.chunks,
            bad: bad.into_sorted(),
            ..RoutedRows::default()
        }
    }

    /// The folder where a file is moved whose first record is the first of these rows, as they
    /// arrive at a writer. It is relative to the folder with which the template begins; `None` if
    /// it is that folder.
    pub(super) fn destination(&self, rows: &Rows) -> Result<Option<String>, ArrowError> {
        let Some(template) = self
            .destination
            .as_ref()
            .filter(|template| !template.is_empty())
        else {
            return Ok(None);
        };
        let first = rows.slice(0, 1);
        let values = match &self.projection {
            Some(projection) => {
                let carried = first
                    .columns()
                    .columns()
                    .iter()
                    .skip(projection.schema.fields().len());
                carried.map(|column| column.as_string().clone()).collect()
            }
            None => template.values(&first)?,
        };
        let path = render(template.pieces(&values, 0), &self.null_name);
        Ok(Some(if path.len() > MAX_PATH_BYTES {
            digest(&path, 16)
        } else {
            path
        }))
    }

    /// Removes the columns that are only passed to the writer and not written.
    pub(super) fn without_carried_columns(&self, rows: Rows) -> Result<Rows, ArrowError> {
        let Some(projection) = self
            .projection
            .as_ref()
            .filter(|projection| projection.schema.fields().len() < rows.columns().num_columns())
        else {
            return Ok(rows);
        };
        let kept: Vec<usize> = (0..projection.schema.fields().len()).collect();
        Ok(rows.with_record(rows.columns().project(&kept)?))
    }

    fn values(&self, rows: &Rows) -> Result<Values, ArrowError> {
        let of = |template: &Option<PathTemplate>| {
            template
                .as_ref()
                .map_or(Ok(Vec::new()), |template| template.values(rows))
        };
        Ok(Values {
            path: self.path.values(rows)?,
            name: of(&self.name)?,
            destination: of(&self.destination)?,
            record: self
                .projection
                .as_ref()
                .map(|projection| projection.record(rows))
                .transpose()?,
        })
    }

    fn group(&self, rows: Rows, values: &Values) -> Result<RoutedRows, ArrowError> {
        let number = (self.lanes > 1).then(|| lane_number(&rows.batch().split.id, self.lanes));
        let mut lanes: Vec<(LaneId, Vec<u32>)> = Vec::new();
        let mut by_id: HashMap<LaneId, usize> = HashMap::new();
        let mut bad = Vec::new();
        let mut current = None;
        for row in 0..rows.len() {
            // Adjacent rows often share a bucket; then nothing is rendered.
            let lane = match current {
                Some(lane)
                    if values
                        .path
                        .iter()
                        .chain(&values.name)
                        .all(|values| same_as_before(values, row)) =>
                {
                    lane
                }
                _ => match self.lane(values, row, number) {
                    Ok(id) => *by_id.entry(id.clone()).or_insert_with(|| {
                        lanes.push((id, Vec::new()));
                        lanes.len() - 1
                    }),
                    Err(reason) => {
                        bad.push(BadRow {
                            row: row as u32,
                            reason,
                        });
                        current = None;
                        continue;
                    }
                },
            };
            lanes[lane].1.push(row as u32);
            current = Some(lane);
        }
        let rows = self.with_carried_columns(rows, values)?;
        let mut chunks = Vec::with_capacity(lanes.len());
        match &lanes[..] {
            [(id, all)] if all.len() == rows.len() => chunks.push(Chunk::new(id.clone(), rows)),
            _ => {
                for (id, numbers) in lanes {
                    chunks.push(Chunk::new(id, rows.take(&UInt32Array::from(numbers))?));
                }
            }
        }
        Ok(RoutedRows {
            chunks,
            bad,
            ..RoutedRows::default()
        })
    }

    fn lane(&self, values: &Values, row: usize, number: Option<u32>) -> Result<LaneId, String> {
        let path = render(self.path.pieces(&values.path, row), &self.null_name);
        if path.len() > MAX_PATH_BYTES {
            return Err(format!(
                "the path has {} bytes, more than {MAX_PATH_BYTES}",
                path.len()
            ));
        }
        let name = self
            .name
            .as_ref()
            .map(|name| render_name(name.pieces(&values.name, row), &self.null_name));
        Ok(lane_id(path, name.as_deref(), number))
    }

    /// Adds the values of the destination template as columns to projected rows: the first row of a
    /// file determines where the file is moved.
    fn with_carried_columns(&self, rows: Rows, values: &Values) -> Result<Rows, ArrowError> {
        if self.projection.is_none() || values.destination.is_empty() {
            return Ok(rows);
        }
        let record = rows.columns();
        let mut fields = record.schema_ref().fields().to_vec();
        let mut columns = record.columns().to_vec();
        for values in &values.destination {
            fields.push(Arc::new(Field::new("", DataType::Utf8, true)));
            columns.push(Arc::new(values.clone()) as ArrayRef);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let record =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        Ok(rows.with_record(record))
    }
}

fn same_as_before(values: &StringArray, row: usize) -> bool {
    match (values.is_valid(row - 1), values.is_valid(row)) {
        (true, true) => values.value(row - 1) == values.value(row),
        (before, now) => before == now,
    }
}
