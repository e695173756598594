//! Messages as librdkafka hands them out: borrowed, never copied here.

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

/// Of so many messages one is looked at.
const SAMPLED: usize = 64;
/// Keys from this size on, in bytes, are large.
const LARGE_KEY: usize = 1024;

/// The messages of one fetch; they are freed together.
pub(crate) struct Fetched {
    /// The first `len` are messages that are ours.
    messages: Box<[MaybeUninit<*mut rd::rd_kafka_message_t>]>,
    len: usize,
}

impl Fetched {
    /// Room for `capacity` messages.
    pub(crate) fn with_capacity(capacity: usize) -> Fetched {
        Fetched {
            messages: Box::new_uninit_slice(capacity),
            len: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there was no room for another one, so that more may be waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.messages.len()
    }

    /// The message with this number.
    pub(crate) fn get(&self, index: usize) -> Option<Message<'_>> {
        let message = self.messages[..self.len].get(index)?;
        // SAFETY: the first `len` places hold messages that are ours until `clear`, which needs
        // `&mut self` and so ends this borrow.
        Some(Message {
            raw: unsafe { &*message.assume_init() },
            fetched: PhantomData,
        })
    }

    /// Whether large keys are most of it. A sample of the messages is looked at.
    pub(crate) fn is_mostly_keys(&self) -> bool {
        let sample = (0..self.len)
            .step_by(SAMPLED)
            .filter_map(|index| self.get(index));
        let (keys, values, count) = sample.fold((0, 0, 0), |(keys, values, count), message| {
            (
                keys + message.raw.key_len,
                values + message.raw.len,
                count + 1,
            )
        });
        keys > values && keys > count * LARGE_KEY
    }

    /// All messages from number `from` on.
    pub(crate) fn iter_from(&self, from: usize) -> impl Iterator<Item = Message<'_>> {
        (from..self.len).map_while(|index| self.get(index))
    }

    /// Frees the messages.
    pub(crate) fn clear(&mut self) {
        for message in &self.messages[..self.len] {
            // SAFETY: the first `len` places hold messages that are ours; each is destroyed once,
            // since `len` becomes 0.
            unsafe { rd::rd_kafka_message_destroy(message.assume_init()) };
        }
        self.len = 0;
    }

    pub(super) fn room(&mut self) -> &mut [MaybeUninit<*mut rd::rd_kafka_message_t>] {
        &mut self.messages[self.len..]
    }

    /// # Safety
    /// The first `count` places of [`Fetched::room`] have to hold messages that nobody else frees.
    pub(super) unsafe fn filled(&mut self, count: usize) {
        self.len += count;
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A message, or an error about a partition.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    raw: &'a rd::rd_kafka_message_t,
    fetched: PhantomData<&'a Fetched>,
}

impl<'a> Message<'a> {
    /// Whether it is an error about a partition instead of a record.
    #[inline]
    pub(crate) fn is_error(&self) -> bool {
        self.raw.err.is_error()
    }

    /// The error, if it is one; its text says more than its code does.
    pub(crate) fn error(&self) -> Option<NativeError> {
        if !self.is_error() {
            return None;
        }
        // The text of an error is in its payload.
        let told = self.payload().map(|reason| {
            String::from_utf8_lossy(reason)
                .trim_end_matches('\0')
                .to_owned()
        });
        let code = self.raw.err.into();
        Some(NativeError {
            code,
            text: told.unwrap_or_else(|| format!("{code}")),
        })
    }

    /// Tells topics apart, as long as their partitions stay assigned.
    #[inline]
    pub(crate) fn topic_handle(&self) -> usize {
        self.raw.rkt.addr()
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> String {
        if self.raw.rkt.is_null() {
            return String::new();
        }
        // SAFETY: a message keeps its topic alive, and the name ends with a NUL.
        unsafe { text(rd::rd_kafka_topic_name(self.raw.rkt)) }
    }

    /// The partition.
    #[inline]
    pub(crate) fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// The offset.
    #[inline]
    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// The epoch of the leader that took the record in; `None` if the broker does not give it.
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

    /// The key.
    #[inline]
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the same for its key.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// Milliseconds since 1970.
    pub(crate) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the kind is written before the call returns.
        let timestamp = unsafe { rd::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (timestamp >= 0).then_some(timestamp)
    }

    /// Calls `each` with the name and the value of every header. Returns whether there are headers
    /// at all.
    fn headers(&self, mut each: impl FnMut(&'a CStr, Option<&'a [u8]>)) -> bool {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers it gives belong to it.
        let code = unsafe { rd::rd_kafka_message_headers(self.raw, &mut headers) };
        if code.is_error() {
            return false;
        }
        for index in 0.. {
            let mut name: *const c_char = ptr::null();
            let mut value: *const c_void = ptr::null();
            let mut len = 0;
            // SAFETY: the headers live as long as the message. An index past the last gives an
            // error and nothing else.
            let code = unsafe {
                rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len)
            };
            if code.is_error() {
                break;
            }
            // SAFETY: the name ends with a NUL and the value has `len` bytes; both live as long as
            // the message.
            unsafe { each(CStr::from_ptr(name), bytes(value, len)) };
        }
        true
    }

    /// The headers as they are; `None` where there are none.
    pub(crate) fn raw_headers(&self) -> Option<Vec<u8>> {
        let mut headers = Vec::new();
        self.headers(|name, value| raw_headers::push(&mut headers, name.to_bytes(), value))
            .then_some(headers)
    }

    /// The headers as a JSON object, of which those with the same name the last counts; `None`
    /// where there are none. The error is the reason why they cannot be one.
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
/// A pointer that is not null has to be to `len` bytes that live for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: what the caller promises.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), len) })
}
