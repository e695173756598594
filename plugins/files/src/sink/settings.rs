//! The checked settings of a sink.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pseidon_delivery::SplitId;
use pseidon_dsl::template::{Template, TemplatePart};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_formats::{FileCodec, FileCodecSettings};
use pseidon_plugin::Split;
use pseidon_plugin::options::kinds::PositiveInteger;
use pseidon_plugin::options::{SpannedValue, check_local_path};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::secret::Secret;
use pseidon_plugin::sink::{RecordShape, SinkInput};

use super::access::{FileMode, OwnerName};
use super::disk::OPEN;
use super::hook::{Hook, HookCommand, HookTarget};
use super::lane_name::{NameParts, file_name, render, render_name};
use super::options::{FilesSinkOptions, HookOptions, MoveOptions, RolloverOptions};
use super::projection::Projection;
use super::route::Router;
use super::template::PathTemplate;

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
    /// The permissions of the files; `None` is the default.
    pub(super) mode: Option<FileMode>,
    /// The owner of the files, if it is not the process.
    pub(super) owner: Option<OwnerName>,
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
    pub(super) fn new(
        options: &FilesSinkOptions,
        input: &SinkInput,
    ) -> Result<Settings, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let (base_dirs, path) = path(options, input, &mut errors);
        let name = name(options, input, &mut errors);
        let items = options.write.as_deref().unwrap_or_default();
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
        let (move_to, destination) = match &options.move_to {
            None => (None, None),
            Some(options) => {
                let (move_to, destination) = move_to(options, input, &mut errors);
                (Some(move_to), Some(destination))
            }
        };
        let hook = options
            .on_close
            .as_ref()
            .and_then(|options| hook(options).map_err(|error| errors.push(error)).ok());
        let nondeterminism = [Some(&path), name.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|template| template.nondeterminism.clone());
        match codec {
            Some(codec) if errors.is_empty() => Ok(Settings {
                base_dirs,
                nondeterminism: nondeterminism
                    .or_else(|| projection.as_ref()?.nondeterminism.clone()),
                router: Router {
                    path,
                    name,
                    destination,
                    projection,
                    lanes: options.lanes.map_or(1, |lanes| lanes.0),
                    null_name: options.null_name.clone(),
                },
                codec,
                rollover: rollover(&options.rollover),
                check_freq: options.check_freq.max(Duration::from_millis(1)),
                max_open_files: options.max_open_files.get() as usize,
                mode: options.mode,
                owner: options.owner.clone(),
                move_to,
                hook,
            }),
            _ => Err(errors),
        }
    }
}

impl Settings {
    /// Paths like those of the files that are written for records of this topic, before and after
    /// they are moved.
    pub(super) fn example_files(&self, base: &Path, topic: &str) -> Vec<PathBuf> {
        let Router {
            path,
            name,
            destination,
            null_name,
            ..
        } = &self.router;
        let split = Split {
            id: SplitId::from("x"),
            topic: topic.to_owned(),
            partition: 0,
        };
        let name = name
            .as_ref()
            .map(|name| render_name(name.example(topic), null_name));
        let parts = NameParts {
            name: name.as_deref(),
            ..NameParts::default()
        };
        let name = file_name(&split, 0, parts);
        let file = format!("{name}.{}", self.codec.extension());
        let bucket = render(path.example(topic), null_name);
        let dirs = self.base_dirs.iter();
        let mut files: Vec<PathBuf> = dirs
            .map(|dir| base.join(dir).join(&bucket).join(&file))
            .collect();
        if let (Some(moving), Some(destination)) = (&self.move_to, destination) {
            let below = render(destination.example(topic), null_name);
            let file = format!("{}{file}", moving.prefix);
            files.push(base.join(&moving.folder).join(below).join(file));
        }
        files
    }
}

/// The base directories, and the template of a bucket's path below them. `files` requires `:path`,
/// `:base-dir` or both.
fn path(
    options: &FilesSinkOptions,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> (Vec<PathBuf>, PathTemplate) {
    let path = options.path.as_ref();
    let span = path.map_or(options.span, |path| path.span);
    if let Some(path) = path {
        check_local(path, errors);
    }
    let (base, mut below) = path.map(|path| split_base(&path.value)).unwrap_or_default();
    let base_dirs = match &options.base_dir {
        None => {
            if path.is_none() {
                errors.push(Diagnostic::new(
                    span,
                    "missing required option `:path`",
                    "expected `:path`, `:base-dir` or both",
                ));
            }
            vec![PathBuf::from(&base)]
        }
        Some(base_dir) => {
            let dirs = &base_dir.value;
            if dirs.is_empty() || dirs.iter().any(String::is_empty) {
                errors.push(base_dir.error(
                    "`:base-dir` names no folder",
                    "expected at least one folder",
                ));
            }
            let checks = dirs.iter().map(|dir| check_local_path(dir, base_dir.span));
            errors.extend(checks.filter_map(Result::err));
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
    let template = PathTemplate::compile(&below, &input.scope, errors);
    check_literals(&template, span, errors);
    (base_dirs, template)
}

/// The template of the beginning of files' names; `None` if it is missing or empty.
fn name(
    options: &FilesSinkOptions,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> Option<PathTemplate> {
    let name = options.name.as_ref()?;
    let template = PathTemplate::compile(&name.value.parts, &input.scope, errors);
    if template.literals().any(|text| text.contains('/')) {
        let error = name.error(
            "`/` cannot be part of a file's name",
            "expected a name without folders",
        );
        errors.push(error.with_help("put folders into `:path`"));
    }
    Some(template).filter(|template| !template.is_empty())
}

fn move_to(
    options: &MoveOptions,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> (MoveSettings, PathTemplate) {
    let span = options.path.span;
    check_local(&options.path, errors);
    let (base, below) = split_base(&options.path.value);
    if base.is_empty() && below.is_empty() {
        errors.push(Diagnostic::new(
            span,
            "`:move-to` names no folder",
            "expected a folder",
        ));
    }
    let template = PathTemplate::compile(&below, &input.scope, errors);
    check_literals(&template, span, errors);
    let prefix = options.prefix.as_ref();
    if let Some(prefix) = prefix
        && (prefix.value.contains(['/', '\0']) || prefix.value.len() > MAX_PREFIX_BYTES)
    {
        let expected = format!("expected at most {MAX_PREFIX_BYTES} bytes without `/`");
        errors.push(prefix.error("`:prefix` cannot be part of a file's name", expected));
    }
    let move_to = MoveSettings {
        folder: base.into(),
        prefix: prefix
            .map(|prefix| prefix.value.clone())
            .unwrap_or_default(),
        check: options.check,
        quarantine: options
            .quarantine
            .as_ref()
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from),
    };
    (move_to, template)
}

fn hook(options: &SpannedValue<HookOptions>) -> Result<Hook, Diagnostic> {
    let HookOptions {
        command,
        env,
        post,
        timeout,
    } = &options.value;
    if let (None, Some(env)) = (command, env) {
        return Err(env.error("`:env` is for a program", "expected `:command`"));
    }
    let target = match (command, post) {
        (Some(command), None) => match command.value.as_slice() {
            [program, args @ ..] if !program.is_empty() => HookTarget::Command(HookCommand {
                program: program.clone(),
                args: args.to_vec(),
                env: env
                    .as_ref()
                    .map(|env| env.value.clone())
                    .unwrap_or_default(),
            }),
            _ => {
                return Err(command.error(
                    "`:command` names no program",
                    "expected a program and its arguments",
                ));
            }
        },
        (None, Some(post)) => {
            let url = &post.value;
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let expected = "expected http://… or https://…";
                return Err(post.error("`:post` is not a URL", expected));
            }
            HookTarget::Post(Secret::new(url.clone()))
        }
        _ => {
            return Err(options.error(
                "`:on-close` requires `:command` or `:post`",
                "expected exactly one of them",
            ));
        }
    };
    Ok(Hook {
        target,
        timeout: *timeout,
        folder: PathBuf::new(),
    })
}

/// Checks the beginning of a path: up to the first value, before which `$` would be part of it. The
/// folder of a quarantine has no position: it is beside the output, whose path is checked.
fn check_local(path: &SpannedValue<Template>, errors: &mut Vec<Diagnostic>) {
    if path.span == Span::default() {
        return;
    }
    let [TemplatePart::Literal(beginning), rest @ ..] = path.value.parts.as_slice() else {
        return;
    };
    let is_variable = beginning.ends_with('$') && !rest.is_empty();
    let beginning = match is_variable {
        true => format!("{beginning}{{"),
        false => beginning.clone(),
    };
    errors.extend(check_local_path(&beginning, path.span).err());
}

/// Splits a template into its base directory, with the last `/`, and the parts below it. A template
/// without values is a base directory as a whole.
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

/// Rejects a template whose fixed text leads out of the folder with which it begins, or into the
/// hidden folder.
fn check_literals(template: &PathTemplate, span: Span, errors: &mut Vec<Diagnostic>) {
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
pub(super) fn folder(options: &FilesSinkOptions) -> Option<String> {
    match &options.base_dir {
        Some(dirs) => dirs.value.first().cloned(),
        None => Some(split_base(&options.path.as_ref()?.value).0),
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
    options: &FilesSinkOptions,
    input: &SinkInput,
    projection: Option<&Projection>,
) -> Result<FileCodec, Diagnostic> {
    let codec = options.codec.value;
    let record = projection.map_or_else(
        || input.record.clone(),
        |projection| RecordShape::Columns(projection.schema.clone()),
    );
    let input = SinkInput {
        record,
        scope: input.scope.clone(),
    };
    let settings = FileCodecSettings {
        codec,
        compression: options
            .compression
            .unwrap_or_else(|| codec.default_compression()),
        level: options
            .level
            .map(|level| i32::try_from(level).unwrap_or(i32::MAX)),
        row_group_bytes: usize::try_from(options.row_group.0).unwrap_or(usize::MAX),
        csv: options.csv.clone(),
    };
    FileCodec::new(settings, &input).map_err(|reason| {
        let message = "files cannot be written with these options";
        options.codec.error(message, reason)
    })
}

fn rollover(options: &RolloverOptions) -> Rollover {
    Rollover {
        size: options.size.0,
        records: options.records.map(PositiveInteger::get),
        idle: options.idle,
        age: options.age,
        cron: options.cron.clone(),
    }
}
