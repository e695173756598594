//! What was read before a position: in memory a [`Tail`], in the state store a [`Mark`].

use std::fmt;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use pseidon_delivery::{Position, ResumeToken};
use sha2::{Digest, Sha256};

use super::compression::{DECODE_BYTES, InputCompression, Stream};
use super::content::ContentDigest;
use super::stat::{ChangeTime, Stat, parse_time};

/// How many bytes before a position are remembered.
const TAIL: usize = 64;

/// The bytes just before a position, at most [`TAIL`], and a digest of all bytes before it.
#[derive(Clone)]
pub(super) struct Tail {
    /// The position after the last of `bytes`.
    upto: Position,
    bytes: [u8; TAIL],
    /// How many of `bytes` are known, at its end.
    len: usize,
    /// The digest of all bytes before the position, if they were read.
    content: Option<Box<ContentDigest>>,
}

impl PartialEq for Tail {
    fn eq(&self, other: &Tail) -> bool {
        let parts = |tail: &Tail| (tail.upto, tail.content_value());
        parts(self) == parts(other) && self.known() == other.known()
    }
}

impl Eq for Tail {}

impl fmt::Debug for Tail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Tail({}, {:?})",
            self.upto,
            String::from_utf8_lossy(self.known())
        )
    }
}

impl Tail {
    /// A tail without known bytes before this position.
    pub(super) fn unknown(upto: Position) -> Tail {
        Tail {
            upto,
            bytes: [0; TAIL],
            len: 0,
            content: (upto == 0).then(|| Box::new(ContentDigest::new())),
        }
    }

    /// Reads the tail of a file before this position.
    pub(super) fn of(file: &File, upto: Position) -> io::Result<Tail> {
        let mut tail = Tail::unknown(upto);
        let len = usize::try_from(upto).unwrap_or(TAIL).min(TAIL);
        if read_exactly(file, &mut tail.bytes[TAIL - len..], upto - len as u64)? {
            tail.len = len;
            tail.content = ContentDigest::of(file, upto)?.map(Box::new);
        }
        Ok(tail)
    }

    /// Reads the content of a compressed file up to this position. Returns the stream at that
    /// place, and the tail before it. Fails with `UnexpectedEof` if the content ends before that.
    fn of_content(
        file: File,
        compression: InputCompression,
        upto: Position,
    ) -> io::Result<(Stream, Tail)> {
        let mut stream = Stream::open(file, compression, 0)?;
        let mut tail = Tail::unknown(0);
        let mut piece = Vec::new();
        while tail.upto < upto {
            let missing = usize::try_from(upto - tail.upto).unwrap_or(DECODE_BYTES);
            piece.clear();
            piece.reserve_exact(DECODE_BYTES);
            if stream.read_at_most(&mut piece, missing)? == 0 {
                let at = tail.upto;
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("it ends at byte {at} of its decompressed content"),
                ));
            }
            tail.push(&piece);
        }
        Ok((stream, tail))
    }

    /// The position after the bytes.
    pub(super) fn upto(&self) -> Position {
        self.upto
    }

    /// Appends the next bytes of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        self.bytes.copy_within(new.len().., 0);
        self.bytes[TAIL - new.len()..].copy_from_slice(new);
        self.upto += bytes.len() as u64;
        self.len = (self.len + new.len()).min(TAIL);
        if let Some(content) = &mut self.content {
            content.push(bytes);
        }
    }

    /// Whether the file still contains all bytes before the position, as far as they count in the
    /// digest.
    pub(super) fn is_all_in(&self, file: &File) -> io::Result<bool> {
        Ok(self.is_in(file)? && has_content(file, self.upto, self.content_value())?)
    }

    /// Whether the file still contains the last bytes before the position.
    pub(super) fn is_in(&self, file: &File) -> io::Result<bool> {
        let mut found = [0; TAIL];
        let found = &mut found[..self.len];
        Ok(read_exactly(file, found, self.upto - self.len as u64)? && found == self.known())
    }

    /// Opens the content of a compressed file after these bytes, with all that is known of the
    /// bytes then; `None` if other bytes are there.
    pub(super) fn open_after(
        &self,
        file: File,
        compression: InputCompression,
    ) -> io::Result<Option<(Stream, Tail)>> {
        let (stream, found) = Tail::of_content(file, compression, self.upto)?;
        let is_alike = found.known().ends_with(self.known())
            && (self.content.is_none() || self.content_value() == found.content_value());
        Ok(is_alike.then_some((stream, found)))
    }

    /// The mark that is stored with the position; `None` if no bytes before it are known.
    pub(super) fn known_mark(&self) -> Option<Mark> {
        (self.len > 0).then(|| self.mark())
    }

    /// The mark that is stored with the position.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            upto: self.upto,
            len: self.len,
            digest: digest(self.known()),
            content: self.content_value(),
            ended: None,
        }
    }

    fn content_value(&self) -> Option<u64> {
        self.content.as_ref().map(|content| content.value())
    }

    fn known(&self) -> &[u8] {
        &self.bytes[TAIL - self.len..]
    }
}

/// Digests of the bytes before a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    upto: Position,
    /// How many bytes just before the position have `digest`.
    len: usize,
    digest: String,
    /// The digest of all bytes; `None` if it is not known, and in entries of earlier versions.
    content: Option<u64>,
    /// When the file had changed last, if it ended at the position.
    ended: Option<ChangeTime>,
}

impl Mark {
    /// The position after the bytes of the digest.
    pub(super) fn upto(&self) -> Position {
        self.upto
    }

    /// Whether the digests cover every byte before the position.
    pub(super) fn covers_all(&self) -> bool {
        self.content.is_some() || self.len as u64 == self.upto
    }

    /// The mark as a string; see [`Mark::from_text`].
    pub(super) fn to_resume(&self) -> ResumeToken {
        let mut text = format!("mark {} {} {}", self.upto, self.len, self.digest);
        if let Some(content) = self.content {
            text += &format!(" {content:016x}");
            if let Some((seconds, nanos)) = self.ended {
                text += &format!(" {seconds}.{nanos}");
            }
        }
        text.into()
    }

    /// The mark of a file that ended at the position when it had this metadata.
    pub(super) fn at_end(self, stat: &Stat) -> Mark {
        let ended = stat.settled().filter(|_| stat.size == self.upto);
        Mark { ended, ..self }
    }

    /// Parses a mark; `None` if the string is not a valid mark.
    pub(super) fn from_text(text: &str) -> Option<Mark> {
        let mut words = text.strip_prefix("mark ")?.split(' ');
        let mark = Mark {
            upto: words.next()?.parse().ok()?,
            len: words.next()?.parse().ok()?,
            digest: words.next()?.to_owned(),
            content: words
                .next()
                .and_then(|word| u64::from_str_radix(word, 16).ok()),
            ended: words.next().and_then(parse_time),
        };
        (mark.len <= TAIL && mark.len as u64 <= mark.upto).then_some(mark)
    }

    /// Whether the file still contains bytes with these digests before the position.
    pub(super) fn is_in(&self, file: &File) -> io::Result<bool> {
        let now = Stat::of(&file.metadata()?, SystemTime::now());
        if now.size == self.upto && self.ended == Some(now.changed()) {
            return Ok(true);
        }
        let mut found = [0; TAIL];
        let found = &mut found[..self.len];
        Ok(read_exactly(file, found, self.upto - self.len as u64)?
            && digest(found) == self.digest
            && has_content(file, self.upto, self.content)?)
    }

    /// The bytes with these digests in the content of a compressed file; `None` if it has others
    /// there. If it cannot be read up to there, no bytes are known: reading fails at the same byte,
    /// and reports it.
    pub(super) fn find_in_content(
        &self,
        mut file: &File,
        compression: InputCompression,
    ) -> io::Result<Option<Tail>> {
        let unknown = Tail::unknown(self.upto);
        if matches!(compression, InputCompression::Columns(_)) {
            return Ok(Some(unknown));
        }
        file.rewind()?;
        match Tail::of_content(file.try_clone()?, compression, self.upto) {
            Err(error) if error.raw_os_error().is_none() => Ok(Some(unknown)),
            found => {
                let tail = found?.1;
                Ok(self.is_of(&tail).then_some(tail))
            }
        }
    }

    /// Compares the content of a compressed file with the bytes of these digests: `None` if it has
    /// others before the position, or ends before that. Returns whether it ends at the position.
    pub(super) fn compare_content(
        &self,
        mut file: &File,
        compression: InputCompression,
    ) -> io::Result<Option<bool>> {
        file.rewind()?;
        match Tail::of_content(file.try_clone()?, compression, self.upto) {
            Err(error) if error.raw_os_error().is_none() => Ok(None),
            found => {
                let (mut stream, tail) = found?;
                let mut more = Vec::with_capacity(1);
                let ends = || stream.read(&mut more).is_ok_and(|read| read == 0);
                Ok(self.is_of(&tail).then(ends))
            }
        }
    }

    /// Whether these are the digests of these bytes.
    fn is_of(&self, tail: &Tail) -> bool {
        let known = tail.known();
        known.len() >= self.len
            && digest(&known[known.len() - self.len..]) == self.digest
            && (self.content.is_none() || self.content == tail.content_value())
    }
}

/// Whether the first bytes of a file have this digest, if it is known.
fn has_content(file: &File, upto: Position, known: Option<u64>) -> io::Result<bool> {
    let Some(known) = known else { return Ok(true) };
    let found = ContentDigest::of(file, upto)?;
    Ok(found.is_some_and(|found| found.value() == known))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Fills the buffer from `start` on; returns whether the file is long enough.
fn read_exactly(file: &File, buffer: &mut [u8], start: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, start) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_round_trip(
            upto in any::<u64>(),
            len in 0..=TAIL,
            digest in "[0-9a-f]{16}",
            content in prop::option::of((any::<u64>(), prop::option::of(any::<(i64, i64)>()))),
        ) {
            let mark = Mark {
                upto: upto.max(len as u64),
                len,
                digest,
                content: content.map(|(content, _)| content),
                ended: content.and_then(|(_, ended)| ended),
            };
            prop_assert_eq!(Mark::from_text(mark.to_resume().as_str()), Some(mark));
        }

        // The entry may be that of another version, or of another source.
        #[test]
        fn any_string_is_refused_or_a_mark_that_can_be_looked_up(
            text in "mark [0-9]{1,3} [0-9]{1,3} [0-9a-f]{0,16}( [0-9a-f.-]{0,17}){0,3}|\\PC{0,9}",
            content in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let Some(mark) = Mark::from_text(&text) else { return Ok(()) };
            prop_assert_eq!(Mark::from_text(mark.to_resume().as_str()).is_some(), true);
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &content).unwrap();
            mark.is_in(&file).unwrap();
            mark.compare_content(&file, InputCompression::None).unwrap();
        }

        #[test]
        fn a_tail_equals_the_bytes_in_the_file(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..5),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let content = pieces.concat();
            fs::write(dir.path().join("a"), &content).unwrap();
            let file = File::open(dir.path().join("a")).unwrap();
            let mut tail = Tail::unknown(0);
            for piece in &pieces {
                tail.push(piece);
                let found = Tail::of(&file, tail.upto()).unwrap();
                prop_assert_eq!((tail.upto(), tail.known()), (found.upto(), found.known()));
                prop_assert!(tail.is_in(&file).unwrap() && tail.mark().is_in(&file).unwrap());
                if let Some(last) = tail.known().last() {
                    let mut changed = content.clone();
                    changed[tail.upto() as usize - 1] = last.wrapping_add(1);
                    fs::write(dir.path().join("b"), &changed).unwrap();
                    let file = File::open(dir.path().join("b")).unwrap();
                    prop_assert!(!tail.is_in(&file).unwrap() && !tail.mark().is_in(&file).unwrap());
                    fs::write(dir.path().join("b"), &changed[..tail.upto() as usize - 1]).unwrap();
                    prop_assert!(!tail.is_in(&file).unwrap() && !tail.mark().is_in(&file).unwrap());
                }
            }
        }
    }
}
