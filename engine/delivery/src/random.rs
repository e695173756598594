//! Random names from the operating system.

use std::fs::File;
use std::io::Read;

use crate::Reason;

/// `bytes` random bytes from the operating system, as twice as many hexadecimal digits.
pub fn hexadecimal(bytes: usize) -> Result<String, Reason> {
    let mut random = vec![0u8; bytes];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| Reason::caused_by("cannot read /dev/urandom", error))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
