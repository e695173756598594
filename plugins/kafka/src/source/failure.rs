//! Classifies the consumer's errors by their effect on the run.

use pseidon_delivery::Reason;
use pseidon_plugin::source::{SourceError, SourceExit};
use rdkafka::types::RDKafkaErrorCode;

use crate::native::NativeError;

/// The effect of an error on the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The end of a partition was reached.
    End,
    /// The requested offset does not exist.
    Gap,
    /// Authentication or authorization failed: waiting does not help.
    Denied,
    /// librdkafka has given up, for instance because another member has the same static name.
    GaveUp,
    /// It may pass by itself; librdkafka retries.
    Passing,
}

impl ErrorClass {
    /// The class of an error code.
    pub(super) fn of(code: RDKafkaErrorCode) -> ErrorClass {
        match code {
            RDKafkaErrorCode::PartitionEOF => ErrorClass::End,
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                ErrorClass::Gap
            }
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => ErrorClass::Denied,
            RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId => ErrorClass::GaveUp,
            _ => ErrorClass::Passing,
        }
    }
}

/// The error of a run that is denied access.
pub(super) fn denied(brokers: &str, error: NativeError) -> SourceError {
    SourceError::Fatal(Reason::caused_by(
        format!("{brokers} refused access"),
        error,
    ))
}

/// The error of a run whose client gave up.
pub(super) fn gave_up(error: NativeError) -> SourceExit {
    match error.code {
        RDKafkaErrorCode::FencedInstanceId => SourceExit::fatal(format!(
            "another member of the group has the same :instance-id; set a different one for each \
             instance ({error})"
        )),
        _ => SourceExit::transient(Reason::caused_by("the kafka client cannot continue", error)),
    }
}
