//! Crashes: whatever a machine has on its disk when it dies, the next run delivers every record
//! exactly once.
//!
//! The state store of the tests copies the whole folder at each commit, once before the commit is
//! applied and once after it. Each copy is the disk of a machine that died at that moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Commit, CommitError, SinkId, StateStore, forward_to_store};
use pseidon_exec::Finished;
use tempfile::TempDir;

use crate::FLOW;
use crate::pipeline::Folder;

/// A store that copies a folder at each commit.
struct CopyingStore {
    store: EmbeddedStore,
    folder: PathBuf,
    copies: PathBuf,
}

impl CopyingStore {
    fn copy(&self) {
        let number = fs::read_dir(&self.copies).unwrap().count();
        copy_folder(&self.folder, &self.copies.join(format!("{number:03}")));
    }
}

impl StateStore for CopyingStore {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        self.copy();
        let answers = self.store.commit_many(steps);
        self.copy();
        answers
    }

    forward_to_store!(store);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

/// Runs the flow in the folder. Returns the disks of machines that died during the run.
fn crash_images(folder: &Folder, flow: &str) -> (TempDir, Vec<PathBuf>) {
    let copies = tempfile::tempdir().unwrap();
    let store = CopyingStore {
        store: EmbeddedStore::open(&folder.path("state"), "test").unwrap(),
        folder: folder.path(""),
        copies: copies.path().to_owned(),
    };
    let outcome = folder.run_on(Arc::new(store), "test", flow);
    assert_eq!(outcome, Ok(Finished::Complete));
    let images = fs::read_dir(copies.path()).unwrap();
    let mut images: Vec<PathBuf> = images.map(|image| image.unwrap().path()).collect();
    images.sort();
    (copies, images)
}

#[test]
fn every_record_is_delivered_exactly_once_after_a_crash_at_any_commit() {
    let folder = Folder::new();
    let records: Vec<String> = (0..30_000)
        .map(|number| format!("{} {number}", ["a", "b", "c"][number % 3]))
        .collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    folder.write("in/1", &records[..10_000]);
    folder.write("in/2", &records[10_000..]);
    let mut expected = records.clone();
    expected.sort();

    // Each batch fills the files of all queues, so that the run has many commits.
    let flow = FLOW.replace(r#":folder "out""#, r#":folder "out" :max-size "1KB""#);
    let (_copies, images) = crash_images(&folder, &flow);
    assert_eq!(folder.delivered(), expected);
    assert!(images.len() >= 8, "{} images", images.len());
    let mut unfinished = 0;
    for image in &images {
        let crashed = Folder::at(image);
        unfinished += usize::from(crashed.delivered() != expected);
        assert_eq!(
            crashed.run(&flow),
            Ok(Finished::Complete),
            "{}",
            image.display()
        );
        assert_eq!(crashed.delivered(), expected, "{}", image.display());
        assert_eq!(crashed.hidden_files(), 0, "{}", image.display());
    }
    assert!(
        unfinished >= 2,
        "{unfinished} of {} images had work left",
        images.len()
    );
}
