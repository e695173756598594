//! What holds for a damaged state file and for a damaged file of groups: for the tests, and for the
//! fuzz target.
//!
//! A file is opened as it was written, or refused with an error that says what to do. After a
//! crash, damage to the last commit looks like a commit that was interrupted, so that the state may
//! be that of the commit before it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{EmbeddedStore, open_database};
use crate::{
    Claimant, Commit, InstanceId, SinkId, SplitCommit, SplitId, StagedEntry, StateStore,
    StoreError, StoredPlan, WithCauses,
};

const PIPELINE: &str = "p";
const SINK: &str = "lake";
const OWNER: &str = "a";
const PLAN: &str = "f";
/// How many bytes an edit of a file is.
const EDIT: usize = 6;
/// The bytes at the beginning of a file with redb's header, which is not in pages.
const HEADER: usize = 320;
/// The size of redb's pages.
const PAGE: usize = 4096;

/// A file as a crash leaves it, and as a process leaves it that closes it.
struct Files {
    crashed: Vec<u8>,
    closed: Vec<u8>,
}

impl Files {
    /// Reads a file while it is open and after `close`.
    fn of(path: &Path, close: impl FnOnce()) -> Files {
        let read = || fs::read(path).expect("the file exists");
        let crashed = read();
        close();
        Files {
            crashed,
            closed: read(),
        }
    }

    /// Writes one of the files with these edits. The first byte chooses the file.
    fn write(&self, path: &Path, edits: &[u8]) {
        let Some((first, edits)) = edits.split_first() else {
            return fs::write(path, &self.closed).expect("space");
        };
        let whole = match first % 2 {
            0 => &self.closed,
            _ => &self.crashed,
        };
        fs::write(path, damaged(whole, edits)).expect("space");
    }
}

/// Damages a copy of a file: each six bytes are an edit. The first byte is its kind, the next three
/// its place, and the others say how much is changed, and how.
fn damaged(whole: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for edit in edits.chunks_exact(EDIT) {
        let [kind, a, b, c, length, value] = *edit else {
            continue;
        };
        let place = u32::from_be_bytes([0, a, b, c]) as usize;
        let length = usize::from(length);
        match kind % 6 {
            // The first bytes decide how all others are read.
            0 | 1 => flip(&mut bytes, place % HEADER, length % 4 + 1, value),
            2 => flip(&mut bytes, place % whole.len(), length + 1, value),
            3 => bytes.truncate(place % whole.len()),
            4 => bytes.resize(bytes.len() + length * PAGE / 2, value),
            _ => {
                let from = place % whole.len() / PAGE * PAGE;
                let page = whole[from..whole.len().min(from + PAGE)].to_vec();
                let pages = bytes.len() / PAGE;
                if pages > 0 {
                    let to = (length << 8 | usize::from(value)) % pages * PAGE;
                    let count = page.len().min(bytes.len() - to);
                    bytes[to..to + count].copy_from_slice(&page[..count]);
                }
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: usize, length: usize, value: u8) {
    for byte in bytes.iter_mut().skip(at).take(length) {
        *byte ^= value;
    }
}

/// A state file, and what is in it.
struct Sample {
    files: Files,
    /// What is read after the last commit, and after the one before it.
    contents: [String; 2],
}

/// Everything that is read of a state.
fn content(store: &EmbeddedStore) -> Result<String, StoreError> {
    let sink = SinkId::from(SINK);
    let mut records = store.records(&sink)?;
    for (_, record) in &mut records {
        let lanes: Vec<_> = record.ahead.drain().collect();
        assert!(
            lanes
                .iter()
                .all(|(lane, upto)| lane.as_str() == "x" && *upto == 900)
        );
    }
    let owners = store.owners(&sink)?;
    let kept = (store.sinks()?, store.plans()?, store.plan(PLAN)?);
    let staged = store.staged(&sink)?;
    let note = store.note("n")?;
    Ok(format!(
        "{records:?} {owners:?} {kept:?} {staged:?} {note:?}"
    ))
}

fn commit(store: &EmbeddedStore, sequence: u64) {
    let split = SplitCommit {
        ahead: vec![("x".into(), 900)],
        ..SplitCommit::to_low("s/0".into(), 1, sequence, sequence)
    };
    let step = Commit {
        splits: vec![split],
        staged: vec![StagedEntry {
            id: format!("file-{sequence}").into(),
            detail: "detail ".repeat(100),
        }],
        ..Commit::of(OWNER.into())
    };
    let committed = store.commit(&SinkId::from(SINK), &step);
    committed.expect("the owner holds the split");
}

/// Writes a state into a folder.
fn sample(dir: &Path) -> Sample {
    let store = EmbeddedStore::open(dir, "sample").expect("the folder can be written to");
    let (sink, owner) = (SinkId::from(SINK), InstanceId::from(OWNER));
    let splits: Vec<SplitId> = (0..40).map(|at| format!("s/{at}").into()).collect();
    let taken = store.take(&sink, &splits, &owner);
    taken.expect("no other instance is there");
    let (plan, text) = (PLAN.to_owned(), "text ".repeat(2000));
    let claimant = Claimant {
        owner,
        plan: plan.clone(),
        accepts_other_plans: false,
    };
    let held: Vec<(SplitId, u64)> = splits.iter().map(|split| (split.clone(), 1)).collect();
    store
        .hold(&sink, &held, &claimant)
        .expect("they are not taken since");
    let stored = StoredPlan {
        fingerprint: plan,
        text,
    };
    store.add_plan(&stored).expect("space");
    store.set_note("n", "note").expect("space");
    store.fence(&sink, &"b".into()).expect("space");
    commit(&store, 0);
    let read = |store: &EmbeddedStore| content(store).expect("the file is not damaged");
    let before = read(&store);
    commit(&store, 1);
    let contents = [read(&store), before];
    let path = EmbeddedStore::path(dir, "sample");
    Sample {
        files: Files::of(&path, || drop(store)),
        contents,
    }
}

/// Opens a state file with these edits, and a copy of it: each is refused, or has the state. A
/// state that is opened can be changed. `dir` is an empty folder.
pub fn check_state(dir: &Path, edits: &[u8]) {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    let sample = SAMPLE.get_or_init(|| sample(dir));
    let path = EmbeddedStore::path(dir, PIPELINE);
    sample.files.write(&path, edits);
    let copied = EmbeddedStore::snapshot(dir, PIPELINE);
    let copied = copied.map(|copied| copied.expect("the file exists").store);
    let copied = copied.map(|store| checked_content(&store, sample));
    let opened = EmbeddedStore::open(dir, PIPELINE).map(|store| {
        let content = checked_content(&store, sample);
        store.set_note("other", "note").expect("it can be changed");
        let other = store.note("other").expect("it can be read");
        assert_eq!(other.as_deref(), Some("note"));
        content
    });
    match (copied, opened) {
        (Ok(copied), Ok(opened)) => assert_eq!(copied, opened),
        (Err(copied), Err(opened)) => {
            for error in [copied, opened] {
                check_error(&error, &path, "Restore the file from a copy");
            }
        }
        (copied, opened) => panic!("{:?}, {:?}", copied.err(), opened.err()),
    }
}

fn checked_content(store: &EmbeddedStore, sample: &Sample) -> String {
    let content = content(store).unwrap_or_else(|error| panic!("{}", WithCauses(&error)));
    assert!(sample.contents.contains(&content), "{content}");
    content
}

/// An error names the file, and says what to do.
fn check_error(error: &StoreError, path: &Path, help: &str) {
    let shown = WithCauses(error).to_string();
    assert!(matches!(error, StoreError::Failed(_)), "{shown}");
    assert!(shown.contains(&path.display().to_string()), "{shown}");
    assert!(shown.contains(help), "{shown}");
}

const GROUPS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("groups");
/// The state of a group in the file.
const GROUP: [u8; 60] = [7; 60];

fn write_groups(database: &Database, keys: std::ops::Range<u64>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut groups = transaction.open_table(GROUPS)?;
        for key in keys {
            groups.insert(key, GROUP.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

/// How many groups there are, after checking each of them.
fn read_groups(database: &Database) -> Result<u64, redb::Error> {
    let groups = database.begin_read()?.open_table(GROUPS)?;
    for (number, group) in (0..).zip(groups.iter()?) {
        let (key, state) = group?;
        assert!(key.value() == number && state.value() == GROUP, "{number}");
    }
    Ok(groups.iter()?.count() as u64)
}

/// Opens a file of groups with these edits: it is refused, or has the groups. `dir` is an empty
/// folder.
pub fn check_groups(dir: &Path, edits: &[u8]) {
    static SAMPLE: OnceLock<Files> = OnceLock::new();
    let open = |sink: &str| open_database(dir, PIPELINE, &sink.into(), 1 << 20);
    let sample = SAMPLE.get_or_init(|| {
        let (path, database) = open("sample").expect("the folder can be written to");
        for keys in [0..500, 500..700] {
            write_groups(&database, keys).expect("space");
        }
        Files::of(&path, || drop(database))
    });
    let path = super::groups_beside(&EmbeddedStore::path(dir, PIPELINE), &SINK.into());
    sample.write(&path, edits);
    match open(SINK) {
        Ok((_, database)) => {
            let count = read_groups(&database).expect("what is opened can be read");
            assert!([500, 700].contains(&count), "{count}");
            write_groups(&database, count..count + 50).expect("what is opened can be changed");
        }
        Err(error) => check_error(&error, &path, "`pseidon reset`"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where redb's header marks that the first of its two commits has tables, and the distance to
    /// the mark of the second.
    const HAS_TABLES: u8 = 65;
    const SLOT: u8 = 128;

    fn edits() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..EDIT * 3 + 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_state_file_is_refused_or_has_the_state(edits in edits()) {
            check_state(tempfile::tempdir().unwrap().path(), &edits);
        }

        // The mark whether a commit has tables is not in its pages, and is damaged together with
        // the commit after it.
        #[test]
        fn a_file_whose_commits_are_both_damaged_is_refused_or_has_its_content(
            place in any::<u32>(),
            is_first in any::<bool>(),
        ) {
            let [_, a, b, c] = place.to_be_bytes();
            let mark = if is_first { HAS_TABLES } else { HAS_TABLES + SLOT };
            let edits = [1, 2, a, b, c, 255, 1, 0, 0, 0, mark, 0, 1];
            check_state(tempfile::tempdir().unwrap().path(), &edits);
            check_groups(tempfile::tempdir().unwrap().path(), &edits);
        }

        #[test]
        fn a_damaged_file_of_groups_is_refused_or_has_the_groups(edits in edits()) {
            check_groups(tempfile::tempdir().unwrap().path(), &edits);
        }
    }
}
