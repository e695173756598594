//! Recognizes found files that the state knows under another identity
//! ([`super::super::recognition`]).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

use pseidon_plugin::source::{SourceHandle, Stopped};

use super::super::identity::{file_id, file_of};
use super::super::recognition::{
    Continuation, KnownFile, are_names_of_copies, head_of, head_of_content, length_of_copy,
};
use super::found_file::FoundFile;

/// What becomes of a compressed file.
enum CopyStep {
    Continue(Continuation),
    /// It is a copy of another file that was found, which is read instead.
    LeaveOut,
    /// It is not known.
    Read,
}

/// Looks up each file that the state does not know by its own identity, and removes compressed
/// copies of files that are read. The ids of further files that exist, as copies, are added to
/// `existing`.
pub(super) fn recognize(
    files: &mut Vec<FoundFile>,
    existing: &mut HashSet<String>,
    handle: &SourceHandle,
    stage: &str,
) -> Result<(), Stopped> {
    let found = existing.clone();
    let known = known_files(handle, move |id, _| found.contains(id))?;
    let mut unknown = Vec::new();
    for (index, file) in files.iter_mut().enumerate() {
        let entries = known.get(&file_id(stage, &file.key));
        match entries {
            Some(entries) if file.is_plain() => file.recognize_grown(entries),
            None if file.has_stream() => unknown.push(index),
            _ => {}
        }
    }
    let mut heads: HashMap<usize, String> = HashMap::new();
    for index in unknown {
        let head = files[index].content_head();
        heads.extend(head.map(|head| (index, head)));
    }
    if heads.is_empty() {
        return Ok(());
    }
    let wanted: HashSet<String> = heads.values().cloned().collect();
    let known = known_files(handle, move |_, head| wanted.contains(head))?;
    let entries: Vec<KnownFile> = known.into_values().flatten().collect();
    let mut left_out = HashSet::new();
    let mut adopted = HashSet::new();
    for (index, head) in heads {
        let entries: Vec<&KnownFile> = entries.iter().filter(|it| it.head() == head).collect();
        // What cannot be read is reported when the file is read.
        let step = files[index].step_of_copy(&head, &entries, files, stage);
        match step.unwrap_or(CopyStep::Read) {
            CopyStep::Continue(Continuation::From(position)) => files[index].starts_at = position,
            CopyStep::Continue(Continuation::As(split)) => {
                if adopted.insert(split.clone()) {
                    existing.insert(file_of(&split).to_owned());
                    files[index].known_as = Some(split);
                }
            }
            CopyStep::LeaveOut => _ = left_out.insert(index),
            CopyStep::Read => {}
        }
    }
    let mut index = 0..;
    files.retain(|_| !index.next().is_some_and(|at| left_out.contains(&at)));
    Ok(())
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

    /// The head of the content of a compressed file.
    fn content_head(&self) -> Option<String> {
        let head = head_of_content(&self.open().ok()?, self.compression);
        head.map(|head| head.to_string())
    }

    /// What becomes of a compressed file whose content has this head, given the entries with it.
    fn step_of_copy(
        &self,
        head: &str,
        entries: &[&KnownFile],
        all: &[FoundFile],
        stage: &str,
    ) -> io::Result<CopyStep> {
        let file = self.open()?;
        let alike = all
            .iter()
            .filter(|other| other.is_plain() && other.has_head(head));
        let alike: Vec<(&FoundFile, String, File)> = alike
            .filter_map(|other| Some((other, file_id(stage, &other.key), other.open().ok()?)))
            .collect();
        for (other, id, plain) in &alike {
            if !are_names_of_copies(&other.path, &self.path) {
                continue;
            }
            let Some(length) = length_of_copy(&file, self.compression, plain)? else {
                continue;
            };
            let is_read = |entry: &&KnownFile| {
                let is_entry = entry.file_id() == id && entry.has_all_before(length);
                is_entry && entry.is_beginning_of(plain).unwrap_or(false)
            };
            return Ok(match entries.iter().any(is_read) {
                true => CopyStep::Continue(Continuation::From(length)),
                false => CopyStep::LeaveOut,
            });
        }
        for entry in entries {
            let of_entry = alike.iter().find(|(_, id, _)| id == entry.file_id());
            let exists = of_entry.is_some_and(|(.., plain)| {
                // Only an error leaves open whose content it is.
                entry.is_beginning_of(plain).unwrap_or(true)
            });
            if exists {
                continue;
            }
            match entry.continued_by(&file, self.compression)? {
                // The split of a file that begins alike is needed to end it.
                Some(Continuation::As(_)) if of_entry.is_some() => {}
                Some(continuation) => return Ok(CopyStep::Continue(continuation)),
                None => {}
            }
        }
        Ok(CopyStep::Read)
    }
}
