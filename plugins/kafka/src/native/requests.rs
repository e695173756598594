//! Requests to the brokers other than fetches: the group's offsets, the offsets of partitions, and
//! the ids of topics.

use std::collections::HashMap;
use std::ffi::c_char;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaErrorCode;

use super::{Client, NativeError, TopicPartition, c_string, check, millis, native_error, text};

/// An offset that a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The offset; negative if there is none.
    pub(crate) offset: i64,
    /// The metadata that was committed with it.
    pub(crate) metadata: String,
}

impl Client {
    /// The offsets that the group has committed for these partitions, in the order of the list.
    pub(crate) fn committed(
        &self,
        partitions: &mut TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<CommittedOffset>, NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_committed(self.ptr(), partitions.ptr(), millis(timeout)) })?;
        // SAFETY: the list is alive and has `cnt` elements, each with `metadata_size` bytes of
        // metadata unless that is null.
        unsafe {
            let list = &*partitions.ptr();
            let elements = match usize::try_from(list.cnt) {
                Ok(count) if count > 0 => slice::from_raw_parts(list.elems, count),
                _ => &[],
            };
            let committed = |element: &rd::rd_kafka_topic_partition_t| {
                if element.err.is_error() {
                    return Err(native_error(element.err));
                }
                let metadata = if element.metadata.is_null() {
                    String::new()
                } else {
                    let bytes =
                        slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size);
                    String::from_utf8_lossy(bytes).into_owned()
                };
                Ok(CommittedOffset {
                    offset: element.offset,
                    metadata,
                })
            };
            elements.iter().map(committed).collect()
        }
    }

    /// Commits the group's offsets. Without `timeout` it does not wait for the result.
    pub(crate) fn commit(
        &self,
        partitions: &TopicPartitionList,
        timeout: Option<Duration>,
    ) -> Result<(), NativeError> {
        let Some(timeout) = timeout else {
            // SAFETY: client and list are alive; the list is copied.
            return check(unsafe { rd::rd_kafka_commit(self.ptr(), partitions.ptr(), 1) });
        };
        self.request_event(timeout, |queue| {
            // SAFETY: client, list and queue are alive; the list is copied, and without a callback
            // the answer is an event of the queue.
            check(unsafe {
                rd::rd_kafka_commit_queue(
                    self.ptr(),
                    partitions.ptr(),
                    queue,
                    None,
                    ptr::null_mut(),
                )
            })
        })
        .map(drop)
    }

    /// Deletes the offsets that a group has committed for these partitions. A group that does not
    /// exist has none.
    pub(crate) fn delete_offsets(
        &self,
        group: &str,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        let name = c_string(group);
        let answer = self.request_event(timeout, |queue| {
            // SAFETY: the client, the queue and the list are alive; name, list and options are
            // copied by the calls, and the request is destroyed once after them.
            unsafe {
                let options = self.admin_options(
                    rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS,
                    timeout,
                );
                let mut request =
                    rd::rd_kafka_DeleteConsumerGroupOffsets_new(name.as_ptr(), partitions.ptr());
                rd::rd_kafka_DeleteConsumerGroupOffsets(
                    self.ptr(),
                    &mut request,
                    1,
                    options.0,
                    queue,
                );
                rd::rd_kafka_DeleteConsumerGroupOffsets_destroy(request);
            }
            Ok(())
        });
        let deleted = match answer {
            // SAFETY: the event is the result of the call above.
            Ok(event) => unsafe { deleted_offsets(&event) },
            Err(error) => Err(error),
        };
        match deleted {
            Err(error) if error.code == RDKafkaErrorCode::GroupIdNotFound => Ok(()),
            other => other,
        }
    }

    /// Replaces timestamps (milliseconds; -2 is the beginning, -1 the end) by the offset of the
    /// first record that is not older, or -1.
    pub(crate) fn offsets_for_times(
        &self,
        partitions: &mut TopicPartitionList,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe {
            rd::rd_kafka_offsets_for_times(self.ptr(), partitions.ptr(), millis(timeout))
        })
    }

    /// The first offset and the offset after the last record, as the broker reports them.
    pub(crate) fn watermarks(
        &self,
        at: &TopicPartition,
        timeout: Duration,
    ) -> Result<(i64, i64), NativeError> {
        let topic = c_string(&at.topic);
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name is NUL-terminated, and both numbers are written
        // before the call returns.
        let code = unsafe {
            rd::rd_kafka_query_watermark_offsets(
                self.ptr(),
                topic.as_ptr(),
                at.partition,
                &mut low,
                &mut high,
                millis(timeout),
            )
        };
        check(code).map(|()| (low, high))
    }

    /// The ids of those of these topics that exist: a topic that was deleted and created again has
    /// a different id. The id is empty if the brokers are too old to have topic ids.
    pub(crate) fn topic_ids(
        &self,
        topics: &[String],
        timeout: Duration,
    ) -> Result<HashMap<String, String>, NativeError> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let event = self.describe_topics(topics, timeout)?;
        let mut found = HashMap::new();
        // SAFETY: the event is the result of the call above and lives until it is dropped; what is
        // read from it is copied before.
        unsafe {
            for topic in descriptions_of(&event) {
                found.extend(existing_topic(*topic)?);
            }
        }
        Ok(found)
    }

    /// Requests the descriptions of these topics.
    fn describe_topics(
        &self,
        topics: &[String],
        timeout: Duration,
    ) -> Result<OwnedEvent, NativeError> {
        let names: Vec<_> = topics.iter().map(|topic| c_string(topic)).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        self.request_event(timeout, |queue| {
            // SAFETY: the client and the queue are alive; names and options are copied by the call,
            // and the collection is destroyed once after it.
            unsafe {
                let options = self.admin_options(
                    rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
                    timeout,
                );
                let collection = rd::rd_kafka_TopicCollection_of_topic_names(
                    pointers.as_mut_ptr(),
                    pointers.len(),
                );
                rd::rd_kafka_DescribeTopics(self.ptr(), collection, options.0, queue);
                rd::rd_kafka_TopicCollection_destroy(collection);
            }
            Ok(())
        })
    }

    /// The options of a request of this kind that may take this long.
    pub(super) fn admin_options(
        &self,
        kind: rd::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> AdminOptions {
        // SAFETY: the client is alive, and the new options are owned. A duration is a valid timeout,
        // so no error is written.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(self.ptr(), kind);
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis(timeout),
                ptr::null_mut(),
                0,
            );
            AdminOptions(options)
        }
    }

    /// Makes a request whose result is the one event of a queue. An event that carries an error is
    /// returned as that error.
    pub(super) fn request_event(
        &self,
        timeout: Duration,
        ask: impl FnOnce(*mut rd::rd_kafka_queue_t) -> Result<(), NativeError>,
    ) -> Result<OwnedEvent, NativeError> {
        // SAFETY: the client is alive.
        let queue = unsafe { rd::rd_kafka_queue_new(self.ptr()) };
        let answer = ask(queue).and_then(|()| {
            // SAFETY: the queue is alive; an event that is not null is owned.
            let event = unsafe { rd::rd_kafka_queue_poll(queue, millis(timeout)) };
            if event.is_null() {
                let code = RDKafkaErrorCode::OperationTimedOut;
                return Err(NativeError {
                    code,
                    text: format!("no answer within {timeout:?}"),
                });
            }
            let answer = OwnedEvent(event);
            // SAFETY: the event is alive; its error text is NUL-terminated.
            let (code, reason) = unsafe {
                (
                    rd::rd_kafka_event_error(answer.0),
                    text(rd::rd_kafka_event_error_string(answer.0)),
                )
            };
            if code.is_error() {
                Err(NativeError {
                    code: code.into(),
                    text: reason,
                })
            } else {
                Ok(answer)
            }
        });
        // SAFETY: the queue is owned and not used after this. An event that arrives later is
        // dropped with it.
        unsafe { rd::rd_kafka_queue_destroy(queue) };
        answer
    }
}

/// The options of a request, which are destroyed when this is dropped.
pub(super) struct AdminOptions(pub(super) *mut rd::rd_kafka_AdminOptions_t);

impl Drop for AdminOptions {
    fn drop(&mut self) {
        // SAFETY: the options are owned and not used after this.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

/// An event of librdkafka, which is destroyed when this is dropped.
pub(super) struct OwnedEvent(pub(super) *mut rd::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the event is owned and not used after this.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

/// The first error in the result of [`Client::delete_offsets`].
///
/// # Safety
/// The event is such a result.
unsafe fn deleted_offsets(event: &OwnedEvent) -> Result<(), NativeError> {
    // SAFETY: the result, its groups, their errors and their partitions live as long as the event;
    // a list has `cnt` elements.
    unsafe {
        let result = rd::rd_kafka_event_DeleteConsumerGroupOffsets_result(event.0);
        let mut count = 0;
        let groups = match result.is_null() {
            true => ptr::null_mut(),
            false => rd::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, &mut count),
        };
        if groups.is_null() {
            return Ok(());
        }
        for group in slice::from_raw_parts(groups, count) {
            let error = rd::rd_kafka_group_result_error(*group);
            if !error.is_null() {
                return Err(NativeError {
                    code: rd::rd_kafka_error_code(error).into(),
                    text: text(rd::rd_kafka_error_string(error)),
                });
            }
            let partitions = rd::rd_kafka_group_result_partitions(*group);
            let Some(partitions) = partitions.as_ref() else {
                continue;
            };
            let elements = match usize::try_from(partitions.cnt) {
                Ok(count) if count > 0 => slice::from_raw_parts(partitions.elems, count),
                _ => &[],
            };
            for element in elements {
                // A partition that does not exist has no offset.
                let is_gone = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
                if element.err != is_gone {
                    check(element.err)?;
                }
            }
        }
        Ok(())
    }
}

/// The descriptions in the result of [`Client::describe_topics`].
///
/// # Safety
/// The event is such a result, or one without descriptions.
unsafe fn descriptions_of(event: &OwnedEvent) -> &[*const rd::rd_kafka_TopicDescription_t] {
    // SAFETY: the result and its descriptions live as long as the event.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            rd::rd_kafka_DescribeTopics_result_topics(result, &mut count)
        };
        if topics.is_null() {
            &[]
        } else {
            slice::from_raw_parts(topics, count)
        }
    }
}

/// The name and the id of a topic that was described; `None` if the topic does not exist.
///
/// # Safety
/// The description is alive.
unsafe fn existing_topic(
    topic: *const rd::rd_kafka_TopicDescription_t,
) -> Result<Option<(String, String)>, NativeError> {
    // SAFETY: guaranteed by the caller; names are NUL-terminated, and the error is null or alive.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() {
            RDKafkaErrorCode::NoError
        } else {
            rd::rd_kafka_error_code(error).into()
        };
        match code {
            RDKafkaErrorCode::NoError => {
                let id = rd::rd_kafka_TopicDescription_topic_id(topic);
                let name = text(rd::rd_kafka_TopicDescription_name(topic));
                Ok(Some((name, id_text(id))))
            }
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => Ok(None),
            // A topic that may not be described counts as one that exists.
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                let name = text(rd::rd_kafka_TopicDescription_name(topic));
                Ok(Some((name, String::new())))
            }
            _ => Err(NativeError {
                code,
                text: text(rd::rd_kafka_error_string(error)),
            }),
        }
    }
}

/// # Safety
/// The id is null or alive.
unsafe fn id_text(id: *const rd::rd_kafka_Uuid_t) -> String {
    if id.is_null() {
        return String::new();
    }
    // SAFETY: guaranteed by the caller; the string is NUL-terminated and lives as long as the id.
    unsafe {
        let is_zero = rd::rd_kafka_Uuid_most_significant_bits(id) == 0
            && rd::rd_kafka_Uuid_least_significant_bits(id) == 0;
        if is_zero {
            String::new()
        } else {
            text(rd::rd_kafka_Uuid_base64str(id))
        }
    }
}
