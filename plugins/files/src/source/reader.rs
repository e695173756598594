//! Reads a file as its format says: as lines, or as columns.

use std::fs::File;
use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use pseidon_delivery::Position;
use pseidon_formats::ColumnReader;
use pseidon_plugin::{Batch, Payloads, Split};

use super::Config;
use super::compression::InputCompression;
use super::lines::{Block, LineReader};
use super::read_error::ReadError;
use super::tail::Tail;

/// Reads the records of a file.
pub(super) enum FileReader {
    Lines(Box<LineReader>),
    /// Rows, of a file that is complete.
    Columns(Box<dyn ColumnReader>),
}

/// Records that follow each other in a file.
pub(super) enum Records {
    Lines(Block),
    Columns {
        rows: RecordBatch,
        /// The position of the first row.
        start: Position,
    },
}

impl FileReader {
    /// Opens a file after the bytes or rows `before`.
    pub(super) fn open(
        file: File,
        config: &Config,
        compression: InputCompression,
        before: Tail,
    ) -> Result<FileReader, ReadError> {
        let InputCompression::Columns(format) = compression else {
            let reader = config.line_reader(file, compression, before)?;
            return Ok(FileReader::Lines(Box::new(reader)));
        };
        match format.open(file, &config.used, before.upto()) {
            Ok(reader) => Ok(FileReader::Columns(reader)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReadError::Incomplete(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next records; `None` if there are none now, or only a last line without a line end.
    pub(super) fn next(&mut self) -> Result<Option<Records>, ReadError> {
        match self {
            FileReader::Lines(reader) => Ok(reader.next_block()?.map(Records::Lines)),
            FileReader::Columns(reader) => {
                let rows = reader.next_rows()?;
                Ok(rows.map(|rows| Records::Columns {
                    start: reader.position() - rows.num_rows() as u64,
                    rows,
                }))
            }
        }
    }

    /// The last line, if it has no line end.
    pub(super) fn last_line(&mut self) -> Result<Option<Records>, ReadError> {
        match self {
            FileReader::Lines(reader) => Ok(reader.last_line()?.map(Records::Lines)),
            FileReader::Columns(_) => Ok(None),
        }
    }

    /// The reader of a file of lines.
    pub(super) fn lines(&mut self) -> Option<&mut LineReader> {
        match self {
            FileReader::Lines(reader) => Some(reader),
            FileReader::Columns(_) => None,
        }
    }

    /// The position of the first record that was not returned yet.
    pub(super) fn position(&self) -> Position {
        match self {
            FileReader::Lines(reader) => reader.position(),
            FileReader::Columns(reader) => reader.position(),
        }
    }

    /// What was read before that record.
    pub(super) fn before(&self) -> Tail {
        match self {
            FileReader::Lines(reader) => reader.before(),
            FileReader::Columns(reader) => Tail::unknown(reader.position()),
        }
    }

    /// The last bytes that were read.
    pub(super) fn tail(&self) -> Tail {
        match self {
            FileReader::Lines(reader) => reader.tail(),
            FileReader::Columns(reader) => Tail::unknown(reader.position()),
        }
    }

    /// The position after what was read.
    pub(super) fn read_to(&self) -> Position {
        match self {
            FileReader::Lines(reader) => reader.read_to(),
            FileReader::Columns(reader) => reader.position(),
        }
    }

    /// See [`LineReader::has_buffered`].
    pub(super) fn has_buffered(&self) -> bool {
        match self {
            FileReader::Lines(reader) => reader.has_buffered(),
            FileReader::Columns(_) => false,
        }
    }

    /// The start and the length in bytes of each record that was skipped since the last call.
    pub(super) fn take_skipped(&mut self) -> Vec<(Position, u64)> {
        match self {
            FileReader::Lines(reader) => reader.take_skipped(),
            FileReader::Columns(_) => Vec::new(),
        }
    }
}

impl Records {
    /// The records as batches of this split.
    pub(super) fn batches(self, split: &Arc<Split>) -> Box<dyn Iterator<Item = Batch> + '_> {
        match self {
            Records::Lines(block) => Box::new(block.batches(split)),
            Records::Columns { rows, start } => {
                let next = start + rows.num_rows() as u64;
                let (positions, payloads) = ((start..next).collect(), Payloads::of_columns(rows));
                let batch = Batch::from_payloads(split.clone(), payloads, positions, next);
                Box::new(std::iter::once(batch))
            }
        }
    }
}
