//! Tests of schemas that are inferred from samples.

use pseidon_plugin::Payloads;

use super::super::infer::infer;
use super::*;

#[test]
fn a_number_whose_digits_no_type_keeps_is_json() {
    for (numbers, expected) in [
        ("[12345678901234567890123]", None),
        ("[0.1234567890123456789]", None),
        ("[1.5, 1e400]", None),
        ("[-9223372036854775809]", None),
        ("[1e22, 0.30000000000000004]", Some(DataType::Float64)),
        ("[18446744073709551615]", Some(DataType::UInt64)),
    ] {
        let sample = format!(r#"{{"x": {numbers}}}"#);
        let schema = infer(&[Payloads::copied([sample.as_bytes()])]).unwrap();
        let expected = match expected {
            Some(data_type) => list(data_type),
            None => DataType::List(Arc::new(json_field("item"))),
        };
        assert_eq!(*schema.field(0).data_type(), expected, "{numbers}");
    }
}

#[test]
fn a_schema_is_inferred_from_samples() {
    let samples = [
        r#"{"id": 1, "size": 2, "name": "x", "tags": ["a", null], "user": {"id": 1}, "none": null, "odd": 1, "big": 18446744073709551615}"#,
        r#"{"ok": true, "size": 2.5, "user": {"name": "n"}, "odd": "x", "empty": {}, "lists": [[1], [2.5]], "nothing": []}"#,
        "not json",
        "[1]",
    ];
    let schema = infer(&[Payloads::copied(samples.map(str::as_bytes))]).unwrap();
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let expected = [
        field("id", DataType::Int64),
        field("size", DataType::Float64),
        field("name", DataType::Utf8),
        field("tags", list(DataType::Utf8)),
        field(
            "user",
            object(vec![
                field("id", DataType::Int64),
                field("name", DataType::Utf8),
            ]),
        ),
        json_field("none"),
        json_field("odd"),
        field("big", DataType::UInt64),
        field("ok", DataType::Boolean),
        json_field("empty"),
        field("lists", list(list(DataType::Float64))),
        field("nothing", DataType::List(Arc::new(json_field("item")))),
    ];
    let found: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    assert_eq!(found, expected);
    let columns: Vec<_> = expected
        .iter()
        .map(|field| WantedColumn {
            path: path(field.name()),
            field: Arc::new(field.clone()),
        })
        .collect();
    let decoded = decode(&columns, &samples.map(|sample| Some(sample.as_bytes())));
    assert_eq!(
        decoded.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(),
        [2, 3],
        "the inferred schema matches its samples"
    );
    assert_eq!(
        infer(&[Payloads::copied([b"1".as_slice()])]).unwrap_err(),
        "none of 1 sample records is a JSON object"
    );
}

/// A record can have hundreds of thousands of keys; comparing each with each would take minutes.
#[test]
fn records_of_very_many_fields_are_refused() {
    let object = |prefix: &str, count: usize| {
        let keys: Vec<String> = (0..count)
            .map(|key| format!(r#""{prefix}{key}":1"#))
            .collect();
        format!("{{{}}}", keys.join(","))
    };
    let refused = |samples: &[String]| {
        let samples = Payloads::copied(samples.iter().map(String::as_bytes));
        infer(&[samples]).expect_err("too many fields")
    };
    assert_eq!(
        refused(&[object("k", 300_000)]),
        "the sample records have 300000 fields, and at most 2000 are inferred; write :schema by \
         hand, with the fields that are needed"
    );
    let different: Vec<String> = (0..300).map(|at| object(&format!("{at}-"), 1000)).collect();
    assert!(refused(&different).contains("have 300000 fields"));
    assert_eq!(
        refused(&[format!(r#"{{"id": 1, "users": [{}]}}"#, object("u", 2000))]),
        "the sample records have 2002 fields, and at most 2000 are inferred; write :schema by \
         hand, with the type `:json` for `users`"
    );
    let most = object("k", 2000);
    let schema = infer(&[Payloads::copied([most.as_bytes()])]).unwrap();
    assert_eq!(schema.fields().len(), 2000);
}
