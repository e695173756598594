//! `pseidon completions`: completion scripts for shells, generated from the command line's
//! declaration.

use std::io;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, Exit};

/// Prints the completion script for a shell.
pub(crate) fn print(shell: Shell) -> Exit {
    generate(shell, &mut Cli::command(), "pseidon", &mut io::stdout());
    Exit::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut Cli::command(), "pseidon", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["check", "completions", "accept-changed-plan"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
