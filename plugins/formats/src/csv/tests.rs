//! Tests of the formats `csv` and `tsv`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{DecodedColumns, json_field};
use pseidon_plugin::options::print_schema;

use super::*;
use crate::encode::{OutputFormat, RecordEncoder};

mod dialects;

fn wanted(name: &str, data_type: DataType) -> WantedColumn {
    of_field(Field::new(name, data_type, true))
}

fn of_field(field: Field) -> WantedColumn {
    WantedColumn {
        path: Path(vec![PathStep::Field(field.name().clone())]),
        field: Arc::new(field),
    }
}

fn payloads(header: &str, records: &[&str]) -> Payloads {
    Payloads::copied(records.iter().map(|record| record.as_bytes()))
        .with_header(Some(Bytes::copy_from_slice(header.as_bytes())))
}

/// The values of each row, and the reasons of invalid rows.
fn shown(columns: &[WantedColumn], decoded: DecodedColumns) -> (Vec<String>, Vec<String>) {
    let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), decoded.columns).unwrap();
    let table = pretty_format_batches(&[batch]).unwrap().to_string();
    let rows = table.lines().skip(3).filter(|line| line.starts_with("| "));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.join(",")
    };
    let bad = decoded.bad.into_iter();
    let bad = bad.map(|bad| format!("{}: {}", bad.row, bad.reason));
    (rows.map(row).collect(), bad.collect())
}

#[test]
fn columns_are_found_by_their_names_in_the_header_of_each_file() {
    let columns = [
        wanted("id", DataType::Int64),
        wanted("name", DataType::Utf8),
        of_field(json_field("note")),
        wanted("none", DataType::Utf8),
    ];
    let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
    let first = payloads(
        "id,name,note",
        &["1,\"a,b\",7", "2,,", "3,\"\",\"x\"\"y\"", "\"\",z,"],
    );
    let (rows, bad) = shown(&columns, decoder.decode(&first));
    assert_eq!(rows, ["1,a,b,\"7\",", "2,,,", "3,,\"x\\\"y\",", ",z,,"]);
    assert_eq!(bad, [""; 0]);
    let second = payloads("\"note\",id,name", &["n,4,d"]);
    let (rows, _) = shown(&columns, decoder.decode(&second));
    assert_eq!(rows, ["4,d,\"n\","]);
}

#[test]
fn numbers_that_are_not_times_are_invalid() {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let columns = [
        wanted("at", millis),
        wanted("time", DataType::Time64(TimeUnit::Microsecond)),
    ];
    let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
    let records = ["1,1", "9223372036854775807,1", "1,86400000000"];
    let (rows, bad) = shown(&columns, decoder.decode(&payloads("at,time", &records)));
    assert_eq!(rows[0], "1970-01-01T00:00:00.001,00:00:00.000001");
    assert_eq!(
        bad,
        [
            "1: `at` is the string \"9223372036854775807\"; expected a timestamp",
            "2: `time` is the string \"86400000000\"; expected a time",
        ]
    );
}

#[test]
fn an_empty_string_is_not_null() {
    let columns = [wanted("a", DataType::Utf8), wanted("b", DataType::Utf8)];
    let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
    let decoded = decoder.decode(&payloads("a,b", &["\"\","]));
    assert_eq!(
        decoded
            .columns
            .iter()
            .map(|it| it.null_count())
            .collect::<Vec<_>>(),
        [0, 1]
    );
}

#[test]
fn records_that_do_not_match_the_header_are_invalid() {
    let columns = [wanted("id", DataType::Int64), wanted("a", DataType::Utf8)];
    let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
    let records = ["1,x", "2", "3,x,y", "4.5,x", "5,\"x", "6,y"];
    let (rows, bad) = shown(&columns, decoder.decode(&payloads("id,a", &records)));
    assert_eq!(rows, ["1,x", ",", ",", ",", ",", "6,y"]);
    assert_eq!(
        bad,
        [
            "1: expected 2 fields, found 1",
            "2: expected 2 fields, found 3",
            "3: `id` is the string \"4.5\"; expected int64",
            "4: a quote is not closed; if quotes have no meaning in these records, set quote=none",
        ]
    );
    let bad = |header: &str| {
        let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
        shown(&columns, decoder.decode(&payloads(header, &["1,x"]))).1
    };
    assert_eq!(bad("id,id"), ["0: the header has several fields `id`"]);
    let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
    let (_, bad) = shown(
        &columns,
        decoder.decode(&Payloads::copied([b"1,x".as_slice()])),
    );
    assert_eq!(bad, ["0: the fields have no names: the header is missing"]);
}

#[test]
fn a_header_without_the_columns_is_invalid_only_if_it_has_another_separator() {
    let columns = [wanted("debug", DataType::Utf8)];
    let decoded = |header: &str, settings: &str, record: &str| {
        let mut decoder = Csv::CSV.decoder(settings, &columns).unwrap();
        shown(&columns, decoder.decode(&payloads(header, &[record])))
    };
    for (header, settings, record) in [
        ("id,name", "", "1,Ann"),
        ("id", "", "1"),
        ("id,name (a;b)", "", "1,Ann"),
        ("\"name (a;b)\"", "", "Ann"),
        ("\"a;b\";c", "sep=semicolon", "1;2"),
    ] {
        let (rows, bad) = decoded(header, settings, record);
        assert_eq!((rows, bad), (vec![String::new()], Vec::new()), "{header}");
    }
    for (header, settings) in [
        ("id;debug", ""),
        ("id;name, first;debug", ""),
        ("id;debug", "sep=tab"),
    ] {
        let (_, bad) = decoded(header, settings, "1;x");
        let reason = format!(
            "0: the header `{header}` has none of the fields that are used (debug); its separator \
             may be a semicolon: set sep=semicolon"
        );
        assert_eq!(bad, [reason]);
    }
}

#[test]
fn settings_name_the_separator_and_the_fields() {
    let columns = [wanted("b", DataType::Utf8)];
    for (format, settings, record) in [
        (Csv::CSV, "sep=semicolon;fields=a,b", "1;\"x;y\""),
        (Csv::TSV, "fields=a,b", "1\t\"x;y\""),
        (Csv::CSV, "fields=a, b", "1,x;y"),
    ] {
        let mut decoder = format.decoder(settings, &columns).unwrap();
        let decoded = decoder.decode(&Payloads::copied([record.as_bytes()]));
        assert_eq!(shown(&columns, decoded).0, ["x;y"], "{settings}");
        assert!(!format.framing(settings).has_header, "{settings}");
    }
    let mut decoder = Csv::TSV.decoder("quote=none", &columns).unwrap();
    let decoded = decoder.decode(&payloads("a\tb", &["1\t\"x"]));
    assert_eq!(shown(&columns, decoded).0, ["\"x"]);
    assert_eq!(Csv::TSV.framing("quote=none").quotes, None);
}

#[test]
fn invalid_settings_are_errors() {
    let error = |settings: &str| Csv::CSV.schema(settings).unwrap_err();
    assert_eq!(
        error("quote=x"),
        "invalid `quote` value `x`; expected double, single, none, or one character"
    );
    assert_eq!(
        error("sap=tab"),
        "unknown setting `sap` of csv; did you mean `sep`?"
    );
    assert_eq!(error("fields=a,a"), "duplicate name `a` in `fields`");
    let nested = WantedColumn {
        path: Path(vec![
            PathStep::Field("a".to_owned()),
            PathStep::Field("b".to_owned()),
        ]),
        field: Arc::new(Field::new("a.b", DataType::Utf8, true)),
    };
    assert_eq!(
        Csv::CSV.decoder("", &[nested]).err().unwrap(),
        "`a.b` is inside another field, but the fields of csv records are strings"
    );
    let unnamed = [wanted("c", DataType::Utf8)];
    assert_eq!(
        Csv::CSV.decoder("fields=a,b", &unnamed).err().unwrap(),
        "the records have no field `c`; expected one of a, b"
    );
}

#[test]
fn numbers_whose_digits_a_float_does_not_keep_are_strings() {
    for (number, expected) in [
        ("0.1234567890123456789", DataType::Utf8),
        ("1e400", DataType::Utf8),
        ("12345678901234567890123", DataType::Utf8),
        ("0.30000000000000004", DataType::Float64),
    ] {
        let samples = [Payloads::copied([number.as_bytes()])];
        let schema = Csv::CSV.infer("fields=a", &samples).unwrap();
        assert_eq!(*schema.field(0).data_type(), expected, "{number}");
    }
}

#[test]
fn types_are_inferred_from_samples() {
    let header = "id,price,zip,big,flag,day,at,exact,text,none";
    let samples = [
        payloads(
            header,
            &[
                "1,2,01234,9223372036854775808,true,2024-05-01,2024-05-01 10:00:00,2024-05-01T10:00:00.1234567Z,x,",
                "\"-2\",2.5,98765,1,FALSE,2024-05-02,2024-05-01T10:00:00Z,2024-05-01T10:00:00Z,7,",
                "only one field",
            ],
        ),
        payloads("more,id", &["x,3"]),
    ];
    let schema = Csv::CSV.infer("", &samples).unwrap();
    assert_eq!(
        print_schema(&schema),
        "{:id :int64, :price :float64, :zip :utf8, :big :utf8, :flag :boolean, :day :date32, \
         :at :timestamp_us, :exact :utf8, :text :utf8, :none :utf8, :more :utf8}"
    );
    let quoted = [payloads("\"amount (EUR; net)\"", &["1"])];
    let unquoted = [payloads("amount (EUR; net)", &["1"])];
    for (settings, samples) in [
        ("", &quoted),
        ("sep=comma", &quoted),
        ("sep=comma", &unquoted),
    ] {
        let schema = Csv::CSV.infer(settings, samples).unwrap();
        assert_eq!(schema.field(0).name(), "amount (EUR; net)");
    }
    assert_eq!(Csv::CSV.other_settings(&quoted), None);
    assert_eq!(
        Csv::CSV.infer("", &unquoted).unwrap_err(),
        "the header `amount (EUR; net)` is a single field; if its separator is a semicolon, set \
         :format \"csv:sep=semicolon\""
    );
    let none = Csv::CSV.infer("", &[Payloads::copied([b"1".as_slice()])]);
    assert_eq!(
        none.unwrap_err(),
        "the fields have no names: the header is missing"
    );
}

#[test]
fn a_header_of_very_many_fields_is_refused() {
    let header: Vec<String> = (0..300_000).map(|field| format!("f{field}")).collect();
    let header = header.join(",");
    let samples = [payloads(&header, &["1"])];
    let reason = Csv::CSV.infer("", &samples).unwrap_err();
    assert!(
        reason.starts_with("the sample records have 300000 fields, and at most 2000"),
        "{reason}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(
        header in prop::collection::vec(any::<u8>(), 0..20),
        records in prop::collection::vec("[ab,\"\n]{0,12}", 0..6),
    ) {
        let columns = [wanted("a", DataType::Int16), of_field(json_field("b"))];
        let mut decoder = Csv::CSV.decoder("", &columns).unwrap();
        for header in [header.as_slice(), b"a,b"] {
            let payloads = Payloads::copied(records.iter().map(String::as_bytes))
                .with_header(Some(Bytes::copy_from_slice(header)));
            let decoded = decoder.decode(&payloads);
            for column in &decoded.columns {
                prop_assert_eq!(column.len(), records.len());
            }
            for bad in &decoded.bad {
                prop_assert!(decoded.columns.iter().all(|column| column.is_null(bad.row as usize)));
            }
        }
    }
}

/// What the codec writes, the format reads back: NULL, empty strings, quotes and line ends.
fn round_trip(format: OutputFormat, csv: Csv, texts: &[Option<String>]) -> Vec<Option<String>> {
    let column = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    let rows = texts.len();
    let batch =
        RecordBatch::try_from_iter([("a b", column(texts)), ("n", column(vec![Some("1"); rows]))]);
    let batch = batch.unwrap();
    let encoder = RecordEncoder::new(format, &crate::testing::columns(&batch)).unwrap();
    let mut file = encoder.header().unwrap();
    encoder
        .write_lines(&crate::testing::changed(batch), &mut file)
        .unwrap();
    let framing = csv.framing("");
    let mut start = 0;
    let record = |end| &file[std::mem::replace(&mut start, end + 1)..end];
    let mut records = framing.ends(&file).map(record);
    let header = Bytes::copy_from_slice(records.next().unwrap());
    let payloads = Payloads::copied(records).with_header(Some(header));
    let wanted = [wanted("a b", DataType::Utf8)];
    let decoded = csv.decoder("", &wanted).unwrap().decode(&payloads);
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let values = decoded.columns[0].as_string::<i32>();
    values.iter().map(|text| text.map(str::to_owned)).collect()
}

proptest! {
    #[test]
    fn written_values_are_read_back(texts in prop::collection::vec(any::<Option<String>>(), 1..6)) {
        prop_assert_eq!(&round_trip(OutputFormat::Csv, Csv::CSV, &texts), &texts);
        prop_assert_eq!(&round_trip(OutputFormat::Tsv, Csv::TSV, &texts), &texts);
    }
}
