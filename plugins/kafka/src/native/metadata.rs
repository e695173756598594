//! Which topics and partitions there are.

use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::IsError;

use super::{Client, NativeError, TopicPartition, c_string, check, millis, native_error, text};

/// A partition, as the brokers know it.
pub(crate) struct FoundPartition {
    /// Which.
    pub(crate) at: TopicPartition,
    /// Whether a broker leads it. Without one it can neither be read nor asked for its offsets.
    pub(crate) has_leader: bool,
}

impl Client {
    /// The partitions of a topic; an error where it does not exist.
    pub(crate) fn partitions_of(
        &self,
        topic: &str,
        patience: Duration,
    ) -> Result<Vec<TopicPartition>, NativeError> {
        Ok(self
            .leaders_of(topic, patience)?
            .into_iter()
            .map(|found| found.at)
            .collect())
    }

    /// The same, with which of them have a leader.
    pub(crate) fn leaders_of(
        &self,
        topic: &str,
        patience: Duration,
    ) -> Result<Vec<FoundPartition>, NativeError> {
        let name = c_string(topic);
        // SAFETY: the client is alive and the name ends with a NUL; without a configuration the
        // default holds.
        let handle = unsafe { rd::rd_kafka_topic_new(self.ptr(), name.as_ptr(), ptr::null_mut()) };
        let found = self.metadata(handle, patience);
        if !handle.is_null() {
            // SAFETY: the handle is ours and not used after this.
            unsafe { rd::rd_kafka_topic_destroy(handle) };
        }
        found?
            .into_iter()
            .find(|(name, _)| name == topic)
            .map_or_else(|| Ok(Vec::new()), |(_, partitions)| partitions)
    }

    /// The partitions of all topics that can be seen.
    pub(crate) fn all_partitions(
        &self,
        patience: Duration,
    ) -> Result<Vec<TopicPartition>, NativeError> {
        Ok(self
            .all_leaders(patience)?
            .into_iter()
            .map(|found| found.at)
            .collect())
    }

    /// The same, with which of them have a leader.
    pub(crate) fn all_leaders(
        &self,
        patience: Duration,
    ) -> Result<Vec<FoundPartition>, NativeError> {
        let topics = self.metadata(ptr::null_mut(), patience)?;
        Ok(topics
            .into_iter()
            .filter_map(|(_, partitions)| partitions.ok())
            .flatten()
            .collect())
    }

    /// Of one topic, or of all with a null handle.
    #[allow(
        clippy::type_complexity,
        reason = "a name with what was found under it, used twice, above"
    )]
    fn metadata(
        &self,
        topic: *mut rd::rd_kafka_topic_t,
        patience: Duration,
    ) -> Result<Vec<(String, Result<Vec<FoundPartition>, NativeError>)>, NativeError> {
        let mut metadata = ptr::null();
        // SAFETY: the client is alive, the topic is null or alive, and what is written to
        // `metadata` is ours.
        let code = unsafe {
            rd::rd_kafka_metadata(
                self.ptr(),
                i32::from(topic.is_null()),
                topic,
                &mut metadata,
                millis(patience),
            )
        };
        check(code)?;
        // SAFETY: after success `metadata` is alive until it is destroyed, its arrays have as many
        // elements as it says, and names end with a NUL. Everything is copied out before.
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
/// The pointer has to be null or to `len` elements that live for `'a`.
unsafe fn array<'a, T>(start: *const T, len: i32) -> &'a [T] {
    match usize::try_from(len) {
        // SAFETY: what the caller promises.
        Ok(len) if len > 0 && !start.is_null() => unsafe { slice::from_raw_parts(start, len) },
        _ => &[],
    }
}
