//! Recognizes files that were found and that the state knows under another identity
//! ([`super::super::recognition`]).
//!
//! A compressed copy of a file that is followed is left out as long as that is followed. When a log
//! was deleted after it had been compressed, the rest of it is read through its open handle; then
//! the state has its last position, at which the copy is continued. A copy that may still be being
//! written, or whose log has to end its split first, is looked at again at a later scan.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use pseidon_delivery::SplitId;
use pseidon_plugin::source::Stopped;

use super::super::compression::InputCompression;
use super::super::identity::{FileKey, file_id, file_of};
use super::super::options::OnReplacedFile;
use super::super::recognition::{
    ContentMatch, Continuation, CopyCheck, KnownFile, are_names_of_copies, assign, compare_copy,
    head_of, head_of_content,
};
use super::Follower;
use super::candidate::Candidate;
use super::tracked::TrackedFile;

/// Why a compressed file is not read now.
pub(super) struct LeftOutCopy {
    /// The split of the followed file that is read instead.
    original: SplitId,
    /// Its size on disk, if it is an incomplete copy: it is looked at again when it has grown.
    size: Option<u64>,
}

impl Follower<'_> {
    /// Whether it was left out as the copy of a file that is still followed.
    pub(super) fn is_copy_of_followed(&self, key: &FileKey, path: &Path) -> bool {
        let Some(copy) = self.copies.get(key) else {
            return false;
        };
        let size = || fs::metadata(path).ok().map(|metadata| metadata.len());
        self.is_followed(&copy.original) && (copy.size.is_none() || copy.size == size())
    }

    fn is_followed(&self, split: &SplitId) -> bool {
        let mut tracked = self.tracked.values();
        tracked.any(|tracked| tracked.split().id == *split)
    }

    /// Looks up each file that the state may know by another identity, and removes copies of files
    /// that are read.
    pub(super) fn recognize(
        &mut self,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Stopped> {
        let mut copies = std::mem::take(&mut self.copies);
        copies.retain(|_, copy| self.is_followed(&copy.original));
        self.copies = copies;
        self.waits_for_copies = false;
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let files = candidates.iter();
        let ids: HashSet<String> = files.map(|file| file_id(self.stage, &file.key)).collect();
        let known = self.known_files(move |id, _| ids.contains(id))?;
        let (mut unknown, mut replacing) = (HashSet::new(), HashSet::new());
        for candidate in &mut candidates {
            let id = file_id(self.stage, &candidate.key);
            let entries: Vec<&KnownFile> = known.iter().filter(|it| it.file_id() == id).collect();
            if candidate.compression == InputCompression::None {
                candidate.recognize_grown(&entries);
                if entries.is_empty() {
                    replacing.insert(candidate.key);
                }
            } else if candidate.has_stream() && entries.is_empty() {
                unknown.insert(candidate.key);
            }
        }
        let copies = candidates.extract_if(.., |file| unknown.contains(&file.key));
        let copies: Vec<Candidate> = copies.collect();
        let kept = self.recognize_copies(copies, &candidates)?;
        if self.config.on_replaced == OnReplacedFile::Continue {
            self.recognize_replaced(&mut candidates, &replacing, &kept)?;
        }
        candidates.extend(kept);
        Ok(candidates)
    }

    /// Returns the compressed files that are to be read.
    fn recognize_copies(
        &mut self,
        files: Vec<Candidate>,
        others: &[Candidate],
    ) -> Result<Vec<Candidate>, Stopped> {
        let (mut kept, mut with_heads) = (Vec::new(), Vec::new());
        for file in files {
            match file.content_head() {
                Ok(Some(head)) => with_heads.push((file, head)),
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && self.is_beside_original(&file, others) => {}
                // What cannot be read is reported when the file is read.
                Ok(None) | Err(_) => kept.push(file),
            }
        }
        let heads = with_heads.iter().map(|(_, head)| head.clone());
        let heads: HashSet<String> = heads.collect();
        if heads.is_empty() {
            return Ok(kept);
        }
        let known = self.known_files(move |_, head| heads.contains(head))?;
        let (mut unknown, mut matches) = (Vec::new(), Vec::new());
        for (file, head) in with_heads {
            if let Some((original, size)) = self.original_of(&file, &head) {
                let copy = LeftOutCopy { original, size };
                self.copies.insert(file.key, copy);
                continue;
            }
            // The next scan decides, when the other one is followed.
            if others.iter().any(|other| file.may_be_copy_of(other)) {
                self.waits_for_copies = true;
                continue;
            }
            let entries = known.iter().filter(|entry| entry.head() == head);
            let found = entries.filter_map(|entry| self.match_of(&file, entry, others));
            matches.extend(found.map(|it| (unknown.len(), it)));
            unknown.push(file);
        }
        let mut assigned = assign(matches);
        for (index, mut file) in unknown.into_iter().enumerate() {
            match assigned.remove(&index) {
                Some(Continuation::From(position, split)) => {
                    (file.starts_at, file.ended) = (position, Some(split));
                }
                Some(Continuation::As(split)) => file.known_as = Some(split),
                // A later scan decides, when the split has ended.
                Some(Continuation::After(_)) => {
                    self.waits_for_copies = true;
                    continue;
                }
                None => {}
            }
            kept.push(file);
        }
        Ok(kept)
    }

    /// Whether a compressed file of which nothing can be read yet may be a copy of a plain file.
    /// Then it is left out until it has grown.
    fn is_beside_original(&mut self, file: &Candidate, others: &[Candidate]) -> bool {
        let plain = others
            .iter()
            .filter(|other| other.compression == InputCompression::None);
        let mut paths = plain.map(|other| other.path.as_path());
        if paths.any(|path| are_names_of_copies(path, &file.path)) {
            self.waits_for_copies = true;
            return true;
        }
        let mut tracked = self.tracked.values();
        let original = tracked.find(|tracked| {
            let is_plain = tracked.mark().is_some() && tracked.was_seen_in(self.scans);
            is_plain && are_names_of_copies(tracked.path(), &file.path)
        });
        let Some(original) = original.map(|tracked| tracked.split().id.clone()) else {
            return false;
        };
        let size = Some(file.size());
        self.copies.insert(file.key, LeftOutCopy { original, size });
        true
    }

    /// The split of the followed file of which this is a copy, and its size if it is incomplete.
    fn original_of(&self, file: &Candidate, head: &str) -> Option<(SplitId, Option<u64>)> {
        self.tracked.iter().find_map(|(key, tracked)| {
            let split = &tracked.split().id;
            if head_of(split) != head {
                return None;
            }
            let is_seen = tracked.was_seen_in(self.scans);
            let original = match is_seen {
                true => open_as(key, tracked.path()).ok()?,
                false => None,
            };
            match file.compare_to_followed(tracked, original.as_ref()) {
                Ok(CopyCheck::Copy(_)) => Some((split.clone(), None)),
                Ok(CopyCheck::Incomplete) => Some((split.clone(), Some(file.size()))),
                Ok(CopyCheck::Other) | Err(_) => None,
            }
        })
    }

    /// How a file may continue what was read as an entry of the state, if no other file is that.
    pub(super) fn match_of(
        &self,
        file: &Candidate,
        entry: &KnownFile,
        others: &[Candidate],
    ) -> Option<ContentMatch> {
        let is_entry = |key: &FileKey| file_id(self.stage, key) == entry.file_id();
        if self.is_followed(&entry.split) {
            return None;
        }
        let other = others.iter().find(|other| is_entry(&other.key));
        let is_other = |other: &Candidate| {
            let plain = other.open().ok().flatten();
            plain.is_some_and(|plain| entry.is_beginning_of(&plain).unwrap_or(true))
        };
        if other.is_some_and(is_other) {
            return None;
        }
        // The split of a file that begins alike is needed to end it.
        let is_needed = other.is_some_and(|other| other.head.to_string() == entry.head());
        let content = file.open().ok().flatten()?;
        let found = entry.continued_by(&content, file.compression, is_needed);
        found.ok().flatten()
    }

    pub(super) fn known_files(
        &self,
        is_wanted: impl Fn(&str, &str) -> bool + Send + 'static,
    ) -> Result<Vec<KnownFile>, Stopped> {
        let known = self
            .handle
            .known_splits(move |split| is_wanted(file_of(split), head_of(split)))?;
        Ok(known.into_iter().filter_map(KnownFile::of).collect())
    }
}

/// Opens the file that was at this path. `None` if it has been removed, or replaced, since then.
fn open_as(key: &FileKey, path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let is_same = FileKey::of(&file.metadata()?) == *key;
    Ok(is_same.then_some(file))
}

impl Candidate {
    /// Whether it is compressed, and its content is lines.
    fn has_stream(&self) -> bool {
        let is_plain = self.compression == InputCompression::None;
        !is_plain && !matches!(self.compression, InputCompression::Columns(_))
    }

    /// Looks for the entry of a plain file from before its first line became longer.
    fn recognize_grown(&mut self, entries: &[&KnownFile]) {
        let own = self.head.to_string();
        if entries.iter().any(|entry| entry.head() == own) {
            return;
        }
        let Ok(Some(file)) = self.open() else { return };
        let is_same = |entry: &&&KnownFile| entry.is_beginning_of(&file).unwrap_or(false);
        self.known_as = entries.iter().find(is_same).map(|it| it.split.clone());
    }

    /// The head of the content of a compressed file.
    fn content_head(&self) -> io::Result<Option<String>> {
        let Some(file) = self.open()? else {
            return Ok(None);
        };
        let head = head_of_content(&file, self.compression)?;
        Ok(head.map(|head| head.to_string()))
    }

    /// Whether it is a copy of a followed file: of one that exists, all of its content; of one that
    /// is gone, what was read of that.
    fn compare_to_followed(
        &self,
        tracked: &TrackedFile,
        original: Option<&File>,
    ) -> io::Result<CopyCheck> {
        let Some(file) = self.open()? else {
            return Ok(CopyCheck::Other);
        };
        if let Some(original) = original {
            return match are_names_of_copies(tracked.path(), &self.path) {
                true => compare_copy(&file, self.compression, original),
                false => Ok(CopyCheck::Other),
            };
        }
        let Some(mark) = tracked.mark().filter(|mark| mark.upto() > 0) else {
            return Ok(CopyCheck::Other);
        };
        let is_alike = mark.compare_content(&file, self.compression)?.is_some();
        Ok(match is_alike {
            true => CopyCheck::Copy(mark.upto()),
            false => CopyCheck::Other,
        })
    }

    /// Whether a plain file that was found too may be the original of this one.
    fn may_be_copy_of(&self, other: &Candidate) -> bool {
        let compare = || -> io::Result<CopyCheck> {
            let (Some(file), Some(plain)) = (self.open()?, other.open()?) else {
                return Ok(CopyCheck::Other);
            };
            compare_copy(&file, self.compression, &plain)
        };
        other.compression == InputCompression::None
            && are_names_of_copies(&other.path, &self.path)
            && compare().is_ok_and(|found| found != CopyCheck::Other)
    }
}
