//! The registry of plugins.

use std::sync::Arc;

use pseidon_dsl::Diagnostic;

use crate::format::Format;
use crate::options::Options;
use crate::sink::SinkPlugin;
use crate::source::SourcePlugin;
use crate::spec::PluginSpec;

/// All plugins by kind. A name may be both a source and a sink: its place in the flow decides which
/// is meant.
#[derive(Clone)]
pub struct Registry {
    /// Source plugins.
    pub sources: Vec<Arc<dyn SourcePlugin>>,
    /// Sink plugins.
    pub sinks: Vec<Arc<dyn SinkPlugin>>,
    /// Record formats.
    pub formats: Vec<Arc<dyn Format>>,
    /// The sinks to which the engine writes invalid records.
    pub quarantine: QuarantineFactory,
}

/// Creates the sinks to which the engine writes invalid records, from a sink plugin. The records
/// have columns with the reason and the original record.
#[derive(Clone)]
pub struct QuarantineFactory {
    /// The plugin.
    pub sink: Arc<dyn SinkPlugin>,
    /// The options with which its sink writes to a place.
    pub options: fn(&QuarantinePlace) -> Result<Options, Vec<Diagnostic>>,
}

/// A place for invalid records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinePlace {
    /// The folder, relative to the folder of the pipeline file. It is not a template.
    pub folder: String,
    /// The column of the records that names the subfolder in which a record is written.
    pub subfolder: &'static str,
}

impl Registry {
    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&Arc<dyn SourcePlugin>> {
        self.sources
            .iter()
            .find(|plugin| plugin.spec().name == name)
    }

    /// The sink of this name.
    pub fn sink(&self, name: &str) -> Option<&Arc<dyn SinkPlugin>> {
        self.sinks.iter().find(|plugin| plugin.spec().name == name)
    }

    /// The format of this name.
    pub fn format(&self, name: &str) -> Option<&Arc<dyn Format>> {
        self.formats.iter().find(|format| format.name() == name)
    }

    /// The declarations of all sources and sinks.
    pub fn specs(&self) -> impl Iterator<Item = &'static PluginSpec> {
        self.sources
            .iter()
            .map(|plugin| plugin.spec())
            .chain(self.sinks.iter().map(|plugin| plugin.spec()))
    }
}
