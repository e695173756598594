//! The source `files`: reads lines from existing files, or from files that grow.
//!
//! - [`glob`]: which files are read; [`identity`]: recognizes a file under another name. A file is
//!   a split.
//! - [`compression`] and [`lines`]: from a file to batches of lines. A record's position is the
//!   byte of the (decompressed) content at which its line starts. [`read_error`]: why a file cannot
//!   be read.
//! - [`progress`]: how far a file was read, and how a rewritten file is detected.
//! - [`once`]: reads all files as they are and exits; [`follow`]: reads them, waits for more, and
//!   follows them through rotations.

mod compression;
mod follow;
mod glob;
mod identity;
mod lines;
mod once;
mod progress;
mod read_error;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::SchemaOption;
use pseidon_plugin::source::{
    Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_plugin::{Options, Split};

use self::compression::{Compression, Stream};
use self::glob::Glob;
use self::lines::{BLOCK_BYTES, Limits, LineReader};
use self::progress::Tail;
use self::read_error::ReadError;

/// The upper limit of `:max-record`: a record and its block have to fit into memory many times
/// over.
const MAX_RECORD_BYTES: u64 = 1 << 30;

static SPEC: PluginSpec = PluginSpec {
    name: "files",
    role: Role::Source,
    summary: "Reads lines from files, once or as they grow.",
    details: "\
Each line is a record; empty lines are skipped, and `\\r\\n` ends a line like `\\n`. Files
compressed with gzip (of several members) or Zstandard (of several frames) are detected by their
first bytes.

Without `:follow` the matching files are read as they are, including a last line without a line end,
and then the run exits. The next run reads only new content: new files, lines that were appended to
plain files, and plain files that were rewritten.

With `:follow` the source runs until it is stopped: it reads lines that are appended to the files,
and new files. A file is identified by its inode, its creation time and its first line, so it may be
renamed. When a file is rotated to a name that no glob matches, or deleted, it is read to its end,
and closed when nothing has been appended for five minutes. A file that is truncated and rewritten
(`copytruncate`) is read from its start. A compressed file is read when it has stopped growing. Let
the globs match either the rotated logs or their compressed copies (`app.log*` matches both): a copy
is another file.

A plain file counts as rewritten when it is shorter than the part that was read of it, or when its
first line or one of the 64 bytes before the position up to which it was read has changed.

`@topic` is the file's path, relative to the pipeline file's folder, at the time when the run found
the file.",
    positional: Some("path"),
    options: &[
        OptionSpec {
            name: "path",
            kind: OptionKind::Strings,
            default: OptionDefault::Required,
            doc: "A path or a glob (`*`, `?`, `[ab]`, `**` for any folders), or several. Relative \
                 paths start at the pipeline file's folder.",
        },
        OptionSpec {
            name: "format",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The records' format. The default depends on the names: `json` for `.json`, \
                 `.ndjson` and `.jsonl`, also with `.gz` or `.zst`; otherwise `txt`.",
        },
        OptionSpec {
            name: "schema",
            kind: OptionKind::Schema,
            default: OptionDefault::None,
            doc: "The records' fields and their types, or `:infer` to infer them from the first \
                 records.",
        },
        OptionSpec {
            name: "compression",
            kind: OptionKind::Choice(&["auto", "none", "gzip", "zstd"]),
            default: OptionDefault::Value("auto"),
            doc: "How the files are compressed; `:auto` detects it from the first bytes of each \
                 file.",
        },
        OptionSpec {
            name: "follow",
            kind: OptionKind::Bool,
            default: OptionDefault::Value("false"),
            doc: "Whether to wait for more lines and more files.",
        },
        OptionSpec {
            name: "poll",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("250ms"),
            doc: "How often to look for new lines and files.",
        },
        OptionSpec {
            name: "start",
            kind: OptionKind::Choice(&["earliest", "latest"]),
            default: OptionDefault::Value("earliest"),
            doc: "With `:follow`: where to begin in files that exist at the first start. Files \
                 that are created later are read from their start.",
        },
        OptionSpec {
            name: "max-record",
            kind: OptionKind::Bytes,
            default: OptionDefault::Value("16MB"),
            doc: "The maximum length of a line. A longer line stops the run with an error: a \
                 truncated record would lose data.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::Value("quarantine"),
            doc: "What happens to a record that does not match the format.",
        },
    ],
    free_options: &["start"],
    example: r#"(files {:path "logs/*.json.gz" :format "json"})"#,
};

/// The source `files`.
pub struct FilesSource;

impl SourcePlugin for FilesSource {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let paths = options.strings("path").unwrap_or_default();
        let mut errors = Vec::new();
        if paths.is_empty() || paths.iter().any(|path| path.is_empty()) {
            errors.push(Diagnostic::new(
                options.span_of("path"),
                "`:path` names no file",
                "expected a path or a glob",
            ));
        }
        for path in paths {
            if let Err(error) = Glob::new(path, Path::new("")) {
                errors.push(Diagnostic::new(
                    options.span_of("path"),
                    format!("`{path}` is not a glob"),
                    error.msg,
                ));
            }
        }
        let max_record = options.integer("max-record").unwrap_or_default();
        if !(1..=MAX_RECORD_BYTES).contains(&max_record) {
            errors.push(Diagnostic::new(
                options.span_of("max-record"),
                "`:max-record` is out of range",
                "expected 1 byte to 1 GiB",
            ));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Arc::new(PreparedFiles {
            format: options
                .string("format")
                .map_or_else(|| format_by_name(paths), str::to_owned),
            schema: options.schema("schema").cloned(),
            config: Config {
                paths: paths.to_vec(),
                compression: match options.string("compression") {
                    Some("none") => Some(Compression::None),
                    Some("gzip") => Some(Compression::Gzip),
                    Some("zstd") => Some(Compression::Zstd),
                    _ => None,
                },
                limits: Limits {
                    block: BLOCK_BYTES,
                    max_record: max_record as usize,
                },
            },
            follow: options
                .bool("follow")
                .unwrap_or_default()
                .then(|| follow::Settings {
                    poll: options
                        .duration("poll")
                        .unwrap_or_default()
                        .max(Duration::from_millis(1)),
                    from_latest: options.string("start") == Some("latest"),
                    drained_after: follow::DRAINED_AFTER,
                }),
        }))
    }
}

/// The default format for these paths: `json` if the extension of each is one of JSON, else `txt`.
fn format_by_name(paths: &[String]) -> String {
    let is_json = |path: &String| {
        let plain = path
            .strip_suffix(".gz")
            .or_else(|| path.strip_suffix(".zst"))
            .unwrap_or(path);
        [".json", ".ndjson", ".jsonl"]
            .iter()
            .any(|extension| plain.ends_with(extension))
    };
    if paths.iter().all(is_json) {
        "json".to_owned()
    } else {
        "txt".to_owned()
    }
}

struct PreparedFiles {
    format: String,
    schema: Option<SchemaOption>,
    config: Config,
    /// `None` reads the files as they are.
    follow: Option<follow::Settings>,
}

/// The settings of both modes, [`once`] and [`follow`].
#[derive(Clone, Debug)]
struct Config {
    paths: Vec<String>,
    /// `None` detects it for each file.
    compression: Option<Compression>,
    limits: Limits,
}

impl Source for PreparedFiles {
    fn facts(&self) -> SourceFacts {
        let schema = match &self.schema {
            Some(SchemaOption::Fields(schema)) => Some(schema.clone()),
            Some(SchemaOption::Infer) | None => None,
        };
        SourceFacts {
            format: self.format.clone(),
            schema,
            not_rereadable: None,
            finite: self.follow.is_none(),
            topic_may_change: self.follow.is_some(),
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError> {
        let mut records = Vec::new();
        let split = Arc::new(Split {
            id: "sample".into(),
            topic: String::new(),
            partition: 0,
        });
        for (path, shown) in self.config.find(setup)? {
            let failed =
                |error: ReadError| SourceError::Fatal(format!("cannot read {shown}: {error}"));
            let file = File::open(&path).map_err(|error| failed(error.into()))?;
            let mut reader = self
                .config
                .open(file, &path, 0)
                .map_err(|error| failed(error.into()))?;
            while records.len() < count {
                let block = match reader.next_block().map_err(failed)? {
                    Some(block) => Some(block),
                    None => reader.last_line().map_err(failed)?,
                };
                let Some(block) = block else { break };
                for batch in block.batches(&split) {
                    let missing = count - records.len();
                    records.extend(
                        (0..batch.len().min(missing))
                            .filter_map(|row| batch.payloads.get_bytes(row)),
                    );
                }
            }
        }
        if records.is_empty() {
            return Err(SourceError::Fatal(format!(
                "no records yet in {}",
                self.config.paths.join(", ")
            )));
        }
        Ok(records)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
        match &self.follow {
            None => once::run(&self.config, setup, &handle),
            Some(settings) => follow::run(&self.config, settings, setup, &handle),
        }
    }
}

impl Config {
    fn globs(&self, setup: &SourceSetup) -> Result<Vec<Glob>, SourceError> {
        let glob = |text: &String| {
            Glob::new(text, &setup.base)
                .map_err(|error| SourceError::Fatal(format!("`{text}` is not a glob: {error}")))
        };
        self.paths.iter().map(glob).collect()
    }

    /// The files that exist now, each with its path for messages and `@topic`.
    fn find(&self, setup: &SourceSetup) -> Result<BTreeSet<(PathBuf, String)>, SourceError> {
        let mut found = BTreeSet::new();
        for glob in self.globs(setup)? {
            let paths = glob
                .find()
                .map_err(|error| SourceError::Fatal(error.to_string()))?;
            if paths.is_empty() && glob.is_one_file() && self.paths.len() == 1 {
                return Err(SourceError::Fatal(format!(
                    "file not found: {}",
                    self.paths.join(", ")
                )));
            }
            found.extend(
                paths
                    .into_iter()
                    .map(|path| (glob.display_path(&path), path))
                    .map(|(shown, path)| (path, shown)),
            );
        }
        Ok(found)
    }

    fn compression_of(&self, file: &File, path: &Path) -> io::Result<Compression> {
        self.compression
            .map_or_else(|| Compression::of(file, path), Ok)
    }

    /// Opens a reader of the file's lines, beginning at `position`.
    fn open(&self, file: File, path: &Path, position: u64) -> io::Result<LineReader> {
        let compression = self.compression_of(&file, path)?;
        let before = match compression {
            Compression::None => Tail::of(&file, position)?,
            _ => Tail::unknown(position),
        };
        Ok(LineReader::new(
            Stream::open(file, compression, position)?,
            before,
            self.limits,
        ))
    }
}

#[cfg(test)]
mod tests;
