//! Files as streams of decompressed bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream as XzStream};
use pseidon_formats::ColumnFormat;
use rustix::buffer::spare_capacity;

use super::lz4::Lz4Reader;
use super::members::Members;
use super::snappy::{self, FRAMED_SNAPPY};

/// How many bytes of a compressed file are read at once.
const READ_BYTES: usize = 128 << 10;
/// How many bytes are decoded at once.
pub(super) const DECODE_BYTES: usize = 64 << 10;
/// How much memory the decoder of an xz file may use: the highest level of `xz` needs 65 MB.
const XZ_MEMORY: u64 = 80 << 20;

/// How many bytes at the beginning of a file show its compression.
const MAGIC_BYTES: usize = 64;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputCompression {
    /// The file is not compressed.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
    /// bzip2, of one or more streams.
    Bzip2,
    /// Hadoop's snappy, or frames of it.
    Snappy,
    /// xz, of one or more streams.
    Xz,
    /// LZ4, of one or more frames.
    Lz4,
    /// A file of columns, which compresses them itself. Positions are numbers of rows.
    Columns(ColumnFormat),
}

impl InputCompression {
    /// Whether records may be appended to a file that is not plain.
    pub(super) fn may_grow(self) -> bool {
        matches!(self, InputCompression::Columns(format) if format.may_grow())
    }

    /// The compression of files with this ending of their names, which has no point.
    pub(super) fn of_ending(ending: &str) -> Option<InputCompression> {
        Some(match ending {
            "gz" => InputCompression::Gzip,
            "zst" => InputCompression::Zstd,
            "bz2" => InputCompression::Bzip2,
            "xz" => InputCompression::Xz,
            "lz4" => InputCompression::Lz4,
            // Hadoop's has no magic number.
            "snappy" | "sz" => InputCompression::Snappy,
            _ => return None,
        })
    }

    /// Detects the compression by the first bytes; if they match no known format, by the file's
    /// extension. An error says that it is one that is not read.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<InputCompression> {
        let mut magic = [0; MAGIC_BYTES];
        let known = file.read_at(&mut magic, 0)?;
        let magic = &magic[..known];
        let ending = path.extension().and_then(|ending| ending.to_str());
        let by_name = ending.and_then(InputCompression::of_ending);
        if magic.starts_with(FRAMED_SNAPPY) {
            return Ok(InputCompression::Snappy);
        }
        if let Some(name) = unsupported(magic) {
            let reason = format!("it is compressed with {name}, which is not read: decompress it");
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        match magic {
            [0x1f, 0x8b, ..] => Ok(InputCompression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(InputCompression::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Ok(InputCompression::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(InputCompression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Ok(InputCompression::Lz4),
            _ => Ok(by_name.unwrap_or(InputCompression::None)),
        }
    }
}

/// The name of the compression whose files begin like this, if it is one that is not read.
fn unsupported(magic: &[u8]) -> Option<&'static str> {
    Some(match magic {
        [b'P', b'K', 3, 4, ..] => "zip",
        [0x1f, 0x9d, ..] => "compress (.Z)",
        [0x5d, 0, 0, ..] => "LZMA (.lzma), not xz",
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "7z",
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => "rar",
        [b'L', b'Z', b'I', b'P', 1, ..] => "lzip",
        [0x89, b'L', b'Z', b'O', 0, ..] => "lzop",
        // Two of these are letters too, which a text may begin with.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] if !is_text(magic) => "zlib",
        _ => return None,
    })
}

/// Whether bytes, which may end in a character, are UTF-8 without control characters.
fn is_text(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n');
    !text.chars().any(is_control)
}

/// A sequential stream of a file's decompressed bytes.
pub(super) enum Stream {
    /// A file as it is; it may grow while it is read.
    Plain {
        /// Read at `offset`; its own cursor is not used.
        file: File,
        /// The offset of the next byte to read.
        offset: u64,
    },
    /// A file that is decompressed while it is read.
    Decoded(Box<dyn Read + Send>),
}

impl Stream {
    /// Opens `file` at `position` of its decompressed content. A compressed file is decoded up to
    /// there; fails with `UnexpectedEof` if it ends before that.
    pub(super) fn open(
        file: File,
        compression: InputCompression,
        position: u64,
    ) -> io::Result<Stream> {
        let mut decoded: Box<dyn Read + Send> = match compression {
            InputCompression::None => {
                return Ok(Stream::Plain {
                    file,
                    offset: position,
                });
            }
            InputCompression::Columns(_) => {
                let what = "columns are not a stream of bytes";
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
            InputCompression::Gzip => Box::new(Members::<GzDecoder<_>>::new(
                BufReader::with_capacity(READ_BYTES, file),
            )?),
            InputCompression::Bzip2 => Box::new(Members::<BzDecoder<_>>::new(
                BufReader::with_capacity(READ_BYTES, file),
            )?),
            InputCompression::Snappy => snappy::reader(BufReader::with_capacity(READ_BYTES, file))?,
            InputCompression::Xz => Box::new(XzDecoder::new_stream(
                BufReader::with_capacity(READ_BYTES, file),
                XzStream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?,
            )),
            InputCompression::Lz4 => {
                Box::new(Lz4Reader::new(BufReader::with_capacity(READ_BYTES, file)))
            }
            InputCompression::Zstd => Box::new(Members::<zstd::Decoder<'static, _>>::new(
                BufReader::with_capacity(READ_BYTES, file),
            )?),
        };
        let skipped = io::copy(&mut (&mut decoded).take(position), &mut io::sink())?;
        if skipped < position {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends at byte {skipped} of its decompressed content"),
            ));
        }
        Ok(Stream::Decoded(decoded))
    }

    /// Reads to the end and discards the bytes.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        let mut piece = Vec::with_capacity(DECODE_BYTES);
        while self.read(&mut piece)? > 0 {
            piece.clear();
        }
        Ok(())
    }

    /// Appends available bytes to `buffer`, up to its spare capacity. Returns how many: 0 at the
    /// end, or if there is no spare capacity.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.read_at_most(buffer, usize::MAX)
    }

    /// Like [`Stream::read`], but a decoder returns at most this many bytes.
    pub(super) fn read_at_most(&mut self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let room = (buffer.capacity() - buffer.len()).min(most);
        if room == 0 {
            return Ok(0);
        }
        loop {
            let outcome = match self {
                Stream::Plain { file, offset } => {
                    match rustix::io::pread(&*file, spare_capacity(buffer), *offset) {
                        Ok(read) => {
                            *offset += read as u64;
                            Ok(read)
                        }
                        Err(error) => Err(io::Error::from(error)),
                    }
                }
                Stream::Decoded(decoder) => read_into(decoder, buffer, room.min(DECODE_BYTES)),
            };
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

fn read_into(decoder: &mut impl Read, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let len = buffer.len();
    buffer.resize(len + most, 0);
    let outcome = decoder.read(&mut buffer[len..]);
    buffer.truncate(len + outcome.as_ref().map_or(0, |read| *read));
    outcome
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// The bytes of a file with this name; `None` if it is damaged or not read.
    fn content(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let compression = InputCompression::of(&file, Path::new(name)).ok()?;
        io::Seek::rewind(&mut file).unwrap();
        let mut stream = Stream::open(file, compression, 0).ok()?;
        let mut content = Vec::with_capacity(DECODE_BYTES);
        while stream.read(&mut content).ok()? > 0 {
            content.reserve(DECODE_BYTES);
        }
        Some(content)
    }

    fn compressed(name: &str, bytes: &[u8]) -> Vec<u8> {
        match name {
            "a.gz" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "a.bz2" => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "a.xz" => {
                // A higher level takes megabytes for each file.
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "a.lz4" => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    #[test]
    fn a_compression_that_is_not_read_is_named() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
        zlib.write_all(b"{\"a\":1}\n").unwrap();
        let zlib = zlib.finish().unwrap();
        let lzma = [0x5d, 0, 0, 0x80, 0, 0xff, 0xff, 0xff];
        for (bytes, name) in [
            (&b"PK\x03\x04..."[..], "zip"),
            (b"\x1f\x9d\x90\x61", "compress (.Z)"),
            (&lzma, "LZMA (.lzma), not xz"),
            (&zlib, "zlib"),
            (b"7z\xbc\xaf\x27\x1c\0", "7z"),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            let error = InputCompression::of(&file, Path::new("a.ndjson")).unwrap_err();
            let expected =
                format!("it is compressed with {name}, which is not read: decompress it");
            assert_eq!(error.to_string(), expected);
        }
        for text in ["x^2\n", "x\u{69c} \u{1f600}\n", "]\n", "x"] {
            assert_eq!(
                content("a", text.as_bytes()),
                Some(text.as_bytes().to_vec())
            );
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_error_or_other_bytes(
            name in prop::sample::select(&["a.gz", "a.bz2", "a.zst", "a.xz", "a.lz4"][..]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            other in any::<u8>(),
        ) {
            let mut file = compressed(name, &bytes);
            prop_assert_eq!(content(name, &file), Some(bytes));
            // The magic number at the beginning is found whatever the name is.
            prop_assert_eq!(content("a", &file), content(name, &file));
            let cut = at.index(file.len());
            prop_assert!(cut == 0 || content(name, &file[..cut]).is_none());
            file[cut] = other;
            content(name, &file);
        }

        #[test]
        fn frames_of_snappy_are_read_whatever_the_name_is(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            other in any::<u8>(),
        ) {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(&bytes).unwrap();
            let mut file = encoder.into_inner().unwrap();
            for name in ["a.sz", "a.snappy", "a"] {
                let expected = (!file.is_empty()).then(|| bytes.clone());
                prop_assert!(expected.is_none() || content(name, &file) == expected, "{}", name);
            }
            if file.len() > 11 {
                // Behind the magic number, which ends a frame.
                let cut = 11 + at.index(file.len() - 11);
                prop_assert_eq!(content("a.sz", &file[..cut]), None);
                file[cut] = other;
                content("a.sz", &file);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            name in prop::sample::select(
                &["a.gz", "a.bz2", "a.zst", "a.snappy", "a.xz", "a.lz4", "a"][..],
            ),
            has_magic in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let magic = compressed(name, b"");
            let begin = if has_magic { magic.get(..6) } else { None };
            content(name, &[begin.unwrap_or_default(), &bytes].concat());
        }
    }
}
