//! What the user can say about a `files` sink.

use pseidon_plugin::rollover::Cron;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

/// More than this many files for one bucket are of no use: there are not that many writer threads.
const MOST_LANES: u32 = 256;

pub(super) static SPEC: PluginSpec = PluginSpec {
    name: "files",
    role: Role::Sink,
    summary: "Writes records into files, each record exactly once, and closes each file by itself.",
    details: "\
The path is a template: `out/{status}/date={at:%Y-%m-%d}` names a folder for each record, a bucket. A bucket has one open file at a time in
each writer; it is closed by whichever rule of `:rollover` comes first, and gets its name in the bucket's folder at that moment, complete and
for good: `clicks-3-000000001234.json.gz` is the file whose first record is at 1234 in partition 3 of `clicks`. Open files are below
`.pseidon-open` in the base directory, on the same file system. When a run ends well nothing is left there but the file `disk`, a random id that
names the disk; do not remove it. A base directory that does not exist is created, unless committed files are on its disk, which is not mounted.

A value cannot leave its folder: `/`, `%` and control characters are percent-encoded, and so is a dot at the beginning of a folder's name;
null, and what would be an empty name, become `:null-name`. Names of more than 200 bytes are cut and end with a digest.

When the disk is full, a folder has vanished or a permission is lost, the sink takes nothing in, says so, and tries again until it works.
Two pipelines may write into the same folders.

With `:move-to` and `:on-close` a file has more to go through after it has got its name: it is moved, and then reported. Each is done by a thread
of its own, until it works, also by a later run and after a crash. A file is moved exactly once. The call is made at least once: after a crash
it may come twice for the same path. When 1000 files wait for either, the sink takes nothing in until fewer do.",
    positional: Some("path"),
    options: &[
        OptionSpec {
            name: "path",
            kind: OptionKind::Template,
            default: OptionDefault::None,
            doc: "The folder of a record's bucket. What stands before the first `{…}`, up to its last `/`, is the base directory. Without \
                  it all files lie in `:base-dir`.",
        },
        OptionSpec {
            name: "base-dir",
            kind: OptionKind::Texts,
            default: OptionDefault::None,
            doc: "The base directory, or several that are used in turn, such as one on each disk; `:path` is then relative to it.",
        },
        OptionSpec {
            name: "name",
            kind: OptionKind::Template,
            default: OptionDefault::None,
            doc: "What the names of a record's files begin with, such as `{@topic}-{at:%Y-%m-%d}`: records for which it differs are in \
                  different buckets. The topic if it is not given, or empty. After it come the partition, or a digest if the name does not \
                  hold `{@topic}`, and the first record's position.",
        },
        OptionSpec {
            name: "lanes",
            kind: OptionKind::Checked(check_lanes),
            default: OptionDefault::None,
            doc: "How many files of a bucket are open at once, each for a part of the splits, so that as many writer threads can share the \
                  work of one bucket. One if it is not given.",
        },
        OptionSpec {
            name: "write",
            kind: OptionKind::Select,
            default: OptionDefault::None,
            doc: "What is written of a record: columns as in `select`, such as `\"msg\"` or `\"* except (ts)\"`. The templates still see \
                  all of them. The whole record if it is not given, or empty.",
        },
        OptionSpec {
            name: "codec",
            kind: OptionKind::Choice(&["json", "txt", "raw", "parquet", "avro"]),
            default: OptionDefault::Value("json"),
            doc: "How records are written: a JSON object a line, a text a line, the bytes as they came a line, Parquet, or Avro's object \
                  container files.",
        },
        OptionSpec {
            name: "compression",
            kind: OptionKind::Choice(&["none", "gzip", "snappy", "bzip2", "zstd"]),
            default: OptionDefault::None,
            doc: "Without it `:none`; `:zstd` for the pages of Parquet, `:snappy` for the blocks of Avro. Files of lines are compressed \
                  with snappy as Hadoop does it. Parquet does not know bzip2.",
        },
        OptionSpec {
            name: "level",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "How hard to compress: 1 to 9 for gzip (6), 1 to 22 for zstd (3).",
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
            doc: "How often to look which files are due. A file that is full becomes visible then.",
        },
        OptionSpec {
            name: "max-open-files",
            kind: OptionKind::Count,
            default: OptionDefault::Value("256"),
            doc: "How many files are open at once. For one more, those that were used longest ago are closed.",
        },
        OptionSpec {
            name: "null-name",
            kind: OptionKind::Text,
            default: OptionDefault::Value("__HIVE_DEFAULT_PARTITION__"),
            doc: "What stands in the path for null.",
        },
        OptionSpec {
            name: "row-group",
            kind: OptionKind::Bytes,
            default: OptionDefault::Value("64MB"),
            doc: "The size of a Parquet file's row groups. They are buffered, so they get smaller when memory is short.",
        },
        OptionSpec {
            name: "move-to",
            kind: OptionKind::Map(MOVE_TO),
            default: OptionDefault::None,
            doc: "Where a file is moved after it has got its name. On one file system that is a rename. Onto another one it is copied \
                  under a name with a dot, and shows itself when the copy is complete and synced. Nothing is replaced: a name that is \
                  taken gets a digest.",
        },
        OptionSpec {
            name: "on-close",
            kind: OptionKind::Map(ON_CLOSE),
            default: OptionDefault::None,
            doc: "Who is told of each file that is in its last place: `{:command [\"prog\" \"arg\"]}` or `{:post \"http://host/path\"}`. \
                  The program's standard input, or the request's body, is one JSON object: `{\"pipeline\": …, \"sink\": …, \"path\": …, \
                  \"records\": …, \"bytes\": …, \"positions\": {SPLIT: {\"first\": …, \"upto\": …}}}`. The program also has the path in \
                  the variable PSEIDON_PATH, and runs in the folder of the pipeline file. Exit code 0, or a status of 2xx, is success. \
                  Otherwise it is called again after 1 s, 2 s … 1 min, without end; so it is called at least once for each file, and may \
                  be called twice for the same path.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::Value("quarantine"),
            doc: "What happens to a record that has no path or cannot be written.",
        },
    ],
    free_options: &["base-dir"],
    example: r#"(files {:path "out/{status}" :codec :json :compression :gzip :rollover {:size "128MB" :idle "30s"}})"#,
};

const ROLLOVER: &[OptionSpec] = &[
    OptionSpec {
        name: "size",
        kind: OptionKind::Bytes,
        default: OptionDefault::Value("128MB"),
        doc: "Bytes on disk, looked at after each batch.",
    },
    OptionSpec {
        name: "records",
        kind: OptionKind::Count,
        default: OptionDefault::None,
        doc: "Records.",
    },
    OptionSpec {
        name: "idle",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("60s"),
        doc: "How long nothing was written to the file.",
    },
    OptionSpec {
        name: "age",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("10m"),
        doc: "How long the file has been open.",
    },
    OptionSpec {
        name: "cron",
        kind: OptionKind::Checked(check_cron),
        default: OptionDefault::None,
        doc: "Times at which all open files are closed: `\"0 * * * *\"` (minute, hour, day, month, weekday; UTC).",
    },
];

fn check_cron(text: &str) -> Result<(), String> {
    Cron::parse(text).map(|_| ())
}

fn check_lanes(text: &str) -> Result<(), String> {
    match text.parse::<u32>() {
        Ok(1..=MOST_LANES) => Ok(()),
        _ => Err(format!("expected a number from 1 to {MOST_LANES}")),
    }
}

const MOVE_TO: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        kind: OptionKind::Template,
        default: OptionDefault::Required,
        doc: "The folder, absolute or relative to the pipeline file's: a template that is filled in for the file's first record, with the \
              same escapes as the sink's own.",
    },
    OptionSpec {
        name: "prefix",
        kind: OptionKind::Text,
        default: OptionDefault::None,
        doc: "What goes before the file's name, such as `${host:name}-`.",
    },
    OptionSpec {
        name: "check",
        kind: OptionKind::Bool,
        default: OptionDefault::Value("true"),
        doc: "Whether a Parquet file is opened before it is moved. One whose footer cannot be read, or does not fit the file or what was \
              written, is put aside, and counted in `pseidon_bad_records_total` with its records.",
    },
    OptionSpec {
        name: "quarantine",
        kind: OptionKind::Text,
        default: OptionDefault::None,
        doc: "The folder for such files; `quarantine` in the base directory if it is not given. `:on-close` is not called for them.",
    },
];

const ON_CLOSE: &[OptionSpec] = &[
    OptionSpec {
        name: "command",
        kind: OptionKind::Texts,
        default: OptionDefault::None,
        doc: "A program and its arguments.",
    },
    OptionSpec {
        name: "post",
        kind: OptionKind::Text,
        default: OptionDefault::None,
        doc: "An `http://` or `https://` URL.",
    },
    OptionSpec {
        name: "timeout",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("30s"),
        doc: "How long it may take; what takes longer has failed. A program is killed then, with all that it started.",
    },
];
