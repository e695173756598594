//! The registry of plugins.

use std::sync::Arc;

use crate::format::Format;
use crate::group::GroupStage;
use crate::options::ParseResult;
use crate::spec::PluginSpec;
use crate::stage::{SinkFactory, SinkStage, SourceFactory, SourceStage};

/// All plugins by kind. A name may be both a source and a sink: its place in the flow decides which
/// is meant.
#[derive(Clone)]
pub struct PluginRegistry {
    /// The source plugins, in the order of the reference pages.
    pub sources: Vec<Arc<dyn SourceFactory>>,
    /// The sink plugins, like `sources`.
    pub sinks: Vec<Arc<dyn SinkFactory>>,
    /// The formats for `:format`, in the order of the reference pages.
    pub formats: Vec<Arc<dyn Format>>,
    /// Creates the sink to which the engine writes invalid records.
    pub quarantine: QuarantineFactory,
    /// Creates the two halves of a `group`.
    pub group: GroupFactory,
    /// Names that other tools have for a plugin, each with its name here, for the help of errors.
    pub synonyms: &'static [(&'static str, &'static str)],
}

/// Creates the sink that writes invalid records to a place. The records have columns with the
/// reason and the original record.
pub type QuarantineFactory = fn(&QuarantinePlace) -> ParseResult<SinkStage>;

/// Creates the sink that collects the groups of a stage, and the source that reads their results.
pub type GroupFactory = fn(&Arc<GroupStage>) -> (SinkStage, SourceStage);

/// A place for invalid records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinePlace {
    /// The folder, relative to the folder of the pipeline file. It is not a template.
    pub folder: String,
    /// The column of the records that names the subfolder in which a record is written.
    pub subfolder: &'static str,
}

impl PluginRegistry {
    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&Arc<dyn SourceFactory>> {
        self.sources
            .iter()
            .find(|plugin| plugin.spec().name == name)
    }

    /// The sink of this name.
    pub fn sink(&self, name: &str) -> Option<&Arc<dyn SinkFactory>> {
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
