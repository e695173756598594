use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use arrow::util::display::array_value_to_string;
use arrow_avro::schema::{AvroSchema, FingerprintStrategy};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};

use super::AvroTxt;
use crate::testing::payloads;

/// A schema registry that responds from a map of bodies and records its requests.
struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Status and body for each id.
    answers: HashMap<u32, (u16, String)>,
    /// The number of requests that get status 503 first.
    refusals: usize,
    asked: Vec<String>,
}

impl Server {
    fn start(schemas: &[(u32, &str)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body =
            |schema: &str| format!("{{\"schema\":{}}}", serde_json::to_string(schema).unwrap());
        let answers = schemas
            .iter()
            .map(|(id, schema)| (*id, (200, body(schema))))
            .collect();
        let state = Arc::new(Mutex::new(State {
            answers,
            ..State::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let auth = lines
                    .take_while(|line| !line.is_empty())
                    .find(|line| line.to_lowercase().starts_with("authorization"));
                let mut state = shared.lock().unwrap();
                state.asked.push(
                    format!("{request} {}", auth.unwrap_or_default())
                        .trim()
                        .to_owned(),
                );
                let id = request
                    .split(' ')
                    .nth(1)
                    .and_then(|path| path.strip_prefix("/schemas/ids/")?.parse::<u32>().ok());
                let unknown = (404, "{\"error_code\":40403}".to_owned());
                let (status, body) = match state.refusals {
                    0 => id
                        .and_then(|id| state.answers.get(&id).cloned())
                        .unwrap_or(unknown),
                    _ => {
                        state.refusals -= 1;
                        (503, String::new())
                    }
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        Server { address, state }
    }

    fn decoder(&self, settings: &str, columns: &[WantedColumn]) -> Box<dyn Decoder> {
        AvroTxt::default()
            .decoder(
                &format!("{settings};registry=http://{}", self.address),
                columns,
            )
            .unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

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

fn run(decoder: &mut dyn Decoder, records: &[Vec<u8>]) -> DecodedColumns {
    let payloads = payloads(
        &records
            .iter()
            .map(|record| Some(record.as_slice()))
            .collect::<Vec<_>>(),
    );
    decoder.prepare(&payloads).unwrap();
    decoder.decode(&payloads)
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

/// Records as a Confluent serializer would write them, and their schema.
fn encoded(id: u32, rows: &RecordBatch) -> (String, Vec<Vec<u8>>) {
    let schema = AvroSchema::try_from(rows.schema().as_ref())
        .unwrap()
        .json_string;
    let builder = WriterBuilder::new(rows.schema().as_ref().clone())
        .with_fingerprint_strategy(FingerprintStrategy::Id(id));
    let mut encoder = builder.build_encoder::<AvroSoeFormat>().unwrap();
    encoder.encode(rows).unwrap();
    let encoded = encoder.flush();
    (
        schema,
        encoded.iter().map(|record| record.to_vec()).collect(),
    )
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn events() -> RecordBatch {
    rows(vec![
        (
            "at",
            Arc::new(Int64Array::from(vec![1_714_557_600_000, 5])) as ArrayRef,
        ),
        (
            "User",
            Arc::new(StringArray::from(vec![Some("é\"x"), None])),
        ),
        ("n", Arc::new(Float64Array::from(vec![1.5, 2.0]))),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        (
            "seen",
            Arc::new(TimestampMillisecondArray::from(vec![1500, 0]).with_timezone("UTC")),
        ),
    ])
}

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
    let mismatches = [
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
    for (name, data_type, expected) in mismatches {
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

const ODD: &str = r#"{"type":"record","name":"Odd","namespace":"a.b","fields":[
    {"name":"id","type":{"type":"string","logicalType":"uuid"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
    {"name":"either","type":["null","string","long"]},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"more","type":{"type":"map","values":"long"}},
    {"name":"inner","type":{"type":"record","name":"Inner","fields":[{"name":"b","type":"bytes"}]}}]}"#;

/// A record of `ODD`, encoded by hand: the bytes before each part are its length, its symbol or its
/// branch.
fn odd(either: &[u8]) -> Vec<u8> {
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

#[test]
fn a_malformed_record_does_not_affect_others() {
    let (schema, good) = encoded(7, &events());
    let text = r#"{"type":"record","name":"T","fields":[{"name":"t","type":"string"}]}"#;
    let server = Server::start(&[
        (7, &schema),
        (8, text),
        (9, "{\"type\":\"enum\"}"),
        (10, "\"string\""),
        (11, "no json"),
    ]);
    server.state.lock().unwrap().answers.insert(
        12,
        (200, r#"{"schema":"x","schemaType":"PROTOBUF"}"#.to_owned()),
    );
    server.state.lock().unwrap().answers.insert(
        13,
        (
            200,
            format!(r#"{{"schema":{text:?},"references":[{{"name":"a"}}]}}"#),
        ),
    );
    let framed = |id: u8, body: &[u8]| [&[0, 0, 0, 0, id][..], body].concat();
    let records = [
        good[0].clone(),
        framed(8, b"\x04ab"),
        good[0][..9].to_vec(),
        framed(8, b"\x04\xff\xfe"),
        good[1].clone(),
        [good[1].as_slice(), b"more"].concat(),
        [good[1].as_slice(), good[1].as_slice()].concat(),
        b"{}".to_vec(),
        b"".to_vec(),
        framed(7, b""),
        framed(77, b"\x04ab"),
        framed(9, b""),
        framed(10, b"\x04ab"),
        framed(11, b""),
        framed(12, b"x"),
        framed(13, b"x"),
        framed(8, b"\x02c"),
    ];
    let mut decoder = server.decoder("ts=-1;msg=0", &[message()]);
    for _ in 0..2 {
        let decoded = run(decoder.as_mut(), &records);
        let messages = texts(&decoded.columns[0]);
        let good: Vec<_> = messages
            .iter()
            .enumerate()
            .filter_map(|(row, text)| text.map(|text| (row, text)))
            .collect();
        assert_eq!(good, [(0, "1714557600000"), (1, "ab"), (4, "5"), (16, "c")]);
        let rows: Vec<_> = decoded.bad.iter().map(|bad| bad.row).collect();
        assert_eq!(rows, [2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let reason = |row: u32| {
            decoded
                .bad
                .iter()
                .find(|bad| bad.row == row)
                .map(|bad| bad.reason.as_str())
                .unwrap()
        };
        assert_eq!(
            reason(7),
            "the record does not start with a 0 byte and a 4-byte schema ID"
        );
        assert_eq!(reason(9), "unexpected end of the record");
        assert_eq!(
            reason(10),
            "schema 77 does not exist in the schema registry"
        );
        assert_eq!(reason(14), "schema 12 has type PROTOBUF; expected AVRO");
        assert_eq!(
            reason(15),
            "schema 13 references other schemas, which avro-txt does not support"
        );
        assert!(
            reason(3).starts_with("the record does not match schema 8: "),
            "{}",
            reason(3)
        );
        assert!(
            reason(11).starts_with("schema 9 cannot be used: ")
                && reason(13).starts_with("schema 11 cannot be used: ")
        );
        assert!(
            decoded
                .bad
                .iter()
                .filter(|bad| [5, 6].contains(&bad.row))
                .all(|bad| bad.reason.contains("extra bytes") || bad.reason.contains("match"))
        );
    }
    // Each ID was requested once, including the unknown one.
    let mut asked = server.requests();
    assert_eq!(asked.len(), 8, "{asked:?}");
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 8);
}

#[test]
fn an_unavailable_registry_does_not_make_records_bad() {
    let (schema, records) = encoded(7, &events());
    let server = Server::start(&[(7, &schema)]);
    server.state.lock().unwrap().refusals = 1;
    let format = AvroTxt::default();
    let settings = format!("ts=0;registry=http://user:secret@{}", server.address);
    let mut decoders = [
        format.decoder(&settings, &[time()]).unwrap(),
        format.decoder(&settings, &[time()]).unwrap(),
    ];
    let whole = payloads(
        &records
            .iter()
            .map(|record| Some(record.as_slice()))
            .collect::<Vec<_>>(),
    );
    let expected = format!(
        "cannot fetch schema 7 from schema registry {}: unexpected HTTP status 503",
        server.address
    );
    // No request is sent during the pause, whichever decoder needs the schema.
    for number in [0, 1, 0, 1] {
        assert_eq!(decoders[number].prepare(&whole), Err(expected.clone()));
    }
    assert_eq!(server.requests().len(), 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while decoders[0].prepare(&whole).is_err() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
    let decoded = decoders[0].decode(&whole);
    assert_eq!(
        (times(&decoded.columns[0]).len(), reasons(&decoded)),
        (2, vec![])
    );
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn only_one_thread_waits_for_a_failing_registry() {
    let (schema, records) = encoded(7, &events());
    // A registry that closes the first connection and delays the second response.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let format = AvroTxt::default();
    let settings = format!("ts=0;registry=http://{}", listener.local_addr().unwrap());
    let whole = payloads(
        &records
            .iter()
            .map(|record| Some(record.as_slice()))
            .collect::<Vec<_>>(),
    );
    let mut decoder = format.decoder(&settings, &[time()]).unwrap();
    let (asked, is_asked) = mpsc::channel();
    let (answer, is_to_answer) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        let _ = BufReader::new(&stream)
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .count();
        asked.send(()).unwrap();
        is_to_answer.recv().unwrap();
        let body = format!("{{\"schema\":{}}}", serde_json::to_string(&schema).unwrap());
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    });
    assert!(decoder.prepare(&whole).is_err());
    let mut other = format.decoder(&settings, &[time()]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            while other.prepare(&whole).is_err() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        is_asked.recv().unwrap();
        // The other thread is waiting for the response; this one gets the last error at once.
        assert!(decoder.prepare(&whole).is_err());
        answer.send(()).unwrap();
        waiting.join().unwrap();
    });
    assert_eq!(decoder.prepare(&whole), Ok(()));
    server.join().unwrap();
}

#[test]
fn decoders_of_one_format_share_fetched_schemas() {
    let (schema, records) = encoded(7, &events());
    let server = Server::start(&[(7, &schema)]);
    let format = AvroTxt::default();
    let settings = format!("ts=0;registry=http://user:secret@{}/", server.address);
    for _ in 0..3 {
        assert!(
            run(
                format.decoder(&settings, &[time()]).unwrap().as_mut(),
                &records
            )
            .bad
            .is_empty()
        );
    }
    // The user and password of the address are sent as HTTP basic authentication.
    assert_eq!(
        server
            .requests()
            .iter()
            .map(|asked| asked.to_lowercase())
            .collect::<Vec<_>>(),
        ["get /schemas/ids/7 http/1.1 authorization: basic dxnlcjpzzwnyzxq="]
    );
}

#[test]
fn unsupported_columns_are_rejected() {
    let refused = |settings, column| {
        AvroTxt::default()
            .decoder(settings, &[column])
            .err()
            .unwrap()
    };
    assert_eq!(
        refused("ts=0", message()),
        "missing setting `registry` of avro-txt; expected an address such as `registry=http://host:8081`"
    );
    let registry = "ts=0;fields=a;registry=http://r";
    assert_eq!(
        refused(registry, wanted("b", DataType::Utf8)),
        "these avro-txt records have no field `b`; did you mean `a`?"
    );
    assert!(
        refused(
            registry,
            wanted("a", DataType::new_list(DataType::Int8, true))
        )
        .starts_with("cannot decode text field `a` as List(")
    );
    assert_eq!(
        refused("ts=-1;registry=http://r", time()),
        "these avro-txt records have no `ts`, because their format sets it to -1; use @timestamp, the record's timestamp"
    );
    let schema = AvroTxt::default().schema("ts=0;fields=a").unwrap().unwrap();
    let expected = [
        Field::new("ts", time().field.data_type().clone(), true),
        Field::new("msg", DataType::Utf8, true),
        Field::new("a", DataType::Utf8, true),
    ];
    assert_eq!(schema, Arc::new(Schema::new(expected.to_vec())));
    // Records of which no column is wanted are not parsed, so no registry is needed.
    assert!(
        run(
            AvroTxt::default()
                .decoder("ts=0;registry=http://127.0.0.1:1", &[])
                .unwrap()
                .as_mut(),
            &[b"x".to_vec()]
        )
        .bad
        .is_empty()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_decoded_or_rejected(bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0..40_usize), 1..8)) {
        let server = Server::start(&[(3, ODD)]);
        let whole = odd(b"\x02\x06abc");
        let records: Vec<Vec<u8>> = bodies
            .into_iter()
            .map(|(cut, bytes, at)| match cut {
                // Valid up to a point, then arbitrary bytes.
                true => [&whole[..at.min(whole.len())], &bytes].concat(),
                false => [&[0, 0, 0, 0, 3][..], &bytes].concat(),
            })
            .chain([whole.clone()])
            // Unknown IDs are covered by another test.
            .filter(|record| record.len() < 5 || record[..5] == whole[..5] || record[0] != 0)
            .collect();
        let columns = [message(), time(), wanted("kind", DataType::Utf8)];
        let decoded = run(server.decoder("ts_sec=2;msg=-1;fields=kind", &columns).as_mut(), &records);
        for column in &decoded.columns {
            prop_assert_eq!(column.len(), records.len());
        }
        for bad in &decoded.bad {
            prop_assert!(decoded.columns.iter().all(|column| column.is_null(bad.row as usize)));
        }
    }
}
