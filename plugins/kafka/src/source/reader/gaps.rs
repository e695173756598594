//! Errors of single partitions and of the client.

use pseidon_delivery::{Position, Reason};
use pseidon_plugin::source::{SourceError, SourceExit};
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::super::failure::{ErrorClass, denied, gave_up};
use super::super::lookup::LookupRequest;
use super::super::lost_records::{too_short, truncated};
use super::super::start::{is_missing_topic, list_of};
use super::{Reader, raw};
use crate::native::{Message, NativeError, TopicPartition};

impl Reader<'_> {
    pub(super) fn handle_client_error(&mut self, error: &NativeError) -> Result<(), SourceExit> {
        let brokers = &self.source.connection.brokers;
        match ErrorClass::of(error.code) {
            // A login that succeeded before may succeed again.
            ErrorClass::Denied if !self.membership.joined => {
                Err(SourceExit::Failed(denied(brokers, error.clone())))
            }
            ErrorClass::GaveUp => Err(gave_up(
                self.consumer.fatal_error().unwrap_or_else(|| error.clone()),
            )),
            _ => {
                let is_down = error.code == RDKafkaErrorCode::AllBrokersDown;
                self.membership.unreachable |= is_down;
                let remedy = match is_down {
                    true => "; check that they run and that `:brokers` has their addresses",
                    false => "",
                };
                self.logs.client_error(
                    &format!("{:?}", error.code),
                    &format!("{error} (brokers: {brokers}){remedy}"),
                );
                Ok(())
            }
        }
    }

    pub(super) fn handle_message_error(
        &mut self,
        message: Message<'_>,
        error: &NativeError,
    ) -> Result<(), SourceExit> {
        let at = TopicPartition {
            topic: message.topic(),
            partition: message.partition(),
        };
        match ErrorClass::of(error.code) {
            ErrorClass::End => {
                let reached = Position::try_from(message.offset()).unwrap_or(0);
                if let Some(assigned) = self
                    .assignment
                    .iter_mut()
                    .find(|assigned| assigned.at == at)
                    && assigned.until.is_some_and(|until| reached >= until)
                {
                    assigned.done = true;
                }
                Ok(())
            }
            ErrorClass::Gap => {
                if error.text.contains("truncation") {
                    self.truncated.insert(at.clone());
                }
                self.lookups.request(LookupRequest::Gap(at));
                Ok(())
            }
            ErrorClass::Denied => self.fail(
                &at.topic,
                denied(&self.source.connection.brokers, error.clone()),
            ),
            ErrorClass::GaveUp => Err(gave_up(
                self.consumer.fatal_error().unwrap_or_else(|| error.clone()),
            )),
            ErrorClass::Passing if error.code == RDKafkaErrorCode::InconsistentGroupProtocol => {
                let problem = self.membership.record_other_strategy();
                self.logs.warn("GROUP", problem);
                Ok(())
            }
            // Missing topics are looked up and reported together.
            ErrorClass::Passing if is_missing_topic(error) => {
                self.topics.refresh_soon();
                Ok(())
            }
            ErrorClass::Passing => {
                self.logs
                    .warn(&format!("{:?} {}", error.code, at.topic), &error.text);
                Ok(())
            }
        }
    }

    /// Handles a partition whose next offset does not exist, given the offsets that it has.
    pub(super) fn handle_gap(
        &mut self,
        at: &TopicPartition,
        offsets: Result<(i64, i64), NativeError>,
    ) -> Result<(), SourceExit> {
        let Some(assigned) = self.assignment.iter().find(|assigned| assigned.at == *at) else {
            // The next instance that reads the partition finds a truncation again.
            self.truncated.remove(at);
            return Ok(());
        };
        let wanted = assigned.next;
        let name = format!("{}/{}", at.topic, at.partition);
        let (low, high) = match offsets {
            Ok((low, high)) => (low, Position::try_from(high).unwrap_or(0)),
            Err(error) => {
                tracing::debug!(
                    partition = name, %error,
                    "cannot look up the offsets of the partition; retrying"
                );
                self.lookups.request(LookupRequest::Gap(at.clone()));
                return Ok(());
            }
        };
        let is_truncated = self.truncated.remove(at);
        if wanted > high {
            return self.fail(&at.topic, too_short(&name, high, wanted));
        }
        let first = Position::try_from(low).unwrap_or(0);
        if wanted >= first {
            if is_truncated {
                return self.fail(&at.topic, truncated(&name, wanted));
            }
            // The offset exists now: a broker that has just become the leader may not have had it.
            return self.read_from(at, low.max(raw(wanted)));
        }
        if !self.source.continue_after_gap {
            let left = if first < high {
                format!("offsets {first} to {}", high - 1)
            } else {
                format!("no record (the next one will have offset {high})")
            };
            let reason = format!(
                "offset {wanted} of {name} was deleted: the broker has {left}. To skip the missing \
                 records, set :on-gap :continue"
            );
            return self.fail(&at.topic, SourceError::Fatal(reason.into()));
        }
        let missing = first.saturating_sub(wanted);
        tracing::warn!(
            partition = name,
            wanted,
            first,
            missing,
            "records were deleted before they were read; reading what is left"
        );
        self.flush()?;
        self.read_from(at, low)
    }

    /// Restarts fetching a partition, which librdkafka has stopped, from another offset.
    fn read_from(&mut self, at: &TopicPartition, offset: i64) -> Result<(), SourceExit> {
        // While the group waits for an answer to a revocation, librdkafka would take this call for
        // it. The partition is not fetched meanwhile.
        if self.departures.owes_answer() {
            self.lookups.request(LookupRequest::Gap(at.clone()));
            return Ok(());
        }
        let names = [at.clone()];
        self.unassign(&names)?;
        let list = list_of(&names, |_| Offset::Offset(offset));
        let failed = |error| {
            let what = format!(
                "cannot read {}/{} from offset {offset}",
                at.topic, at.partition
            );
            SourceExit::transient(Reason::caused_by(what, error))
        };
        self.consumer.assign_more(&list).map_err(failed)
    }
}
