//! Reads the lines of one file, from a position on, as batches.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use pseidon_delivery::{Position, Reason};
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::source::SourceError;
use pseidon_plugin::{Batch, BatchBuilder, Split};

/// The target size of a batch in bytes.
const BATCH_BYTES: usize = 256 << 10;
/// The maximum length of a line in bytes, with its line feed.
const MAX_LINE: usize = 16 << 20;

/// The lines of a file that are not yet read.
pub(super) struct LineReader {
    path: PathBuf,
    split: Arc<Split>,
    /// The byte at which the next line starts.
    position: Position,
    /// `None` until the first line is read: a file that waits for its turn is not open.
    file: Option<BufReader<File>>,
}

impl LineReader {
    /// Creates a reader of the lines from `position` on.
    pub(super) fn new(path: PathBuf, split: Arc<Split>, position: Position) -> LineReader {
        LineReader {
            path,
            split,
            position,
            file: None,
        }
    }

    /// The file as a split.
    pub(super) fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The position after the last line that was read.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The next lines; `None` at the end of the file.
    pub(super) fn next_batch(
        &mut self,
        wanted: WantedMetadata,
    ) -> Result<Option<Batch>, SourceError> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let mut batch = BatchBuilder::new(self.split.clone(), wanted, BATCH_BYTES);
        let mut line = Vec::new();
        while batch.bytes() < BATCH_BYTES {
            line.clear();
            let read = file
                .by_ref()
                .take(MAX_LINE as u64 + 1)
                .read_until(b'\n', &mut line)
                .map_err(|error| self.failed(error))?;
            if read == 0 {
                break;
            }
            if read > MAX_LINE {
                let what = format!(
                    "{}: the line at byte {} is longer than {MAX_LINE} bytes",
                    self.path.display(),
                    self.position
                );
                return Err(SourceError::Fatal(what.into()));
            }
            let record = line.strip_suffix(b"\n").unwrap_or(&line);
            batch.push(self.position, Some(record), RecordMeta::default());
            self.position += read as Position;
        }
        self.file = Some(file);
        Ok((!batch.is_empty()).then(|| batch.finish(self.position)))
    }

    /// Opens the file at the first line that does not begin below the position. The position may be
    /// a byte inside a line: the start of the last line that was committed, plus one.
    fn open(&mut self) -> Result<BufReader<File>, SourceError> {
        let before = self.position.saturating_sub(1);
        let opened = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(before))?;
            Ok((file.metadata()?.len(), file))
        });
        let (size, file) = opened.map_err(|error| self.failed(error))?;
        if size < self.position {
            let what = format!(
                "{} has {size} bytes, but {} were read of it before; the files of a spool must not \
                 change",
                self.path.display(),
                self.position
            );
            return Err(SourceError::Fatal(what.into()));
        }
        let mut file = BufReader::new(file);
        if self.position > 0 {
            // Skips the rest of the line of the byte before: just that byte if it is the line feed.
            let skipped = file.skip_until(b'\n').map_err(|error| self.failed(error))?;
            self.position = before + skipped as Position;
        }
        Ok(file)
    }

    fn failed(&self, error: io::Error) -> SourceError {
        let kind = error.kind();
        let reason = Reason::caused_by(format!("cannot read {}", self.path.display()), error);
        match kind {
            // Only the user can grant the permission.
            ErrorKind::PermissionDenied => SourceError::Fatal(reason),
            // The file may have been deleted since it was found; the next attempt looks again.
            _ => SourceError::Transient(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &str, position: Position) -> (tempfile::TempDir, LineReader) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        std::fs::write(&path, text).unwrap();
        let split = Split {
            id: "in:1".into(),
            topic: "1".into(),
            partition: 0,
        };
        (dir, LineReader::new(path, Arc::new(split), position))
    }

    #[test]
    fn reading_resumes_at_a_position() {
        for (position, positions, next) in [
            (0, &[0, 3, 4][..], 7),
            (1, &[3, 4], 7),
            (3, &[3, 4], 7),
            (5, &[], 7),
            (7, &[], 7),
        ] {
            let (_dir, mut lines) = reader("ab\n\ncd\n", position);
            let batch = lines.next_batch(WantedMetadata::default()).unwrap();
            let found = batch.map_or(Vec::new(), |batch| batch.positions);
            assert_eq!((found.as_slice(), lines.position()), (positions, next));
            let end = lines.next_batch(WantedMetadata::default()).unwrap();
            assert!(end.is_none());
        }
    }

    #[test]
    fn a_file_that_has_shrunk_is_an_error() {
        let (_dir, mut lines) = reader("ab\n", 4);
        let error = lines.next_batch(WantedMetadata::default()).unwrap_err();
        let expected = "has 3 bytes, but 4 were read of it before";
        assert!(error.to_string().contains(expected), "{error}");
    }
}
