//! One file that is followed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use pseidon_plugin::Split;
use pseidon_plugin::source::SourceError;

use super::super::Config;
use super::super::compression::{Compression, Stream};
use super::super::identity::{FileKey, Head};
use super::super::lines::{Block, LineReader, ReadError};
use super::super::once;

/// A file that is followed.
pub(super) struct Tracked {
    /// Where it was seen last.
    path: PathBuf,
    split: Arc<Split>,
    head: Head,
    compression: Compression,
    state: State,
    /// Its size on disk when it was looked at last, and the time before that.
    size: u64,
    size_before: Option<u64>,
    /// Its size on disk when it was read to its end last.
    read_size: u64,
    /// Its size on disk when it was opened last: it may have grown after its end was read.
    opened_size: u64,
    grew: Instant,
    /// The last scan in which a name led to it.
    last_seen: u64,
    /// No name leads to it, and it has not grown for a long time.
    drained: bool,
    /// Where reading began.
    start: Position,
}

/// What is there of it.
enum State {
    /// Nothing; its lines are to be read from here.
    Closed(Position),
    /// A reader, and the file once more for looking at its size.
    Open(Box<LineReader>, File),
}

/// What reading gave.
pub(super) enum Turn {
    /// Whole lines.
    Block(Block),
    /// There is nothing more for now.
    Nothing,
}

impl Tracked {
    pub(super) fn new(path: PathBuf, split: Arc<Split>, head: Head, compression: Compression, start: Position) -> Self {
        Tracked {
            path,
            split,
            head,
            compression,
            state: State::Closed(start),
            size: 0,
            size_before: None,
            read_size: if compression == Compression::None { start } else { once::done_size(start).unwrap_or(0) },
            opened_size: 0,
            grew: Instant::now(),
            last_seen: 0,
            drained: false,
            start,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// Where the next record starts.
    pub(super) fn position(&self) -> Position {
        match &self.state {
            State::Closed(position) => *position,
            State::Open(reader, _) => reader.position(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// When it was seen to grow.
    pub(super) fn grew(&self) -> Instant {
        self.grew
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether nothing was read of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.position() == self.start
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed(self.position());
    }

    /// A name led to it.
    pub(super) fn seen(&mut self, path: PathBuf, size: u64, scan: u64) {
        self.path = path;
        // Another name of it may have been seen in the same scan.
        if self.last_seen == scan {
            return;
        }
        self.last_seen = scan;
        self.drained = false;
        self.note_size(size);
    }

    /// No name led to it in this scan: only the open file tells its size.
    pub(super) fn look_if_unseen(&mut self, scan: u64, patience: Duration) {
        if self.last_seen == scan || self.drained {
            return;
        }
        match &self.state {
            State::Closed(_) => {
                if self.has_more() {
                    tracing::warn!(file = %self.path.display(), "file went away before it was read to its end");
                }
                self.drained = true;
            }
            State::Open(_, file) => {
                if let Ok(metadata) = file.metadata() {
                    self.note_size(metadata.len());
                }
                self.drained = !self.has_more() && self.grew.elapsed() >= patience;
            }
        }
    }

    fn note_size(&mut self, size: u64) {
        if size != self.size {
            self.grew = Instant::now();
        }
        self.size_before = Some(std::mem::replace(&mut self.size, size));
    }

    /// Whether there is more to read than was read. A compressed file must have stopped growing, since it can only be read as a whole.
    pub(super) fn has_more(&self) -> bool {
        if self.drained {
            // The last line, although its end is missing.
            return matches!(&self.state, State::Open(reader, _) if reader.read_to() > reader.position());
        }
        match self.compression {
            Compression::None => self.size > self.read_size,
            _ => self.is_open() || (self.size != self.read_size && self.size_before == Some(self.size)),
        }
    }

    /// Whether what was read of it is no longer there.
    pub(super) fn is_written_anew(&self) -> bool {
        if self.size < self.read_size {
            return true;
        }
        let State::Open(_, file) = &self.state else { return false };
        let changed = self.size_before != Some(self.size);
        changed && Head::of(file, self.compression, self.compression != Compression::None).is_ok_and(|head| head != Some(self.head))
    }

    /// What is left of a line whose end was never written.
    pub(super) fn rest(&mut self) -> Option<Block> {
        match &mut self.state {
            State::Open(reader, _) if self.compression == Compression::None => reader.rest().ok().flatten(),
            _ => None,
        }
    }

    /// Reads the next lines.
    pub(super) fn read(&mut self, config: &Config, key: &FileKey) -> Result<Turn, SourceError> {
        if self.drained {
            let rest = self.rest();
            self.close();
            return Ok(rest.map_or(Turn::Nothing, Turn::Block));
        }
        let outcome = self.open(config, key).and_then(|open| if open { self.next() } else { Ok(Turn::Nothing) });
        outcome.or_else(|error| self.give_up_for_now(&error))
    }

    /// Gives whether it could be opened: by now its name may lead to another file.
    fn open(&mut self, config: &Config, key: &FileKey) -> Result<bool, ReadError> {
        let State::Closed(position) = self.state else { return Ok(true) };
        if once::done_size(position).is_some() {
            let reason = "it has changed since it was read to its end; compressed files must not be appended to";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason).into());
        }
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if FileKey::of(&file.metadata()?) != *key {
            return Ok(false);
        }
        let for_looking = file.try_clone()?;
        self.opened_size = self.size;
        let stream = Stream::open(file, self.compression, position)?;
        self.state = State::Open(Box::new(LineReader::new(stream, position, config.limits)), for_looking);
        Ok(true)
    }

    fn next(&mut self) -> Result<Turn, ReadError> {
        let State::Open(reader, _) = &mut self.state else { return Ok(Turn::Nothing) };
        let block = reader.next_block()?;
        if self.compression == Compression::None {
            self.read_size = reader.read_to();
            self.size = self.size.max(self.read_size);
            return Ok(block.map_or(Turn::Nothing, Turn::Block));
        }
        if let Some(block) = block {
            return Ok(Turn::Block(block));
        }
        let rest = reader.rest()?;
        self.read_size = self.opened_size;
        self.close();
        Ok(rest.map_or(Turn::Nothing, Turn::Block))
    }

    /// A compressed file may just not be complete.
    fn give_up_for_now(&mut self, error: &ReadError) -> Result<Turn, SourceError> {
        let incomplete = matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof);
        if incomplete && self.compression != Compression::None {
            self.read_size = self.opened_size;
            self.close();
            return Ok(Turn::Nothing);
        }
        let message = format!("cannot read {}: {error}", self.path.display());
        match error {
            ReadError::Io(error) if once::is_passing(error) => Err(SourceError::Transient(message)),
            _ => Err(SourceError::Fatal(message)),
        }
    }
}
