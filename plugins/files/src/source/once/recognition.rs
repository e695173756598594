//! Recognizes found files that the state knows under another identity
//! ([`super::super::recognition`]).

use std::collections::{HashMap, HashSet};
use std::io;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::{SourceHandle, Stopped};

use super::super::identity::{file_id, file_of};
use super::super::read_error::ReadError;
use super::super::recognition::{
    ContentMatch, Continuation, CopyCheck, KnownFile, are_names_of_copies, assign, compare_copy,
    head_of, head_of_content,
};
use super::failures::FileFailures;
use super::found_file::FoundFile;

/// A compressed file compared with the plain files beside it.
enum BesideStep {
    /// It is a copy of this length of a file of which so much was read.
    StartAt(Position),
    /// It is a copy of another file that was found, which is read instead.
    LeaveOut,
    /// It ends early. Up to there it is a copy of the file with this display path.
    Incomplete(String),
    /// It is a copy of none.
    NoCopy,
}

/// A compressed file that continues a split which another file of the run ends first.
pub(super) struct WaitingCopy {
    pub(super) file: FoundFile,
    entry: SplitId,
}

/// How files are recognized.
pub(super) struct Recognition<'a> {
    pub(super) stage: &'a str,
    /// Whether a plain file may continue one that is gone.
    pub(super) continues_replaced: bool,
    pub(super) failures: &'a FileFailures<'a>,
}

/// Looks up each file that the state does not know by its own identity, and removes compressed
/// copies of files that are read. The ids of further files that exist, as copies, are added to
/// `existing`. Returns the copies that wait for the end of a split.
pub(super) fn recognize(
    files: &mut Vec<FoundFile>,
    existing: &mut HashSet<String>,
    handle: &SourceHandle,
    how: &Recognition<'_>,
) -> Result<Vec<WaitingCopy>, Stopped> {
    let (stage, failures) = (how.stage, how.failures);
    let found = existing.clone();
    let known = known_files(handle, move |id, _| found.contains(id))?;
    let (mut unknown, mut replacing) = (Vec::new(), Vec::new());
    for (index, file) in files.iter_mut().enumerate() {
        let entries = known.get(&file_id(stage, &file.key));
        match entries {
            Some(entries) if file.is_plain() => file.recognize_grown(entries),
            None if file.has_stream() => unknown.push(index),
            None if file.is_plain() && how.continues_replaced => replacing.push(index),
            _ => {}
        }
    }
    let (mut heads, incomplete) = content_heads(files, unknown);
    heads.extend(
        replacing
            .into_iter()
            .map(|index| (index, files[index].head())),
    );
    let wanted: HashSet<String> = heads.values().cloned().collect();
    let entries: Vec<KnownFile> = match wanted.is_empty() {
        true => Vec::new(),
        false => {
            let known = known_files(handle, move |_, head| wanted.contains(head))?;
            known.into_values().flatten().collect()
        }
    };
    let mut left_out: HashSet<usize> = HashSet::new();
    for (index, original) in incomplete {
        files[index].report_incomplete(&original, failures);
        left_out.insert(index);
    }
    let mut matches: Vec<(usize, ContentMatch)> = Vec::new();
    for (index, head) in heads {
        let entries: Vec<&KnownFile> = entries.iter().filter(|it| it.head() == head).collect();
        // What cannot be read is reported when the file is read.
        let step = files[index].compare_beside(&head, &entries, files, stage);
        match step.unwrap_or(BesideStep::NoCopy) {
            BesideStep::StartAt(position) => files[index].starts_at = position,
            BesideStep::LeaveOut => _ = left_out.insert(index),
            BesideStep::Incomplete(original) => {
                files[index].report_incomplete(&original, failures);
                left_out.insert(index);
            }
            BesideStep::NoCopy => {
                let found = files[index].matches(&entries, files, stage);
                matches.extend(found.into_iter().map(|it| (index, it)));
            }
        }
    }
    let mut waiting: HashMap<usize, SplitId> = HashMap::new();
    for (index, continuation) in assign(matches) {
        existing.insert(file_of(continuation.split()).to_owned());
        match continuation {
            Continuation::After(entry) => _ = waiting.insert(index, entry),
            other => files[index].continues(other),
        }
    }
    Ok(divide(files, &left_out, &waiting))
}

/// Removes the files that are left out, and those that wait, which it returns.
fn divide(
    files: &mut Vec<FoundFile>,
    left_out: &HashSet<usize>,
    waiting: &HashMap<usize, SplitId>,
) -> Vec<WaitingCopy> {
    let mut copies = Vec::new();
    for (index, file) in std::mem::take(files).into_iter().enumerate() {
        match waiting.get(&index) {
            _ if left_out.contains(&index) => {}
            Some(entry) => copies.push(WaitingCopy {
                file,
                entry: entry.clone(),
            }),
            None => files.push(file),
        }
    }
    copies
}

/// The heads of the contents of compressed files, and those that end before their first line does,
/// each with the file of which it may be a copy.
fn content_heads(
    files: &[FoundFile],
    unknown: Vec<usize>,
) -> (HashMap<usize, String>, Vec<(usize, String)>) {
    let (mut heads, mut incomplete) = (HashMap::new(), Vec::new());
    for index in unknown {
        match files[index].content_head() {
            Ok(head) => heads.extend(head.map(|head| (index, head))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let path = &files[index].path;
                let mut plain = files.iter().filter(|other| other.is_plain());
                let original = plain.find(|other| are_names_of_copies(&other.path, path));
                incomplete.extend(original.map(|it| (index, it.display_path.clone())));
            }
            // What cannot be read is reported when the file is read.
            Err(_) => {}
        }
    }
    (heads, incomplete)
}

impl WaitingCopy {
    /// The file, which continues the split if that has ended.
    pub(super) fn after_end(self, handle: &SourceHandle) -> Result<FoundFile, Stopped> {
        let WaitingCopy { mut file, entry } = self;
        let known = handle.known_splits(move |split| *split == entry)?;
        let entry = known.into_iter().find_map(KnownFile::of);
        let continuation = entry.and_then(|entry| {
            let content = file.open().ok()?;
            let found = entry.continued_after_end(&content, file.compression);
            found.ok().flatten()
        });
        if let Some(continuation) = continuation {
            file.continues(continuation);
        }
        Ok(file)
    }
}

/// The entries of the state whose file id and head satisfy the predicate, by their file ids.
fn known_files(
    handle: &SourceHandle,
    is_wanted: impl Fn(&str, &str) -> bool + Send + 'static,
) -> Result<HashMap<String, Vec<KnownFile>>, Stopped> {
    let known = handle.known_splits(move |split| is_wanted(file_of(split), head_of(split)))?;
    let mut by_file: HashMap<String, Vec<KnownFile>> = HashMap::new();
    for file in known.into_iter().filter_map(KnownFile::of) {
        let id = file.file_id().to_owned();
        by_file.entry(id).or_default().push(file);
    }
    Ok(by_file)
}

impl FoundFile {
    /// Looks for the entry of a plain file from before its first line became longer.
    fn recognize_grown(&mut self, entries: &[KnownFile]) {
        if entries.iter().any(|entry| self.has_head(entry.head())) {
            return;
        }
        let is_same = |entry: &&KnownFile| {
            let file = self.open();
            file.and_then(|file| entry.is_beginning_of(&file))
                .unwrap_or(false)
        };
        self.known_as = entries.iter().find(is_same).map(|it| it.split.clone());
    }

    /// Continues what was read of a log.
    fn continues(&mut self, continuation: Continuation) {
        match continuation {
            Continuation::As(split) => self.known_as = Some(split),
            Continuation::From(position, split) => {
                (self.starts_at, self.ended) = (position, Some(split));
            }
            Continuation::After(_) => {}
        }
    }

    fn report_incomplete(&self, original: &str, failures: &FileFailures<'_>) {
        let reason = format!(
            "it is truncated: it is an incomplete copy of {original}, which is read instead; \
             complete it or remove it"
        );
        let error = io::Error::new(io::ErrorKind::InvalidData, reason);
        failures.add_unidentified(&self.path, &self.display_path, ReadError::Io(error));
    }

    /// The head of the content of a compressed file.
    fn content_head(&self) -> io::Result<Option<String>> {
        let head = head_of_content(&self.open()?, self.compression)?;
        Ok(head.map(|head| head.to_string()))
    }

    /// Compares a compressed file whose content has this head with the plain files beside it, given
    /// the entries with it. A plain file is no copy.
    fn compare_beside(
        &self,
        head: &str,
        entries: &[&KnownFile],
        all: &[FoundFile],
        stage: &str,
    ) -> io::Result<BesideStep> {
        if self.is_plain() {
            return Ok(BesideStep::NoCopy);
        }
        let file = self.open()?;
        let beside = all.iter().filter(|other| {
            let is_alike = other.is_plain() && other.has_head(head);
            is_alike && are_names_of_copies(&other.path, &self.path)
        });
        for other in beside {
            let (id, Ok(plain)) = (file_id(stage, &other.key), other.open()) else {
                continue;
            };
            let length = match compare_copy(&file, self.compression, &plain)? {
                CopyCheck::Copy(length) => length,
                CopyCheck::Incomplete => {
                    return Ok(BesideStep::Incomplete(other.display_path.clone()));
                }
                CopyCheck::Other => continue,
            };
            let is_read = |entry: &&KnownFile| {
                let is_entry = entry.file_id() == id && entry.has_all_before(length);
                is_entry && entry.is_beginning_of(&plain).unwrap_or(false)
            };
            return Ok(match entries.iter().any(is_read) {
                true => BesideStep::StartAt(length),
                false => BesideStep::LeaveOut,
            });
        }
        Ok(BesideStep::NoCopy)
    }

    /// The entries that a file may continue.
    fn matches(&self, entries: &[&KnownFile], all: &[FoundFile], stage: &str) -> Vec<ContentMatch> {
        let mut plain = HashMap::new();
        for other in all.iter().filter(|other| other.is_plain()) {
            plain.insert(file_id(stage, &other.key), other);
        }
        let matched = |entry: &&KnownFile| -> io::Result<Option<ContentMatch>> {
            let of_entry = plain.get(entry.file_id());
            let exists = of_entry.is_some_and(|other| {
                // Only an error leaves open whose content it is.
                let plain = other.open();
                plain.is_ok_and(|plain| entry.is_beginning_of(&plain).unwrap_or(true))
            });
            if exists {
                return Ok(None);
            }
            let is_needed = of_entry.is_some_and(|other| other.has_head(entry.head()));
            entry.continued_by(&self.open()?, self.compression, is_needed)
        };
        let found = entries.iter().map(matched);
        found.filter_map(|found| found.ok().flatten()).collect()
    }
}
