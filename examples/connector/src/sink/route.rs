//! Decides to which queue each row goes.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{AsArray, UInt32Array};
use arrow::error::ArrowError;
use pseidon_delivery::LaneId;
use pseidon_expr::CompiledExpr;
use pseidon_formats::RecordEncoder;
use pseidon_plugin::sink::{Chunk, RoutedRows};
use pseidon_plugin::{BadRow, Rows};

/// The longest name of a queue in bytes. File systems accept 255.
const MAX_NAME: usize = 200;

/// What a sink's options say of rows.
pub(super) struct Router {
    pub(super) encoder: RecordEncoder,
    /// The expression for the name of the queue.
    pub(super) queue: CompiledExpr,
}

impl Router {
    /// Groups the rows by queue. A row without a queue, or that cannot be written, is invalid.
    pub(super) fn route(&self, rows: &Rows) -> RoutedRows {
        let mut bad = self.encoder.check(rows);
        let mut queues: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let invalid: HashSet<u32> = bad.iter().map(|bad| bad.row).collect();
        for (row, queue) in (0..).zip(self.queues(rows)) {
            match queue {
                _ if invalid.contains(&row) => {}
                Ok(queue) => queues.entry(queue).or_default().push(row),
                Err(reason) => bad.push(BadRow { row, reason }),
            }
        }
        let mut chunks = Vec::new();
        for (queue, numbers) in queues {
            let numbers = UInt32Array::from(numbers);
            match rows.take(&numbers) {
                Ok(of_queue) => chunks.push(Chunk::new(LaneId::from(queue), of_queue)),
                Err(error) => bad.extend(all_bad(&numbers, &error)),
            }
        }
        bad.sort_by_key(|bad| bad.row);
        RoutedRows {
            chunks,
            bad,
            ..RoutedRows::default()
        }
    }

    /// The queue of each row, or the reason why it has none.
    fn queues(&self, rows: &Rows) -> Vec<Result<String, String>> {
        match rows.evaluate(&self.queue) {
            Ok(values) => {
                let names = values.as_string::<i32>();
                names.iter().map(checked_name).collect()
            }
            Err(error) if rows.len() <= 1 => vec![Err(error.to_string()); rows.len()],
            // The error does not say for which row the expression has failed.
            Err(_) => (0..rows.len())
                .flat_map(|row| self.queues(&rows.slice(row, 1)))
                .collect(),
        }
    }
}

fn all_bad(numbers: &UInt32Array, error: &ArrowError) -> Vec<BadRow> {
    let bad = |row: &u32| BadRow {
        row: *row,
        reason: error.to_string(),
    };
    numbers.values().iter().map(bad).collect()
}

/// The name, if it can be the name of a folder.
fn checked_name(name: Option<&str>) -> Result<String, String> {
    let name = name.ok_or("the queue is null")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!(
            "the name of the queue has {} bytes, expected 1 to {MAX_NAME}",
            name.len()
        ));
    }
    if name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(format!(
            "the queue `{}` is not a folder name",
            name.escape_debug()
        ));
    }
    Ok(name.to_owned())
}
