//! A safe wrapper of librdkafka's consumer.
//!
//! rdkafka's own consumers return one message at a time; this one drains the consumer queue in one
//! call, which costs half the CPU. All `unsafe` code of the crate is in this module and its
//! children, each block with the reason why it is sound.
//!
//! Rebalances are not handled inside librdkafka's callback: the callback records them as events,
//! and the owner handles them after [`Consumer::fetch`] returns. The assignment does not change
//! until the owner answers with [`Consumer::assign_more`] or [`Consumer::unassign`], so a message
//! that was fetched together with a revocation still belongs to this consumer.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::Reason;
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::error::IsError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use thiserror::Error;

use crate::logs::ClientLogs;

mod ends;
mod messages;
mod metadata;
mod positions;
mod requests;

pub(crate) use ends::Isolation;
pub(crate) use messages::{Message, MessageBatch};
pub(crate) use metadata::FoundPartition;
pub(crate) use positions::OffsetAndEpoch;
pub(crate) use requests::CommittedOffset;

/// How long closing a consumer may take, including leaving its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a fetch that found a few messages waits for more: fuller batches cost less, and the
/// delay is too short to matter.
const LINGER: Duration = Duration::from_millis(5);
/// A fetch that found at least this many messages does not linger.
const FULL_BATCH: usize = 1024;

/// An error of a librdkafka call or message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub(crate) struct NativeError {
    /// librdkafka's error code.
    pub(crate) code: RDKafkaErrorCode,
    /// librdkafka's description of the error.
    pub(crate) text: String,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    /// The topic's name.
    pub(crate) topic: String,
    /// The partition's number, from 0.
    pub(crate) partition: i32,
}

/// An event that occurred while messages were fetched.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The group assigned these partitions in addition to the current ones.
    Assigned(Vec<TopicPartition>),
    /// The group revoked these partitions.
    Revoked(Vec<TopicPartition>),
    /// The rebalance failed; no partition is assigned any more.
    RebalanceFailed(NativeError),
    /// An error that concerns the whole client.
    Error(NativeError),
}

/// The state that librdkafka's callbacks use. It lives as long as the client.
struct CallbackState {
    events: Mutex<Vec<Event>>,
    logs: ClientLogs,
}

/// A librdkafka client: the requests that any thread can make. See [`requests`] and [`metadata`].
pub(crate) struct Client {
    handle: NonNull<rd::rd_kafka_t>,
    /// Boxed because librdkafka holds its address.
    shared: Box<CallbackState>,
}

// SAFETY: librdkafka allows calls with one client on any thread at the same time, and `shared` is
// behind locks.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the handle is alive and owned, and no other reference is left. The flag keeps the
        // client from closing its consumer again, which could block; `shared` is dropped after it.
        unsafe { rd::rd_kafka_destroy_flags(self.ptr(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
    }
}

impl Client {
    fn ptr(&self) -> *mut rd::rd_kafka_t {
        self.handle.as_ptr()
    }
}

/// A consumer, used only on the thread that created it.
pub(crate) struct Consumer {
    client: Arc<Client>,
    queue: NonNull<rd::rd_kafka_queue_t>,
}

impl Deref for Consumer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Consumer {
    /// Creates a consumer with these properties, which include a `group.id`. Contacts no broker
    /// before it returns.
    pub(crate) fn new(config: &ClientConfig, logs: ClientLogs) -> Result<Consumer, Reason> {
        let native = config.create_native_config().map_err(Reason::of)?;
        let shared = Box::new(CallbackState {
            events: Mutex::new(Vec::new()),
            logs,
        });
        let mut reason = [0 as c_char; 512];
        // SAFETY: the configuration is alive, and `rd_kafka_conf_dup` returns an owned copy.
        // `rd_kafka_new` takes ownership of that copy on success; on failure it is destroyed here.
        // The opaque pointer is to a box that is dropped after the client, so it is valid in every
        // callback: callbacks run on the client's threads or inside its calls. The length that is
        // passed with `reason` is its length.
        let handle = unsafe {
            let conf = rd::rd_kafka_conf_dup(native.ptr());
            rd::rd_kafka_conf_set_opaque(
                conf,
                ptr::from_ref::<CallbackState>(&shared)
                    .cast_mut()
                    .cast::<c_void>(),
            );
            rd::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
            rd::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            let client = rd::rd_kafka_new(
                rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                conf,
                reason.as_mut_ptr(),
                reason.len(),
            );
            if client.is_null() {
                rd::rd_kafka_conf_destroy(conf);
            }
            client
        };
        // SAFETY: librdkafka terminates the string with a NUL within the buffer.
        let handle = NonNull::new(handle).ok_or_else(|| unsafe { text(reason.as_ptr()) })?;
        let client = Arc::new(Client { handle, shared });
        // SAFETY: the client is alive. Its main queue is forwarded to the consumer queue, so that
        // one call serves both.
        let queue = unsafe {
            rd::rd_kafka_poll_set_consumer(client.ptr());
            rd::rd_kafka_queue_get_consumer(client.ptr())
        };
        let queue = NonNull::new(queue).ok_or("a consumer needs a group")?;
        Ok(Consumer { client, queue })
    }

    /// The client, for requests from other threads.
    pub(crate) fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    /// Joins the group for these topics; a name that starts with `^` is a regular expression.
    pub(crate) fn subscribe(&self, topics: &[String]) -> Result<(), NativeError> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            list.add_topic_unassigned(topic);
        }
        // SAFETY: client and list are alive; the list is only read.
        check(unsafe { rd::rd_kafka_subscribe(self.ptr(), list.ptr()) })
    }

    /// Leaves the group.
    pub(crate) fn unsubscribe(&self) -> Result<(), NativeError> {
        // SAFETY: the client is alive.
        check(unsafe { rd::rd_kafka_unsubscribe(self.ptr()) })
    }

    /// Replaces the contents of `fetched` by waiting messages, up to its capacity. Waits up to
    /// `timeout` if there are none.
    pub(crate) fn fetch(&self, fetched: &mut MessageBatch, timeout: Duration) {
        fetched.clear();
        self.fetch_more(fetched, Duration::ZERO, usize::MAX);
        if fetched.is_empty() && !timeout.is_zero() {
            self.fetch_more(fetched, timeout, 1);
            self.fetch_more(fetched, Duration::ZERO, usize::MAX);
        }
        if !fetched.is_empty() && fetched.len() < FULL_BATCH {
            self.fetch_more(fetched, LINGER, FULL_BATCH - fetched.len());
        }
    }

    /// Returns once `limit` messages are there or the time is up, not earlier.
    fn fetch_more(&self, fetched: &mut MessageBatch, timeout: Duration, limit: usize) {
        let room = fetched.room();
        let wanted = room.len().min(limit);
        // SAFETY: the queue is alive and `room` has at least `wanted` elements. The messages that
        // are written to it are owned by the caller.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                millis(timeout),
                room.as_mut_ptr().cast(),
                wanted,
            )
        };
        // SAFETY: librdkafka filled `count` elements.
        unsafe { fetched.filled(usize::try_from(count).unwrap_or(0)) };
    }

    /// Whether there were events since the last call of [`Consumer::events`].
    pub(crate) fn has_events(&self) -> bool {
        !self.shared.events.lock().is_empty()
    }

    /// The events since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.shared.events.lock())
    }

    /// Whether the partitions that are being revoked already belong to another member.
    pub(crate) fn assignment_is_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_assignment_lost(self.ptr()) != 0 }
    }

    /// Reads exactly these partitions, from the offsets in the list, without a group.
    pub(crate) fn assign(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; the list is copied.
        check(unsafe { rd::rd_kafka_assign(self.ptr(), partitions.ptr()) })
    }

    /// Adds these partitions to those that are read, from the offsets in the list.
    pub(crate) fn assign_more(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; the list is copied. The error, if any, is owned.
        check_error(unsafe { rd::rd_kafka_incremental_assign(self.ptr(), partitions.ptr()) })
    }

    /// Stops reading these partitions.
    pub(crate) fn unassign(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: as above.
        check_error(unsafe { rd::rd_kafka_incremental_unassign(self.ptr(), partitions.ptr()) })
    }

    /// Stops reading all partitions.
    pub(crate) fn unassign_all(&self) {
        // SAFETY: the client is alive; a null list unassigns everything. A failure does not matter
        // to the caller.
        unsafe { rd::rd_kafka_assign(self.ptr(), ptr::null()) };
    }

    /// Stops fetching these partitions; they stay assigned.
    pub(crate) fn pause(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_pause_partitions(self.ptr(), partitions.ptr()) })
    }

    /// Resumes fetching these partitions.
    pub(crate) fn resume(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: as above.
        check(unsafe { rd::rd_kafka_resume_partitions(self.ptr(), partitions.ptr()) })
    }

    /// The offset after the last message, as of the last fetch.
    pub(crate) fn last_high_watermark(&self, at: &TopicPartition) -> Option<i64> {
        let topic = c_string(&at.topic);
        let (mut low, mut high) = (0, 0);
        // SAFETY: as above.
        let code = unsafe {
            rd::rd_kafka_get_watermark_offsets(
                self.ptr(),
                topic.as_ptr(),
                at.partition,
                &mut low,
                &mut high,
            )
        };
        (!code.is_error() && high >= 0).then_some(high)
    }

    /// The fatal error that stopped the client, if any.
    pub(crate) fn fatal_error(&self) -> Option<NativeError> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: the client is alive, and the length that is passed with `reason` is its length.
        let code =
            unsafe { rd::rd_kafka_fatal_error(self.ptr(), reason.as_mut_ptr(), reason.len()) };
        // SAFETY: librdkafka terminates the string with a NUL within the buffer.
        code.is_error().then(|| NativeError {
            code: code.into(),
            text: unsafe { text(reason.as_ptr()) },
        })
    }

    /// Leaves the group and drops the assignment.
    fn close(&self) {
        // SAFETY: client and queue are alive; the error, if any, is owned.
        if check_error(unsafe {
            rd::rd_kafka_consumer_close_queue(self.ptr(), self.queue.as_ptr())
        })
        .is_err()
        {
            return;
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let mut ignored = MessageBatch::with_capacity(FULL_BATCH);
        // SAFETY: the client is alive.
        while unsafe { rd::rd_kafka_consumer_closed(self.ptr()) } == 0 && Instant::now() < deadline
        {
            ignored.clear();
            self.fetch_more(&mut ignored, Duration::from_millis(20), usize::MAX);
            if !self.events().is_empty() {
                self.unassign_all();
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.close();
        // SAFETY: the queue is alive and owned, and not used after this.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Records a rebalance event and makes the fetch in progress return.
unsafe extern "C" fn on_rebalance(
    client: *mut rd::rd_kafka_t,
    code: RDKafkaRespErr,
    partitions: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque pointer is the one set in `Consumer::new`.
    let shared = unsafe { &*opaque.cast::<CallbackState>() };
    let event = match code {
        // SAFETY: librdkafka passes a list that lives until the callback returns.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
            Event::Assigned(unsafe { partition_names(partitions) })
        }
        // SAFETY: as above.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
            Event::Revoked(unsafe { partition_names(partitions) })
        }
        other => Event::RebalanceFailed(native_error(other)),
    };
    shared.events.lock().push(event);
    // SAFETY: the client is alive inside its own callback; the reference to the queue is released
    // at once.
    unsafe {
        let queue = rd::rd_kafka_queue_get_consumer(client);
        if !queue.is_null() {
            rd::rd_kafka_queue_yield(queue);
            rd::rd_kafka_queue_destroy(queue);
        }
    }
}

unsafe extern "C" fn on_error(
    _: *mut rd::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque pointer is the one set in `Consumer::new`; the reason ends with a NUL.
    let (shared, reason) = unsafe { (&*opaque.cast::<CallbackState>(), text(reason)) };
    let code =
        RDKafkaRespErr::try_from(code).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from);
    shared
        .events
        .lock()
        .push(Event::Error(NativeError { code, text: reason }));
}

unsafe extern "C" fn on_log(
    client: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: the client is alive while it logs, and its opaque pointer is the one set in
    // `Consumer::new`; both strings are NUL-terminated.
    unsafe {
        let opaque = rd::rd_kafka_opaque(client);
        if !opaque.is_null() {
            (*opaque.cast::<CallbackState>())
                .logs
                .line(level, &text(facility), &text(line));
        }
    }
}

/// # Safety
/// The list is null or alive.
unsafe fn partition_names(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<TopicPartition> {
    // SAFETY: the list has `cnt` elements whose topics end with a NUL.
    unsafe {
        let Some(list) = list.as_ref() else {
            return Vec::new();
        };
        let count = usize::try_from(list.cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = &*list.elems.add(index);
                TopicPartition {
                    topic: text(element.topic),
                    partition: element.partition,
                }
            })
            .collect()
    }
}

/// # Safety
/// The string is null or NUL-terminated.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees that it is NUL-terminated.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

fn native_error(code: RDKafkaRespErr) -> NativeError {
    let code = RDKafkaErrorCode::from(code);
    NativeError {
        code,
        text: code.to_string(),
    }
}

fn check(code: RDKafkaRespErr) -> Result<(), NativeError> {
    if code.is_error() {
        Err(native_error(code))
    } else {
        Ok(())
    }
}

/// Converts a librdkafka error to a [`NativeError`] and frees it.
fn check_error(error: *mut rd::rd_kafka_error_t) -> Result<(), NativeError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error is owned; it is read and then destroyed, once.
    unsafe {
        let converted = NativeError {
            code: rd::rd_kafka_error_code(error).into(),
            text: text(rd::rd_kafka_error_string(error)),
        };
        rd::rd_kafka_error_destroy(error);
        Err(converted)
    }
}
