//! Files with secrets: tokens and private keys.
//!
//! A file is opened once, and the open file is what is checked: it cannot be exchanged in between.
//! A link to it is followed, as Kubernetes mounts secrets as links.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use pseidon_delivery::Reason;
use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The longest file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A file with secrets.
pub(crate) struct CredentialFile {
    pub(crate) content: Vec<u8>,
    /// Why other users know or can change the content, if they can.
    pub(crate) weakness: Option<String>,
}

impl CredentialFile {
    /// Reads a file. An error names it.
    pub(crate) fn read(path: &Path) -> Result<CredentialFile, Reason> {
        let shown = path.display();
        let cannot_read = |error| Reason::caused_by(format!("cannot read {shown}"), error);
        // A pipe does not block the process.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)
            .map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        if !metadata.is_file() {
            return Err(format!("{shown} is not a regular file").into());
        }
        let mut content = Vec::new();
        let mut limited = file.take(MAX_SIZE + 1);
        limited.read_to_end(&mut content).map_err(cannot_read)?;
        if content.len() as u64 > MAX_SIZE {
            return Err(format!("{shown} has more than {MAX_SIZE} bytes").into());
        }
        Ok(CredentialFile {
            content,
            weakness: weakness(&metadata, geteuid().as_raw()),
        })
    }
}

/// Why users other than this one know or can change a file, if they can.
fn weakness(file: &Metadata, user: u32) -> Option<String> {
    weakness_of(file.uid(), file.mode(), user)
}

/// A file of the superuser may be readable by its group: so are the credentials of systemd and the
/// secrets of Kubernetes.
fn weakness_of(owner: u32, mode: u32, user: u32) -> Option<String> {
    let mode = mode & 0o777;
    let (allowed, expected) = match owner {
        0 => (0o740, "0640"),
        owner if owner == user => (0o700, "0600"),
        _ => {
            return Some(format!(
                "it belongs to another user (uid {owner}); expected the user of the process \
                 (uid {user}) or root"
            ));
        }
    };
    (mode & !allowed != 0)
        .then(|| format!("other users can use it (mode {mode:04o}); expected at most {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_and_root_may_know_and_change_a_file() {
        let (root, user, other) = (0, 1000, 1001);
        let cases = [
            (user, 0o600, user, None),
            (user, 0o400, user, None),
            (user, 0o640, user, Some("mode 0640")),
            (user, 0o604, user, Some("mode 0604")),
            (user, 0o620, user, Some("expected at most 0600")),
            (root, 0o400, user, None),
            (root, 0o440, user, None),
            (root, 0o644, user, Some("mode 0644")),
            (root, 0o660, user, Some("expected at most 0640")),
            (root, 0o640, root, None),
            (root, 0o440, root, None),
            (root, 0o660, root, Some("expected at most 0640")),
            (root, 0o600, root, None),
            (other, 0o600, user, Some("uid 1001")),
            (other, 0o600, root, Some("uid 1001")),
        ];
        for (owner, mode, user, expected) in cases {
            let found = weakness_of(owner, 0o100_000 | mode, user);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(part)) => assert!(found.contains(part), "{found}"),
                _ => panic!("{owner} {mode:o} {user}: {found:?}"),
            }
        }
    }
}
