//! Tests of the dialects that are written: the format `csv` reads them back.

use arrow::array::{ArrayRef, Decimal128Array, Float64Array};
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Format, WantedColumn};

use super::dialect::{CsvSeparator, DecimalMark};
use super::*;
use crate::csv::Csv;
use crate::encode::{OutputFormat, RecordEncoder};

/// The lines that are written with these options, with the header.
fn written(format: OutputFormat, options: &CsvOptions, batch: &RecordBatch) -> Vec<u8> {
    let columns = crate::testing::columns(batch);
    let encoder = RecordEncoder::with_csv(format, options, &columns).unwrap();
    let mut file = encoder.header().unwrap_or_default();
    let rows = crate::testing::changed(batch.clone());
    encoder.write_lines(&rows, &mut file).unwrap();
    file
}

fn batch(texts: Vec<Option<&str>>, numbers: Vec<Option<f64>>) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    let numbers: ArrayRef = Arc::new(Float64Array::from(numbers));
    RecordBatch::try_from_iter([("text", texts), ("n", numbers)]).unwrap()
}

fn other() -> CsvOptions {
    CsvOptions {
        header: Some(false),
        sep: Some(CsvSeparator(b';')),
        null: Some("NULL".to_owned()),
        decimal: Some(DecimalMark::Comma),
    }
}

#[test]
fn each_option_changes_what_it_says() {
    let batch = batch(
        vec![Some("a;b"), None, Some(""), Some("NULL"), Some("1.5,2")],
        vec![Some(1.5), None, Some(-0.25), Some(1e300), Some(f64::NAN)],
    );
    let shown =
        |format, options: &CsvOptions| String::from_utf8(written(format, options, &batch)).unwrap();
    assert_eq!(
        shown(OutputFormat::Csv, &CsvOptions::default()),
        "text,n\na;b,1.5\n,\n\"\",-0.25\nNULL,1.0e300\n\"1.5,2\",\n"
    );
    assert_eq!(
        shown(OutputFormat::Csv, &other()),
        "\"a;b\";1,5\nNULL;NULL\n\"\";-0,25\n\"NULL\";1,0e300\n1.5,2;NULL\n"
    );
    let decimal_comma = CsvOptions {
        decimal: Some(DecimalMark::Comma),
        ..CsvOptions::default()
    };
    let lines = shown(OutputFormat::Csv, &decimal_comma);
    assert!(lines.starts_with("text,n\na;b,\"1,5\"\n"), "{lines}");
    let lines = shown(OutputFormat::Tsv, &decimal_comma);
    assert!(lines.starts_with("text\tn\na;b\t1,5\n"), "{lines}");
}

#[test]
fn decimals_have_the_comma_too() {
    let values = Decimal128Array::from(vec![-5, 1234]);
    let values: ArrayRef = Arc::new(values.with_precision_and_scale(6, 2).unwrap());
    let batch = RecordBatch::try_from_iter([("d", values)]).unwrap();
    assert_eq!(
        written(OutputFormat::Csv, &other(), &batch),
        b"-0,05\n12,34\n"
    );
}

#[test]
fn options_that_cannot_work_are_errors() {
    let columns = crate::testing::columns(&batch(vec![None], vec![None]));
    let error = |format, options: CsvOptions| {
        RecordEncoder::with_csv(format, &options, &columns)
            .err()
            .unwrap()
    };
    assert_eq!(
        error(OutputFormat::Json, other()),
        "`:csv` is for the formats csv and tsv; remove it"
    );
    let null = |null: &str| CsvOptions {
        null: Some(null.to_owned()),
        ..other()
    };
    for text in ["a;b", "\"", "a\nb"] {
        let found = error(OutputFormat::Csv, null(text));
        assert!(
            found.contains("the separator, a quote or a line end"),
            "{found}"
        );
    }
    let quote = CsvOptions {
        sep: Some(CsvSeparator(b'"')),
        ..CsvOptions::default()
    };
    let found = error(OutputFormat::Csv, quote);
    assert_eq!(found, "the separator is the quote; choose another one");
}

proptest! {
    #[test]
    fn another_dialect_is_read_back(
        rows in prop::collection::vec((any::<Option<String>>(), any::<Option<i32>>()), 1..6),
    ) {
        let texts: Vec<Option<&str>> = rows.iter().map(|(text, _)| text.as_deref()).collect();
        let texts: Vec<_> = texts.into_iter().chain([Some("NULL"), Some(""), None]).collect();
        let number = |(_, number): &(_, Option<i32>)| number.map(|number| f64::from(number) / 8.0);
        let numbers: Vec<_> = rows.iter().map(number).chain([None; 3]).collect();
        let expected = batch(texts, numbers);
        let file = written(OutputFormat::Csv, &other(), &expected);

        let settings = "sep=semicolon;null=NULL;decimal=comma;fields=text,n";
        let mut start = 0;
        let record = |end| &file[std::mem::replace(&mut start, end + 1)..end];
        let framing = Csv::CSV.framing(settings);
        let payloads = Payloads::copied(framing.ends(&file).map(record));
        let schema = expected.schema();
        let wanted = schema.fields().iter().map(|field| WantedColumn {
            path: Path(vec![PathStep::Field(field.name().clone())]),
            field: field.clone(),
        });
        let wanted: Vec<_> = wanted.collect();
        let decoded = Csv::CSV.decoder(settings, &wanted).unwrap().decode(&payloads);
        prop_assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
        prop_assert_eq!(&decoded.columns[..], expected.columns());
    }
}
