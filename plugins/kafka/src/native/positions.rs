//! Positions with the leader epochs that they belong to, which rdkafka's lists do not show.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;

use super::{Consumer, NativeError, TopicPartition, check, check_error, millis};

/// An offset in a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPosition {
    /// The offset.
    pub(crate) offset: i64,
    /// The epoch of the leader that took in what lies before it; `None` if the broker does not give
    /// it.
    pub(crate) leader_epoch: Option<i32>,
}

impl Consumer {
    /// The position after the last message that was handed out, transaction markers included, for
    /// each of these partitions; `None` where nothing was.
    pub(crate) fn positions(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<LogPosition>>, NativeError> {
        let list = list_of(partitions);
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_position(self.ptr(), list.ptr()) })?;
        let known = |position: LogPosition| (position.offset >= 0).then_some(position);
        Ok(elements(&list)
            .map(|element| known(position_of(element)))
            .collect())
    }

    /// Reads these partitions from these positions, and has the broker say first whether the log
    /// still has the records before them. If not, the partition's next message is an error that
    /// speaks of a truncation. The partitions have to be assigned; `false` stands for one that is
    /// not fetched yet.
    pub(crate) fn seek_checked(
        &self,
        at: &[(TopicPartition, LogPosition)],
        patience: Duration,
    ) -> Result<Vec<bool>, NativeError> {
        let list = list_of(at.iter().map(|(at, _)| at));
        for (element, (_, position)) in elements(&list).zip(at) {
            // SAFETY: the element is the list's own, which is alive and used by nothing else; what
            // it has of its own is freed with it.
            unsafe {
                (*element).offset = position.offset;
                rd::rd_kafka_topic_partition_set_leader_epoch(
                    element,
                    position.leader_epoch.unwrap_or(NO_EPOCH),
                );
            }
        }
        // SAFETY: client and list are alive; results are written into the list. The error, if any,
        // is ours.
        check_error(unsafe {
            rd::rd_kafka_seek_partitions(self.ptr(), list.ptr(), millis(patience))
        })?;
        // SAFETY: the elements are the list's own.
        Ok(elements(&list)
            .map(|element| check(unsafe { (*element).err }).is_ok())
            .collect())
    }
}

/// The epoch, unless it is the number that stands for none.
pub(super) fn known_epoch(epoch: i32) -> Option<i32> {
    (epoch > NO_EPOCH).then_some(epoch)
}

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
    // SAFETY: it has that many elements.
    (0..usize::try_from(count).unwrap_or(0)).map(move |index| unsafe { first.add(index) })
}

fn position_of(element: *mut rd::rd_kafka_topic_partition_t) -> LogPosition {
    // SAFETY: the caller's element is alive and only read.
    unsafe {
        LogPosition {
            offset: (*element).offset,
            leader_epoch: known_epoch(rd::rd_kafka_topic_partition_get_leader_epoch(element)),
        }
    }
}
