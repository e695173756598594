//! The fields that `txt:` and `avro-txt:` records share: an event time, a message and named fields.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, NaiveDateTime};
use pseidon_dsl::expr::PathStep;
use pseidon_dsl::nearest;
use pseidon_plugin::format::{WantedColumn, is_json};

use crate::record_format::{EventLayout, EventUnit};
use crate::values::timestamp;

/// The kind of field that a wanted column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventColumn {
    /// The event time, as [`time_type`].
    Time,
    /// The fields that form the message, as one string or binary value.
    Message,
    /// The field with this index in `fields`.
    Field(usize),
}

/// The Arrow type of event times.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn message_type(event: &EventLayout) -> DataType {
    if event.bytes {
        DataType::Binary
    } else {
        DataType::Utf8
    }
}

/// The schema of every record. Named fields are strings unless `:schema` or a cast sets another
/// type.
pub(crate) fn schema(event: &EventLayout) -> SchemaRef {
    let time = event
        .time
        .map(|_| Field::new(event.time_name(), time_type(), true));
    let message = Field::new(event.message_name(), message_type(event), true);
    let fields = event
        .fields
        .iter()
        .map(|name| Field::new(name, DataType::Utf8, true));
    Arc::new(Schema::new(
        time.into_iter()
            .chain([message])
            .chain(fields)
            .collect::<Vec<_>>(),
    ))
}

/// Determines which field a wanted column holds. The error says why it cannot be decoded.
pub(crate) fn event_column(
    format: &str,
    event: &EventLayout,
    column: &WantedColumn,
) -> Result<EventColumn, String> {
    let [PathStep::Field(name)] = column.path.0.as_slice() else {
        return Err(format!(
            "`{}` is not a field; {format} records have no nested fields",
            column.path
        ));
    };
    let typed = |expected: DataType, event_column| match column.field.data_type() {
        data_type if *data_type == expected && !is_json(&column.field) => Ok(event_column),
        other => Err(format!(
            "`{name}` is {expected} in these {format} records, not {other}"
        )),
    };
    if let Some(number) = event.fields.iter().position(|field| field == name) {
        return Ok(EventColumn::Field(number));
    }
    if name == event.message_name() {
        return typed(message_type(event), EventColumn::Message);
    }
    if name != event.time_name() {
        let names = event
            .fields
            .iter()
            .map(String::as_str)
            .chain([event.time_name(), event.message_name()]);
        let help = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err(format!(
            "these {format} records have no field `{name}`; {help}"
        ));
    }
    match event.time {
        Some(_) => typed(time_type(), EventColumn::Time),
        None => Err(format!(
            "these {format} records have no `{name}`, because their format sets it to -1; use \
             @timestamp, the record's timestamp"
        )),
    }
}

/// Parses an event time. Returns milliseconds since 1970.
pub(crate) fn time(text: &str, unit: EventUnit) -> Option<i64> {
    let text = text.trim_ascii();
    match (text.parse::<i64>(), unit) {
        (Ok(milliseconds), EventUnit::Milliseconds) => Some(milliseconds),
        (Ok(seconds), EventUnit::Seconds) => seconds.checked_mul(1000),
        (Err(_), EventUnit::Milliseconds) => {
            timestamp(text, TimeUnit::Millisecond).or_else(|| short_time(text))
        }
        (Err(_), EventUnit::Seconds) => None,
    }
}

/// Parses ISO-8601's shorter forms: without seconds, or without separators.
fn short_time(text: &str) -> Option<i64> {
    let zoned = ["%Y-%m-%dT%H:%M%#z", "%Y%m%dT%H%M%S%.f%#z"]
        .into_iter()
        .find_map(|form| DateTime::parse_from_str(text, form).ok());
    let local = || {
        ["%Y-%m-%dT%H:%M", "%Y%m%dT%H%M%S%.f"]
            .into_iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
    };
    zoned
        .map(|at| at.timestamp_millis())
        .or_else(|| local().map(|at| at.and_utc().timestamp_millis()))
}

/// What was expected of an event time, for messages.
pub(crate) fn expected_time(unit: EventUnit) -> &'static str {
    match unit {
        EventUnit::Milliseconds => "milliseconds since 1970 or an ISO-8601 time",
        EventUnit::Seconds => "seconds since 1970",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_are_parsed() {
        use EventUnit::{Milliseconds, Seconds};
        let cases = [
            ("1714557600123", Milliseconds, Some(1_714_557_600_123)),
            (" 5 ", Milliseconds, Some(5)),
            ("-5", Milliseconds, Some(-5)),
            (
                "2024-05-01T10:00:00Z",
                Milliseconds,
                Some(1_714_557_600_000),
            ),
            (
                "2024-05-01T10:00:00.123456Z",
                Milliseconds,
                Some(1_714_557_600_123),
            ),
            (
                "2024-05-01T12:00:00+02:00",
                Milliseconds,
                Some(1_714_557_600_000),
            ),
            (
                "2024-05-01T12:00:00+0200",
                Milliseconds,
                Some(1_714_557_600_000),
            ),
            ("2024-05-01T10:00:00", Milliseconds, Some(1_714_557_600_000)),
            ("2024-05-01 10:00:00", Milliseconds, Some(1_714_557_600_000)),
            ("2024-05-01T10:00", Milliseconds, Some(1_714_557_600_000)),
            ("2024-05-01T10:00Z", Milliseconds, Some(1_714_557_600_000)),
            ("20240501T100000Z", Milliseconds, Some(1_714_557_600_000)),
            (
                "20240501T120000.250+0200",
                Milliseconds,
                Some(1_714_557_600_250),
            ),
            ("20240501T100000", Milliseconds, Some(1_714_557_600_000)),
            ("2024-05-01", Milliseconds, Some(1_714_521_600_000)),
            ("1714557600", Seconds, Some(1_714_557_600_000)),
            ("2024-05-01T10:00:00Z", Seconds, None),
            ("9223372036854775807", Seconds, None),
            ("9223372036854775808", Milliseconds, None),
            ("1.5", Milliseconds, None),
            ("yesterday", Milliseconds, None),
            ("", Milliseconds, None),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(time(text, unit), expected, "{text:?} as {unit:?}");
        }
    }
}
