//! Parquet files: their rows, from the pages of the used columns.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use pseidon_expr::panics::catch_panic;

use super::errors::{damaged, incomplete, read_up_to, refused};
use super::{ColumnReader, IdentityBytes, MAX_ROWS, READ_BYTES};

/// The bytes with which a file begins and ends.
const MAGIC: &[u8; 4] = b"PAR1";

/// How many bytes at the end of a file identify it: they say where its values are and between what.
const IDENTITY_BYTES: usize = 1024;

/// Reads the rows of a Parquet file.
pub(super) struct ParquetReader {
    batches: ParquetRecordBatchReader,
    /// How many of the next rows come before the first that was asked for.
    skipped: usize,
    /// The number of the next row.
    position: u64,
}

impl ParquetReader {
    /// Opens a file for reading the fields with these names, or all, from row `from` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file has no end, as while it is being written; `InvalidData` if it is
    /// not a Parquet file, or damaged; otherwise the error of reading it.
    pub(super) fn open(
        file: File,
        fields: Option<&[String]>,
        from: u64,
    ) -> io::Result<ParquetReader> {
        check_ends(&file)?;
        let opened = catch_panic(|| open(file, fields, from)).map_err(damaged)?;
        let (batches, skipped) = opened.map_err(of_parquet)?;
        Ok(ParquetReader {
            batches,
            skipped,
            position: from,
        })
    }
}

impl ColumnReader for ParquetReader {
    fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(self.batches.schema())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_rows(&mut self) -> io::Result<Option<RecordBatch>> {
        loop {
            let rows = catch_panic(|| self.batches.next()).map_err(damaged)?;
            let Some(rows) = rows.transpose().map_err(of_arrow)? else {
                return Ok(None);
            };
            let skipped = self.skipped.min(rows.num_rows());
            self.skipped -= skipped;
            if skipped < rows.num_rows() {
                let rows = rows.slice(skipped, rows.num_rows() - skipped);
                self.position += rows.num_rows() as u64;
                return Ok(Some(rows));
            }
        }
    }
}

/// The last bytes of a file, which is complete when it has an end.
pub(super) fn identity(file: &File) -> io::Result<IdentityBytes> {
    let from = file.metadata()?.len().saturating_sub(IDENTITY_BYTES as u64);
    let bytes = read_up_to(file, from, IDENTITY_BYTES)?;
    Ok(IdentityBytes {
        is_complete: bytes.ends_with(MAGIC),
        bytes,
    })
}

/// Checks that a file has a beginning and an end.
fn check_ends(file: &File) -> io::Result<()> {
    let (len, mut bytes) = (file.metadata()?.len(), [0; MAGIC.len()]);
    let size = bytes.len() as u64;
    if len >= size {
        file.read_exact_at(&mut bytes, 0)?;
        if bytes != *MAGIC {
            return Err(refused("it is not a Parquet file"));
        }
    }
    if len >= 2 * size {
        file.read_exact_at(&mut bytes, len - size)?;
        if bytes == *MAGIC {
            return Ok(());
        }
    }
    Err(incomplete(
        "it has no end, as a Parquet file that is being written",
    ))
}

/// The rows from that row's group on, and how many of them come before the row. The library could
/// skip those too, but does so forever if the levels of a column are damaged.
fn open(
    file: File,
    fields: Option<&[String]>,
    from: u64,
) -> Result<(ParquetRecordBatchReader, usize), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let rows = rows_at_once(builder.metadata());
    let (groups, skipped) = groups_from(builder.metadata(), from);
    let builder = builder.with_batch_size(rows).with_row_groups(groups);
    let Some(fields) = fields else {
        return Ok((builder.build()?, skipped));
    };
    let schema = builder.parquet_schema();
    let roots = schema.root_schema().get_fields().iter().enumerate();
    let used = roots.filter(|(_, root)| fields.iter().any(|name| name == root.name()));
    let mask = ProjectionMask::roots(schema, used.map(|(number, _)| number));
    Ok((builder.with_projection(mask).build()?, skipped))
}

/// The row groups with the rows from this one on, and how many rows of the first come before it.
fn groups_from(metadata: &ParquetMetaData, from: u64) -> (Vec<usize>, usize) {
    let mut skipped = from;
    let is_before = |rows: &u64| {
        let rest = skipped.checked_sub(*rows);
        skipped = rest.unwrap_or(skipped);
        rest.is_some()
    };
    let rows = metadata.row_groups().iter();
    let rows = rows.map(|group| u64::try_from(group.num_rows()).unwrap_or_default());
    let first = rows.take_while(is_before).count();
    let groups = (first..metadata.num_row_groups()).collect();
    (groups, usize::try_from(skipped).unwrap_or(usize::MAX))
}

/// How many rows of a file are about [`READ_BYTES`] of values.
fn rows_at_once(metadata: &ParquetMetaData) -> usize {
    let most = metadata.row_groups().iter().map(|group| {
        let rows = u64::try_from(group.num_rows()).unwrap_or_default();
        let bytes = u64::try_from(group.total_byte_size()).unwrap_or_default();
        let wanted = rows.saturating_mul(READ_BYTES);
        wanted.checked_div(bytes).unwrap_or(u64::MAX)
    });
    let rows = most.min().unwrap_or(u64::MAX).clamp(1, MAX_ROWS as u64);
    rows as usize
}

/// The error of a file that has a beginning and an end: all but those of the operating system say
/// that it is damaged.
fn of_parquet(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => of_io(*error),
            Err(error) => damaged(error),
        },
        other => damaged(other),
    }
}

fn of_arrow(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, error) => of_io(error),
        ArrowError::ExternalError(error) => match error.downcast::<ParquetError>() {
            Ok(error) => of_parquet(*error),
            Err(error) => damaged(error),
        },
        other => damaged(other),
    }
}

fn of_io(error: io::Error) -> io::Error {
    match error.kind() {
        // A place that is not in the file.
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => damaged(error),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
