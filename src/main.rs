//! `pseidon`: the command line.
//!
//! 1. [`cli`]: the arguments and the exit codes; [`commands`] has one file for each command.
//! 2. [`load`]: from a file name to a plan, with the plugins of [`registry`].
//! 3. [`state`]: opens the pipeline's state store.
//! 4. [`supervisor`]: starts and stops a run for each row of a table.
//! 5. [`pseidon_service`]: the HTTP endpoints and the REPL of a running process; [`systemd`] and
//!    [`fatal`] report its state to others.

#![deny(unsafe_code)]
// `output` writes to the standard streams. The macros of the standard library panic if it fails.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod aligned;
#[allow(unsafe_code, reason = "the C library is asked to keep memory")]
mod allocator;
mod broken_files;
mod cli;
mod commands;
mod core_dumps;
mod counted;
#[cfg(test)]
mod documentation;
mod fatal;
#[allow(unsafe_code, reason = "no signal is lost while its handler is set")]
mod interrupts;
mod invalid_records;
mod last_run;
mod load;
mod logging;
mod missing_fields;
mod output;
mod pipeline_file;
mod progress;
mod registry;
mod reload;
mod sandbox;
mod splits;
mod state;
mod supervisor;
mod systemd;
mod throughput;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Exit, LogFormat};

fn main() -> ExitCode {
    allocator::configure();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(other) => return print_usage(&other).into(),
    };
    let bar = progress::bar(cli.command.has_progress_line());
    if let Err(reason) = logging::start(&cli.log, cli.log_format == LogFormat::Json, bar.clone()) {
        stderr_line!("error: {reason}");
        return Exit::WrongFile.into();
    }
    fatal::log_panics();
    let exit = match cli.command {
        Command::Run(args) => commands::run::run(&args, bar),
        Command::Check(from) => commands::check::check(&from),
        Command::Test { files, parameters } => commands::test::test(&files, &parameters),
        Command::Import { file } => commands::import::import(&file),
        Command::Produce(args) => commands::produce::produce(&args, bar),
        Command::Consume(args) => commands::consume::consume(&args),
        Command::Offsets(args) => commands::offsets::offsets(&args),
        Command::Replay(args) => commands::replay::replay(&args, bar),
        Command::Reset(args) => commands::reset::reset(&args),
        Command::Staged(args) => commands::staged::staged(&args),
        Command::Status(args) => commands::status::status(&args),
        Command::Infer { files } => commands::infer::infer(&files),
        Command::Functions { name } => commands::functions::show(name.as_deref()),
        Command::Completions { shell } => commands::completions::print(shell),
        Command::Man { folder } => commands::man::write(&folder),
        Command::Plugins {
            name,
            markdown,
            json_schema,
        } => commands::plugins::show(name.as_deref(), markdown, json_schema),
    };
    exit.into()
}

/// Prints the help, the version, or why the arguments are invalid.
fn print_usage(usage: &clap::Error) -> Exit {
    match usage.print() {
        _ if usage.use_stderr() => Exit::WrongFile,
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            stderr_line!("error: cannot write to standard output: {error}");
            Exit::Failed
        }
        _ => Exit::Done,
    }
}
