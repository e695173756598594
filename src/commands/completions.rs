//! `pseidon completions`: completion scripts for shells, generated from the declarations of the
//! command line, the plugins and the formats.

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use pseidon_plan::transforms::Transform;

use crate::cli::{Cli, Exit};
use crate::output;
use crate::registry::registry;

/// Prints the completion script for a shell.
pub(crate) fn print(shell: Shell) -> Exit {
    output::print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command(), "pseidon", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The command line with the names of plugins and formats as possible values. They are values only
/// here: the commands themselves suggest the nearest name.
fn command() -> Command {
    let registry = registry();
    let transforms = Transform::ALL.map(Transform::spec);
    let specs = registry.specs().chain(transforms);
    let mut plugins: Vec<&str> = specs.map(|spec| spec.name).collect();
    plugins.sort_unstable();
    plugins.dedup();
    let formats: Vec<&str> = registry
        .formats
        .iter()
        .map(|format| format.name())
        .collect();
    let with_values = |argument: &'static str, values: Vec<&'static str>| {
        move |command: Command| {
            command.mut_arg(argument, |argument| {
                argument.value_parser(PossibleValuesParser::new(values))
            })
        }
    };
    Cli::command()
        .mut_subcommand("plugins", with_values("name", plugins))
        .mut_subcommand("consume", with_values("format", formats))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script for fish has no values of positional arguments, such as the names of plugins.
    #[test]
    fn each_script_has_the_commands_plugins_and_formats() {
        let common = ["check", "completions", "accept-changed-plan", "avro-txt"];
        let positional = ["mysql-logs", "select"];
        for (shell, words) in [
            (Shell::Bash, [&common[..], &positional].concat()),
            (Shell::Zsh, [&common[..], &positional].concat()),
            (Shell::Fish, common.to_vec()),
        ] {
            let script = script(shell);
            for word in words {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
