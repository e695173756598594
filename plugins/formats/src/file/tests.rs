use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pseidon_plugin::Rows;
use pseidon_plugin::format::json_field;
use pseidon_plugin::sink::SinkInput;
use rustix::fs::{OFlags, fcntl_setfl};
use tempfile::TempDir;

use super::{CodecName, Compression, FileCodec, FileCodecSettings, FileEncoder};
use crate::testing::{as_came, changed, columns, rows};

fn settings(codec: CodecName, compression: Compression) -> FileCodecSettings {
    FileCodecSettings {
        codec,
        compression,
        level: None,
        row_group_bytes: 1 << 20,
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

/// A file that accepts 64 KiB, then nothing until the other end reads. To a writer it looks like a
/// full disk.
fn narrow_file() -> (PipeReader, File) {
    let (reader, writer) = io::pipe().unwrap();
    fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    (reader, File::from(OwnedFd::from(writer)))
}

/// Reads all available bytes.
fn drain(reader: &mut PipeReader, into: &mut Vec<u8>) {
    match reader.read_to_end(into) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

#[test]
fn a_full_disk_loses_no_data() {
    let all = [
        settings(CodecName::Json, Compression::None),
        settings(CodecName::Json, Compression::Gzip),
        settings(CodecName::Json, Compression::Zstd),
        settings(CodecName::Json, Compression::Snappy),
        FileCodecSettings {
            row_group_bytes: 300_000,
            ..settings(CodecName::Parquet, Compression::Zstd)
        },
        settings(CodecName::Avro, Compression::Snappy),
    ];
    // Avro files have a random marker after each block; the file ends with it.
    let comparable = |file: Vec<u8>| -> Vec<u8> {
        if !file.starts_with(b"Obj\x01") {
            return file;
        }
        let marker = file[file.len() - 16..].to_vec();
        let mut parts = Vec::new();
        let mut rest = file.as_slice();
        for at in memchr::memmem::find_iter(&file, &marker) {
            let start = file.len() - rest.len();
            parts.extend_from_slice(&file[start..at]);
            rest = &file[at + 16..];
        }
        parts
    };
    for settings in all {
        let tables: Vec<_> = (0..20)
            .map(|at| table(at * 5000..(at + 1) * 5000))
            .collect();
        let codec = FileCodec::new(settings.clone(), &columns(&tables[0])).unwrap();

        let target = target(&codec);
        let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
        tables
            .iter()
            .for_each(|table| encoder.write(&changed(table.clone())).unwrap());
        finish(encoder, &[]);

        let (mut reader, file) = narrow_file();
        let (mut arrived, mut stops) = (Vec::new(), 0);
        let mut encoder = codec.open(file).unwrap();
        for table in &tables {
            encoder.write(&changed(table.clone())).unwrap();
            while let Some(error) = encoder.blocked() {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                stops += 1;
                drain(&mut reader, &mut arrived);
                encoder.resume();
            }
        }
        let mut rest = encoder.finish(&[]).unwrap();
        let file = loop {
            match rest.into_inner() {
                Ok(file) => break file,
                Err(blocked) => rest = blocked,
            }
            stops += 1;
            drain(&mut reader, &mut arrived);
            rest.resume();
        };
        drop(file);
        drain(&mut reader, &mut arrived);
        assert!(stops > 1, "{settings:?} never met a full disk");
        assert!(
            comparable(arrived) == comparable(fs::read(&target.path).unwrap()),
            "{settings:?}"
        );
    }
}

#[test]
fn unsupported_settings_and_columns_are_rejected() {
    let schema =
        |fields: Vec<Field>| columns(&RecordBatch::new_empty(Arc::new(Schema::new(fields))));
    let number = || schema(vec![Field::new("n", DataType::Int64, true)]);
    let nested = Field::new("o", DataType::Struct(vec![json_field("x")].into()), true);
    let with = |codec, compression, level| FileCodecSettings {
        level,
        ..settings(codec, compression)
    };
    use {CodecName::*, Compression::*};
    let cases: Vec<(FileCodecSettings, SinkInput, &str)> = vec![
        (
            with(Json, Gzip, Some(0)),
            number(),
            "invalid gzip level 0; expected 1 to 9",
        ),
        (
            with(Json, Gzip, Some(10)),
            number(),
            "invalid gzip level 10; expected 1 to 9",
        ),
        (
            with(Json, Zstd, Some(23)),
            number(),
            "invalid zstd level 23; expected 1 to 22",
        ),
        (
            with(Parquet, Zstd, Some(-1)),
            number(),
            "invalid zstd level -1; expected 1 to 22",
        ),
        (
            with(Json, None, Some(1)),
            number(),
            "a compression level requires gzip or zstd compression",
        ),
        (
            with(Json, Snappy, Some(1)),
            number(),
            "snappy has no compression levels; remove the level",
        ),
        (
            with(Json, Bzip2, Some(3)),
            number(),
            "bzip2 has no compression levels; remove the level",
        ),
        (
            with(Parquet, Bzip2, Option::None),
            number(),
            "bzip2 is not supported for parquet; use none, gzip, snappy or zstd",
        ),
        (
            with(Avro, Snappy, Option::None),
            as_came("json"),
            "avro writes columns, but these records are unparsed; select their columns first",
        ),
        (
            with(Parquet, Zstd, Option::None),
            as_came("json"),
            "parquet writes columns, but these records are unparsed; select their columns first",
        ),
        (
            with(Parquet, Zstd, Option::None),
            schema(vec![
                json_field("a"),
                Field::new("n", DataType::Int64, true),
                nested,
            ]),
            "parquet needs a type for every column; give one to `a`, `o` in :schema or by a cast",
        ),
        (
            with(Parquet, Zstd, Option::None),
            schema(vec![]),
            "parquet needs at least one column",
        ),
        (
            FileCodecSettings {
                row_group_bytes: 0,
                ..with(Parquet, Zstd, Option::None)
            },
            number(),
            "the row group size must be at least 1 byte",
        ),
        (
            with(Raw, None, Option::None),
            number(),
            "raw writes unchanged records only, but these are changed; write them as json or txt",
        ),
    ];
    for (settings, input, expected) in cases {
        assert_eq!(
            FileCodec::new(settings, &input).err().as_deref(),
            Some(expected)
        );
    }
    assert_eq!(
        "orc".parse::<CodecName>().unwrap_err(),
        "unknown codec `orc`; expected json, txt, raw, parquet or avro"
    );
    assert_eq!(
        "lz4".parse::<Compression>().unwrap_err(),
        "unknown compression `lz4`; expected none, gzip, snappy, bzip2 or zstd"
    );
}
