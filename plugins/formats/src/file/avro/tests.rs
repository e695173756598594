use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampSecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use arrow_avro::reader::ReaderBuilder;
use pseidon_plugin::format::json_field;

use super::super::{CodecName, Compression, FileCodec, FileCodecSettings};
use super::push_long;
use crate::testing::{changed, columns};

const COMPRESSIONS: [(Compression, &str); 5] = [
    (Compression::None, "null"),
    (Compression::Gzip, "deflate"),
    (Compression::Snappy, "snappy"),
    (Compression::Bzip2, "bzip2"),
    (Compression::Zstd, "zstandard"),
];

fn codec(compression: Compression, batch: &RecordBatch) -> Result<FileCodec, String> {
    let settings = FileCodecSettings {
        codec: CodecName::Avro,
        compression,
        level: None,
        row_group_bytes: 1,
        csv: Default::default(),
    };
    FileCodec::new(settings, &columns(batch))
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

fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ReaderBuilder::new()
        .build(BufReader::new(File::open(path).unwrap()))
        .unwrap();
    reader.map(Result::unwrap).collect()
}

/// Rewrites the file with uncompressed blocks, following the specification: the reader that the
/// tests are built with does not support `deflate`.
fn inflated(file: &[u8]) -> Vec<u8> {
    let long = |at: &mut usize| {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = file[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break (value >> 1) as i64 ^ -((value & 1) as i64);
            }
        }
    };
    let codec = file
        .windows(8)
        .position(|window| window == b"\x0edeflate")
        .unwrap();
    let sync = &file[codec + 9..codec + 25];
    let mut out = [&file[..codec], b"\x08null\x00", sync].concat();
    let mut at = codec + 25;
    while at < file.len() {
        let rows = long(&mut at);
        let size = long(&mut at) as usize;
        let mut data = Vec::new();
        flate2::read::DeflateDecoder::new(&file[at..at + size])
            .read_to_end(&mut data)
            .unwrap();
        push_long(rows, &mut out);
        push_long(data.len() as i64, &mut out);
        out.extend(data);
        at += size;
        assert_eq!(&file[at..at + 16], sync);
        out.extend(sync);
        at += 16;
    }
    out
}

#[test]
fn many_small_batches_are_read_back_from_large_blocks() {
    let rows = |numbers: std::ops::Range<i64>| {
        let texts: StringArray = numbers
            .clone()
            .map(|n| (n % 7 != 0).then(|| format!("name {}", n * 7919 % 10_007)))
            .collect();
        batch(vec![
            column("n", Int64Array::from_iter_values(numbers)),
            column("name", texts),
        ])
    };
    for (compression, name) in COMPRESSIONS {
        let batches: Vec<_> = (0..900).map(|at| rows(at * 40..(at + 1) * 40)).collect();
        let codec = codec(compression, &batches[0]).unwrap();
        assert_eq!(codec.extension(), "avro");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.avro");
        let mut encoder = codec.open(File::create(&path).unwrap()).unwrap();
        for (number, batch) in batches.iter().enumerate() {
            let rows = changed(batch.clone());
            assert_eq!(codec.check(&rows), []);
            encoder.write(&rows).unwrap();
            assert!(encoder.memory() < 2 << 20, "{}", encoder.memory());
            if number == 450 {
                encoder.shed().unwrap();
                assert_eq!(encoder.memory(), 0);
                assert_eq!(encoder.file_bytes(), fs::metadata(&path).unwrap().len());
            }
        }
        let estimate = encoder.file_bytes();
        assert!(encoder.finish(&[]).unwrap().into_inner().is_ok());
        let file = fs::read(&path).unwrap();
        assert!(
            estimate.abs_diff(file.len() as u64) <= file.len() as u64 / 5,
            "estimated {estimate}, actual {}",
            file.len()
        );
        assert!(
            file.windows(name.len())
                .any(|window| window == name.as_bytes()),
            "{name}"
        );
        let sync = file[file.len() - 16..].to_vec();
        let blocks = file.windows(16).filter(|window| *window == sync).count() - 1;
        assert!((2..10).contains(&blocks), "{blocks} blocks of 900 batches");
        if compression == Compression::Gzip {
            fs::write(&path, inflated(&file)).unwrap();
        }
        let read = read(&path);
        let read = concat_batches(&read[0].schema(), &read).unwrap();
        let expected = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(read.columns(), expected.columns(), "{name}");
    }
}

#[test]
fn a_file_without_records_is_valid() {
    let empty = batch(vec![column("n", Int64Array::from(Vec::<i64>::new()))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.avro");
    let encoder = codec(Compression::Snappy, &empty)
        .unwrap()
        .open(File::create(&path).unwrap())
        .unwrap();
    assert!(encoder.finish(&[]).unwrap().into_inner().is_ok());
    assert!(read(&path).is_empty());
}

#[test]
fn columns_of_every_type_are_read_back() {
    let nested = StructArray::from(vec![(
        Arc::new(Field::new("n", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef,
    )]);
    let rows = batch(vec![
        column("bool", BooleanArray::from(vec![Some(true), None])),
        column("tiny", Int8Array::from(vec![Some(-3), None])),
        column("unsigned", UInt32Array::from(vec![Some(u32::MAX), None])),
        column("int", Int64Array::from(vec![Some(i64::MIN), None])),
        column("float", Float32Array::from(vec![Some(0.5), None])),
        column("double", Float64Array::from(vec![Some(-1e300), None])),
        column("text", StringArray::from(vec![Some("é\n"), None])),
        column(
            "bytes",
            BinaryArray::from_opt_vec(vec![Some(b"\xff"), None]),
        ),
        column("date", Date32Array::from(vec![Some(19_782), None])),
        column("s", TimestampSecondArray::from(vec![Some(1), None])),
        column(
            "ms",
            TimestampMillisecondArray::from(vec![Some(1500), None]).with_timezone("UTC"),
        ),
        column("us", TimestampMicrosecondArray::from(vec![Some(-1), None])),
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
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.avro");
    let mut encoder = codec(Compression::Zstd, &rows)
        .unwrap()
        .open(File::create(&path).unwrap())
        .unwrap();
    encoder.write(&changed(rows.clone())).unwrap();
    assert!(encoder.finish(&[]).unwrap().into_inner().is_ok());
    let read = read(&path).remove(0);
    for (number, field) in rows.schema().fields().iter().enumerate() {
        let (written, read) = (rows.column(number), read.column(number));
        // Avro has fewer types.
        let read = arrow::compute::cast(read, field.data_type()).unwrap();
        assert_eq!(written.to_data(), read.to_data(), "{}", field.name());
    }
}

#[test]
fn rows_that_cannot_be_written_are_reported() {
    let rows = batch(vec![column(
        "at",
        TimestampSecondArray::from(vec![Some(5), Some(i64::MAX), None]),
    )]);
    let codec = codec(Compression::None, &rows).unwrap();
    let rows = changed(rows);
    let bad: Vec<_> = codec
        .check(&rows)
        .into_iter()
        .map(|bad| (bad.row, bad.reason))
        .collect();
    assert_eq!(
        bad,
        [(
            1,
            "`at` is out of range for a timestamp of avro in milliseconds".to_owned()
        )]
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.avro");
    let mut encoder = codec.open(File::create(&path).unwrap()).unwrap();
    encoder
        .write(&rows.without(&codec.check(&rows)).unwrap())
        .unwrap();
    assert!(encoder.finish(&[]).unwrap().into_inner().is_ok());
    let times: Vec<_> =
        arrow::array::AsArray::as_primitive::<TimestampMillisecondType>(read(&path)[0].column(0))
            .iter()
            .collect();
    assert_eq!(times, [Some(5000), None]);
}

#[test]
fn unsupported_columns_are_rejected() {
    let refused = |field: Field| {
        codec(
            Compression::None,
            &RecordBatch::new_empty(Arc::new(Schema::new(vec![field]))),
        )
        .err()
        .unwrap()
    };
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let expected = "expected letters, digits and `_`, not starting with a digit; \
        rename it in a `select`";
    assert_eq!(
        refused(int("count(*)")),
        format!("avro does not support the name `count(*)`; {expected}")
    );
    assert_eq!(
        refused(int("1st")),
        format!("avro does not support the name `1st`; {expected}")
    );
    assert_eq!(
        refused(Field::new(
            "o",
            DataType::Struct(vec![int("é")].into()),
            true
        )),
        format!("avro does not support the name `é`; {expected}")
    );
    assert_eq!(
        refused(json_field("j")),
        "avro needs a type for every column; give one to `j` in :schema or by a cast"
    );
    assert_eq!(
        refused(Field::new("nothing", DataType::Null, true)),
        "avro needs a type for every column; give one to `nothing` by a cast"
    );
    let large = batch(vec![column("u", UInt64Array::from(vec![1]))]);
    assert_eq!(
        codec(Compression::None, &large).err().unwrap(),
        "avro has no uint64 type; cast `u` to int64 or decimal(20, 0)"
    );
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(0)),
    );
    assert_eq!(
        codec(Compression::None, &empty.unwrap()).err().unwrap(),
        "avro needs at least one column"
    );
}
