//! From a file's name to a plan.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use pseidon_dsl::{Diagnostic, Document, diagnostic, document, interpolate};
use pseidon_plan::{Context, Infer, Plan, plan};
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::format::Format;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{Source, SourceSetup};

use crate::plugins::registry;
use crate::{Exit, FileArgs};

/// A pipeline's text and where it came from.
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
        (Some(file), _) => read(file),
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
    let kind = if file.extension().is_some_and(|extension| extension == "toml") { Kind::Toml } else { Kind::Edn };
    let base = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let default_name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Text { name, text, kind, base, default_name })
}

impl Text {
    /// The document, with `${env:…}` and `${file:…}` filled in. Mistakes are printed.
    pub(crate) fn document(&self) -> Result<Document, Exit> {
        let read = match self.kind {
            Kind::Edn => document::from_edn(&self.text),
            Kind::Toml => document::from_toml(&self.text),
            Kind::Flow => document::from_flow(&self.text),
        };
        let mut document = read.map_err(|mistakes| self.show(&mistakes))?;
        interpolate::document(&mut document, &mut |kind, name| look_up(kind, name, &self.base)).map_err(|mistakes| self.show(&mistakes))?;
        Ok(document)
    }

    /// The plan. Mistakes are printed.
    pub(crate) fn plan(&self, document: &Document) -> Result<Plan, Exit> {
        self.plan_with(document, &|_, source, format| infer(source, format, &self.base))
    }

    /// The plan, with `infer` for sources that say `:schema :infer`. Mistakes are printed.
    pub(crate) fn plan_with(&self, document: &Document, infer: &Infer<'_>) -> Result<Plan, Exit> {
        let registry = registry();
        let (default_name, base, text) = (self.default_name.clone(), self.base.clone(), self.text.clone());
        plan(document, Context { registry: &registry, default_name, base, text, infer }).map_err(|mistakes| self.show(&mistakes))
    }

    /// Prints mistakes as rustc does.
    pub(crate) fn show(&self, mistakes: &[Diagnostic]) -> Exit {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", diagnostic::render(&self.name, &self.text, mistakes, color));
        let count = mistakes.len();
        eprintln!("{}: {count} {}", self.name, if count == 1 { "mistake" } else { "mistakes" });
        Exit::WrongFile
    }
}

/// How many records are looked at for `:schema :infer`.
const SAMPLES: usize = 1000;

/// The fields of a source's first records.
pub(crate) fn infer(source: &dyn Source, format: &dyn Format, base: &Path) -> Result<SchemaRef, String> {
    let setup = SourceSetup {
        pipeline: "infer".to_owned(),
        stage: "infer".to_owned(),
        base: base.to_owned(),
        wanted: MetaWanted::default(),
        io_threads: 1,
        memory: 64 << 20,
        instance: "infer".to_owned(),
        metrics: Metrics::new(),
    };
    let samples = source.sample(&setup, SAMPLES).map_err(|error| error.to_string())?;
    format.infer(&samples)
}

fn look_up(kind: &str, name: &str, base: &Path) -> Result<String, String> {
    match kind {
        "env" => std::env::var(name).map_err(|_| format!("the environment variable {name} is not set")),
        "file" => {
            let content = std::fs::read_to_string(base.join(name)).map_err(|error| format!("cannot read {name}: {error}"))?;
            Ok(content.trim_end_matches(['\n', '\r']).to_owned())
        }
        other => Err(format!("`{other}` is not known here; expected env or file")),
    }
}

#[cfg(test)]
mod tests;
