//! What goes wrong with single partitions, and with the client.

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::super::failure::{Leave, Meaning, denied, gave_up};
use super::super::lookup::Question;
use super::super::start::{is_missing_topic, list_of};
use super::arrivals::too_short;
use super::{Reader, raw};
use crate::native::{Message, NativeError, TopicPartition};

impl Reader<'_> {
    pub(super) fn handle_client_error(&mut self, error: &NativeError) -> Result<(), Leave> {
        let brokers = &self.source.connection.brokers;
        match Meaning::of(error.code) {
            // A login that worked before may work again.
            Meaning::Denied if !self.joined => Err(Leave::Failed(denied(brokers, error))),
            Meaning::GaveUp => Err(gave_up(
                &self.consumer.fatal_error().unwrap_or_else(|| error.clone()),
            )),
            _ => {
                self.unreachable |= error.code == RDKafkaErrorCode::AllBrokersDown;
                self.logs.client_error(
                    &format!("{:?}", error.code),
                    &format!("{error} (brokers: {brokers})"),
                );
                Ok(())
            }
        }
    }

    pub(super) fn handle_message_error(
        &mut self,
        message: Message<'_>,
        error: &NativeError,
    ) -> Result<(), Leave> {
        let at = TopicPartition {
            topic: message.topic(),
            partition: message.partition(),
        };
        match Meaning::of(error.code) {
            Meaning::End => {
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
            Meaning::Gap => {
                if error.text.contains("truncation") {
                    self.truncated.insert(at.clone());
                }
                self.lookups.ask(Question::Gap(at));
                Ok(())
            }
            Meaning::Denied => self.fail(&at.topic, denied(&self.source.connection.brokers, error)),
            Meaning::GaveUp => Err(gave_up(
                &self.consumer.fatal_error().unwrap_or_else(|| error.clone()),
            )),
            Meaning::Passing if error.code == RDKafkaErrorCode::InconsistentGroupProtocol => {
                let group = &self.group;
                let trouble = format!(
                    "the group {group} has members of another kind (an assignment strategy other than cooperative-sticky), so this instance \
                     cannot join it: stop the other consumers, or set another :group"
                );
                self.logs.warn("GROUP", &trouble);
                self.group_trouble = Some(trouble);
                Ok(())
            }
            // Which topics do not exist is asked for and said together.
            Meaning::Passing if is_missing_topic(error) => {
                self.topics.ask_soon();
                Ok(())
            }
            Meaning::Passing => {
                self.logs
                    .warn(&format!("{:?} {}", error.code, at.topic), &error.text);
                Ok(())
            }
        }
    }

    /// The offset to read next is not there; these are.
    pub(super) fn hear_gap(
        &mut self,
        at: &TopicPartition,
        offsets: Result<(i64, i64), NativeError>,
    ) -> Result<(), Leave> {
        let Some(assigned) = self.assignment.iter().find(|assigned| assigned.at == *at) else {
            return Ok(());
        };
        let wanted = assigned.next;
        let name = format!("{}/{}", at.topic, at.partition);
        let (low, high) = match offsets {
            Ok((low, high)) => (low, Position::try_from(high).unwrap_or(0)),
            Err(error) => {
                tracing::debug!(partition = name, %error, "the broker does not say which offsets it has; it is asked again");
                self.lookups.ask(Question::Gap(at.clone()));
                return Ok(());
            }
        };
        if wanted > high {
            return self.fail(&at.topic, too_short(&name, high, wanted));
        }
        let first = Position::try_from(low).unwrap_or(0);
        if wanted >= first {
            if self.truncated.remove(at) {
                return self.fail(&at.topic, truncated(&name, wanted));
            }
            // It is there now: a broker that has just become the leader may not have had it yet.
            return self.read_from(at, low.max(raw(wanted)));
        }
        if !self.source.continue_after_gap {
            let left = if first < high {
                format!("offsets {first} to {}", high - 1)
            } else {
                format!("no record (the next one gets {high})")
            };
            let reason = format!(
                "offset {wanted} of {name} is gone: the broker has {left}. To go on without what lies between, say :on-gap :continue"
            );
            return self.fail(&at.topic, SourceError::Fatal(reason));
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

    /// Reads a partition from another offset, which librdkafka has stopped to fetch.
    fn read_from(&mut self, at: &TopicPartition, offset: i64) -> Result<(), Leave> {
        // While the group waits for an answer, this would be taken for it. The partition is not
        // fetched meanwhile.
        if self.departures.owe_an_answer() {
            self.lookups.ask(Question::Gap(at.clone()));
            return Ok(());
        }
        let names = [at.clone()];
        self.unassign(&names)?;
        let list = list_of(&names, |_| Offset::Offset(offset));
        let failed = |error| {
            Leave::transient(format!(
                "cannot read {}/{} from offset {offset}: {error}",
                at.topic, at.partition
            ))
        };
        self.consumer.assign_more(&list).map_err(failed)
    }
}

/// The error for a partition whose log has another past than the one that was read.
fn truncated(name: &str, known: Position) -> SourceError {
    SourceError::Fatal(format!(
        "{name} has lost records below offset {known}, up to which it was read, and has others in their place: its log was truncated, as after \
         the election of a leader that was not in sync. To resume with what is there now, give the source's stage another name and say \
         :on-missing-state :group"
    ))
}
