//! Parquet files: their rows, from the pages of the used columns.

mod bounded;
mod columns;
mod groups;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use pseidon_expr::panics::catch_panic;

use self::bounded::BoundedFile;
use self::columns::{check_used, with_uuids};
use self::groups::{GroupRange, used_groups};
use super::errors::{damaged, incomplete, read_up_to, refused};
use super::{ColumnReader, IdentityBytes, MAX_ROWS, READ_BYTES, UsedValues};

/// The bytes with which a file begins and ends.
const MAGIC: &[u8; 4] = b"PAR1";

/// How many bytes at the end of a file identify it: they say where its values are and between what.
const IDENTITY_BYTES: usize = 1024;

/// How many rows before damage may be lost, because they are read at once with it.
const LEAST_ROWS: usize = 64;

/// Reads the rows of a Parquet file.
///
/// Of rows that are read at once, none is returned if one is damaged. So when that happens, the row
/// group is read again by itself, a few rows at a time.
pub(super) struct ParquetReader {
    columns: UsedColumns,
    /// The row groups that are still to be read.
    groups: VecDeque<GroupRange>,
    /// The rows of the first of these, once it is being read.
    rows: Option<ParquetRecordBatchReader>,
    /// The number of the next row of `rows`.
    next: u64,
    /// The number of the next row that is returned, unless its group is left out.
    position: u64,
    /// The number of rows of the file.
    end: u64,
    /// Whether row groups are read one by one, since damage was found.
    reads_single_groups: bool,
}

impl ParquetReader {
    /// Opens a file for reading the used values from row `from` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file has no end, as while it is being written; `InvalidData` if it is
    /// not a Parquet file, or damaged; otherwise the error of reading it.
    pub(super) fn open(file: File, used: &UsedValues, from: u64) -> io::Result<ParquetReader> {
        check_ends(&file)?;
        let open = || {
            let columns = UsedColumns::open(file, used.fields.as_deref())?;
            let (groups, end) = used_groups(&columns.metadata, &used.bounds, from);
            Ok(ParquetReader {
                columns,
                groups,
                rows: None,
                next: 0,
                position: from,
                end,
                reads_single_groups: false,
            })
        };
        catch_panic(open).map_err(damaged)?.map_err(of_parquet)
    }

    /// The next rows of these row groups, whatever their position.
    fn next_of(&mut self, groups: &GroupRange) -> io::Result<Option<RecordBatch>> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => {
                let open = || self.columns.rows(groups.groups.clone());
                let rows = catch_panic(open).map_err(damaged)?.map_err(of_parquet)?;
                self.next = groups.rows.start;
                self.rows.insert(rows)
            }
        };
        let rows = catch_panic(|| rows.next()).map_err(damaged)?;
        rows.transpose().map_err(of_arrow)
    }

    /// Prepares reading from the next row on in smaller parts. Returns whether there are smaller
    /// ones.
    fn retry_smaller(&mut self) -> bool {
        let at_once = self.columns.rows_at_once;
        if !self.reads_single_groups {
            self.reads_single_groups = true;
            let ranges = std::mem::take(&mut self.groups).into_iter();
            let groups = ranges.flat_map(|range| range.each(&self.columns.metadata));
            self.groups = groups
                .filter(|group| group.rows.end > self.position)
                .collect();
        } else if at_once > LEAST_ROWS {
            self.columns.rows_at_once = (at_once / 2).max(LEAST_ROWS);
        } else {
            return false;
        }
        self.rows = None;
        true
    }
}

impl ColumnReader for ParquetReader {
    fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(self.columns.schema.clone())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_rows(&mut self) -> io::Result<Option<RecordBatch>> {
        while let Some(groups) = self.groups.front().cloned() {
            let rows = match self.next_of(&groups) {
                Err(error)
                    if error.kind() == io::ErrorKind::InvalidData && self.retry_smaller() =>
                {
                    continue;
                }
                rows => rows?,
            };
            let Some(rows) = rows else {
                if self.next != groups.rows.end {
                    return Err(damaged("its row groups have other rows than its end says"));
                }
                self.rows = None;
                self.groups.pop_front();
                continue;
            };
            let (first, count) = (self.next, rows.num_rows());
            self.next += count as u64;
            let skipped = usize::try_from(self.position.saturating_sub(first));
            let skipped = skipped.unwrap_or(usize::MAX).min(count);
            if skipped < count {
                self.position = self.next;
                return Ok(Some(rows.slice(skipped, count - skipped)));
            }
        }
        self.position = self.position.max(self.end);
        Ok(None)
    }
}

/// The columns of a file that are used.
struct UsedColumns {
    file: File,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    schema: SchemaRef,
    rows_at_once: usize,
}

impl UsedColumns {
    /// Opens the columns with these names, or all.
    fn open(file: File, fields: Option<&[String]>) -> Result<UsedColumns, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?;
        let metadata = with_uuids(metadata)?;
        let schema = metadata.parquet_schema();
        let roots = schema.root_schema().get_fields().iter().enumerate();
        let is_used = |name: &str| fields.is_none_or(|fields| fields.iter().any(|at| at == name));
        let used = roots.filter(|(_, root)| is_used(root.name()));
        let mask = ProjectionMask::roots(schema, used.map(|(number, _)| number));
        check_used(&metadata, &mask)?;
        let mut columns = UsedColumns {
            file,
            mask,
            schema: metadata.schema().clone(),
            rows_at_once: rows_at_once(metadata.metadata()),
            metadata,
        };
        columns.schema = columns.rows(0..0)?.schema();
        Ok(columns)
    }

    /// The rows of these row groups. The library could begin with a row in the middle, but skips
    /// forever if the levels of a column are damaged.
    fn rows(&self, groups: Range<usize>) -> Result<ParquetRecordBatchReader, ParquetError> {
        let (file, metadata) = (self.file.try_clone()?, self.metadata.clone());
        ParquetRecordBatchReaderBuilder::new_with_metadata(BoundedFile(file), metadata)
            .with_batch_size(self.rows_at_once)
            .with_row_groups(groups.collect())
            .with_projection(self.mask.clone())
            .build()
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
