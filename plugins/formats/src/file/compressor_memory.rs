//! The memory that the compressors in Parquet's writer use.
//!
//! Each column of an open row group has its own compressor, which keeps the memory it allocated for
//! its first page until the row group ends: megabytes at high levels of zstd. Parquet's writer does
//! not count that memory.

use arrow::array::{Array, RecordBatch};
use zstd::bulk::Compressor;

/// The size in bytes at which a Parquet page ends, unless it reaches [`PAGE_ROWS`] first.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 20_000;

/// Estimates how many compressors of a file have allocated memory.
pub(super) struct CompressorMemory {
    /// The bytes that each compressor uses.
    bytes: usize,
    columns: usize,
    /// The bytes written to the open row group, before compression.
    raw: usize,
}

impl CompressorMemory {
    /// The compressors of a file with `columns` columns. Each uses `bytes` once it has compressed a
    /// page.
    pub(super) fn new(bytes: usize, columns: usize) -> CompressorMemory {
        CompressorMemory {
            bytes,
            columns,
            raw: 0,
        }
    }

    /// Records that rows were written. `grouped` is the number of rows in the open row group
    /// afterwards.
    pub(super) fn rows_written(&mut self, rows: &RecordBatch, grouped: usize) {
        if grouped < rows.num_rows() {
            // A new row group started within these rows.
            self.raw = 0;
        }
        self.raw += rows
            .columns()
            .iter()
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
            .sum::<usize>();
    }

    /// Records that the row group has ended.
    pub(super) fn row_group_ended(&mut self) {
        self.raw = 0;
    }

    /// The bytes that the compressors use. `grouped` is the number of rows in the open row group.
    pub(super) fn memory(&self, grouped: usize) -> usize {
        let with_page = if grouped >= PAGE_ROWS {
            self.columns
        } else {
            (self.raw / PAGE_BYTES).min(self.columns)
        };
        with_page * self.bytes
    }
}

/// The bytes that a zstd compressor of this level uses after its first page; 0 if it cannot be
/// created.
pub(super) fn zstd_context_bytes(level: i32) -> usize {
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
        let mut compressors = CompressorMemory::new(10, 2);
        compressors.rows_written(&rows(10, 100), 10);
        assert_eq!(compressors.memory(10), 0);
        compressors.rows_written(&rows(11, 100_000), 21);
        assert_eq!(compressors.memory(21), 10);
        compressors.rows_written(&rows(40, 100_000), 61);
        assert_eq!(compressors.memory(61), 20);
        compressors.rows_written(&rows(10, 100), 5);
        assert_eq!(compressors.memory(5), 0, "a new row group");
        assert_eq!(compressors.memory(PAGE_ROWS), 20);
    }

    #[test]
    fn high_levels_use_more_memory() {
        assert!(
            zstd_context_bytes(19) > 2 * zstd_context_bytes(3) && zstd_context_bytes(3) > 100 << 10,
            "{} {}",
            zstd_context_bytes(19),
            zstd_context_bytes(3)
        );
    }
}
