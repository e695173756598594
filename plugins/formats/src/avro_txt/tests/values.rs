//! Tests of the values of records: messages, times and typed fields.

use super::*;

#[test]
fn records_become_times_and_messages() {
    let (schema, records) = encoded(7, &events());
    let server = Server::start(&[(7, &schema)]);
    let cases: &[(&str, [&str; 2])] = &[
        (
            "msg=-1",
            [
                r#"{"at":1714557600000,"User":"é\"x","n":1.5,"ok":true,"seen":"1970-01-01T00:00:01.500Z"}"#,
                r#"{"at":5,"User":null,"n":2.0,"ok":null,"seen":"1970-01-01T00:00:00.000Z"}"#,
            ],
        ),
        ("msg=0", ["1714557600000", "5"]),
        ("msg=1", ["é\"x", ""]),
        ("msg=2", ["1.5", "2.0"]),
        ("msg=3", ["true", ""]),
        (
            "msg=4",
            ["1970-01-01T00:00:01.500Z", "1970-01-01T00:00:00.000Z"],
        ),
        ("msg=5", ["", ""]),
    ];
    for (setting, expected) in cases {
        let decoded = run(
            server
                .decoder(&format!("ts=0;{setting}"), &[message(), time()])
                .as_mut(),
            &records,
        );
        assert_eq!(
            (texts(&decoded.columns[0]), reasons(&decoded)),
            (expected.map(Some).to_vec(), vec![]),
            "{setting}"
        );
        assert_eq!(
            times(&decoded.columns[1]),
            [Some(1_714_557_600_000), Some(5)]
        );
        let bytes = run(
            server
                .decoder(
                    &format!("ts=0;bytes=true;{setting}"),
                    &[wanted("msg", DataType::Binary)],
                )
                .as_mut(),
            &records,
        );
        assert_eq!(
            bytes.columns[0]
                .as_binary::<i32>()
                .iter()
                .flatten()
                .collect::<Vec<_>>(),
            expected.map(str::as_bytes),
            "{setting}"
        );
    }
    let whole = run(server.decoder("ts=-1", &[message()]).as_mut(), &records);
    assert_eq!(texts(&whole.columns[0])[0], Some(cases[0].1[0]));
}

#[test]
fn event_times() {
    let (schema, records) = encoded(
        1,
        &rows(vec![
            ("number", Arc::new(Int64Array::from(vec![60])) as ArrayRef),
            ("fraction", Arc::new(Float64Array::from(vec![1.5]))),
            (
                "text",
                Arc::new(StringArray::from(vec!["1970-01-01T00:00:02Z"])),
            ),
            (
                "time",
                Arc::new(TimestampMillisecondArray::from(vec![3000]).with_timezone("UTC")),
            ),
            ("flag", Arc::new(BooleanArray::from(vec![true]))),
            ("none", Arc::new(Int64Array::from(vec![None]))),
            ("huge", Arc::new(Int64Array::from(vec![i64::MAX]))),
        ]),
    );
    let server = Server::start(&[(1, &schema)]);
    let expected = "expected milliseconds since 1970 or an ISO-8601 time";
    let cases = [
        ("ts=0", Ok(60)),
        ("ts_ms=0", Ok(60)),
        ("ts_sec=0", Ok(60_000)),
        ("ts_sec=1", Ok(1500)),
        ("ts=2", Ok(2000)),
        ("ts=3", Ok(3000)),
        ("ts_sec=3", Ok(3000)),
        (
            "ts=4",
            Err(format!("`ts` is field 4, which is true; {expected}")),
        ),
        ("ts=5", Err("`ts` is field 5, which is null".to_owned())),
        (
            "ts_sec=6",
            Err(
                "`ts` is field 6, which is 9223372036854775807; expected seconds since 1970"
                    .to_owned(),
            ),
        ),
        (
            "ts=7",
            Err("`ts` is field 7, but the record has 7 fields".to_owned()),
        ),
    ];
    for (settings, expected) in cases {
        let decoded = run(server.decoder(settings, &[time()]).as_mut(), &records);
        assert_eq!(
            times(&decoded.columns[0])[0],
            expected.clone().ok(),
            "{settings}"
        );
        assert_eq!(
            reasons(&decoded)
                .first()
                .map(|(_, reason)| (*reason).to_owned()),
            expected.err(),
            "{settings}"
        );
    }
}

#[test]
fn fields_have_names_and_types() {
    let (schema, records) = encoded(9, &events());
    let server = Server::start(&[(9, &schema)]);
    let cases: &[(&str, DataType, [Option<&str>; 2])] = &[
        ("user", DataType::Utf8, [Some("é\"x"), None]),
        ("USER", DataType::Binary, [Some("c3a92278"), None]),
        ("at", DataType::Int64, [Some("1714557600000"), Some("5")]),
        ("at", DataType::Utf8, [Some("1714557600000"), Some("5")]),
        (
            "at",
            DataType::Float64,
            [Some("1714557600000.0"), Some("5.0")],
        ),
        ("n", DataType::Decimal128(5, 1), [Some("1.5"), Some("2.0")]),
        ("ok", DataType::Boolean, [Some("true"), None]),
        (
            "seen",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            [
                Some("1970-01-01T00:00:01.500Z"),
                Some("1970-01-01T00:00:00Z"),
            ],
        ),
        ("missing", DataType::Int32, [None, None]),
    ];
    for (name, data_type, expected) in cases {
        let decoded = run(
            server
                .decoder(
                    &format!("ts=-1;fields={name}"),
                    &[wanted(name, data_type.clone())],
                )
                .as_mut(),
            &records,
        );
        let value = |row| {
            decoded.columns[0]
                .is_valid(row)
                .then(|| array_value_to_string(&decoded.columns[0], row).unwrap())
        };
        assert_eq!(
            [value(0).as_deref(), value(1).as_deref()],
            *expected,
            "{name} as {data_type}"
        );
        assert_eq!(
            (reasons(&decoded), decoded.columns[0].data_type()),
            (vec![], data_type)
        );
    }
}

#[test]
fn fields_that_do_not_fit_their_types_are_bad() {
    let (schema, records) = encoded(9, &events());
    let server = Server::start(&[(9, &schema)]);
    let cases = [
        (
            "at",
            DataType::Int32,
            vec![(0, "`at` is 1714557600000; expected int32")],
        ),
        (
            "n",
            DataType::Int64,
            vec![(0, "`n` is 1.5; expected int64")],
        ),
        (
            "user",
            DataType::Int64,
            vec![(0, "`user` is é\"x; expected int64")],
        ),
        (
            "n",
            DataType::Date32,
            vec![
                (0, "`n` is 1.5; expected a date"),
                (1, "`n` is 2.0; expected a date"),
            ],
        ),
    ];
    for (name, data_type, expected) in cases {
        let decoded = run(
            server
                .decoder(
                    &format!("ts=-1;fields={name}"),
                    &[wanted(name, data_type.clone())],
                )
                .as_mut(),
            &records,
        );
        assert_eq!(reasons(&decoded), expected, "{name} as {data_type}");
        assert!(
            decoded
                .bad
                .iter()
                .all(|bad| decoded.columns[0].is_null(bad.row as usize))
        );
    }
}

#[test]
fn a_number_that_is_too_large_for_a_float_is_bad() {
    let numbers = Float64Array::from(vec![1e39, 2.0, f64::INFINITY]);
    let (schema, records) = encoded(9, &rows(vec![("n", Arc::new(numbers) as ArrayRef)]));
    let server = Server::start(&[(9, &schema)]);
    let column = wanted("n", DataType::Float32);
    let decoded = run(
        server.decoder("ts=-1;fields=n", &[column]).as_mut(),
        &records,
    );
    assert_eq!(reasons(&decoded), [(0, "`n` is 1e39; expected float32")]);
}

pub(super) const ODD: &str = r#"{"type":"record","name":"Odd","namespace":"a.b","fields":[
    {"name":"id","type":{"type":"string","logicalType":"uuid"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
    {"name":"either","type":["null","string","long"]},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"more","type":{"type":"map","values":"long"}},
    {"name":"inner","type":{"type":"record","name":"Inner","fields":[{"name":"b","type":"bytes"}]}}]}"#;

/// A record of `ODD`, encoded by hand: the bytes before each part are its length, its symbol or its
/// branch.
pub(super) fn odd(either: &[u8]) -> Vec<u8> {
    [
        &[0, 0, 0, 0, 3, 6][..],
        b"u-1",
        &[2],
        either,
        &[2, 4],
        b"t1",
        &[0, 2, 2],
        b"k",
        &[14, 0, 2, 0xff],
    ]
    .concat()
}

#[test]
fn unions_enums_and_nested_values() {
    let server = Server::start(&[(3, ODD)]);
    let records = [odd(b"\x02\x06a\"b"), odd(&[4, 10]), odd(&[0])];
    let cases: &[(&str, [&str; 3])] = &[
        (
            "-1",
            [
                r#"{"id":"u-1","kind":"B","either":"a\"b","tags":["t1"],"more":{"k":7},"inner":{"b":"/w=="}}"#,
                r#"{"id":"u-1","kind":"B","either":5,"tags":["t1"],"more":{"k":7},"inner":{"b":"/w=="}}"#,
                r#"{"id":"u-1","kind":"B","either":null,"tags":["t1"],"more":{"k":7},"inner":{"b":"/w=="}}"#,
            ],
        ),
        ("0", ["u-1"; 3]),
        ("1", ["B"; 3]),
        ("2", ["a\"b", "5", ""]),
        ("3", [r#"["t1"]"#; 3]),
        ("4", [r#"{"k":7}"#; 3]),
        ("5", [r#"{"b":"/w=="}"#; 3]),
    ];
    for (index, expected) in cases {
        let decoded = run(
            server
                .decoder(&format!("ts=-1;msg={index}"), &[message()])
                .as_mut(),
            &records,
        );
        assert_eq!(
            (texts(&decoded.columns[0]), reasons(&decoded)),
            (expected.map(Some).to_vec(), vec![]),
            "{index}"
        );
    }
}
