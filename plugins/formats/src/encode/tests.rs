use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, NullArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalUnit, Schema};
use proptest::prelude::*;
use pseidon_plugin::Rows;
use pseidon_plugin::format::json_field;
use pseidon_plugin::options::Choice;
use pseidon_plugin::sink::{RecordShape, SinkInput};
use sonic_rs::JsonValueTrait;

use super::{OutputFormat, RecordEncoder};
use crate::testing::{as_came, changed, columns, rows};

fn lines(encoder: &RecordEncoder, rows: &Rows) -> String {
    let mut out = Vec::new();
    encoder.write_lines(rows, &mut out).unwrap();
    // Encoding row by row has the same result.
    let mut single = Vec::new();
    let mut values = encoder.values(rows).unwrap();
    for row in 0..rows.len() {
        values.encode(row, &mut single);
        single.push(b'\n');
    }
    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&single)
    );
    String::from_utf8(out).unwrap()
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn column(name: &str, values: impl arrow::array::Array + 'static) -> (Field, ArrayRef) {
    (
        Field::new(name, values.data_type().clone(), true),
        Arc::new(values),
    )
}

fn json(batch: RecordBatch) -> String {
    let encoder = RecordEncoder::new(OutputFormat::Json, &columns(&batch)).unwrap();
    lines(&encoder, &changed(batch))
}

#[test]
fn columns_of_every_type_as_json() {
    let expected = [
        r#"{"int":1,"float":null,"inf\"":null,"bool":true,"text":"a\"\\\n\u0001é"#.to_owned() + "\u{2028}" + r#"","bytes":"aGk=","#,
        r#""date":"2024-02-29","s":"1970-01-01T00:00:01Z","ms":"1970-01-01T00:00:01.500Z","us":"1970-01-01T00:00:01.500000Z","#.to_owned(),
        r#""ns":"1970-01-01T00:00:01.500000000Z","dec":-12.30,"obj":{"n":1,"j":[1, 2]},"list":[1,null],"jsons":[{},1.50],"json":{"a" : 1.50},"nothing":null}"#
            .to_owned(),
        "\n".to_owned(),
        r#"{"int":null,"float":0.1,"inf\"":-1.0e300,"bool":null,"text":null,"bytes":null,"date":2147483647,"s":9223372036854775807,"ms":null,"#.to_owned(),
        r#""us":"1969-12-31T23:59:59.999999Z","ns":"1677-09-21T00:12:43.145224192Z","dec":null,"obj":{"n":null,"j":null},"list":null,"#.to_owned(),
        r#""jsons":[],"json":null,"nothing":null}"#.to_owned(),
        "\n".to_owned(),
    ]
    .concat();
    assert_eq!(json(columns_of_every_type()), expected);
}

/// Two rows.
fn columns_of_every_type() -> RecordBatch {
    let int = || Int64Array::from(vec![Some(1), None]);
    let nested = StructArray::from(vec![
        (
            Arc::new(Field::new("n", DataType::Int64, true)),
            Arc::new(int()) as ArrayRef,
        ),
        (
            Arc::new(json_field("j")),
            Arc::new(StringArray::from(vec![Some("[1,\n2]"), None])) as ArrayRef,
        ),
    ]);
    let json_items = StringArray::from(vec!["{}", "1.50"]);
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0]);
    let jsons = ListArray::new(
        Arc::new(json_field("item")),
        offsets,
        Arc::new(json_items),
        None,
    );
    batch(vec![
        column("int", int()),
        column("float", Float64Array::from(vec![f64::NAN, 0.1])),
        column("inf\"", Float64Array::from(vec![f64::INFINITY, -1e300])),
        column("bool", BooleanArray::from(vec![Some(true), None])),
        column(
            "text",
            StringArray::from(vec![Some("a\"\\\n\u{1}é\u{2028}"), None]),
        ),
        column("bytes", BinaryArray::from_opt_vec(vec![Some(b"hi"), None])),
        column("date", Date32Array::from(vec![19_782, i32::MAX])),
        column("s", TimestampSecondArray::from(vec![1, i64::MAX])),
        column(
            "ms",
            TimestampMillisecondArray::from(vec![Some(1500), None]).with_timezone("UTC"),
        ),
        column(
            "us",
            TimestampMicrosecondArray::from(vec![1_500_000, -1]).with_timezone("+02:00"),
        ),
        column(
            "ns",
            TimestampNanosecondArray::from(vec![1_500_000_000, i64::MIN]),
        ),
        column(
            "dec",
            Decimal128Array::from(vec![Some(-1230), None])
                .with_precision_and_scale(38, 2)
                .unwrap(),
        ),
        column("obj", nested),
        column(
            "list",
            ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                Some(vec![Some(1), None]),
                None,
            ]),
        ),
        column("jsons", jsons),
        (
            json_field("json"),
            Arc::new(StringArray::from(vec![Some("{\"a\" :\n1.50}"), None])),
        ),
        column("nothing", NullArray::new(2)),
    ])
}

#[test]
fn slices_and_filters_write_their_own_rows() {
    let numbers = batch(vec![column("n", Int64Array::from_iter_values(0..10))]);
    let encoder = RecordEncoder::new(OutputFormat::Json, &columns(&numbers)).unwrap();
    let rows = changed(numbers);
    assert_eq!(lines(&encoder, &rows.slice(3, 2)), "{\"n\":3}\n{\"n\":4}\n");
    assert_eq!(
        lines(
            &encoder,
            &rows.take(&UInt32Array::from(vec![1, 8])).unwrap()
        ),
        "{\"n\":1}\n{\"n\":8}\n"
    );
    assert_eq!(lines(&encoder, &rows.slice(0, 0)), "");
}

#[test]
fn unchanged_records_are_written_unchanged() {
    let came = rows(&[
        Some(b"{\"a\": 1 }"),
        Some(b"{}"),
        Some(b"{\n\"b\":\n2}"),
        Some(b""),
        Some(b"[]"),
    ]);
    let write = |format| RecordEncoder::new(format, &as_came("json")).unwrap();
    assert_eq!(
        lines(&write(OutputFormat::Json), &came),
        "{\"a\": 1 }\n{}\n{ \"b\": 2}\n\n[]\n",
        "a line feed in JSON is white space"
    );
    assert_eq!(
        lines(&write(OutputFormat::Raw), &came),
        "{\"a\": 1 }\n{}\n{\n\"b\":\n2}\n\n[]\n"
    );
    assert_eq!(
        lines(&write(OutputFormat::Json), &came.slice(0, 2)),
        "{\"a\": 1 }\n{}\n"
    );
    let some = came.take(&UInt32Array::from(vec![0, 1, 4])).unwrap();
    assert_eq!(
        lines(&write(OutputFormat::Txt), &some),
        "{\"a\": 1 }\n{}\n[]\n"
    );
}

#[test]
fn rows_that_cannot_be_written_are_reported() {
    let came = rows(&[Some(b"x"), None, Some(b"y"), None]);
    let raw = RecordEncoder::new(OutputFormat::Raw, &as_came("raw")).unwrap();
    let bad: Vec<_> = raw
        .check(&came)
        .into_iter()
        .map(|bad| (bad.row, bad.reason))
        .collect();
    assert_eq!(
        bad,
        [
            (1, "the record has no payload".to_owned()),
            (3, "the record has no payload".to_owned())
        ]
    );
    assert_eq!(
        lines(&raw, &came.without(&raw.check(&came)).unwrap()),
        "x\ny\n"
    );

    let texts = batch(vec![column(
        "line",
        StringArray::from(vec![Some("a"), None, Some("b")]),
    )]);
    let txt = RecordEncoder::new(OutputFormat::Txt, &columns(&texts)).unwrap();
    let texts = changed(texts);
    let bad: Vec<_> = txt
        .check(&texts)
        .into_iter()
        .map(|bad| (bad.row, bad.reason))
        .collect();
    assert_eq!(bad, [(1, "the value is null".to_owned())]);
    assert_eq!(
        lines(&txt, &texts.without(&txt.check(&texts)).unwrap()),
        "a\nb\n"
    );

    let bytes = batch(vec![column(
        "msg",
        BinaryArray::from(vec![Some(b"a\xff".as_slice()), None, Some(b"")]),
    )]);
    let txt = RecordEncoder::new(OutputFormat::Txt, &columns(&bytes)).unwrap();
    let bytes = changed(bytes);
    assert_eq!(
        txt.check(&bytes)
            .into_iter()
            .map(|bad| bad.row)
            .collect::<Vec<_>>(),
        [1]
    );
    let mut out = Vec::new();
    txt.write_lines(&bytes.without(&txt.check(&bytes)).unwrap(), &mut out)
        .unwrap();
    assert_eq!(out, b"a\xff\n\n");
}

#[test]
fn unsupported_input_is_rejected() {
    let number = || column("n", Int64Array::from(vec![1]));
    let text = || column("t", StringArray::from(vec!["x"]));
    let cases = [
        (
            OutputFormat::Raw,
            columns(&batch(vec![text()])),
            "raw writes the bytes of unchanged records, but these are columns; write them as json or txt",
        ),
        (
            OutputFormat::Txt,
            columns(&batch(vec![number()])),
            "txt writes a string or binary column, but `n` is neither; cast it to utf8, or write json",
        ),
        (
            OutputFormat::Txt,
            columns(&batch(vec![text(), number()])),
            "txt writes exactly one column, but there are 2; select one, or write json",
        ),
        (
            OutputFormat::Json,
            as_came("csv"),
            "csv records can be written as json if their fields are known; set :schema :infer at the source, or select the columns",
        ),
        (
            OutputFormat::Json,
            as_came("raw"),
            "raw records cannot be written as json; write them as txt or raw",
        ),
        (
            OutputFormat::Csv,
            as_came("json"),
            "csv writes columns, but these json records are unparsed; select their columns first",
        ),
        (
            OutputFormat::Tsv,
            SinkInput {
                scope: Default::default(),
                record: RecordShape::Columns(Arc::new(Schema::empty())),
            },
            "csv needs at least one column",
        ),
    ];
    for (format, input, expected) in cases {
        assert_eq!(
            RecordEncoder::new(format, &input).err().as_deref(),
            Some(expected)
        );
    }
    assert_eq!(OutputFormat::named("xml"), None);
}

#[test]
fn a_column_that_json_cannot_represent_is_rejected() {
    let interval = (
        Field::new("i", DataType::Interval(IntervalUnit::YearMonth), true),
        arrow::array::new_null_array(&DataType::Interval(IntervalUnit::YearMonth), 1),
    );
    let map = Field::new_map(
        "m",
        "entries",
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Int64, true),
        false,
        true,
    );
    let map = (
        map.clone(),
        arrow::array::new_null_array(map.data_type(), 1),
    );
    assert!(
        RecordEncoder::new(OutputFormat::Json, &columns(&batch(vec![map])))
            .err()
            .unwrap()
            .starts_with("json cannot represent `m` of type Map(")
    );
    assert!(RecordEncoder::new(OutputFormat::Json, &columns(&batch(vec![interval]))).is_ok());
}

#[test]
fn columns_of_every_type_as_csv() {
    let nested = Field::new("o", DataType::Struct(vec![json_field("x")].into()), true);
    let DataType::Struct(fields) = nested.data_type().clone() else {
        unreachable!()
    };
    let json = || StringArray::from(vec![Some(r#""a,\"b""#), Some("null"), Some("[1, 2]")]);
    let objects = StructArray::new(fields, vec![Arc::new(json())], None);
    let columns_of_types = vec![
        column("n", Int64Array::from(vec![Some(-1), None, Some(2)])),
        column(
            "f,",
            Float64Array::from(vec![Some(0.5), Some(f64::NAN), None]),
        ),
        column(
            "s\"",
            StringArray::from(vec![Some("a\nb"), Some(""), Some("c d")]),
        ),
        (json_field("j"), Arc::new(json()) as ArrayRef),
        column("t", TimestampSecondArray::from(vec![Some(1), None, None])),
        column(
            "b",
            BinaryArray::from_opt_vec(vec![Some(b"hi"), None, Some(b"")]),
        ),
        (nested, Arc::new(objects)),
    ];
    let batch = batch(columns_of_types);
    let encoder = RecordEncoder::new(OutputFormat::Csv, &columns(&batch)).unwrap();
    assert_eq!(
        String::from_utf8(encoder.header().unwrap()).unwrap(),
        "n,\"f,\",\"s\"\"\",j,t,b,o\n"
    );
    let expected = [
        r#"-1,0.5,"a"#,
        r#"b","a,""b",1970-01-01T00:00:01Z,aGk=,"{""x"":""a,\""b""}""#,
        r#",,"",,,,"{""x"":null}""#,
        r#"2,,c d,"[1, 2]",,"","{""x"":[1, 2]}""#,
        "",
    ];
    assert_eq!(lines(&encoder, &changed(batch)), expected.join("\n"));
}

/// Readers skip empty lines, so a record of one NULL is not an empty line.
#[test]
fn a_record_of_one_null_is_not_an_empty_line() {
    let batch = batch(vec![column(
        "s",
        StringArray::from(vec![None, Some(""), Some("x")]),
    )]);
    let encoder = RecordEncoder::new(OutputFormat::Tsv, &columns(&batch)).unwrap();
    assert_eq!(lines(&encoder, &changed(batch)), "\"\"\n\"\"\nx\n");
}

proptest! {
    #[test]
    fn json_round_trips(texts in prop::collection::vec(any::<Option<String>>(), 1..8), floats in prop::collection::vec(any::<f64>(), 8)) {
        let floats: Float64Array = floats.into_iter().take(texts.len()).collect();
        let written = json(batch(vec![column("t\n", StringArray::from(texts.clone())), column("f", floats.clone())]));
        // serde_json parses floats slightly inexactly by default.
        let read: Vec<sonic_rs::Value> = written.lines().map(|line| sonic_rs::from_str(line).unwrap()).collect();
        prop_assert_eq!(read.len(), texts.len());
        for (row, value) in read.iter().enumerate() {
            prop_assert_eq!(value["t\n"].as_str(), texts[row].as_deref());
            prop_assert_eq!(value["f"].as_f64(), Some(floats.value(row)).filter(|float| float.is_finite()));
        }
    }

    #[test]
    fn any_rows_of_a_batch_are_written_as_their_lines(records in prop::collection::vec("[ab\n]{0,4}", 1..20), keep in prop::collection::vec(any::<bool>(), 20)) {
        let bytes: Vec<_> = records.iter().map(|record| Some(record.as_bytes())).collect();
        let kept: Vec<u32> = (0..records.len() as u32).filter(|row| keep[*row as usize]).collect();
        let rows = rows(&bytes).take(&UInt32Array::from(kept.clone())).unwrap();
        let expected = |newline: &str| kept.iter().map(|row| records[*row as usize].replace('\n', newline) + "\n").collect::<String>();
        prop_assert_eq!(lines(&RecordEncoder::new(OutputFormat::Json, &as_came("json")).unwrap(), &rows), expected(" "));
        prop_assert_eq!(lines(&RecordEncoder::new(OutputFormat::Raw, &as_came("json")).unwrap(), &rows), expected("\n"));
    }
}
