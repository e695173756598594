//! The state file and its folder.

use std::error::Error;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageError};

use super::format;
use crate::failpoint::reach;
use crate::store::new_identity;
use crate::{Reason, SinkId, StoreError};

/// The state is small; redb's default would let the cache grow to a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

/// The mode of a file with state, which only its owner can read and lock.
const FILE_MODE: u32 = 0o600;
/// The mode of a folder for state.
const FOLDER_MODE: u32 = 0o700;

/// The name of the file with the state of a pipeline.
pub(super) fn state_name(pipeline: &str) -> String {
    format!("{}.redb", encoded(pipeline))
}

/// The file with the groups of a sink, beside that of the state. No encoded name has a `~`, so each
/// sink of each pipeline has a file of its own.
pub(super) fn groups_beside(state: &Path, sink: &SinkId) -> PathBuf {
    let pipeline = state.file_stem().unwrap_or_default().to_string_lossy();
    state.with_file_name(format!("{pipeline}~{}.groups.redb", encoded(sink.as_str())))
}

/// Whether a file is one of [`groups_beside`].
fn is_of_groups(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains('~'))
}

/// Maps any name to a part of a file name: characters with a meaning to a file system are
/// percent-encoded.
fn encoded(plain: &str) -> String {
    let mut name = String::with_capacity(plain.len());
    for (at, byte) in plain.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(byte.into()),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name
}

/// Creates the folder, with a `.gitignore` so that its content is not committed to a repository.
fn prepare_dir(dir: &Path) -> io::Result<()> {
    make_dir(dir, &mut sync_dir)?;
    match File::create_new(dir.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates a folder and its missing parents, and calls `sync` for the parent of each: the name of
/// each is on disk when this returns.
fn make_dir(dir: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dir(parent, sync)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => {
            return Err(error);
        }
        _ => {}
    }
    sync(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in a folder survive a crash.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file in a folder of state with `open`, creates both if they are missing, and locks the
/// file.
pub(super) fn open_or_create(
    dir: &Path,
    path: &Path,
    open: impl FnOnce(&Path) -> Result<Database, StoreError>,
) -> Result<Database, StoreError> {
    let failed = |error| {
        let what = format!("cannot store state in {}", dir.display());
        StoreError::Failed(Reason::caused_by(what, error).followed_by(
            "; set `:state`, or move the pipeline file to a folder that the process may write to",
        ))
    };
    prepare_dir(dir).map_err(failed)?;
    if path.is_symlink() {
        let what = format!(
            "{} is a link, which another user may have made: move the file itself here, or set \
             `:state` to its folder",
            path.display()
        );
        return Err(StoreError::Failed(what.into()));
    }
    match path.exists() {
        true => close_to_others(path).map_err(failed)?,
        false => create_file(path)?,
    }
    let database = open(path)?;
    remove_unfinished(path);
    // The file's name must survive a crash as its content does.
    sync_dir(dir).map_err(failed)?;
    Ok(database)
}

/// Takes the permissions away that earlier versions left to others.
fn close_to_others(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(FILE_MODE)) {
        // It belongs to another user, who has given this one the permission to write to it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Opens a file of another format than that of the state and locks it. `cache` is in bytes.
pub(super) fn open_other(path: &Path, cache: usize) -> Result<Database, StoreError> {
    let database = open_locked(builder().set_cache_size(cache), path)?;
    check_tables(path, &database)?;
    Ok(database)
}

/// Creates a state file, or a file of groups. It gets its name when it is complete, because redb
/// cannot open a file whose creation was interrupted, and with a table; see [`check_tables`]. A
/// file that another process creates meanwhile is left alone.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let unfinished = path.with_file_name(unfinished_prefix(path) + &new_identity()?);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&unfinished)
        .map_err(|error| unopened(path, StorageError::Io(error).into()))?;
    let database = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    let database = database.map_err(|error| unopened(path, error))?;
    checked_format(path, &database)?;
    drop(database);
    reach("state-created");
    let linked = fs::hard_link(&unfinished, path);
    if linked.is_ok() || path.exists() {
        return Ok(());
    }
    // Not every file system has links.
    fs::rename(&unfinished, path).map_err(|error| unopened(path, StorageError::Io(error).into()))
}

/// Removes what interrupted creations have left beside a state file. A process that is creating the
/// file at this moment finds that it exists.
fn remove_unfinished(path: &Path) {
    let prefix = unfinished_prefix(path);
    let is_unfinished =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    let entries = path.parent().map(fs::read_dir);
    for entry in entries.into_iter().flatten().flatten().flatten() {
        if is_unfinished(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn unfinished_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.new-")
}

pub(super) fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        // Otherwise redb trusts the file after a clean shutdown: it may panic on one that was
        // altered since, or return altered values.
        .set_check_integrity_on_open(true);
    builder
}

/// Opens a state file and locks it.
pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let database = open_locked(&builder(), path)?;
    check_tables(path, &database)?;
    checked_format(path, &database)?;
    Ok(database)
}

/// How long a process may look whether a file is locked.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a file is opened again that a process looks at.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Opens a file and locks it. A process that only looks whether it is locked has a lock that others
/// share, for much less than [`LOOK_TIMEOUT`].
fn open_locked(builder: &redb::Builder, path: &Path) -> Result<Database, StoreError> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    loop {
        match builder.open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen)
                if !is_in_use(path) && Instant::now() < deadline =>
            {
                thread::sleep(LOOK_PAUSE);
            }
            opened => return opened.map_err(|error| unopened(path, error)),
        }
    }
}

/// Whether a process has the file open to write it.
fn is_in_use(path: &Path) -> bool {
    File::open(path)
        .and_then(|file| is_locked(&file))
        .unwrap_or(true)
}

/// Whether another process has locked the file. While this looks, it has a lock that others may
/// share, but that keeps out a process that opens the file.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Checks that there is a table. redb opens a file as empty whose last commit is damaged, if the
/// mark is too that the commit before it has tables.
pub(super) fn check_tables(path: &Path, database: &Database) -> Result<(), StoreError> {
    let is_empty = || -> Result<bool, redb::Error> {
        let transaction = database.begin_read()?;
        let mut tables = transaction.list_tables()?;
        Ok(tables.next().is_none())
    };
    match is_empty().map_err(|error| damaged(path, error))? {
        true => Err(damaged(
            path,
            StorageError::Corrupted("no tables".to_owned()),
        )),
        false => Ok(()),
    }
}

/// Migrates the content of a file of an earlier format. An error if this version cannot read it.
pub(super) fn checked_format(path: &Path, database: &Database) -> Result<(), StoreError> {
    format::bring_up_to_date(database).map_err(|error| damaged(path, error))?.map_err(|found| {
        let what = format!(
            "{} has format {found}, and this version reads up to {}: use the version that wrote \
             it, or a newer one",
            path.display(),
            format::FORMAT
        );
        StoreError::Failed(what.into())
    })
}

/// The error for a file that cannot be opened or created.
fn unopened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            let what = format!(
                "{} is in use by another process that runs the same pipeline: wait for it or stop \
                 it, or set :state to a redis URL so that several processes can share the work",
                path.display()
            );
            StoreError::Failed(what.into())
        }
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            unavailable(path, error)
        }
        other => damaged(path, other),
    }
}

/// The error for a file that may be usable again.
pub(super) fn unavailable(path: &Path, error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable(Reason::caused_by(path.display().to_string(), error))
}

/// The error for a file that cannot be read.
pub(super) fn damaged(path: &Path, error: impl Error + Send + Sync + 'static) -> StoreError {
    let (content, help) = match is_of_groups(path) {
        false => (
            "state",
            ". Restore the file from a copy. Moving it away starts the pipeline from the \
             beginning, and what it has already written is written again",
        ),
        true => (
            "groups",
            ". Restore it and the state file beside it from the same copy. `pseidon reset` forgets \
             both, which starts the pipeline from the beginning",
        ),
    };
    let what = format!("cannot read the {content} in {}", path.display());
    StoreError::Failed(Reason::caused_by(what, error).followed_by(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sink_of_each_pipeline_has_a_file_of_its_own() {
        let groups = |pipeline: &str, sink: &str| {
            let path = groups_beside(Path::new(&state_name(pipeline)), &sink.into());
            path.to_str().unwrap().to_owned()
        };
        assert_eq!(groups("a", "g"), "a~g.groups.redb");
        assert_ne!(groups("a", "in.quarantine"), groups("a.in", "quarantine"));
        assert_ne!(groups("a", "g"), state_name("a.g.groups"));
        assert_ne!(groups("a", "x~y"), groups("a~x", "y"));
    }

    #[test]
    fn only_the_owner_can_read_and_lock_the_state() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/state");
        let path = dir.join("p.redb");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        drop(open_or_create(&dir, &path, open_file).unwrap());
        assert_eq!((mode(&dir), mode(&path)), (FOLDER_MODE, FILE_MODE));
        // The file of an earlier version.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(open_or_create(&dir, &path, open_file).unwrap());
        assert_eq!(mode(&path), FILE_MODE);
    }

    #[test]
    fn a_link_in_place_of_the_state_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let (path, victim) = (base.path().join("p.redb"), base.path().join("victim"));
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = open_or_create(base.path(), &path, open_file).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        assert!(!victim.exists());
    }

    #[test]
    fn the_name_of_every_created_folder_is_synced() {
        let base = tempfile::tempdir().unwrap();
        let mut synced = Vec::new();
        let mut make = |dir: &str| {
            make_dir(&base.path().join(dir), &mut |parent| {
                let names = fs::read_dir(parent)?.count();
                synced.push((parent.to_owned(), names));
                Ok(())
            })
            .unwrap();
        };
        make("a/b/c");
        make("a/b/c");
        let parents = ["", "a", "a/b"].map(|parent| (base.path().join(parent), 1));
        assert_eq!(synced, parents, "each after its folder has got its name");
    }
}
