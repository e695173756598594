//! A hidden file: it is being written, or complete and not published yet.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pseidon_delivery::StagedId;

use super::super::disk::DiskId;
use super::super::entry::Move;
use super::super::folder::Folder;
use super::super::follow_up::FollowUp;
use super::super::permitted::HIDDEN_ENDING;
use super::Staging;

/// A hidden file. Dropping it deletes the file, unless the state store may name it.
pub(in crate::sink) struct HiddenFile {
    staging: Arc<Staging>,
    folder: usize,
    name: String,
    /// The name's number in the folder.
    number: u64,
    disk: DiskId,
    inode: (u64, u64),
    is_kept: bool,
}

impl Staging {
    /// Creates a hidden file in the next base directory. A folder that has vanished is created
    /// again.
    pub(in crate::sink) fn create(self: &Arc<Self>) -> io::Result<(File, HiddenFile)> {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.folders.len();
        let number_of_file = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{number_of_file}{HIDDEN_ENDING}");
        let folder = &self.folders[number];
        let path = folder.dir().join(&name);
        let file = match self.access.create_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.recreate()?;
                self.access.create_file(&path)?
            }
            other => other?,
        };
        let made = folder.count_name();
        let metadata = file.metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        Ok((
            file,
            HiddenFile {
                staging: self.clone(),
                folder: number,
                name,
                number: made,
                disk: folder.disk(),
                inode,
                is_kept: false,
            },
        ))
    }
}

impl HiddenFile {
    /// The file's id, unique in its sink: `<run>/<name>`.
    pub(in crate::sink) fn id(&self) -> StagedId {
        format!("{}/{}", self.folder().name(), self.name).into()
    }

    /// The staged entry that publishes the file under this name. Its size is not set yet.
    pub(in crate::sink) fn to_move(
        &self,
        visible: String,
        extension: &str,
        follow_up: Option<FollowUp>,
    ) -> Move {
        let folder = self.folder();
        Move {
            host: self.staging.host.clone(),
            disk: Some(self.disk.clone()),
            inode: Some(self.inode.1),
            bytes: None,
            base: folder.base().to_owned(),
            hidden: format!("{}/{}/{}", folder.sink(), folder.name(), self.name),
            visible,
            extension: extension.to_owned(),
            follow_up,
        }
    }

    /// The base directory, below which the file is published.
    pub(in crate::sink) fn base(&self) -> &Path {
        self.folder().base()
    }

    /// The folder that contains the file.
    pub(in crate::sink) fn dir(&self) -> PathBuf {
        self.folder().dir()
    }

    /// Makes the file's name durable.
    pub(in crate::sink) fn sync_name(&self) -> io::Result<()> {
        self.folder().sync_name(self.number)
    }

    /// Whether the file still exists under its name: otherwise its records are lost.
    pub(in crate::sink) fn is_there(&self) -> bool {
        fs::symlink_metadata(self.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }

    /// Keeps the file when this value is dropped: from now on the state store decides about it.
    pub(in crate::sink) fn keep(&mut self) {
        self.is_kept = true;
    }

    fn folder(&self) -> &Folder {
        &self.staging.folders[self.folder]
    }

    fn path(&self) -> PathBuf {
        self.dir().join(&self.name)
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // If the file cannot be deleted now, the next run deletes it.
            let _ = fs::remove_file(self.path());
        }
    }
}
