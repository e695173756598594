//! Compares a followed file with what was read of it.

use std::fs::File;
use std::io;

use super::super::super::compression::InputCompression;
use super::super::super::identity::{FileKey, Head};
use super::super::super::snapshot::Comparison;
use super::super::super::tail::Tail;
use super::{ReadState, TrackedFile};

/// A file of which no more than this was read is compared as a whole each time it may have changed.
const SMALL_BYTES: u64 = 64 << 10;

impl TrackedFile {
    /// Whether the content that was read is no longer there.
    pub(in super::super) fn is_rewritten(&self, key: &FileKey) -> bool {
        if self.is_checked_when_read() {
            return self.is_rewritten;
        }
        let has_shrunk = self.size < self.read_size;
        if self.is_rewritten || (has_shrunk && !self.compression.may_grow()) {
            return true;
        }
        // Of a file whose records are in blocks, an incomplete one may have been cut off. A file
        // that cannot be checked now is checked when it is read.
        (self.may_have_changed || has_shrunk) && self.is_as_read(key).is_ok_and(|as_read| !as_read)
    }

    /// Whether the file still has the same head, and the bytes that were read before the position.
    fn is_as_read(&self, key: &FileKey) -> io::Result<bool> {
        match &self.state {
            ReadState::Open(reader, file) => self.is_all_in(file, &reader.tail()),
            ReadState::Closed(tail)
            | ReadState::Incomplete { before: tail, .. }
            | ReadState::Broken { before: tail, .. } => self.is_in_path(key, tail),
            ReadState::ReadToEnd(position) => self.is_in_path(key, &Tail::unknown(*position)),
        }
    }

    fn is_in_path(&self, key: &FileKey, tail: &Tail) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        // By now the path may name another file.
        if FileKey::of(&file.metadata()?) != *key {
            Ok(true)
        } else {
            self.is_all_in(&file, tail)
        }
    }

    pub(super) fn is_in(&self, file: &File, tail: &Tail) -> io::Result<bool> {
        let is_compressed = self.compression != InputCompression::None;
        let begins_alike = Head::of(file, self.compression, is_compressed)? == Some(self.head);
        Ok(begins_alike && (is_compressed || tail.is_in(file)?))
    }

    /// Like [`Self::is_in`], with everything that was read. A large file that has grown is taken to
    /// have been appended to.
    fn is_all_in(&self, file: &File, tail: &Tail) -> io::Result<bool> {
        if !self.is_in(file, tail)? {
            return Ok(false);
        }
        if self.compression == InputCompression::None {
            let has_certainly_changed = self.has_changed && self.size_before == Some(self.size);
            let is_compared = has_certainly_changed || tail.upto() <= SMALL_BYTES;
            return Ok(!is_compared || tail.is_all_in(file)?);
        }
        let read = self.snapshot.filter(|_| self.is_read_to_end());
        Ok(match read {
            Some(read) => read.compare(file)? != Comparison::Rewritten,
            None => true,
        })
    }

    /// Whether it is compressed, and what was on disk when it was opened was read.
    fn is_read_to_end(&self) -> bool {
        !self.compression.may_grow()
            && self.read_size > 0
            && matches!(self.state, ReadState::Closed(_) | ReadState::ReadToEnd(_))
    }
}
