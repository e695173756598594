use arrow::array::{
    BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array,
    LargeStringArray, MapBuilder, RecordBatch, StringArray, Time64NanosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Fields, Int64Type, Schema};
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Format, WantedColumn, json_field};

use super::super::ColumnFormat;
use super::super::types::EXTENSION_KEY;
use super::*;

/// The values of a column as JSON (`!` if the record is invalid) in a type.
fn read(values: ArrayRef, from: Field, to: Field) -> Vec<String> {
    let schema = Arc::new(Schema::new(vec![from]));
    let rows = RecordBatch::try_new(schema, vec![values]).unwrap();
    let wanted = WantedColumn {
        path: Path(vec![PathStep::Field("x".to_owned())]),
        field: Arc::new(to.clone()),
    };
    let mut decoder = ColumnFormat::Parquet.decoder("", &[wanted]).unwrap();
    let decoded = decoder.decode(&Payloads::of_columns(rows));
    let (field, options) = (Arc::new(to), json_options());
    let mut encoder = make_encoder(&field, &decoded.columns[0], &options).unwrap();
    let mut text = |row: usize| {
        let mut text = Vec::new();
        match encoder.is_null(row) {
            true => text.extend(b"null"),
            false => encoder.encode(row, &mut text),
        }
        String::from_utf8(text).unwrap()
    };
    let mut read: Vec<String> = (0..decoded.columns[0].len()).map(&mut text).collect();
    for bad in decoded.bad {
        assert!(bad.reason.starts_with("`x` "), "{}", bad.reason);
        read[bad.row as usize] = "!".to_owned();
    }
    read
}

fn read_as(values: impl Array + 'static, to: DataType) -> Vec<String> {
    let from = Field::new("x", values.data_type().clone(), true);
    read(Arc::new(values), from, Field::new("x", to, true))
}

fn read_as_json(values: impl Array + 'static) -> Vec<String> {
    let from = Field::new("x", values.data_type().clone(), true);
    read(Arc::new(values), from, json_field("x"))
}

#[test]
fn a_text_that_is_not_one_json_value_is_not_json() {
    let texts = [
        "abc",
        r#"1,"admin":true"#,
        "",
        " ",
        "NaN",
        "1 2",
        "01",
        r#""a"#,
        r#" {"a": [1e400, "\n"]} "#,
        "5",
        "null",
    ];
    let expected = [
        "!",
        "!",
        "!",
        "!",
        "!",
        "!",
        "!",
        "!",
        r#"{"a": [1e400, "\n"]}"#,
        "5",
        "null",
    ];
    assert_eq!(read_as_json(StringArray::from_iter_values(texts)), expected);
    let large = LargeStringArray::from_iter_values(texts);
    assert_eq!(read_as_json(large), expected);
    // Also of a column that says that its texts are JSON, and inside of others.
    let from: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    assert_eq!(
        read(from.clone(), json_field("x"), json_field("x")),
        expected
    );
    let inner = Fields::from(vec![json_field("j")]);
    let structs = StructArray::new(inner, vec![from.clone()], None);
    let to = Field::new("x", structs.data_type().clone(), true);
    let found = read(Arc::new(structs.clone()), to.clone(), to);
    let nested = |text: &&str| match *text {
        "!" => "!".to_owned(),
        text => format!(r#"{{"j":{text}}}"#),
    };
    let expected: Vec<String> = expected.iter().map(nested).collect();
    assert_eq!(found, expected);
    assert_eq!(read_as_json(structs), expected);
    let (item, lengths) = (Arc::new(json_field("item")), [1; 11]);
    let lists = ListArray::new(item, OffsetBuffer::from_lengths(lengths), from, None);
    let to = Field::new("x", lists.data_type().clone(), true);
    let found = read(Arc::new(lists.slice(7, 3)), to.clone(), to);
    assert_eq!(found, ["!", r#"[{"a": [1e400, "\n"]}]"#, "[5]"]);
}

#[test]
fn values_as_json_are_what_they_are_written_as() {
    let floats = Float64Array::from(vec![Some(f64::NAN), Some(-0.0), Some(1.5), None]);
    assert_eq!(read_as_json(floats), ["null", "-0.0", "1.5", "null"]);
    let infinite = Float64Array::from(vec![f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(read_as_json(infinite), ["null", "null"]);
    let integers = Int64Array::from(vec![i64::MAX]);
    assert_eq!(read_as_json(integers), ["9223372036854775807"]);
    let times = TimestampMicrosecondArray::from(vec![0]);
    assert_eq!(read_as_json(times), [r#""1970-01-01T00:00:00.000000Z""#]);
    assert_eq!(
        read_as_json(BooleanArray::from(vec![true, false])),
        ["true", "false"]
    );
}

#[test]
fn uuids_are_texts() {
    let bytes: Vec<u8> = (0xf0..=0xff).collect();
    let uuids =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some(bytes), None].into_iter(), 16);
    let uuids: ArrayRef = Arc::new(uuids.unwrap());
    let text = r#""f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff""#;
    for (key, mark) in [(EXTENSION_KEY, "arrow.uuid"), ("logicalType", "uuid")] {
        let metadata = [(key.to_owned(), mark.to_owned())].into();
        let from = Field::new("x", uuids.data_type().clone(), true).with_metadata(metadata);
        for to in [field_of(&from).as_ref().clone(), json_field("x")] {
            assert_eq!(read(uuids.clone(), from.clone(), to), [text, "null"]);
        }
    }
    let from = Field::new("x", uuids.data_type().clone(), true);
    assert_eq!(*field_of(&from).data_type(), DataType::Binary);
}

#[test]
fn texts_in_a_map_are_strings() {
    let mut maps = MapBuilder::new(
        None,
        arrow::array::StringBuilder::new(),
        arrow::array::StringBuilder::new(),
    )
    .with_values_field(json_field("values"));
    maps.keys().append_value("k");
    maps.values().append_value(r#"1,"admin":true"#);
    maps.append(true).unwrap();
    let maps = maps.finish();
    let from = Field::new("x", maps.data_type().clone(), true);
    let to = field_of(&from).as_ref().clone();
    let expected = [r#"{"k":"1,\"admin\":true"}"#];
    assert_eq!(read(Arc::new(maps), from, to), expected);
}

#[test]
fn a_value_that_does_not_fit_exactly_is_invalid() {
    let floats = || Float64Array::from(vec![1.0, 1.5, -0.0, 1e300, f64::NAN, 99.99]);
    assert_eq!(
        read_as(floats(), DataType::Int64),
        ["1", "!", "0", "!", "!", "!"]
    );
    assert_eq!(
        read_as(floats(), DataType::Decimal128(10, 1)),
        ["1.0", "1.5", "0.0", "!", "!", "!"]
    );
    assert_eq!(read_as(floats(), DataType::Boolean)[3..], ["!", "!", "!"]);
    let decimals = || {
        let decimals = Decimal128Array::from(vec![9999, 9900, 125]);
        decimals.with_precision_and_scale(10, 2).unwrap()
    };
    assert_eq!(read_as(decimals(), DataType::Int64), ["!", "99", "!"]);
    assert_eq!(
        read_as(decimals(), DataType::Decimal128(10, 1)),
        ["!", "99.0", "!"]
    );
    assert_eq!(
        read_as(decimals(), DataType::Float64),
        ["99.99", "99.0", "1.25"]
    );
    let texts = StringArray::from(vec!["1.25", "1.5", "", "x"]);
    assert_eq!(
        read_as(texts, DataType::Decimal128(10, 1)),
        ["!", "1.5", "!", "!"]
    );
    let times = Time64NanosecondArray::from(vec![1_000, 1_001]);
    assert_eq!(
        read_as(times, DataType::Time64(TimeUnit::Microsecond)),
        [r#""00:00:00.000001""#, "!"]
    );
    let at = TimestampNanosecondArray::from(vec![Some(86_400_000_000_000), Some(1_001), None]);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(
        read_as(at.clone(), utc),
        [r#""1970-01-02T00:00:00.000000Z""#, "!", "null"]
    );
    assert_eq!(
        read_as(at, DataType::Date32),
        [r#""1970-01-02""#, "!", "null"]
    );
}

#[test]
fn a_part_of_a_value_that_does_not_fit_exactly_makes_it_invalid() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![2.0, 1.5]));
    let fields = Fields::from(vec![
        Field::new("other", DataType::Float64, true),
        Field::new("a", DataType::Float64, true),
    ]);
    let structs = StructArray::new(fields, vec![floats.clone(), floats], None);
    let wanted = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("none", DataType::Utf8, true),
    ]);
    assert_eq!(
        read_as(structs, DataType::Struct(wanted)),
        [r#"{"a":2,"none":null}"#, "!"]
    );
    let lists = [
        Some(vec![Some(7), Some(1 << 40)]),
        None,
        Some(vec![Some(9)]),
    ];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let to = DataType::List(Arc::new(Field::new("item", DataType::Int16, true)));
    assert_eq!(read_as(lists.slice(1, 2), to.clone()), ["null", "[9]"]);
    assert_eq!(read_as(lists, to), ["!", "null", "[9]"]);
}
