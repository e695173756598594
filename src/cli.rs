//! The command line: its arguments, and the exit codes.
//!
//! The doc comment of an argument is its `--help` text. This module does not use the commands; they
//! use it.

mod pairs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pseidon_kafka::tools::StartPosition;
use pseidon_synthetic::Pace;

use self::pairs::{parameter, property};

/// The outcome of a command, which is its exit code.
pub(crate) enum Exit {
    /// 0: the work is done, or was stopped gracefully.
    Done,
    /// 1: the work failed.
    Failed,
    /// 2: the pipeline file or the command line is invalid.
    WrongFile,
    /// 3: the work is done, and more records were invalid than `:max-invalid` allows.
    ManyInvalid,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::WrongFile => ExitCode::from(2),
            Exit::ManyInvalid => ExitCode::from(3),
        }
    }
}

/// The version, the commit and the features that this binary was built with.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("PSEIDON_COMMIT"),
    ", features: ",
    env!("PSEIDON_FEATURES"),
    ")"
);

/// Exactly-once streaming ETL.
#[derive(Parser)]
#[command(name = "pseidon", version = VERSION, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Format of the log lines on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log filter: a level such as `info`, or levels by module as in RUST_LOG.
    #[arg(long, global = true, env = "PSEIDON_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline until its sources end, or until SIGTERM or Ctrl-C; a second signal exits
    /// immediately.
    Run(RunArgs),
    /// Show every error in a pipeline file, or its stages, their types and the delivery guarantee
    /// of each path.
    Check(FileArgs),
    /// Run the tests in pipeline files.
    Test {
        /// Pipeline files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        parameters: ParameterArgs,
    },
    /// Convert a legacy configuration (pseidon.edn of pseidon-etl) to a pipeline file.
    Import {
        /// The legacy configuration file.
        file: PathBuf,
    },
    /// Write test records to a Kafka topic and show the rate.
    Produce(ProduceArgs),
    /// Print the records of a Kafka topic as a pipeline decodes them, or the rate at which they
    /// arrive.
    Consume(ConsumeArgs),
    /// Show the status of a running process: queue, rate, lag and errors.
    Status(StatusArgs),
    /// Show how far a pipeline has read its sources, also while it runs, or move its positions.
    Offsets(OffsetsArgs),
    /// Feed quarantined records through the repaired pipeline, each of them once.
    Replay(ReplayArgs),
    /// Forget the state of a pipeline, so that it starts as it did for the first time.
    Reset(ResetArgs),
    /// List the committed files that are not visible because their disk is not mounted, or forget
    /// those of a lost disk.
    Staged(StagedArgs),
    /// Print the fields of JSON or CSV files and their types as EDN, to paste after `:schema`.
    Infer {
        /// Paths or globs. Files are CSV if their names end with `.csv` (`.tsv`), otherwise JSON.
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// List the plugins and formats, or print the reference page of a plugin.
    Plugins {
        /// The plugin to describe.
        name: Option<String>,
        /// Print all reference pages as Markdown.
        #[arg(long, conflicts_with = "name")]
        markdown: bool,
        /// Print the JSON Schema of the plugin's options, or of those of all plugins and
        /// `:settings`.
        #[arg(long, conflicts_with = "markdown")]
        json_schema: bool,
    },
    /// List the functions of expressions, or show what a function returns, with examples.
    Functions {
        /// The function to describe.
        name: Option<String>,
    },
    /// Print a script that completes commands and options in a shell.
    Completions {
        /// The shell that runs the script.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder, which is created if it does not exist.
        folder: PathBuf,
    },
}

impl Command {
    /// Whether the command shows a progress line when standard error is a terminal.
    pub(crate) fn has_progress_line(&self) -> bool {
        match self {
            Command::Run(args) => !args.no_progress,
            Command::Replay(args) => !args.dry_run,
            Command::Produce(_) => true,
            _ => false,
        }
    }
}

/// Where the pipeline comes from; `check` and `run` take it.
#[derive(Args, Clone)]
pub(crate) struct FileArgs {
    /// The pipeline file: TOML if its name ends in .toml, otherwise EDN.
    #[arg(required_unless_present = "expression")]
    pub(crate) file: Option<PathBuf>,
    /// A flow instead of a file, such as '(-> (files "logs/*.json") (where "status >= 500")
    /// (stdout))'. No state is kept between runs.
    #[arg(short, long, conflicts_with = "file")]
    pub(crate) expression: Option<String>,
    #[command(flatten)]
    pub(crate) parameters: ParameterArgs,
}

/// The values of the parameters of a pipeline file.
#[derive(Args, Clone, Default)]
pub(crate) struct ParameterArgs {
    /// The value of `${set:NAME}` in the pipeline file. It can be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) set: Vec<(String, String)>,
}

/// The arguments of `pseidon run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) from: FileArgs,
    /// Run the version of the pipeline that a crashed run used, which is kept in the state. Without
    /// this flag, a changed pipeline finishes the work of that version and then starts.
    #[arg(long, conflicts_with_all = ["expression", "accept_changed_plan"])]
    pub(crate) previous: bool,
    /// Start without finishing what a crashed run of a different version has left; existing lanes
    /// are matched by name. Records may be doubled or missing.
    #[arg(long)]
    pub(crate) accept_changed_plan: bool,
    /// Do not show the progress line on a terminal.
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Allow core dumps and debuggers, which can read passwords in the memory of the process.
    #[arg(long)]
    pub(crate) allow_debugging: bool,
}

/// The arguments of `pseidon produce`.
#[derive(Args)]
pub(crate) struct ProduceArgs {
    /// Bootstrap brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) brokers: String,
    /// The topic to write to.
    #[arg(long)]
    pub(crate) topic: String,
    /// Number of records [default: 1000000, or with --file the number of its lines].
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<u64>,
    /// Number of threads, each with its own producer.
    #[arg(long, value_name = "T", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// SQL expression for the value of a record, such as "'line ' || n". It can use the record's
    /// number `n` (from 0), a random number `r` in [0, 1) and a random integer `h`. Without --value
    /// and --file, records are small JSON objects.
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// Use the lines of this file as values, starting over at the end of the file.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// SQL expression for the key of a record, as for --value, such as "h % 100". Without it,
    /// records have no key.
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) key: Option<String>,
    /// Records per second over all threads. Without it, as many as the brokers accept.
    #[arg(long, value_name = "N", value_parser = pace)]
    pub(crate) rate: Option<Pace>,
    /// A librdkafka property, such as compression.type=zstd. May be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    pub(crate) properties: Vec<(String, String)>,
}

/// The arguments of `pseidon consume`.
#[derive(Args)]
pub(crate) struct ConsumeArgs {
    /// Bootstrap brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) brokers: String,
    /// The topic to read.
    #[arg(long)]
    pub(crate) topic: String,
    /// Exit after this number of records.
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<u64>,
    /// Where to start: earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z. With
    /// --group, it applies to partitions without a committed offset.
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    pub(crate) from: StartPosition,
    /// Read only this partition.
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<i32>,
    /// Print throughput and the total instead of records.
    #[arg(long)]
    pub(crate) rate: bool,
    /// Format of the values, as in the :format of a pipeline; raw prints their bytes.
    #[arg(long, default_value = "json")]
    pub(crate) format: String,
    /// Columns to print, as in a select: "@offset, user.id as user". Without it, a json record is
    /// printed unchanged, and a record of another format with all its fields.
    #[arg(long, value_name = "SELECT LIST")]
    pub(crate) columns: Option<String>,
    /// Join this consumer group: resume at its committed offsets, and commit what was printed.
    /// Without it, nothing is committed.
    #[arg(long, conflicts_with = "partition")]
    pub(crate) group: Option<String>,
    /// Exit after the last record that was in the topic when the command started.
    #[arg(long)]
    pub(crate) exit: bool,
    /// A librdkafka property, such as security.protocol=ssl. May be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    pub(crate) properties: Vec<(String, String)>,
}

/// The arguments of `pseidon status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The URL of the process: its host and :monitor-port, with https if it has :tls, or
    /// `unix:PATH` with the path of its :monitor-socket.
    #[arg(default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The :token of the pipeline. Other users can see arguments of a command; use the variable.
    #[arg(long, env = "PSEIDON_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The certificates to trust: a PEM file [default: those that the system trusts].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to present to the process, if it asks for one: a PEM file.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key: a PEM file (PKCS #8).
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// The arguments of `pseidon offsets`.
#[derive(Args)]
pub(crate) struct OffsetsArgs {
    /// The pipeline file.
    pub(crate) file: PathBuf,
    /// Print JSON, with the position of each split in each sink.
    #[arg(long)]
    pub(crate) json: bool,
    /// Move the positions: earliest, latest, a time such as 2026-01-31T00:00:00Z, or a position.
    /// Prints what would change, and changes it with --execute.
    #[arg(long, value_name = "PLACE", conflicts_with = "json")]
    pub(crate) to: Option<StartPosition>,
    /// Move only the positions of this source.
    #[arg(long, value_name = "STAGE", requires = "to")]
    pub(crate) source: Option<String>,
    /// Move only this partition (TOPIC/PARTITION) or file, named as in the list. May be repeated.
    #[arg(long = "split", value_name = "SPLIT", requires = "to")]
    pub(crate) splits: Vec<String>,
    /// Change the state. Without it, nothing is changed.
    #[arg(long, requires = "to")]
    pub(crate) execute: bool,
    #[command(flatten)]
    pub(crate) parameters: ParameterArgs,
}

/// The arguments of `pseidon replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The repaired pipeline file.
    pub(crate) file: PathBuf,
    /// Files of quarantined records, or folders with such files [default: where the pipeline
    /// quarantines records].
    pub(crate) quarantine: Vec<PathBuf>,
    /// Replay only the records that were invalid at this stage. May be repeated.
    #[arg(long = "stage", value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// Print how many records would be valid now. Nothing is written.
    #[arg(long, conflicts_with_all = ["previous", "accept_changed_plan"])]
    pub(crate) dry_run: bool,
    /// Replay also the records that this version of the pipeline file itself has found invalid, as
    /// after a change that is not in the file.
    #[arg(long)]
    pub(crate) again: bool,
    /// Finish a crashed replay with the version of the pipeline that it used, which is kept in the
    /// state.
    #[arg(long, conflicts_with = "accept_changed_plan")]
    pub(crate) previous: bool,
    /// Start even though a crashed replay with a different version left uncommitted work; existing
    /// lanes are matched by name.
    #[arg(long)]
    pub(crate) accept_changed_plan: bool,
    #[command(flatten)]
    pub(crate) parameters: ParameterArgs,
}

/// The arguments of `pseidon reset`.
#[derive(Args)]
pub(crate) struct ResetArgs {
    /// The pipeline file.
    pub(crate) file: PathBuf,
    /// Change the state. Without it, nothing is changed.
    #[arg(long)]
    pub(crate) execute: bool,
    #[command(flatten)]
    pub(crate) parameters: ParameterArgs,
}

/// The arguments of `pseidon staged`.
#[derive(Args)]
pub(crate) struct StagedArgs {
    /// The pipeline file.
    pub(crate) file: PathBuf,
    /// Forget the files on this disk, which is lost. Their records count as delivered and are not
    /// re-read. If the disk is used again, the files are deleted. `refused` forgets those that
    /// another program may have written into the state.
    #[arg(long, value_name = "DISK")]
    pub(crate) forget: Option<String>,
    #[command(flatten)]
    pub(crate) parameters: ParameterArgs,
}

/// Parses a rate in records per second.
fn pace(text: &str) -> Result<Pace, String> {
    text.parse()
        .ok()
        .and_then(Pace::new)
        .ok_or_else(|| "expected a number above 0".to_owned())
}
