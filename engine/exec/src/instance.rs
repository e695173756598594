//! The name of an instance, which is one attempt of one process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pseidon_delivery::{InstanceId, Reason, random};

/// Returns a unique name for this attempt: the name of the process, and the attempt after a `.`.
pub(crate) fn instance_name() -> Result<InstanceId, Reason> {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    if PROCESS.get().is_none() {
        // If two threads get here at once, the first one's name counts.
        let _ = PROCESS.set(process_name()?);
    }
    let process = PROCESS.get().map_or("", String::as_str);
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{process}.{attempt}").into())
}

/// A new name for this process: machine and process number for people, and 64 random bits, because
/// machines may share a name, containers a process number, and clocks a time.
fn process_name() -> Result<String, Reason> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect();
    Ok(format!(
        "{host}-{}-{}",
        std::process::id(),
        random::hexadecimal(8)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_process_number_on_one_machine_differ() {
        let names = [process_name().unwrap(), process_name().unwrap()];
        let random = names.each_ref().map(|name| name.rsplit_once('-').unwrap());
        assert_eq!(random[0].0, random[1].0, "machine and process number");
        assert_ne!(random[0].1, random[1].1);
        let is_long = |digits: &str| digits.len() == 16;
        assert!(random.iter().all(|(_, digits)| is_long(digits)));
    }

    #[test]
    fn attempts_of_a_process_share_its_name() {
        let [one, other] = [instance_name().unwrap(), instance_name().unwrap()];
        assert_ne!(one, other);
        let process = |name: &InstanceId| name.as_str().rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(process(&one), process(&other));
    }
}
