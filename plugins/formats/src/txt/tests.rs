use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMillisecondType};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::BadRow;
use pseidon_plugin::format::{DecodedColumns, Format, WantedColumn, json_field};

use super::Txt;
use crate::testing::payloads;

fn wanted(name: &str, data_type: DataType) -> WantedColumn {
    WantedColumn {
        path: Path(vec![PathStep::Field(name.to_owned())]),
        field: Arc::new(Field::new(name, data_type, true)),
    }
}

fn time() -> WantedColumn {
    wanted(
        "ts",
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
    )
}

fn message() -> WantedColumn {
    wanted("msg", DataType::Utf8)
}

fn decode(settings: &str, columns: &[WantedColumn], records: &[&[u8]]) -> DecodedColumns {
    let records: Vec<_> = records.iter().map(|record| Some(*record)).collect();
    let mut decoder = Txt.decoder(settings, columns).unwrap();
    let first = decoder.decode(&payloads(&records));
    // A decoder keeps no values between batches.
    let again = decoder.decode(&payloads(&records));
    assert_eq!((&first.columns, &first.bad), (&again.columns, &again.bad));
    first
}

fn texts(column: &ArrayRef) -> Vec<Option<&str>> {
    column.as_string::<i32>().iter().collect()
}

fn times(column: &ArrayRef) -> Vec<Option<i64>> {
    column
        .as_primitive::<TimestampMillisecondType>()
        .iter()
        .collect()
}

fn reasons(decoded: &DecodedColumns) -> Vec<(u32, &str)> {
    decoded
        .bad
        .iter()
        .map(|bad| (bad.row, bad.reason.as_str()))
        .collect()
}

#[test]
fn a_record_is_its_line() {
    let mut decoder = Txt.decoder("", &[wanted("line", DataType::Utf8)]).unwrap();
    let decoded = decoder.decode(&payloads(&[
        Some("é\r".as_bytes()),
        None,
        Some(b"\xff"),
        Some(b""),
    ]));
    assert_eq!(
        texts(&decoded.columns[0]),
        [Some("é\r"), None, None, Some("")]
    );
    assert_eq!(
        decoded.bad,
        [BadRow {
            row: 2,
            reason: "the record is not valid UTF-8".to_owned()
        }]
    );
}

#[test]
fn unknown_fields_are_rejected() {
    let refused = |settings, column| Txt.decoder(settings, &[column]).err().unwrap();
    assert_eq!(
        refused("", wanted("user", DataType::Utf8)),
        "txt records have no field `user`; expected `line`"
    );
    assert_eq!(
        refused("", wanted("line", DataType::Int64)),
        "`line` is utf8 in txt records, not Int64"
    );
    let json = WantedColumn {
        field: Arc::new(json_field("line")),
        ..wanted("line", DataType::Utf8)
    };
    assert!(Txt.decoder("", &[json]).is_err());
    assert_eq!(
        Txt.schema("sep=pipe").unwrap_err(),
        "missing setting `ts`, `ts_ms` or `ts_sec` of txt; expected the index of the event-time field, or -1"
    );
    assert!(
        Txt.decoder("", &[])
            .unwrap()
            .decode(&payloads(&[Some(b"\xff")]))
            .bad
            .is_empty()
    );

    assert_eq!(
        refused("ts=0", wanted("line", DataType::Utf8)),
        "these txt records have no field `line`; expected ts, msg"
    );
    assert_eq!(
        refused("ts=0;fields=user,n", wanted("usr", DataType::Utf8)),
        "these txt records have no field `usr`; did you mean `user`?"
    );
    assert_eq!(
        refused("ts=0", wanted("msg", DataType::Int64)),
        "`msg` is Utf8 in these txt records, not Int64"
    );
    assert_eq!(
        refused("ts=0;bytes=true", message()),
        "`msg` is Binary in these txt records, not Utf8"
    );
    assert_eq!(
        refused("ts=0", wanted("ts", DataType::Int64)),
        "`ts` is Timestamp(ms, \"UTC\") in these txt records, not Int64"
    );
    assert_eq!(
        refused("ts=-1", time()),
        "these txt records have no `ts`, because their format sets it to -1; use @timestamp, the record's timestamp"
    );
    let part = WantedColumn {
        path: Path(vec![PathStep::Field("msg".to_owned()), PathStep::Index(0)]),
        ..message()
    };
    assert_eq!(
        refused("ts=0", part),
        "`msg[0]` is not a field; txt records have no nested fields"
    );
    let nested = wanted("a", DataType::new_list(DataType::Int64, true));
    assert!(refused("ts=0;fields=a", nested).starts_with("cannot decode text field `a` as List("));
}

#[test]
fn fields_of_the_schema() {
    let names = |settings: &str| {
        let schema = Txt.schema(settings).unwrap().unwrap();
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(names(""), "line Utf8");
    assert_eq!(names("ts=0"), "ts Timestamp(ms, \"UTC\"), msg Utf8");
    assert_eq!(names("ts=-1;bytes=true"), "msg Binary");
    assert_eq!(
        names("ts=0;fields=a,ts"),
        "event_ts Timestamp(ms, \"UTC\"), msg Utf8, a Utf8, ts Utf8"
    );
}

/// Every rule of `sep` and `msg`, with the expected message.
#[test]
fn messages() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("", b"1\x01a\x01b", "1\x01a\x01b"),
        ("sep=byte1", b"1\x01a\x01b", "1\x01a\x01b"),
        ("sep=tab;msg=1:", b"1\ta\tb", "a\tb"),
        ("sep=space;msg=1:", b"1 a b", "a b"),
        ("sep=semicolon;msg=1:", b"1;a;b", "a;b"),
        ("sep=pipe;msg=1:", b"1|a|b", "a|b"),
        ("sep=comma;msg=1:", b"1,a,b", "a,b"),
        // Other separators are ordinary characters.
        ("sep=comma;msg=1", b"1,a|b\tc d,e", "a|b\tc d"),
        // Empty fields do not count, wherever they are.
        ("sep=comma", b"1,,a,b", "1,a,b"),
        ("sep=comma", b",,1,a,b,,", "1,a,b"),
        ("sep=comma;msg=1", b"1,,,a,b", "a"),
        ("sep=comma;msg=2", b"1,,a,,b", "b"),
        ("sep=comma;msg=1:3", b"1,a,,b,,,c", "a,b"),
        // Unless they are kept.
        ("sep=comma;empty=keep", b"1,,a,b,", "1,,a,b,"),
        ("sep=comma;empty=keep;msg=1:3", b"1,,a,b", ",a"),
        ("sep=comma;empty=keep;msg=2", b"1,,a,b", "a"),
        ("sep=comma;msg=0:2", b"1,a,,b", "1,a"),
        ("sep=comma;msg=2:", b"1,,a,b,c", "b,c"),
        // Indexes and slices.
        ("sep=comma;msg=0", b"1,a,b", "1"),
        ("sep=comma;msg=2", b"1,a,b", "b"),
        ("sep=comma;msg=-1", b"1,a,b", "1,a,b"),
        ("sep=comma;msg=:", b"1,a,b", "1,a,b"),
        ("sep=comma;msg=:2", b"1,a,b", "1,a"),
        ("sep=comma;msg=1:2", b"1,a,b", "a"),
        ("sep=comma;msg=1:9", b"1,a,b", "a,b"),
        ("sep=comma;msg=-5:2", b"1,a,b", "1,a"),
        ("sep=comma;msg=1:-5", b"1,a,b", "a,b"),
        ("sep=comma;msg=1:1", b"1,a,b", "a"),
        ("sep=comma;msg=2:1", b"1,a,b", "b"),
        ("sep=comma;msg=:0", b"1,a,b", "1"),
        // Indexes past the last field select nothing.
        ("sep=comma;msg=3:", b"1,a,b", ""),
        ("sep=comma;msg=5:7", b"1,a,b", ""),
        ("sep=comma;msg=5:2", b"1,a,b", ""),
        ("sep=comma;msg=3", b"1,a,b", ""),
        // One field only.
        ("sep=comma", b"1", "1"),
        ("sep=comma;msg=1:", b"1", ""),
        ("sep=comma;msg=:", "1,é,\r".as_bytes(), "1,é,\r"),
    ];
    for (settings, record, expected) in cases {
        let decoded = decode(&format!("ts=0;{settings}"), &[message(), time()], &[record]);
        assert_eq!(
            (texts(&decoded.columns[0]), reasons(&decoded)),
            (vec![Some(*expected)], vec![]),
            "{settings}"
        );
        // Without the event time, fewer fields may need to be located.
        let alone = decode(&format!("ts=-1;{settings}"), &[message()], &[record]);
        assert_eq!(texts(&alone.columns[0]), [Some(*expected)], "{settings}");
        let bytes = decode(
            &format!("ts=0;bytes=true;{settings}"),
            &[wanted("msg", DataType::Binary)],
            &[record],
        );
        assert_eq!(
            bytes.columns[0].as_binary::<i32>().value(0),
            expected.as_bytes(),
            "{settings}"
        );
    }
}

#[test]
fn event_times() {
    let cases: &[(&str, &str, Option<i64>)] = &[
        ("ts=0", "1714557600123,a", Some(1_714_557_600_123)),
        ("ts_ms=1", "a,1714557600123", Some(1_714_557_600_123)),
        ("ts=1", "a,,2024-05-01T10:00:00Z,b", Some(1_714_557_600_000)),
        (
            "ts_ms=0",
            "2024-05-01T12:00:00+02:00",
            Some(1_714_557_600_000),
        ),
        ("ts_sec=0", "1714557600", Some(1_714_557_600_000)),
        ("ts_sec=0", "2024-05-01T10:00:00Z", None),
        ("ts=2", "1,a", None),
        ("ts=0", "", None),
        ("ts=0", "x", None),
    ];
    for (settings, record, expected) in cases {
        let decoded = decode(
            &format!("sep=comma;{settings}"),
            &[time()],
            &[record.as_bytes()],
        );
        assert_eq!(
            times(&decoded.columns[0]),
            [*expected],
            "{settings}: {record}"
        );
        assert_eq!(
            decoded.bad.is_empty(),
            expected.is_some(),
            "{settings}: {record}"
        );
    }
}

#[test]
fn bad_records_have_a_reason_and_no_values() {
    let settings = "sep=comma;ts=1;msg=:;fields=name,at,n";
    let columns = [message(), time(), wanted("n", DataType::Int32)];
    let long = "z".repeat(100);
    let records: Vec<Vec<u8>> = vec![
        b"a,1,5".into(),
        b"b,then,5".into(),
        b"c".into(),
        b"d,4,five".into(),
        b"\xff,5,5".into(),
        format!("e,{long},5").into(),
        b"f,6".into(),
    ];
    let decoded = decode(
        settings,
        &columns,
        &records.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    );
    assert_eq!(
        reasons(&decoded),
        [
            (
                1,
                "`ts` is field 1, which is \"then\"; expected milliseconds since 1970 or an ISO-8601 time"
            ),
            (2, "`ts` is field 1, but the record has 1 fields"),
            (3, "`n` is the string \"five\"; expected int32"),
            (4, "the record is not valid UTF-8"),
            (
                5,
                &*format!(
                    "`ts` is field 1, which is \"{}…\"; expected milliseconds since 1970 or an ISO-8601 time",
                    "z".repeat(40)
                )
            ),
        ]
    );
    assert_eq!(
        texts(&decoded.columns[0]),
        [Some("a,1,5"), None, None, None, None, None, Some("f,6")]
    );
    assert_eq!(
        times(&decoded.columns[1]),
        [Some(1), None, None, None, None, None, Some(6)]
    );
    let numbers: Vec<_> = decoded.columns[2]
        .as_primitive::<arrow::datatypes::Int32Type>()
        .iter()
        .collect();
    assert_eq!(numbers, [Some(5), None, None, None, None, None, None]);
}

#[test]
fn binary_messages_need_not_be_utf8() {
    let decoded = decode(
        "sep=comma;ts=0;msg=1:;bytes=true",
        &[time(), wanted("msg", DataType::Binary)],
        &[b"7,\xff\xfe,,\x00"],
    );
    assert_eq!(
        (
            decoded.columns[1].as_binary::<i32>().value(0),
            reasons(&decoded)
        ),
        (&b"\xff\xfe,\x00"[..], vec![])
    );
    assert_eq!(times(&decoded.columns[0]), [Some(7)]);
    // A record without a payload has null values and is not bad.
    let decoded = Txt
        .decoder("ts=0", &[time(), message()])
        .unwrap()
        .decode(&payloads(&[None, Some(b"1\x01a")]));
    assert_eq!(
        (texts(&decoded.columns[1]), decoded.bad.len()),
        (vec![None, Some("1\x01a")], 0)
    );
}

/// Types, the text of a field, and its value as shown by Arrow, or `None` if it does not fit.
fn typed_fields() -> Vec<(DataType, &'static str, Option<&'static str>)> {
    let utc = || Some("UTC".into());
    vec![
        (DataType::Utf8, " é ", Some(" é ")),
        (DataType::Binary, "hi", Some("6869")),
        (DataType::Boolean, "TRUE", Some("true")),
        (DataType::Boolean, "0", Some("false")),
        (DataType::Boolean, "yes", None),
        (DataType::Int8, "-128", Some("-128")),
        (DataType::Int8, "128", None),
        (DataType::Int16, "+7", Some("7")),
        (DataType::Int32, " 7 ", Some("7")),
        (
            DataType::Int64,
            "9223372036854775807",
            Some("9223372036854775807"),
        ),
        (DataType::Int64, "1.0", None),
        (DataType::UInt8, "255", Some("255")),
        (DataType::UInt64, "-1", None),
        (DataType::Float32, "0.5", Some("0.5")),
        (DataType::Float64, "-1e3", Some("-1000.0")),
        (DataType::Float64, "x", None),
        (DataType::Decimal128(5, 2), "123.45", Some("123.45")),
        (DataType::Decimal128(5, 2), "123.456", None),
        (DataType::Decimal128(5, 2), "1234", None),
        (DataType::Decimal256(40, 1), "-1.50", Some("-1.5")),
        (DataType::Date32, "2024-05-01", Some("2024-05-01")),
        (DataType::Date32, "2024-13-01", None),
        (
            DataType::Timestamp(TimeUnit::Second, None),
            "60",
            Some("1970-01-01T00:01:00"),
        ),
        (
            DataType::Timestamp(TimeUnit::Millisecond, utc()),
            "2024-05-01T10:00:00.5Z",
            Some("2024-05-01T10:00:00.500Z"),
        ),
        (
            DataType::Timestamp(TimeUnit::Microsecond, utc()),
            "1500000",
            Some("1970-01-01T00:00:01.500Z"),
        ),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "2024-05-01 10:00:00",
            Some("2024-05-01T10:00:00"),
        ),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "soon",
            None,
        ),
    ]
}

/// Floats at their limits, and times.
fn special_fields() -> Vec<(DataType, &'static str, Option<&'static str>)> {
    let time = || DataType::Time64(TimeUnit::Microsecond);
    let millis = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    vec![
        (DataType::Float64, "-0.0", Some("-0.0")),
        (DataType::Float64, "1e308", Some("1e308")),
        (DataType::Float64, "1e400", None),
        (DataType::Float64, "-1e400", None),
        (DataType::Float64, "-1e-400", Some("-0.0")),
        (DataType::Float64, "NaN", Some("NaN")),
        (DataType::Float64, "-inf", Some("-inf")),
        (DataType::Float32, "1e39", None),
        (DataType::Float32, "Infinity", Some("inf")),
        (time(), "23:59:59.999999", Some("23:59:59.999999")),
        (time(), "24:30:00", None),
        (
            millis(),
            "+10019-06-13T00:00:00.001Z",
            Some("+10019-06-13T00:00:00.001Z"),
        ),
    ]
}

#[test]
fn named_fields_have_types() {
    for (data_type, text, expected) in [typed_fields(), special_fields()].concat() {
        let record = format!("0|{text}");
        let decoded = decode(
            "sep=pipe;ts=0;msg=1:;fields=v,w",
            &[
                wanted("v", data_type.clone()),
                wanted("w", data_type.clone()),
            ],
            &[record.as_bytes(), b"0"],
        );
        let value = decoded.columns[0]
            .is_valid(0)
            .then(|| array_value_to_string(&decoded.columns[0], 0).unwrap());
        assert_eq!(value.as_deref(), expected, "{text:?} as {data_type}");
        assert_eq!(
            decoded.bad.len(),
            usize::from(expected.is_none()),
            "{text:?} as {data_type}"
        );
        // A missing field is null, not an error.
        assert!(decoded.columns[0].is_null(1) && decoded.columns[1].null_count() == 2);
    }
}

proptest! {
    #[test]
    fn any_record_is_decoded_or_rejected(
        records in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b','), Just(b'1'), any::<u8>()], 0..20), 0..10),
        time_field in 0..4_usize,
        message in "(-?[0-9])?:?(-?[0-9])?",
        bytes in any::<bool>(),
    ) {
        let message = if message.is_empty() { ":".to_owned() } else { message };
        let settings = format!("sep=comma;ts={time_field};msg={message};fields=a,b;bytes={bytes}");
        prop_assume!(crate::record_format::parse(&format!("txt:{settings}")).is_ok());
        let msg = wanted("msg", if bytes { DataType::Binary } else { DataType::Utf8 });
        let columns = [time(), msg, wanted("a", DataType::Int16), wanted("b", DataType::Utf8)];
        let decoded = decode(&settings, &columns, &records.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for column in &decoded.columns {
            prop_assert_eq!(column.len(), records.len());
        }
        for bad in &decoded.bad {
            prop_assert!(decoded.columns.iter().all(|column| column.is_null(bad.row as usize)));
        }
    }

    #[test]
    fn the_message_is_the_fields_as_python_slices_them(
        fields in prop::collection::vec("[a-z]{0,3}", 0..8), start in 0..10_usize, end in prop::option::of(0..10_usize),
    ) {
        let record = fields.join(",");
        let full: Vec<_> = fields.iter().filter(|field| !field.is_empty()).map(String::as_str).collect();
        let last = end.map_or(full.len(), |end| end.max(start + 1)).min(full.len());
        let expected = full.get(start..last).unwrap_or_default().join(",");
        let settings = format!("ts=-1;sep=comma;msg={start}:{}", end.map_or(String::new(), |end| end.to_string()));
        let decoded = decode(&settings, &[message()], &[record.as_bytes()]);
        prop_assert_eq!(texts(&decoded.columns[0]), [Some(expected.as_str())]);
    }
}
