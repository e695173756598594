//! `sum`, `min` and `max` of JSON values.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{EmitTo, GroupsAccumulator};

use crate::json::{Number, text_of};

/// A function that folds two JSON values to one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fold {
    Sum,
    Min,
    Max,
}

/// The fold of the values of each group. Its result, as JSON, is its own state.
pub(super) struct JsonFolds {
    fold: Fold,
    /// By the number of the group; `None` before its first value.
    values: Vec<Option<Value>>,
    /// The bytes of the texts of the values.
    text_bytes: usize,
}

/// A JSON value, parsed as far as the fold needs it.
struct Value {
    /// The number that it is; `None` for other values.
    number: Option<Number>,
    /// Its text. A sum is its number, and has none.
    text: Box<str>,
}

impl JsonFolds {
    pub(super) fn new(fold: Fold) -> JsonFolds {
        JsonFolds {
            fold,
            values: Vec::new(),
            text_bytes: 0,
        }
    }

    fn add(&mut self, group: usize, json: &str) -> Result<()> {
        let wanted = match self.fold {
            Fold::Sum => return self.add_to_sum(group, json),
            Fold::Min => Ordering::Less,
            Fold::Max => Ordering::Greater,
        };
        let (number, value) = (number(json), &mut self.values[group]);
        if let Some(known) = value {
            if compare((number, json), (known.number, &known.text)) != wanted {
                return Ok(());
            }
            self.text_bytes -= known.text.len();
        }
        let text: Box<str> = json.into();
        self.text_bytes += text.len();
        *value = Some(Value { number, text });
        Ok(())
    }

    fn add_to_sum(&mut self, group: usize, json: &str) -> Result<()> {
        let new = match json {
            // Not JSON, so these are sums.
            "inf" | "-inf" | "NaN" => json.parse().ok().map(Number::Float),
            _ => Number::of(json)?,
        };
        let new = new.ok_or_else(|| exec_datafusion_err!("a sum of `null`"))?;
        let value = &mut self.values[group];
        let known = value.as_ref().and_then(|known| known.number);
        let number = Some(match known {
            Some(known) => known.plus(new),
            None => new,
        });
        let text = Box::default();
        *value = Some(Value { number, text });
        Ok(())
    }

    fn take(&mut self, emit_to: EmitTo) -> ArrayRef {
        let values = emit_to.take_needed(&mut self.values);
        let texts = values.into_iter().map(|value| {
            let value = value?;
            self.text_bytes -= value.text.len();
            Some(match (self.fold, value.number) {
                (Fold::Sum, Some(number)) => number.to_string(),
                _ => value.text.into_string(),
            })
        });
        Arc::new(texts.collect::<StringArray>())
    }
}

impl GroupsAccumulator for JsonFolds {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.resize_with(total, || None);
        let Some(values) = values.first() else {
            return Ok(());
        };
        let values = values.as_string::<i32>();
        for (row, group) in groups.iter().enumerate() {
            if passes(filter, row) && values.is_valid(row) {
                self.add(*group, values.value(row))?;
            }
        }
        Ok(())
    }

    /// A sum that is too large for a float64 is infinity, which is NULL in JSON.
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if matches!(self.fold, Fold::Sum) {
            for value in &mut self.values {
                let number = value.as_ref().and_then(|value| value.number);
                if matches!(number, Some(Number::Float(float)) if !float.is_finite()) {
                    *value = None;
                }
            }
        }
        Ok(self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit_to)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let of_rows = |values: &ArrayRef| -> ArrayRef {
            let rows = values.as_string::<i32>().iter().enumerate();
            let wanted = rows.map(|(row, value)| value.filter(|_| passes(filter, row)));
            Arc::new(wanted.collect::<StringArray>())
        };
        Ok(values.iter().map(of_rows).collect())
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<Value>>() + self.text_bytes
    }
}

/// Whether a filter passes this row.
fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

/// Numbers come before other values, and are compared by their values. Others are compared as
/// strings.
fn compare(left: (Option<Number>, &str), right: (Option<Number>, &str)) -> Ordering {
    match (left.0, right.0) {
        (Some(left), Some(right)) => left.compare(right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (text_of(left.1), text_of(right.1)) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.1.cmp(right.1),
        },
    }
}

/// The number of a value that is not a string.
fn number(json: &str) -> Option<Number> {
    match json.trim_start().starts_with('"') {
        true => None,
        false => Number::of(json).ok().flatten(),
    }
}
