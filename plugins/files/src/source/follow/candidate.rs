//! A file that was found, while it is identified: by then it may be truncated, replaced or gone.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::Split;

use super::super::Config;
use super::super::compression::{InputCompression, Stream};
use super::super::identity::{FileKey, Head};
use super::super::lines::{LineReader, RecordFraming, record_start};
use super::super::read_error::ReadError;
use super::super::reader::FileReader;
use super::super::snapshot::{Comparison, Snapshot};
use super::super::stat::Stat;
use super::super::tail::{Mark, Tail};
use super::start_point::StartPoint;
use super::tracked::TrackedFile;
use super::{Follower, LastLook};

/// A file that was found and identified, but is not tracked yet.
pub(super) struct Candidate {
    pub(super) key: FileKey,
    pub(super) path: PathBuf,
    pub(super) display_path: String,
    stat: Stat,
    size: u64,
    pub(super) compression: InputCompression,
    framing: RecordFraming,
    pub(super) head: Head,
    /// Where reading begins if only new content is wanted.
    pub(super) latest: StartPoint,
    /// A split that is not named after it, by which it is known.
    pub(super) known_as: Option<SplitId>,
    /// Where it is read from as a new split.
    pub(super) starts_at: Position,
    /// The split of a log, which has ended there.
    pub(super) ended: Option<SplitId>,
}

impl Follower<'_> {
    /// Identifies the file at `path`. `None` if its first line or block is incomplete, or if it is
    /// compressed and still growing.
    pub(super) fn identify(
        &mut self,
        path: &Path,
        display_path: String,
    ) -> io::Result<Option<Candidate>> {
        let metadata = fs::metadata(path)?;
        let before = self
            .unidentified
            .get_mut(&FileKey::of(&metadata))
            .map(|glimpse| {
                glimpse.scan = self.scans;
                (glimpse.size, glimpse.compressed, glimpse.since)
            });
        let since = before.filter(|(size, ..)| *size == metadata.len());
        let since = since.map_or(self.scans, |(.., since)| since);
        let before = before.map(|(size, compressed, _)| (size, compressed));
        if before == Some((metadata.len(), false)) || metadata.len() == 0 {
            return Ok(None);
        }
        let (file, now) = (File::open(path)?, SystemTime::now());
        let metadata = file.metadata()?;
        let (key, size) = (FileKey::of(&metadata), metadata.len());
        let compression = self.config.compression_of(&file, path)?;
        let compressed = compression != InputCompression::None;
        let head = match compressed {
            false => Head::of(&file, compression, false)?,
            true if compression.may_grow() || before == Some((size, true)) => {
                head_of_compressed(&file, compression)?
            }
            true => None,
        };
        let Some(head) = head else {
            self.unidentified.insert(
                key,
                LastLook {
                    size,
                    compressed,
                    scan: self.scans,
                    since,
                },
            );
            return Ok(None);
        };
        let latest = match self.is_first_scan_from_latest() {
            true => latest_start(&file, self.config, compression, size)?,
            false => StartPoint::After(Tail::unknown(0)),
        };
        let stat = Stat::of(&metadata, now);
        Ok(Some(Candidate {
            key,
            path: path.to_owned(),
            display_path,
            stat,
            size,
            compression,
            framing: self.config.framing.clone(),
            head,
            latest,
            known_as: None,
            starts_at: 0,
            ended: None,
        }))
    }
}

/// Compares the bytes before the position up to which a file was read with those that were read.
pub(super) enum ContentCheck {
    /// The same bytes. Reading resumes there, at the start of a record.
    AsRead(StartPoint),
    /// Other or fewer bytes: the content is that of another split.
    Rewritten,
    /// The file no longer exists under this path.
    Gone,
}

impl Candidate {
    /// Its size on disk when it was found.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Looks at its size again. Once it is taken over, no other instance reads it, so it has
    /// everything that was committed of it.
    pub(super) fn look_again(&mut self) {
        let now = SystemTime::now();
        match fs::metadata(&self.path) {
            Ok(metadata) if FileKey::of(&metadata) == self.key => {
                (self.size, self.stat) = (metadata.len(), Stat::of(&metadata, now));
            }
            // That shows when it is opened.
            _ => {}
        }
    }

    /// Checks the bytes before the position up to which the file was read.
    pub(super) fn check_before(
        &self,
        position: Position,
        mark: Option<&Mark>,
    ) -> io::Result<ContentCheck> {
        let Some(file) = self.open()? else {
            return Ok(ContentCheck::Gone);
        };
        let is_as_read =
            position <= self.size && mark.map_or(Ok(true), |mark| mark.is_in(&file))?;
        if is_as_read {
            let clone = file.try_clone()?;
            let start = record_start(clone, self.compression, &self.framing, position, mark)?;
            let tail = Tail::of(&file, start)?;
            Ok(ContentCheck::AsRead(StartPoint::After(tail)))
        } else {
            Ok(ContentCheck::Rewritten)
        }
    }

    /// The same for a file that is not plain, whose content is checked.
    pub(super) fn check_content(
        &self,
        position: Position,
        mark: Option<&Mark>,
    ) -> io::Result<ContentCheck> {
        let Some(file) = self.open()? else {
            return Ok(ContentCheck::Gone);
        };
        let mut before = Tail::unknown(position);
        if let Some(mark) = mark {
            match mark.find_in_content(&file, self.compression)? {
                Some(found) => before = found,
                None => return Ok(ContentCheck::Rewritten),
            }
            (&file).rewind()?;
        }
        let start = record_start(file, self.compression, &self.framing, position, mark)?;
        let tail = match before.upto() == start {
            true => before,
            false => Tail::unknown(start),
        };
        Ok(ContentCheck::AsRead(StartPoint::After(tail)))
    }

    /// Compares a file that was read to its end with what it was then.
    pub(super) fn check_snapshot(
        &self,
        position: Position,
        snapshot: Snapshot,
    ) -> io::Result<ContentCheck> {
        let Some(file) = self.open()? else {
            return Ok(ContentCheck::Gone);
        };
        Ok(match snapshot.compare(&file)? {
            Comparison::Rewritten => ContentCheck::Rewritten,
            Comparison::Same | Comparison::Longer => {
                ContentCheck::AsRead(StartPoint::End(position, snapshot))
            }
        })
    }

    /// Opens the file; `None` if it no longer exists under its path, which may name another file by
    /// now.
    pub(super) fn open(&self) -> io::Result<Option<File>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok((FileKey::of(&file.metadata()?) == self.key).then_some(file))
    }

    /// Starts to follow the file.
    pub(super) fn into_tracked(
        self,
        split: Arc<Split>,
        begin: StartPoint,
        scan: u64,
    ) -> TrackedFile {
        let mut tracked =
            TrackedFile::new(self.path.clone(), split, self.head, self.compression, begin);
        tracked.seen(self.path, self.stat, scan);
        tracked
    }
}

/// The head of a compressed file; `None` if it is not complete. For a very short file it covers the
/// whole content, so the file has to be complete.
fn head_of_compressed(file: &File, compression: InputCompression) -> io::Result<Option<Head>> {
    if let Some(head) = Head::of(file, compression, false)? {
        return Ok(Some(head));
    }
    if matches!(compression, InputCompression::Columns(_)) {
        return Ok(None);
    }
    let complete =
        Stream::open(file.try_clone()?, compression, 0).and_then(|mut stream| stream.skip_to_end());
    match complete {
        Ok(()) => Head::of(file, compression, true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where reading begins in a file that existed at the first start.
fn latest_start(
    file: &File,
    config: &Config,
    compression: InputCompression,
    size: u64,
) -> io::Result<StartPoint> {
    if compression.may_grow() {
        return end_of_rows(file, config, compression);
    }
    if compression != InputCompression::None {
        return Ok(StartPoint::End(0, Snapshot::of(file, compression)?));
    }
    let start = match config.framing.has_quotes() {
        false => start_of_last_line(file, size)?,
        true => start_of_last_record(file, config)?,
    };
    Ok(StartPoint::After(Tail::of(file, start)?))
}

/// The start behind the last complete row of a file of rows that may grow.
fn end_of_rows(
    file: &File,
    config: &Config,
    compression: InputCompression,
) -> io::Result<StartPoint> {
    let (start, snapshot) = (Tail::unknown(0), Snapshot::of(file, compression)?);
    let opened = FileReader::open(file.try_clone()?, config, compression, start.clone());
    let Ok(mut reader) = opened else {
        return Ok(StartPoint::After(start));
    };
    // What cannot be read is reported when the file has grown and is read from there.
    while let Ok(Some(_)) = reader.next() {}
    Ok(match reader.position() {
        0 => StartPoint::After(start),
        position => StartPoint::End(position, snapshot),
    })
}

/// The start of the incomplete last line, to which the next appended bytes belong.
fn start_of_last_line(file: &File, size: u64) -> io::Result<Position> {
    let mut piece = [0; 4096];
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.read_exact_at(piece, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', piece) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Like [`start_of_last_line`], if a line feed may be in quotes: which ones are shows only from the
/// file's beginning.
fn start_of_last_record(file: &File, config: &Config) -> io::Result<Position> {
    let reader = config.line_reader(file.try_clone()?, InputCompression::None, Tail::unknown(0));
    let find = |mut reader: LineReader| {
        while reader.next_block()?.is_some() {}
        Ok(reader.position())
    };
    reader.and_then(find).map_err(|error| match error {
        ReadError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    })
}
