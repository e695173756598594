//! Where a record of a file is, for people: its line.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use pseidon_plugin::source::RecordPlace;

use super::compression::{DECODE_BYTES, InputCompression, Stream};
use super::identity::{FileKey, is_of};

/// The number of bytes in which lines are counted. In the rest of a file, a record is at a byte.
const MAX_COUNTED: u64 = 512 << 20;
/// The same for the content of a compressed file.
const MAX_DECODED: u64 = 64 << 20;

/// The place of a record in a file, which is below `base`. If its path names another file by now,
/// the place is a byte. `compression` is that of the option.
pub(super) fn place_of(
    base: &Path,
    record: &RecordPlace,
    compression: Option<InputCompression>,
) -> String {
    let (name, position) = (&record.topic, record.position);
    let path = base.join(name);
    match line_at(&path, record, compression) {
        Ok(Some(line)) => format!("{name}, line {line}"),
        _ => format!("{name}, byte {position}"),
    }
}

/// The number of the line at which a record begins, from 1 on; `None` if it is too far from the
/// beginning, or in another file.
fn line_at(
    path: &Path,
    record: &RecordPlace,
    compression: Option<InputCompression>,
) -> io::Result<Option<u64>> {
    // Opening a pipe would wait for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || !is_of(&record.split, &FileKey::of(&metadata)) {
        return Ok(None);
    }
    let (file, position) = (File::open(path)?, record.position);
    let compression = match compression {
        Some(given) => given,
        None => InputCompression::of(&file, path)?,
    };
    let most = match compression {
        InputCompression::None => MAX_COUNTED,
        _ => MAX_DECODED,
    };
    if position > most {
        return Ok(None);
    }
    let mut stream = Stream::open(file, compression, 0)?;
    let mut piece = Vec::with_capacity(DECODE_BYTES);
    let (mut left, mut line) = (position, 1);
    while left > 0 {
        piece.clear();
        if stream.read(&mut piece)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        line += memchr::memchr_iter(b'\n', &piece).count() as u64;
        left -= piece.len() as u64;
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::identity::{Head, split_id};
    use super::*;

    fn place(base: &Path, name: &str, position: u64) -> String {
        let key = fs::metadata(base.join(name)).map(|metadata| FileKey::of(&metadata));
        let head = Head::of_beginning(b"a\n").unwrap();
        let split = key.map_or("in:gone".into(), |key| split_id("in", &key, head, 0));
        let record = RecordPlace {
            split,
            topic: name.to_owned(),
            partition: 0,
            position,
        };
        place_of(base, &record, None)
    }

    #[test]
    fn the_line_of_a_record_is_counted_in_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"{}\n\n{\"a\":1}\nlast";
        std::fs::write(dir.path().join("a.ndjson"), text).unwrap();
        let file = File::create(dir.path().join("a.gz")).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        for name in ["a.ndjson", "a.gz"] {
            for (position, line) in [(0, 1), (4, 3), (12, 4)] {
                let expected = format!("{name}, line {line}");
                assert_eq!(place(dir.path(), name, position), expected);
            }
        }
    }

    #[test]
    fn the_lines_of_another_file_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a\nb\n").unwrap();
        let record = RecordPlace {
            split: "in:1234.5678.9abc".into(),
            topic: "a".to_owned(),
            partition: 0,
            position: 2,
        };
        assert_eq!(place_of(dir.path(), &record, None), "a, byte 2");
    }

    #[test]
    fn a_file_that_is_not_there_any_more_has_bytes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("short"), "a\n").unwrap();
        for (name, position) in [("gone", 7), ("short", 3), ("short", MAX_COUNTED + 1)] {
            let expected = format!("{name}, byte {position}");
            assert_eq!(place(dir.path(), name, position), expected);
        }
    }
}
