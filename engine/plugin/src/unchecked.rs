//! Warnings about checks of a connection that a setting has switched off.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// What was warned of in this process.
static WARNED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// Warns of the consequence of a setting that switches off a check of a server: once in a process,
/// since each run of a log connects again.
///
/// `server` is shown, so it must not contain a password; `setting` is how the setting is written,
/// such as `:tls {:verify false}`.
pub fn warn_unchecked(server: &str, setting: &str, consequence: &str) {
    let is_new = WARNED.lock().insert((server.into(), setting.into()));
    if is_new {
        tracing::warn!(server, setting, "{consequence}");
    }
}

/// The consequence of a certificate that is not checked.
pub const CERTIFICATE: &str = "the certificate of a server is not checked: anyone in between can \
                               read and change what is sent";
