//! Decides at which offset a partition that was taken over is read.

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;

use super::super::Reader;
use crate::source::lookup::{PartitionOffsets, PartitionQuery};
use crate::source::lost_records::{recreated_topic, too_short};
use crate::source::start::OnMissingState;

impl Reader<'_> {
    /// The group's offset, if it was written from the run's own state and is above the position
    /// that the state has now.
    pub(super) fn written_above(
        &self,
        query: &PartitionQuery,
        offsets: &PartitionOffsets,
    ) -> Option<Position> {
        let outlet = &self.arrivals.lookups_in_progress.get(&query.at)?.outlet;
        let written = outlet.written_offset(offsets.committed.as_ref()?)?;
        (written > query.known?).then_some(written)
    }

    /// The offset to start at. The error says why no offset can be trusted.
    pub(super) fn start_of(
        &self,
        query: &PartitionQuery,
        offsets: &PartitionOffsets,
    ) -> Result<Position, SourceError> {
        let at = &query.at;
        let name = format!("{}/{}", at.topic, at.partition);
        let group = &self.membership.group;
        let Some(known) = query.known else {
            if let Some(offset) = offsets.external {
                tracing::info!(
                    topic = at.topic,
                    partition = at.partition,
                    offset,
                    "resuming where another program stopped"
                );
                return Ok(offset);
            }
            let by_group = offsets
                .committed
                .as_ref()
                .and_then(|committed| Position::try_from(committed.offset).ok());
            return match by_group {
                Some(offset) if self.source.on_missing_state == OnMissingState::Stop => {
                    let what = format!(
                        "the state does not have {name}, but the group {group} has read it up to \
                         offset {offset}: the state may have been lost. Restore it, or set \
                         :on-missing-state :group to resume at the group's offsets, or \
                         :on-missing-state :start to begin at :start"
                    );
                    Err(SourceError::Fatal(what.into()))
                }
                by_group => Ok(by_group.unwrap_or(offsets.start)),
            };
        };
        if query.identity.topic.is_other_than(&offsets.topic_id) {
            return Err(recreated_topic(&at.topic, &name, known));
        }
        if let Some(end) = offsets.too_short {
            return Err(too_short(&name, end, known));
        }
        match self.written_above(query, offsets) {
            None => Ok(known),
            Some(written) if self.source.on_missing_state == OnMissingState::Group => {
                tracing::warn!(
                    partition = name,
                    known,
                    written,
                    "the state is older than the group's offset; resuming at the group's offset"
                );
                Ok(written)
            }
            Some(written) => {
                let what = format!(
                    "the state is older than what was delivered: it resumes {name} at offset \
                     {known}, but offset {written} was committed from it before (to the group \
                     {group}). It was restored from an older copy, or has lost data, and {} records \
                     would be delivered twice. Restore the newest state, or set :on-missing-state \
                     :group to resume at the group's offsets, or :on-missing-state :start to resume \
                     at the position in the state",
                    written - known
                );
                Err(SourceError::Fatal(what.into()))
            }
        }
    }
}
