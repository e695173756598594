//! Messages as librdkafka returns them: borrowed, never copied here.

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use pseidon_plugin::raw_headers;
use rdkafka::bindings as rd;
use rdkafka::error::IsError;

use super::positions::known_epoch;
use super::{NativeError, text};

/// The messages of one fetch; they are freed together.
pub(crate) struct MessageBatch {
    /// The first `len` elements are initialized and owned.
    messages: Box<[MaybeUninit<*mut rd::rd_kafka_message_t>]>,
    len: usize,
}

impl MessageBatch {
    /// An empty batch with room for `capacity` messages.
    pub(crate) fn with_capacity(capacity: usize) -> MessageBatch {
        MessageBatch {
            messages: Box::new_uninit_slice(capacity),
            len: 0,
        }
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether the batch has no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the batch is at its capacity, so that more messages may be waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.messages.len()
    }

    /// The message at this index.
    pub(crate) fn get(&self, index: usize) -> Option<Message<'_>> {
        let message = self.messages[..self.len].get(index)?;
        // SAFETY: the first `len` elements are owned messages until `clear`, which needs `&mut
        // self` and so ends this borrow.
        Some(Message {
            raw: unsafe { &*message.assume_init() },
            fetched: PhantomData,
        })
    }

    /// All messages from index `from`.
    pub(crate) fn iter_from(&self, from: usize) -> impl Iterator<Item = Message<'_>> {
        (from..self.len).map_while(|index| self.get(index))
    }

    /// Frees all messages.
    pub(crate) fn clear(&mut self) {
        for message in &self.messages[..self.len] {
            // SAFETY: the first `len` elements are owned messages; each is destroyed once, since
            // `len` becomes 0.
            unsafe { rd::rd_kafka_message_destroy(message.assume_init()) };
        }
        self.len = 0;
    }

    pub(super) fn room(&mut self) -> &mut [MaybeUninit<*mut rd::rd_kafka_message_t>] {
        &mut self.messages[self.len..]
    }

    /// # Safety
    /// The first `count` elements of [`MessageBatch::room`] are messages that nothing else frees.
    pub(super) unsafe fn filled(&mut self, count: usize) {
        self.len += count;
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A message, or an error about a partition.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    raw: &'a rd::rd_kafka_message_t,
    fetched: PhantomData<&'a MessageBatch>,
}

impl<'a> Message<'a> {
    /// Whether this is an error about a partition instead of a record.
    #[inline]
    pub(crate) fn is_error(&self) -> bool {
        self.raw.err.is_error()
    }

    /// The error, if this is one; its text is more specific than its code.
    pub(crate) fn error(&self) -> Option<NativeError> {
        if !self.is_error() {
            return None;
        }
        // The text of an error is in its payload.
        let reason = self.payload().map(|reason| {
            String::from_utf8_lossy(reason)
                .trim_end_matches('\0')
                .to_owned()
        });
        let code = self.raw.err.into();
        Some(NativeError {
            code,
            text: reason.unwrap_or_else(|| format!("{code}")),
        })
    }

    /// Identifies the topic for as long as its partitions stay assigned.
    #[inline]
    pub(crate) fn topic_handle(&self) -> usize {
        self.raw.rkt.addr()
    }

    /// The topic's name; empty for an error that concerns no topic.
    pub(crate) fn topic(&self) -> String {
        if self.raw.rkt.is_null() {
            return String::new();
        }
        // SAFETY: a message keeps its topic alive, and the name is NUL-terminated.
        unsafe { text(rd::rd_kafka_topic_name(self.raw.rkt)) }
    }

    /// The partition's number, from 0.
    #[inline]
    pub(crate) fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// The offset of the record.
    #[inline]
    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// The epoch of the leader that accepted the record; `None` if the broker does not report it.
    #[inline]
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is alive.
        known_epoch(unsafe { rd::rd_kafka_message_leader_epoch(self.raw) })
    }

    /// The value; `None` for a tombstone.
    #[inline]
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        // SAFETY: a message's value has `len` bytes, which live as long as the message.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    /// The key; `None` if the record has none.
    #[inline]
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: as above, for its key.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// The timestamp in milliseconds since 1970; `None` if the record has none.
    pub(crate) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the kind is written before the call returns.
        let timestamp = unsafe { rd::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (timestamp >= 0).then_some(timestamp)
    }

    /// Calls `each` with the name and the value of every header. Returns whether the record has
    /// headers.
    fn headers(&self, mut each: impl FnMut(&'a CStr, Option<&'a [u8]>)) -> bool {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the returned headers belong to it.
        let code = unsafe { rd::rd_kafka_message_headers(self.raw, &mut headers) };
        if code.is_error() {
            return false;
        }
        for index in 0.. {
            let mut name: *const c_char = ptr::null();
            let mut value: *const c_void = ptr::null();
            let mut len = 0;
            // SAFETY: the headers live as long as the message. An index past the last returns an
            // error and writes nothing.
            let code = unsafe {
                rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len)
            };
            if code.is_error() {
                break;
            }
            // SAFETY: the name is NUL-terminated and the value has `len` bytes; both live as long
            // as the message.
            unsafe { each(CStr::from_ptr(name), bytes(value, len)) };
        }
        true
    }

    /// The headers in their raw encoding; `None` if there are none.
    pub(crate) fn raw_headers(&self) -> Option<Vec<u8>> {
        let mut headers = Vec::new();
        self.headers(|name, value| raw_headers::push(&mut headers, name.to_bytes(), value))
            .then_some(headers)
    }

    /// The headers as a JSON object; of several headers with the same name the last one wins.
    /// `None` if there are none. The error says which header cannot be represented.
    pub(crate) fn headers_as_json(&self) -> Result<Option<String>, String> {
        let mut headers = serde_json::Map::new();
        let mut bad = None;
        let some = self.headers(|name, value| {
            let (Ok(name), Ok(value)) = (name.to_str(), value.map(str::from_utf8).transpose())
            else {
                bad.get_or_insert_with(|| name.to_string_lossy().into_owned());
                return;
            };
            headers.insert(name.to_owned(), value.into());
        });
        match bad {
            Some(name) => Err(format!("the header `{name}` is not UTF-8 text")),
            None => Ok(some.then(|| serde_json::Value::Object(headers).to_string())),
        }
    }
}

/// # Safety
/// A non-null pointer is valid for `len` bytes that live for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: guaranteed by the caller.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), len) })
}
