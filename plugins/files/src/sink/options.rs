//! The declaration of the `files` sink's options, with their documentation.

use pseidon_plugin::rollover::Cron;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

/// The largest value of `:lanes`. More files for one bucket are of no use: there are not that many
/// writer threads.
const MAX_LANES: u32 = 256;

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
dot at the beginning of a folder's name; null values and empty names become `:null-name`. Names of
more than 200 bytes are truncated and end with a digest.

When the disk is full, a folder has vanished or a permission is lost, the sink accepts no records,
reports the reason, and retries until it can write again. Two pipelines may write into the same
folders.

With `:move-to` and `:on-close` two more steps follow after a file has got its name: it is moved,
and then reported. Each step is done by a thread of its own and is retried until it succeeds, also
by a later run and after a crash. A file is moved exactly once. The call is made at least once:
after a crash it may come twice for the same path. When 1000 files wait for either step, the sink
accepts no records until fewer do.",
    positional: Some("path"),
    options: &[
        OptionSpec {
            name: "path",
            kind: OptionKind::Template,
            default: OptionDefault::None,
            doc: "The folder of a record's bucket. The part before the first `{…}`, up to its last \
                  `/`, is the base directory. Without this option, all files are in `:base-dir`.",
        },
        OptionSpec {
            name: "base-dir",
            kind: OptionKind::Strings,
            default: OptionDefault::None,
            doc: "The base directory, or several that are used in turn, such as one on each disk; \
                  `:path` is then relative to it.",
        },
        OptionSpec {
            name: "name",
            kind: OptionKind::Template,
            default: OptionDefault::None,
            doc: "The beginning of the names of a record's files, such as \
                  `{@topic}-{at:%Y-%m-%d}`: records for which it differs are in different buckets. \
                  The default, also for an empty string, is the topic. It is followed by the \
                  partition, or by a digest if the name does not contain `{@topic}`, and by the \
                  position of the first record.",
        },
        OptionSpec {
            name: "lanes",
            kind: OptionKind::CheckedString(check_lanes),
            default: OptionDefault::None,
            doc: "How many files of a bucket are open at once, each for a part of the splits, so \
                  that as many writer threads can share the work of one bucket. The default is 1.",
        },
        OptionSpec {
            name: "write",
            kind: OptionKind::Select,
            default: OptionDefault::None,
            doc: "The columns that are written of a record, as in `select`, such as `\"msg\"` or \
                  `\"* except (ts)\"`. The templates still see all columns. The default, also for \
                  an empty string, is the whole record.",
        },
        OptionSpec {
            name: "codec",
            kind: OptionKind::Choice(&["json", "txt", "raw", "parquet", "avro"]),
            default: OptionDefault::Value("json"),
            doc: "How records are written: as a JSON object per line, as a string per line, as the \
                  original bytes per line, as Parquet, or as Avro object container files.",
        },
        OptionSpec {
            name: "compression",
            kind: OptionKind::Choice(&["none", "gzip", "snappy", "bzip2", "zstd"]),
            default: OptionDefault::None,
            doc: "The default is `:none`, `:zstd` for the pages of Parquet and `:snappy` for the \
                  blocks of Avro. Line-based files are compressed with Hadoop's snappy framing. \
                  Parquet does not support bzip2.",
        },
        OptionSpec {
            name: "level",
            kind: OptionKind::Integer,
            default: OptionDefault::None,
            doc: "The compression level: 1 to 9 for gzip (default 6), 1 to 22 for zstd (default \
                  3).",
        },
        OptionSpec {
            name: "rollover",
            kind: OptionKind::Map(ROLLOVER),
            default: OptionDefault::Value(""),
            doc: "When a file is closed.",
        },
        OptionSpec {
            name: "check-freq",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("1s"),
            doc: "How often to check which files are due. A full file becomes visible at the next \
                  check.",
        },
        OptionSpec {
            name: "max-open-files",
            kind: OptionKind::Integer,
            default: OptionDefault::Value("256"),
            doc: "How many files are open at once. Before another file is opened, the least \
                  recently used ones are closed.",
        },
        OptionSpec {
            name: "null-name",
            kind: OptionKind::String,
            default: OptionDefault::Value("__HIVE_DEFAULT_PARTITION__"),
            doc: "The name in the path for a null value.",
        },
        OptionSpec {
            name: "row-group",
            kind: OptionKind::Bytes,
            default: OptionDefault::Value("64MB"),
            doc: "The size of a Parquet file's row groups. Row groups are buffered, so they are \
                  smaller when memory is short.",
        },
        OptionSpec {
            name: "move-to",
            kind: OptionKind::Map(MOVE_TO),
            default: OptionDefault::None,
            doc: "Where a file is moved after it has got its name. On the same file system this is \
                  a rename. On another file system the file is copied under a name that begins \
                  with a dot, and becomes visible when the copy is complete and synced. No file is \
                  replaced: a digest is added to a name that is taken.",
        },
        OptionSpec {
            name: "on-close",
            kind: OptionKind::Map(ON_CLOSE),
            default: OptionDefault::None,
            doc: "What is called for each file that is in its final place: `{:command [\"prog\" \
                  \"arg\"]}` or `{:post \"http://host/path\"}`. The program's standard input, or \
                  the request's body, is one JSON object: `{\"pipeline\": …, \"sink\": …, \
                  \"path\": …, \"records\": …, \"bytes\": …, \"positions\": {SPLIT: {\"first\": …, \
                  \"upto\": …}}}`. The program also gets the path in the environment variable \
                  PSEIDON_PATH, and runs in the folder of the pipeline file. Exit code 0, or a 2xx \
                  status, is success. After a failure the call is repeated after 1 s, 2 s … 1 min, \
                  without limit; so it is made at least once for each file, and possibly twice for \
                  the same path.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::Value("quarantine"),
            doc: "What happens to a record that has no path or cannot be written.",
        },
    ],
    free_options: &["base-dir"],
    example: "(files {:path \"out/{status}\" :codec :json :compression :gzip \
              :rollover {:size \"128MB\" :idle \"30s\"}})",
};

const ROLLOVER: &[OptionSpec] = &[
    OptionSpec {
        name: "size",
        kind: OptionKind::Bytes,
        default: OptionDefault::Value("128MB"),
        doc: "The size on disk in bytes, checked after each batch.",
    },
    OptionSpec {
        name: "records",
        kind: OptionKind::Integer,
        default: OptionDefault::None,
        doc: "The number of records.",
    },
    OptionSpec {
        name: "idle",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("60s"),
        doc: "How long nothing has been written to the file.",
    },
    OptionSpec {
        name: "age",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("10m"),
        doc: "How long the file has been open.",
    },
    OptionSpec {
        name: "cron",
        kind: OptionKind::CheckedString(check_cron),
        default: OptionDefault::None,
        doc: "Times at which all open files are closed: `\"0 * * * *\"` (minute, hour, day, month, \
              weekday; UTC).",
    },
];

fn check_cron(text: &str) -> Result<(), String> {
    Cron::parse(text).map(|_| ())
}

fn check_lanes(text: &str) -> Result<(), String> {
    match text.parse::<u32>() {
        Ok(1..=MAX_LANES) => Ok(()),
        _ => Err(format!("expected an integer from 1 to {MAX_LANES}")),
    }
}

const MOVE_TO: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        kind: OptionKind::Template,
        default: OptionDefault::Required,
        doc: "The folder, absolute or relative to the pipeline file's folder: a template that is \
              evaluated for the file's first record, with the same escapes as the sink's own path.",
    },
    OptionSpec {
        name: "prefix",
        kind: OptionKind::String,
        default: OptionDefault::None,
        doc: "A prefix for the file's name, such as `${host:name}-`.",
    },
    OptionSpec {
        name: "check",
        kind: OptionKind::Bool,
        default: OptionDefault::Value("true"),
        doc: "Whether a Parquet file is opened before it is moved. A file whose footer cannot be \
              read, or does not match the file or what was written, is quarantined, and its \
              records are counted in `pseidon_bad_records_total`.",
    },
    OptionSpec {
        name: "quarantine",
        kind: OptionKind::String,
        default: OptionDefault::None,
        doc: "The folder for such files. The default is `quarantine` in the base directory. \
              `:on-close` is not called for them.",
    },
];

const ON_CLOSE: &[OptionSpec] = &[
    OptionSpec {
        name: "command",
        kind: OptionKind::Strings,
        default: OptionDefault::None,
        doc: "A program and its arguments.",
    },
    OptionSpec {
        name: "post",
        kind: OptionKind::String,
        default: OptionDefault::None,
        doc: "An `http://` or `https://` URL.",
    },
    OptionSpec {
        name: "timeout",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("30s"),
        doc: "The time limit of a call; a call that takes longer has failed. A program is then \
              killed, with all processes that it started.",
    },
];
