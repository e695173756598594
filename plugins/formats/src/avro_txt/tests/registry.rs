//! Tests of requests to the schema registry.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use pseidon_delivery::WithCauses;

use super::*;
use crate::avro_txt::registry::{MAX_UNKNOWN, RETRY_PAUSE, UNKNOWN_TTL};

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
    // No request is sent during the pause, whichever decoder needs the schema. If this thread was
    // suspended for that long, the pause is over.
    let began = Instant::now();
    let is_pause = || began.elapsed() < RETRY_PAUSE;
    for number in [0, 1, 0, 1] {
        let result = decoders[number].prepare(&whole);
        if is_pause() {
            let failure = result.unwrap_err();
            assert_eq!(WithCauses(&failure).to_string(), expected);
            assert_eq!(server.requests().len(), 1);
        }
    }
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
    decoder.prepare(&whole).unwrap();
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
fn a_request_is_needed_only_for_what_no_decoder_has_asked_for() {
    let (schema, mut records) = encoded(7, &events());
    records.push(b"\0\0\0\0\x08\x02".to_vec());
    let server = Server::start(&[(7, &schema)]);
    let format = AvroTxt::default();
    let settings = format!("ts=0;registry=http://{}", server.address);
    let whole = payloads(
        &records
            .iter()
            .map(|record| Some(record.as_slice()))
            .collect::<Vec<_>>(),
    );
    let [mut decoder, mut other] = [(); 2].map(|()| format.decoder(&settings, &[time()]).unwrap());
    assert!(!decoder.prepare_locally(&whole));
    assert!(server.requests().is_empty());
    decoder.prepare(&whole).unwrap();
    for decoder in [&mut decoder, &mut other] {
        assert!(decoder.prepare_locally(&whole));
        let decoded = decoder.decode(&whole);
        let bad = reasons(&decoded);
        assert_eq!(bad, [(2, "schema 8 does not exist in the schema registry")]);
    }
    assert_eq!(server.requests().len(), 2);
}

/// A record of a schema, without its fields.
fn record(id: u32) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), &[2]].concat()
}

#[test]
fn an_id_that_no_registry_has_is_not_asked_for() {
    let server = Server::start(&[]);
    let records = [record(1 << 31), record(u32::MAX)];
    let decoded = run(server.decoder("ts=0;msg=-1", &[time()]).as_mut(), &records);
    let expected = [
        (0, "the schema ID 2147483648 is larger than 2147483647"),
        (1, "the schema ID 4294967295 is larger than 2147483647"),
    ];
    assert_eq!(reasons(&decoded), expected);
    assert!(server.requests().is_empty());
}

#[test]
fn a_response_without_a_schema_makes_records_bad() {
    let too_large = format!("{{\"schema\":\"{}\"}}", "x".repeat(11 << 20));
    let cases = [
        (
            400,
            "{\"error_code\":40001}",
            "schema 7 is not available: the schema registry responded with HTTP status 400",
        ),
        (
            422,
            "{}",
            "schema 7 is not available: the schema registry responded with HTTP status 422",
        ),
        (
            200,
            "{\"id\":7}",
            "schema 7: the response of the schema registry has no schema",
        ),
        (
            200,
            &too_large,
            "schema 7: the response of the schema registry is too large",
        ),
    ];
    let (schema, good) = encoded(8, &events());
    for (status, body, expected) in cases {
        let server = Server::start(&[(8, &schema)]);
        let answer = (status, body.to_owned());
        server.state.lock().unwrap().answers.insert(7, answer);
        let records = [&[record(7)], good.as_slice()].concat();
        let decoded = run(server.decoder("ts=0;msg=-1", &[time()]).as_mut(), &records);
        assert_eq!(reasons(&decoded), [(0, expected)]);
        assert_eq!(server.requests().len(), 2);
    }
    // These say nothing about the ID, and neither does what a proxy answers.
    let others = [401, 403, 408, 429, 500, 503].map(|status| (status, "{}"));
    let proxies = [200, 400, 404, 407, 421].map(|status| (status, "<html>"));
    for (status, body) in others.into_iter().chain(proxies) {
        let server = Server::start(&[]);
        let answer = (status, body.to_owned());
        server.state.lock().unwrap().answers.insert(7, answer);
        let records = payloads(&[Some(record(7).as_slice())]);
        let mut decoder = server.decoder("ts=0;msg=-1", &[time()]);
        assert!(decoder.prepare(&records).is_err(), "{status}");
    }
}

#[test]
fn made_up_ids_are_asked_for_a_limited_number_of_times() {
    let server = Server::start(&[]);
    let records: Vec<_> = (0..8192).map(|number| record(1000 + 7 * number)).collect();
    let mut decoder = server.decoder("ts=0;msg=-1", &[time()]);
    let began = Instant::now();
    for _ in 0..2 {
        let decoded = run(decoder.as_mut(), &records);
        assert_eq!(decoded.bad.len(), records.len());
        let reasons = reasons(&decoded);
        // If this thread was suspended for that long, another period has begun.
        if began.elapsed() < UNKNOWN_TTL {
            assert_eq!(server.requests().len(), MAX_UNKNOWN);
            assert_eq!(
                reasons[0].1,
                "schema 1000 does not exist in the schema registry"
            );
            assert_eq!(
                reasons[MAX_UNKNOWN].1,
                "schema 1700 was not looked up, because the schema registry did not have 100 other \
                 schemas"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A response is a schema, or makes the records wait or bad; nothing else.
    #[test]
    fn any_response_is_an_answer(
        status in prop::sample::select(&[200_u16, 400, 404, 429, 500][..]),
        body in prop_oneof![
            ".{0,60}",
            ".{0,30}".prop_map(|schema| serde_json::json!({"schema": schema}).to_string()),
            "[a-z\\[\\]{}\":,]{0,30}".prop_map(|schema| {
                serde_json::json!({"schema": schema, "schemaType": "AVRO"}).to_string()
            }),
        ],
    ) {
        let server = Server::start(&[]);
        let is_of_proxy = serde_json::from_str::<serde_json::Map<_, _>>(&body).is_err();
        server.state.lock().unwrap().answers.insert(7, (status, body));
        let records = payloads(&[Some(b"\0\0\0\0\x07\x02".as_slice())]);
        let mut decoder = server.decoder("ts=0;msg=-1", &[time()]);
        if decoder.prepare(&records).is_ok() {
            let decoded = decoder.decode(&records);
            prop_assert_eq!(decoded.columns[0].len(), 1);
            prop_assert_eq!(decoded.bad.len(), 1, "{:?}", decoded.bad);
        } else {
            prop_assert!(is_of_proxy || [429, 500].contains(&status));
        }
    }
}
