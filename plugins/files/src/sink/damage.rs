//! The check of a Parquet file before it is moved: whether it is the file that was written.

use std::fs::File;
use std::io;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};

/// Why the Parquet file cannot be read, or is not the file that was written; `None` if it is
/// intact. Only its footer is read.
pub(super) fn find_damage(path: &Path, records: u64) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let metadata = match ParquetMetaDataReader::new().parse_and_finish(&file) {
        Ok(metadata) => metadata,
        Err(ParquetError::External(error)) if error.is::<io::Error>() => {
            let error = error
                .downcast::<io::Error>()
                .map_or_else(io::Error::other, |error| *error);
            return if error.kind() == io::ErrorKind::UnexpectedEof {
                Ok(Some(error.to_string()))
            } else {
                Err(error)
            };
        }
        Err(error) => return Ok(Some(error.to_string())),
    };
    let rows = metadata.file_metadata().num_rows();
    if u64::try_from(rows) != Ok(records) {
        return Ok(Some(format!(
            "its footer says {rows} rows, but {records} were written"
        )));
    }
    let bytes = file.metadata()?.len();
    let is_inside = |column: &ColumnChunkMetaData| {
        let start = column
            .dictionary_page_offset()
            .unwrap_or(column.data_page_offset());
        let end = start.checked_add(column.compressed_size());
        start >= 0
            && end
                .and_then(|end| u64::try_from(end).ok())
                .is_some_and(|end| end <= bytes)
    };
    let outside = metadata
        .row_groups()
        .iter()
        .position(|group| !group.columns().iter().all(is_inside));
    Ok(outside.map(|number| format!("row group {number} extends beyond the end of the file")))
}
