//! The errors of files of columns, and reading at a place of one.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The error of a file that is not what its format says.
pub(super) fn damaged(what: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged: {what}"))
}

/// The error of a file that is well-formed but cannot be read.
pub(super) fn refused(what: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// The error of a file of which the end is missing.
pub(super) fn incomplete(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// The error of a file of which more rows were read before than it has now.
pub(super) fn truncated(rows: u64, read_before: u64) -> io::Error {
    refused(format!(
        "it has {rows} rows, but {read_before} were read of it before: it was truncated; write new \
         records to a new file"
    ))
}

/// Reads up to `most` bytes at a place of a file; fewer at its end.
pub(super) fn read_up_to(file: &File, at: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut len = 0;
    while len < most {
        match file.read_at(&mut bytes[len..], at + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}
