//! Loading: from a file name, or the flow of `-e`, to a plan.

mod further;
mod includes;
pub(crate) mod kept;
pub(crate) mod legacy;
mod state_url;
mod table;
mod variables;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use pseidon_delivery::WithCauses;
use pseidon_dsl::diagnostic::ExpressionUse;
use pseidon_dsl::{Diagnostic, Document, diagnostic, encoding, interpolate, joined};
use pseidon_logs::{Log, LogsSettings, MysqlLogs};
use pseidon_plan::{Plan, PlanContext, SchemaInference, plan};
use pseidon_plugin::batch::{Payloads, WantedMetadata};
use pseidon_plugin::format::Format;
use pseidon_plugin::framing::Framing;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::registry::PluginRegistry;
use pseidon_plugin::source::{Source, SourceSetup};

use self::kept::Tables;
pub(crate) use self::variables::Parameters;
use self::variables::Variables;
use crate::cli::{Exit, FileArgs, ParameterArgs};
use crate::registry::{registry, registry_with, sample_log};
use crate::{output, stderr_line};

/// The text of a pipeline, and where it was read.
#[derive(Clone)]
pub(crate) struct PipelineText {
    /// The name in messages: the path as given, or `-e`.
    pub(crate) name: String,
    /// The text, with those of included files.
    pub(crate) text: String,
    pub(crate) kind: TextKind,
    /// The folder to which relative paths are resolved.
    pub(crate) base: PathBuf,
    /// The pipeline's name if the text has no `:name`.
    pub(crate) default_name: String,
    /// The values of `--set`.
    pub(crate) parameters: Parameters,
    /// Tables that `lookup` uses instead of the files at their paths: those that an earlier version
    /// of the pipeline had.
    pub(crate) tables: Tables,
}

/// The syntax of a pipeline text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextKind {
    Edn,
    Toml,
    /// A single flow, as in `-e`.
    Flow,
}

/// Reads the text that the arguments name, and converts a legacy configuration. Errors are printed.
pub(crate) fn text(from: &FileArgs) -> Result<PipelineText, Exit> {
    let parameters = Parameters::new(&from.parameters.set);
    match (&from.file, &from.expression) {
        (Some(file), _) => read(file, parameters)
            .and_then(legacy::convert)
            .and_then(PipelineText::with_includes),
        (None, Some(flow)) => Ok(PipelineText {
            name: "-e".to_owned(),
            text: flow.clone(),
            kind: TextKind::Flow,
            base: PathBuf::from("."),
            default_name: "expression".to_owned(),
            parameters,
            tables: Tables::new(),
        }),
        (None, None) => Err(Exit::WrongFile),
    }
}

/// Reads and plans a pipeline file, for a command that does not run it. Errors are printed.
pub(crate) fn planned(
    file: &Path,
    parameters: &ParameterArgs,
) -> Result<(PipelineText, Document, Plan), Exit> {
    let text = text(&FileArgs {
        file: Some(file.to_owned()),
        expression: None,
        parameters: parameters.clone(),
    })?;
    let document = text.document()?;
    let plan = text.plan(&document)?;
    Ok((text, document, plan))
}

/// Reads a file without parsing it. Errors are printed.
pub(crate) fn read(file: &Path, parameters: Parameters) -> Result<PipelineText, Exit> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| error.to_string());
    let text = bytes.and_then(encoding::decode).map_err(|reason| {
        stderr_line!("error: cannot read {name}: {reason}");
        Exit::WrongFile
    })?;
    let kind = if file
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        TextKind::Toml
    } else {
        TextKind::Edn
    };
    let base = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let default_name = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(PipelineText {
        name,
        text,
        kind,
        base,
        default_name,
        parameters,
        tables: Tables::new(),
    })
}

impl PipelineText {
    /// Parses the document and replaces `${env:…}`, `${file:…}` and the like. Errors are printed.
    pub(crate) fn document(&self) -> Result<Document, Exit> {
        let log = sample_log();
        let (document, variables) = self
            .document_for(&log)
            .map_err(|errors| self.show(&self.with_further(errors)))?;
        variables.check_used().map_err(|reason| {
            stderr_line!("error: {}: {reason}", self.name);
            Exit::WrongFile
        })?;
        Ok(document)
    }

    /// Parses the document for a row of the table of logs. Outside of a template, `${log:…}` is an
    /// error. Returns also the variables that it has.
    fn document_for<'a>(
        &'a self,
        log: &'a Log,
    ) -> Result<(Document, Variables<'a>), Vec<Diagnostic>> {
        let mut document = self.parse()?;
        let log = is_template(&document).then_some(log);
        let mut variables = Variables::new(&self.parameters, &self.base, log);
        interpolate::document(&mut document, &mut |kind, name| {
            variables.look_up(kind, name)
        })?;
        Ok((document, variables))
    }

    /// Plans the document, a template as for a run; `:schema :infer` reads the first records.
    /// Errors are printed.
    pub(crate) fn plan(&self, document: &Document) -> Result<Plan, Exit> {
        if is_template(document) {
            return self.template(document).map(|(plan, _)| plan);
        }
        self.plan_with(document, &|_, source, format| {
            infer(source, format, &self.base)
        })
    }

    /// Plans the document, with `infer` for sources with `:schema :infer`. Errors are printed.
    pub(crate) fn plan_with(
        &self,
        document: &Document,
        infer: &SchemaInference<'_>,
    ) -> Result<Plan, Exit> {
        self.plan_in(&registry(), document, infer)
            .map_err(|errors| self.show(&errors))
    }

    /// Plans the document again during a run, with the tables of this plan that are not reloaded.
    /// An error is a sentence.
    pub(crate) fn plan_again(
        &self,
        plan: &Plan,
        infer: &SchemaInference<'_>,
    ) -> Result<Plan, String> {
        self.plan_again_in(&registry(), plan, infer)
    }

    /// The same for a template.
    pub(crate) fn template_again(&self, plan: &Plan) -> Result<Plan, String> {
        let registry = registry_with(Arc::new(MysqlLogs::new(Arc::new(sample_log()))));
        self.plan_again_in(&registry, plan, &|_, _, _| {
            Err(LOGS_ARE_NOT_INFERRED.to_owned())
        })
    }

    fn plan_again_in(
        &self,
        registry: &PluginRegistry,
        plan: &Plan,
        infer: &SchemaInference<'_>,
    ) -> Result<Plan, String> {
        let text = self.with_unchanged_tables(plan);
        let log = sample_log();
        let (document, _) = text.document_for(&log).map_err(as_sentences)?;
        text.plan_in(registry, &document, infer)
            .map_err(as_sentences)
    }

    /// The same text with those tables of a plan that are not looked at for changes.
    fn with_unchanged_tables(&self, plan: &Plan) -> PipelineText {
        PipelineText {
            tables: kept::tables_of(plan, |table| table.reload.is_none()),
            ..self.clone()
        }
    }

    /// Plans a template for [`sample_log`], and returns the settings of its stage `mysql-logs` too.
    /// Errors are printed.
    pub(crate) fn template(&self, document: &Document) -> Result<(Plan, LogsSettings), Exit> {
        let logs = Arc::new(MysqlLogs::new(Arc::new(sample_log())));
        let plan = self.plan_in(&registry_with(logs.clone()), document, &|_, _, _| {
            Err(LOGS_ARE_NOT_INFERRED.to_owned())
        });
        let plan = plan.map_err(|errors| self.show(&errors))?;
        if let Some(other) = plan.sources.iter().find(|source| source.plugin != LOGS) {
            stderr_line!(
                "error: {}: a pipeline with `{LOGS}` cannot have another source; remove `{}`",
                self.name,
                other.stage
            );
            return Err(Exit::WrongFile);
        }
        // The settings are set when the stage is planned.
        let settings = Arc::into_inner(logs)
            .and_then(MysqlLogs::into_settings)
            .ok_or(Exit::WrongFile)?;
        Ok((plan, settings))
    }

    /// Plans a template for a row of the table of logs. An error is a sentence without a place in
    /// the text, since the row is more likely to be wrong than the text.
    pub(crate) fn plan_for_log(&self, log: Arc<Log>) -> Result<Plan, String> {
        let (document, _) = self.document_for(&log).map_err(as_sentences)?;
        let registry = registry_with(Arc::new(MysqlLogs::new(log)));
        self.plan_in(&registry, &document, &|_, _, _| {
            Err(LOGS_ARE_NOT_INFERRED.to_owned())
        })
        .map_err(as_sentences)
    }

    fn plan_in(
        &self,
        registry: &PluginRegistry,
        document: &Document,
        infer: &SchemaInference<'_>,
    ) -> Result<Plan, Vec<Diagnostic>> {
        let (default_name, base, text) = (
            self.default_name.clone(),
            self.base.clone(),
            self.text.clone(),
        );
        let read = |path: &str| match self.tables.get(path) {
            Some(table) => Ok(table.clone()),
            None => table::read(path, registry, &self.base),
        };
        let state_error = state_url::error(document);
        let plan = plan(
            document,
            PlanContext {
                registry,
                default_name,
                base,
                text,
                infer,
                tables: &read,
                keeps_state: self.kind != TextKind::Flow,
            },
        );
        let mut plan = match (plan, state_error) {
            (Ok(plan), None) => plan,
            (Ok(_), Some(error)) => return Err(document.conceal(vec![error])),
            (Err(errors), error) => {
                return Err(document.conceal(errors.into_iter().chain(error).collect()));
            }
        };
        let (text, tables) = (self.text.clone(), plan.tables.clone());
        let largest = if is_template(document) {
            kept::MAX_OF_LOG
        } else {
            kept::MAX_KEPT
        };
        plan.stored = Arc::new(move || kept::keep(&text, &tables, largest));
        Ok(plan)
    }

    /// Prints the first errors as rustc does, each with its place in the text, and then how many
    /// there are.
    pub(crate) fn show(&self, errors: &[Diagnostic]) -> Exit {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let first = diagnostic::first(errors);
        for (part, errors) in joined::by_file(&self.name, &self.text, &first) {
            let name = part.path.unwrap_or(&self.name);
            output::write_error(&diagnostic::render(name, part.text, &errors, color));
        }
        let count = errors.len();
        if let Some(more) = diagnostic::and_more(count - first.len()) {
            stderr_line!("{more}");
        }
        stderr_line!(
            "{}: {count} {}",
            self.name,
            if count == 1 { "error" } else { "errors" }
        );
        Exit::WrongFile
    }
}

/// The source that makes a pipeline a template.
const LOGS: &str = "mysql-logs";
const LOGS_ARE_NOT_INFERRED: &str =
    "the schema of a log comes from its row and its table, and cannot be inferred";

/// Whether the pipeline is a template, of which one run is started for each row of a table.
pub(crate) fn is_template(document: &Document) -> bool {
    document
        .calls()
        .iter()
        .any(|call| call.plugin.to_string() == LOGS)
}

/// Errors as one line, for places where the text is not shown.
fn as_sentences(errors: Vec<Diagnostic>) -> String {
    let first = diagnostic::first(&errors);
    let more = diagnostic::and_more(errors.len() - first.len());
    let sentences: Vec<String> = first.iter().map(as_sentence).chain(more).collect();
    sentences.join("; ")
}

/// An error as a sentence, for places where the text is not shown.
fn as_sentence(error: &Diagnostic) -> String {
    let help = error
        .help
        .as_ref()
        .map(|help| format!("; {help}"))
        .unwrap_or_default();
    let uses = error.uses.iter();
    let shown = |used: &ExpressionUse| match &used.parameter {
        None => format!("; in `{}`", used.name),
        Some(parameter) => format!("; this is the argument `{parameter}` of `{}`", used.name),
    };
    let uses: String = uses.map(shown).collect();
    format!("{}: {}{help}{uses}", error.message, error.label)
}

/// How many records are read for `:schema :infer`.
const SAMPLES: usize = 1000;

/// Infers the schema of a source from its first records.
pub(crate) fn infer(
    source: &dyn Source,
    format: &dyn Format,
    base: &Path,
) -> Result<SchemaRef, String> {
    infer_with(source, format, source.facts().format.settings(), base)
}

/// Infers the schema of a source as if its format had these settings.
pub(crate) fn infer_with(
    source: &dyn Source,
    format: &dyn Format,
    settings: &str,
    base: &Path,
) -> Result<SchemaRef, String> {
    // A file of columns has its fields even without records.
    let count = if format.has_bytes() { SAMPLES } else { 1 };
    let samples = sample(source, format, settings, base, count)?;
    format.infer(settings, &samples)
}

/// The settings that the format of these files needs, if it is not set and they are another one's.
pub(crate) fn other_settings(
    source: &dyn Source,
    format: &dyn Format,
    base: &Path,
) -> Result<Option<String>, String> {
    let samples = sample(source, format, "", base, 1)?;
    Ok(format.other_settings(&samples))
}

/// Up to `count` records of a source that exist now.
fn sample(
    source: &dyn Source,
    format: &dyn Format,
    settings: &str,
    base: &Path,
    count: usize,
) -> Result<Vec<Payloads>, String> {
    let framing = format.framing(settings);
    let setup = source_setup("sample", "sample", base, framing);
    let samples = source.sample(&setup, count);
    samples.map_err(|error| WithCauses(&error).to_string())
}

/// The setup of a source that is not run.
pub(crate) fn source_setup(
    pipeline: &str,
    stage: &str,
    base: &Path,
    framing: Framing,
) -> SourceSetup {
    SourceSetup {
        pipeline: pipeline.to_owned(),
        stage: stage.to_owned(),
        base: base.to_owned(),
        wanted: WantedMetadata::default(),
        fields: Vec::new(),
        takes_new_fields: false,
        bounds: Default::default(),
        framing,
        io_threads: 1,
        memory: 64 << 20,
        instance: pipeline.into(),
        state: String::new(),
        keeps_state: false,
        metrics: Metrics::new(),
    }
}

#[cfg(test)]
mod tests;
