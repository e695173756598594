//! librdkafka's consumer, as safe as Rust can make it.
//!
//! rdkafka's own consumers hand out one message after another; this one takes what the consumer
//! queue holds in one call, which costs half the CPU. All `unsafe` of the crate is in this module
//! and its children, each with the reason why it holds.
//!
//! Rebalances are not served inside librdkafka's callback: the callback notes them, and the owner
//! handles them after [`Consumer::fetch`] has returned. Until the owner answers with
//! [`Consumer::assign_more`] or [`Consumer::unassign`] the partitions stay as they are, so a
//! message that was fetched together with the news of a revocation is still ours.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::error::IsError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use thiserror::Error;

use crate::logs::ClientLogs;

mod messages;
mod metadata;
mod positions;
mod questions;

pub(crate) use messages::{Fetched, Message};
pub(crate) use metadata::FoundPartition;
pub(crate) use positions::LogPosition;
pub(crate) use questions::Committed;

/// How long a consumer may take to say goodbye to its group.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a fetch that found a few messages waits for more: fuller batches cost less, and nobody
/// notices the delay.
const LINGER: Duration = Duration::from_millis(5);
/// A fetch that found at least as many does not wait.
const ENOUGH: usize = 1024;

/// What librdkafka says of a call or a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub(crate) struct NativeError {
    /// The kind.
    pub(crate) code: RDKafkaErrorCode,
    /// In words.
    pub(crate) text: String,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: i32,
}

/// What happened while messages were fetched.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The group gives us these partitions in addition.
    Assigned(Vec<TopicPartition>),
    /// The group wants these back.
    Revoked(Vec<TopicPartition>),
    /// Taking part in the group failed; nothing is ours any more.
    RebalanceFailed(NativeError),
    /// An error that concerns the whole client.
    Error(NativeError),
}

/// What callbacks reach; it lives as long as the client.
struct Shared {
    events: Mutex<Vec<Event>>,
    logs: ClientLogs,
}

/// librdkafka's client: what can be asked from any thread. See [`questions`] and [`metadata`].
pub(crate) struct Client {
    handle: NonNull<rd::rd_kafka_t>,
    /// Boxed, since librdkafka holds its address.
    shared: Box<Shared>,
}

// SAFETY: librdkafka allows calls with one client on any thread at the same time, and `shared` is
// behind locks.
unsafe impl Send for Client {}
// SAFETY: the same.
unsafe impl Sync for Client {}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the handle is alive and ours, and no other reference is left. The client is asked
        // not to close its consumer again, which could block; `shared` is dropped after it.
        unsafe { rd::rd_kafka_destroy_flags(self.ptr(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
    }
}

impl Client {
    fn ptr(&self) -> *mut rd::rd_kafka_t {
        self.handle.as_ptr()
    }
}

/// A consumer, used on the thread that made it.
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
    /// A consumer with these properties, among them a `group.id`. No broker is contacted before
    /// this returns.
    pub(crate) fn new(config: &ClientConfig, logs: ClientLogs) -> Result<Consumer, String> {
        let native = config
            .create_native_config()
            .map_err(|error| error.to_string())?;
        let shared = Box::new(Shared {
            events: Mutex::new(Vec::new()),
            logs,
        });
        let mut reason = [0 as c_char; 512];
        // SAFETY: the configuration is alive, and `rd_kafka_conf_dup` gives a copy that is ours.
        // `rd_kafka_new` takes that copy when it succeeds; when it fails we destroy it. The opaque
        // pointer is to a box that is dropped after the client, so callbacks, which run on threads
        // of the client or inside its calls, always find it. `reason` is as long as is said.
        let handle = unsafe {
            let conf = rd::rd_kafka_conf_dup(native.ptr());
            rd::rd_kafka_conf_set_opaque(
                conf,
                ptr::from_ref::<Shared>(&shared).cast_mut().cast::<c_void>(),
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
        // SAFETY: librdkafka ends the text with a NUL within the buffer.
        let handle = NonNull::new(handle).ok_or_else(|| unsafe { text(reason.as_ptr()) })?;
        let client = Arc::new(Client { handle, shared });
        // SAFETY: the client is alive. Its main queue is led into the consumer queue, so that one
        // call serves both.
        let queue = unsafe {
            rd::rd_kafka_poll_set_consumer(client.ptr());
            rd::rd_kafka_queue_get_consumer(client.ptr())
        };
        let queue = NonNull::new(queue).ok_or_else(|| "a consumer needs a group".to_owned())?;
        Ok(Consumer { client, queue })
    }

    /// The client, for questions on other threads.
    pub(crate) fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    /// Joins the group for these topics; one that starts with `^` is a regular expression.
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

    /// Replaces `fetched` by what waits: at most as many messages as it has room for. Waits up to
    /// `patience` when there are none.
    pub(crate) fn fetch(&self, fetched: &mut Fetched, patience: Duration) {
        fetched.clear();
        self.fetch_more(fetched, Duration::ZERO, usize::MAX);
        if fetched.is_empty() && !patience.is_zero() {
            self.fetch_more(fetched, patience, 1);
        }
        if !fetched.is_empty() && fetched.len() < ENOUGH {
            self.fetch_more(fetched, LINGER, usize::MAX);
        }
    }

    /// librdkafka comes back when it has `limit` messages or the time is up, not earlier.
    fn fetch_more(&self, fetched: &mut Fetched, patience: Duration, limit: usize) {
        let room = fetched.room();
        let wanted = room.len().min(limit);
        // SAFETY: the queue is alive and `room` has at least `wanted` places. What is written there
        // are messages that are now ours.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                millis(patience),
                room.as_mut_ptr().cast(),
                wanted,
            )
        };
        // SAFETY: that many places were filled.
        unsafe { fetched.filled(usize::try_from(count).unwrap_or(0)) };
    }

    /// What happened since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.shared.events.lock())
    }

    /// Whether partitions that are being revoked belong to somebody else already.
    pub(crate) fn assignment_is_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_assignment_lost(self.ptr()) != 0 }
    }

    /// Reads these partitions only, from the offsets given, without a group.
    pub(crate) fn assign(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; the list is copied.
        check(unsafe { rd::rd_kafka_assign(self.ptr(), partitions.ptr()) })
    }

    /// Reads these partitions too, from the offsets given.
    pub(crate) fn assign_more(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; the list is copied. The error, if any, is ours.
        check_error(unsafe { rd::rd_kafka_incremental_assign(self.ptr(), partitions.ptr()) })
    }

    /// Reads these partitions no longer.
    pub(crate) fn unassign(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: as above.
        check_error(unsafe { rd::rd_kafka_incremental_unassign(self.ptr(), partitions.ptr()) })
    }

    /// Gives up every partition.
    pub(crate) fn unassign_all(&self) {
        // SAFETY: the client is alive; without a list everything is unassigned. It cannot fail in a
        // way that matters to the caller.
        unsafe { rd::rd_kafka_assign(self.ptr(), ptr::null()) };
    }

    /// Stops fetching these partitions while they stay ours.
    pub(crate) fn pause(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: client and list are alive; results are written into the list.
        check(unsafe { rd::rd_kafka_pause_partitions(self.ptr(), partitions.ptr()) })
    }

    /// Goes on fetching them.
    pub(crate) fn resume(&self, partitions: &TopicPartitionList) -> Result<(), NativeError> {
        // SAFETY: as above.
        check(unsafe { rd::rd_kafka_resume_partitions(self.ptr(), partitions.ptr()) })
    }

    /// The offset after the last message, as the last fetch has seen it.
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

    /// Why the client cannot go on at all, if it cannot.
    pub(crate) fn fatal_error(&self) -> Option<NativeError> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: the client is alive, and `reason` is as long as is said.
        let code =
            unsafe { rd::rd_kafka_fatal_error(self.ptr(), reason.as_mut_ptr(), reason.len()) };
        // SAFETY: librdkafka ends the text with a NUL within the buffer.
        code.is_error().then(|| NativeError {
            code: code.into(),
            text: unsafe { text(reason.as_ptr()) },
        })
    }

    /// Leaves the group. What is still assigned is given up.
    fn close(&self) {
        // SAFETY: client and queue are alive; the error, if any, is ours.
        if check_error(unsafe {
            rd::rd_kafka_consumer_close_queue(self.ptr(), self.queue.as_ptr())
        })
        .is_err()
        {
            return;
        }
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let mut ignored = Fetched::with_capacity(ENOUGH);
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
        // SAFETY: the queue is alive and ours, and not used after this.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Notes a rebalance and makes the fetch in progress come back.
unsafe extern "C" fn on_rebalance(
    client: *mut rd::rd_kafka_t,
    code: RDKafkaRespErr,
    partitions: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque pointer is the one set in `Consumer::new`.
    let shared = unsafe { &*opaque.cast::<Shared>() };
    let event = match code {
        // SAFETY: librdkafka gives a list that lives until this returns.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
            Event::Assigned(unsafe { partition_names(partitions) })
        }
        // SAFETY: the same.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
            Event::Revoked(unsafe { partition_names(partitions) })
        }
        other => Event::RebalanceFailed(native_error(other)),
    };
    shared.events.lock().push(event);
    // SAFETY: the client is alive inside its own callback; the reference to the queue is given back
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
    let (shared, reason) = unsafe { (&*opaque.cast::<Shared>(), text(reason)) };
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
    // `Consumer::new`; both texts end with a NUL.
    unsafe {
        let opaque = rd::rd_kafka_opaque(client);
        if !opaque.is_null() {
            (*opaque.cast::<Shared>())
                .logs
                .line(level, &text(facility), &text(line));
        }
    }
}

/// # Safety
/// The list has to be null or alive.
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
/// The text has to be null or end with a NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it ends with a NUL.
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

/// Turns an error of librdkafka into ours, and frees it.
fn check_error(error: *mut rd::rd_kafka_error_t) -> Result<(), NativeError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error is ours; it is read and then destroyed, once.
    unsafe {
        let told = NativeError {
            code: rd::rd_kafka_error_code(error).into(),
            text: text(rd::rd_kafka_error_string(error)),
        };
        rd::rd_kafka_error_destroy(error);
        Err(told)
    }
}
