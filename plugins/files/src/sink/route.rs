//! Which bucket each row goes to.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use pseidon_delivery::LaneId;
use pseidon_expr::Compiled;
use pseidon_expr::time::strftime;
use pseidon_plugin::format::is_json;
use pseidon_plugin::sink::{Chunk, Routed};
use pseidon_plugin::{BadRow, Rows};

use super::lane_name::{LONGEST_PATH, Piece, render};

/// A part of the path template below the base directory.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Text as it stands.
    Literal(String),
    /// What an expression gives.
    Value {
        /// The expression.
        expr: Compiled,
        /// How a time is written.
        format: Option<String>,
    },
}

/// Sorts rows into buckets.
#[derive(Clone, Debug)]
pub(super) struct Router {
    /// The template below the base directory.
    pub(super) parts: Vec<Part>,
    /// Stands for null.
    pub(super) null_name: String,
}

impl Router {
    /// The rows by bucket, in the order in which buckets appear. `check` names the rows that cannot be written.
    pub(super) fn route(&self, rows: Rows, check: impl FnOnce(&Rows) -> Vec<BadRow>) -> Routed {
        let mut bad = check(&rows);
        let mut kept: Vec<u32> = numbers_without(rows.len(), &bad);
        let mut good = match rows.without(&bad) {
            Ok(good) => good,
            Err(error) => return all_bad(rows.len(), &error),
        };
        let values = match self.values(&good) {
            Ok(values) => values,
            Err(_) => {
                let without_value = self.find_bad(&good);
                bad.extend(without_value.iter().map(|row| BadRow { row: kept[row.row as usize], reason: row.reason.clone() }));
                let still = numbers_without(good.len(), &without_value);
                kept = still.iter().map(|row| kept[*row as usize]).collect();
                match good.without(&without_value).and_then(|rows| Ok((self.values(&rows)?, rows))) {
                    Ok((values, rows)) => {
                        good = rows;
                        values
                    }
                    Err(error) => return all_bad(rows.len(), &error),
                }
            }
        };
        let mut routed = match self.group(good, &values) {
            Ok(routed) => routed,
            Err(error) => return all_bad(rows.len(), &error),
        };
        bad.extend(routed.bad.drain(..).map(|row| BadRow { row: kept[row.row as usize], reason: row.reason }));
        bad.sort_by_key(|row| row.row);
        Routed { chunks: routed.chunks, bad }
    }

    /// What each expression of the template gives for each row, as texts.
    fn values(&self, rows: &Rows) -> Result<Vec<StringArray>, ArrowError> {
        let values = self.parts.iter().filter_map(|part| match part {
            Part::Value { expr, format } => Some((expr, format)),
            Part::Literal(_) => None,
        });
        values.map(|(expr, format)| texts(rows, expr, format.as_deref())).collect()
    }

    /// The rows for which an expression gives nothing.
    fn find_bad(&self, rows: &Rows) -> Vec<BadRow> {
        let reason = |row: usize| self.values(&rows.slice(row, 1)).err().map(|error| error.to_string());
        (0..rows.len()).filter_map(|row| Some(BadRow { row: row as u32, reason: reason(row)? })).collect()
    }

    fn group(&self, rows: Rows, values: &[StringArray]) -> Result<Routed, ArrowError> {
        let mut lanes: Vec<(String, Vec<u32>)> = Vec::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        let mut bad = Vec::new();
        let mut current = None;
        for row in 0..rows.len() {
            // Neighbours often share a bucket; then nothing is rendered.
            let lane = match current {
                Some(lane) if values.iter().all(|values| same_as_before(values, row)) => lane,
                _ => {
                    let name = self.name(values, row);
                    if name.len() > LONGEST_PATH {
                        bad.push(BadRow {
                            row: row as u32,
                            reason: format!("the path has {} bytes, more than {LONGEST_PATH}", name.len()),
                        });
                        current = None;
                        continue;
                    }
                    match by_name.get(&name) {
                        Some(lane) => *lane,
                        None => {
                            by_name.insert(name.clone(), lanes.len());
                            lanes.push((name, Vec::new()));
                            lanes.len() - 1
                        }
                    }
                }
            };
            lanes[lane].1.push(row as u32);
            current = Some(lane);
        }
        let mut chunks = Vec::with_capacity(lanes.len());
        if let [(name, all)] = &mut lanes[..]
            && all.len() == rows.len()
        {
            chunks.push(Chunk { lane: LaneId::from(std::mem::take(name)), rows });
            return Ok(Routed { chunks, bad });
        }
        for (name, numbers) in lanes {
            chunks.push(Chunk { lane: LaneId::from(name), rows: rows.take(&UInt32Array::from(numbers))? });
        }
        Ok(Routed { chunks, bad })
    }

    fn name(&self, values: &[StringArray], row: usize) -> String {
        let mut values = values.iter();
        let pieces = self.parts.iter().map(|part| match part {
            Part::Literal(text) => Piece::Literal(text),
            Part::Value { .. } => Piece::Value(values.next().filter(|values| values.is_valid(row)).map(|values| values.value(row))),
        });
        render(pieces, &self.null_name)
    }
}

fn same_as_before(values: &StringArray, row: usize) -> bool {
    match (values.is_valid(row - 1), values.is_valid(row)) {
        (true, true) => values.value(row - 1) == values.value(row),
        (before, now) => before == now,
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

/// What a JSON value is in a path: a string is its characters, null is null, everything else is as it is written.
fn json_text(json: &str) -> Option<String> {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => Some(json.to_owned()),
    }
}

/// The numbers of the rows that are not bad.
fn numbers_without(rows: usize, bad: &[BadRow]) -> Vec<u32> {
    let mut is_bad = vec![false; rows];
    bad.iter().for_each(|row| is_bad[row.row as usize] = true);
    (0..rows as u32).filter(|row| !is_bad[*row as usize]).collect()
}

fn all_bad(rows: usize, error: &ArrowError) -> Routed {
    let bad = (0..rows as u32).map(|row| BadRow { row, reason: error.to_string() }).collect();
    Routed { chunks: Vec::new(), bad }
}
