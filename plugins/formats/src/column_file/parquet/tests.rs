use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    LargeStringArray, ListArray, StringArray, StructArray, TimestampNanosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Format, WantedColumn};

use super::super::ColumnFormat;
use super::*;

/// A file with these rows, in groups of three.
pub(super) fn written(rows: &RecordBatch) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(3));
    let properties = Some(groups.build());
    let out = file.try_clone().unwrap();
    let mut writer = ArrowWriter::try_new(out, rows.schema(), properties).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    file.rewind().unwrap();
    file
}

fn numbered(count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let texts = (0..count).map(|number| format!("text {number}"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap()
}

fn path(text: &str) -> Path {
    let steps = text.split('.').map(|step| match step.parse() {
        Ok(index) => PathStep::Index(index),
        Err(_) => PathStep::Field(step.to_owned()),
    });
    Path(steps.collect())
}

fn decoded(rows: &RecordBatch, at: &str, to: DataType) -> (ArrayRef, Vec<String>) {
    let wanted = WantedColumn {
        path: path(at),
        field: Arc::new(Field::new(at, to, true)),
    };
    let mut decoder = ColumnFormat::Parquet.decoder("", &[wanted]).unwrap();
    let decoded = decoder.decode(&Payloads::of_columns(rows.clone()));
    let reasons = decoded.bad.into_iter().map(|bad| bad.reason).collect();
    (decoded.columns[0].clone(), reasons)
}

fn all() -> UsedValues {
    UsedValues::default()
}

fn used(fields: Vec<String>) -> UsedValues {
    UsedValues {
        fields: Some(fields),
        ..all()
    }
}

#[test]
fn rows_are_read_from_any_position() {
    for from in 0..=8 {
        let mut reader = ParquetReader::open(written(&numbered(8)), &all(), from).unwrap();
        assert_eq!(reader.position(), from);
        let mut read = Vec::new();
        while let Some(rows) = reader.next_rows().unwrap() {
            assert!(rows.num_rows() > 0);
            let numbers = rows.column(0).as_primitive::<Int64Type>();
            read.extend(numbers.values().iter().map(|number| *number as u64));
            assert_eq!(reader.position(), read.last().unwrap() + 1);
        }
        assert_eq!(read, (from..8).collect::<Vec<_>>());
    }
}

/// Also if they are read at once with damaged ones.
#[test]
fn the_rows_before_a_damaged_group_are_read() {
    let mut damaged = Vec::new();
    written(&numbered(300)).read_to_end(&mut damaged).unwrap();
    let len = damaged.len();
    damaged[len / 4..len / 2].fill(0xee);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&damaged).unwrap();
    let open = |from| ParquetReader::open(file.try_clone().unwrap(), &all(), from).unwrap();
    let (mut reader, mut read) = (open(0), 0);
    let error = loop {
        match reader.next_rows() {
            Ok(Some(rows)) => read += rows.num_rows() as u64,
            Ok(None) => panic!("the damage is not found"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(reader.position(), read);
    assert!((1..300).contains(&read) && read % 3 == 0, "{read}");
    // From there on nothing can be read.
    assert!(open(read).next_rows().is_err());
}

#[test]
fn only_the_used_columns_are_read() {
    let open = |fields: &[&str]| {
        let fields: Vec<String> = fields.iter().map(|name| (*name).to_owned()).collect();
        let file = written(&numbered(2));
        let mut reader = ParquetReader::open(file, &used(fields), 1).unwrap();
        let empty = reader.empty();
        let rows = reader.next_rows().unwrap().unwrap();
        assert_eq!(rows.schema(), empty.schema());
        let names = rows
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        (names, rows.num_rows())
    };
    assert_eq!(open(&["s", "none"]), (vec!["s".to_owned()], 1));
    assert_eq!(open(&[]), (vec![], 1));
}

#[test]
fn wide_rows_are_read_few_at_a_time() {
    let texts = (0..20).map(|number| format!("{number} {}", "x".repeat(2 << 20)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("s", texts)]).unwrap();
    let mut reader = ParquetReader::open(written(&rows), &all(), 0).unwrap();
    while let Some(rows) = reader.next_rows().unwrap() {
        assert!(rows.num_rows() <= 4, "{}", rows.num_rows());
    }
}

/// The fuzzer found it: with a position in the group, the library skipped rows forever.
#[test]
fn damaged_levels_are_an_error_from_any_position() {
    let file = include_bytes!("tests/damaged_levels.parquet");
    for from in 0..3 {
        let mut opened = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut opened, file).unwrap();
        let mut reader = ParquetReader::open(opened, &all(), from).unwrap();
        let error = reader.next_rows().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{from}: {error}");
    }
}

/// Found by the fuzz target `parquet`: the header of a page ends in a list that is longer than the
/// file, whose elements the library skipped one by one at the end of the file.
#[test]
fn a_header_with_a_damaged_length_is_an_error() {
    let file = include_bytes!("tests/damaged_length.parquet");
    let mut opened = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut opened, file).unwrap();
    let mut reader = ParquetReader::open(opened, &all(), 0).unwrap();
    let error = reader.next_rows().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
}

#[test]
fn an_incomplete_file_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let kind = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let opened = ParquetReader::open(File::open(&path).unwrap(), &all(), 0);
        let read = opened.and_then(|mut reader| {
            while reader.next_rows()?.is_some() {}
            Ok(())
        });
        read.err().map(|error| error.kind())
    };
    let mut bytes = Vec::new();
    written(&numbered(8)).read_to_end(&mut bytes).unwrap();
    assert_eq!(kind(&bytes), None);
    for len in 0..bytes.len() {
        assert_eq!(kind(&bytes[..len]), Some(ErrorKind::UnexpectedEof), "{len}");
    }
    assert_eq!(
        kind(b"{\"a\":1}\n{\"a\":2}\n"),
        Some(ErrorKind::InvalidData)
    );
    // A changed byte is an error or another value, but nothing else.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        let expected = match at + MAGIC.len() >= bytes.len() {
            true => ErrorKind::UnexpectedEof,
            false => ErrorKind::InvalidData,
        };
        let kind = kind(&changed);
        assert!(kind.is_none() || kind == Some(expected), "{at}: {kind:?}");
    }
}

#[test]
fn types_of_storage_become_the_types_of_values() {
    let words = ["a", "b", "a"];
    let dictionary: DictionaryArray<Int32Type> = words.into_iter().collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("long", Arc::new(LargeStringArray::from(words.to_vec()))),
        ("words", Arc::new(dictionary)),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])),
        ),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut reader = ParquetReader::open(written(&rows), &all(), 0).unwrap();
    let read = Payloads::of_columns(reader.next_rows().unwrap().unwrap());
    let schema = ColumnFormat::Parquet
        .infer("", std::slice::from_ref(&read))
        .unwrap();
    let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.data_type())
        .collect();
    assert_eq!(types, [&DataType::Utf8, &DataType::Utf8, &utc]);
    for field in schema.fields() {
        let to = field.data_type().clone();
        let (values, bad) = decoded(read.columns().unwrap(), field.name(), to);
        assert_eq!((values.null_count(), bad), (0, vec![]), "{}", field.name());
    }
}

#[test]
fn paths_lead_into_structs_and_lists() {
    let inner: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3)]));
    let field = Arc::new(Field::new("x", DataType::Int32, true));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let structs: ArrayRef = Arc::new(StructArray::new(
        vec![field].into(),
        vec![inner],
        Some(nulls),
    ));
    let lists = [Some(vec![Some(7), Some(8)]), None, Some(vec![Some(9)])];
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
    let rows = RecordBatch::try_from_iter([("u", structs), ("l", lists)]).unwrap();
    for (path, expected) in [
        ("u.x", [Some(1), None, Some(3)]),
        ("u.y", [None; 3]),
        ("l.0", [Some(7), None, Some(9)]),
        ("l.1", [Some(8), None, None]),
        ("none", [None; 3]),
        ("u.x.y", [None; 3]),
    ] {
        let (values, bad) = decoded(&rows, path, DataType::Int32);
        assert_eq!(bad, Vec::<String>::new(), "{path}");
        let values = values.as_primitive::<Int32Type>();
        assert_eq!(values.iter().collect::<Vec<_>>(), expected, "{path}");
    }
}

#[test]
fn a_value_that_does_not_fit_its_type_is_invalid() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1 << 40), None]));
    let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let (values, bad) = decoded(&rows, "n", DataType::Int32);
    assert_eq!(bad, ["`n` is not int32: 1099511627776"]);
    assert_eq!(values.as_primitive::<Int32Type>().value(0), 1);
    let to = DataType::List(Arc::new(Field::new("item", DataType::Boolean, true)));
    let (_, bad) = decoded(
        &rows,
        "n",
        DataType::Struct(vec![Field::new("a", to, true)].into()),
    );
    assert_eq!(bad.len(), 3);
}

#[test]
fn a_value_inside_of_another_that_does_not_fit_is_invalid_too() {
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1 << 40), None]));
    let field = Arc::new(Field::new("x", DataType::Int64, true));
    let structs: ArrayRef = Arc::new(StructArray::new(vec![field].into(), vec![inner], None));
    let lists = [Some(vec![Some(1 << 40)]), Some(vec![Some(2), None]), None];
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
    let rows = RecordBatch::try_from_iter([("u", structs), ("l", lists)]).unwrap();
    let to = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
    let (values, bad) = decoded(&rows, "u", to);
    assert_eq!(bad, ["`u` is not {x int32}: {x: 1099511627776}"]);
    let inner = values.as_struct().column(0).as_primitive::<Int32Type>();
    assert_eq!(inner.value(0), 1);
    assert!(values.is_valid(2) && inner.is_null(2));
    let to = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    let (values, bad) = decoded(&rows, "l", to);
    assert_eq!(bad, ["`l` is not [int32]: [1099511627776]"]);
    let second = values.as_list::<i32>().value(1);
    assert_eq!(second.as_primitive::<Int32Type>().value(0), 2);
}

#[test]
fn a_number_that_is_too_large_for_a_float_is_invalid() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1e400", "1e38", "-1e39", "inf"]));
    let doubles = Float64Array::from(vec![1e39, 1.0, -1e300, f64::NEG_INFINITY]);
    let doubles: ArrayRef = Arc::new(doubles);
    let field = Arc::new(Field::new("x", DataType::Float64, true));
    let structs: ArrayRef = Arc::new(StructArray::from(vec![(field, doubles.clone())]));
    let lists = [
        Some(vec![Some(1e39), Some(1.0)]),
        Some(vec![None, Some(f64::INFINITY)]),
        None,
        Some(vec![Some(0.5), Some(-1e39)]),
    ];
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let views = cast(&lists, &DataType::LargeListView(item)).unwrap();
    let inner: ArrayRef = Arc::new(lists.clone());
    let field = Arc::new(Field::new("l", inner.data_type().clone(), true));
    let deep: ArrayRef = Arc::new(StructArray::from(vec![(field, inner)]));
    let rows = RecordBatch::try_from_iter([
        ("t", texts),
        ("d", doubles),
        ("u", structs),
        ("l", Arc::new(lists)),
        ("v", views),
        ("deep", deep),
    ]);
    let (rows, float) = (rows.unwrap(), DataType::Float32);
    let list = DataType::List(Arc::new(Field::new("item", float.clone(), true)));
    let of = |name: &str, of: &DataType| {
        DataType::Struct(vec![Field::new(name, of.clone(), true)].into())
    };
    for (name, to, expected) in [
        ("t", &DataType::Float64, &[0][..]),
        ("t", &float, &[0, 2]),
        ("d", &DataType::Float64, &[]),
        ("d", &float, &[0, 2]),
        ("u", &of("x", &float), &[0, 2]),
        ("l", &list, &[0, 3]),
        ("v", &list, &[0, 3]),
        ("deep", &of("l", &list), &[0, 3]),
    ] {
        let wanted = WantedColumn {
            path: path(name),
            field: Arc::new(Field::new(name, to.clone(), true)),
        };
        let mut decoder = ColumnFormat::Parquet.decoder("", &[wanted]).unwrap();
        let bad = decoder.decode(&Payloads::of_columns(rows.clone())).bad;
        let found: Vec<u32> = bad.iter().map(|bad| bad.row).collect();
        assert_eq!(found, expected, "{name} {to}");
        let is_named = |reason: &str| reason.contains(&format!("`{name}` is out of range for"));
        assert!(bad.iter().all(|bad| is_named(&bad.reason)), "{bad:?}");
    }
}

/// All rows from this position, and the error behind them.
fn read_all(file: File, used: &UsedValues, from: u64) -> (Vec<RecordBatch>, Option<io::Error>) {
    let mut found = Vec::new();
    let mut reader = match ParquetReader::open(file, used, from) {
        Ok(reader) => reader,
        Err(error) => return (found, Some(error)),
    };
    loop {
        match reader.next_rows() {
            Ok(Some(rows)) => found.push(rows),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        values in prop::collection::vec((any::<i64>(), prop::option::of(".{0,9}")), 1..20),
        from in 0..20_usize,
        only_texts in any::<bool>(),
    ) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|row| row.0)));
        let texts: StringArray = values.iter().map(|row| row.1.clone()).collect();
        let texts: ArrayRef = Arc::new(texts);
        let rows = [("n", numbers, false), ("s", texts, true)];
        let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
        let from = from.min(rows.num_rows());
        let used = if only_texts { used(vec!["s".to_owned()]) } else { all() };
        let (found, error) = read_all(written(&rows), &used, from as u64);
        prop_assert!(error.is_none(), "{error:?}");
        let expected = if only_texts { rows.project(&[1]).unwrap() } else { rows };
        let found = concat_batches(&expected.schema(), &found).unwrap();
        let expected = expected.slice(from, expected.num_rows() - from);
        prop_assert_eq!(found.columns(), expected.columns());
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        from in 0..9_u64,
    ) {
        let mut bytes = Vec::new();
        written(&numbered(8)).read_to_end(&mut bytes).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let (_, error) = read_all(file, &all(), from);
        let kind = error.as_ref().map(io::Error::kind);
        let kinds = [ErrorKind::InvalidData, ErrorKind::UnexpectedEof, ErrorKind::Unsupported];
        prop_assert!(kind.is_none_or(|kind| kinds.contains(&kind)), "{error:?}");
    }
}
