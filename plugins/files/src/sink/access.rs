//! Who may use the files and folders of a sink.
//!
//! What is hidden is for the process alone: folders of mode 0700, locks of mode 0600. What is
//! published has `:mode` and `:owner`. A file has them from its creation on, while only the process
//! can reach it, so that publishing changes nothing but its name. A folder can be listed and
//! entered by those who may read the files in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::{Group, User};
use pseidon_delivery::Reason;
use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::sink::SinkError;
use pseidon_plugin::spec::OptionKind;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, mkdirat};
use rustix::io::Errno;

/// The mode of the files of a process, such as locks.
pub(super) const PRIVATE_FILE: u32 = 0o600;
/// The mode of the folders of a process.
pub(super) const PRIVATE_FOLDER: u32 = 0o700;
/// The permissions of users who are neither the owner nor of the group.
pub(super) const OTHERS: u32 = 0o007;
/// The mode of published files, less the process's umask.
const DEFAULT_MODE: u32 = 0o640;

/// The permissions of a file: its owner may read and write it, and no user may execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileMode(u32);

impl OptionValue for FileMode {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<FileMode> {
        let expected = "expected an octal number such as \"0640\": the owner reads and writes, and \
                        others may read, or write if they are of the group";
        argument.checked(|text| {
            let is_octal = (3..=4).contains(&text.len());
            let bits = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
            let is_usual = |bits: &u32| bits & !0o664 == 0 && bits & 0o600 == 0o600;
            bits.filter(is_usual).map(FileMode).ok_or(expected)
        })
    }
}

/// The name of an owner, as for `chown`: `user`, `user:group` or `:group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnerName {
    user: Option<String>,
    group: Option<String>,
}

impl OptionValue for OwnerName {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<OwnerName> {
        argument.checked(|text| {
            let (user, group) = text.split_once(':').unwrap_or((text, ""));
            let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
            let has_other = |char: char| char == ':' || char.is_whitespace() || char.is_control();
            match (name(user), name(group)) {
                (None, None) => Err("expected \"user\", \"user:group\" or \":group\""),
                _ if group.contains(has_other) || user.contains(has_other) => {
                    Err("expected the name of a user or a group")
                }
                (user, group) => Ok(OwnerName { user, group }),
            }
        })
    }
}

impl OwnerName {
    /// The ids of the names on this machine; a number that is not a name is an id.
    fn ids(&self) -> Result<OwnerIds, SinkError> {
        let id_of = |kind: &str, name: &str, found: nix::Result<Option<u32>>| match found {
            Ok(Some(id)) => Ok(id),
            Ok(None) => name.parse().map_err(|_| {
                SinkError::Fatal(format!("`:owner`: this machine has no {kind} `{name}`").into())
            }),
            Err(error) => Err(SinkError::Transient(Reason::caused_by(
                format!("`:owner`: cannot look up the {kind} `{name}`"),
                io::Error::from(error),
            ))),
        };
        let user = self.user.as_deref().map(|name| {
            let found = User::from_name(name);
            id_of("user", name, found.map(|user| Some(user?.uid.as_raw())))
        });
        let group = self.group.as_deref().map(|name| {
            let found = Group::from_name(name);
            id_of("group", name, found.map(|group| Some(group?.gid.as_raw())))
        });
        Ok(OwnerIds {
            user: user.transpose()?.map(Uid::from_raw),
            group: group.transpose()?.map(Gid::from_raw),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct OwnerIds {
    user: Option<Uid>,
    group: Option<Gid>,
}

/// The permissions and the owner of what a sink publishes.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// `None` is the default, from which the umask is taken away.
    mode: Option<FileMode>,
    owner: Option<OwnerIds>,
}

impl Access {
    /// The access that the options name. Fails if this machine does not have the owner.
    pub(super) fn new(
        mode: Option<FileMode>,
        owner: Option<&OwnerName>,
    ) -> Result<Access, SinkError> {
        Ok(Access {
            mode,
            owner: owner.map(OwnerName::ids).transpose()?,
        })
    }

    /// Creates a file, which must not exist.
    pub(super) fn create_file(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(self.file_mode())
            .open(path)?;
        let handed_over = self.hand_over(file.as_fd(), self.file_mode());
        handed_over.inspect_err(|_| {
            let _ = fs::remove_file(path);
        })?;
        Ok(file)
    }

    /// Creates a folder for published files, which must not exist.
    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(self.folder_mode()).create(path)?;
        if self.mode.is_none() && self.owner.is_none() {
            return Ok(());
        }
        self.hand_over(File::open(path)?.as_fd(), self.folder_mode())
    }

    /// Creates a folder for published files with this name in an open folder, unless it exists.
    /// Returns whether it is new; then it is still to be handed over.
    pub(super) fn create_folder_at(&self, parent: &OwnedFd, name: &Path) -> io::Result<bool> {
        match mkdirat(parent, name, Mode::from_raw_mode(self.folder_mode())) {
            // Another process was faster.
            Err(Errno::EXIST) => Ok(false),
            made => Ok(made.map(|()| true)?),
        }
    }

    /// Changes a complete copy to the owner, and to the mode of its original, which this sink has
    /// created.
    pub(super) fn hand_over_copy(&self, copy: &File, original: &File) -> io::Result<()> {
        self.change_owner(copy.as_fd())?;
        copy.set_permissions(original.metadata()?.permissions())
    }

    /// Changes a folder that was just created to its mode and its owner.
    pub(super) fn hand_over_folder(&self, folder: &OwnedFd) -> io::Result<()> {
        self.hand_over(folder.as_fd(), self.folder_mode())
    }

    fn hand_over(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        // Before the mode: a change of the owner may take permissions away.
        self.change_owner(file)?;
        match self.mode {
            Some(_) => Ok(fchmod(file, Mode::from_raw_mode(mode))?),
            None => Ok(()),
        }
    }

    fn change_owner(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        fchown(file, owner.user, owner.group).map_err(|error| {
            let error = io::Error::from(error);
            let reason = format!(
                "`:owner`: {error}; the process must be root or, for a group, a member of it"
            );
            io::Error::new(error.kind(), reason)
        })
    }

    fn file_mode(&self) -> u32 {
        self.mode.map_or(DEFAULT_MODE, |mode| mode.0)
    }

    /// Who may read files may enter their folder.
    fn folder_mode(&self) -> u32 {
        let files = self.file_mode();
        files | (files & 0o444) >> 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Access {
        /// Exactly this mode.
        pub(in crate::sink) fn of_mode(mode: &str) -> Access {
            let bits = u32::from_str_radix(mode, 8).unwrap();
            Access {
                mode: Some(FileMode(bits)),
                owner: None,
            }
        }
    }
}
