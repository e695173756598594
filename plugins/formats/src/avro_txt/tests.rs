mod malformed;
mod registry;
mod server;
mod values;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use arrow::util::display::array_value_to_string;
use arrow_avro::schema::{AvroSchema, FingerprintStrategy};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};

use self::server::Server;
use super::AvroTxt;
use crate::testing::payloads;

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
        "these avro-txt records have no field `b`; expected a, ts, msg"
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
