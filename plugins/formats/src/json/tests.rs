use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, TimeUnit};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{DecodedColumns, Format, WantedColumn, json_field};
use serde_json::Value;

use super::{Json, infer_json_schema};
use crate::testing::payloads;

/// `user.id`, `tags[0]`
fn path(text: &str) -> Path {
    let mut steps = Vec::new();
    for part in text.split('.') {
        let mut pieces = part.split('[');
        steps.push(PathStep::Field(pieces.next().unwrap().to_owned()));
        steps.extend(
            pieces.map(|index| PathStep::Index(index.trim_end_matches(']').parse().unwrap())),
        );
    }
    Path(steps)
}

fn wanted(text: &str, data_type: DataType) -> WantedColumn {
    WantedColumn {
        path: path(text),
        field: Arc::new(Field::new(text, data_type, true)),
    }
}

fn wanted_json(text: &str) -> WantedColumn {
    WantedColumn {
        path: path(text),
        field: Arc::new(json_field(text)),
    }
}

fn decode(columns: &[WantedColumn], records: &[Option<&[u8]>]) -> DecodedColumns {
    let decoded = Json
        .decoder("", columns)
        .unwrap()
        .decode(&payloads(records));
    for (column, wanted) in decoded.columns.iter().zip(columns) {
        assert_eq!(column.data_type(), wanted.field.data_type());
        assert_eq!(column.len(), records.len());
        column.to_data().validate_full().unwrap();
        for bad in &decoded.bad {
            assert!(
                column.is_null(bad.row as usize),
                "the values of a bad record are null"
            );
        }
    }
    decoded
}

fn show(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        "NULL".to_owned()
    } else {
        array_value_to_string(column, row).unwrap()
    }
}

/// The value at `a` of one record as this type, or the reason why the record is bad.
fn one(column: WantedColumn, record: &str) -> Result<String, String> {
    let decoded = decode(&[column], &[Some(record.as_bytes())]);
    match decoded.bad.first() {
        Some(bad) => Err(bad.reason.clone()),
        None => Ok(show(&decoded.columns[0], 0)),
    }
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

fn object(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

#[test]
fn values_of_every_type() {
    use DataType::*;
    let millis = || Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let point = || {
        object(vec![
            Field::new("x", Int32, true),
            Field::new("tags", list(Utf8), true),
            json_field("any"),
        ])
    };
    let cases = [
        (Int8, "127", Ok("127")),
        (Int8, "128", Err("`a` is 128; expected int8")),
        (Int16, "-32768", Ok("-32768")),
        (
            Int32,
            "2147483648",
            Err("`a` is 2147483648; expected int32"),
        ),
        (Int64, "-9223372036854775808", Ok("-9223372036854775808")),
        (
            Int64,
            "9223372036854775808",
            Err("`a` is 9223372036854775808; expected int64"),
        ),
        (Int64, "1.5", Err("`a` is 1.5; expected int64")),
        (Int64, "1.0", Ok("1")),
        (Int64, "1e3", Ok("1000")),
        (Int64, "1e300", Err("`a` is 1e300; expected int64")),
        (Int64, r#""1""#, Err("`a` is a string; expected int64")),
        (Int64, "true", Err("`a` is a boolean; expected int64")),
        (Int64, "[1]", Err("`a` is a list; expected int64")),
        (
            Int64,
            r#"{"b": [1]}"#,
            Err("`a` is an object; expected int64"),
        ),
        (Int64, "null", Ok("NULL")),
        (UInt8, "255", Ok("255")),
        (UInt8, "-1", Err("`a` is -1; expected uint8")),
        (UInt16, "65535", Ok("65535")),
        (UInt32, "4294967295", Ok("4294967295")),
        (UInt64, "18446744073709551615", Ok("18446744073709551615")),
        (
            UInt64,
            "18446744073709551616",
            Err("`a` is 1.8446744073709552e19; expected uint64"),
        ),
        (Float64, "1", Ok("1.0")),
        (Float64, "18446744073709551616", Ok("1.8446744073709552e19")),
        (Float64, "-0.5e-3", Ok("-0.0005")),
        (
            Float64,
            r#""1.5""#,
            Err("`a` is a string; expected float64"),
        ),
        (Float32, "1.5", Ok("1.5")),
        (Float32, "1e39", Err("`a` is 1e39; expected float32")),
        (Boolean, "true", Ok("true")),
        (Boolean, "false", Ok("false")),
        (Boolean, "1", Err("`a` is a number; expected boolean")),
        (
            Utf8,
            r#""caf\u00e9 \"x\" \ud83d\ude00""#,
            Ok("café \"x\" 😀"),
        ),
        (Utf8, r#""""#, Ok("")),
        (Utf8, "1", Err("`a` is a number; expected a string")),
        (Utf8, "{}", Err("`a` is an object; expected a string")),
        (Binary, r#""aGk=""#, Ok("6869")),
        (
            Binary,
            r#""a""#,
            Err("`a` is the string \"a\"; expected a base64 string"),
        ),
        (millis(), "1500", Ok("1970-01-01T00:00:01.500Z")),
        (
            millis(),
            r#""1970-01-01T02:00:01.5+02:00""#,
            Ok("1970-01-01T00:00:01.500Z"),
        ),
        (
            millis(),
            r#""1970-01-01T00:00:01.5""#,
            Ok("1970-01-01T00:00:01.500Z"),
        ),
        (millis(), "1.5", Err("`a` is 1.5; expected a timestamp")),
        (
            millis(),
            r#""soon""#,
            Err("`a` is the string \"soon\"; expected a timestamp"),
        ),
        (
            Timestamp(TimeUnit::Nanosecond, None),
            r#""1970-01-01T00:00:00.000000001Z""#,
            Ok("1970-01-01T00:00:00.000000001"),
        ),
        (
            Timestamp(TimeUnit::Nanosecond, None),
            r#""3000-01-01T00:00:00Z""#,
            Err("`a` is the string \"3000-01-01T00:00:00Z\"; expected a timestamp"),
        ),
        (
            Timestamp(TimeUnit::Second, None),
            "1",
            Ok("1970-01-01T00:00:01"),
        ),
        (
            Timestamp(TimeUnit::Microsecond, None),
            "1",
            Ok("1970-01-01T00:00:00.000001"),
        ),
        (Date32, r#""2024-02-29""#, Ok("2024-02-29")),
        (
            Date32,
            r#""2023-02-29""#,
            Err("`a` is the string \"2023-02-29\"; expected a date"),
        ),
        (Date32, "1", Err("`a` is a number; expected a date")),
        (Decimal128(5, 2), "12.3", Ok("12.30")),
        (Decimal128(5, 2), r#""-12.30""#, Ok("-12.30")),
        (
            Decimal128(5, 2),
            "12.345",
            Err("`a` is 12.345; expected decimal(5, 2)"),
        ),
        (
            Decimal128(5, 2),
            "1000",
            Err("`a` is 1000; expected decimal(5, 2)"),
        ),
        (
            Decimal128(5, 2),
            "true",
            Err("`a` is true; expected decimal(5, 2)"),
        ),
        (Decimal128(5, 2), "null", Ok("NULL")),
        (
            Decimal256(50, 0),
            "12345678901234567890123456789012345678901234567890",
            Ok("12345678901234567890123456789012345678901234567890"),
        ),
        (list(Int64), "[1, null, 3]", Ok("[1, , 3]")),
        (list(Int64), "[]", Ok("[]")),
        (
            list(Int64),
            "[1, \"x\"]",
            Err("`a[]` is a string; expected int64"),
        ),
        (list(Int64), "{}", Err("`a` is an object; expected a list")),
        (list(list(Int8)), "[[1], [], null]", Ok("[[1], [], ]")),
        (
            point(),
            r#"{"tags": ["p", "q"], "other": {}, "x": 1, "any": {"k": [ 1 ]}}"#,
            Ok("{x: 1, tags: [p, q], any: {\"k\": [ 1 ]}}"),
        ),
        (point(), "{}", Ok("{x: , tags: , any: }")),
        (
            point(),
            r#"{"x": "1"}"#,
            Err("`a.x` is a string; expected int32"),
        ),
        (
            point(),
            r#"{"tags": [[]]}"#,
            Err("`a.tags[]` is a list; expected a string"),
        ),
        (point(), "[]", Err("`a` is a list; expected an object")),
    ];
    for (data_type, value, expected) in cases {
        let record = format!(r#"{{"z": [1, "\n"], "a": {value}, "y": {{"a": 0}}}}"#);
        assert_eq!(
            one(wanted("a", data_type.clone()), &record),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{value} as {data_type}"
        );
    }
}

#[test]
fn json_columns_keep_the_json_text() {
    for value in [
        "1.50",
        "\"a\\u0062\"",
        "{ \"k\" : [1,\t2] }",
        "[]",
        "true",
        "-0",
    ] {
        assert_eq!(
            one(wanted_json("a"), &format!(r#"{{"a": {value} }}"#)),
            Ok(value.to_owned())
        );
    }
    assert_eq!(
        one(wanted_json("a"), r#"{"a": null}"#),
        Ok("NULL".to_owned())
    );
}

#[test]
fn paths_lead_into_objects_and_lists() {
    let record = br#"{"user": {"id": 7, "address": [{"city": "A"}, {"city": "B"}]}, "us\u0065r2": 1, "k.": 2, "list": [[1, 2], [3]]}"#;
    let columns = [
        wanted("user.id", DataType::Int64),
        wanted_json("user"),
        wanted("user.address[1].city", DataType::Utf8),
        wanted_json("user.address[0]"),
        wanted("user2", DataType::Int64),
        wanted("list[0][1]", DataType::Int64),
        wanted("list[1]", list(DataType::Int64)),
        wanted("list[9]", DataType::Int64),
        wanted("user.id.deeper", DataType::Int64),
        wanted("user.address.city", DataType::Int64),
        wanted("list.x", DataType::Int64),
        wanted("none.at[0].all", DataType::Int64),
        wanted("user.id", DataType::Float64),
    ];
    let decoded = decode(&columns, &[Some(record)]);
    assert_eq!(decoded.bad, []);
    let shown: Vec<_> = decoded
        .columns
        .iter()
        .map(|column| show(column, 0))
        .collect();
    let user = r#"{"id": 7, "address": [{"city": "A"}, {"city": "B"}]}"#;
    let expected = [
        "7",
        user,
        "B",
        r#"{"city": "A"}"#,
        "1",
        "2",
        "[3]",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "7.0",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_first_of_repeated_keys_counts() {
    let columns = [
        wanted("a", DataType::Int64),
        wanted("b", object(vec![Field::new("x", DataType::Int64, true)])),
        wanted_json("c"),
    ];
    let record = br#"{"a": 1, "a": "2", "b": {"x": 1, "x": 2}, "b": 5, "c": null, "c": 6}"#;
    let decoded = decode(&columns, &[Some(record)]);
    assert_eq!(decoded.bad, []);
    assert_eq!(
        decoded
            .columns
            .iter()
            .map(|column| show(column, 0))
            .collect::<Vec<_>>(),
        ["1", "{x: 1}", "NULL"]
    );
}

#[test]
fn many_columns_in_any_order() {
    let columns: Vec<_> = (0..40)
        .map(|at| wanted(&format!("f{at}"), DataType::Int64))
        .collect();
    let forth: Vec<_> = (0..50).map(|at| format!(r#""f{at}": {at}"#)).collect();
    let back: Vec<_> = forth.iter().rev().cloned().collect();
    let (forth, back) = (
        format!("{{{}}}", forth.join(",")),
        format!("{{{}}}", back.join(",")),
    );
    let decoded = decode(&columns, &[Some(forth.as_bytes()), Some(back.as_bytes())]);
    for (at, column) in decoded.columns.iter().enumerate() {
        assert_eq!(
            column.as_primitive::<Int64Type>().values(),
            &[at as i64, at as i64]
        );
    }
}

#[test]
fn malformed_records_are_bad_wherever_the_error_is() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "the record is empty"),
        (b"  \n", "the record is empty"),
        (b"[1]", "the record is not a JSON object"),
        (b"7", "the record is not a JSON object"),
        (b"null", "the record is not a JSON object"),
        (b"plain text", "the record is not a JSON object"),
        (br#"{"a": 1"#, "invalid JSON: unexpected end of the record"),
        (
            br#"{"a": 1, "b": "x"#,
            "invalid JSON: unexpected end of the record",
        ),
        (
            br#"{"a": 1} x"#,
            "invalid JSON at byte 9: json has non-whitespace trailing characters after the value",
        ),
        (
            br#"{"a": 1}{"a": 2}"#,
            "invalid JSON at byte 8: json has non-whitespace trailing characters after the value",
        ),
        (
            br#"{"a": 1, "b": tru}"#,
            "invalid JSON at byte 17: invalid literal (`true`, `false`, or a `null`) while parsing",
        ),
        (
            br#"{"a": 1, "b": {"c" 1}}"#,
            "invalid JSON at byte 19: expected this character to be a ':' while parsing",
        ),
        (
            br#"{"a": 1, "b": 01}"#,
            "invalid JSON at byte 14: invalid number",
        ),
        (
            br#"{"a": 1, "b": "\u12g4"}"#,
            "invalid JSON at byte 15: invalid \\u escape",
        ),
        (
            br#"{"a": 1, "b": "\u"}"#,
            "invalid JSON at byte 15: invalid \\u escape",
        ),
        (
            b"{\"a\": 1, \"b\": \"\xff\"}",
            "the record is not valid UTF-8",
        ),
    ];
    let good: &[u8] = br#"{"a": 5}"#;
    for (record, reason) in cases {
        let decoded = decode(
            &[wanted("a", DataType::Int64)],
            &[Some(good), Some(record), Some(good)],
        );
        let shown: Vec<_> = decoded
            .bad
            .iter()
            .map(|bad| (bad.row, bad.reason.as_str()))
            .collect();
        assert_eq!(shown, [(1, *reason)], "{}", String::from_utf8_lossy(record));
        assert_eq!(
            [0, 2].map(|row| show(&decoded.columns[0], row)),
            ["5", "5"],
            "its neighbours are good"
        );
    }
}

#[test]
fn a_bad_record_leaves_nothing_in_nested_columns() {
    let columns = [
        wanted(
            "a",
            list(object(vec![Field::new("x", DataType::Int64, true)])),
        ),
        wanted("b", DataType::Utf8),
    ];
    let records: [&[u8]; 3] = [
        br#"{"b": "p", "a": [{"x": 1}]}"#,
        br#"{"b": "q", "a": [{"x": 1}, {"x": 2}, {"x": tru"#,
        br#"{"b": "r", "a": [{"x": 3}]}"#,
    ];
    let decoded = decode(&columns, &records.map(Some));
    assert_eq!(decoded.bad.len(), 1);
    let shown = |column: usize| [0, 1, 2].map(|row| show(&decoded.columns[column], row));
    assert_eq!(shown(0), ["[{x: 1}]", "NULL", "[{x: 3}]"]);
    assert_eq!(shown(1), ["p", "NULL", "r"]);
}

#[test]
fn deep_nesting_is_bad_and_does_not_overflow_the_stack() {
    let nested = |depth: usize| {
        format!(
            r#"{{"a": 1, "b": {}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert_eq!(
        one(wanted("a", DataType::Int64), &nested(127)),
        Ok("1".to_owned())
    );
    let reason = Err("the record is nested deeper than 128 levels".to_owned());
    assert_eq!(one(wanted("a", DataType::Int64), &nested(128)), reason);
    assert_eq!(one(wanted_json("b"), &nested(1_000_000)), reason);
    assert_eq!(
        one(
            wanted("a", DataType::Int64),
            &format!(r#"{{"b": {}"#, r#"{"b": "#.repeat(500_000))
        ),
        reason
    );
    let text = format!(r#"{{"b": "\"{}", "a": 1}}"#, "[".repeat(10_000));
    assert_eq!(
        one(wanted("a", DataType::Int64), &text),
        Ok("1".to_owned()),
        "brackets in strings do not count"
    );
}

#[test]
fn a_record_without_payload_is_null_and_not_bad() {
    let decoded = decode(
        &[wanted("a", DataType::Int64), wanted_json("b")],
        &[None, Some(br#"{"a": 1}"#), None],
    );
    assert_eq!(decoded.bad, []);
    assert_eq!(
        [0, 1, 2].map(|row| show(&decoded.columns[0], row)),
        ["NULL", "1", "NULL"]
    );
}

#[test]
fn records_are_not_parsed_if_no_column_is_wanted() {
    let decoded = decode(&[], &[Some(b"not json"), None]);
    assert_eq!((decoded.columns.len(), decoded.bad.len()), (0, 0));
}

#[test]
fn a_decoder_is_reused_for_every_batch() {
    let mut decoder = Json
        .decoder("", &[wanted("a", list(DataType::Utf8))])
        .unwrap();
    for _ in 0..3 {
        let decoded = decoder.decode(&payloads(&[Some(br#"{"a": ["x"]}"#), Some(b"{")]));
        assert_eq!(
            (
                show(&decoded.columns[0], 0),
                decoded.bad.len(),
                decoded.columns[0].len()
            ),
            ("[x]".to_owned(), 1, 2)
        );
    }
}

#[test]
fn unsupported_types_are_rejected_before_decoding() {
    let refused = |column| Json.decoder("", &[column]).err().unwrap();
    assert_eq!(
        refused(wanted("a", DataType::Time32(TimeUnit::Second))),
        "cannot decode JSON field `a` as Time32(s)"
    );
    let strict = object(vec![Field::new("x", DataType::Int64, false)]);
    assert_eq!(
        refused(wanted("a", strict)),
        "`a.x` must be nullable: JSON records may omit it"
    );
    assert_eq!(
        Json.schema("sep=pipe").unwrap_err(),
        "unknown setting `sep` of json; expected ts, ts_ms or ts_sec"
    );
    assert_eq!(Json.schema("ts=user.seen"), Ok(None));
}

#[test]
fn a_schema_is_inferred_from_samples() {
    let samples = [
        r#"{"id": 1, "size": 2, "name": "x", "tags": ["a", null], "user": {"id": 1}, "none": null, "odd": 1, "big": 18446744073709551615}"#,
        r#"{"ok": true, "size": 2.5, "user": {"name": "n"}, "odd": "x", "empty": {}, "lists": [[1], [2.5]], "nothing": []}"#,
        "not json",
        "[1]",
    ];
    let schema = infer_json_schema(&samples.map(Bytes::from)).unwrap();
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
        field("big", DataType::Float64),
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
        infer_json_schema(&[Bytes::from("1")]).unwrap_err(),
        "none of 1 sample records is a JSON object"
    );
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // serde_json parses other floats slightly inexactly by default.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab\"\\\\é]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn steps() -> impl Strategy<Value = Path> {
    let step = prop_oneof![
        "[ab\"\\\\é]{1,2}".prop_map(PathStep::Field),
        (0..3_u32).prop_map(PathStep::Index)
    ];
    prop::collection::vec(step, 0..3).prop_map(|mut steps| {
        steps.insert(0, PathStep::Field("a".to_owned()));
        Path(steps)
    })
}

fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.0.iter().try_fold(value, |value, step| match step {
        PathStep::Field(name) => value.as_object()?.get(name),
        PathStep::Index(index) => value.as_array()?.get(*index as usize),
    })
}

/// Columns of most types, at a few paths.
fn some_columns() -> Vec<WantedColumn> {
    let inner = object(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", list(DataType::Utf8), true),
        json_field("c"),
    ]);
    vec![
        wanted_json("a"),
        wanted("a", DataType::Int64),
        wanted("a.b", DataType::Timestamp(TimeUnit::Millisecond, None)),
        wanted("b", DataType::Decimal128(10, 2)),
        wanted("b[0]", list(inner.clone())),
        wanted("b.a", inner),
        wanted("a[1]", DataType::Date32),
        wanted("a[0]", DataType::Binary),
        wanted("b[1]", DataType::Float32),
    ]
}

proptest! {
    #[test]
    fn values_match_serde_json(value in value(), pretty in any::<bool>(), paths in prop::collection::vec(steps(), 1..4)) {
        let document = serde_json::json!({"b": 1, "a": value, "é": []});
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let columns: Vec<_> = paths.iter().map(|path| WantedColumn { path: path.clone(), field: Arc::new(json_field("c")) }).collect();
        let decoded = decode(&columns, &[Some(text.as_bytes())]);
        prop_assert_eq!(&decoded.bad, &[]);
        for (path, column) in paths.iter().zip(&decoded.columns) {
            let column = column.as_string::<i32>();
            let found = column.is_valid(0).then(|| serde_json::from_str::<Value>(column.value(0)).unwrap());
            prop_assert_eq!(found.as_ref(), at(&document, path).filter(|value| !value.is_null()), "{}", path);
        }
        for (path, data_type) in paths.iter().zip([DataType::Int64, DataType::Utf8, DataType::Boolean]) {
            let column = WantedColumn { path: path.clone(), field: Arc::new(Field::new("c", data_type.clone(), true)) };
            let decoded = decode(&[column], &[Some(text.as_bytes())]);
            let expected = match (at(&document, path), data_type) {
                (None | Some(Value::Null), _) => Some("NULL".to_owned()),
                (Some(Value::String(text)), DataType::Utf8) => Some(text.clone()),
                (Some(Value::Bool(value)), DataType::Boolean) => Some(value.to_string()),
                (Some(Value::Number(number)), DataType::Int64) => {
                    let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9e15).map(|float| float as i64);
                    number.as_i64().or(whole).map(|number| number.to_string())
                }
                _ => None,
            };
            prop_assert_eq!(decoded.bad.is_empty(), expected.is_some());
            prop_assert_eq!(show(&decoded.columns[0], 0), expected.unwrap_or("NULL".to_owned()));
        }
    }

    #[test]
    fn floats_are_exact(float in any::<f64>()) {
        let decoded = decode(&[wanted("a", DataType::Float64)], &[Some(format!("{{\"a\": {float:e}}}").as_bytes())]);
        prop_assert_eq!(&decoded.bad, &[]);
        prop_assert_eq!(decoded.columns[0].as_primitive::<Float64Type>().value(0), float);
    }

    #[test]
    fn validity_matches_serde_json(value in value(), at in any::<prop::sample::Index>(), junk in "[{}\\[\\]\",:\\\\u0129eE+.tfn \u{1}é-]{0,3}", cut in 0..4_usize) {
        let mut text = serde_json::json!({"b": 1, "a": value}).to_string();
        let at = text.char_indices().map(|(at, _)| at).nth(at.index(text.chars().count())).unwrap_or(0);
        let end = text[at..].char_indices().nth(cut).map_or(text.len(), |(offset, _)| at + offset);
        text.replace_range(at..end, &junk);
        let decoded = decode(&[wanted_json("x")], &[Some(text.as_bytes())]);
        let valid = text.trim_ascii_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(decoded.bad.is_empty(), valid, "{} {:?}", text, decoded.bad);
    }

    #[test]
    fn never_panics(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let records: Vec<_> = records.iter().map(|record| Some(record.as_slice())).collect();
        decode(&some_columns(), &records);
    }

    #[test]
    fn never_panics_on_json_like_input(records in prop::collection::vec("\\{\"[ab]\": ?(\"?[-0-9T:.+Zez]{0,36}\"?|[\\[\\]{}\",:\\\\u0d8abcn -]{0,30})\\}?", 0..6)) {
        let records: Vec<_> = records.iter().map(|record| Some(record.as_bytes())).collect();
        decode(&some_columns(), &records);
    }
}
