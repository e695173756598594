//! The plan of a pipeline, and the function that runs all planning steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_dsl::expr::{NamedExpressions, Substitutions};
use pseidon_dsl::{Diagnostic, Document, Span};
use pseidon_expr::function_names;
use pseidon_plugin::registry::PluginRegistry;

use crate::chain::{PlannedSink, PlannedSource};
use crate::compile::Compiler;
use crate::errors::Errors;
use crate::fingerprint;
use crate::guarantee::{self, Guarantee, PathGuarantee};
use crate::index::{PerSink, SourceIndex};
use crate::prepare::{SchemaInference, prepare, source_errors};
use crate::resolve::{ResolvedSource, resolve};
use crate::settings::Settings;
use crate::tables::{PlannedTable, TableCache, TableReader};

/// An executable plan of a pipeline.
pub struct Plan {
    /// The pipeline's name: up to 100 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The checked `:settings`, with defaults for those that the file does not set.
    pub settings: Settings,
    /// The sources, each with its chain.
    pub sources: Vec<PlannedSource>,
    /// The sinks, one for each use in the flow. Quarantines are included.
    pub sinks: PerSink<PlannedSink>,
    /// The guarantee of every path from a source to a sink, without quarantines.
    pub guarantees: Vec<PathGuarantee>,
    /// The digest of everything that determines lanes and their contents; see
    /// [`mod@crate::fingerprint`].
    pub fingerprint: String,
    /// A digest of the whole pipeline file and its tables. It changes with everything that can make
    /// an invalid record valid, unless that is elsewhere, as in a schema registry.
    pub version: String,
    /// The text of the pipeline file, before secrets are substituted.
    pub text: String,
    /// Makes what the state keeps, so that a later version of the pipeline can make this plan again:
    /// by default the text.
    pub stored: StoredText,
    /// The tables of its `lookup`s.
    pub tables: Vec<PlannedTable>,
    /// The folder of the pipeline file.
    pub base: PathBuf,
    /// Whether the state is kept, so that another run continues there.
    pub keeps_state: bool,
}

/// See [`Plan::stored`].
pub type StoredText = Arc<dyn Fn() -> String + Send + Sync>;

impl Plan {
    /// The source with this index.
    pub fn source(&self, source: SourceIndex) -> &PlannedSource {
        &self.sources[source.0]
    }

    /// The sources, each with its index.
    pub fn indexed_sources(&self) -> impl Iterator<Item = (SourceIndex, &PlannedSource)> {
        (0..).map(SourceIndex).zip(&self.sources)
    }
}

/// The inputs of the planner besides the document.
pub struct PlanContext<'a> {
    /// The available plugins and formats.
    pub registry: &'a PluginRegistry,
    /// The name of the pipeline if the file has no `:name`.
    pub default_name: String,
    /// The folder of the pipeline file.
    pub base: PathBuf,
    /// The text of the pipeline file.
    pub text: String,
    /// Infers the fields of the records of a source with `:schema :infer`. An error is a message
    /// for the user.
    pub infer: &'a SchemaInference<'a>,
    /// Reads the tables of `lookup`.
    pub tables: &'a TableReader<'a>,
    /// Whether the state is kept, so that another run continues there. Otherwise the pipeline leaves
    /// nothing behind: invalid records are dropped unless `:on-error` names a folder.
    pub keeps_state: bool,
}

/// Plans a document.
///
/// # Errors
/// All errors of all planning steps, without duplicates.
pub fn plan(document: &Document, context: PlanContext<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let mut errors = Errors::default();
    let settings = errors.value(Settings::from_document(document));
    let (names, wrong) = NamedExpressions::new(&document.expressions, function_names());
    errors.extend(wrong);
    let names = Arc::new(names);
    let tables = TableCache::new(context.tables, context.keeps_state);
    let (mut resolved, wrong) = resolve(document, context.registry, &tables, &names);
    if !wrong.is_empty() {
        errors.extend(wrong);
        // Steps may be missing, so only the sources themselves can be checked.
        let checked = resolved.iter();
        errors.extend(checked.flat_map(|source| source_errors(source, context.registry)));
        resolved.clear();
    }
    let (name, name_span) = document
        .name
        .clone()
        .unwrap_or_else(|| (context.default_name, Span::default()));
    errors.value(check_name(&name, name_span));
    let mut compiler = Compiler {
        quarantine: context.registry.quarantine,
        pipeline: &name,
        substituted: Substitutions::new(document, &context.text),
        has_default_quarantine: context.keeps_state,
        sinks: PerSink::default(),
        errors: Errors::default(),
    };
    let mut sources = Vec::new();
    for source in &resolved {
        let prepared = prepare(source, context.registry, context.infer, &mut errors);
        sources.extend(prepared.and_then(|prepared| compiler.source(prepared)));
    }
    let sinks = compiler.sinks;
    // An expression with an invalid path cannot be compiled either. That is reported only once.
    errors.extend_elsewhere(compiler.errors);

    let base = &context.base;
    errors.extend(errors_between_stages(
        &resolved,
        &sources,
        &sinks,
        base,
        settings.as_ref(),
    ));
    let guarantees = guarantees(&sources, &sinks);
    if let Some(span) = settings.as_ref().and_then(Settings::exactly_once) {
        errors.extend(weaker_than_exactly_once(&guarantees, span));
    }
    match settings {
        Some(settings) if errors.is_empty() => Ok(Plan {
            name,
            settings,
            sources,
            sinks,
            guarantees,
            version: fingerprint::version(&resolved, &context.text),
            fingerprint: fingerprint::compute(&resolved),
            stored: {
                let text = context.text.clone();
                Arc::new(move || text.clone())
            },
            tables: tables.into_tables(),
            text: context.text,
            base: context.base,
            keeps_state: context.keeps_state,
        }),
        _ => Err(names.explained(errors.into_unique())),
    }
}

/// The errors of stages that are right by themselves.
fn errors_between_stages(
    resolved: &[ResolvedSource],
    sources: &[PlannedSource],
    sinks: &PerSink<PlannedSink>,
    base: &Path,
    settings: Option<&Settings>,
) -> Vec<Diagnostic> {
    let mut errors = reading_own_files(resolved, sources, sinks, base);
    if settings.is_some_and(|settings| settings.state.is_some()) {
        errors.extend(groups_of_instances(resolved));
    }
    errors
}

/// Checks that a pipeline's name can be part of keys, file names and transaction ids.
fn check_name(name: &str, span: Span) -> Result<(), Diagnostic> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_plain = name.chars().all(plain) && !name.starts_with('.');
    if is_plain && !name.is_empty() && name.len() <= 100 {
        return Ok(());
    }
    let message = format!("invalid pipeline name `{name}`");
    let label = "expected up to 100 letters, digits, `-`, `_` and `.`";
    Err(Diagnostic::new(span, message, label).with_help(
        "set a valid name with :name; it is part of keys, file names and transaction ids",
    ))
}

/// The errors for paths that are not exactly-once although the file requires it at `span`.
fn weaker_than_exactly_once(
    guarantees: &[PathGuarantee],
    span: Span,
) -> impl Iterator<Item = Diagnostic> {
    guarantees
        .iter()
        .filter(|path| path.guarantee < Guarantee::ExactlyOnce)
        .map(move |path| {
            let message = format!(
                "the path from `{}` to `{}` delivers {}",
                path.source,
                path.sink,
                path.guarantee.as_str()
            );
            Diagnostic::new(span, message, "exactly-once required here")
                .with_help(path.reasons.join("; "))
        })
}

/// The errors for groups whose records several instances might share.
fn groups_of_instances(resolved: &[ResolvedSource]) -> impl Iterator<Item = Diagnostic> {
    let behind = resolved.iter().filter(|source| source.group.is_some());
    behind.map(|source| {
        let message = format!("`{}` cannot be used with `:state`", source.stage);
        let label = "instances that share the state would each have their own groups";
        let help = "remove `:state`: the state is then in a file, which one process uses";
        Diagnostic::new(source.span, message, label).with_help(help)
    })
}

/// The errors for sources that would read the files that their own records are written to.
fn reading_own_files(
    resolved: &[ResolvedSource],
    sources: &[PlannedSource],
    sinks: &PerSink<PlannedSink>,
    base: &Path,
) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    for source in sources {
        let span = resolved.iter().find(|it| it.stage == source.stage);
        let span = span.map(|it| it.span).unwrap_or_default();
        for sink in source.sinks.iter().map(|sink| &sinks[*sink]) {
            let written = |topic: &str| sink.prepared.example_files(base, topic);
            let Some(file) = source.source.reads_written(base, &written) else {
                continue;
            };
            let file = file.strip_prefix(base).unwrap_or(&file).display();
            let (source, sink) = (&source.stage, &sink.id);
            let message = format!("`{source}` would read the files that `{sink}` writes");
            let label = format!("its path matches files such as {file}");
            let help = "write to a folder that the path does not match, or narrow the path";
            errors.push(Diagnostic::new(span, message, label).with_help(help));
        }
    }
    errors
}

/// The guarantees of all paths, without quarantines.
fn guarantees(sources: &[PlannedSource], sinks: &PerSink<PlannedSink>) -> Vec<PathGuarantee> {
    let mut paths = Vec::new();
    for source in sources {
        let reached = source.sinks.iter().map(|sink| &sinks[*sink]);
        paths.extend(
            reached
                .filter(|sink| !sink.is_quarantine)
                .map(|sink| guarantee_of(source, sink)),
        );
    }
    paths
}

fn guarantee_of(source: &PlannedSource, sink: &PlannedSink) -> PathGuarantee {
    let mut path = guarantee::path_guarantee(
        (&source.stage, source.facts.reread),
        &sink.nondeterminism,
        (sink.id.as_str(), sink.protocol),
    );
    let target = sink.prepared.target();
    if let Some(target) = target.filter(|target| source.source.reads(target)) {
        let (sink, source, name) = (&sink.id, &source.stage, target.name);
        path.reasons.push(format!(
            "`{sink}` writes to {name}, which `{source}` reads: records that are not filtered out \
            are processed in an endless loop"
        ));
    }
    path
}
