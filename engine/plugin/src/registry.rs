//! The registry of plugins.

use std::sync::Arc;

use crate::format::Format;
use crate::sink::SinkPlugin;
use crate::source::SourcePlugin;
use crate::spec::PluginSpec;

/// All plugins by kind. A name may be both a source and a sink (`kafka`, `files`): its place in the
/// flow decides which is meant.
#[derive(Clone, Default)]
pub struct Registry {
    /// Source plugins.
    pub sources: Vec<Arc<dyn SourcePlugin>>,
    /// Sink plugins.
    pub sinks: Vec<Arc<dyn SinkPlugin>>,
    /// Record formats.
    pub formats: Vec<Arc<dyn Format>>,
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
