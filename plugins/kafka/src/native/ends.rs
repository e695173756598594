//! Where partitions end, as their leaders confirm it.

use std::collections::HashMap;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::requests::OwnedEvent;
use super::{Client, NativeError, TopicPartition, check, text};

/// Which records count for the end of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isolation {
    /// All, also those of open transactions.
    ReadUncommitted,
    /// Those before the first open transaction.
    ReadCommitted,
}

impl Isolation {
    fn level(self) -> rd::rd_kafka_IsolationLevel_t {
        match self {
            Isolation::ReadUncommitted => {
                rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
            }
            Isolation::ReadCommitted => {
                rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
            }
        }
    }
}

impl Client {
    /// The offset after the last record of each partition that counts, in the order of `partitions`.
    /// A broker that has just become the leader answers
    /// only once it knows what was committed before (KIP-207); until then this fails.
    pub(crate) fn ends(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<Vec<i64>, NativeError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::new();
        for at in partitions {
            // This fails only for offsets without a number.
            let _ = list.add_partition_offset(&at.topic, at.partition, Offset::End);
        }
        let event = self.request_event(timeout, |queue| {
            let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
            let options = self.admin_options(kind, timeout);
            // SAFETY: the client, the list, the options and the queue are alive; list and options are
            // copied by the call. An error, which a valid level does not cause, is owned.
            unsafe {
                let error =
                    rd::rd_kafka_AdminOptions_set_isolation_level(options.0, isolation.level());
                if !error.is_null() {
                    rd::rd_kafka_error_destroy(error);
                }
                rd::rd_kafka_ListOffsets(self.ptr(), list.ptr(), options.0, queue);
            }
            Ok(())
        })?;
        // SAFETY: the event is the result of the call above.
        let ends = unsafe { listed_offsets(&event) }?;
        // The offset is negative if the request to the leader has failed: librdkafka keeps that error
        // for itself.
        let end = |at: &TopicPartition| {
            let end = ends.get(at).copied().filter(|end| *end >= 0);
            end.ok_or_else(|| NativeError {
                code: RDKafkaErrorCode::LeaderNotAvailable,
                text: format!("no answer for {}/{}", at.topic, at.partition),
            })
        };
        partitions.iter().map(end).collect()
    }
}

/// The offsets in the result of [`Client::ends`], or the first error in it.
///
/// # Safety
/// The event is such a result.
unsafe fn listed_offsets(event: &OwnedEvent) -> Result<HashMap<TopicPartition, i64>, NativeError> {
    // SAFETY: the result, its elements and their names live as long as the event.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(event.0);
        let mut count = 0;
        let infos = match result.is_null() {
            true => ptr::null_mut(),
            false => rd::rd_kafka_ListOffsets_result_infos(result, &mut count),
        };
        if infos.is_null() {
            return Ok(HashMap::new());
        }
        let offset = |info: &*const rd::rd_kafka_ListOffsetsResultInfo_t| {
            let found = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let at = TopicPartition {
                topic: text(found.topic),
                partition: found.partition,
            };
            check(found.err).map(|()| (at, found.offset))
        };
        let infos = slice::from_raw_parts(infos, count);
        infos.iter().map(offset).collect()
    }
}
