use std::fs::File;
use std::io::Seek;

use arrow::array::{Array, AsArray};
use parquet::basic::{BrotliLevel, Compression};
use parquet::data_type::{ByteArray, FixedLenByteArray, FixedLenByteArrayType};
use parquet::file::metadata::ParquetMetaDataBuilder;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::Format;

use super::super::super::{ColumnFormat, ColumnReader, UsedValues};
use super::super::ParquetReader;
use super::*;

/// A file with one record, in which each column has the bytes 0, 1, 2, …
fn file(schema: &str, len: u8, columns: usize) -> File {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = tempfile::tempfile().unwrap();
    let out = file.try_clone().unwrap();
    let mut writer = SerializedFileWriter::new(out, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let value = FixedLenByteArray::from(ByteArray::from((0..len).collect::<Vec<u8>>()));
    for _ in 0..columns {
        let mut column = group.next_column().unwrap().unwrap();
        let typed = column.typed::<FixedLenByteArrayType>();
        let levels = typed.get_descriptor().max_def_level();
        let repeated = typed.get_descriptor().max_rep_level();
        let levels = (levels > 0).then(|| vec![levels]);
        let repeated = (repeated > 0).then(|| vec![0]);
        typed
            .write_batch(
                std::slice::from_ref(&value),
                levels.as_deref(),
                repeated.as_deref(),
            )
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn uuids_are_found_at_any_depth() {
    let schema = "message m {
        required fixed_len_byte_array(16) raw;
        required fixed_len_byte_array(16) id (UUID) = 7;
        optional group s { optional fixed_len_byte_array(16) id (UUID); }
        optional group l (LIST) { repeated group list {
            optional fixed_len_byte_array(16) element (UUID);
        } }
    }";
    let mut reader = ParquetReader::open(file(schema, 16, 4), &UsedValues::default(), 0).unwrap();
    let read = Payloads::of_columns(reader.next_rows().unwrap().unwrap());
    let fields = ColumnFormat::Parquet.infer("", std::slice::from_ref(&read));
    let fields = fields.unwrap();
    assert_eq!(*fields.field(0).data_type(), DataType::Binary);
    let wanted: Vec<_> = fields
        .fields()
        .iter()
        .map(|field| pseidon_plugin::format::WantedColumn {
            path: pseidon_dsl::expr::Path(vec![pseidon_dsl::expr::PathStep::Field(
                field.name().clone(),
            )]),
            field: field.clone(),
        })
        .collect();
    let mut decoder = ColumnFormat::Parquet.decoder("", &wanted).unwrap();
    let decoded = decoder.decode(&read);
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let [_, id, structs, lists] = decoded.columns.as_slice() else {
        panic!("four columns are wanted");
    };
    let lists = lists.as_list::<i32>();
    for texts in [id, structs.as_struct().column(0), lists.values()] {
        let text = texts.as_string::<i32>().value(0);
        assert_eq!(text, "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}

#[test]
fn an_interval_is_refused_by_its_name() {
    let schema = "message m {
        required fixed_len_byte_array(12) raw;
        required group s { required fixed_len_byte_array(12) i (INTERVAL); }
    }";
    let open = |used| ParquetReader::open(file(schema, 12, 2), &used, 0);
    let error = open(UsedValues::default()).err().unwrap().to_string();
    assert!(
        error.starts_with("the field `s.i` is an interval"),
        "{error}"
    );
    let used = UsedValues {
        fields: Some(vec!["raw".to_owned()]),
        ..Default::default()
    };
    let rows = open(used).unwrap().next_rows().unwrap().unwrap();
    assert_eq!(rows.column(0).len(), 1);
}

#[test]
fn a_compression_that_is_not_supported_is_named() {
    let file = file("message m { required fixed_len_byte_array(2) a; }", 2, 1);
    let metadata = ArrowReaderMetadata::load(&file, Default::default()).unwrap();
    let metadata = metadata.metadata().as_ref().clone();
    let group = metadata.row_group(0).clone();
    let column = group.column(0).clone().into_builder();
    let brotli = Compression::BROTLI(BrotliLevel::default());
    let column = column.set_compression(brotli).build().unwrap();
    let group = group.into_builder().set_column_metadata(vec![column]);
    let metadata = ParquetMetaDataBuilder::new(metadata.file_metadata().clone())
        .set_row_groups(vec![group.build().unwrap()])
        .build();
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), Default::default()).unwrap();
    let error = check_used(&metadata, &ProjectionMask::all()).unwrap_err();
    let error = super::super::of_parquet(error).to_string();
    assert!(
        error.starts_with("the field `a` is compressed with brotli, which is not supported"),
        "{error}"
    );
}
