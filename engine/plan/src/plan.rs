//! The plan as a whole.

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use pseidon_dsl::{Diagnostic, Document};
use pseidon_plugin::format::Format;
use pseidon_plugin::options::{OptionValue, SchemaOption};
use pseidon_plugin::registry::Registry;
use pseidon_plugin::source::Source;

use crate::chain::{Compiler, PlannedSink, PlannedSource, split_format};
use crate::columns::columns_of;
use crate::guarantee::{self, Guarantee, PathGuarantee};
use crate::resolve::resolve;
use crate::settings::Settings;

/// What will be done.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The settings.
    pub settings: Settings,
    /// The sources, each with its chain.
    pub sources: Vec<PlannedSource>,
    /// The sinks, one for each place where records leave.
    pub sinks: Vec<PlannedSink>,
    /// What every path delivers.
    pub guarantees: Vec<PathGuarantee>,
    /// A digest of what decides lanes and contents.
    pub fingerprint: String,
    /// The pipeline file's text, secrets not filled in.
    pub text: String,
    /// The folder of the pipeline file.
    pub base: PathBuf,
}

/// What the planner knows beside the document.
pub struct Context<'a> {
    /// The plugins.
    pub registry: &'a Registry,
    /// The name of a pipeline whose file does not say one.
    pub default_name: String,
    /// The folder of the pipeline file.
    pub base: PathBuf,
    /// Its text.
    pub text: String,
    /// Finds the fields of the records of a source whose options say `:schema :infer`. An error is
    /// a sentence for the user.
    pub infer: &'a Infer<'a>,
}

/// Finds the fields of the records of a stage.
pub type Infer<'a> = dyn Fn(&str, &dyn Source, &dyn Format) -> Result<SchemaRef, String> + 'a;

/// Plans a document, or shows every mistake in it.
pub fn plan(document: &Document, context: Context<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let settings = Settings::of(document)
        .map_err(|more| mistakes.extend(more))
        .ok();
    let resolved = resolve(document, context.registry)
        .map_err(|more| mistakes.extend(more))
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
        let mistake = Diagnostic::new(
            span,
            format!("`{name}` cannot be a pipeline's name"),
            "expected letters, digits, `-`, `_` and `.`",
        );
        mistakes.push(mistake.with_help(
            "name the pipeline with :name; it stands in keys, file names and transaction ids",
        ));
    }

    let mut compiler = Compiler {
        registry: context.registry,
        pipeline: &name,
        sinks: Vec::new(),
        nondeterminism: Vec::new(),
        mistakes: Vec::new(),
    };
    let mut sources = Vec::new();
    for one in &resolved {
        let source = match one.plugin.prepare(&one.options) {
            Ok(source) => source,
            Err(more) => {
                mistakes.extend(more);
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
            let span = one.options.span_of("format");
            let mistake = Diagnostic::new(
                span,
                format!("there is no format `{format_name}`"),
                format!("expected {}", names.join(", ")),
            );
            mistakes.push(mistake);
            continue;
        };
        let infers = matches!(
            one.options.get("schema"),
            Some(OptionValue::Schema(SchemaOption::Infer))
        );
        let inferred = match infers
            .then(|| (context.infer)(&one.stage, source.as_ref(), format.as_ref()))
            .transpose()
        {
            Ok(inferred) => inferred,
            Err(reason) => {
                let mistake = Diagnostic::new(
                    one.options.span_of("schema"),
                    "the fields of these records cannot be found",
                    reason,
                );
                mistakes.push(mistake.with_help(
                    "write the :schema down, for example as `pseidon infer FILE` prints it",
                ));
                continue;
            }
        };
        let schema = match format.schema(format_settings) {
            Ok(schema) => inferred.or(facts.schema.clone()).or(schema),
            Err(reason) => {
                mistakes.push(Diagnostic::new(
                    one.options.span_of("format"),
                    "the format's settings are wrong",
                    reason,
                ));
                continue;
            }
        };
        let (columns, more) = columns_of(one, schema.as_ref());
        match format.decoder(format_settings, &columns.wanted) {
            Err(reason) if more.is_empty() => {
                mistakes.push(Diagnostic::new(
                    one.span,
                    "these records do not have what the flow asks for",
                    reason,
                ));
            }
            _ => mistakes.extend(more),
        }
        sources.extend(compiler.source(one, source, facts, format, schema.as_ref(), columns));
    }
    let Compiler {
        sinks,
        nondeterminism,
        mistakes: more,
        ..
    } = compiler;
    // A path that was found wrong before cannot be compiled either; that is one mistake.
    let known: Vec<_> = mistakes.iter().map(|mistake| mistake.span).collect();
    mistakes.extend(
        more.into_iter()
            .filter(|mistake| !known.contains(&mistake.span)),
    );
    let guarantees = guarantees(&sources, &sinks, &nondeterminism);
    if let Some(span) = settings.as_ref().and_then(|settings| settings.exactly_once) {
        mistakes.extend(
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
                    Diagnostic::new(span, message, "exactly-once is asked for here")
                        .with_help(path.reasons.join("; "))
                }),
        );
    }
    match settings {
        Some(settings) if mistakes.is_empty() => {
            let fingerprint = crate::fingerprint::of(&resolved);
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
            mistakes.retain(|mistake| {
                let new = !seen.contains(mistake);
                seen.push(mistake.clone());
                new
            });
            Err(mistakes)
        }
    }
}

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
            let mut path = guarantee::of_path(
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
                path.reasons.push(format!("`{sink}` writes to {name}, which `{source}` reads: unless it is left out on the way, a record comes back again and again"));
            }
            paths.push(path);
        }
    }
    paths
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain)
}
