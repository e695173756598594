//! What the compressors inside Parquet's writer hold.
//!
//! Each column of an open row group has a compressor of its own, which keeps what it allocated for
//! its first page until the group ends: megabytes at high levels of zstd. Parquet's writer does not
//! count that.

use arrow::array::{Array, RecordBatch};
use zstd::bulk::Compressor;

/// The bytes at which a page of Parquet ends, unless it has [`PAGE_ROWS`] first.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 20_000;

/// Counts the compressors of a file that have something.
pub(super) struct Contexts {
    /// What each holds.
    bytes: usize,
    columns: usize,
    /// What was written of the open row group, before compression.
    raw: usize,
}

impl Contexts {
    /// Those of a file with so many columns, of which each holds `bytes` once it has compressed a
    /// page.
    pub(super) fn new(bytes: usize, columns: usize) -> Contexts {
        Contexts {
            bytes,
            columns,
            raw: 0,
        }
    }

    /// Rows were written. `grouped` is how many the open row group has now.
    pub(super) fn written(&mut self, rows: &RecordBatch, grouped: usize) {
        if grouped < rows.num_rows() {
            // A new row group has begun within these rows.
            self.raw = 0;
        }
        self.raw += rows
            .columns()
            .iter()
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
            .sum::<usize>();
    }

    /// The row group has ended.
    pub(super) fn ended(&mut self) {
        self.raw = 0;
    }

    /// What they hold now.
    pub(super) fn memory(&self, grouped: usize) -> usize {
        let with_page = if grouped >= PAGE_ROWS {
            self.columns
        } else {
            (self.raw / PAGE_BYTES).min(self.columns)
        };
        with_page * self.bytes
    }
}

/// What a compressor of this level holds after a page.
pub(super) fn of_zstd(level: i32) -> usize {
    let page = vec![0; PAGE_BYTES];
    let used = Compressor::new(level).and_then(|mut compressor| {
        compressor.compress(&page)?;
        Ok(compressor.context_mut().sizeof())
    });
    used.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn rows(count: usize, width: usize) -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
            "x".repeat(width),
            count,
        )));
        RecordBatch::try_from_iter([("a", text)]).unwrap()
    }

    #[test]
    fn a_column_has_a_compressor_from_its_first_page_to_the_end_of_the_row_group() {
        let mut contexts = Contexts::new(10, 2);
        contexts.written(&rows(10, 100), 10);
        assert_eq!(contexts.memory(10), 0);
        contexts.written(&rows(11, 100_000), 21);
        assert_eq!(contexts.memory(21), 10);
        contexts.written(&rows(40, 100_000), 61);
        assert_eq!(contexts.memory(61), 20);
        contexts.written(&rows(10, 100), 5);
        assert_eq!(contexts.memory(5), 0, "a new row group");
        assert_eq!(contexts.memory(PAGE_ROWS), 20);
    }

    #[test]
    fn high_levels_hold_more() {
        assert!(
            of_zstd(19) > 2 * of_zstd(3) && of_zstd(3) > 100 << 10,
            "{} {}",
            of_zstd(19),
            of_zstd(3)
        );
    }
}
