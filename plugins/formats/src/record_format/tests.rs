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

/// What is chosen of six fields.
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
        // A negative start counts as 0, a negative end as the end.
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
        let chosen = event(&format!("txt:ts=0;{setting}")).message.of(6);
        assert_eq!(chosen.len(), expected.len(), "{setting}");
        assert!(
            expected.is_empty() || chosen == expected,
            "{setting}: {chosen:?}"
        );
    }
    assert_eq!(Choice::ALL.of(0), 0..0);
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
    assert_eq!(registry("avro-txt:ts=0").as_deref(), None);
    assert_eq!(
        registry("avro-txt:ts=0;registry=http://r:8081/").as_deref(),
        Some("http://r:8081")
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

#[test]
fn mistakes_name_the_setting() {
    let cases = [
        (
            "",
            "the format is empty; expected txt, avro-txt, json or raw",
        ),
        (
            "text:ts=0",
            "there is no format `text`; did you mean `txt`?",
        ),
        (
            "protobuf",
            "there is no format `protobuf`; expected txt, avro-txt, json or raw",
        ),
        (
            "raw:a=1",
            "raw takes no settings, but `a` follows the colon",
        ),
        (
            "txt:ts=0;msgg=1",
            "txt has no setting `msgg`; did you mean `msg`?",
        ),
        (
            "txt:ts=0;registry=http://r",
            "txt has no setting `registry`; expected sep, ts, ts_ms, ts_sec, msg, fields or bytes",
        ),
        (
            "json:msg=1",
            "json has no setting `msg`; expected ts, ts_ms or ts_sec",
        ),
        ("txt:ts=0;ts=1", "`ts` is given twice"),
        (
            "txt:ts=0;ts_sec=1",
            "`ts` and `ts_sec` both say where the event time is; keep one",
        ),
        (
            "txt:msg=1",
            "txt needs `ts`, `ts_ms` or `ts_sec`: the index of the field with the event time, or -1",
        ),
        (
            "avro-txt",
            "avro-txt needs `ts`, `ts_ms` or `ts_sec`: the index of the field with the event time, or -1",
        ),
        (
            "txt:ts=x",
            "`ts` is the index of a field, from 0, or -1, not `x`",
        ),
        (
            "txt:ts_sec=",
            "`ts_sec` is the index of a field, from 0, or -1, not ``",
        ),
        (
            "txt:ts=0;sep=pip",
            "`sep` cannot be `pip`; did you mean `pipe`?",
        ),
        (
            "txt:ts=0;sep=|",
            "`sep` cannot be `|`; expected byte1, tab, space, semicolon, pipe or comma",
        ),
        (
            "txt:ts=0;msg=1:2:3",
            "`msg` is the index of a field, from 0, a slice `a:b`, `a:`, `:b` or `:`, or -1, not `1:2:3`",
        ),
        (
            "txt:ts=0;msg=",
            "`msg` is the index of a field, from 0, a slice `a:b`, `a:`, `:b` or `:`, or -1, not ``",
        ),
        ("txt:ts=0;bytes=yes", "`bytes` is true or false, not `yes`"),
        (
            "txt:ts=0;fields=a,,b",
            "`fields` is a list of names, `a,b,c`, not `a,,b`",
        ),
        ("txt:ts=0;fields=a,a", "`fields` names `a` twice"),
        (
            "txt:ts=0;fields=ts,event_ts",
            "`fields` cannot name both `ts` and `event_ts`: one of them stands for what the format makes itself",
        ),
        (
            "avro-txt:ts=0;msg=1:3",
            "`msg` is the index of a field, from 0, or -1, the whole record, in avro-txt records, not `1:3`",
        ),
        (
            "avro-txt:ts=0;registry=r:8081",
            "`registry` is an address such as http://registry:8081, not `r:8081`",
        ),
        (
            "json:ts=a..b",
            "`ts` is a path such as user.seen, or -1, not `a..b`",
        ),
        (
            "txt:ts",
            "`ts` is not expected here; a format is `type` or `type:key=value;key=value`",
        ),
        (
            "txt:=3",
            "`=3` is not expected here; a format is `type` or `type:key=value;key=value`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).err().as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn layouts_are_written_as_they_are_read() {
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

fn oddities() -> impl Strategy<Value = String> {
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
    fn any_text_is_read_or_refused(text in oddities()) {
        match parse(&text) {
            Ok(layout) => prop_assert_eq!(parse(&layout.to_string()), Ok(layout)),
            Err(reason) => prop_assert!(!reason.is_empty()),
        }
    }

    #[test]
    fn a_choice_lies_within_the_record(start in any::<i64>(), end in any::<i64>(), fields in 0..20_usize) {
        let chosen = Choice::slice(start, end).of(fields);
        prop_assert!(chosen.start <= chosen.end && chosen.end <= fields);
        // What it needs is enough to know.
        if let Some(needs) = Choice::slice(start, end).needs() {
            prop_assert_eq!(Choice::slice(start, end).of(fields.min(needs)).len(), chosen.len());
        }
    }
}
