//! Recognizes files that were found and that the state knows under another identity
//! ([`super::super::recognition`]).
//!
//! A compressed copy of a file that is followed is left out as long as that is followed. When a log
//! was deleted after it had been compressed, the rest of it is read through its open handle; then
//! the state has its last position, at which the copy is continued.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use pseidon_plugin::source::Stopped;

use super::super::compression::InputCompression;
use super::super::identity::{FileKey, file_id, file_of};
use super::super::recognition::{
    Continuation, KnownFile, are_names_of_copies, head_of, head_of_content, length_of_copy,
};
use super::Follower;
use super::candidate::Candidate;
use super::tracked::TrackedFile;

impl Follower<'_> {
    /// Whether it was left out as the copy of a file that is still followed.
    pub(super) fn is_copy_of_followed(&self, key: &FileKey) -> bool {
        let original = self.copies.get(key);
        original.is_some_and(|original| self.tracked.contains_key(original))
    }

    /// Looks up each file that the state may know by another identity, and removes copies of files
    /// that are read.
    pub(super) fn recognize(
        &mut self,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Stopped> {
        self.copies
            .retain(|_, original| self.tracked.contains_key(original));
        // While a file is followed, its first line can become longer without being forgotten.
        let is_looked_up = |file: &Candidate| file.has_stream() || self.scans == 1;
        let looked_up = candidates.iter().filter(|file| is_looked_up(file));
        let ids: HashSet<String> = looked_up
            .map(|file| file_id(self.stage, &file.key))
            .collect();
        if ids.is_empty() {
            return Ok(candidates);
        }
        let known = self.known_files(move |id, _| ids.contains(id))?;
        let mut unknown = HashSet::new();
        for candidate in &mut candidates {
            let id = file_id(self.stage, &candidate.key);
            let entries: Vec<&KnownFile> = known.iter().filter(|it| it.file_id() == id).collect();
            if candidate.compression == InputCompression::None {
                candidate.recognize_grown(&entries);
            } else if candidate.has_stream() && entries.is_empty() {
                unknown.insert(candidate.key);
            }
        }
        let copies = candidates.extract_if(.., |file| unknown.contains(&file.key));
        let copies: Vec<Candidate> = copies.collect();
        let kept = self.recognize_copies(copies, &candidates)?;
        candidates.extend(kept);
        Ok(candidates)
    }

    /// Returns the compressed files that are to be read.
    fn recognize_copies(
        &mut self,
        files: Vec<Candidate>,
        others: &[Candidate],
    ) -> Result<Vec<Candidate>, Stopped> {
        let mut with_heads = Vec::new();
        for file in files {
            // What cannot be read is reported when the file is read.
            let head = file.content_head().ok().flatten();
            with_heads.push((file, head));
        }
        let heads: HashSet<String> = with_heads
            .iter()
            .filter_map(|(_, head)| head.clone())
            .collect();
        if heads.is_empty() {
            return Ok(with_heads.into_iter().map(|(file, _)| file).collect());
        }
        let known = self.known_files(move |_, head| heads.contains(head))?;
        let mut kept = Vec::new();
        for (mut file, head) in with_heads {
            let Some(head) = head else {
                kept.push(file);
                continue;
            };
            if let Some(original) = self.original_of(&file, &head) {
                self.copies.insert(file.key, original);
                continue;
            }
            // The next scan decides, when the other one is followed.
            if others.iter().any(|other| file.may_be_copy_of(other)) {
                continue;
            }
            let mut entries = known.iter().filter(|entry| entry.head() == head);
            let found = entries.find_map(|entry| self.continuation(&file, entry, others));
            match found {
                Some(Continuation::From(position)) => file.starts_at = position,
                Some(Continuation::As(split)) => file.known_as = Some(split),
                None => {}
            }
            kept.push(file);
        }
        Ok(kept)
    }

    /// The followed file of which this is a copy.
    fn original_of(&self, file: &Candidate, head: &str) -> Option<FileKey> {
        let is_original = |(_, tracked): &(&FileKey, &TrackedFile)| {
            let is_seen = tracked.was_seen_in(self.scans);
            head_of(&tracked.split().id) == head
                && file.is_copy_of(tracked, is_seen).unwrap_or(false)
        };
        self.tracked.iter().find(is_original).map(|(key, _)| *key)
    }

    /// How a file continues what was read as an entry of the state, if no other file is that.
    fn continuation(
        &self,
        file: &Candidate,
        entry: &KnownFile,
        others: &[Candidate],
    ) -> Option<Continuation> {
        let is_entry = |key: &FileKey| file_id(self.stage, key) == entry.file_id();
        let mut tracked = self.tracked.values();
        if tracked.any(|tracked| tracked.split().id == entry.split) {
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
        let found = file.continuation_of(entry)?;
        // The split of a file that begins alike is needed to end it.
        let is_needed = other.is_some_and(|other| other.head.to_string() == entry.head());
        (!is_needed || matches!(found, Continuation::From(_))).then_some(found)
    }

    fn known_files(
        &self,
        is_wanted: impl Fn(&str, &str) -> bool + Send + 'static,
    ) -> Result<Vec<KnownFile>, Stopped> {
        let known = self
            .handle
            .known_splits(move |split| is_wanted(file_of(split), head_of(split)))?;
        Ok(known.into_iter().filter_map(KnownFile::of).collect())
    }
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
        let file = self.open()?;
        let head = file.and_then(|file| head_of_content(&file, self.compression));
        Ok(head.map(|head| head.to_string()))
    }

    /// Whether it is a copy of a followed file: of one that exists, all of its content; of one that
    /// is gone, what was read of that.
    fn is_copy_of(&self, tracked: &TrackedFile, exists: bool) -> io::Result<bool> {
        let Some(file) = self.open()? else {
            return Ok(false);
        };
        if exists {
            return Ok(are_names_of_copies(tracked.path(), &self.path)
                && length_of_copy(&file, self.compression, &File::open(tracked.path())?)?
                    .is_some());
        }
        let Some(mark) = tracked.mark().filter(|mark| mark.upto() > 0) else {
            return Ok(false);
        };
        mark.is_in_content(&file, self.compression)
    }

    /// Whether a plain file that was found too may be the original of this one.
    fn may_be_copy_of(&self, other: &Candidate) -> bool {
        let is_copy = || -> io::Result<bool> {
            let (Some(file), Some(plain)) = (self.open()?, other.open()?) else {
                return Ok(false);
            };
            Ok(length_of_copy(&file, self.compression, &plain)?.is_some())
        };
        other.compression == InputCompression::None
            && are_names_of_copies(&other.path, &self.path)
            && is_copy().unwrap_or(false)
    }

    /// How it continues what was read as an entry of the state.
    fn continuation_of(&self, entry: &KnownFile) -> Option<Continuation> {
        let file = self.open().ok().flatten()?;
        entry.continued_by(&file, self.compression).ok().flatten()
    }
}
