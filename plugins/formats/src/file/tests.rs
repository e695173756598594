mod full_disk;
mod rejected;

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::LogicalType;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMillisecondType;
use pseidon_plugin::Rows;
use tempfile::TempDir;

use super::{CodecName, Compression, FileCodec, FileCodecSettings, FileEncoder};
use crate::testing::{as_came, changed, columns, rows};

fn settings(codec: CodecName, compression: Compression) -> FileCodecSettings {
    FileCodecSettings {
        codec,
        compression,
        level: None,
        row_group_bytes: 1 << 20,
        csv: Default::default(),
    }
}

const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Bzip2,
    Compression::Zstd,
];

struct Target {
    folder: TempDir,
    path: PathBuf,
}

fn target(codec: &FileCodec) -> Target {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("file.{}", codec.extension()));
    Target { folder, path }
}

fn finish(encoder: FileEncoder, metadata: &[(String, String)]) {
    let out = encoder.finish(metadata).unwrap();
    assert!(out.blocked().is_none());
    assert!(out.into_inner().is_ok());
}

/// The output of a command-line tool for the file.
fn tool(program: &str, args: &[&str], target: &Target) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .arg(&target.path)
        .current_dir(target.folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn read_back(compression: Compression, target: &Target) -> Vec<u8> {
    let mut content = Vec::new();
    let file = File::open(&target.path).unwrap();
    match compression {
        Compression::None => content = fs::read(&target.path).unwrap(),
        Compression::Gzip => {
            flate2::read::MultiGzDecoder::new(file)
                .read_to_end(&mut content)
                .unwrap();
            assert!(tool("zcat", &[], target) == content);
            tool("gzip", &["-t"], target);
        }
        Compression::Bzip2 => {
            bzip2::read::MultiBzDecoder::new(file)
                .read_to_end(&mut content)
                .unwrap();
            assert!(tool("bzcat", &[], target) == content);
        }
        Compression::Snappy => content = unsnappy(&fs::read(&target.path).unwrap()),
        Compression::Zstd => {
            zstd::stream::read::Decoder::new(file)
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
            assert!(tool("zstd", &["-dcq"], target) == content);
        }
    }
    content
}

/// Decodes the file as Hadoop's reader does, with its default buffer sizes.
fn unsnappy(mut file: &[u8]) -> Vec<u8> {
    let number = |file: &mut &[u8]| {
        let (length, rest) = file.split_first_chunk::<4>().unwrap();
        *file = rest;
        u32::from_be_bytes(*length) as usize
    };
    let mut content = Vec::new();
    while !file.is_empty() {
        let length = number(&mut file);
        if length == 0 {
            assert!(file.is_empty(), "a block of 0 bytes is the end");
            break;
        }
        let (chunk, rest) = file.split_at(number(&mut { file }) + 4);
        assert!(
            length <= 256 << 10 && chunk.len() - 4 <= 256 << 10,
            "larger than the reader's buffers"
        );
        let block = snap::raw::Decoder::new()
            .decompress_vec(&chunk[4..])
            .unwrap();
        assert_eq!(block.len(), length);
        content.extend(block);
        file = rest;
    }
    content
}

/// Batches of records of many sizes, together larger than a block.
fn records() -> Vec<Vec<Vec<u8>>> {
    let record = |batch: usize, at: usize| {
        format!(
            "{{\"n\": {at}, \"pad\": \"{}\"}}",
            (at * 7919 % 1000).to_string().repeat(batch * 40)
        )
        .into_bytes()
    };
    (0..8)
        .map(|batch| (0..500).map(|at| record(batch, at)).collect())
        .collect()
}

fn as_rows(records: &[Vec<u8>]) -> Rows {
    rows(
        &records
            .iter()
            .map(|record| Some(record.as_slice()))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn lines_are_read_back() {
    let extensions = [
        (Compression::None, "json"),
        (Compression::Gzip, "json.gz"),
        (Compression::Zstd, "json.zst"),
        (Compression::Snappy, "json.snappy"),
        (Compression::Bzip2, "json.bz2"),
    ];
    for (compression, extension) in extensions {
        let codec =
            FileCodec::new(settings(CodecName::Json, compression), &as_came("json")).unwrap();
        assert_eq!(codec.extension(), extension);
        let target = target(&codec);
        let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
        let mut expected = Vec::new();
        for (number, batch) in records().iter().enumerate() {
            let rows = as_rows(batch);
            assert_eq!(codec.check(&rows), []);
            encoder.write(&rows).unwrap();
            batch
                .iter()
                .for_each(|record| expected.extend([record, b"\n".as_slice()].concat()));
            if number == 3 {
                encoder.shed().unwrap();
                assert_eq!(encoder.memory(), 0);
                assert_eq!(
                    encoder.file_bytes(),
                    fs::metadata(&target.path).unwrap().len()
                );
            }
        }
        let estimate = encoder.file_bytes();
        finish(encoder, &[]);
        let size = fs::metadata(&target.path).unwrap().len();
        assert!(
            estimate.abs_diff(size) <= size / 5,
            "estimated {estimate}, actual {size}"
        );
        assert!(read_back(compression, &target) == expected, "{extension}");
    }
}

#[test]
fn a_file_without_records_is_valid() {
    for compression in COMPRESSIONS {
        let codec = FileCodec::new(settings(CodecName::Txt, compression), &as_came("txt")).unwrap();
        let target = target(&codec);
        finish(
            codec.open(File::create(&target.path).unwrap()).unwrap(),
            &[],
        );
        assert_eq!(read_back(compression, &target), b"");
    }
}

#[test]
fn levels_make_files_smaller() {
    for (compression, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, 1, 19)] {
        let size = |level| {
            let settings = FileCodecSettings {
                level: Some(level),
                ..settings(CodecName::Json, compression)
            };
            let codec = FileCodec::new(settings, &as_came("json")).unwrap();
            let target = target(&codec);
            let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
            encoder.write(&as_rows(&records()[1])).unwrap();
            finish(encoder, &[]);
            fs::metadata(&target.path).unwrap().len()
        };
        assert!(size(low) > size(high), "{compression:?}");
    }
}

fn table(rows: std::ops::Range<i64>) -> RecordBatch {
    let names: ArrayRef =
        Arc::new(StringArray::from_iter(rows.clone().map(|row| {
            (row % 7 != 0).then(|| format!("name {}", row * 7919 % 10_007))
        })));
    RecordBatch::try_from_iter_with_nullable([
        (
            "n",
            Arc::new(Int64Array::from_iter_values(rows)) as ArrayRef,
            true,
        ),
        ("name", names, true),
    ])
    .unwrap()
}

#[test]
fn parquet_is_read_back() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        CodecName::Parquet.default_compression(),
    ] {
        let tables: Vec<_> = (0..20)
            .map(|at| table(at * 5000..(at + 1) * 5000))
            .collect();
        let row_group_bytes = 200_000;
        let codec = FileCodec::new(
            FileCodecSettings {
                row_group_bytes,
                csv: Default::default(),
                ..settings(CodecName::Parquet, compression)
            },
            &columns(&tables[0]),
        )
        .unwrap();
        assert_eq!(codec.extension(), "parquet");
        let target = target(&codec);
        let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
        for (number, table) in tables.iter().enumerate() {
            encoder.write(&changed(table.clone())).unwrap();
            assert!(
                encoder.memory() < 20 * row_group_bytes,
                "{}",
                encoder.memory()
            );
            if number == 9 {
                encoder.shed().unwrap();
                assert!(
                    encoder
                        .file_bytes()
                        .abs_diff(fs::metadata(&target.path).unwrap().len())
                        < 100
                );
            }
        }
        finish(
            encoder,
            &[(
                "pseidon.positions".to_owned(),
                "{\"t/0\": [0, 9]}".to_owned(),
            )],
        );

        let reader =
            ParquetRecordBatchReaderBuilder::try_new(File::open(&target.path).unwrap()).unwrap();
        let metadata = reader.metadata().clone();
        assert!(metadata.num_row_groups() > 2, "row groups end by bytes");
        let group = metadata.row_group(0).column(0);
        assert!(group.statistics().is_some() && group.dictionary_page_offset().is_some());
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(pairs.iter().any(|pair| pair.key == "pseidon.positions"
            && pair.value.as_deref() == Some("{\"t/0\": [0, 9]}")));
        let read: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(
            concat_batches(&tables[0].schema(), &read).unwrap(),
            concat_batches(&tables[0].schema(), &tables).unwrap()
        );
    }
}

#[test]
fn timestamps_in_seconds_are_milliseconds_in_parquet() {
    let seconds = TimestampSecondArray::from(vec![Some(1_704_067_200), None]).with_timezone("UTC");
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let written =
        RecordBatch::try_from_iter([("at", Arc::new(seconds) as ArrayRef), ("n", numbers)]);
    let written = written.unwrap();
    let parquet = settings(CodecName::Parquet, Compression::None);
    let codec = FileCodec::new(parquet, &columns(&written)).unwrap();
    let target = target(&codec);
    let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
    encoder.write(&changed(written)).unwrap();
    finish(encoder, &[]);
    let file = File::open(&target.path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let logical = reader
        .parquet_schema()
        .column(0)
        .logical_type_ref()
        .cloned();
    let is_time = matches!(logical, Some(LogicalType::Timestamp { .. }));
    assert!(is_time, "{logical:?}");
    let read = reader.build().unwrap().next().unwrap().unwrap();
    let at = read.column(0).as_primitive::<TimestampMillisecondType>();
    assert_eq!(
        at.iter().collect::<Vec<_>>(),
        [Some(1_704_067_200_000), None]
    );
}

#[test]
fn seconds_that_parquet_cannot_hold_are_reported() {
    let seconds = TimestampSecondArray::from(vec![Some(i64::MAX), Some(1), Some(i64::MIN)]);
    let rows = RecordBatch::try_from_iter([("at", Arc::new(seconds) as ArrayRef)]).unwrap();
    let parquet = settings(CodecName::Parquet, Compression::None);
    let codec = FileCodec::new(parquet, &columns(&rows)).unwrap();
    let bad = codec.check(&changed(rows));
    let numbers: Vec<u32> = bad.iter().map(|bad| bad.row).collect();
    assert_eq!(numbers, [0, 2]);
    let reason = "`at` is out of range for a timestamp of parquet in milliseconds";
    assert_eq!(bad[0].reason, reason);
}

#[test]
fn incompressible_data_fits_into_hadoops_buffers() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let records: Vec<Vec<u8>> = (0..3)
        .map(|_| (0..300_000).map(|_| noise()).collect())
        .collect();
    let codec = FileCodec::new(
        settings(CodecName::Raw, Compression::Snappy),
        &as_came("raw"),
    )
    .unwrap();
    let target = target(&codec);
    let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
    encoder.write(&as_rows(&records)).unwrap();
    finish(encoder, &[]);
    let expected: Vec<u8> = records
        .iter()
        .flat_map(|record| [record, b"\n".as_slice()].concat())
        .collect();
    assert!(read_back(Compression::Snappy, &target) == expected);
}
