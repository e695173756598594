//! `pseidon man`: the manual pages, generated from the command line's declaration.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;

use crate::cli::{Cli, Exit};
use crate::stderr_line;

/// Writes `pseidon.1` and a page for each command, such as `pseidon-run.1`.
pub(crate) fn write(folder: &Path) -> Exit {
    match try_write(folder) {
        Ok(()) => Exit::Done,
        Err(error) => {
            stderr_line!(
                "error: cannot write manual pages to {}: {error}",
                folder.display()
            );
            Exit::Failed
        }
    }
}

fn try_write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        try_write(&folder.path().join("man1")).unwrap();
        for name in ["pseidon.1", "pseidon-run.1", "pseidon-check.1"] {
            let page = fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
            assert!(page.contains(".SH NAME"), "{name}");
        }
    }
}
