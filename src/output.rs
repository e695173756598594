//! The standard streams of a command. A closed pipe, as `pseidon plugins | head -3` makes one, is
//! not an error: the reader has enough. `println!` and `eprintln!` would panic.
//!
//! - [`print()`] writes the result of a command to standard output.
//! - [`stderr_line!`](crate::stderr_line) writes messages. Nothing depends on whether they can be
//!   written: the exit code says how the command ended.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use pseidon_dsl::printable::printable_lines;

use crate::cli::Exit;

/// Writes a line to standard error, as `eprintln!` formats it.
#[macro_export]
macro_rules! stderr_line {
    ($($argument:tt)*) => {
        $crate::output::write_line(::std::format_args!($($argument)*))
    };
}

/// Writes a line to standard error in one piece, if it can be written. It can have a line of help;
/// other control characters are escaped, since names of files and answers of servers can be part of
/// it.
pub(crate) fn write_line(line: Arguments<'_>) {
    let line = printable_lines(&line.to_string()).into_owned();
    write_error(&(line + "\n"));
}

/// Writes a text to standard error, if it can be written.
pub(crate) fn write_error(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints the result of a command, and returns the exit code.
pub(crate) fn print(text: &str) -> Exit {
    match try_print(text) {
        Ok(()) => Exit::Done,
        Err(error) => {
            crate::stderr_line!("error: cannot write to standard output: {error}");
            Exit::Failed
        }
    }
}

/// Writes a text to standard output. A closed pipe is not an error.
pub(crate) fn try_print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
