//! The plan of a pipeline, and the function that runs all planning steps.

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use pseidon_dsl::{Diagnostic, Document, nearest};
use pseidon_plugin::format::Format;
use pseidon_plugin::options::{OptionValue, SchemaOption};
use pseidon_plugin::registry::Registry;
use pseidon_plugin::source::Source;

use crate::chain::{Compiler, PlannedSink, PlannedSource, split_format};
use crate::columns::columns_of;
use crate::guarantee::{self, Guarantee, PathGuarantee};
use crate::resolve::resolve;
use crate::settings::Settings;

/// An executable plan of a pipeline.
pub struct Plan {
    /// The pipeline's name: up to 100 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The checked `:settings`.
    pub settings: Settings,
    /// The sources, each with its chain.
    pub sources: Vec<PlannedSource>,
    /// The sinks, one for each use in the flow. Quarantines are included.
    pub sinks: Vec<PlannedSink>,
    /// The guarantee of every path from a source to a sink, without quarantines.
    pub guarantees: Vec<PathGuarantee>,
    /// The digest of everything that determines lanes and their contents; see
    /// [`fingerprint`](crate::fingerprint).
    pub fingerprint: String,
    /// The text of the pipeline file, before secrets are substituted.
    pub text: String,
    /// The folder of the pipeline file.
    pub base: PathBuf,
}

/// The inputs of the planner besides the document.
pub struct PlanContext<'a> {
    /// The available plugins and formats.
    pub registry: &'a Registry,
    /// The name of the pipeline if the file has no `:name`.
    pub default_name: String,
    /// The folder of the pipeline file.
    pub base: PathBuf,
    /// The text of the pipeline file.
    pub text: String,
    /// Infers the fields of the records of a source with `:schema :infer`. An error is a message
    /// for the user.
    pub infer: &'a SchemaInference<'a>,
}

/// A function that infers the fields of the records of a stage, given its name.
pub type SchemaInference<'a> =
    dyn Fn(&str, &dyn Source, &dyn Format) -> Result<SchemaRef, String> + 'a;

/// Plans a document.
///
/// # Errors
/// All errors of all planning steps, without duplicates.
pub fn plan(document: &Document, context: PlanContext<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let settings = Settings::from_document(document)
        .map_err(|more| errors.extend(more))
        .ok();
    let resolved = resolve(document, context.registry)
        .map_err(|more| errors.extend(more))
        .unwrap_or_default();
    let name = document
        .name
        .as_ref()
        .map_or(context.default_name, |(name, _)| name.clone());
    if !is_plain_name(&name) {
        let span = document
            .name
            .as_ref()
            .map(|(_, span)| *span)
            .unwrap_or_default();
        let error = Diagnostic::new(
            span,
            format!("invalid pipeline name `{name}`"),
            "expected up to 100 letters, digits, `-`, `_` and `.`",
        );
        errors.push(error.with_help(
            "set a valid name with :name; it is part of keys, file names and transaction ids",
        ));
    }

    let mut compiler = Compiler {
        registry: context.registry,
        pipeline: &name,
        sinks: Vec::new(),
        nondeterminism: Vec::new(),
        errors: Vec::new(),
    };
    let mut sources = Vec::new();
    for resolved_source in &resolved {
        let source = match resolved_source.plugin.prepare(&resolved_source.options) {
            Ok(source) => source,
            Err(more) => {
                errors.extend(more);
                continue;
            }
        };
        let facts = source.facts();
        let (format_name, format_settings) = split_format(&facts.format);
        let Some(format) = context.registry.format(format_name).cloned() else {
            let names: Vec<_> = context
                .registry
                .formats
                .iter()
                .map(|format| format.name())
                .collect();
            let span = resolved_source.options.span_of("format");
            let error = Diagnostic::new(
                span,
                format!("unknown format `{format_name}`"),
                format!("expected one of {}", names.join(", ")),
            );
            errors.push(match nearest(format_name, names) {
                Some(near) => error.with_help(format!("did you mean `:{near}`?")),
                None => error,
            });
            continue;
        };
        let infers = matches!(
            resolved_source.options.get("schema"),
            Some(OptionValue::Schema(SchemaOption::Infer))
        );
        let inferred = match infers
            .then(|| (context.infer)(&resolved_source.stage, source.as_ref(), format.as_ref()))
            .transpose()
        {
            Ok(inferred) => inferred,
            Err(reason) => {
                let error = Diagnostic::new(
                    resolved_source.options.span_of("schema"),
                    "cannot infer the fields of these records",
                    reason,
                );
                errors.push(error.with_help(
                    "set :schema explicitly, for example to the output of `pseidon infer FILE`",
                ));
                continue;
            }
        };
        let schema = match format.schema(format_settings) {
            Ok(schema) => inferred.or(facts.schema.clone()).or(schema),
            Err(reason) => {
                errors.push(Diagnostic::new(
                    resolved_source.options.span_of("format"),
                    "invalid settings of the format",
                    reason,
                ));
                continue;
            }
        };
        let (columns, more) = columns_of(resolved_source, schema.as_ref());
        match format.decoder(format_settings, &columns.wanted) {
            Err(reason) if more.is_empty() => {
                errors.push(Diagnostic::new(
                    resolved_source.span,
                    "these records do not have the columns that the flow uses",
                    reason,
                ));
            }
            _ => errors.extend(more),
        }
        sources.extend(compiler.source(
            resolved_source,
            source,
            facts,
            format,
            schema.as_ref(),
            columns,
        ));
    }
    let Compiler {
        sinks,
        nondeterminism,
        errors: more,
        ..
    } = compiler;
    // An expression with an invalid path cannot be compiled either. That is reported only once.
    let known: Vec<_> = errors.iter().map(|error| error.span).collect();
    errors.extend(
        more.into_iter()
            .filter(|error| !known.contains(&error.span)),
    );
    let guarantees = guarantees(&sources, &sinks, &nondeterminism);
    if let Some(span) = settings.as_ref().and_then(|settings| settings.exactly_once) {
        errors.extend(
            guarantees
                .iter()
                .filter(|path| path.guarantee < Guarantee::ExactlyOnce)
                .map(|path| {
                    let message = format!(
                        "the path from `{}` to `{}` delivers {}",
                        path.source,
                        path.sink,
                        path.guarantee.as_str()
                    );
                    Diagnostic::new(span, message, "exactly-once required here")
                        .with_help(path.reasons.join("; "))
                }),
        );
    }
    match settings {
        Some(settings) if errors.is_empty() => {
            let fingerprint = crate::fingerprint::compute(&resolved);
            Ok(Plan {
                name,
                settings,
                sources,
                sinks,
                guarantees,
                fingerprint,
                text: context.text,
                base: context.base,
            })
        }
        _ => {
            let mut seen: Vec<Diagnostic> = Vec::new();
            errors.retain(|error| {
                let new = !seen.contains(error);
                seen.push(error.clone());
                new
            });
            Err(errors)
        }
    }
}

/// The guarantees of all paths, without quarantines.
fn guarantees(
    sources: &[PlannedSource],
    sinks: &[PlannedSink],
    nondeterminism: &[Vec<String>],
) -> Vec<PathGuarantee> {
    let mut paths = Vec::new();
    for source in sources {
        for number in source
            .sinks
            .iter()
            .filter(|number| !sinks[**number].is_quarantine)
        {
            let sink = &sinks[*number];
            let from = (source.stage.as_str(), source.facts.not_rereadable);
            let mut path = guarantee::path_guarantee(
                from,
                &nondeterminism[*number],
                (sink.id.as_str(), sink.protocol),
            );
            if let Some(target) = sink
                .prepared
                .target()
                .filter(|target| source.source.reads(target))
            {
                let (sink, source, name) = (&sink.id, &source.stage, target.name);
                path.reasons.push(format!(
                    "`{sink}` writes to {name}, which `{source}` reads: records that are not \
                    filtered out are processed in an endless loop"
                ));
            }
            paths.push(path);
        }
    }
    paths
}

/// Whether `name` can be part of keys, file names and transaction ids.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain)
}
