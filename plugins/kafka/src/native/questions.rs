//! What is asked of the brokers beside records: offsets of the group and of partitions, and the ids
//! of topics.

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

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The offset; negative if there is none.
    pub(crate) offset: i64,
    /// What its writer has noted beside it.
    pub(crate) metadata: String,
}

impl Client {
    /// What the group has committed for these partitions, in their order.
    pub(crate) fn committed(
        &self,
        partitions: &mut TopicPartitionList,
        patience: Duration,
    ) -> Result<Vec<Committed>, NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_committed(self.ptr(), partitions.ptr(), millis(patience)) })?;
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
                Ok(Committed {
                    offset: element.offset,
                    metadata,
                })
            };
            elements.iter().map(committed).collect()
        }
    }

    /// Writes the group's offsets. Without `patience` it returns at once, whatever comes of it.
    pub(crate) fn commit(
        &self,
        partitions: &TopicPartitionList,
        patience: Option<Duration>,
    ) -> Result<(), NativeError> {
        let Some(patience) = patience else {
            // SAFETY: client and list are alive; the list is copied.
            return check(unsafe { rd::rd_kafka_commit(self.ptr(), partitions.ptr(), 1) });
        };
        self.with_answer(patience, |queue| {
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

    /// Replaces times (milliseconds; -2 is the beginning, -1 the end) by the first offset that is
    /// not older, or -1.
    pub(crate) fn offsets_for_times(
        &self,
        partitions: &mut TopicPartitionList,
        patience: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe {
            rd::rd_kafka_offsets_for_times(self.ptr(), partitions.ptr(), millis(patience))
        })
    }

    /// Asks the broker for the first offset and the one after the last.
    pub(crate) fn watermarks(
        &self,
        at: &TopicPartition,
        patience: Duration,
    ) -> Result<(i64, i64), NativeError> {
        let topic = c_string(&at.topic);
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name ends with a NUL, and both numbers are written
        // before the call returns.
        let code = unsafe {
            rd::rd_kafka_query_watermark_offsets(
                self.ptr(),
                topic.as_ptr(),
                at.partition,
                &mut low,
                &mut high,
                millis(patience),
            )
        };
        check(code).map(|()| (low, high))
    }

    /// The ids of those of these topics that exist: a topic that is deleted and made again has
    /// another one. The id is empty where the brokers are too old to have any.
    pub(crate) fn topic_ids(
        &self,
        topics: &[String],
        patience: Duration,
    ) -> Result<HashMap<String, String>, NativeError> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let names: Vec<_> = topics.iter().map(|topic| c_string(topic)).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let event = self.with_answer(patience, |queue| {
            // SAFETY: the client and the queue are alive; names and options are copied by the call,
            // and both are destroyed once after it.
            unsafe {
                let options = rd::rd_kafka_AdminOptions_new(
                    self.ptr(),
                    rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
                );
                rd::rd_kafka_AdminOptions_set_request_timeout(
                    options,
                    millis(patience),
                    ptr::null_mut(),
                    0,
                );
                let collection = rd::rd_kafka_TopicCollection_of_topic_names(
                    pointers.as_mut_ptr(),
                    pointers.len(),
                );
                rd::rd_kafka_DescribeTopics(self.ptr(), collection, options, queue);
                rd::rd_kafka_TopicCollection_destroy(collection);
                rd::rd_kafka_AdminOptions_destroy(options);
            }
            Ok(())
        })?;
        let mut found = HashMap::new();
        // SAFETY: the event is the answer to the call above and lives until it is dropped; what is
        // read from it is copied before. Names end with a NUL.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
            let mut count = 0;
            let topics = if result.is_null() {
                ptr::null_mut()
            } else {
                rd::rd_kafka_DescribeTopics_result_topics(result, &mut count)
            };
            let topics = if topics.is_null() {
                &[][..]
            } else {
                slice::from_raw_parts(topics, count)
            };
            for topic in topics {
                let error = rd::rd_kafka_TopicDescription_error(*topic);
                let code = if error.is_null() {
                    RDKafkaErrorCode::NoError
                } else {
                    rd::rd_kafka_error_code(error).into()
                };
                match code {
                    RDKafkaErrorCode::NoError => {
                        let id = rd::rd_kafka_TopicDescription_topic_id(*topic);
                        let name = text(rd::rd_kafka_TopicDescription_name(*topic));
                        found.insert(name, id_text(id));
                    }
                    RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {}
                    // Those of which nothing may be known count as topics that exist.
                    RDKafkaErrorCode::TopicAuthorizationFailed => {
                        found.insert(
                            text(rd::rd_kafka_TopicDescription_name(*topic)),
                            String::new(),
                        );
                    }
                    _ => {
                        return Err(NativeError {
                            code,
                            text: text(rd::rd_kafka_error_string(error)),
                        });
                    }
                }
            }
        }
        Ok(found)
    }

    /// Asks something whose answer is the one event of a queue. An event with an error is that
    /// error.
    fn with_answer(
        &self,
        patience: Duration,
        ask: impl FnOnce(*mut rd::rd_kafka_queue_t) -> Result<(), NativeError>,
    ) -> Result<Answer, NativeError> {
        // SAFETY: the client is alive.
        let queue = unsafe { rd::rd_kafka_queue_new(self.ptr()) };
        let answer = ask(queue).and_then(|()| {
            // SAFETY: the queue is alive; an event that is not null is ours.
            let event = unsafe { rd::rd_kafka_queue_poll(queue, millis(patience)) };
            if event.is_null() {
                let code = RDKafkaErrorCode::OperationTimedOut;
                return Err(NativeError {
                    code,
                    text: format!("no answer within {patience:?}"),
                });
            }
            let answer = Answer(event);
            // SAFETY: the event is alive; its error text ends with a NUL.
            let (code, told) = unsafe {
                (
                    rd::rd_kafka_event_error(answer.0),
                    text(rd::rd_kafka_event_error_string(answer.0)),
                )
            };
            if code.is_error() {
                Err(NativeError {
                    code: code.into(),
                    text: told,
                })
            } else {
                Ok(answer)
            }
        });
        // SAFETY: the queue is ours and not used after this. An answer that comes later is dropped
        // with it.
        unsafe { rd::rd_kafka_queue_destroy(queue) };
        answer
    }
}

/// An event that is ours.
struct Answer(*mut rd::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event is ours and not used after this.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

/// # Safety
/// The id has to be null or alive.
unsafe fn id_text(id: *const rd::rd_kafka_Uuid_t) -> String {
    if id.is_null() {
        return String::new();
    }
    // SAFETY: what the caller promises; the text lives as long as the id and ends with a NUL.
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
