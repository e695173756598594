//! Requests for the topics and partitions of the cluster.

use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::IsError;

use super::{Client, NativeError, TopicPartition, c_string, check, millis, native_error, text};

/// A partition in the brokers' metadata.
pub(crate) struct FoundPartition {
    /// The topic and the partition.
    pub(crate) at: TopicPartition,
    /// Whether a broker leads it. Without a leader it can neither be read nor asked for its
    /// offsets.
    pub(crate) has_leader: bool,
}

impl Client {
    /// The partitions of a topic; an error if the topic does not exist.
    pub(crate) fn partitions_of(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<TopicPartition>, NativeError> {
        Ok(self
            .leaders_of(topic, timeout)?
            .into_iter()
            .map(|found| found.at)
            .collect())
    }

    /// Like [`Client::partitions_of`], with whether each partition has a leader.
    pub(crate) fn leaders_of(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<FoundPartition>, NativeError> {
        let name = c_string(topic);
        // SAFETY: the client is alive and the name is NUL-terminated; a null configuration stands
        // for the default.
        let handle = unsafe { rd::rd_kafka_topic_new(self.ptr(), name.as_ptr(), ptr::null_mut()) };
        let found = self.metadata(handle, timeout);
        if !handle.is_null() {
            // SAFETY: the handle is owned and not used after this.
            unsafe { rd::rd_kafka_topic_destroy(handle) };
        }
        found?
            .into_iter()
            .find(|(name, _)| name == topic)
            .map_or_else(|| Ok(Vec::new()), |(_, partitions)| partitions)
    }

    /// The partitions of all topics that the user may see.
    pub(crate) fn all_partitions(
        &self,
        timeout: Duration,
    ) -> Result<Vec<TopicPartition>, NativeError> {
        Ok(self
            .all_leaders(timeout)?
            .into_iter()
            .map(|found| found.at)
            .collect())
    }

    /// Like [`Client::all_partitions`], with whether each partition has a leader.
    pub(crate) fn all_leaders(
        &self,
        timeout: Duration,
    ) -> Result<Vec<FoundPartition>, NativeError> {
        let topics = self.metadata(ptr::null_mut(), timeout)?;
        Ok(topics
            .into_iter()
            .filter_map(|(_, partitions)| partitions.ok())
            .flatten()
            .collect())
    }

    /// The metadata of one topic, or of all topics if the handle is null.
    #[allow(
        clippy::type_complexity,
        reason = "a topic's name with its partitions; used only by the two methods above"
    )]
    fn metadata(
        &self,
        topic: *mut rd::rd_kafka_topic_t,
        timeout: Duration,
    ) -> Result<Vec<(String, Result<Vec<FoundPartition>, NativeError>)>, NativeError> {
        let mut metadata = ptr::null();
        // SAFETY: the client is alive, the topic is null or alive, and what is written to
        // `metadata` is owned.
        let code = unsafe {
            rd::rd_kafka_metadata(
                self.ptr(),
                i32::from(topic.is_null()),
                topic,
                &mut metadata,
                millis(timeout),
            )
        };
        check(code)?;
        // SAFETY: after success `metadata` is alive until it is destroyed, its arrays have the
        // lengths that it states, and names are NUL-terminated. Everything is copied before.
        unsafe {
            let topics = array((*metadata).topics, (*metadata).topic_cnt);
            let found = topics
                .iter()
                .map(|topic| {
                    let name = text(topic.topic);
                    if topic.err.is_error() {
                        return (name, Err(native_error(topic.err)));
                    }
                    let partitions = array(topic.partitions, topic.partition_cnt).iter();
                    let found = |at: &rd::rd_kafka_metadata_partition_t| FoundPartition {
                        at: TopicPartition {
                            topic: name.clone(),
                            partition: at.id,
                        },
                        has_leader: at.leader >= 0,
                    };
                    let partitions = partitions.map(found).collect();
                    (name, Ok(partitions))
                })
                .collect();
            rd::rd_kafka_metadata_destroy(metadata);
            Ok(found)
        }
    }
}

/// # Safety
/// The pointer is null or valid for `len` elements that live for `'a`.
unsafe fn array<'a, T>(start: *const T, len: i32) -> &'a [T] {
    match usize::try_from(len) {
        // SAFETY: guaranteed by the caller.
        Ok(len) if len > 0 && !start.is_null() => unsafe { slice::from_raw_parts(start, len) },
        _ => &[],
    }
}
