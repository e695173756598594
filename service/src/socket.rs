//! A Unix socket, which only the user of the process and root can use.
//!
//! Its file has the mode 0600 from its creation on: Linux creates it with the mode that the socket's
//! descriptor has (less the umask). What is in the way is replaced only if it is the socket of a
//! process that has died. The file is removed when the service ends.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use pseidon_delivery::Reason;
use rustix::fs::{Mode, fchmod};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// The longest path of a socket, in bytes (unix(7)).
const MAX_PATH: usize = 107;
/// How many clients wait to be accepted.
const BACKLOG: u32 = 128;

/// The file of a socket, which is removed when this is dropped.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Where clients connect to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have replaced it.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens on a path.
pub(crate) async fn listen(path: &Path) -> Result<(UnixListener, SocketFile), Reason> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH {
        let reason = format!("the path has {length} bytes; expected at most {MAX_PATH}");
        return Err(reason.into());
    }
    check_folder(path)?;
    clear(path).await?;
    let cannot_create = |error: io::Error| Reason::caused_by("cannot create the socket", error);
    let socket = UnixSocket::new_stream().map_err(cannot_create)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| cannot_create(error.into()))?;
    socket.bind(path).map_err(cannot_create)?;
    let created = fs::symlink_metadata(path).map_err(cannot_create)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&created),
    };
    let listener = socket.listen(BACKLOG).map_err(cannot_create)?;
    Ok((listener, file))
}

/// Checks that no other user can replace what is in the folder of the path. Creates the folder if it
/// does not exist.
fn check_folder(path: &Path) -> Result<(), Reason> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let shown = folder.display();
    let cannot_use = |error| Reason::caused_by(format!("cannot use the folder {shown}"), error);
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(cannot_use(error)),
        _ => {}
    }
    let metadata = fs::metadata(folder).map_err(cannot_use)?;
    let (owner, user) = (metadata.uid(), geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(format!("the folder {shown} belongs to another user (uid {owner})").into());
    }
    let mode = metadata.mode() & 0o7777;
    let (is_shared, is_sticky) = (mode & 0o022 != 0, mode & 0o1000 != 0);
    if is_shared && !is_sticky {
        let reason = format!("other users can write to the folder {shown} (mode {mode:04o})");
        return Err(reason.into());
    }
    Ok(())
}

/// Removes the socket of a process that has died.
async fn clear(path: &Path) -> Result<(), Reason> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(Reason::of)?,
    };
    if !found.file_type().is_socket() {
        return Err("something else than a socket has this name".into());
    }
    if found.uid() != geteuid().as_raw() {
        let owner = found.uid();
        return Err(format!("the socket belongs to another user (uid {owner})").into());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Reason::of)
        }
        // Too many clients may be waiting for it.
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(Reason::of(error)),
        _ => Err("a process listens on it already".into()),
    }
}
