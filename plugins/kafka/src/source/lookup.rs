//! Requests to the brokers on a thread of their own: where partitions begin and end, and which
//! topics exist.
//!
//! A response may take seconds, or never arrive while a partition has no leader. The consumer's
//! thread must not wait for it: the group expects heartbeats, and other partitions are to be read.
//! It sends a request with [`Lookups::request`] and checks for responses between two fetches.
//!
//! The thread is [`worker`]; [`offsets`] is the largest of its requests.

mod offsets;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use pseidon_delivery::{Position, Reason};
use pseidon_plugin::source::{SourceError, SourceExit};

use self::worker::LookupWorker;
use super::KafkaSource;
use super::identity::{PartitionIdentity, TopicId};
use crate::native::{Client, CommittedOffset, NativeError, TopicPartition};

/// A request to the lookup thread.
pub(super) enum LookupRequest {
    /// The offsets of these partitions.
    Offsets(Vec<PartitionQuery>),
    /// A retry for partitions whose offsets could not be looked up; handled after all other
    /// requests.
    OffsetsRetry(Vec<PartitionQuery>),
    /// Which of these topics exist.
    Topics(Vec<String>),
    /// How many partitions these topics have before they are subscribed to. Partitions that are
    /// created later are read from their beginning.
    Partitions(Vec<String>),
    /// Which offsets a partition has, after the requested one was not found.
    Gap(TopicPartition),
}

/// A partition whose offsets are looked up.
#[derive(Clone, Debug)]
pub(super) struct PartitionQuery {
    pub(super) at: TopicPartition,
    /// Distinguishes two lookups of the same partition.
    pub(super) ticket: u64,
    /// The position in the state; `None` if the state does not have the partition.
    pub(super) known: Option<Position>,
    /// The topic and the leader epoch that `known` belongs to.
    pub(super) identity: PartitionIdentity,
    /// With `:start :latest`: whether it existed at the first subscription to its topic.
    pub(super) existed: bool,
}

/// The offsets of a partition that decide where reading starts and ends.
#[derive(Debug, Default)]
pub(super) struct PartitionOffsets {
    /// The offset that the group has committed; `None` if `:on-missing-state` ignores it.
    pub(super) committed: Option<CommittedOffset>,
    /// Where another program stopped, for a partition that is not in the state.
    pub(super) external: Option<Position>,
    /// The offset of `:start`, for a partition that is not in the state.
    pub(super) start: Position,
    /// The offset after the last record that can be read, in a finite run.
    pub(super) end: Option<Position>,
    /// The offset after the last record, if it is below the position in the state.
    pub(super) too_short: Option<Position>,
    /// The topic's current id.
    pub(super) topic_id: TopicId,
}

/// Why the offsets of a partition could not be looked up.
pub(super) enum LookupError {
    /// A retry may succeed.
    Retryable(NativeError),
    /// The user has to resolve it.
    Fatal(SourceError),
}

/// The result for one partition.
pub(super) type LookupResult = Result<PartitionOffsets, LookupError>;

/// The response to a request.
pub(super) enum LookupResponse {
    Offsets(Vec<(PartitionQuery, LookupResult)>),
    /// The topics of the request, and the ids of those that exist.
    Topics(Vec<String>, Result<HashMap<String, String>, NativeError>),
    /// The topics of the request, and the numbers of partitions of those that exist.
    Partitions(Vec<String>, Result<HashMap<String, i32>, NativeError>),
    /// The first offset and the one after the last.
    Gap(TopicPartition, Result<(i64, i64), NativeError>),
}

/// The consumer's handle of the lookup thread. The thread ends when this is dropped, after the
/// request in progress.
pub(super) struct Lookups {
    requests: Sender<LookupRequest>,
    retries: Sender<LookupRequest>,
    answers: Receiver<LookupResponse>,
}

impl Lookups {
    /// Starts the lookup thread, which sends its requests through `client`.
    pub(super) fn start(source: &KafkaSource, client: Arc<Client>) -> Result<Lookups, SourceExit> {
        let (requests, received) = unbounded();
        let (retries, received_retries) = unbounded();
        let (reply, answers) = unbounded();
        let worker = LookupWorker::new(source.clone(), client);
        thread::Builder::new()
            .name("kafka-lookup".to_owned())
            .spawn(move || worker.run(&received, &received_retries, &reply))
            .map_err(|error| {
                SourceExit::transient(Reason::caused_by("cannot start a thread", error))
            })?;
        Ok(Lookups {
            requests,
            retries,
            answers,
        })
    }

    /// Sends a request. The response arrives with [`Lookups::try_response`].
    pub(super) fn request(&self, request: LookupRequest) {
        let queue = if matches!(request, LookupRequest::OffsetsRetry(_)) {
            &self.retries
        } else {
            &self.requests
        };
        // If the thread has ended, `try_response` reports that.
        let _ = queue.send(request);
    }

    /// The next response, if one has arrived.
    pub(super) fn try_response(&self) -> Result<Option<LookupResponse>, SourceExit> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(SourceExit::transient(
                "internal error: the lookup thread has ended",
            )),
        }
    }
}
