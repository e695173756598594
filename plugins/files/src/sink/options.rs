//! The declaration of the `files` sink's options, with their documentation.

use std::time::Duration;

use pseidon_dsl::Span;
use pseidon_dsl::expr::SelectItem;
use pseidon_dsl::template::Template;
use pseidon_formats::{CodecName, Compression, CsvOptions};
use pseidon_plugin::options::kinds::{ByteSize, IntegerIn, PositiveInteger, Properties};
use pseidon_plugin::options::{Argument, OnError, OptionValue, Options, ParseResult, SpannedValue};
use pseidon_plugin::rollover::Cron;
use pseidon_plugin::spec::{OptionKind, PluginSpec, Role};

use super::access::{FileMode, OwnerName};

pub(super) static SPEC: PluginSpec = PluginSpec {
    name: "files",
    role: Role::Sink,
    summary: "Writes records to files, each exactly once, and rolls each file independently.",
    details: "\
The path is a template: `out/{status}/date={at:%Y-%m-%d}` names a folder for each record, a bucket.
A bucket has one open file at a time in each writer. The first rule of `:rollover` that applies
closes the file. At that moment the file is complete and gets its name in the bucket's folder, which
is final: `clicks-3-000000001234.json.gz` is the file whose first record is at 1234 in partition 3
of `clicks`. Open files are below `.pseidon-open` in the base directory, on the same file system.
When a run exits cleanly, the only file left there is `disk`, a random id that identifies the disk;
do not remove it. A base directory that does not exist is created, unless the state store names
committed files in it: then its disk is not mounted.

A value cannot leave its folder: `/`, `%` and control characters are percent-encoded, and so is a
dot at the beginning of a folder's name. In a folder `column=value` the other characters that Hive
encodes there, such as `=` and `:`, are too. Null values and empty names become `:null-name`. Names
of more than 200 bytes are truncated and end with a digest.

When the disk is full, a folder has vanished or a permission is lost, the sink accepts no records,
reports the reason, and retries until it can write again. Two pipelines may write into the same
folders.

With `:move-to` and `:on-close` two more steps follow after a file has got its name: it is moved,
and then reported. Each step is done by a thread of its own and is retried until it succeeds, also
by a later run and after a crash. A file is moved exactly once. The call is made at least once:
after a crash it may come twice for the same path. When 1000 files wait for either step, the sink
accepts no records until fewer do.",
    positional: FilesSinkOptions::POSITIONAL,
    options: FilesSinkOptions::DECLARED,
    example: "(files {:path \"out/{status}\" :codec :json :compression :gzip \
              :rollover {:size \"128MB\" :idle \"30s\"}})",
};

/// The options of the sink `files`.
#[derive(Clone, Debug, Options)]
pub struct FilesSinkOptions {
    #[option(span)]
    pub(super) span: Span,
    /// The folder of a record's bucket. The part before the first `{…}`, up to its last `/`, is the
    /// base directory. Without this option, all files are in `:base-dir`.
    #[option(positional)]
    pub(super) path: Option<SpannedValue<Template>>,
    /// The base directory, or several that are used in turn, such as one on each disk; `:path` is
    /// then relative to it.
    #[option(free)]
    pub(super) base_dir: Option<SpannedValue<Vec<String>>>,
    /// The beginning of the names of a record's files, such as `{@topic}-{at:%Y-%m-%d}`: records
    /// for which it differs are in different buckets. The default, also for an empty string, is the
    /// topic. It is followed by the partition, or by a digest if the name does not contain
    /// `{@topic}`, and by the position of the first record.
    pub(super) name: Option<SpannedValue<Template>>,
    /// How many files of a bucket are open at once, each for a part of the splits, so that as many
    /// writer threads can share the work of one bucket. The default is 1.
    pub(super) lanes: Option<Lanes>,
    /// The columns that are written of a record, as in `select`, such as `"msg"` or `"* except
    /// (ts)"`. The templates still see all columns. The default, also for an empty string, is the
    /// whole record.
    pub(super) write: Option<Vec<SelectItem>>,
    /// How records are written: as a JSON object per line, as CSV or TSV after a header with the
    /// names of the columns, as a string per line, as the original bytes per line, as Parquet, or
    /// as Avro object container files.
    #[option(default = "json")]
    pub(super) codec: SpannedValue<CodecName>,
    /// How `:csv` and `:tsv` are written, such as `{:header false}`.
    #[option(default = "")]
    pub(super) csv: CsvOptions,
    /// The default is `:none`, `:zstd` for the pages of Parquet and `:snappy` for the blocks of
    /// Avro. Line-based files are compressed with Hadoop's snappy framing. Parquet does not support
    /// bzip2.
    pub(super) compression: Option<Compression>,
    /// The compression level: 1 to 9 for gzip (default 6), 1 to 22 for zstd (default 3).
    pub(super) level: Option<u64>,
    /// When a file is closed.
    #[option(default = "")]
    pub(super) rollover: RolloverOptions,
    /// How often to check which files are due. A full file becomes visible at the next check.
    #[option(default = "1s")]
    pub(super) check_freq: Duration,
    /// How many files are open at once. Before another file is opened, the least recently used ones
    /// are closed.
    #[option(default = "256")]
    pub(super) max_open_files: PositiveInteger,
    /// The name in the path for a null value.
    #[option(default = "__HIVE_DEFAULT_PARTITION__")]
    pub(super) null_name: String,
    /// The size of a Parquet file's row groups. Row groups are buffered, so they are smaller when
    /// memory is short.
    #[option(default = "64MB")]
    pub(super) row_group: ByteSize,
    /// The permissions of the files, in octal, whatever the process's umask is. The default is
    /// `0640` less the umask: the group may read them. Folders that the sink creates can be entered
    /// by those who may read the files. A folder or a copy of `:move-to` has them too. Files that
    /// are being written can be reached by the process alone.
    pub(super) mode: Option<FileMode>,
    /// The owner of the files and of the folders that the sink creates, as for `chown`: `"user"`,
    /// `"user:group"` or `":group"`, by name or number. A process that is not root can only set a
    /// group that it belongs to.
    pub(super) owner: Option<OwnerName>,
    /// Where a file is moved after it has got its name. On the same file system this is a rename.
    /// On another file system the file is copied under a name that begins with a dot, and becomes
    /// visible when the copy is complete and synced. No file is replaced: a digest is added to a
    /// name that is taken.
    pub(super) move_to: Option<MoveOptions>,
    /// What is called for each file that is in its final place: `{:command ["prog" "arg"]}` or
    /// `{:post "http://host/path"}`. The program's standard input, or the request's body, is one
    /// JSON object: `{"pipeline": …, "sink": …, "path": …, "records": …, "bytes": …, "positions":
    /// {SPLIT: {"first": …, "upto": …}}}`. The program also gets the path in the environment
    /// variable PSEIDON_PATH, and runs in the folder of the pipeline file. Exit code 0, or a 2xx
    /// status, is success. After a failure the call is repeated after 1 s, 2 s … 1 min, without
    /// limit; so it is made at least once for each file, and possibly twice for the same path.
    pub(super) on_close: Option<SpannedValue<HookOptions>>,
    /// What happens to a record that has no path or cannot be written.
    #[option(default = "quarantine")]
    pub(super) on_error: OnError,
}

/// When a file is closed.
#[derive(Clone, Debug, Options)]
pub(super) struct RolloverOptions {
    /// The size on disk in bytes, checked after each batch.
    #[option(default = "128MB")]
    pub(super) size: ByteSize,
    /// The number of records.
    pub(super) records: Option<PositiveInteger>,
    /// How long nothing has been written to the file.
    #[option(default = "60s")]
    pub(super) idle: Duration,
    /// How long the file has been open.
    #[option(default = "10m")]
    pub(super) age: Duration,
    /// Times at which all open files are closed: `"0 * * * *"` (minute, hour, day, month, weekday;
    /// UTC).
    pub(super) cron: Option<Cron>,
}

/// Where a file is moved.
#[derive(Clone, Debug, Options)]
pub(super) struct MoveOptions {
    /// The folder, absolute or relative to the pipeline file's folder: a template that is evaluated
    /// for the file's first record, with the same escapes as the sink's own path.
    pub(super) path: SpannedValue<Template>,
    /// A prefix for the file's name, such as `${host:name}-`.
    pub(super) prefix: Option<SpannedValue<String>>,
    /// Whether a Parquet file is opened before it is moved. A file whose footer cannot be read, or
    /// does not match the file or what was written, is quarantined, and its records are counted in
    /// `pseidon_bad_records_total`.
    #[option(default = "true")]
    pub(super) check: bool,
    /// The folder for such files. The default is `quarantine` in the base directory. `:on-close` is
    /// not called for them.
    pub(super) quarantine: Option<String>,
}

/// What is called for a file.
#[derive(Clone, Debug, Options)]
pub(super) struct HookOptions {
    /// A program and its arguments. Other users of the machine can see the arguments; `:env` is the
    /// place for a password.
    pub(super) command: Option<SpannedValue<Vec<String>>>,
    /// Variables for the program, such as `{"TOKEN" "${env:LAKE_TOKEN}"}`. Of the process's own
    /// environment, which may have passwords, it gets only `PATH`, `HOME`, `LANG`, `LC_…`, `TZ`,
    /// `USER`, `LOGNAME` and `TMPDIR`.
    pub(super) env: Option<SpannedValue<Properties>>,
    /// An `http://` or `https://` URL.
    pub(super) post: Option<SpannedValue<String>>,
    /// The time limit of a call; a call that takes longer has failed. A program is then killed,
    /// with all processes that it started.
    #[option(default = "30s")]
    pub(super) timeout: Duration,
}

/// The largest value of `:lanes`. More files for one bucket are of no use: there are not that many
/// writer threads.
const MAX_LANES: u64 = 256;

/// A number of lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes(pub(super) u32);

/// The valid numbers of lanes.
type LaneCount = IntegerIn<1, MAX_LANES>;

impl OptionValue for Lanes {
    const KIND: OptionKind = LaneCount::KIND;

    fn parse(argument: &Argument<'_>) -> ParseResult<Lanes> {
        LaneCount::parse(argument).map(|lanes| Lanes(lanes.get() as u32))
    }

    /// With another number of lanes, records belong to other lanes.
    fn identity(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}
