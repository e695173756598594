//! The callbacks of a producer: log lines, and the records that could not be delivered.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::logs::ClientLogs;

/// The number of a message that is not a record of the pipeline.
pub(super) const NOT_A_RECORD: usize = usize::MAX;

/// A record of the open transaction that the broker has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedRecord {
    /// Its number in the transaction, from 0.
    pub(super) number: usize,
    pub(super) partition: i32,
    pub(super) code: RDKafkaErrorCode,
    /// The meaning of the code in words.
    pub(super) reason: String,
}

/// The reports of a producer since they were last taken.
pub(super) struct DeliveryReports {
    logs: ClientLogs,
    /// Whether `undelivered` contains anything.
    some: AtomicBool,
    undelivered: Mutex<UndeliveredRecords>,
}

/// The records that were not delivered.
#[derive(Debug, Default)]
pub(super) struct UndeliveredRecords {
    /// The error of the first of them, which need not be a refusal; `None` if there is none.
    pub(super) error: Option<KafkaError>,
    /// The records that the broker refused because of their content.
    pub(super) refused: Vec<RefusedRecord>,
    /// Whether the broker distinguished refused records from the others of their batches.
    pub(super) names_records: bool,
}

impl DeliveryReports {
    /// The callbacks for a producer of this stage.
    pub(super) fn new(stage: &str) -> DeliveryReports {
        DeliveryReports {
            logs: ClientLogs::new(stage),
            some: AtomicBool::new(false),
            undelivered: Mutex::default(),
        }
    }

    /// The first error, if a record could not be delivered.
    pub(super) fn error(&self) -> Option<KafkaError> {
        if !self.some.load(Ordering::Relaxed) {
            return None;
        }
        self.undelivered.lock().error.clone()
    }

    /// The undelivered records since the last call.
    pub(super) fn take(&self) -> UndeliveredRecords {
        self.some.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.undelivered.lock())
    }
}

impl UndeliveredRecords {
    /// Whether a refusal concerns this record, and not only the batch that contained it. `alone`
    /// means that each record was in a batch of its own.
    pub(super) fn is_certain(&self, refused: &RefusedRecord, alone: bool) -> bool {
        use RDKafkaErrorCode::{InvalidRecord, InvalidTimestamp};
        if alone || self.names_records && matches!(refused.code, InvalidRecord | InvalidTimestamp) {
            return true;
        }
        let same = |other: &&RefusedRecord| {
            other.partition == refused.partition && other.code == refused.code
        };
        self.refused.iter().filter(same).nth(1).is_none()
    }
}

/// Whether the broker refuses the record because of its content, so that sending it again fails
/// too.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        InvalidRecord, InvalidTimestamp, MessageBatchTooLarge, MessageSizeTooLarge, PolicyViolation,
    };
    matches!(
        code,
        InvalidRecord
            | InvalidTimestamp
            | MessageBatchTooLarge
            | MessageSizeTooLarge
            | PolicyViolation
    )
}

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.logs.line(level as i32, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let kind = error
            .rdkafka_error_code()
            .map(|code| format!("{code:?}"))
            .unwrap_or_default();
        self.logs.client_error(&kind, reason);
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let Err((error, message)) = result else {
            return;
        };
        let mut undelivered = self.undelivered.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InvalidDifferentRecord) => undelivered.names_records = true,
            Some(code) if is_refusal(code) && number != NOT_A_RECORD => {
                // librdkafka also has the broker's message (`rd_kafka_message_produce_errstr`), but
                // frees it before this callback.
                undelivered.refused.push(RefusedRecord {
                    number,
                    partition: message.partition(),
                    code,
                    reason: code.to_string(),
                });
            }
            _ => {}
        }
        undelivered.error.get_or_insert_with(|| error.clone());
        self.some.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode::{InvalidRecord, MessageSizeTooLarge};

    use super::*;

    fn refused(number: usize, partition: i32, code: RDKafkaErrorCode) -> RefusedRecord {
        RefusedRecord {
            number,
            partition,
            code,
            reason: String::new(),
        }
    }

    #[test]
    fn a_refusal_is_certain_if_the_record_is_named_or_alone() {
        for (all, names_records, certain) in [
            (vec![refused(0, 0, InvalidRecord)], false, vec![true]),
            (
                vec![refused(0, 0, InvalidRecord), refused(1, 0, InvalidRecord)],
                false,
                vec![false, false],
            ),
            (
                vec![refused(0, 0, InvalidRecord), refused(1, 0, InvalidRecord)],
                true,
                vec![true, true],
            ),
            (
                vec![refused(0, 0, InvalidRecord), refused(1, 1, InvalidRecord)],
                false,
                vec![true, true],
            ),
            // The size always concerns the batch.
            (
                vec![
                    refused(0, 0, MessageSizeTooLarge),
                    refused(1, 0, MessageSizeTooLarge),
                ],
                true,
                vec![false, false],
            ),
            (
                vec![
                    refused(0, 0, MessageSizeTooLarge),
                    refused(1, 0, InvalidRecord),
                ],
                false,
                vec![true, true],
            ),
        ] {
            let undelivered = UndeliveredRecords {
                error: None,
                refused: all.clone(),
                names_records,
            };
            let found: Vec<bool> = all
                .iter()
                .map(|refused| undelivered.is_certain(refused, false))
                .collect();
            assert_eq!(found, certain, "{all:?}");
            assert!(
                all.iter()
                    .all(|refused| undelivered.is_certain(refused, true))
            );
        }
    }
}
