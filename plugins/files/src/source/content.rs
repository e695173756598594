//! A digest of the content before a position, which shows whether a file was rewritten.
//!
//! It is carried on while a file is read, and computed from the file when it is compared. All bytes
//! of the first 4 MiB count. Of the rest, 4 KiB at regular distances count, with at most 64 pieces
//! in each range from some offset to its double, and everything since the last but one multiple of
//! 1 MiB. So the comparison of a large log reads a few MiB, and notices every change in its first
//! 4 MiB or in its last one, and a file that was written again with other lines.

use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;

use pseidon_delivery::Position;
use twox_hash::xxhash3_64::Hasher as Xxh3;

/// All bytes before this offset count.
const DENSE_BYTES: u64 = 4 << 20;
/// How many pieces count in each range from an offset to its double.
const PIECES: u64 = 64;
/// The length of a piece in bytes.
const PIECE_BYTES: u64 = 4 << 10;
/// At least this many bytes before the position count.
const RECENT_BYTES: u64 = 1 << 20;
/// How many bytes are read at once.
const READ_BYTES: usize = 256 << 10;

/// A digest of the bytes from the beginning of the content to a position.
#[derive(Clone)]
pub(super) struct ContentDigest {
    upto: Position,
    /// The bytes that always count.
    fixed: Xxh3,
    /// The digest of the last complete range of [`RECENT_BYTES`].
    last_range: u64,
    /// The bytes since that range.
    recent: Xxh3,
}

impl ContentDigest {
    /// The digest before the first byte.
    pub(super) fn new() -> ContentDigest {
        ContentDigest {
            upto: 0,
            fixed: Xxh3::new(),
            last_range: 0,
            recent: Xxh3::new(),
        }
    }

    /// Appends the next bytes of the content.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = end_of_part(self.upto).min(self.upto + bytes.len() as u64);
            let (part, rest) = bytes.split_at((end - self.upto) as usize);
            if is_fixed(self.upto) {
                self.fixed.write(part);
            }
            self.push_recent(end, |recent| recent.write(part));
            bytes = rest;
        }
    }

    /// The digest of the first `upto` bytes of a file; `None` if the file is shorter. Bytes that do
    /// not count are not read.
    pub(super) fn of(file: &File, upto: Position) -> io::Result<Option<ContentDigest>> {
        if file.metadata()?.len() < upto {
            return Ok(None);
        }
        let mut digest = ContentDigest::new();
        let mut buffer = Vec::new();
        let recent = (upto / RECENT_BYTES).saturating_sub(1) * RECENT_BYTES;
        while digest.upto < upto {
            let at = digest.upto;
            let end = end_of_part(at).min(upto).min(at + READ_BYTES as u64);
            if !is_fixed(at) && at < recent {
                digest.push_recent(end, |_| {});
                continue;
            }
            buffer.resize((end - at) as usize, 0);
            match file.read_exact_at(&mut buffer, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other?,
            }
            digest.push(&buffer);
        }
        Ok(Some(digest))
    }

    /// The digest.
    pub(super) fn value(&self) -> u64 {
        let mut all = self.fixed.clone();
        if self.upto > DENSE_BYTES {
            all.write(&self.last_range.to_le_bytes());
            all.write(&self.recent.finish().to_le_bytes());
        }
        all.finish()
    }

    /// Moves to `end`, which is in the same range of recent bytes or at its end.
    fn push_recent(&mut self, end: Position, write: impl FnOnce(&mut Xxh3)) {
        // Below that, all bytes count anyway.
        if end > DENSE_BYTES - RECENT_BYTES {
            write(&mut self.recent);
        }
        self.upto = end;
        if end.is_multiple_of(RECENT_BYTES) {
            self.last_range = self.recent.finish();
            self.recent = Xxh3::new();
        }
    }
}

/// The distance of the pieces around this offset, which is at least [`DENSE_BYTES`].
fn distance(at: Position) -> u64 {
    let doublings = (at / DENSE_BYTES).ilog2();
    (DENSE_BYTES << doublings) / PIECES
}

/// Whether the byte at this offset counts for every later position.
fn is_fixed(at: Position) -> bool {
    at < DENSE_BYTES || at % distance(at) < PIECE_BYTES
}

/// The end of the bytes from `at` on that count or do not count alike, and are in one range of
/// recent bytes.
fn end_of_part(at: Position) -> Position {
    let range_end = (at / RECENT_BYTES + 1) * RECENT_BYTES;
    if at < DENSE_BYTES {
        return range_end;
    }
    let distance = distance(at);
    let start = at - at % distance;
    let end = match is_fixed(at) {
        true => start + PIECE_BYTES,
        false => start + distance,
    };
    end.min(range_end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A file of `len` bytes with other bytes at `changed`.
    fn file(len: u64, changed: &[u64]) -> (File, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        for at in changed {
            bytes[*at as usize] ^= 1;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    fn value(file: &File, upto: u64) -> Option<u64> {
        let digest = ContentDigest::of(file, upto).unwrap();
        digest.map(|digest| digest.value())
    }

    #[test]
    fn a_change_of_each_byte_that_counts_is_noticed() {
        const LEN: u64 = 20 << 20;
        let as_it_was = value(&file(LEN, &[]).0, LEN);
        let noticed = |at: u64| value(&file(LEN, &[at]).0, LEN) != as_it_was;
        for at in [
            0,
            1,
            5000,
            DENSE_BYTES - 1,
            DENSE_BYTES,
            LEN - 1,
            LEN - RECENT_BYTES,
        ] {
            assert!(noticed(at), "{at}");
        }
        let piece = (16 << 20) + 3 * distance(16 << 20);
        assert!(noticed(piece) && noticed(piece + PIECE_BYTES - 1));
        assert!(!noticed(piece + PIECE_BYTES), "it would have to be read");
        assert_eq!(value(&file(LEN - 1, &[]).0, LEN), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn the_digest_while_reading_is_that_of_the_file(
            len in prop_oneof![0..9000u64, 0..(11u64 << 20)],
            pieces in prop::collection::vec(1..(3usize << 20), 1..4),
        ) {
            let (file, bytes) = file(len, &[]);
            let (mut digest, mut rest) = (ContentDigest::new(), bytes.as_slice());
            for length in pieces.iter().cycle() {
                let (piece, next) = rest.split_at(rest.len().min(*length));
                digest.push(piece);
                prop_assert_eq!(value(&file, digest.upto), Some(digest.value()));
                rest = next;
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
}
