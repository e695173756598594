//! Offsets with their leader epochs, which rdkafka's lists do not expose.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;

use super::{Consumer, NativeError, TopicPartition, check, check_error, millis};

/// An offset in a partition with the leader epoch before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetAndEpoch {
    /// The offset of the next record.
    pub(crate) offset: i64,
    /// The epoch of the leader that accepted the record before the offset; `None` if the broker
    /// does not report it.
    pub(crate) leader_epoch: Option<i32>,
}

impl Consumer {
    /// For each of these partitions, the position after the last message that was returned,
    /// transaction markers included; `None` if no message was.
    pub(crate) fn positions(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<OffsetAndEpoch>>, NativeError> {
        let list = list_of(partitions);
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_position(self.ptr(), list.ptr()) })?;
        let known = |position: OffsetAndEpoch| (position.offset >= 0).then_some(position);
        Ok(elements(&list)
            .map(|element| known(position_of(element)))
            .collect())
    }

    /// Seeks these partitions to these positions, and has the broker check first whether its log
    /// still has the records before them. If it does not, the partition's next message is an error
    /// about a truncation. The partitions must be assigned; the result is `false` for a partition
    /// that is not fetched yet.
    pub(crate) fn seek_checked(
        &self,
        at: &[(TopicPartition, OffsetAndEpoch)],
        timeout: Duration,
    ) -> Result<Vec<bool>, NativeError> {
        let list = list_of(at.iter().map(|(at, _)| at));
        for (element, (_, position)) in elements(&list).zip(at) {
            // SAFETY: the element belongs to the list, which is alive and not used elsewhere; what
            // the element owns is freed with it.
            unsafe {
                (*element).offset = position.offset;
                rd::rd_kafka_topic_partition_set_leader_epoch(
                    element,
                    position.leader_epoch.unwrap_or(NO_EPOCH),
                );
            }
        }
        // SAFETY: client and list are alive; results are written into the list. The error, if any,
        // is owned.
        check_error(unsafe {
            rd::rd_kafka_seek_partitions(self.ptr(), list.ptr(), millis(timeout))
        })?;
        // SAFETY: the elements belong to the list.
        Ok(elements(&list)
            .map(|element| check(unsafe { (*element).err }).is_ok())
            .collect())
    }
}

/// The epoch, unless it is [`NO_EPOCH`].
pub(super) fn known_epoch(epoch: i32) -> Option<i32> {
    (epoch > NO_EPOCH).then_some(epoch)
}

/// librdkafka's value for an unknown epoch.
const NO_EPOCH: i32 = -1;

fn list_of<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

/// The list's elements, in order.
fn elements(
    list: &TopicPartitionList,
) -> impl Iterator<Item = *mut rd::rd_kafka_topic_partition_t> {
    // SAFETY: the list is alive.
    let (first, count) = unsafe { ((*list.ptr()).elems, (*list.ptr()).cnt) };
    // SAFETY: the list has `count` elements.
    (0..usize::try_from(count).unwrap_or(0)).map(move |index| unsafe { first.add(index) })
}

fn position_of(element: *mut rd::rd_kafka_topic_partition_t) -> OffsetAndEpoch {
    // SAFETY: the element is alive and only read.
    unsafe {
        OffsetAndEpoch {
            offset: (*element).offset,
            leader_epoch: known_epoch(rd::rd_kafka_topic_partition_get_leader_epoch(element)),
        }
    }
}
