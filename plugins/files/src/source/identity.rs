//! The identity of a file, which does not depend on its name.
//!
//! A name does not identify a file: logs are renamed when they rotate. The inode alone does not
//! either: a file system reuses the inode number of a deleted file, and a log that is truncated and
//! rewritten keeps its inode. A source that mistook such a file for the old one would continue in
//! its middle and lose records. So a file is identified by three properties together, none of which
//! changes when the file is renamed or appended to:
//!
//! - its inode;
//! - its creation time, in nanoseconds. Where the file system does not keep it, the device number
//!   replaces it; otherwise the device number is left out because it may change at a reboot;
//! - a digest of its first line, or of its first 1024 bytes if the line is longer. For a compressed
//!   file, whose first line may be unreadable until the file is complete, it is a digest of the
//!   first 12 bytes; for a file of columns, of the bytes that its format chooses: the last 1024 of a
//!   Parquet file, which say where its values are and between what; those around the beginning of
//!   the first block of an Avro file; parts of an Arrow file's footer and of its first and last
//!   values.
//!
//! A file whose first line is incomplete has no identity yet, and a followed file is not read
//! before it has one. If the line is read without its line end, the file has the identity that it
//! will have when the line end is appended: `\n`, or `\r\n`, which is another first line, so that a
//! file may be known by two identities ([`Identity`]).

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use pseidon_delivery::SplitId;
use sha2::{Digest, Sha256};

use super::compression::InputCompression;

/// The maximum number of bytes of the first line that count for the identity.
const HEAD: usize = 1024;
/// How many bytes of a compressed file count for the identity: no file that contains a record is
/// much shorter.
const COMPRESSED_HEAD: usize = 12;

/// The part of a file's identity that comes from its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    /// The creation time in nanoseconds since 1970; `None` if the file system does not keep it.
    born: Option<u128>,
}

impl FileKey {
    /// The key of the file with this metadata.
    pub(super) fn of(metadata: &Metadata) -> FileKey {
        let born = metadata
            .created()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .map(|age| age.as_nanos());
        FileKey {
            device: metadata.dev(),
            inode: metadata.ino(),
            born,
        }
    }
}

/// A digest of the beginning of a file, or of what else identifies a file of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Head([u8; 8]);

impl Head {
    /// How many bytes of the content decide it at most.
    pub(super) const BYTES: usize = HEAD;

    /// The head of a plain file that begins with these bytes: [`Head::BYTES`], or its whole
    /// content. `None` if it is empty.
    pub(super) fn of_beginning(bytes: &[u8]) -> Option<Head> {
        match memchr::memchr(b'\n', bytes) {
            Some(end) => Some(Head::digest(&bytes[..=end])),
            None if bytes.len() == HEAD => Some(Head::digest(bytes)),
            None => (!bytes.is_empty()).then(|| Head::of_line(bytes)),
        }
    }

    /// The head of a file; `None` while its first line, or a file of columns, is incomplete.
    /// With `as_it_is` the bytes so far count, unless the file is empty.
    pub(super) fn of(
        file: &File,
        compression: InputCompression,
        as_it_is: bool,
    ) -> io::Result<Option<Head>> {
        let bytes = HeadBytes::of(file, compression)?;
        let head = match bytes.complete() {
            Some(line) => Some(Head::digest(line)),
            None if as_it_is && !bytes.known().is_empty() => Some(Head::digest(bytes.known())),
            None => None,
        };
        Ok(head)
    }

    fn digest(line: &[u8]) -> Head {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(line)[..8]);
        Head(head)
    }

    /// The head of a file that begins with this line and a line feed.
    fn of_line(line: &[u8]) -> Head {
        Head::digest(&[line, b"\n"].concat())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The bytes of a file of which its [`Head`] is a digest.
struct HeadBytes {
    bytes: Vec<u8>,
    /// How many bytes identify the file, even without a line end.
    limit: usize,
    compression: InputCompression,
}

impl HeadBytes {
    fn of(file: &File, compression: InputCompression) -> io::Result<HeadBytes> {
        let limit = match compression {
            InputCompression::None => HEAD,
            InputCompression::Columns(format) => {
                let found = format.identity(file)?;
                let limit = match found.is_complete {
                    true => found.bytes.len(),
                    false => usize::MAX,
                };
                return Ok(HeadBytes {
                    bytes: found.bytes,
                    limit,
                    compression,
                });
            }
            _ => COMPRESSED_HEAD,
        };
        let (mut bytes, mut len) = (vec![0; limit], 0);
        while len < limit {
            match file.read_at(&mut bytes[len..], len as u64) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(len);
        Ok(HeadBytes {
            bytes,
            limit,
            compression,
        })
    }

    fn known(&self) -> &[u8] {
        &self.bytes
    }

    /// The part that is the first line or its beginning; `None` if the line, or a file of columns,
    /// is incomplete.
    fn complete(&self) -> Option<&[u8]> {
        let line_end = match self.is_plain() {
            true => memchr::memchr(b'\n', self.known()),
            false => None,
        };
        match line_end {
            Some(end) => Some(&self.bytes[..=end]),
            None => (self.bytes.len() == self.limit).then(|| self.known()),
        }
    }

    fn is_plain(&self) -> bool {
        self.compression == InputCompression::None
    }
}

/// The identity of a file that is read as it is, apart from its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) head: Head,
    /// The head by which it may be known instead, from the time before its first line had a line
    /// end.
    pub(super) before: Option<Head>,
    /// The whole content, if it is one line without a line end.
    pub(super) unended: Option<Vec<u8>>,
}

impl Identity {
    /// The identity of a file; `None` if it is empty.
    pub(super) fn of(file: &File, compression: InputCompression) -> io::Result<Option<Identity>> {
        let bytes = HeadBytes::of(file, compression)?;
        if bytes.known().is_empty() {
            return Ok(None);
        }
        let known_as = |head, before| Identity {
            head,
            before,
            unended: None,
        };
        Ok(Some(match bytes.complete() {
            Some(line) => {
                let unended = line.strip_suffix(b"\r\n").filter(|_| bytes.is_plain());
                known_as(Head::digest(line), unended.map(Head::of_line))
            }
            None if bytes.is_plain() => Identity {
                head: Head::of_line(bytes.known()),
                // Earlier versions took the content as it was.
                before: Some(Head::digest(bytes.known())),
                unended: Some(bytes.known().to_vec()),
            },
            None => known_as(Head::digest(bytes.known()), None),
        }))
    }
}

/// The prefix of the ids of all splits of a file, which does not depend on its first line.
pub(super) fn file_id(stage: &str, key: &FileKey) -> String {
    match key.born {
        Some(born) => format!("{stage}:{}.{born:x}", key.inode),
        None => format!("{stage}:{}-{}", key.device, key.inode),
    }
}

/// Whether a split is that of the file, whatever its stage and its first line are.
pub(super) fn is_of(split: &SplitId, key: &FileKey) -> bool {
    file_of(split).ends_with(&file_id("", key))
}

/// Like [`file_id`], for a path whose file cannot be identified.
pub(super) fn path_id(stage: &str, path: &Path) -> String {
    let digest = Head::digest(path.as_os_str().as_bytes());
    format!("{stage}:path-{digest}")
}

/// The [`file_id`] of a split's file.
pub(super) fn file_of(split: &SplitId) -> &str {
    split
        .as_str()
        .rsplit_once('.')
        .map_or(split.as_str(), |(file, _)| file)
}

/// The permanent id of a file's split. `generation` counts how often the file was rewritten with
/// the same first line.
pub(super) fn split_id(stage: &str, key: &FileKey, head: Head, generation: u32) -> SplitId {
    let generation = if generation == 0 {
        String::new()
    } else {
        format!("+{generation}")
    };
    SplitId::from(format!("{}.{head}{generation}", file_id(stage, key)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn identity(path: &std::path::Path) -> Option<SplitId> {
        let file = File::open(path).unwrap();
        let key = FileKey::of(&file.metadata().unwrap());
        Head::of(&file, InputCompression::None, false)
            .unwrap()
            .map(|head| split_id("logs", &key, head, 0))
    }

    #[test]
    fn a_split_id_contains_the_file_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.b.log");
        fs::write(&path, "one\n").unwrap();
        let key = FileKey::of(&fs::metadata(&path).unwrap());
        let head = Head::of(&File::open(&path).unwrap(), InputCompression::None, true)
            .unwrap()
            .unwrap();
        for generation in [0, 1, 12] {
            assert_eq!(
                file_of(&split_id("my.logs", &key, head, generation)),
                file_id("my.logs", &key)
            );
        }
    }

    #[test]
    fn identity_stays_when_a_file_is_renamed_or_grows() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("app.log"), dir.path().join("app.log.1"));
        let mut file = File::create(&old).unwrap();
        assert_eq!(identity(&old), None, "an empty file");
        file.write_all(b"first").unwrap();
        assert_eq!(identity(&old), None, "an incomplete line");
        file.write_all(b" line\nmore").unwrap();
        let first = identity(&old).unwrap();
        file.write_all(b" lines\n").unwrap();
        assert_eq!(identity(&old).unwrap(), first);
        fs::rename(&old, &new).unwrap();
        assert_eq!(identity(&new).unwrap(), first);
    }

    #[test]
    fn identity_changes_when_a_file_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let first = identity(&path).unwrap();
        fs::write(&path, "three\n").unwrap();
        assert_ne!(identity(&path).unwrap(), first);
    }

    #[test]
    fn a_long_first_line_counts_once_it_has_1024_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "x".repeat(1023)).unwrap();
        assert_eq!(identity(&path), None);
        fs::write(&path, "x".repeat(1024)).unwrap();
        let first = identity(&path).unwrap();
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert_eq!(identity(&path).unwrap(), first);
    }
}
