//! Files in which a few bytes stand for many values.

use arrow::array::{
    Array, FixedSizeListArray, Int8Array, Int32Array, ListViewArray, NullArray, RunArray,
    StringViewBuilder, StructArray,
};
use arrow::datatypes::Int8Type;

use super::numbers as numbers_in;
use super::*;

/// A file of one batch with this column, `v`.
fn of_column(values: ArrayRef, compression: Option<CompressionType>) -> Vec<u8> {
    let rows = RecordBatch::try_from_iter([("v", values)]).unwrap();
    let options = IpcWriteOptions::default();
    let options = options.try_with_compression(compression).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &rows.schema(), options).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// Lists of `len` nulls each.
fn nulls(count: usize, len: i32) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(DataType::Null, true));
    let values = Arc::new(NullArray::new(count * len as usize));
    Arc::new(FixedSizeListArray::new(item, len, values, None))
}

/// Columns of 100 rows, each of which takes about 1 MB as a column of values, and a few bytes here.
fn repeated() -> Vec<(&'static str, ArrayRef)> {
    const ROWS: usize = 100;
    let long = "x".repeat(1 << 20);
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values([&long]));
    let keys = Int8Array::from_iter_values(vec![0; ROWS]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(keys, texts.clone()));
    let run_ends = Int32Array::from_iter_values([ROWS as i32]);
    let runs = RunArray::<Int32Type>::try_new(&run_ends, texts.as_ref()).unwrap();
    let mut views = StringViewBuilder::new().with_deduplicate_strings();
    (0..ROWS).for_each(|_| views.append_value(&long));
    let bytes = Int8Array::from_iter_values(vec![7; 100_000]);
    let item = Arc::new(Field::new_list_field(DataType::Int8, true));
    let (starts, lengths) = (vec![0; ROWS].into(), vec![100_000; ROWS].into());
    let list_views = ListViewArray::new(item, starts, lengths, Arc::new(bytes), None);
    let field = Field::new("inner", dictionary.data_type().clone(), true);
    let structs = StructArray::from(vec![(Arc::new(field), dictionary.clone())]);
    vec![
        ("lists of nulls", nulls(ROWS, 100_000)),
        ("a dictionary", dictionary),
        ("a dictionary in a struct", Arc::new(structs)),
        ("a run", Arc::new(runs)),
        ("views", Arc::new(views.finish())),
        ("list views", Arc::new(list_views)),
    ]
}

#[test]
fn rows_are_passed_on_by_what_they_take_as_values() {
    for (name, values) in repeated() {
        for compression in COMPRESSIONS {
            let bytes = of_column(values.clone(), compression);
            let (found, error) = read_all(&bytes, None, 0);
            assert!(error.is_none(), "{name}: {error:?}");
            let counts: Vec<usize> = found.iter().map(RecordBatch::num_rows).collect();
            assert_eq!(counts.iter().sum::<usize>(), 100, "{name}");
            assert!(
                counts.iter().all(|count| *count <= 12),
                "{name}: {counts:?}"
            );
            let last = found.last().unwrap().column(0);
            let expected = array_value_to_string(&values, 99).unwrap();
            let shown = array_value_to_string(last, last.len() - 1).unwrap();
            assert!(shown == expected, "{name}");
        }
    }
    // Rows of a few bytes are not parted further than they need to be.
    let (found, _) = read_all(&of_column(nulls(20_000, 3), None), None, 0);
    let counts: Vec<usize> = found.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(counts, [8192, 8192, 3616]);
}

#[test]
fn a_record_that_takes_too_much_is_refused() {
    let (found, error) = read_all(&of_column(nulls(2, 300_000_000), None), None, 0);
    assert!(found.is_empty());
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let reason = "its record 0 takes more than 256 MiB of memory: write smaller records";
    assert_eq!(error.to_string(), reason);
}

#[test]
fn a_part_does_not_keep_the_memory_of_columns_that_are_not_used() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let texts = (0..100).map(|_| "x".repeat(400_000));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap();
    let mut writer = FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    let (found, _) = read_all(&writer.into_inner().unwrap(), Some(&["n"]), 0);
    assert_eq!(numbers_in(&found), (0..100).collect::<Vec<_>>());
    assert_eq!(found.len(), 1);
    let mut memory = ArrayMemory::default();
    memory.add(found[0].column(0));
    assert!(memory.bytes() < 1 << 20, "{}", memory.bytes());
}

#[test]
fn the_dictionaries_of_a_file_have_a_limit_together() {
    let words = |name: &str| -> ArrayRef {
        let word = format!("{name}{}", "x".repeat(1000));
        let words = [Some(word.as_str())].into_iter();
        Arc::new(words.collect::<DictionaryArray<Int32Type>>())
    };
    let rows = RecordBatch::try_from_iter([("a", words("a")), ("b", words("b"))]).unwrap();
    let file = stored(&written(&rows, None));
    let layout = Layout::read(&file).unwrap();
    assert_eq!(layout.dictionaries.len(), 2);
    for (most, is_read) in [(10_000, true), (1500, false)] {
        let mut decoder = FileDecoder::new(layout.schema.clone(), layout.version);
        let outcome = read_dictionaries(&mut decoder, &file, &layout.dictionaries, most);
        assert_eq!(outcome.is_ok(), is_read, "{outcome:?}");
    }
}
