//! The source `files`: reads lines from existing files, or from files that grow.
//!
//! - [`options`]: its options. [`glob`]: which files are read; [`identity`]: recognizes a file
//!   under another name, and [`recognition`] one whose first line has become longer or that was
//!   compressed. A file is a split.
//! - [`compression`] and [`lines`]: from a file to batches of lines. A record's position is the
//!   byte of the (decompressed) content at which its line starts. [`reader`]: the same for a file of
//!   lines or of columns, whose rows have their numbers as positions. [`read_error`]: why a file
//!   cannot be read; [`skipped`]: reports of records that are too long.
//! - [`progress`]: how far a file was read, and how a rewritten file is detected: by a digest of its
//!   [`content`] ([`tail`]), and a [`snapshot`] of a file that was read to its end. [`stat`]: what its metadata
//!   shows.
//! - [`once`]: reads all files as they are and exits; [`follow`]: reads them, waits for more, and
//!   follows them through rotations.
//! - [`samples`]: the first records, from which fields are inferred.
//! - [`damage`]: files that cannot be read further, in the quarantine.
//! - [`operator`]: the files as an operator sees them.

mod compression;
mod content;
mod damage;
mod follow;
mod glob;
mod identity;
mod lines;
mod lz4;
mod members;
mod once;
mod operator;
mod options;
mod place;
mod progress;
mod read_error;
mod reader;
mod recognition;
mod samples;
mod skipped;
mod snappy;
mod snapshot;
mod stat;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pseidon_delivery::Reason;
use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::{ColumnFormat, UsedValues};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::SourceFormat;
use pseidon_plugin::framing::Framing;
use pseidon_plugin::options::{OnError, Options, SchemaOption, SpannedValue};
use pseidon_plugin::source::{
    KnownSplit, MoveTo, RecordPlace, Reread, Source, SourceError, SourceExit, SourceFacts,
    SourceHandle, SourcePlugin, SourceSetup, SplitStatus, SplitTarget,
};
use pseidon_plugin::spec::{PluginSpec, Role};

use self::compression::{InputCompression, Stream};
use self::glob::Glob;
use self::lines::{BLOCK_BYTES, Limits, LineReader, RecordFraming, StartPattern};
use self::operator::OperatorView;
pub use self::options::FilesSourceOptions;
use self::options::{
    CompressionOption, LastLine, OnBrokenFile, OnLongRecord, OnReplacedFile, Start,
};
use self::read_error::ReadError;
use self::reader::FileReader;
use self::tail::Tail;

/// How many bytes are read at once to find a header.
const HEADER_BLOCK_BYTES: usize = 64 << 10;

static SPEC: PluginSpec = PluginSpec {
    name: "files",
    role: Role::Source,
    summary: "Reads lines, Parquet, Avro and Arrow from files, once or as they grow.",
    details: "\
Each line is a record; empty lines are skipped, and `\\r\\n` ends a line like `\\n`. In the
formats `csv` and `tsv` a field in quotes may contain line ends, and the first line of each file is
its header. Files compressed with gzip (of several members), Zstandard and LZ4 (of several frames),
bzip2 and xz (of several streams) and frames of snappy are detected by their first bytes, and those
with Hadoop's snappy by `.snappy`. Those of other programs (zip, zlib, LZMA, `.Z`, …) are refused by
the name of their compression. A path must not match what the pipeline itself writes.
The formats `parquet`, `avro` and `arrow` have rows instead of lines. A file of Parquet or Arrow is
read when it is complete. An Avro file is read up to the end of its last block, and blocks that are
appended to it are read later.

Without `:follow` the matching files are read as they are, and then the run exits. The next run
reads only new content: new files, lines that were appended to plain files, and plain files that
were rewritten. The last line of a plain file may be incomplete if it has no line end: `:last-line`
decides whether it is read now. A line that is read without its end is a record, and what is
appended to it later is another one.

With `:record-start` a record may have several lines. Its end is known when the next record begins.
Until then the last record of a plain file waits: without `:follow` as `:last-line` says; with it
until the file is truncated, compressed or deleted, or is rotated to a name that no glob matches and
has not grown for five minutes.

With `:follow` the source runs until it is stopped: it reads lines that are appended to the files,
and new files. A file is identified by its inode, its creation time and its first line, so it may be
renamed. When a file is rotated to a name that no glob matches, or deleted, it is read to its end,
and closed when nothing has been appended for five minutes. A file that is truncated and rewritten
(`copytruncate`) is read from its start. A compressed file is read when it has stopped growing.

A log and its compressed copy are one file, also without `:follow`, so a glob may match both
(`app.log*`). When the log is gone or was truncated, one compressed file whose content begins with
everything that was read of it is continued at that place. If several files do, it is the one that
has no more content than that, or the first one by name, and the others are read from their start.
As long as the log exists, a compressed file in the same folder whose name is that of the log with a
suffix (`app.log.1.gz`, `app.log-20240131.gz`), and whose content is the beginning of it, is left
out. If such a file ends early, it may still be being written: with `:follow` it is compared again
when it has grown, and without `:follow` it is reported as a file that cannot be read. The state
keeps the entry of a log that is gone for `:forget-after`.

A file that cannot be read further keeps no other file from being read: it is damaged or
truncated, it may not be read, or it has a record longer than `:max-record`. The records before
that place are delivered, and `:on-broken-file` decides what happens then. By default the run
fails with exit code 1 after the others are read; with `:follow` it continues, and `/health` names
the file. With `:follow`, a compressed file that ends early may still be being written: it counts
as truncated when it has not grown for five minutes. In each case the file is tried again when it
has changed, and at the next start. If the content before the place where reading stopped is the
same, reading continues there. Otherwise the file counts as rewritten, and is read from its start.

A file that was written again in place counts as rewritten, and is read from its start: a plain file
that is shorter than the part that was read of it, or in which a byte of that part has changed; a
compressed file that was read to its end and whose size is smaller or whose bytes have changed; and
a compressed file that was read in part and whose content before that place has changed. All of the
first 4 MiB are compared, at least the last MiB, and samples of the bytes between. Files whose size
and time of change are as they were are not compared. While a file is followed and grows, only its
first line and the last 64 bytes that were read are compared, if it is larger than 64 KiB. A
compressed file that was appended to after it was read to its end is an error.

`@topic` is the file's path, relative to the pipeline file's folder, at the time when the run found
the file. In a path that is not UTF-8, each byte that is not, and `%`, is written as `%` and two
hexadecimal digits, as `bad%FF.json`.",
    positional: FilesSourceOptions::POSITIONAL,
    options: FilesSourceOptions::DECLARED,
    example: r#"(files {:path "logs/*.json.gz" :format "json"})"#,
};

/// The source `files`.
pub struct FilesSource;

impl SourcePlugin for FilesSource {
    type Options = FilesSourceOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &FilesSourceOptions) -> OnError {
        options.on_error.clone()
    }

    fn prepare(&self, options: &FilesSourceOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let errors = options.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        let paths = &options.path.value;
        Ok(Arc::new(PreparedFilesSource {
            record_start: options.start_pattern().map_err(|error| vec![error])?,
            format: options.source_format(),
            format_span: options.format.as_ref().map(|format| format.span),
            schema: options.schema.clone(),
            path_span: options.path.span,
            config: Config {
                paths: paths.clone(),
                used: UsedValues::default(),
                columns: options.column_format(),
                compression: match options.compression {
                    CompressionOption::Auto => None,
                    CompressionOption::None => Some(InputCompression::None),
                    CompressionOption::Gzip => Some(InputCompression::Gzip),
                    CompressionOption::Zstd => Some(InputCompression::Zstd),
                    CompressionOption::Bzip2 => Some(InputCompression::Bzip2),
                    CompressionOption::Xz => Some(InputCompression::Xz),
                    CompressionOption::Lz4 => Some(InputCompression::Lz4),
                    CompressionOption::Snappy => Some(InputCompression::Snappy),
                },
                limits: Limits {
                    block: BLOCK_BYTES,
                    max_record: options.max_record.value.0 as usize,
                    skips_longer: options.on_long_record == OnLongRecord::Skip,
                },
                framing: RecordFraming::Format(Framing::default()),
                last_line: options.last_line,
                on_broken: options.on_broken_file.value,
                on_replaced: options.on_replaced_file,
            },
            follow: options.follow.then(|| follow::Settings {
                poll: options.poll.max(Duration::from_millis(1)),
                from_latest: options.start == Start::Latest,
                drained_after: follow::DRAINED_AFTER,
            }),
        }))
    }
}

struct PreparedFilesSource {
    format: SourceFormat,
    format_span: Option<Span>,
    schema: Option<SpannedValue<SchemaOption>>,
    path_span: Span,
    /// The lines with which records begin, if it is not as the format says.
    record_start: Option<StartPattern>,
    config: Config,
    /// `None` reads the files as they are.
    follow: Option<follow::Settings>,
}

/// The settings of both modes, [`once`] and [`follow`].
#[derive(Clone, Debug)]
struct Config {
    paths: Vec<String>,
    /// The format of files that have columns instead of lines.
    columns: Option<ColumnFormat>,
    /// What is used of these, which is known when the source runs.
    used: UsedValues,
    /// `None` detects it for each file.
    compression: Option<InputCompression>,
    limits: Limits,
    /// That of the format is known when the source runs.
    framing: RecordFraming,
    /// Without `:follow`.
    last_line: LastLine,
    /// What happens to a file that cannot be read further.
    on_broken: OnBrokenFile,
    /// What happens to a file that replaces another one.
    on_replaced: OnReplacedFile,
}

impl Source for PreparedFilesSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.format.clone(),
            format_span: self.format_span,
            schema: self.schema.as_ref().and_then(SpannedValue::fields),
            infer: self.infer(),
            splits_bytes: true,
            reads_columns: true,
            reread: Reread::Exact,
            finite: self.follow.is_none(),
            topic_may_change: self.follow.is_some(),
        }
    }

    fn place_of(&self, base: &Path, record: &RecordPlace) -> String {
        if self.config.columns.is_some() {
            return format!("{}, row {}", record.topic, record.position + 1);
        }
        place::place_of(base, record, self.config.compression)
    }

    fn reads_written(
        &self,
        base: &Path,
        written: &dyn Fn(&str) -> Vec<PathBuf>,
    ) -> Option<PathBuf> {
        let paths = self.config.paths.iter();
        let mut globs = paths.filter_map(|path| Glob::new(path, base).ok());
        globs.find_map(|glob| {
            let mut files = written(&glob.example_name()).into_iter();
            files.find(|file| glob.would_match(file))
        })
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError> {
        self.config(setup).sample(setup, count)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        let config = Config {
            used: UsedValues {
                fields: (!setup.takes_new_fields).then(|| setup.fields.clone()),
                bounds: setup.bounds.clone(),
            },
            ..self.config(setup)
        };
        match &self.follow {
            None => Ok(once::run(&config, setup, &handle)?),
            Some(settings) => follow::run(&config, settings, setup, &handle),
        }
    }

    fn describe_splits(
        &self,
        setup: &SourceSetup,
        known: &[KnownSplit],
    ) -> Result<Vec<SplitStatus>, SourceError> {
        Ok(self.operator_view(setup, |view| view.describe(known)))
    }

    fn find_places(
        &self,
        setup: &SourceSetup,
        known: &[KnownSplit],
        to: MoveTo,
    ) -> Result<Vec<SplitTarget>, SourceError> {
        Ok(self.operator_view(setup, |view| view.find_places(known, to)))
    }
}

impl PreparedFilesSource {
    /// The position that asks for the fields of the files.
    fn infer(&self) -> Option<Span> {
        match &self.schema {
            Some(schema) => schema.infer(),
            None => self.config.columns.map(|_| self.path_span),
        }
    }

    /// The result of `look` at the files as an operator sees them.
    fn operator_view<T>(
        &self,
        setup: &SourceSetup,
        look: impl FnOnce(&OperatorView<'_>) -> T,
    ) -> T {
        look(&OperatorView {
            config: &self.config(setup),
            setup,
            from_latest: self.follow.is_some_and(|follow| follow.from_latest),
        })
    }

    /// The settings, with what is known when the source runs.
    fn config(&self, setup: &SourceSetup) -> Config {
        let last_line = match self.config.last_line {
            LastLine::Auto if !setup.keeps_state => LastLine::Take,
            other => other,
        };
        Config {
            framing: match &self.record_start {
                None => RecordFraming::Format(setup.framing),
                Some(pattern) => RecordFraming::Pattern(pattern.clone()),
            },
            last_line,
            ..self.config.clone()
        }
    }
}

/// The files that the globs of a source find.
#[derive(Debug, Default)]
struct FoundFiles {
    /// The files, each with its path for messages and `@topic`.
    files: BTreeSet<(PathBuf, String)>,
    /// The folders and files that this process may not read, by their paths for messages.
    refused: BTreeMap<String, io::Error>,
    /// Pipes, sockets and devices, which are not read.
    special: BTreeSet<String>,
    /// The paths without wildcards that are not those of files, each with the reason.
    missing: BTreeMap<String, String>,
}

/// The reason for which the first of several files cannot be read.
fn and_more(first: Reason, more: usize) -> Reason {
    match more {
        0 => first,
        more => first.followed_by(format!(" (and {more} more cannot be read)")),
    }
}

impl Config {
    fn globs(&self, setup: &SourceSetup) -> Result<Vec<Glob>, SourceError> {
        let glob = |text: &String| {
            Glob::new(text, &setup.base).map_err(|error| {
                SourceError::Fatal(Reason::caused_by(format!("`{text}` is not a glob"), error))
            })
        };
        self.paths.iter().map(glob).collect()
    }

    /// The files that exist now.
    fn find(&self, setup: &SourceSetup) -> Result<FoundFiles, SourceError> {
        let mut all = FoundFiles::default();
        for glob in self.globs(setup)? {
            let found = glob
                .find()
                .map_err(|error| SourceError::Fatal(Reason::of(error)))?;
            let is_missing = found.files.is_empty() && found.refused.is_empty();
            if is_missing && glob.is_one_file() {
                let path = glob.text();
                let reason = match found.special.is_empty() {
                    _ if setup.base.join(path).is_dir() => {
                        let files = format!("{}/*", path.trim_end_matches('/'));
                        format!("{path} is a directory: for its files, write `{files}`")
                    }
                    true => format!("file not found: {path}"),
                    false => format!("{path} is not a file: use the source `stdin`"),
                };
                all.missing.insert(path.to_owned(), reason);
                continue;
            }
            let special = found.special.iter().map(|path| glob.display_path(path));
            all.special.extend(special);
            let named = |path: PathBuf| {
                let shown = glob.display_path(&path);
                (path, shown)
            };
            all.files.extend(found.files.into_iter().map(named));
            let refused = found.refused.into_iter();
            all.refused
                .extend(refused.map(|(path, error)| (glob.display_path(&path), error)));
        }
        let is_any_found = !all.files.is_empty() || !all.refused.is_empty();
        match all.missing.first_key_value() {
            Some((_, reason)) if !is_any_found => {
                let more = all.missing.len() - 1;
                let reason = Reason::from(reason.clone());
                Err(SourceError::Fatal(and_more(reason, more)))
            }
            _ => Ok(all),
        }
    }

    fn compression_of(&self, file: &File, path: &Path) -> io::Result<InputCompression> {
        match (self.columns, self.compression) {
            (Some(format), _) => Ok(InputCompression::Columns(format)),
            (None, Some(compression)) => Ok(compression),
            (None, None) => InputCompression::of(file, path),
        }
    }

    /// Opens a reader of the file's records, beginning at `position`.
    fn open(&self, file: File, path: &Path, position: u64) -> Result<FileReader, ReadError> {
        let compression = self.compression_of(&file, path)?;
        let before = match compression {
            InputCompression::None => Tail::of(&file, position)?,
            _ => Tail::unknown(position),
        };
        FileReader::open(file, self, compression, before)
    }

    /// Creates a reader of the file's lines after the bytes `before`.
    fn line_reader(
        &self,
        file: File,
        compression: InputCompression,
        before: Tail,
    ) -> Result<LineReader, ReadError> {
        let is_header_behind = self.framing.has_header() && before.upto() > 0;
        let header = match is_header_behind {
            true => self.header_of(&file, compression)?,
            false => None,
        };
        let (stream, before) = match compression {
            InputCompression::None => (Stream::open(file, compression, before.upto())?, before),
            _ => before
                .open_after(file, compression)?
                .ok_or(ReadError::Rewritten)?,
        };
        let reader = LineReader::new(stream, before, self.limits, self.framing.clone());
        Ok(reader.with_header(header))
    }

    /// The header at the beginning of the file.
    fn header_of(
        &self,
        mut file: &File,
        compression: InputCompression,
    ) -> Result<Option<Bytes>, ReadError> {
        let limits = Limits {
            block: HEADER_BLOCK_BYTES,
            ..self.limits
        };
        let stream = Stream::open(file.try_clone()?, compression, 0)?;
        let reader = LineReader::new(stream, Tail::unknown(0), limits, self.framing.clone());
        let header = reader.into_header()?;
        // A clone has the same cursor, which a decoder moves.
        file.rewind()?;
        Ok(header)
    }
}

#[cfg(test)]
mod tests;
