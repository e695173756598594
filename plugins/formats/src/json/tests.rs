mod infer;
mod malformed;
mod properties;
mod values;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit};
use arrow::util::display::array_value_to_string;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{DecodedColumns, Format, WantedColumn, json_field};

use super::Json;
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
