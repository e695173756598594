//! A sink's settings, checked.

use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::template::{Part, Template as WrittenTemplate};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::{CodecName, Compression, FileCodec, FileCodecSettings};
use pseidon_plugin::Options;
use pseidon_plugin::rollover::{Cron, Rollover};
use pseidon_plugin::sink::{RecordShape, SinkInput};

use super::hook::{Hook, Way};
use super::route::Router;
use super::staging::OPEN;
use super::template::Template;
use super::written::Written;

/// The longest `:prefix` in bytes; file systems allow names of 255.
const LONGEST_PREFIX: usize = 64;

/// A sink's settings, checked.
pub(super) struct Settings {
    /// Absolute, or relative to the pipeline file's folder.
    pub(super) base_dirs: Vec<PathBuf>,
    pub(super) router: Router,
    pub(super) codec: FileCodec,
    pub(super) rollover: Rollover,
    pub(super) check_freq: Duration,
    pub(super) max_open_files: usize,
    pub(super) move_to: Option<MoveTo>,
    /// Who is called for each file.
    pub(super) hook: Option<Hook>,
    /// The first expression that decides about lanes or contents and does not always give the same.
    pub(super) nondeterminism: Option<String>,
}

/// Where files are moved; the router knows the rest of the folder's name. Paths are absolute, or
/// relative to the pipeline file's folder.
#[derive(Clone, Debug)]
pub(super) struct MoveTo {
    /// The folder with which the template begins.
    pub(super) folder: PathBuf,
    /// What goes before a file's name.
    pub(super) prefix: String,
    /// Whether Parquet files are looked at.
    pub(super) check: bool,
    /// Where the broken ones go, if not below the base directory.
    pub(super) quarantine: Option<PathBuf>,
}

impl Settings {
    /// Checks what the declaration does not.
    pub(super) fn new(options: &Options, input: &SinkInput) -> Result<Settings, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let (base_dirs, path) = path(options, input, &mut mistakes);
        let name = name(options, input, &mut mistakes);
        let items = options.select("write").unwrap_or_default();
        let written = if items.is_empty() {
            None
        } else {
            Written::new(items, input, &mut mistakes)
        };
        // Of columns with mistakes nothing can be said about how to write them.
        let codec = match (items, &written) {
            ([_, ..], None) => None,
            _ => codec(options, input, written.as_ref())
                .map_err(|mistake| mistakes.push(mistake))
                .ok(),
        };
        let rollover = options
            .map("rollover")
            .and_then(|map| rollover(map).map_err(|mistake| mistakes.push(mistake)).ok());
        let (move_to, destination) = match options.map("move-to") {
            None => (None, None),
            Some(map) => {
                let (move_to, destination) = move_to(map, input, &mut mistakes);
                (Some(move_to), Some(destination))
            }
        };
        let hook = options
            .map("on-close")
            .and_then(|map| hook(map).map_err(|mistake| mistakes.push(mistake)).ok());
        let max_open_files = options.count("max-open-files").unwrap_or_default() as usize;
        if max_open_files == 0 {
            mistakes.push(Diagnostic::new(
                options.span_of("max-open-files"),
                "no file could be open",
                "expected a number from 1 up",
            ));
        }
        let nondeterminism = [Some(&path), name.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|template| template.nondeterminism.clone());
        match (codec, rollover) {
            (Some(codec), Some(rollover)) if mistakes.is_empty() => Ok(Settings {
                base_dirs,
                nondeterminism: nondeterminism.or_else(|| written.as_ref()?.nondeterminism.clone()),
                router: Router {
                    path,
                    name,
                    destination,
                    written,
                    lanes: options
                        .text("lanes")
                        .and_then(|lanes| lanes.parse().ok())
                        .unwrap_or(1),
                    null_name: options.text("null-name").unwrap_or_default().to_owned(),
                },
                codec,
                rollover,
                check_freq: options
                    .duration("check-freq")
                    .unwrap_or_default()
                    .max(Duration::from_millis(1)),
                max_open_files,
                move_to,
                hook,
            }),
            _ => Err(mistakes),
        }
    }
}

/// The base directories, and a bucket's path below them.
fn path(
    options: &Options,
    input: &SinkInput,
    mistakes: &mut Vec<Diagnostic>,
) -> (Vec<PathBuf>, Template) {
    let span = options.span_of("path");
    let (base, mut below) = options.template("path").map(split_base).unwrap_or_default();
    let base_dirs = match options.texts("base-dir") {
        None => {
            if options.template("path").is_none() {
                mistakes.push(Diagnostic::new(
                    span,
                    "`files` lacks the option :path",
                    "expected :path, :base-dir or both",
                ));
            }
            vec![PathBuf::from(&base)]
        }
        Some(dirs) => {
            if dirs.is_empty() || dirs.iter().any(String::is_empty) {
                let mistake = Diagnostic::new(
                    options.span_of("base-dir"),
                    "`:base-dir` names no folder",
                    "expected one folder or more",
                );
                mistakes.push(mistake);
            }
            if base.starts_with('/') {
                mistakes.push(Diagnostic::new(
                    span,
                    "`:path` is absolute although there is a `:base-dir`",
                    "expected a path below it",
                ));
            }
            // With a base directory of its own, all of the template is the bucket's path.
            below.insert(0, Part::Literal(base));
            dirs.iter().map(PathBuf::from).collect()
        }
    };
    let template = Template::compile(&below, &input.scope, mistakes);
    check_literals(&template, span, mistakes);
    (base_dirs, template)
}

/// What files' names begin with, unless nothing is said.
fn name(options: &Options, input: &SinkInput, mistakes: &mut Vec<Diagnostic>) -> Option<Template> {
    let template = Template::compile(&options.template("name")?.parts, &input.scope, mistakes);
    if template.literals().any(|text| text.contains('/')) {
        let mistake = Diagnostic::new(
            options.span_of("name"),
            "`/` cannot be part of a file's name",
            "expected a name without folders",
        );
        mistakes.push(mistake.with_help("folders are named in :path"));
    }
    Some(template).filter(|template| !template.is_empty())
}

fn move_to(
    options: &Options,
    input: &SinkInput,
    mistakes: &mut Vec<Diagnostic>,
) -> (MoveTo, Template) {
    let span = options.span_of("path");
    let (base, below) = options.template("path").map(split_base).unwrap_or_default();
    if base.is_empty() && below.is_empty() {
        mistakes.push(Diagnostic::new(
            span,
            "`:move-to` names no folder",
            "expected a folder",
        ));
    }
    let template = Template::compile(&below, &input.scope, mistakes);
    check_literals(&template, span, mistakes);
    let prefix = options.text("prefix").unwrap_or_default().to_owned();
    if prefix.contains(['/', '\0']) || prefix.len() > LONGEST_PREFIX {
        let expected = format!("expected at most {LONGEST_PREFIX} bytes without `/`");
        mistakes.push(Diagnostic::new(
            options.span_of("prefix"),
            "`:prefix` cannot be part of a file's name",
            expected,
        ));
    }
    let move_to = MoveTo {
        folder: base.into(),
        prefix,
        check: options.bool("check").unwrap_or_default(),
        quarantine: options
            .text("quarantine")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from),
    };
    (move_to, template)
}

fn hook(options: &Options) -> Result<Hook, Diagnostic> {
    let way = match (options.texts("command"), options.text("post")) {
        (Some([program, args @ ..]), None) if !program.is_empty() => {
            Way::Command(program.clone(), args.to_vec())
        }
        (Some(_), None) => {
            return Err(Diagnostic::new(
                options.span_of("command"),
                "`:command` names no program",
                "expected a program and its arguments",
            ));
        }
        (None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {
            Way::Post(url.to_owned())
        }
        (None, Some(_)) => {
            return Err(Diagnostic::new(
                options.span_of("post"),
                "`:post` is no URL",
                "expected http://… or https://…",
            ));
        }
        _ => {
            return Err(Diagnostic::new(
                options.span(),
                "`:on-close` has to say who is called",
                "expected :command or :post",
            ));
        }
    };
    Ok(Hook {
        way,
        timeout: options.duration("timeout").unwrap_or_default(),
        folder: PathBuf::new(),
    })
}

/// The template's base directory, with its last `/`, and what is below it. A template without
/// values is all base.
fn split_base(template: &WrittenTemplate) -> (String, Vec<Part>) {
    let mut parts = template.parts.clone();
    match parts.first_mut() {
        Some(Part::Literal(text)) => {
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

/// The template itself must not lead out of the folder with which it begins either, nor into the
/// hidden folder.
fn check_literals(template: &Template, span: Span, mistakes: &mut Vec<Diagnostic>) {
    for name in template.literals().flat_map(|text| text.split('/')) {
        if matches!(name, "." | ".." | OPEN) {
            let expected = "expected the name of a folder";
            mistakes.push(Diagnostic::new(
                span,
                format!("`{name}` cannot be part of this path"),
                expected,
            ));
        }
    }
}

/// The folder below which a sink with these options writes, relative to the pipeline file's; the
/// first if there are several.
pub(super) fn folder(options: &Options) -> Option<String> {
    match options.texts("base-dir") {
        Some(dirs) => dirs.first().cloned(),
        None => Some(split_base(options.template("path")?).0),
    }
    .map(|folder| {
        if folder == "/" {
            folder
        } else {
            folder.trim_end_matches('/').to_owned()
        }
    })
    .filter(|folder| !folder.is_empty())
}

fn codec(
    options: &Options,
    input: &SinkInput,
    written: Option<&Written>,
) -> Result<FileCodec, Diagnostic> {
    let wrong = |option: &str, reason: String| {
        Diagnostic::new(
            options.span_of(option),
            "files cannot be written like this",
            reason,
        )
    };
    let codec: CodecName = options
        .text("codec")
        .unwrap_or_default()
        .parse()
        .map_err(|reason| wrong("codec", reason))?;
    let compression = match options.text("compression") {
        None => codec.default_compression(),
        Some(name) => name
            .parse::<Compression>()
            .map_err(|reason| wrong("compression", reason))?,
    };
    let level = options
        .count("level")
        .map(|level| i32::try_from(level).unwrap_or(i32::MAX));
    let row_group_bytes =
        usize::try_from(options.count("row-group").unwrap_or_default()).unwrap_or(usize::MAX);
    let record = written.map_or_else(
        || input.record.clone(),
        |written| RecordShape::Columns(written.schema.clone()),
    );
    let input = SinkInput {
        record,
        scope: input.scope.clone(),
    };
    FileCodec::new(
        FileCodecSettings {
            codec,
            compression,
            level,
            row_group_bytes,
        },
        &input,
    )
    .map_err(|reason| wrong("codec", reason))
}

fn rollover(options: &Options) -> Result<Rollover, Diagnostic> {
    let cron = match options.text("cron").map(Cron::parse) {
        None => None,
        Some(Ok(cron)) => Some(cron),
        Some(Err(reason)) => {
            return Err(Diagnostic::new(
                options.span_of("cron"),
                "`:cron` has a wrong value",
                reason,
            ));
        }
    };
    if options.count("records") == Some(0) {
        return Err(Diagnostic::new(
            options.span_of("records"),
            "a file cannot have 0 records",
            "expected a number from 1 up",
        ));
    }
    Ok(Rollover {
        size: options.count("size").unwrap_or_default(),
        records: options.count("records"),
        idle: options.duration("idle").unwrap_or_default(),
        age: options.duration("age").unwrap_or_default(),
        cron,
    })
}
