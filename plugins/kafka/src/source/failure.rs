//! What a consumer's errors mean for the run.

use pseidon_plugin::source::{SourceError, Stopped};
use rdkafka::types::RDKafkaErrorCode;

use crate::native::NativeError;

/// Why reading ends before the source has come to its end.
#[derive(Debug)]
pub(super) enum Leave {
    /// The run ends.
    Stopped,
    /// It cannot go on.
    Failed(SourceError),
}

impl From<Stopped> for Leave {
    fn from(_: Stopped) -> Self {
        Leave::Stopped
    }
}

impl Leave {
    /// The user has to do something.
    pub(super) fn fatal(reason: impl Into<String>) -> Leave {
        Leave::Failed(SourceError::Fatal(reason.into()))
    }

    /// It may work when tried again.
    pub(super) fn transient(reason: impl Into<String>) -> Leave {
        Leave::Failed(SourceError::Transient(reason.into()))
    }
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The end of a partition was reached.
    End,
    /// The wanted offset is not there.
    Gap,
    /// We are not who we say, or may not do what we want: waiting does not help.
    Denied,
    /// librdkafka has given up, for instance since another member has our static name.
    GaveUp,
    /// It may pass by itself; librdkafka tries again.
    Passing,
}

impl Meaning {
    pub(super) fn of(code: RDKafkaErrorCode) -> Meaning {
        match code {
            RDKafkaErrorCode::PartitionEOF => Meaning::End,
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Meaning::Gap,
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => Meaning::Denied,
            RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId => Meaning::GaveUp,
            _ => Meaning::Passing,
        }
    }
}

/// The sentence for an error that ends the run.
pub(super) fn denied(brokers: &str, error: &NativeError) -> SourceError {
    SourceError::Fatal(format!("{brokers} refuses us: {error}"))
}

/// The sentence for a client that gave up.
pub(super) fn gave_up(error: &NativeError) -> Leave {
    match error.code {
        RDKafkaErrorCode::FencedInstanceId => Leave::fatal(format!(
            "another member of the group has the same :instance-id; give each instance its own ({error})"
        )),
        _ => Leave::transient(format!("the kafka client cannot go on: {error}")),
    }
}
