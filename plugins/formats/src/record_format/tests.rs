use proptest::prelude::*;

use super::*;

fn event(text: &str) -> EventLayout {
    match parse(text) {
        Ok(
            RecordLayout::Txt(TxtLayout { event, .. })
            | RecordLayout::AvroTxt(AvroLayout { event, .. }),
        ) => event,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn layouts_without_settings() {
    let cases = [
        ("txt", RecordLayout::Line),
        ("txt:", RecordLayout::Line),
        ("txt:;", RecordLayout::Line),
        (" txt : ", RecordLayout::Line),
        ("raw", RecordLayout::Raw),
        ("json", RecordLayout::Json(JsonLayout { time: None })),
        ("json:", RecordLayout::Json(JsonLayout { time: None })),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn separators() {
    let cases = [
        ("txt:ts=0", 1),
        ("txt:sep=byte1;ts=0", 1),
        ("txt:sep=tab;ts=0", b'\t'),
        ("txt:sep=space;ts=0", b' '),
        ("txt:sep=semicolon;ts=0", b';'),
        ("txt:sep=pipe;ts=0", b'|'),
        ("txt: sep = comma ; ts = 0 ;", b','),
        ("txt:;sep=comma;;ts=0;;", b','),
    ];
    for (text, expected) in cases {
        let Ok(RecordLayout::Txt(layout)) = parse(text) else {
            panic!("{text}")
        };
        assert_eq!(layout.separator, expected, "{text}");
    }
}

#[test]
fn event_times() {
    use EventUnit::{Milliseconds, Seconds};
    let at = |field, unit| Some(EventTime { field, unit });
    let cases = [
        ("txt:ts=0", at(0, Milliseconds)),
        ("txt:ts_ms=3", at(3, Milliseconds)),
        ("txt:ts_sec=12", at(12, Seconds)),
        ("txt:ts=-1", None),
        ("txt:ts_ms=-1", None),
        ("txt:ts_sec=-1", None),
        ("txt:ts=-7", None),
        ("avro-txt:ts=2", at(2, Milliseconds)),
        ("avro-txt:ts_sec=0", at(0, Seconds)),
        ("avro-txt:ts=-1", None),
        (
            "txt:ts=99999999999999999999999",
            at(i64::MAX as usize, Milliseconds),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(event(text).time, expected, "{text}");
    }
}

/// The fields of the message, of a record with six fields.
#[test]
fn messages() {
    let cases = [
        ("", 0..6),
        ("msg=-1", 0..6),
        ("msg=0", 0..1),
        ("msg=5", 5..6),
        ("msg=6", 6..6),
        ("msg=99999999999999999999999", 6..6),
        ("msg=:", 0..6),
        ("msg=2:", 2..6),
        ("msg=:3", 0..3),
        ("msg=1:3", 1..3),
        ("msg= 1 : 3 ", 1..3),
        ("msg=1:99", 1..6),
        // A negative start counts as 0, a negative end as the end of the record.
        ("msg=-2:", 0..6),
        ("msg=-2:3", 0..3),
        ("msg=2:-1", 2..6),
        ("msg=2:-3", 2..6),
        ("msg=-5:-5", 0..6),
        // The end is not after the start: one field.
        ("msg=3:3", 3..4),
        ("msg=3:1", 3..4),
        ("msg=:0", 0..1),
        ("msg=0:0", 0..1),
        ("msg=5:2", 5..6),
        // The start is past the last field: none.
        ("msg=6:", 6..6),
        ("msg=9:12", 6..6),
        ("msg=9:3", 6..6),
    ];
    for (setting, expected) in cases {
        let chosen = event(&format!("txt:ts=0;{setting}")).message.clamped(6);
        assert_eq!(chosen.len(), expected.len(), "{setting}");
        assert!(
            expected.is_empty() || chosen == expected,
            "{setting}: {chosen:?}"
        );
    }
    assert_eq!(FieldRange::ALL.clamped(0), 0..0);
    assert_eq!(event("txt:ts=0;msg=4").message.single(), Some(4));
    assert_eq!(event("txt:ts=0;msg=4:").message.single(), None);
    assert_eq!(event("avro-txt:ts=0;msg=4").message.single(), Some(4));
    assert!(
        event("avro-txt:ts=0;msg=-1").message.is_all() && event("avro-txt:ts=0").message.is_all()
    );
}

#[test]
fn fields_bytes_and_registry() {
    let plain = event("txt:ts=0");
    assert_eq!(
        (plain.bytes, plain.fields.as_slice()),
        (false, [].as_slice())
    );
    assert_eq!((plain.time_name(), plain.message_name()), ("ts", "msg"));
    let all = event("txt:ts=0;fields=a, b_2,é;bytes=true");
    assert_eq!(
        (all.bytes, all.fields),
        (true, vec!["a".to_owned(), "b_2".to_owned(), "é".to_owned()])
    );
    let taken = event("txt:ts=0;fields=ts,msg");
    assert_eq!(
        (taken.time_name(), taken.message_name()),
        ("event_ts", "event_msg")
    );
    let registry = |text| match parse(text) {
        Ok(RecordLayout::AvroTxt(layout)) => layout.registry,
        other => panic!("{other:?}"),
    };
    assert_eq!(registry("avro-txt:ts=0"), None);
    assert_eq!(
        registry("avro-txt:ts=0;registry=http://r:8081/"),
        Some(Secret::new("http://r:8081"))
    );
}

#[test]
fn json_times() {
    let time = |text| match parse(text) {
        Ok(RecordLayout::Json(layout)) => {
            layout.time.map(|time| (time.path.to_string(), time.unit))
        }
        other => panic!("{other:?}"),
    };
    use EventUnit::{Milliseconds, Seconds};
    let cases = [
        ("json:ts=ts", "ts", Milliseconds),
        ("json:ts=user.seen", "user.seen", Milliseconds),
        ("json:ts_ms=a[0].b", "a[0].b", Milliseconds),
        ("json:ts_sec=a.b", "a.b", Seconds),
        ("json:ts=user-id.at", "\"user-id\".at", Milliseconds),
    ];
    for (text, path, unit) in cases {
        assert_eq!(time(text), Some((path.to_owned(), unit)), "{text}");
    }
    assert_eq!(time("json:ts=-1"), None);
}

const INVALID: &[(&str, &str)] = &[
    (
        "",
        "the format is empty; expected txt, avro-txt, json or raw",
    ),
    ("text:ts=0", "unknown format `text`; did you mean `txt`?"),
    (
        "protobuf",
        "unknown format `protobuf`; expected txt, avro-txt, json or raw",
    ),
    ("raw:a=1", "unexpected setting `a`; raw has no settings"),
    (
        "txt:ts=0;msgg=1",
        "unknown setting `msgg` of txt; did you mean `msg`?",
    ),
    (
        "txt:ts=0;registry=http://r",
        "unknown setting `registry` of txt; expected sep, empty, ts, ts_ms, ts_sec, msg, fields or bytes",
    ),
    (
        "json:msg=1",
        "unknown setting `msg` of json; expected ts, ts_ms or ts_sec",
    ),
    ("txt:ts=0;ts=1", "duplicate setting `ts`"),
    (
        "txt:ts=0;ts_sec=1",
        "conflicting settings `ts` and `ts_sec`; keep one",
    ),
    (
        "txt:msg=1",
        "missing setting `ts`, `ts_ms` or `ts_sec` of txt; expected the index of the event-time field, or -1",
    ),
    (
        "avro-txt",
        "missing setting `ts`, `ts_ms` or `ts_sec` of avro-txt; expected the index of the event-time field, or -1",
    ),
    (
        "txt:ts=x",
        "invalid `ts` value `x`; expected the index of a field, starting at 0, or -1",
    ),
    (
        "txt:ts_sec=",
        "invalid `ts_sec` value ``; expected the index of a field, starting at 0, or -1",
    ),
    (
        "txt:ts=0;sep=pip",
        "invalid `sep` value `pip`; did you mean `pipe`?",
    ),
    (
        "txt:ts=0;sep=|",
        "invalid `sep` value `|`; expected byte1, tab, space, semicolon, pipe or comma",
    ),
    (
        "txt:ts=0;msg=1:2:3",
        "invalid `msg` value `1:2:3`; expected the index of a field, starting at 0, a slice `a:b`, `a:`, `:b` or `:`, or -1",
    ),
    (
        "txt:ts=0;msg=",
        "invalid `msg` value ``; expected the index of a field, starting at 0, a slice `a:b`, `a:`, `:b` or `:`, or -1",
    ),
    (
        "txt:ts=0;empty=yes",
        "invalid `empty` value `yes`; expected keep or skip",
    ),
    (
        "txt:ts=0;bytes=yes",
        "invalid `bytes` value `yes`; expected true or false",
    ),
    (
        "txt:ts=0;fields=a,,b",
        "invalid `fields` value `a,,b`; expected a list of names such as `a,b,c`",
    ),
    ("txt:ts=0;fields=a,a", "duplicate name `a` in `fields`"),
    (
        "txt:ts=0;fields=ts,event_ts",
        "`fields` cannot name both `ts` and `event_ts`: one of them is the name of a field that the format adds",
    ),
    (
        "avro-txt:ts=0;msg=1:3",
        "invalid `msg` value `1:3` of avro-txt; expected the index of a field, starting at 0, or -1 for the whole record",
    ),
    (
        "avro-txt:ts=0;registry=r:8081",
        "invalid `registry` value `r:8081`; expected an address such as http://registry:8081",
    ),
    (
        "json:ts=a..b",
        "invalid `ts` value `a..b`; expected a path such as user.seen, or -1",
    ),
    (
        "txt:ts",
        "unexpected `ts`; a format is `type` or `type:key=value;key=value`",
    ),
    (
        "txt:=3",
        "unexpected `=3`; a format is `type` or `type:key=value;key=value`",
    ),
];

#[test]
fn errors_name_the_setting() {
    for (text, expected) in INVALID {
        assert_eq!(parse(text).err().as_deref(), Some(*expected), "{text}");
    }
}

#[test]
fn layouts_round_trip() {
    let cases = [
        ("txt", "txt"),
        ("raw", "raw"),
        ("json", "json"),
        ("json:ts=a[0].b", "json:ts=a[0].b"),
        ("json:ts_sec=user-id.at", "json:ts_sec=\"user-id\".at"),
        ("txt:ts_ms=3;msg=:", "txt:sep=byte1;ts=3"),
        (
            "txt:sep=semicolon;ts_sec=-1;msg=2;bytes=true",
            "txt:sep=semicolon;ts=-1;msg=2;bytes=true",
        ),
        (
            "txt:sep=tab;ts_sec=0;msg=1:;fields=a,b",
            "txt:sep=tab;ts_sec=0;msg=1:;fields=a,b",
        ),
        ("txt:ts=0;msg=:3", "txt:sep=byte1;ts=0;msg=0:3"),
        ("txt:empty=keep;ts=0", "txt:sep=byte1;empty=keep;ts=0"),
        ("txt:sep=tab;empty=skip;ts=0", "txt:sep=tab;ts=0"),
        (
            "avro-txt:registry=http://r:1/;ts=1;msg=-1",
            "avro-txt:ts=1;registry=http://r:1",
        ),
    ];
    for (text, expected) in cases {
        let layout = parse(text).unwrap();
        assert_eq!(layout.to_string(), expected);
        assert_eq!(parse(expected), Ok(layout));
    }
}

#[test]
fn the_address_of_the_registry_is_not_printed() {
    let layout = parse("avro-txt:ts=1;registry=http://u:hidden@r:1").unwrap();
    let shown = format!("{layout:?}");
    assert!(!shown.contains("hidden"), "{shown}");
}

fn odd_formats() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "txt", "avro-txt", "json", ":", ";", "=", "ts", "ts_sec", "msg", "fields", "sep", "-", "1",
        "99", ",", " ", "é",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    ]
}

proptest! {
    #[test]
    fn any_string_is_parsed_or_rejected(text in odd_formats()) {
        match parse(&text) {
            Ok(layout) => prop_assert_eq!(parse(&layout.to_string()), Ok(layout)),
            Err(reason) => prop_assert!(!reason.is_empty()),
        }
    }

    #[test]
    fn a_range_lies_within_the_record(start in any::<i64>(), end in any::<i64>(), fields in 0..20_usize) {
        let chosen = FieldRange::slice(start, end).clamped(fields);
        prop_assert!(chosen.start <= chosen.end && chosen.end <= fields);
        // The needed fields are enough to determine the range.
        if let Some(needs) = FieldRange::slice(start, end).fields_needed() {
            prop_assert_eq!(FieldRange::slice(start, end).clamped(fields.min(needs)).len(), chosen.len());
        }
    }
}
