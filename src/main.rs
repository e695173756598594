//! `pseidon`: the command line.
//!
//! Exit codes: 0 the work is done (or was stopped gracefully), 1 it failed, 2 the pipeline file or
//! the command line is wrong.

mod board;
mod check;
mod consume;
mod examples;
mod fatal;
mod import;
mod infer;
mod interrupts;
mod load;
mod logging;
mod logs;
mod plugins;
mod produce;
mod progress;
mod reference;
mod run;
mod service;
mod status;
mod systemd;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What a command came to.
enum Exit {
    Done,
    Failed,
    WrongFile,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::WrongFile => ExitCode::from(2),
        }
    }
}

/// Moves records from where they are made to where they are used, exactly once.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: a level, or levels by module as in RUST_LOG.
    #[arg(long, global = true, env = "PSEIDON_LOG", default_value = "info")]
    log: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline until its sources end or it is stopped (SIGTERM, Ctrl-C; a second one leaves
    /// at once).
    Run(RunArgs),
    /// Show all mistakes of a pipeline file, or its stages with their types and what every path
    /// guarantees.
    Check(FileArgs),
    /// Run the tests in pipeline files.
    Test {
        /// The pipeline files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the pipeline file that the configuration of an older system means (pseidon.edn of
    /// pseidon-etl).
    Import {
        /// The old file.
        file: PathBuf,
    },
    /// Write test records into a Kafka topic, and show the rate.
    Produce(produce::ProduceArgs),
    /// Print the records of a Kafka topic as a pipeline would decode them, or the rate at which
    /// they come.
    Consume(consume::ConsumeArgs),
    /// Show how a running process is getting on: queue, rate, lag, errors.
    Status(status::StatusArgs),
    /// Print the fields of JSON files and their types as EDN, to be pasted after `:schema`.
    Infer {
        /// The files: paths or globs.
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// List the plugins and formats, or show the reference page of one.
    Plugins {
        /// The plugin.
        name: Option<String>,
        /// Print all reference pages as Markdown.
        #[arg(long, conflicts_with = "name")]
        markdown: bool,
    },
}

/// Where the pipeline is.
#[derive(Args, Clone)]
struct FileArgs {
    /// The pipeline file: EDN, or TOML if it ends in .toml.
    #[arg(required_unless_present = "expression")]
    file: Option<PathBuf>,
    /// A flow instead of a file, such as '(-> (files "logs/*.json") (where "status >= 500")
    /// (stdout))'. It remembers nothing between runs.
    #[arg(short, long, conflicts_with = "file")]
    expression: Option<String>,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    from: FileArgs,
    /// Finish a crashed run with the version of the pipeline that it ran, which the state holds.
    #[arg(long, conflicts_with_all = ["expression", "accept_changed_plan"])]
    previous: bool,
    /// Run this version although a crashed run of another one left work behind: its lanes are taken
    /// as they are named.
    #[arg(long)]
    accept_changed_plan: bool,
    /// Do not show the progress line on a terminal.
    #[arg(long)]
    no_progress: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let has_bar = match &cli.command {
        Command::Run(args) => !args.no_progress,
        Command::Produce(_) => true,
        _ => false,
    };
    let bar = progress::bar(has_bar);
    if let Err(reason) = logging::start(&cli.log, cli.log_format == LogFormat::Json, bar.clone()) {
        eprintln!("error: {reason}");
        return Exit::WrongFile.into();
    }
    fatal::keep_quiet_about_handled_panics();
    let exit = match cli.command {
        Command::Run(args) => run::run(&args, bar),
        Command::Check(from) => check::check(&from),
        Command::Test { files } => examples::test(&files),
        Command::Import { file } => import::import(&file),
        Command::Produce(args) => produce::produce(&args, bar),
        Command::Consume(args) => consume::consume(&args),
        Command::Status(args) => status::status(&args),
        Command::Infer { files } => infer::infer(&files),
        Command::Plugins { name, markdown } => reference::show(name.as_deref(), markdown),
    };
    exit.into()
}
