//! The checked settings of a sink.

use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::template::{Template as WrittenTemplate, TemplatePart};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::{CodecName, Compression, FileCodec, FileCodecSettings};
use pseidon_plugin::Options;
use pseidon_plugin::rollover::{Cron, Rollover};
use pseidon_plugin::sink::{RecordShape, SinkInput};

use super::disk::OPEN;
use super::hook::{Hook, HookTarget};
use super::projection::Projection;
use super::route::Router;
use super::template::Template;

/// The maximum length of `:prefix` in bytes; file systems allow names of 255.
const MAX_PREFIX_BYTES: usize = 64;

/// The checked settings of a sink.
pub(super) struct Settings {
    /// Absolute, or relative to the pipeline file's folder.
    pub(super) base_dirs: Vec<PathBuf>,
    pub(super) router: Router,
    pub(super) codec: FileCodec,
    pub(super) rollover: Rollover,
    pub(super) check_freq: Duration,
    pub(super) max_open_files: usize,
    pub(super) move_to: Option<MoveSettings>,
    /// What is called for each file.
    pub(super) hook: Option<Hook>,
    /// The first nondeterministic expression among those that decide about lanes or contents.
    pub(super) nondeterminism: Option<String>,
}

/// Where files are moved; the router has the template for the rest of the folder's path. Paths are
/// absolute, or relative to the pipeline file's folder.
#[derive(Clone, Debug)]
pub(super) struct MoveSettings {
    /// The folder with which the template begins.
    pub(super) folder: PathBuf,
    /// The prefix of a file's name.
    pub(super) prefix: String,
    /// Whether Parquet files are checked before they are moved.
    pub(super) check: bool,
    /// The folder of broken files; `None` is `quarantine` below the base directory.
    pub(super) quarantine: Option<PathBuf>,
}

impl Settings {
    /// Checks the options that the declaration of the plugin cannot check.
    pub(super) fn new(options: &Options, input: &SinkInput) -> Result<Settings, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let (base_dirs, path) = path(options, input, &mut errors);
        let name = name(options, input, &mut errors);
        let items = options.select("write").unwrap_or_default();
        let projection = if items.is_empty() {
            None
        } else {
            Projection::new(items, input, &mut errors)
        };
        // The codec cannot be checked for invalid columns.
        let codec = match (items, &projection) {
            ([_, ..], None) => None,
            _ => codec(options, input, projection.as_ref())
                .map_err(|error| errors.push(error))
                .ok(),
        };
        let rollover = options
            .map("rollover")
            .and_then(|map| rollover(map).map_err(|error| errors.push(error)).ok());
        let (move_to, destination) = match options.map("move-to") {
            None => (None, None),
            Some(map) => {
                let (move_to, destination) = move_to(map, input, &mut errors);
                (Some(move_to), Some(destination))
            }
        };
        let hook = options
            .map("on-close")
            .and_then(|map| hook(map).map_err(|error| errors.push(error)).ok());
        let max_open_files = max_open_files(options, &mut errors);
        let nondeterminism = [Some(&path), name.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|template| template.nondeterminism.clone());
        match (codec, rollover) {
            (Some(codec), Some(rollover)) if errors.is_empty() => Ok(Settings {
                base_dirs,
                nondeterminism: nondeterminism
                    .or_else(|| projection.as_ref()?.nondeterminism.clone()),
                router: Router {
                    path,
                    name,
                    destination,
                    projection,
                    lanes: options
                        .string("lanes")
                        .and_then(|lanes| lanes.parse().ok())
                        .unwrap_or(1),
                    null_name: options.string("null-name").unwrap_or_default().to_owned(),
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
            _ => Err(errors),
        }
    }
}

/// The base directories, and the template of a bucket's path below them. `files` requires `:path`,
/// `:base-dir` or both.
fn path(
    options: &Options,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> (Vec<PathBuf>, Template) {
    let span = options.span_of("path");
    let (base, mut below) = options.template("path").map(split_base).unwrap_or_default();
    let base_dirs = match options.strings("base-dir") {
        None => {
            if options.template("path").is_none() {
                errors.push(Diagnostic::new(
                    span,
                    "missing required option `:path`",
                    "expected `:path`, `:base-dir` or both",
                ));
            }
            vec![PathBuf::from(&base)]
        }
        Some(dirs) => {
            if dirs.is_empty() || dirs.iter().any(String::is_empty) {
                let error = Diagnostic::new(
                    options.span_of("base-dir"),
                    "`:base-dir` names no folder",
                    "expected at least one folder",
                );
                errors.push(error);
            }
            if base.starts_with('/') {
                errors.push(Diagnostic::new(
                    span,
                    "`:path` must be relative if `:base-dir` is set",
                    "expected a path relative to the base directory",
                ));
            }
            // With `:base-dir`, the whole template is the bucket's path.
            below.insert(0, TemplatePart::Literal(base));
            dirs.iter().map(PathBuf::from).collect()
        }
    };
    let template = Template::compile(&below, &input.scope, errors);
    check_literals(&template, span, errors);
    (base_dirs, template)
}

/// The template of the beginning of files' names; `None` if it is missing or empty.
fn name(options: &Options, input: &SinkInput, errors: &mut Vec<Diagnostic>) -> Option<Template> {
    let template = Template::compile(&options.template("name")?.parts, &input.scope, errors);
    if template.literals().any(|text| text.contains('/')) {
        let error = Diagnostic::new(
            options.span_of("name"),
            "`/` cannot be part of a file's name",
            "expected a name without folders",
        );
        errors.push(error.with_help("put folders into `:path`"));
    }
    Some(template).filter(|template| !template.is_empty())
}

fn move_to(
    options: &Options,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> (MoveSettings, Template) {
    let span = options.span_of("path");
    let (base, below) = options.template("path").map(split_base).unwrap_or_default();
    if base.is_empty() && below.is_empty() {
        errors.push(Diagnostic::new(
            span,
            "`:move-to` names no folder",
            "expected a folder",
        ));
    }
    let template = Template::compile(&below, &input.scope, errors);
    check_literals(&template, span, errors);
    let prefix = options.string("prefix").unwrap_or_default().to_owned();
    if prefix.contains(['/', '\0']) || prefix.len() > MAX_PREFIX_BYTES {
        let expected = format!("expected at most {MAX_PREFIX_BYTES} bytes without `/`");
        errors.push(Diagnostic::new(
            options.span_of("prefix"),
            "`:prefix` cannot be part of a file's name",
            expected,
        ));
    }
    let move_to = MoveSettings {
        folder: base.into(),
        prefix,
        check: options.bool("check").unwrap_or_default(),
        quarantine: options
            .string("quarantine")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from),
    };
    (move_to, template)
}

fn hook(options: &Options) -> Result<Hook, Diagnostic> {
    let target = match (options.strings("command"), options.string("post")) {
        (Some([program, args @ ..]), None) if !program.is_empty() => {
            HookTarget::Command(program.clone(), args.to_vec())
        }
        (Some(_), None) => {
            return Err(Diagnostic::new(
                options.span_of("command"),
                "`:command` names no program",
                "expected a program and its arguments",
            ));
        }
        (None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => {
            HookTarget::Post(url.to_owned())
        }
        (None, Some(_)) => {
            return Err(Diagnostic::new(
                options.span_of("post"),
                "`:post` is not a URL",
                "expected http://… or https://…",
            ));
        }
        _ => {
            return Err(Diagnostic::new(
                options.span(),
                "`:on-close` requires `:command` or `:post`",
                "expected exactly one of them",
            ));
        }
    };
    Ok(Hook {
        target,
        timeout: options.duration("timeout").unwrap_or_default(),
        folder: PathBuf::new(),
    })
}

fn max_open_files(options: &Options, errors: &mut Vec<Diagnostic>) -> usize {
    let max_open_files = options.integer("max-open-files").unwrap_or_default() as usize;
    if max_open_files == 0 {
        errors.push(Diagnostic::new(
            options.span_of("max-open-files"),
            "`:max-open-files` must not be 0",
            "expected an integer of at least 1",
        ));
    }
    max_open_files
}

/// Splits a template into its base directory, with the last `/`, and the parts below it. A template
/// without values is a base directory as a whole.
fn split_base(template: &WrittenTemplate) -> (String, Vec<TemplatePart>) {
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

/// Rejects a template whose fixed text leads out of the folder with which it begins, or into the
/// hidden folder.
fn check_literals(template: &Template, span: Span, errors: &mut Vec<Diagnostic>) {
    for name in template.literals().flat_map(|text| text.split('/')) {
        if matches!(name, "." | ".." | OPEN) {
            let expected = "expected a folder name";
            errors.push(Diagnostic::new(
                span,
                format!("`{name}` cannot be part of this path"),
                expected,
            ));
        }
    }
}

/// The base directory of a sink with these options, relative to the pipeline file's folder; the
/// first if there are several. `None` if it is the pipeline file's folder.
pub(super) fn folder(options: &Options) -> Option<String> {
    match options.strings("base-dir") {
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
    projection: Option<&Projection>,
) -> Result<FileCodec, Diagnostic> {
    let wrong = |option: &str, reason: String| {
        Diagnostic::new(
            options.span_of(option),
            "files cannot be written with these options",
            reason,
        )
    };
    let codec: CodecName = options
        .string("codec")
        .unwrap_or_default()
        .parse()
        .map_err(|reason| wrong("codec", reason))?;
    let compression = match options.string("compression") {
        None => codec.default_compression(),
        Some(name) => name
            .parse::<Compression>()
            .map_err(|reason| wrong("compression", reason))?,
    };
    let level = options
        .integer("level")
        .map(|level| i32::try_from(level).unwrap_or(i32::MAX));
    let row_group_bytes =
        usize::try_from(options.integer("row-group").unwrap_or_default()).unwrap_or(usize::MAX);
    let record = projection.map_or_else(
        || input.record.clone(),
        |projection| RecordShape::Columns(projection.schema.clone()),
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
    let cron = match options.string("cron").map(Cron::parse) {
        None => None,
        Some(Ok(cron)) => Some(cron),
        Some(Err(reason)) => {
            return Err(Diagnostic::new(
                options.span_of("cron"),
                "invalid value for `:cron`",
                reason,
            ));
        }
    };
    if options.integer("records") == Some(0) {
        return Err(Diagnostic::new(
            options.span_of("records"),
            "`:records` must not be 0",
            "expected an integer of at least 1",
        ));
    }
    Ok(Rollover {
        size: options.integer("size").unwrap_or_default(),
        records: options.integer("records"),
        idle: options.duration("idle").unwrap_or_default(),
        age: options.duration("age").unwrap_or_default(),
        cron,
    })
}
