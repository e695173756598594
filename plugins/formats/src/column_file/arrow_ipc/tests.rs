use std::io::{ErrorKind, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array, StringArray, UnionArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, UnionFields};
use arrow::util::display::array_value_to_string;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use proptest::prelude::*;

use super::*;

mod expanding;

const COMPRESSIONS: [Option<CompressionType>; 3] = [
    None,
    Some(CompressionType::LZ4_FRAME),
    Some(CompressionType::ZSTD),
];

fn stored(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A file with these rows, in batches of three.
fn written(rows: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default();
    let options = options.try_with_compression(compression).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &rows.schema(), options).unwrap();
    for from in (0..rows.num_rows()).step_by(3) {
        let len = (rows.num_rows() - from).min(3);
        writer.write(&rows.slice(from, len)).unwrap();
    }
    writer.into_inner().unwrap()
}

fn numbered(count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let texts = (0..count).map(|number| (number % 4 != 1).then(|| "text ".repeat(9)));
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    let words: DictionaryArray<Int32Type> = (0..count).map(|_| Some("word")).collect();
    let words: ArrayRef = Arc::new(words);
    RecordBatch::try_from_iter([("n", numbers), ("s", texts), ("d", words)]).unwrap()
}

/// The rows of a file up to its end or its damage, and what is wrong there.
fn read_all(
    bytes: &[u8],
    fields: Option<&[&str]>,
    from: u64,
) -> (Vec<RecordBatch>, Option<io::Error>) {
    let fields: Option<Vec<String>> =
        fields.map(|fields| fields.iter().map(|name| (*name).to_owned()).collect());
    let mut all = Vec::new();
    let mut reader = match ArrowReader::open(stored(bytes), fields.as_deref(), from) {
        Ok(reader) => reader,
        Err(error) => return (all, Some(error)),
    };
    let mut position = from;
    loop {
        assert_eq!(reader.position(), position);
        match reader.next_rows() {
            Ok(Some(rows)) => {
                assert!(rows.num_rows() > 0);
                assert_eq!(rows.schema(), reader.empty().schema());
                position += rows.num_rows() as u64;
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

#[test]
fn rows_are_read_from_any_position_in_each_compression() {
    for compression in COMPRESSIONS {
        let bytes = written(&numbered(8), compression);
        for from in 0..=8 {
            let (rows, error) = read_all(&bytes, None, from);
            assert!(error.is_none(), "{compression:?} {from}: {error:?}");
            assert_eq!(numbers(&rows), (from as i64..8).collect::<Vec<_>>());
        }
        let (_, error) = read_all(&bytes, None, 9);
        assert!(error.unwrap().to_string().contains("it was truncated"));
        let (rows, _) = read_all(&bytes, Some(&["d", "none"]), 7);
        assert_eq!(rows[0].num_columns(), 1);
        assert_eq!(array_value_to_string(rows[0].column(0), 0).unwrap(), "word");
        let (rows, _) = read_all(&bytes, Some(&[]), 1);
        let counts: Vec<usize> = rows.iter().map(RecordBatch::num_rows).collect();
        assert_eq!((counts, rows[0].num_columns()), (vec![2, 3, 2], 0));
    }
}

#[test]
fn a_large_batch_is_passed_on_in_parts() {
    let texts = (0..20).map(|number| format!("{number} {}", "x".repeat(2 << 20)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("s", texts)]).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    let (found, error) = read_all(&writer.into_inner().unwrap(), None, 0);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(concat_batches(&rows.schema(), &found).unwrap(), rows);
    for part in &found[..found.len() - 1] {
        let memory = part.get_array_memory_size();
        assert!(part.num_rows() <= 4 && memory < 16 << 20, "{memory}");
    }
}

#[test]
fn a_cut_file_has_no_end() {
    let bytes = written(&numbered(8), None);
    for len in 0..bytes.len() {
        let (rows, error) = read_all(&bytes[..len], None, 0);
        assert!(rows.is_empty());
        assert_eq!(error.unwrap().kind(), ErrorKind::UnexpectedEof, "{len}");
        assert!(!identity(&stored(&bytes[..len])).unwrap().is_complete);
    }
    assert!(identity(&stored(&bytes)).unwrap().is_complete);
}

#[test]
fn a_changed_byte_loses_no_rows_of_the_batches_before() {
    for compression in COMPRESSIONS {
        let bytes = written(&numbered(8), compression);
        let layout = Layout::read(&stored(&bytes)).unwrap();
        let end = |block: &Block| {
            let len = block.bodyLength() + i64::from(block.metaDataLength());
            (block.offset() + len) as usize
        };
        let ends: Vec<usize> = layout.batches.iter().map(end).collect();
        let start = layout.batches[0].offset() as usize;
        for (at, change) in (0..bytes.len()).flat_map(|at| [(at, 0x55), (at, 0xff)]) {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let (rows, error) = read_all(&changed, None, 0);
            let kind = error.as_ref().map(io::Error::kind);
            let kinds = [
                None,
                Some(ErrorKind::InvalidData),
                Some(ErrorKind::UnexpectedEof),
            ];
            assert!(kinds.contains(&kind), "{at}: {error:?}");
            if (start..layout.end as usize).contains(&at) {
                let before = 3 * ends.iter().filter(|end| **end <= at).count() as i64;
                let expected: Vec<i64> = (0..before.min(8)).collect();
                let found = numbers(&rows);
                assert_eq!(found.get(..expected.len()), Some(&expected[..]), "{at}");
            }
        }
    }
}

#[test]
fn what_a_file_declares_takes_no_memory() {
    let bytes = written(&numbered(8), Some(CompressionType::ZSTD));
    let layout = Layout::read(&stored(&bytes)).unwrap();
    let block = layout.batches[0];
    let body = (block.offset() + i64::from(block.metaDataLength())) as usize;
    // Each buffer begins with its length before compression.
    let body = body..body + block.bodyLength() as usize;
    for length in [i64::MAX, 1 << 40, -2, i64::MIN] {
        let mut refused = 0;
        for at in body.clone().step_by(8) {
            let mut changed = bytes.clone();
            changed[at..at + 8].copy_from_slice(&length.to_le_bytes());
            let (_, error) = read_all(&changed, None, 0);
            let reason = error.map_or_else(String::new, |error| error.to_string());
            refused += usize::from(reason.contains("more than 2 GiB"));
        }
        assert!(refused >= 2, "{length}: {refused}");
    }
    let trailer = bytes.len() - 10;
    for size in [i32::MAX, -1, trailer as i32 + 1] {
        let mut changed = bytes.clone();
        changed[trailer..trailer + 4].copy_from_slice(&size.to_le_bytes());
        let (_, error) = read_all(&changed, None, 0);
        let reason = error.unwrap().to_string();
        assert!(reason.contains("the length of its footer"), "{reason}");
    }
    // The places of the blocks are in the footer, as numbers of 8 bytes.
    for place in [-1, i64::MAX, 1 << 40] {
        let mut refused = 0;
        for at in (layout.end as usize..trailer - 8).step_by(4) {
            let mut changed = bytes.clone();
            changed[at..at + 8].copy_from_slice(&place.to_le_bytes());
            let (_, error) = read_all(&changed, None, 0);
            let reason = error.map_or_else(String::new, |error| error.to_string());
            refused += usize::from(reason.contains("a block is not in the file"));
        }
        assert!(refused >= 4, "{place}: {refused}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let rows = numbered(2);
    let mut stream = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    stream.write(&rows).unwrap();
    let fields: UnionFields = [(0, Arc::new(Field::new("a", DataType::Int64, true)))]
        .into_iter()
        .collect();
    let values: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let union = UnionArray::try_new(fields, vec![0].into(), None, vec![values]).unwrap();
    let union: ArrayRef = Arc::new(union);
    let unions = RecordBatch::try_from_iter([("u", union)]).unwrap();
    for (bytes, reason) in [
        (stream.into_inner().unwrap(), "it is an Arrow stream"),
        (b"FEA1....FEA1".to_vec(), "a Feather file of version 1"),
        (b"{\"a\":1}\n".to_vec(), "it is not an Arrow file"),
        (
            written(&unions, None),
            "the field `u` cannot be read: it has a union of several types",
        ),
    ] {
        let (_, error) = read_all(&bytes, None, 0);
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_rewritten_file_has_another_identity() {
    let of = |at: usize, value: i64| {
        let mut values: Vec<i64> = (0..300).collect();
        values[at] = value;
        let numbers: ArrayRef = Arc::new(Int64Array::from(values));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        identity(&stored(&written(&rows, None))).unwrap().bytes
    };
    assert_eq!(of(0, 7), of(0, 7));
    assert_ne!(of(0, 7), of(0, 8));
    assert_ne!(of(150, 7), of(150, 8));
    assert_ne!(of(299, 7), of(299, 8));
}

#[test]
fn a_large_file_is_known_by_samples_of_all_of_it() {
    let of = |at: usize, value: u8| {
        let mut bytes = vec![0; 9 << 20];
        bytes[at..at + (16 << 10)].fill(value);
        identity(&stored(&bytes)).unwrap().bytes
    };
    let last = (9 << 20) - (16 << 10);
    for at in [0, 1 << 20, 5_000_000, last] {
        // The bytes are too many to be shown.
        assert!(of(at, 1) == of(at, 1), "{at}");
        assert!(of(at, 1) != of(at, 2), "{at}");
    }
    assert_eq!(of(0, 1).len() as u64, SAMPLES * SAMPLE_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        values in prop::collection::vec((any::<i64>(), prop::option::of(".{0,9}")), 1..20),
        from in 0..20_usize,
        compression in 0..3_usize,
    ) {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|row| row.0)));
        let texts: StringArray = values.iter().map(|row| row.1.clone()).collect();
        let texts: ArrayRef = Arc::new(texts);
        let rows = RecordBatch::try_from_iter_with_nullable([("n", ids, false), ("s", texts, true)]);
        let rows = rows.unwrap();
        let from = from.min(rows.num_rows());
        let bytes = written(&rows, COMPRESSIONS[compression]);
        let (found, error) = read_all(&bytes, None, from as u64);
        prop_assert!(error.is_none(), "{error:?}");
        let found = concat_batches(&rows.schema(), &found).unwrap();
        prop_assert_eq!(found, rows.slice(from, rows.num_rows() - from));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        compression in 0..3_usize,
    ) {
        let mut bytes = written(&numbered(8), COMPRESSIONS[compression]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let (_, error) = read_all(&bytes, None, 0);
        let kind = error.as_ref().map(io::Error::kind);
        let kinds = [None, Some(ErrorKind::InvalidData), Some(ErrorKind::UnexpectedEof)];
        prop_assert!(kinds.contains(&kind), "{error:?}");
    }
}
