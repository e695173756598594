//! The options of the source `files`.

use std::path::Path;
use std::time::Duration;

use pseidon_dsl::Diagnostic;
use pseidon_formats::ColumnFormat;
use pseidon_plugin::format::{Format, SourceFormat};
use pseidon_plugin::options::kinds::{ByteSize, Pattern};
use pseidon_plugin::options::{
    Choice, OnError, Options, SchemaOption, SpannedValue, check_local_path,
};

use super::compression::InputCompression;
use super::glob::Glob;
use super::lines::StartPattern;

/// The upper limit of `:max-record`: a record and its block have to fit into memory many times
/// over.
const MAX_RECORD_BYTES: u64 = 1 << 30;

/// The options of the source `files`.
#[derive(Clone, Debug, Options)]
pub struct FilesSourceOptions {
    /// A path or a glob (`*`, `?`, `[ab]`, `**` for any folders), or several. Relative paths start
    /// at the pipeline file's folder.
    #[option(positional)]
    pub(super) path: SpannedValue<Vec<String>>,
    /// The records' format. The default depends on the names: `json` for `.json`, `.ndjson` and
    /// `.jsonl`, `csv` for `.csv`, `tsv` for `.tsv`, also with `.gz`, `.zst`, `.bz2`, `.xz`,
    /// `.lz4`, `.snappy`, `.sz`, a wildcard or a number behind it (`*.ndjson*`); `parquet` for
    /// `.parquet`; `avro` for `.avro`; `arrow` for `.arrow` and `.feather`; otherwise `txt`.
    pub(super) format: Option<SpannedValue<SourceFormat>>,
    /// The records' fields and their types, or `:infer` to infer them from the first records. The
    /// fields of Parquet, Avro and Arrow are those of the first file, if none are given.
    pub(super) schema: Option<SpannedValue<SchemaOption>>,
    /// How the files are compressed; `:auto` detects it from the first bytes of each file.
    #[option(default = "auto")]
    pub(super) compression: CompressionOption,
    /// Whether to wait for more lines and more files.
    #[option(default = "false")]
    pub(super) follow: bool,
    /// How often to look for new lines and files.
    #[option(default = "250ms")]
    pub(super) poll: Duration,
    /// Without `:follow`: whether the last line of a plain file is read if it has no line end, or
    /// with `:record-start` its last record.
    /// `:auto` reads a complete JSON object, and a line of another format if the file has not
    /// changed for 5 seconds; any other line waits for the next run, which the log says. `:wait`
    /// waits for the line end; `:take` reads the line. With `-e`, which has no next run, `:auto`
    /// is `:take`.
    #[option(default = "auto")]
    pub(super) last_line: LastLine,
    /// With `:follow`: where to begin in files that exist at the first start, or at the first one
    /// after `pseidon reset`. Compressed files are read from their start in any case, and so are
    /// files that are created later.
    #[option(free, default = "earliest")]
    pub(super) start: Start,
    /// A regular expression for the lines with which records begin, in the formats `txt` and `raw`:
    /// `#r"^\d{4}-"`. Lines after such a line that do not match belong to its record, with the line
    /// ends between them, as the lines of a stack trace do. Without it, each line is a record.
    /// Lines before the first one that matches are a record, and so is what remains at the end of a
    /// file: no record continues in another file. Without `:follow`, `:last-line` decides about the
    /// last record. Set it to `:wait` for a log that is still being written: lines that are appended
    /// to a record that was taken are a record of their own, and if the run was killed after that, a
    /// sink may lack them. (Vector: `multiline.start_pattern`; Filebeat:
    /// `multiline.pattern` with `negate: true` and `match: after`; Fluent Bit: the rule
    /// `start_state`.)
    pub(super) record_start: Option<SpannedValue<Pattern>>,
    /// The maximum length of a line, or of a record of several lines.
    #[option(default = "16MB")]
    pub(super) max_record: SpannedValue<ByteSize>,
    /// What happens to a longer record: `:report` reads no further in its file, which the run
    /// reports like a broken file; `:skip` drops the record, logs its position, and counts it as
    /// invalid. Other files are read in either case.
    #[option(default = "report")]
    pub(super) on_long_record: OnLongRecord,
    /// What happens to a file that cannot be read further: it is damaged or truncated, it may not
    /// be read, or it has a record that is too long. `:report` reads the other files, and then the
    /// run fails; with `:follow` it continues, and `/health` names the file. `:stop` stops the run
    /// at once. `:skip` logs a warning, and the run does not fail. `:quarantine` does the same, and
    /// quarantines a record with the reason and the file's path. In each case the records before
    /// that place are delivered, and the summary names the file.
    #[option(free, default = "report")]
    pub(super) on_broken_file: SpannedValue<OnBrokenFile>,
    /// What happens to a plain file that begins with everything that was read of a file that is
    /// gone: it may be a new file with the same beginning, or the same file that was replaced, as
    /// `rsync` and editors do, or moved to another disk. `:read` reads it from its start;
    /// `:continue` continues where the other one was left, and counts what every sink has as what
    /// was read. A plain copy of a log that is truncated (`copytruncate`) is continued too, but not
    /// with `:follow`.
    #[option(default = "read")]
    pub(super) on_replaced_file: OnReplacedFile,
    /// What happens to a record that does not match the format.
    #[option(default = "quarantine")]
    pub(super) on_error: OnError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum CompressionOption {
    Auto,
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    Lz4,
    Snappy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum OnLongRecord {
    Report,
    Skip,
}

/// What happens to a file that cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum OnBrokenFile {
    /// The run fails after the other files are read; if it follows files, it continues.
    Report,
    /// The run stops.
    Stop,
    /// The file is left behind.
    Skip,
    /// The file is left behind, and a record about it is quarantined.
    Quarantine,
}

/// What happens to a plain file that begins with everything that was read of a file that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum OnReplacedFile {
    /// It is a file of its own.
    Read,
    /// It is continued where the other one was left.
    Continue,
}

/// Whether a last line without a line end is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum LastLine {
    /// If it seems to be complete.
    Auto,
    /// Never: it waits for its line end.
    Wait,
    /// Always.
    Take,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum Start {
    Earliest,
    Latest,
}

impl FilesSourceOptions {
    pub(super) fn source_format(&self) -> SourceFormat {
        match &self.format {
            Some(format) => format.value.clone(),
            None => format_by_name(&self.path.value).into(),
        }
    }

    /// The format of the files, if they have columns instead of lines.
    pub(super) fn column_format(&self) -> Option<ColumnFormat> {
        ColumnFormat::of_name(self.source_format().name())
    }

    pub(super) fn errors(&self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        let paths = &self.path.value;
        if paths.is_empty() || paths.iter().any(String::is_empty) {
            let expected = "expected a path or a glob";
            errors.push(self.path.error("`:path` names no file", expected));
        }
        for path in paths {
            if let Err(error) = check_local_path(path, self.path.span) {
                errors.push(error);
                continue;
            }
            if let Err(error) = Glob::new(path, Path::new("")) {
                let message = format!("`{path}` is not a glob");
                errors.push(self.path.error(message, error.msg));
            }
        }
        if let Some(format) = self.column_format()
            && self.compression != CompressionOption::Auto
        {
            let error = self.path.error(
                format!("files of {} are not compressed as a whole", format.name()),
                "they compress their content themselves",
            );
            errors.push(error.with_help("leave out :compression"));
        }
        errors.extend(self.record_start_error());
        if !(1..=MAX_RECORD_BYTES).contains(&self.max_record.value.0) {
            let expected = "expected 1 byte to 1 GiB";
            errors.push(
                self.max_record
                    .error("`:max-record` is out of range", expected),
            );
        }
        if self.on_broken_file.value == OnBrokenFile::Quarantine && !quarantines(&self.on_error) {
            let error = self.on_broken_file.error(
                "this source has no quarantine",
                "it is where `:on-error` quarantines invalid records",
            );
            errors.push(error.with_help("set :on-error :quarantine"));
        }
        errors
    }

    /// The lines with which records begin, if that is not as the format says.
    pub(super) fn start_pattern(&self) -> Result<Option<StartPattern>, Diagnostic> {
        let Some(pattern) = &self.record_start else {
            return Ok(None);
        };
        let max_record = self.max_record.value.0 as usize;
        let compiled = StartPattern::new(&pattern.value.0, max_record);
        compiled.map(Some).map_err(|error| {
            pattern.error(
                "`:record-start` is not a regular expression",
                error.to_string(),
            )
        })
    }

    fn record_start_error(&self) -> Option<Diagnostic> {
        let pattern = self.record_start.as_ref()?;
        let format = self.source_format();
        let (why, help) = without_lines(format.name())?;
        let message = format!(
            "`:record-start` has no meaning in the format {}",
            format.name()
        );
        Some(pattern.error(message, why).with_help(help))
    }
}

/// Why `:record-start` has no meaning in this format, and what to do; `None` if it has one, and for
/// an unknown format, which is another error.
fn without_lines(format: &str) -> Option<(&'static str, &'static str)> {
    let (why, help) = match format {
        "json" => (
            "each line is a JSON value",
            "leave out :record-start; to join lines to records of text, set :format \"txt\"",
        ),
        "csv" | "tsv" => (
            "a field in quotes may contain line ends without it",
            "leave out :record-start",
        ),
        "parquet" | "avro" | "arrow" => ("it has rows instead of lines", "leave out :record-start"),
        "avro-txt" => ("its records are not text", "leave out :record-start"),
        _ => return None,
    };
    Some((why, help))
}

/// Whether invalid records are quarantined.
fn quarantines(on_error: &OnError) -> bool {
    match on_error {
        OnError::Quarantine { .. } => true,
        OnError::Retry { then, .. } => quarantines(then),
        OnError::Throw | OnError::Noop => false,
    }
}

/// The formats by ending.
const FORMATS: [(&str, &str); 9] = [
    ("parquet", "parquet"),
    ("avro", "avro"),
    ("arrow", "arrow"),
    ("feather", "arrow"),
    ("json", "json"),
    ("ndjson", "json"),
    ("jsonl", "json"),
    ("csv", "csv"),
    ("tsv", "tsv"),
];

/// The format that the endings of a path tell, such as `a.json.gz`, or `*.ndjson*` and
/// `a.ndjson.1` of logs that are rotated.
fn format_of(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next()?;
    let (_, endings) = name.split_once('.')?;
    for ending in endings.rsplit('.') {
        let ending = ending.trim_end_matches(['*', '?']);
        if let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == ending) {
            return Some(format);
        }
        let is_number = ending.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number && InputCompression::of_ending(ending).is_none() {
            return None;
        }
    }
    None
}

/// The default format for these paths: that of their endings if it is the same for all, else `txt`.
fn format_by_name(paths: &[String]) -> &'static str {
    let format = |path: &String| format_of(path).unwrap_or("txt");
    let mut formats = paths.iter().map(format);
    let first = formats.next().unwrap_or("txt");
    match formats.all(|format| format == first) {
        true => first,
        false => "txt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell_the_format() {
        for (path, format) in [
            ("a.json", "json"),
            ("logs/*.ndjson*", "json"),
            ("logs/app.ndjson.*", "json"),
            ("app.jsonl.1.gz", "json"),
            ("*.csv.gz", "csv"),
            ("x/part-*.parquet", "parquet"),
            ("a.json.txt", "txt"),
            ("json", "txt"),
            ("a.json/b", "txt"),
            ("a.json/*", "txt"),
            ("app.log*", "txt"),
            ("a.1", "txt"),
            ("*json", "txt"),
        ] {
            assert_eq!(format_by_name(&[path.to_owned()]), format, "{path}");
        }
        let paths = |paths: [&str; 2]| paths.map(str::to_owned);
        assert_eq!(format_by_name(&paths(["a.json", "b.ndjson"])), "json");
        assert_eq!(format_by_name(&paths(["a.json", "b.csv"])), "txt");
    }
}
