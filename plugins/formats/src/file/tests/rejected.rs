//! Tests of settings and columns that are rejected before a file is written.

use CodecName::*;
use Compression::*;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use pseidon_plugin::format::json_field;
use pseidon_plugin::options::Choice;
use pseidon_plugin::sink::SinkInput;

use super::*;

fn check<const N: usize>(cases: [(FileCodecSettings, SinkInput, &str); N]) {
    for (settings, input, expected) in cases {
        assert_eq!(
            FileCodec::new(settings, &input).err().as_deref(),
            Some(expected)
        );
    }
}

fn at_level(codec: CodecName, compression: Compression, level: i32) -> FileCodecSettings {
    FileCodecSettings {
        level: Some(level),
        ..settings(codec, compression)
    }
}

fn schema(fields: Vec<Field>) -> SinkInput {
    columns(&RecordBatch::new_empty(Arc::new(Schema::new(fields))))
}

fn number() -> SinkInput {
    schema(vec![Field::new("n", DataType::Int64, true)])
}

#[test]
fn unsupported_levels_are_rejected() {
    check([
        (
            at_level(Json, Gzip, 0),
            number(),
            "invalid gzip level 0; expected 1 to 9",
        ),
        (
            at_level(Json, Gzip, 10),
            number(),
            "invalid gzip level 10; expected 1 to 9",
        ),
        (
            at_level(Json, Zstd, 23),
            number(),
            "invalid zstd level 23; expected 1 to 22",
        ),
        (
            at_level(Parquet, Zstd, -1),
            number(),
            "invalid zstd level -1; expected 1 to 22",
        ),
        (
            at_level(Json, None, 1),
            number(),
            "a compression level requires gzip or zstd compression",
        ),
        (
            at_level(Json, Snappy, 1),
            number(),
            "snappy has no compression levels; remove the level",
        ),
        (
            at_level(Json, Bzip2, 3),
            number(),
            "bzip2 has no compression levels; remove the level",
        ),
    ]);
}

#[test]
fn unsupported_columns_are_rejected() {
    let nested = Field::new("o", DataType::Struct(vec![json_field("x")].into()), true);
    check([
        (
            settings(Parquet, Bzip2),
            number(),
            "bzip2 is not supported for parquet; use none, gzip, snappy or zstd",
        ),
        (
            settings(Avro, Snappy),
            as_came("json"),
            "avro writes columns, but these records are unparsed; select their columns first",
        ),
        (
            settings(Parquet, Zstd),
            as_came("json"),
            "parquet writes columns, but these records are unparsed; select their columns first",
        ),
        (
            settings(Parquet, Zstd),
            schema(vec![
                json_field("a"),
                Field::new("n", DataType::Int64, true),
                nested,
            ]),
            "parquet needs a type for every column; give one to `a`, `o` in :schema or by a cast",
        ),
        (
            settings(Parquet, Zstd),
            schema(vec![]),
            "parquet needs at least one column",
        ),
        (
            FileCodecSettings {
                row_group_bytes: 0,
                csv: Default::default(),
                ..settings(Parquet, Zstd)
            },
            number(),
            "the row group size must be at least 1 byte",
        ),
        (
            settings(Raw, None),
            number(),
            "raw writes the bytes of unchanged records, but these are columns; write them as json or txt",
        ),
    ]);
}

#[test]
fn unknown_names_are_rejected() {
    assert!(CodecName::named("orc").is_none());
    assert!(Compression::named("lz4").is_none());
}

/// Both libraries accept the type, and then fail for the values that are not whole milliseconds, or
/// for all.
#[test]
fn intervals_and_large_integers_are_rejected_at_any_depth() {
    let interval = || DataType::Interval(IntervalUnit::MonthDayNano);
    let list = |of| DataType::List(Arc::new(Field::new("item", of, true)));
    let map = |of| {
        let fields = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", of, true),
        ];
        let entries = Field::new("entries", DataType::Struct(fields.into()), false);
        DataType::Map(Arc::new(entries), false)
    };
    for of in [interval(), list(interval()), map(interval())] {
        let column = || schema(vec![Field::new("v", of.clone(), true)]);
        let text = |codec| {
            format!("{codec} has no intervals with microseconds and a sign; cast `v` to utf8")
        };
        check([
            (settings(Parquet, None), column(), text("parquet").as_str()),
            (settings(Avro, None), column(), text("avro").as_str()),
        ]);
        assert!(FileCodec::new(settings(Json, None), &column()).is_ok());
        assert!(FileCodec::new(settings(Csv, None), &column()).is_ok());
    }
    for (of, name) in [
        (list(DataType::UInt64), "item"),
        (map(DataType::UInt64), "value"),
    ] {
        let text = format!("avro has no uint64 type; cast `{name}` to int64 or decimal(20, 0)");
        let column = schema(vec![Field::new("v", of, true)]);
        check([(settings(Avro, None), column, text.as_str())]);
    }
}
