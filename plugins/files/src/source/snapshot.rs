//! What a file was on disk when it was read to its end.

use std::fs::{File, Metadata};
use std::io;
use std::time::SystemTime;

use super::compression::InputCompression;
use super::content::ContentDigest;
use super::stat::{ChangeTime, Stat, parse_time};

/// A file on disk at one moment: its size, its bytes, and when it had changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The size in bytes.
    pub(super) size: u64,
    /// The digest of the bytes; `None` in entries of earlier versions.
    digest: Option<u64>,
    /// When it had changed: as long as that and the size stay, the bytes need not be compared.
    changed: Option<ChangeTime>,
}

/// A file compared with what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Same,
    /// It begins with the same bytes, and has more.
    Longer,
    /// It is shorter, or has other bytes.
    Rewritten,
}

impl Snapshot {
    /// The file as it is now. To be taken before it is read: what is written meanwhile is then
    /// noticed. What was incomplete at the end of a file that may grow may be cut off, so only its
    /// size counts: its identity shows that it was rewritten.
    pub(super) fn of(file: &File, compression: InputCompression) -> io::Result<Snapshot> {
        let now = SystemTime::now();
        let stat = Stat::of(&file.metadata()?, now);
        if compression.may_grow() {
            return Ok(Snapshot::of_size(stat.size));
        }
        let digest = ContentDigest::of(file, stat.size)?;
        Ok(Snapshot {
            size: stat.size,
            digest: digest.map(|digest| digest.value()),
            changed: stat.settled(),
        })
    }

    /// A file of this size of which nothing else is known.
    pub(super) fn of_size(size: u64) -> Snapshot {
        Snapshot {
            size,
            digest: None,
            changed: None,
        }
    }

    /// Compares the file with what it was.
    pub(super) fn compare(&self, file: &File) -> io::Result<Comparison> {
        let metadata = file.metadata()?;
        if self.is_surely(&metadata) {
            return Ok(Comparison::Same);
        }
        let size = metadata.len();
        let begins_alike = match self.digest {
            None => size >= self.size,
            Some(known) => {
                let found = ContentDigest::of(file, self.size)?;
                found.is_some_and(|found| found.value() == known)
            }
        };
        Ok(match begins_alike {
            false => Comparison::Rewritten,
            true if size == self.size => Comparison::Same,
            true => Comparison::Longer,
        })
    }

    fn is_surely(&self, metadata: &Metadata) -> bool {
        let now = Stat::of(metadata, SystemTime::now());
        now.size == self.size && self.changed == Some(now.changed())
    }

    /// The snapshot as a string; see [`Snapshot::from_text`].
    pub(super) fn to_text(self) -> String {
        let Snapshot { size, digest, .. } = self;
        let digest = digest.map_or("-".to_owned(), |digest| format!("{digest:016x}"));
        match self.changed {
            Some((seconds, nanos)) => format!("{size} {digest} {seconds}.{nanos}"),
            None => format!("{size} {digest}"),
        }
    }

    /// Parses a snapshot; that of earlier versions is only the size.
    pub(super) fn from_text(text: &str) -> Option<Snapshot> {
        let mut words = text.split(' ');
        let size = words.next()?.parse().ok()?;
        let digest = words.next().map(|word| u64::from_str_radix(word, 16));
        let changed = words.next().and_then(parse_time);
        Some(Snapshot {
            size,
            digest: digest.and_then(Result::ok),
            changed,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn snapshots_round_trip(
            size in any::<u64>(),
            digest in prop::option::of(any::<u64>()),
            changed in prop::option::of(any::<(i64, i64)>()),
        ) {
            let snapshot = Snapshot { size, digest, changed };
            prop_assert_eq!(Snapshot::from_text(&snapshot.to_text()), Some(snapshot));
        }

        #[test]
        fn any_string_is_refused_or_means_what_it_prints(text in "[0-9a-f. +-]{0,24}|\\PC{0,8}") {
            if let Some(read) = Snapshot::from_text(&text) {
                prop_assert_eq!(Snapshot::from_text(&read.to_text()), Some(read));
            }
        }
    }
}
