//! From a file's name to a plan.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use pseidon_dsl::{Diagnostic, Document, diagnostic, document, interpolate};
use pseidon_logs::{Log, MysqlLogs, Settings};
use pseidon_plan::{Context, Infer, Plan, plan};
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::format::Format;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::registry::Registry;
use pseidon_plugin::source::{Source, SourceSetup};

use crate::plugins::{registry, registry_with, sample_log};
use crate::{Exit, FileArgs, import};

/// A pipeline's text and where it came from.
#[derive(Clone)]
pub(crate) struct Text {
    /// As it is named in messages.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// Where relative paths start.
    pub(crate) base: PathBuf,
    /// The pipeline's name if the text does not say one.
    pub(crate) default_name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Edn,
    Toml,
    Flow,
}

/// Reads the text that the arguments name. Mistakes are printed.
pub(crate) fn text(from: &FileArgs) -> Result<Text, Exit> {
    match (&from.file, &from.expression) {
        (Some(file), _) => read(file).and_then(import::pipeline),
        (None, Some(flow)) => Ok(Text {
            name: "-e".to_owned(),
            text: flow.clone(),
            kind: Kind::Flow,
            base: PathBuf::from("."),
            default_name: "expression".to_owned(),
        }),
        (None, None) => Err(Exit::WrongFile),
    }
}

/// Reads a pipeline file.
pub(crate) fn read(file: &Path) -> Result<Text, Exit> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        eprintln!("error: cannot read {name}: {error}");
        Exit::WrongFile
    })?;
    let kind = if file
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        Kind::Toml
    } else {
        Kind::Edn
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
    Ok(Text {
        name,
        text,
        kind,
        base,
        default_name,
    })
}

impl Text {
    /// The document, with `${env:…}` and `${file:…}` filled in. Mistakes are printed.
    pub(crate) fn document(&self) -> Result<Document, Exit> {
        self.document_for(&sample_log())
            .map_err(|mistakes| self.show(&mistakes))
    }

    /// The document as it is for a log; where it is no template, `${log:…}` is a mistake.
    fn document_for(&self, log: &Log) -> Result<Document, Vec<Diagnostic>> {
        let mut document = match self.kind {
            Kind::Edn => document::from_edn(&self.text),
            Kind::Toml => document::from_toml(&self.text),
            Kind::Flow => document::from_flow(&self.text),
        }?;
        let is_template = is_template(&document);
        interpolate::document(&mut document, &mut |kind, name| match kind {
            "log" if is_template => log.variable(name),
            "log" => Err("there is no log here: it takes a source `mysql-logs`".to_owned()),
            _ => look_up(kind, name, &self.base),
        })?;
        Ok(document)
    }

    /// The plan. Mistakes are printed.
    pub(crate) fn plan(&self, document: &Document) -> Result<Plan, Exit> {
        self.plan_with(document, &|_, source, format| {
            infer(source, format, &self.base)
        })
    }

    /// The plan, with `infer` for sources that say `:schema :infer`. Mistakes are printed.
    pub(crate) fn plan_with(&self, document: &Document, infer: &Infer<'_>) -> Result<Plan, Exit> {
        self.plan_in(&registry(), document, infer)
            .map_err(|mistakes| self.show(&mistakes))
    }

    /// The plan of a template for a log as most are, and what the stage `mysql-logs` says. Mistakes
    /// are printed.
    pub(crate) fn template(&self, document: &Document) -> Result<(Plan, Settings), Exit> {
        let logs = Arc::new(MysqlLogs::new(Arc::new(sample_log())));
        let plan = self.plan_in(&registry_with(logs.clone()), document, &|_, _, _| {
            Err(LOGS_ARE_NOT_INFERRED.to_owned())
        });
        let plan = plan.map_err(|mistakes| self.show(&mistakes))?;
        if let Some(other) = plan.sources.iter().find(|source| source.plugin != LOGS) {
            eprintln!(
                "error: {}: a pipeline with `{LOGS}` can have no other source, but has `{}`",
                self.name, other.stage
            );
            return Err(Exit::WrongFile);
        }
        // Whoever planned a pipeline with the stage has its settings.
        let settings = Arc::into_inner(logs)
            .and_then(MysqlLogs::into_settings)
            .ok_or(Exit::WrongFile)?;
        Ok((plan, settings))
    }

    /// The plan of a template for a log. An error is a sentence without a place, since the row is
    /// more likely to be wrong than the text.
    pub(crate) fn plan_for_log(&self, log: Arc<Log>) -> Result<Plan, String> {
        let all_in_words = |mistakes: Vec<Diagnostic>| {
            mistakes.iter().map(in_words).collect::<Vec<_>>().join("; ")
        };
        let document = self.document_for(&log).map_err(all_in_words)?;
        let registry = registry_with(Arc::new(MysqlLogs::new(log)));
        self.plan_in(&registry, &document, &|_, _, _| {
            Err(LOGS_ARE_NOT_INFERRED.to_owned())
        })
        .map_err(all_in_words)
    }

    fn plan_in(
        &self,
        registry: &Registry,
        document: &Document,
        infer: &Infer<'_>,
    ) -> Result<Plan, Vec<Diagnostic>> {
        let (default_name, base, text) = (
            self.default_name.clone(),
            self.base.clone(),
            self.text.clone(),
        );
        plan(
            document,
            Context {
                registry,
                default_name,
                base,
                text,
                infer,
            },
        )
    }

    /// Prints mistakes as rustc does.
    pub(crate) fn show(&self, mistakes: &[Diagnostic]) -> Exit {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!(
            "{}",
            diagnostic::render(&self.name, &self.text, mistakes, color)
        );
        let count = mistakes.len();
        eprintln!(
            "{}: {count} {}",
            self.name,
            if count == 1 { "mistake" } else { "mistakes" }
        );
        Exit::WrongFile
    }
}

/// The source that makes a pipeline a template.
const LOGS: &str = "mysql-logs";
const LOGS_ARE_NOT_INFERRED: &str = "the fields of logs come from their rows and tables";

/// Whether the pipeline is run once for each log of a table.
pub(crate) fn is_template(document: &Document) -> bool {
    document
        .calls()
        .iter()
        .any(|call| call.plugin.to_string() == LOGS)
}

/// A mistake as a sentence, for where its text is not shown.
fn in_words(mistake: &Diagnostic) -> String {
    let help = mistake
        .help
        .as_ref()
        .map(|help| format!("; {help}"))
        .unwrap_or_default();
    format!("{}: {}{help}", mistake.message, mistake.label)
}

/// How many records are looked at for `:schema :infer`.
const SAMPLES: usize = 1000;

/// The fields of a source's first records.
pub(crate) fn infer(
    source: &dyn Source,
    format: &dyn Format,
    base: &Path,
) -> Result<SchemaRef, String> {
    let setup = SourceSetup {
        pipeline: "infer".to_owned(),
        stage: "infer".to_owned(),
        base: base.to_owned(),
        wanted: MetaWanted::default(),
        io_threads: 1,
        memory: 64 << 20,
        instance: "infer".to_owned(),
        state: String::new(),
        metrics: Metrics::new(),
    };
    let samples = source
        .sample(&setup, SAMPLES)
        .map_err(|error| error.to_string())?;
    format.infer(&samples)
}

/// This machine's name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

fn look_up(kind: &str, name: &str, base: &Path) -> Result<String, String> {
    match kind {
        "env" => {
            std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))
        }
        "file" => {
            let content = std::fs::read_to_string(base.join(name))
                .map_err(|error| format!("cannot read {name}: {error}"))?;
            Ok(content.trim_end_matches(['\n', '\r']).to_owned())
        }
        "host" if name == "name" => Ok(host_name()),
        "host" => Err(format!("a host has no `{name}`; expected host:name")),
        other => Err(format!(
            "`{other}` is not known here; expected env, file, host or log"
        )),
    }
}

#[cfg(test)]
mod tests;
