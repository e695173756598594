//! What a broker says of a record that it did not take.

use rdkafka::bindings as rd;
use rdkafka::message::BorrowedMessage;

use super::text;

/// The broker's own words on why a produced record was not delivered, if it said any.
pub(crate) fn undelivered_text(message: &BorrowedMessage<'_>) -> Option<String> {
    // SAFETY: the message is alive while it is borrowed; the text, null or ended by a NUL, lives as long and is copied here.
    let told = unsafe { text(rd::rd_kafka_message_produce_errstr(message.ptr())) };
    (!told.is_empty()).then_some(told)
}
