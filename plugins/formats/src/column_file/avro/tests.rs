use std::io::{ErrorKind, Write};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroOcfFormat;
use proptest::prelude::*;
use std::sync::Arc;

use super::*;

mod hostile;
mod without_bytes;

const MARKER: [u8; 16] = *b"0123456789abcdef";

fn stored(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A file with these rows, in blocks of three.
fn written(rows: &RecordBatch, codec: Option<CompressionCodec>) -> Vec<u8> {
    // Without the metadata that arrow-avro keeps of a schema.
    let schema = Schema::new(rows.schema().fields().clone());
    let builder = WriterBuilder::new(schema).with_compression(codec);
    let mut writer = builder.build::<_, AvroOcfFormat>(Vec::new()).unwrap();
    for from in (0..rows.num_rows()).step_by(3) {
        let len = (rows.num_rows() - from).min(3);
        writer.write(&rows.slice(from, len)).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner()
}

fn numbered(count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let texts = (0..count).map(|number| (number % 4 != 1).then(|| format!("text {number}")));
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap()
}

/// The rows of a file up to its end or its damage, and what is wrong there.
fn read(bytes: &[u8], fields: Option<&[&str]>, from: u64) -> (Vec<RecordBatch>, Option<io::Error>) {
    let fields: Option<Vec<String>> =
        fields.map(|fields| fields.iter().map(|name| (*name).to_owned()).collect());
    let mut all = Vec::new();
    let mut reader = match AvroReader::open(stored(bytes), fields.as_deref(), from) {
        Ok(reader) => reader,
        Err(error) => return (all, Some(error)),
    };
    assert_eq!(reader.position(), from);
    let mut position = from;
    loop {
        match reader.next_rows() {
            Ok(Some(rows)) => {
                assert!(rows.num_rows() > 0);
                assert_eq!(rows.schema(), reader.empty().schema());
                position += rows.num_rows() as u64;
                assert_eq!(reader.position(), position);
                all.push(rows);
            }
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

/// The values of the column `n`.
fn numbers(rows: &[RecordBatch]) -> Vec<i64> {
    let column = |rows: &RecordBatch| {
        let values = rows.column_by_name("n").unwrap();
        values.as_primitive::<Int64Type>().values().to_vec()
    };
    rows.iter().flat_map(column).collect()
}

fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(value: &[u8]) -> Vec<u8> {
    [long(value.len() as i64), value.to_vec()].concat()
}

/// A file with this schema and these blocks: how many records they declare, and their bytes.
fn container(schema: &str, codec: &str, blocks: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"Obj\x01".to_vec();
    bytes.extend(long(2));
    for part in ["avro.schema", schema, "avro.codec", codec] {
        bytes.extend(text(part.as_bytes()));
    }
    bytes.extend(long(0));
    bytes.extend(MARKER);
    for (rows, records) in blocks {
        bytes.extend([long(*rows), text(records), MARKER.to_vec()].concat());
    }
    bytes
}

/// A schema with one field.
fn schema(of: &str) -> String {
    format!(r#"{{"type":"record","name":"r","fields":[{{"name":"n","type":{of}}}]}}"#)
}

#[test]
fn rows_are_read_from_any_position_in_each_codec() {
    let codecs = [
        None,
        Some(CompressionCodec::Snappy),
        Some(CompressionCodec::Bzip2),
        Some(CompressionCodec::ZStandard),
    ];
    for codec in codecs {
        let bytes = written(&numbered(8), codec);
        for from in 0..=8 {
            let (rows, error) = read(&bytes, None, from);
            assert!(error.is_none(), "{codec:?} {from}: {error:?}");
            assert_eq!(numbers(&rows), (from as i64..8).collect::<Vec<_>>());
        }
        let (_, error) = read(&bytes, None, 9);
        assert!(error.unwrap().to_string().contains("it was truncated"));
    }
}

#[test]
fn a_cut_file_has_the_rows_of_its_complete_blocks() {
    let bytes = written(&numbered(8), None);
    let start = Header::read(&stored(&bytes)).unwrap().len as usize;
    let mut ends = vec![start];
    let mut blocks = AvroReader::open(stored(&bytes), None, 0).unwrap().blocks;
    while let Some(end) = blocks.next().unwrap().map(|_| blocks.end()) {
        ends.push(end as usize);
    }
    assert_eq!(ends.len(), 4);
    for len in 0..bytes.len() {
        let (rows, error) = read(&bytes[..len], None, 0);
        let blocks = ends.iter().filter(|end| **end <= len).count();
        let expected = (blocks.max(1) as i64 - 1) * 3;
        assert_eq!(numbers(&rows), (0..expected).collect::<Vec<_>>(), "{len}");
        let kind = (!ends.contains(&len)).then_some(ErrorKind::UnexpectedEof);
        assert_eq!(error.map(|error| error.kind()), kind, "{len}");
    }
}

#[test]
fn a_changed_byte_loses_no_rows_of_the_blocks_before() {
    for codec in [
        None,
        Some(CompressionCodec::Snappy),
        Some(CompressionCodec::ZStandard),
    ] {
        let bytes = written(&numbered(8), codec);
        let start = Header::read(&stored(&bytes)).unwrap().len as usize;
        let (mut blocks, mut ends) = (
            AvroReader::open(stored(&bytes), None, 0).unwrap().blocks,
            vec![],
        );
        while let Some(end) = blocks.next().unwrap().map(|_| blocks.end()) {
            ends.push(end as usize);
        }
        for (at, change) in (0..bytes.len()).flat_map(|at| [(at, 0x55), (at, 0xff), (at, 1)]) {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let (rows, error) = read(&changed, None, 0);
            let kind = error.as_ref().map(io::Error::kind);
            let expected = [
                None,
                Some(ErrorKind::InvalidData),
                Some(ErrorKind::UnexpectedEof),
            ];
            assert!(expected.contains(&kind), "{at}: {error:?}");
            if at >= start {
                let before = 3 * ends.iter().filter(|end| **end <= at).count() as i64;
                let found = numbers(&rows);
                let expected: Vec<i64> = (0..before).collect();
                assert_eq!(found.get(..before as usize), Some(&expected[..]), "{at}");
            }
        }
    }
}

#[test]
fn the_records_before_a_damaged_one_are_read() {
    let bad = [vec![6], vec![0xff; 3]].concat();
    let records = [text(b"a"), text(b"b"), bad].concat();
    let (rows, error) = read(
        &container(&schema("\"string\""), "null", &[(3, records)]),
        None,
        0,
    );
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(
        error.unwrap().to_string(),
        "it is damaged: a string is not UTF-8"
    );
    // A decimal that arrow-avro refuses.
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#;
    let records = [text(&[1]), text(&[2]), text(&[7; 40]), text(&[3])].concat();
    let (rows, error) = read(
        &container(&schema(decimal), "null", &[(4, records)]),
        None,
        0,
    );
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(error.unwrap().kind(), ErrorKind::InvalidData);
}

const ALL_TYPES: &str = r#"{"type":"record","name":"r","namespace":"a.b","doc":"a \"doc\"","fields":[
        {"name":"u","type":{"type":"record","name":"inner","fields":[
            {"name":"x","type":["null","int"],"default":null},
            {"name":"c","type":{"type":"enum","name":"color","symbols":["RED","BLUE"]}}]}},
        {"name":"v","type":"inner"},
        {"name":"w","type":["a.b.color","null"]},
        {"name":"l","type":{"type":"array","items":["null","string"]}},
        {"name":"m","type":{"type":"map","values":"long"}},
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"d","type":{"type":"int","logicalType":"date"}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"p","type":{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}},
        {"name":"q","type":{"type":"fixed","name":"q","size":4,"logicalType":"decimal","precision":8,"scale":1}},
        {"name":"f","type":{"type":"fixed","name":"f","size":2}}]}"#;

fn record_of_all_types() -> Vec<u8> {
    [
        long(1),
        long(7),
        long(1),
        long(0),
        long(0),
        long(0),
        long(1),
        long(2),
        long(1),
        text(b"a"),
        long(0),
        long(0),
        long(-1),
        long(3),
        text(b"k"),
        long(9),
        long(0),
        text(b"not a uuid"),
        long(19844),
        long(1_714_557_600_000_001),
        text(&[1, 0]),
        vec![0xff, 0xff, 0xff, 0xfe],
        vec![1, 2],
    ]
    .concat()
}

#[test]
fn each_type_is_a_column() {
    let bytes = container(ALL_TYPES, "null", &[(1, record_of_all_types())]);
    let (rows, error) = read(&bytes, None, 0);
    assert!(error.is_none(), "{error:?}");
    let shown =
        |name: &str| array_value_to_string(rows[0].column_by_name(name).unwrap(), 0).unwrap();
    for (name, expected) in [
        ("u", "{x: 7, c: BLUE}"),
        ("v", "{x: , c: RED}"),
        ("w", "BLUE"),
        ("l", "[a, ]"),
        ("m", "{k: 9}"),
        ("id", "not a uuid"),
        ("d", "2024-05-01"),
        ("at", "2024-05-01T10:00:00.000001Z"),
        ("p", "2.56"),
        ("q", "-0.2"),
        ("f", "0102"),
    ] {
        assert_eq!(shown(name), expected, "{name}");
    }
    let at = rows[0].column_by_name("at").unwrap().data_type().clone();
    assert!(matches!(
        at,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_))
    ));
    // Any of the fields alone, although the types of some are defined in others.
    for name in ["u", "v", "w", "f"] {
        let (part, error) = read(&bytes, Some(&[name, "none"]), 0);
        assert!(error.is_none(), "{name}: {error:?}");
        let found = array_value_to_string(part[0].column(0), 0).unwrap();
        assert_eq!((part[0].num_columns(), found), (1, shown(name)));
    }
    let (none, _) = read(&bytes, Some(&[]), 0);
    assert_eq!((none[0].num_columns(), none[0].num_rows()), (0, 1));
}

#[test]
fn large_records_are_read_few_at_a_time() {
    let records = (0..20).flat_map(|_| text(&vec![b'x'; 2 << 20])).collect();
    let (rows, error) = read(
        &container(&schema("\"string\""), "null", &[(20, records)]),
        None,
        0,
    );
    assert!(error.is_none(), "{error:?}");
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 20);
    assert!(rows.iter().all(|rows| rows.num_rows() <= 4));
}

#[test]
fn identity_stays_when_blocks_are_appended() {
    let bytes = written(&numbered(8), None);
    let start = Header::read(&stored(&bytes)).unwrap().len as usize;
    let of = |bytes: &[u8]| identity(&stored(bytes)).unwrap();
    let whole = of(&bytes);
    assert!(whole.is_complete);
    for len in 0..bytes.len() {
        let cut = of(&bytes[..len]);
        let first = AvroReader::open(stored(&bytes), None, 0)
            .unwrap()
            .blocks
            .end_of_first();
        match len as u64 {
            len if len >= first.unwrap() => assert_eq!(cut.bytes, whole.bytes),
            _ => assert!(!cut.is_complete, "{len}"),
        }
    }
    // Another file with the same rows has another marker.
    assert_ne!(of(&written(&numbered(8), None)).bytes, whole.bytes);
    let mut changed = bytes.clone();
    changed[start + 4] ^= 1;
    assert_ne!(of(&changed).bytes, whole.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        values in prop::collection::vec((any::<i64>(), prop::option::of(".{0,9}"), prop::option::of(prop::collection::vec(prop::option::of(any::<i32>()), 0..4))), 1..20),
        from in 0..20_usize,
        only_texts in any::<bool>(),
    ) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|row| row.0)));
        let texts: ArrayRef = Arc::new(values.iter().map(|row| row.1.clone()).collect::<StringArray>());
        let lists: ArrayRef = Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(
            values.iter().map(|row| row.2.clone()),
        ));
        let rows = RecordBatch::try_from_iter([("n", numbers), ("s", texts), ("l", lists)]).unwrap();
        let from = from.min(rows.num_rows());
        let bytes = written(&rows, Some(CompressionCodec::ZStandard));
        let fields: Option<&[&str]> = if only_texts { Some(&["s"]) } else { None };
        let (found, error) = read(&bytes, fields, from as u64);
        prop_assert!(error.is_none(), "{error:?}");
        let expected = rows.slice(from, rows.num_rows() - from);
        if let Some(first) = found.first() {
            let found = concat_batches(&first.schema(), &found).unwrap();
            for (field, column) in found.schema().fields().iter().zip(found.columns()) {
                let expected = expected.column_by_name(field.name()).unwrap();
                for row in 0..expected.len() {
                    prop_assert_eq!(
                        array_value_to_string(column, row).unwrap(),
                        array_value_to_string(expected, row).unwrap()
                    );
                }
            }
        }
        prop_assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), expected.num_rows());
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        schema_number in 0..4_usize,
        records in prop::collection::vec(any::<u8>(), 0..60),
        rows in 0..9_i64,
    ) {
        let types = [
            r#"{"type":"array","items":["null","string"]}"#,
            r#"{"type":"map","values":{"type":"fixed","name":"f","size":3}}"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
            r#"{"type":"record","name":"u","fields":[{"name":"x","type":["int","null"]},{"name":"y","type":{"type":"enum","name":"e","symbols":["A","B"]}}]}"#,
        ];
        let bytes = container(&schema(types[schema_number]), "null", &[(rows, records)]);
        let (found, error) = read(&bytes, None, 0);
        let found = found.iter().map(RecordBatch::num_rows).sum::<usize>() as i64;
        prop_assert!(found == rows || error.is_some());
    }
}
