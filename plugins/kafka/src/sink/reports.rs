//! What a producer reports: log lines, and the records that could not be delivered.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::logs::ClientLogs;

/// The number of what is not a record of the pipeline.
pub(super) const NO_RECORD: usize = usize::MAX;

/// A record of the open transaction that the broker has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its number in the transaction.
    pub(super) number: usize,
    pub(super) partition: i32,
    pub(super) code: RDKafkaErrorCode,
    /// What the code means.
    pub(super) reason: String,
}

/// The reports of a producer since they were looked at last.
pub(super) struct Reports {
    logs: ClientLogs,
    /// Whether there is anything below.
    some: AtomicBool,
    undelivered: Mutex<Undelivered>,
}

/// The records that were not delivered.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    /// The first error.
    pub(super) error: Option<KafkaError>,
    /// The records that the broker has refused as they are.
    pub(super) refused: Vec<Refused>,
    /// Whether the broker has told refused records from the others of their batches.
    pub(super) names_records: bool,
}

impl Reports {
    /// For a producer of this stage.
    pub(super) fn new(stage: &str) -> Reports {
        Reports {
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

    /// What was not delivered since the last call.
    pub(super) fn take(&self) -> Undelivered {
        self.some.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.undelivered.lock())
    }
}

impl Undelivered {
    /// Whether the refusal is about this record, and not only about the batch that it was in;
    /// `alone` where each record had a batch of its own.
    pub(super) fn is_certain(&self, refused: &Refused, alone: bool) -> bool {
        use RDKafkaErrorCode::{InvalidRecord, InvalidTimestamp};
        if alone || self.names_records && matches!(refused.code, InvalidRecord | InvalidTimestamp) {
            return true;
        }
        let same =
            |other: &&Refused| other.partition == refused.partition && other.code == refused.code;
        self.refused.iter().filter(same).nth(1).is_none()
    }
}

/// Whether the broker refuses a record for what it is: sending it again leads to the same.
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

impl ClientContext for Reports {
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

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let Err((error, message)) = result else {
            return;
        };
        let mut undelivered = self.undelivered.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InvalidDifferentRecord) => undelivered.names_records = true,
            Some(code) if is_refusal(code) && number != NO_RECORD => {
                // librdkafka has the broker's own words too (`rd_kafka_message_produce_errstr`),
                // but frees them before the report comes here.
                undelivered.refused.push(Refused {
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

    fn refused(number: usize, partition: i32, code: RDKafkaErrorCode) -> Refused {
        Refused {
            number,
            partition,
            code,
            reason: String::new(),
        }
    }

    #[test]
    fn a_refusal_is_certain_where_the_record_is_named_or_alone() {
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
            // The size is always that of the batch.
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
            let undelivered = Undelivered {
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
