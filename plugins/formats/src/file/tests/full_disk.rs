//! Tests of a disk that is full for a while.

use std::io::{self, ErrorKind, PipeReader};
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_setfl};

use super::*;

#[test]
fn a_full_disk_loses_no_data() {
    let all = [
        settings(CodecName::Json, Compression::None),
        settings(CodecName::Json, Compression::Gzip),
        settings(CodecName::Json, Compression::Zstd),
        settings(CodecName::Json, Compression::Snappy),
        FileCodecSettings {
            row_group_bytes: 300_000,
            csv: Default::default(),
            ..settings(CodecName::Parquet, Compression::Zstd)
        },
        settings(CodecName::Avro, Compression::Snappy),
    ];
    for settings in all {
        let tables: Vec<_> = (0..20)
            .map(|at| table(at * 5000..(at + 1) * 5000))
            .collect();
        let codec = FileCodec::new(settings.clone(), &columns(&tables[0])).unwrap();
        let expected = written_at_once(&codec, &tables);
        let (arrived, stops) = written_through_a_full_disk(&codec, &tables);
        assert!(stops > 1, "{settings:?} never met a full disk");
        assert!(comparable(arrived) == comparable(expected), "{settings:?}");
    }
}

fn written_at_once(codec: &FileCodec, tables: &[RecordBatch]) -> Vec<u8> {
    let target = target(codec);
    let mut encoder = codec.open(File::create(&target.path).unwrap()).unwrap();
    tables
        .iter()
        .for_each(|table| encoder.write(&changed(table.clone())).unwrap());
    finish(encoder, &[]);
    fs::read(&target.path).unwrap()
}

/// The file, and how often the disk was full.
fn written_through_a_full_disk(codec: &FileCodec, tables: &[RecordBatch]) -> (Vec<u8>, usize) {
    let (mut reader, file) = narrow_file();
    let (mut arrived, mut stops) = (Vec::new(), 0);
    let mut encoder = codec.open(file).unwrap();
    for table in tables {
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
    (arrived, stops)
}

/// A file without the random marker that Avro has after each block, and at its end.
fn comparable(file: Vec<u8>) -> Vec<u8> {
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
