//! What the user says about a `files` sink.

use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::template::{Part as TemplatePart, Template};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::{CodecName, Compression, FileCodec, FileCodecSettings};
use pseidon_plugin::Options;
use pseidon_plugin::sink::SinkInput;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

use super::cron::Cron;
use super::rollover::Rollover;
use super::route::{Part, Router};
use super::staging::OPEN;

pub(super) static SPEC: PluginSpec = PluginSpec {
    name: "files",
    role: Role::Sink,
    summary: "Writes records into files, each record exactly once, and closes each file by itself.",
    details: "\
The path is a template: `out/{status}/date={at:%Y-%m-%d}` names a folder for each record, a bucket. A bucket has one open file at a time in
each writer; it is closed by whichever rule of `:rollover` comes first, and gets its name in the bucket's folder at that moment, complete and
for good: `clicks-3-000000001234.json.gz` is the file whose first record is at 1234 in partition 3 of `clicks`. Open files are below
`.pseidon-open` in the base directory, on the same file system; nothing of it is left when a run ends well.

A value cannot leave its folder: `/`, `%` and control characters are percent-encoded, and so is a dot at the beginning of a folder's name;
null, and what would be an empty name, become `:null-name`. Names of more than 200 bytes are cut and end with a digest.

When the disk is full, a folder has vanished or a permission is lost, the sink takes nothing in, says so, and tries again until it works.
Two pipelines may write into the same folders.",
    positional: Some("path"),
    options: &[
        OptionSpec {
            name: "path",
            kind: OptionKind::Template,
            default: OptionDefault::Required,
            doc: "The folder of a record's bucket. What stands before the first `{…}`, up to its last `/`, is the base directory.",
        },
        OptionSpec {
            name: "base-dir",
            kind: OptionKind::Texts,
            default: OptionDefault::None,
            doc: "The base directory, or several that are used in turn, such as one on each disk; `:path` is then relative to it.",
        },
        OptionSpec {
            name: "codec",
            kind: OptionKind::Choice(&["json", "txt", "raw", "parquet"]),
            default: OptionDefault::Value("json"),
            doc: "How records are written: a JSON object a line, a text a line, the bytes as they came, or Parquet.",
        },
        OptionSpec {
            name: "compression",
            kind: OptionKind::Choice(&["none", "gzip", "zstd"]),
            default: OptionDefault::None,
            doc: "`:none`; for Parquet, whose pages are compressed, `:zstd`.",
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
    OptionSpec { name: "records", kind: OptionKind::Count, default: OptionDefault::None, doc: "Records." },
    OptionSpec {
        name: "idle",
        kind: OptionKind::Duration,
        default: OptionDefault::Value("60s"),
        doc: "How long nothing was written to the file.",
    },
    OptionSpec { name: "age", kind: OptionKind::Duration, default: OptionDefault::Value("10m"), doc: "How long the file has been open." },
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

/// A sink's settings, checked.
pub(super) struct Settings {
    /// Absolute, or relative to the pipeline file's folder.
    pub(super) base_dirs: Vec<PathBuf>,
    pub(super) router: Router,
    pub(super) codec: FileCodec,
    pub(super) rollover: Rollover,
    pub(super) check_freq: Duration,
    pub(super) max_open_files: usize,
    /// The first expression of the path that does not always give the same.
    pub(super) nondeterminism: Option<String>,
}

impl Settings {
    /// Checks what the declaration does not.
    pub(super) fn new(options: &Options, input: &SinkInput) -> Result<Settings, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let path = options.template("path").map(|template| Path::new(template, options, input, &mut mistakes)).unwrap_or_default();
        let codec = codec(options, input).map_err(|mistake| mistakes.push(mistake)).ok();
        let rollover = options.map("rollover").and_then(|map| rollover(map).map_err(|mistake| mistakes.push(mistake)).ok());
        let max_open_files = options.count("max-open-files").unwrap_or_default() as usize;
        if max_open_files == 0 {
            mistakes.push(Diagnostic::new(options.span_of("max-open-files"), "no file could be open", "expected a number from 1 up"));
        }
        match (codec, rollover) {
            (Some(codec), Some(rollover)) if mistakes.is_empty() => Ok(Settings {
                base_dirs: path.base_dirs,
                router: Router { parts: path.parts, null_name: options.text("null-name").unwrap_or_default().to_owned() },
                codec,
                rollover,
                check_freq: options.duration("check-freq").unwrap_or_default().max(Duration::from_millis(1)),
                max_open_files,
                nondeterminism: path.nondeterminism,
            }),
            _ => Err(mistakes),
        }
    }
}

/// What the template says.
#[derive(Default)]
struct Path {
    base_dirs: Vec<PathBuf>,
    parts: Vec<Part>,
    nondeterminism: Option<String>,
}

impl Path {
    fn new(template: &Template, options: &Options, input: &SinkInput, mistakes: &mut Vec<Diagnostic>) -> Path {
        let span = options.span_of("path");
        let (base, below) = split_base(template);
        let base_dirs = match options.texts("base-dir") {
            None => vec![PathBuf::from(&base)],
            Some(dirs) => {
                if dirs.is_empty() || dirs.iter().any(String::is_empty) {
                    mistakes.push(Diagnostic::new(
                        options.span_of("base-dir"),
                        "`:base-dir` names no folder",
                        "expected one folder or more",
                    ));
                }
                if base.starts_with('/') {
                    mistakes.push(Diagnostic::new(span, "`:path` is absolute although there is a `:base-dir`", "expected a path below it"));
                }
                dirs.iter().map(PathBuf::from).collect()
            }
        };
        // With a base directory of its own, all of the template is the bucket's path.
        let mut literal = if options.texts("base-dir").is_some() { base } else { String::new() };
        let mut found = Path { base_dirs, parts: Vec::new(), nondeterminism: None };
        for part in below {
            match part {
                TemplatePart::Literal(text) => literal.push_str(&text),
                TemplatePart::Value { expr, format, .. } => {
                    if !literal.is_empty() {
                        found.parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    match pseidon_expr::compile(&expr, &input.scope) {
                        Ok(compiled) => {
                            if !compiled.is_deterministic() {
                                found.nondeterminism.get_or_insert_with(|| expr.to_string());
                            }
                            found.parts.push(Part::Value { expr: compiled, format });
                        }
                        Err(more) => mistakes.extend(more),
                    }
                }
            }
        }
        if !literal.is_empty() {
            found.parts.push(Part::Literal(literal));
        }
        check_literals(&found.parts, span, mistakes);
        found
    }
}

/// The template's base directory, with its last `/`, and what is below it. A template without values is all base.
fn split_base(template: &Template) -> (String, Vec<TemplatePart>) {
    let mut parts = template.parts.clone();
    match parts.first_mut() {
        Some(TemplatePart::Literal(text)) => {
            let base = match text.rfind('/') {
                _ if template.parts.len() == 1 => text.len(),
                Some(slash) => slash + 1,
                None => 0,
            };
            let below = text.split_off(base);
            let base = std::mem::replace(text, below);
            (base, parts)
        }
        _ => (String::new(), parts),
    }
}

/// The template itself must not lead out of the base directory either, nor into the hidden folder.
fn check_literals(parts: &[Part], span: Span, mistakes: &mut Vec<Diagnostic>) {
    let literals = parts.iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text),
        Part::Value { .. } => None,
    });
    for name in literals.flat_map(|text| text.split('/')) {
        if matches!(name, "." | ".." | OPEN) {
            let expected = "expected the name of a folder below the base directory";
            mistakes.push(Diagnostic::new(span, format!("`{name}` cannot be part of a bucket's path"), expected));
        }
    }
}

/// The folder below which a sink with these options writes, relative to the pipeline file's; the first if there are several.
pub(super) fn folder(options: &Options) -> Option<String> {
    match options.texts("base-dir") {
        Some(dirs) => dirs.first().cloned(),
        None => Some(split_base(options.template("path")?).0),
    }
    .map(|folder| if folder == "/" { folder } else { folder.trim_end_matches('/').to_owned() })
    .filter(|folder| !folder.is_empty())
}

fn codec(options: &Options, input: &SinkInput) -> Result<FileCodec, Diagnostic> {
    let wrong = |option: &str, reason: String| Diagnostic::new(options.span_of(option), "files cannot be written like this", reason);
    let codec: CodecName = options.text("codec").unwrap_or_default().parse().map_err(|reason| wrong("codec", reason))?;
    let compression = match options.text("compression") {
        None => codec.default_compression(),
        Some(name) => name.parse::<Compression>().map_err(|reason| wrong("compression", reason))?,
    };
    let level = options.count("level").map(|level| i32::try_from(level).unwrap_or(i32::MAX));
    let row_group_bytes = usize::try_from(options.count("row-group").unwrap_or_default()).unwrap_or(usize::MAX);
    FileCodec::new(FileCodecSettings { codec, compression, level, row_group_bytes }, input).map_err(|reason| wrong("codec", reason))
}

fn rollover(options: &Options) -> Result<Rollover, Diagnostic> {
    let cron = match options.text("cron").map(Cron::parse) {
        None => None,
        Some(Ok(cron)) => Some(cron),
        Some(Err(reason)) => return Err(Diagnostic::new(options.span_of("cron"), "`:cron` has a wrong value", reason)),
    };
    if options.count("records") == Some(0) {
        return Err(Diagnostic::new(options.span_of("records"), "a file cannot have 0 records", "expected a number from 1 up"));
    }
    Ok(Rollover {
        size: options.count("size").unwrap_or_default(),
        records: options.count("records"),
        idle: options.duration("idle").unwrap_or_default(),
        age: options.duration("age").unwrap_or_default(),
        cron,
    })
}
