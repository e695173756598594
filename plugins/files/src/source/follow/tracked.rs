//! One file that is followed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pseidon_delivery::Position;
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceError, Start};

use super::super::Config;
use super::super::compression::{Compression, Stream};
use super::super::identity::{FileKey, Head};
use super::super::lines::{Block, LineReader, ReadError};
use super::super::once::is_passing;
use super::super::progress::{Tail, read_to_end};

/// How long after a change another change may have the same time: the clock of file systems ticks a
/// hundred times a second or more.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// A file that is followed.
pub(super) struct Tracked {
    /// Where it was seen last.
    path: PathBuf,
    split: Arc<Split>,
    head: Head,
    compression: Compression,
    state: State,
    /// What was seen of it last.
    stat: Option<Stat>,
    /// It may have changed since it was looked into last.
    may_have_changed: bool,
    /// What was read of it is no longer there, as reading has found.
    is_rewritten: bool,
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
    Closed(Tail),
    /// Nothing; it is compressed, and an earlier run has read it to its end, which is at this
    /// position.
    ReadToEnd(Position),
    /// A reader, and the file once more for looking at it.
    Open(Box<LineReader>, File),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// After these bytes.
    After(Tail),
    /// Nowhere: an earlier run has read it to its end, at this position, when it had this size on
    /// disk.
    End(Position, u64),
}

impl Begin {
    /// The same for the engine.
    pub(super) fn to_start(self, split: Arc<Split>) -> Start {
        match self {
            Begin::After(tail) => Start {
                split,
                position: tail.upto(),
                resume: (tail.upto() > 0).then(|| tail.mark().to_resume()),
            },
            Begin::End(position, size) => Start {
                split,
                position,
                resume: Some(read_to_end(size)),
            },
        }
    }
}

/// What can be seen of a file without reading it, and tells that it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    size: u64,
    /// The time of its last change, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
    /// The time is past, so another change has another time.
    is_settled: bool,
}

impl Stat {
    /// What is seen in `metadata`, which was asked for at `now` or later.
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Stat {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let since = |(seconds, nanos): (i64, i64)| {
            Some(Duration::new(
                u64::try_from(seconds).ok()?,
                u32::try_from(nanos).ok()?,
            ))
        };
        let settled =
            since(changed).and_then(|changed| UNIX_EPOCH.checked_add(changed + CLOCK_TICK));
        Stat {
            size: metadata.len(),
            changed,
            is_settled: settled.is_some_and(|settled| settled < now),
        }
    }

    /// Whether the file is certainly as it was when `before` was seen.
    fn is_same_as(&self, before: &Stat) -> bool {
        before.is_settled && (self.size, self.changed) == (before.size, before.changed)
    }
}

/// What reading gave.
pub(super) enum Turn {
    /// Whole lines.
    Block(Block),
    /// There is nothing more for now.
    Nothing,
}

impl Tracked {
    pub(super) fn new(
        path: PathBuf,
        split: Arc<Split>,
        head: Head,
        compression: Compression,
        begin: Begin,
    ) -> Self {
        let (state, start, read_size) = match begin {
            Begin::After(tail) if compression == Compression::None => {
                (State::Closed(tail), tail.upto(), tail.upto())
            }
            Begin::After(tail) => (State::Closed(tail), tail.upto(), 0),
            Begin::End(position, size) => (State::ReadToEnd(position), position, size),
        };
        Tracked {
            path,
            split,
            head,
            compression,
            state,
            stat: None,
            may_have_changed: false,
            is_rewritten: false,
            size: 0,
            size_before: None,
            read_size,
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
            State::Closed(tail) => tail.upto(),
            State::ReadToEnd(position) => *position,
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

    /// Whether a name led to it in this scan.
    pub(super) fn was_seen_in(&self, scan: u64) -> bool {
        self.last_seen == scan
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether nothing was read of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.position() == self.start
    }

    pub(super) fn close(&mut self) {
        if let State::Open(reader, _) = &self.state {
            self.state = State::Closed(reader.before());
        }
    }

    /// A name led to it.
    pub(super) fn seen(&mut self, path: PathBuf, stat: Stat, scan: u64) {
        self.path = path;
        // Another name of it may have been seen in the same scan.
        if self.last_seen == scan {
            return;
        }
        self.last_seen = scan;
        self.drained = false;
        self.note(stat);
    }

    /// No name led to it in this scan: only the open file tells its size.
    pub(super) fn look_if_unseen(&mut self, scan: u64, patience: Duration) {
        if self.last_seen == scan || self.drained {
            return;
        }
        match &self.state {
            State::Closed(_) | State::ReadToEnd(_) => {
                if self.has_more() {
                    tracing::warn!(file = %self.path.display(), "file went away before it was read to its end");
                }
                self.drained = true;
            }
            State::Open(_, file) => {
                let now = SystemTime::now();
                if let Ok(metadata) = file.metadata() {
                    self.note(Stat::of(&metadata, now));
                }
                self.drained = !self.has_more() && self.grew.elapsed() >= patience;
            }
        }
    }

    fn note(&mut self, stat: Stat) {
        self.may_have_changed = self.stat.is_none_or(|before| !stat.is_same_as(&before));
        self.stat = Some(stat);
        if stat.size != self.size {
            self.grew = Instant::now();
        }
        self.size_before = Some(std::mem::replace(&mut self.size, stat.size));
    }

    /// Whether there is more to read than was read. A compressed file must have stopped growing,
    /// since it can only be read as a whole.
    pub(super) fn has_more(&self) -> bool {
        if self.is_rewritten {
            return false;
        }
        if self.drained {
            // The last line, although its end is missing.
            return matches!(&self.state, State::Open(reader, _) if reader.read_to() > reader.position());
        }
        match self.compression {
            Compression::None => self.size > self.read_size,
            _ => {
                self.is_open()
                    || (self.size != self.read_size && self.size_before == Some(self.size))
            }
        }
    }

    /// Whether what was read of it is no longer there.
    pub(super) fn is_rewritten(&self, key: &FileKey) -> bool {
        if self.is_rewritten || self.size < self.read_size {
            return true;
        }
        // What cannot be looked into now is looked into when it is read.
        self.may_have_changed && self.is_as_read(key).is_ok_and(|as_read| !as_read)
    }

    /// Whether the file still begins as it did, and has before the position what was read there.
    fn is_as_read(&self, key: &FileKey) -> io::Result<bool> {
        match &self.state {
            State::Open(reader, file) => self.is_in(file, &reader.tail()),
            State::Closed(tail) => self.is_in_path(key, tail),
            State::ReadToEnd(position) => self.is_in_path(key, &Tail::unknown(*position)),
        }
    }

    fn is_in_path(&self, key: &FileKey, tail: &Tail) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        // By now the name may lead to another file.
        if FileKey::of(&file.metadata()?) != *key {
            Ok(true)
        } else {
            self.is_in(&file, tail)
        }
    }

    fn is_in(&self, file: &File, tail: &Tail) -> io::Result<bool> {
        let is_compressed = self.compression != Compression::None;
        let begins_alike = Head::of(file, self.compression, is_compressed)? == Some(self.head);
        Ok(begins_alike && (is_compressed || tail.is_in(file)?))
    }

    /// What is left of a line whose end was never written.
    pub(super) fn rest(&mut self) -> Option<Block> {
        match &mut self.state {
            State::Open(reader, _) if self.compression == Compression::None => {
                reader.rest().ok().flatten()
            }
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
        let outcome = self
            .open(config, key)
            .and_then(|open| if open { self.next() } else { Ok(Turn::Nothing) });
        outcome.or_else(|error| self.give_up_for_now(&error))
    }

    /// Gives whether it could be opened: by now its name may lead to another file.
    fn open(&mut self, config: &Config, key: &FileKey) -> Result<bool, ReadError> {
        let tail = match self.state {
            State::Open(..) => return Ok(true),
            State::Closed(tail) => tail,
            State::ReadToEnd(_) => {
                let reason = "it has changed since it was read to its end; compressed files must not be appended to";
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
        let for_looking = file.try_clone()?;
        self.opened_size = self.size;
        let stream = Stream::open(file, self.compression, tail.upto())?;
        self.state = State::Open(
            Box::new(LineReader::new(stream, tail, config.limits)),
            for_looking,
        );
        Ok(true)
    }

    fn next(&mut self) -> Result<Turn, ReadError> {
        if self.compression == Compression::None {
            return self.next_of_plain();
        }
        let State::Open(reader, _) = &mut self.state else {
            return Ok(Turn::Nothing);
        };
        let block = reader.next_block()?;
        if let Some(block) = block {
            return Ok(Turn::Block(block));
        }
        let rest = reader.rest()?;
        self.read_size = self.opened_size;
        self.close();
        Ok(rest.map_or(Turn::Nothing, Turn::Block))
    }

    /// What was read counts only if the file was still the same afterwards.
    fn next_of_plain(&mut self) -> Result<Turn, ReadError> {
        let State::Open(reader, _) = &mut self.state else {
            return Ok(Turn::Nothing);
        };
        let (checkpoint, before) = (reader.checkpoint(), reader.tail());
        let outcome = reader.next_block();
        let State::Open(_, file) = &self.state else {
            return Ok(Turn::Nothing);
        };
        let is_as_read = self.is_in(file, &before)?;
        let State::Open(reader, _) = &mut self.state else {
            return Ok(Turn::Nothing);
        };
        if !is_as_read {
            reader.back_to(checkpoint);
            self.is_rewritten = true;
            return Ok(Turn::Nothing);
        }
        let block = outcome?;
        self.read_size = reader.read_to();
        self.size = self.size.max(self.read_size);
        Ok(block.map_or(Turn::Nothing, Turn::Block))
    }

    /// A compressed file may just not be complete.
    fn give_up_for_now(&mut self, error: &ReadError) -> Result<Turn, SourceError> {
        let incomplete =
            matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof);
        if incomplete && self.compression != Compression::None {
            self.read_size = self.opened_size;
            self.close();
            return Ok(Turn::Nothing);
        }
        let message = format!("cannot read {}: {error}", self.path.display());
        match error {
            ReadError::Io(error) if is_passing(error) => Err(SourceError::Transient(message)),
            _ => Err(SourceError::Fatal(message)),
        }
    }
}
