//! Tests of malformed records.

use proptest::prelude::*;

use super::values::{ODD, odd};
use super::*;

#[test]
fn a_malformed_record_does_not_affect_others() {
    let (schema, good) = encoded(7, &events());
    let server = registry_with_unusable_schemas(&schema);
    let records = with_malformed_records(&good);
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
        check_reasons(&decoded);
    }
    // Each ID was requested once, including the unknown one.
    let mut asked = server.requests();
    assert_eq!(asked.len(), 8, "{asked:?}");
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 8);
}

/// A registry in which schema 7 is `schema`, 8 is a record of one string, and 9 to 13 cannot be
/// used.
fn registry_with_unusable_schemas(schema: &str) -> Server {
    let text = r#"{"type":"record","name":"T","fields":[{"name":"t","type":"string"}]}"#;
    let server = Server::start(&[
        (7, schema),
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
    server
}

/// `good` records of schema 7 between malformed ones.
fn with_malformed_records(good: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let framed = |id: u8, body: &[u8]| [&[0, 0, 0, 0, id][..], body].concat();
    vec![
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
    ]
}

fn check_reasons(decoded: &DecodedColumns) {
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
