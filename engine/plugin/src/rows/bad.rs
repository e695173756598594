//! Rows that cannot be processed, and how they are found.

use arrow::error::ArrowError;

use super::Rows;

/// A record that cannot be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its number among the rows (or records) of the call.
    pub row: u32,
    /// The reason, as a short sentence.
    pub reason: String,
}

impl BadRow {
    /// A row for which Arrow reports an error. Its message begins with its kind, which does not
    /// help the user, so that is left out.
    pub fn new(row: u32, error: &ArrowError) -> BadRow {
        let reason = match error {
            ArrowError::CastError(text) | ArrowError::ComputeError(text) => cast_reason(text),
            ArrowError::InvalidArgumentError(text)
            | ArrowError::MemoryError(text)
            | ArrowError::ParseError(text) => text.clone(),
            other => other.to_string(),
        };
        BadRow { row, reason }
    }
}

/// Arrow's message for a failed cast of a string, with the name of the type in expressions. The cast
/// of an expression fails with an error of the computation.
fn cast_reason(text: &str) -> String {
    let parts = text
        .strip_prefix("Cannot cast string ")
        .and_then(|rest| rest.strip_suffix(" type"))
        .and_then(|rest| rest.rsplit_once(" to value of "));
    match parts {
        Some((value, data_type)) => format!("{value} is not a valid {}", data_type.to_lowercase()),
        None => text.to_owned(),
    }
}

impl Rows {
    /// The rows for which `evaluate` fails, found by bisection. It is empty if `evaluate` fails
    /// only for several rows together.
    pub fn failing(&self, evaluate: impl Fn(&Rows) -> Result<(), ArrowError>) -> Vec<BadRow> {
        let mut bad = Vec::new();
        self.find_failing(0, &evaluate, &mut bad);
        bad
    }

    /// `first` is the number of the first row.
    fn find_failing(
        &self,
        first: usize,
        evaluate: &dyn Fn(&Rows) -> Result<(), ArrowError>,
        bad: &mut Vec<BadRow>,
    ) {
        if self.is_empty() {
            return;
        }
        let Err(error) = evaluate(self) else { return };
        if self.len() == 1 {
            bad.push(BadRow::new(first as u32, &error));
            return;
        }
        let half = self.len() / 2;
        let (left, right) = (self.slice(0, half), self.slice(half, self.len() - half));
        left.find_failing(first, evaluate, bad);
        right.find_failing(first + half, evaluate, bad);
    }
}

/// The bad rows of a call that checks its rows in steps. Each step sees only the rows that passed
/// the steps before it, and numbers them from 0.
#[derive(Debug)]
pub struct BadRows {
    rows: usize,
    bad: Vec<BadRow>,
}

impl BadRows {
    /// No bad rows yet among `rows` rows.
    pub fn new(rows: usize) -> BadRows {
        BadRows {
            rows,
            bad: Vec::new(),
        }
    }

    /// Adds what the next step found.
    pub fn add(&mut self, found: Vec<BadRow>) {
        if found.is_empty() {
            return;
        }
        if self.bad.is_empty() {
            self.bad = found;
            return;
        }
        let mut passed = vec![true; self.rows];
        self.bad
            .iter()
            .for_each(|bad| passed[bad.row as usize] = false);
        let numbers: Vec<u32> = (0..self.rows as u32)
            .filter(|row| passed[*row as usize])
            .collect();
        self.bad.extend(found.into_iter().map(|found| BadRow {
            row: numbers[found.row as usize],
            reason: found.reason,
        }));
    }

    /// The bad rows, in order, with their numbers among all rows.
    pub fn into_sorted(mut self) -> Vec<BadRow> {
        self.bad.sort_by_key(|bad| bad.row);
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::compute::{CastOptions, cast_with_options};
    use arrow::datatypes::DataType;

    use super::*;

    fn bad(rows: &[u32]) -> Vec<BadRow> {
        rows.iter()
            .map(|row| BadRow {
                row: *row,
                reason: format!("reason {row}"),
            })
            .collect()
    }

    #[test]
    fn numbers_of_later_steps_are_those_of_the_call() {
        let mut found = BadRows::new(6);
        found.add(bad(&[1, 4]));
        // 0, 2, 3 and 5 are left, so these are 2 and 5.
        found.add(bad(&[1, 3]));
        // 0 and 3 are left.
        found.add(bad(&[1]));
        found.add(Vec::new());
        let numbers: Vec<u32> = found.into_sorted().iter().map(|bad| bad.row).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_kind_of_an_error_is_not_part_of_the_reason() {
        let error = ArrowError::ComputeError("too large".to_owned());
        assert_eq!(BadRow::new(3, &error).reason, "too large");
        let error = cast_error("one", &DataType::Int32);
        assert_eq!(BadRow::new(3, &error).reason, "'one' is not a valid int32");
        let error = cast_error("a to value of b", &DataType::Float64);
        assert_eq!(
            BadRow::new(3, &error).reason,
            "'a to value of b' is not a valid float64"
        );
    }

    fn cast_error(text: &str, to: &DataType) -> ArrowError {
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        cast_with_options(&StringArray::from(vec![text]), to, &strict).expect_err("not a number")
    }
}
