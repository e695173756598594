//! The header of a file.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::super::errors::{damaged, incomplete, read_up_to, refused};

/// The bytes with which a file begins.
const MAGIC: &[u8; 4] = b"Obj\x01";

/// The length of the marker behind the header and every block.
pub(super) const MARKER_BYTES: usize = 16;

/// The maximum length of a header.
const MAX_BYTES: usize = 16 << 20;

/// How many bytes are read at first.
const FIRST_BYTES: usize = 16 << 10;

/// The header of a file.
pub(super) struct Header {
    /// The schema of the records, as JSON.
    pub(super) schema: String,
    /// The name of the blocks' compression.
    pub(super) codec: String,
    /// What follows the header and every block.
    pub(super) marker: [u8; MARKER_BYTES],
    /// Its length in bytes, with the marker.
    pub(super) len: u64,
}

/// The end of the bytes that were read, in the middle of something.
struct Cut;

impl Header {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before it; `InvalidData` if it is not an Avro file.
    pub(super) fn read(file: &File) -> io::Result<Header> {
        let mut most = FIRST_BYTES;
        loop {
            let bytes = read_up_to(file, 0, most)?;
            if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
                return Err(refused("it is not an Avro file"));
            }
            match Header::parse(&bytes) {
                Ok(header) => return header,
                Err(Cut) if bytes.len() < most => {
                    return Err(incomplete("it ends in its header"));
                }
                Err(Cut) if most >= MAX_BYTES => {
                    return Err(damaged("its header is longer than 16 MiB"));
                }
                Err(Cut) => most = (most * 8).min(MAX_BYTES),
            }
        }
    }

    fn parse(bytes: &[u8]) -> Result<io::Result<Header>, Cut> {
        let mut rest = bytes.get(MAGIC.len()..).ok_or(Cut)?;
        let mut found = HashMap::new();
        loop {
            let count = take_long(&mut rest)?;
            if count == 0 {
                break;
            }
            // The length of the entries in bytes.
            let declared = match count < 0 {
                true => Some(take_long(&mut rest)?),
                false => None,
            };
            let start = rest.len();
            for _ in 0..count.unsigned_abs() {
                let key = take_bytes(&mut rest)?;
                let value = take_bytes(&mut rest)?;
                found.insert(key, value);
            }
            if declared.is_some_and(|declared| declared != (start - rest.len()) as i64) {
                return Ok(Err(damaged(
                    "its header has another length than it declares",
                )));
            }
        }
        let (marker, rest) = rest.split_first_chunk().ok_or(Cut)?;
        let text = |key: &str| {
            let value = found.get(key.as_bytes())?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let Some(schema) = text("avro.schema") else {
            return Ok(Err(damaged("its header has no schema")));
        };
        Ok(Ok(Header {
            schema,
            codec: text("avro.codec").unwrap_or_else(|| "null".to_owned()),
            marker: *marker,
            len: (bytes.len() - rest.len()) as u64,
        }))
    }
}

/// Takes a `long` off the bytes.
fn take_long(bytes: &mut &[u8]) -> Result<i64, Cut> {
    let (value, rest) = long(bytes).ok_or(Cut)?;
    *bytes = rest;
    Ok(value)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Cut> {
    let len = usize::try_from(take_long(bytes)?).map_err(|_| Cut)?;
    let (value, rest) = bytes.split_at_checked(len).ok_or(Cut)?;
    *bytes = rest;
    Ok(value)
}

/// A `long` at the beginning of the bytes, and the bytes behind it: zigzag encoding, then 7 bits per
/// byte, lowest first. `None` if the bytes end before it does, or if it has more than 64 bits.
pub(super) fn long(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (number, byte) in bytes.iter().enumerate().take(10) {
        if number == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            let value = (value >> 1) as i64 ^ -((value & 1) as i64);
            return Some((value, &bytes[number + 1..]));
        }
    }
    None
}
