//! Random names from the operating system.

use std::fs::File;
use std::io::{self, Read};

/// `bytes` random bytes from the operating system, as twice as many hexadecimal digits.
pub fn hexadecimal(bytes: usize) -> io::Result<String> {
    let mut random = vec![0u8; bytes];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read /dev/urandom: {error}"))
        })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
