//! `sum`, `min` and `max` of JSON values.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, AsArray};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::Accumulator;

use crate::json::{Number, text_of};

/// A function that folds two JSON values to one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fold {
    Sum,
    Min,
    Max,
}

/// The fold of the values of a group, which is its own state.
#[derive(Debug)]
pub(super) struct JsonFold {
    fold: Fold,
    value: Option<String>,
}

impl JsonFold {
    pub(super) fn new(fold: Fold) -> JsonFold {
        JsonFold { fold, value: None }
    }

    fn add(&mut self, json: &str) -> Result<()> {
        let Some(value) = &self.value else {
            self.value = Some(json.to_owned());
            return Ok(());
        };
        let wanted = match self.fold {
            Fold::Sum => {
                self.value = Some(sum(value, json)?);
                return Ok(());
            }
            Fold::Min => Ordering::Less,
            Fold::Max => Ordering::Greater,
        };
        if compare(json, value) == wanted {
            self.value = Some(json.to_owned());
        }
        Ok(())
    }
}

fn sum(left: &str, right: &str) -> Result<String> {
    let (Some(left), Some(right)) = (Number::of(left)?, Number::of(right)?) else {
        return Err(exec_datafusion_err!("a sum of `null`"));
    };
    Ok(left.plus(right)?.to_string())
}

/// Numbers come before other values, and are compared by their values. Others are compared as
/// strings.
fn compare(left: &str, right: &str) -> Ordering {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => left.compare(right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (text_of(left), text_of(right)) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.cmp(right),
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

impl Accumulator for JsonFold {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else {
            return Ok(());
        };
        let values = values.as_string::<i32>();
        for json in values.iter().flatten() {
            self.add(json)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8(self.value.clone()))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.as_ref().map_or(0, String::capacity)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
