//! What the topic and the client accept, checked before a record is sent.

use arrow::array::RecordBatch;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::{BadRow, Rows};

use super::messages::Messages;
use super::producer::ClientLimit;
use super::refusals::Refusals;
use super::rules::TopicRules;
use super::size::{BatchCompression, RecordParts, header};

/// What the topic and the client accept.
pub(super) struct RecordLimits<'a> {
    /// The topic's name, for the reasons of refusals.
    pub(super) topic: &'a str,
    pub(super) rules: &'a TopicRules,
    pub(super) client: ClientLimit,
    pub(super) compression: BatchCompression,
    /// The records that the broker has refused before.
    pub(super) refusals: &'a Refusals,
    /// The current wall-clock time, in milliseconds since 1970.
    pub(super) now: i64,
}

impl RecordLimits<'_> {
    /// The rows that the topic or the client would not accept. `columns` are the converted rows.
    pub(super) fn refused_rows(
        &self,
        rows: &Rows,
        columns: &RecordBatch,
        is_unchanged: bool,
    ) -> Vec<BadRow> {
        let messages = Messages::new(columns);
        let bad = |row: usize| {
            self.refusal(rows, &messages, row, is_unchanged)
                .map(|reason| BadRow {
                    row: row as u32,
                    reason,
                })
        };
        (0..rows.len()).filter_map(bad).collect()
    }

    /// Whether a record that is refused was not when it was read before.
    pub(super) fn is_late(&self, split: &SplitId, position: Position) -> bool {
        self.refusals.reason(split, position).is_some() || self.refusals.was_sent(split, position)
    }

    /// The reason why the record cannot be written, if it cannot.
    fn refusal(
        &self,
        rows: &Rows,
        messages: &Messages<'_>,
        row: usize,
        is_unchanged: bool,
    ) -> Option<String> {
        if let Some(reason) = self
            .refusals
            .reason(&rows.batch().split.id, rows.position(row))
        {
            return Some(format!("the broker refuses the record: {reason}"));
        }
        if self.rules.needs_key && messages.key(row).is_none() {
            return Some(format!(
                "the topic {} is compacted, so a record needs a key, and this one has none; set \
                 `:key`",
                self.topic
            ));
        }
        if let Some(timestamp) = messages.timestamp(row) {
            // The client replaces 0 by the time of writing.
            if timestamp == 0 {
                return Some(
                    "its timestamp is 0 (1970-01-01T00:00:00Z), which the Kafka client cannot write"
                        .to_owned(),
                );
            }
            if let Some(reason) = self.rules.time_refusal(timestamp, self.now) {
                return Some(format!(
                    "the topic {} refuses the record: {reason}",
                    self.topic
                ));
            }
        }
        let value = if is_unchanged {
            rows.payload(row)
        } else {
            messages.value(row)
        };
        let (mut headers, mut header_bytes) = (0, 0);
        for (name, value) in messages.headers(row) {
            if std::str::from_utf8(name).is_err() {
                return Some("the name of a header is not UTF-8".to_owned());
            }
            headers += 1;
            header_bytes += header(name, value);
        }
        self.size_refusal(&RecordParts {
            key: messages.key(row),
            value,
            headers,
            header_bytes,
        })
        .or_else(|| {
            messages
                .partition(row)
                .and_then(|partition| self.rules.partition_refusal(partition))
        })
    }

    fn size_refusal(&self, parts: &RecordParts<'_>) -> Option<String> {
        let size = parts.batch();
        let topic = self.topic;
        if let Some(limit) = self.rules.bytes.filter(|limit| size > *limit) {
            let least = self.compression.min_batch(parts);
            if least > limit {
                let compressed = if self.compression == BatchCompression::None {
                    ""
                } else {
                    " after compression"
                };
                return Some(format!(
                    "the record takes {least} bytes{compressed}, but the topic {topic} accepts \
                     {limit} (max.message.bytes)"
                ));
            }
        }
        let ClientLimit {
            bytes, property, ..
        } = self.client;
        if size <= bytes {
            return None;
        }
        Some(match property {
            Some(property) => format!(
                "the record takes {size} bytes, but the property `{property}` of the sink allows \
                 {bytes}"
            ),
            None => format!(
                "the record takes {size} bytes, but the sink was opened with a limit of {bytes}, \
                 from what the topic {topic} accepted then"
            ),
        })
    }
}
