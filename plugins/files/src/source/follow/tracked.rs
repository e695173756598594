//! One file that is followed. [`comparison`]: whether it is still the file that was read.
//! [`recovery`]: what happens when it cannot be read further.

mod comparison;
mod recovery;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pseidon_delivery::{Position, Reason, WithCauses};
use pseidon_plugin::Split;
use pseidon_plugin::source::SourceError;

use super::super::Config;
use super::super::compression::InputCompression;
use super::super::identity::{FileKey, Head};
use super::super::lines::LineReader;
use super::super::read_error::ReadError;
use super::super::reader::{FileReader, Records};
use super::super::snapshot::Snapshot;
use super::super::stat::Stat;
use super::super::tail::{Mark, Tail};
use super::start_point::StartPoint;

/// A file that is followed.
pub(super) struct TrackedFile {
    /// The path under which it was seen last.
    path: PathBuf,
    split: Arc<Split>,
    head: Head,
    compression: InputCompression,
    state: ReadState,
    /// The metadata that was seen last.
    stat: Option<Stat>,
    /// Whether it may have changed since its content was checked last.
    may_have_changed: bool,
    /// Whether its metadata has certainly changed at the last check.
    has_changed: bool,
    /// Whether reading has found that the content that was read is no longer there.
    is_rewritten: bool,
    /// Its size on disk at the last check.
    size: u64,
    /// Its size on disk at the check before that.
    size_before: Option<u64>,
    /// Its size on disk when it was last read to its end.
    read_size: u64,
    /// Its size on disk when it was last opened: it may have grown after its end was read.
    opened_size: u64,
    /// What it was on disk when it was last opened, if it is not plain.
    snapshot: Option<Snapshot>,
    last_growth: Instant,
    /// The last scan in which a glob matched it.
    last_seen: u64,
    /// Whether no glob matches it and it has not grown for a long time.
    drained: bool,
    /// Whether another file begins with what was read of it, and so is its continuation.
    is_replaced: bool,
    /// The position at which reading began.
    start: Position,
    /// The start and the length of each record that was skipped before it was closed.
    skipped: Vec<(Position, u64)>,
}

/// How a followed file is being read.
enum ReadState {
    /// It is closed; reading continues after this tail.
    Closed(Tail),
    /// It is closed and compressed, and an earlier run has read it to its end, at this position.
    ReadToEnd(Position),
    /// A reader, and a second handle of the file for checking it.
    Open(FileReader, File),
    /// It ends early: it may still be being written.
    Incomplete {
        /// What was read.
        before: Tail,
        reason: Reason,
    },
    /// It cannot be read further.
    Broken {
        /// What was read.
        before: Tail,
        /// Whether it is read again when its size changes: it may have been incomplete.
        may_recover: bool,
    },
}

impl ReadState {
    /// The position of the next record.
    fn position(&self) -> Position {
        match self {
            ReadState::Closed(before)
            | ReadState::Incomplete { before, .. }
            | ReadState::Broken { before, .. } => before.upto(),
            ReadState::ReadToEnd(position) => *position,
            ReadState::Open(reader, _) => reader.position(),
        }
    }
}

/// The result of [`TrackedFile::read`].
pub(super) enum ReadResult {
    /// Complete records, or the last line of a file that does not end with a line feed.
    Records(Records),
    /// There are no more lines for now.
    Nothing,
    /// The file cannot be read further.
    Broken(Reason),
}

impl TrackedFile {
    pub(super) fn new(
        path: PathBuf,
        split: Arc<Split>,
        head: Head,
        compression: InputCompression,
        begin: StartPoint,
    ) -> Self {
        let (state, snapshot) = match begin {
            StartPoint::After(tail) => (ReadState::Closed(tail), None),
            StartPoint::End(position, snapshot) => {
                let state = match compression.may_grow() && position > 0 {
                    true => ReadState::Closed(Tail::unknown(position)),
                    false => ReadState::ReadToEnd(position),
                };
                (state, Some(snapshot))
            }
        };
        let start = state.position();
        let read_size = match (snapshot, compression) {
            (Some(snapshot), _) => snapshot.size,
            (None, InputCompression::None) => start,
            (None, _) => 0,
        };
        TrackedFile {
            path,
            split,
            head,
            compression,
            state,
            stat: None,
            may_have_changed: false,
            has_changed: false,
            is_rewritten: false,
            size: 0,
            size_before: None,
            read_size,
            opened_size: 0,
            snapshot,
            last_growth: Instant::now(),
            last_seen: 0,
            drained: false,
            is_replaced: false,
            start,
            skipped: Vec::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The position of the next record.
    pub(super) fn position(&self) -> Position {
        self.state.position()
    }

    /// How many bytes of the file were not read yet. A compressed file counts with its size on disk
    /// until it is read to its end.
    pub(super) fn unread(&self) -> u64 {
        match self.compression {
            InputCompression::None => self.size.saturating_sub(self.position()),
            _ if self.size == self.read_size && !self.is_incomplete() && !self.is_broken() => 0,
            _ => self.size,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, ReadState::Broken { .. })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, ReadState::Open(..))
    }

    /// When it was last seen to have grown.
    pub(super) fn last_growth(&self) -> Instant {
        self.last_growth
    }

    /// Whether a glob matched it in this scan.
    pub(super) fn was_seen_in(&self, scan: u64) -> bool {
        self.last_seen == scan
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether nothing has been read of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.position() == self.start
    }

    /// What was read before the position, if it is plain.
    pub(super) fn mark(&self) -> Option<Mark> {
        let before = match &self.state {
            ReadState::Closed(before)
            | ReadState::Incomplete { before, .. }
            | ReadState::Broken { before, .. } => before.clone(),
            ReadState::Open(reader, _) => reader.before(),
            ReadState::ReadToEnd(_) => return None,
        };
        (self.compression == InputCompression::None).then(|| before.mark())
    }

    pub(super) fn close(&mut self) {
        if let ReadState::Open(reader, _) = &mut self.state {
            self.skipped.extend(reader.take_skipped());
            self.state = ReadState::Closed(reader.before());
        }
    }

    /// Records that a glob matched it in this scan.
    pub(super) fn seen(&mut self, path: PathBuf, stat: Stat, scan: u64) {
        self.path = path;
        // Another path of it may have been seen in the same scan.
        if self.last_seen == scan {
            return;
        }
        self.last_seen = scan;
        (self.drained, self.is_replaced) = (false, false);
        self.update_stat(stat);
    }

    /// Does not wait for more if it has been read to its end, because another file begins with what
    /// was read of it. That file has what is left of an incomplete record too. Holds for one scan.
    pub(super) fn give_up(&mut self) {
        self.drained = !self.has_more();
        self.is_replaced = true;
    }

    /// Checks the size of a file that no glob matched in this scan, through its open handle.
    pub(super) fn check_if_unseen(&mut self, scan: u64, patience: Duration) {
        if self.last_seen == scan || (self.drained && !self.is_replaced) {
            return;
        }
        (self.drained, self.is_replaced) = (false, false);
        match &self.state {
            ReadState::Closed(_)
            | ReadState::ReadToEnd(_)
            | ReadState::Incomplete { .. }
            | ReadState::Broken { .. } => {
                if self.has_more() || self.is_incomplete() || self.has_unread_rest() {
                    tracing::warn!(
                        file = %self.path.display(),
                        "file was removed before it was read to its end"
                    );
                }
                self.drained = true;
            }
            ReadState::Open(_, file) => {
                let now = SystemTime::now();
                if let Ok(metadata) = file.metadata() {
                    self.update_stat(Stat::of(&metadata, now));
                }
                self.drained = !self.has_more() && self.last_growth.elapsed() >= patience;
            }
        }
    }

    fn update_stat(&mut self, stat: Stat) {
        self.may_have_changed = self.stat.is_none_or(|before| !stat.is_same_as(&before));
        self.has_changed = self.stat.is_some_and(|before| stat.differs_from(&before));
        self.stat = Some(stat);
        if stat.size != self.size {
            self.last_growth = Instant::now();
        }
        if self.has_changed {
            self.recover(stat.size);
        }
        self.size_before = Some(std::mem::replace(&mut self.size, stat.size));
    }

    /// Whether there is more to read. A compressed file must have stopped growing, since it can
    /// only be read as a whole.
    pub(super) fn has_more(&self) -> bool {
        if self.is_rewritten || self.is_broken() || self.is_incomplete() {
            return false;
        }
        if self.drained {
            // The last line, although its line end is missing.
            return !self.is_replaced
                && matches!(
                    &self.state,
                    ReadState::Open(reader, _) if reader.read_to() > reader.position()
                );
        }
        match self.compression {
            InputCompression::None => self.size > self.read_size || self.has_buffered(),
            _ => {
                // What is incomplete at the end of a file that may grow is no obstacle.
                let may_be_read =
                    self.compression.may_grow() || self.size_before == Some(self.size);
                self.is_open() || (self.size != self.read_size && may_be_read)
            }
        }
    }

    /// Whether it is closed, has no more, and may be appended to.
    pub(super) fn is_to_be_held(&self) -> bool {
        let may_be_appended_to = self.compression == InputCompression::None;
        let is_closed = matches!(self.state, ReadState::Closed(_));
        may_be_appended_to && is_closed && !self.drained && !self.is_rewritten && !self.has_more()
    }

    /// Whether a file that is closed has bytes that are not the whole of a record, as far as is
    /// known.
    fn has_unread_rest(&self) -> bool {
        self.compression == InputCompression::None && self.position() < self.read_size
    }

    fn has_buffered(&self) -> bool {
        matches!(&self.state, ReadState::Open(reader, _) if reader.has_buffered())
    }

    /// The start and the length in bytes of each record that was skipped since the last call.
    pub(super) fn take_skipped(&mut self) -> Vec<(Position, u64)> {
        let mut skipped = std::mem::take(&mut self.skipped);
        if let ReadState::Open(reader, _) = &mut self.state {
            skipped.extend(reader.take_skipped());
        }
        skipped
    }

    /// Returns the last line, if its line end was never written.
    pub(super) fn last_line(&mut self) -> Option<Records> {
        match &mut self.state {
            ReadState::Open(reader, _) if self.compression == InputCompression::None => {
                reader.last_line().unwrap_or_else(|error| {
                    let (file, error) = (self.path.display(), WithCauses(&error));
                    tracing::warn!(%file, %error, "the last record of a file is not read");
                    None
                })
            }
            _ => None,
        }
    }

    /// Reads the next lines.
    pub(super) fn read(
        &mut self,
        config: &Config,
        key: &FileKey,
    ) -> Result<ReadResult, SourceError> {
        if self.drained {
            let last_line = self.last_line();
            self.close();
            return Ok(last_line.map_or(ReadResult::Nothing, ReadResult::Records));
        }
        let outcome = self.open(config, key).and_then(|open| {
            if open {
                self.next()
            } else {
                Ok(ReadResult::Nothing)
            }
        });
        outcome.or_else(|error| self.handle_error(error))
    }

    /// Opens it although it has no more, if that is possible now. What is wrong with it is reported
    /// when it is read.
    pub(super) fn hold(&mut self, config: &Config, key: &FileKey) {
        let _ = self.open(config, key);
    }

    /// When it was last seen to have changed, in seconds and nanoseconds since 1970.
    pub(super) fn changed(&self) -> Option<(i64, i64)> {
        self.stat.map(|stat| stat.changed())
    }

    /// Opens the file. Returns whether it could be opened: by now its path may name another file.
    fn open(&mut self, config: &Config, key: &FileKey) -> Result<bool, ReadError> {
        let tail = match &self.state {
            ReadState::Open(..) => return Ok(true),
            ReadState::Closed(tail) => tail.clone(),
            ReadState::Incomplete { .. } | ReadState::Broken { .. } => return Ok(false),
            ReadState::ReadToEnd(_) => {
                let reason = "it was appended to after it was read to its end; \
                              compressed files must not be appended to";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason).into());
            }
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        if FileKey::of(&file.metadata()?) != *key {
            return Ok(false);
        }
        let second_handle = file.try_clone()?;
        self.opened_size = self.size;
        if self.compression != InputCompression::None {
            self.snapshot = Some(Snapshot::of(&file, self.compression)?);
        }
        if self.is_checked_when_read() && !self.is_in(&file, &tail)? {
            self.is_rewritten = true;
            return Ok(false);
        }
        let reader = match FileReader::open(file, config, self.compression, tail) {
            Err(ReadError::Rewritten) => {
                self.is_rewritten = true;
                return Ok(false);
            }
            other => other?,
        };
        self.state = ReadState::Open(reader, second_handle);
        Ok(true)
    }

    fn next(&mut self) -> Result<ReadResult, ReadError> {
        if self.compression == InputCompression::None {
            return self.next_of_plain();
        }
        let ReadState::Open(reader, _) = &mut self.state else {
            return Ok(ReadResult::Nothing);
        };
        if let Some(records) = reader.next()? {
            return Ok(ReadResult::Records(records));
        }
        let last_line = reader.last_line()?;
        self.read_size = self.opened_size;
        self.close();
        Ok(last_line.map_or(ReadResult::Nothing, ReadResult::Records))
    }

    /// The block counts only if the file was still unchanged after it was read.
    fn next_of_plain(&mut self) -> Result<ReadResult, ReadError> {
        let Some(reader) = self.open_lines() else {
            return Ok(ReadResult::Nothing);
        };
        let (checkpoint, before) = (reader.checkpoint(), reader.tail());
        let outcome = reader.next_block();
        let ReadState::Open(_, file) = &self.state else {
            return Ok(ReadResult::Nothing);
        };
        let is_as_read = self.is_in(file, &before)?;
        let Some(reader) = self.open_lines() else {
            return Ok(ReadResult::Nothing);
        };
        if !is_as_read {
            reader.restore(checkpoint);
            self.is_rewritten = true;
            return Ok(ReadResult::Nothing);
        }
        let block = outcome?;
        self.read_size = reader.read_to();
        self.size = self.size.max(self.read_size);
        let records = block.map(Records::Lines);
        Ok(records.map_or(ReadResult::Nothing, ReadResult::Records))
    }

    fn open_lines(&mut self) -> Option<&mut LineReader> {
        match &mut self.state {
            ReadState::Open(reader, _) => reader.lines(),
            _ => None,
        }
    }
}
