//! Error policies, and the quarantines that they require.

use pseidon_delivery::SinkId;
use pseidon_plugin::options::OnError;

use super::ChainCompiler;
use super::flow_point::input_with_columns;
use crate::chain::{PlannedSink, Policy};
use crate::index::SinkIndex;
use crate::quarantine;

impl ChainCompiler<'_> {
    /// The policy for this value of `:on-error`. `None` if an error was added.
    pub(super) fn policy(&mut self, on_error: &OnError) -> Option<Policy> {
        match on_error {
            OnError::Throw => Some(Policy::Throw),
            OnError::Noop => Some(Policy::Noop),
            OnError::Retry { then, .. } => self.policy(then),
            OnError::Quarantine { path } => {
                match path.clone().or_else(|| self.default_quarantine.clone()) {
                    Some(folder) => self.quarantine_in(folder).map(Policy::Quarantine),
                    None => Some(Policy::Noop),
                }
            }
        }
    }

    /// The sink that quarantines the source's records in this folder. The steps behind a source
    /// share it.
    fn quarantine_in(&mut self, folder: String) -> Option<SinkIndex> {
        let known = self.quarantines.iter().find(|(known, _)| *known == folder);
        if let Some((_, sink)) = known {
            return Some(*sink);
        }
        let sink = self.add_quarantine(&folder)?;
        self.quarantines.push((folder, sink));
        Some(sink)
    }

    fn add_quarantine(&mut self, folder: &str) -> Option<SinkIndex> {
        let place = quarantine::place(folder, self.pipeline);
        let sink = self.errors.value((self.quarantine)(&place))?;
        let input = input_with_columns(quarantine::schema());
        let prepared = self.errors.value(sink.prepare(&input))?;
        let id = match self.quarantines.len() {
            0 => format!("{}.quarantine", self.stage),
            others => format!("{}.quarantine#{}", self.stage, others + 1),
        };
        Some(self.add_sink(PlannedSink {
            id: SinkId::from(id),
            plugin: sink.options.spec.name,
            prepared,
            protocol: sink.facts.protocol,
            folder: sink.facts.folder.clone(),
            is_quarantine: true,
            is_group: false,
            nondeterminism: Vec::new(),
            retry: None,
        }))
    }
}
