//! The name of an instance, which is one attempt of one process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pseidon_delivery::{Reason, random};

/// Returns a unique name for this attempt: machine and process number for people, random bits for
/// the process, and the attempt after a `.`. Machines may share a name, containers a process
/// number, and clocks a time.
pub(crate) fn instance_name() -> Result<String, Reason> {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    if PROCESS.get().is_none() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(40)
            .collect();
        // If two threads get here at once, the first one's name counts.
        let _ = PROCESS.set(format!(
            "{host}-{}-{}",
            std::process::id(),
            random::hexadecimal(8)?
        ));
    }
    let process = PROCESS.get().map_or("", String::as_str);
    Ok(format!(
        "{process}.{}",
        ATTEMPTS.fetch_add(1, Ordering::Relaxed)
    ))
}
