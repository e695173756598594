//! Files as streams of decompressed bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream as XzStream};
use pseidon_formats::ColumnFormat;
use rustix::buffer::spare_capacity;

use super::lz4::Lz4Reader;
use super::snappy::SnappyReader;

/// How many bytes of a compressed file are read at once.
const READ_BYTES: usize = 128 << 10;
/// How many bytes are decoded at once.
pub(super) const DECODE_BYTES: usize = 64 << 10;
/// How much memory the decoder of an xz file may use: the highest level of `xz` needs 65 MB.
const XZ_MEMORY: u64 = 80 << 20;

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
    /// Hadoop's snappy.
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

    /// Detects the compression by the first bytes; if they match no known format, by the file's
    /// extension. An error says that it is one that is not read.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<InputCompression> {
        let mut magic = [0; 6];
        let known = file.read_at(&mut magic, 0)?;
        let by_name = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => InputCompression::Gzip,
            Some("zst") => InputCompression::Zstd,
            Some("bz2") => InputCompression::Bzip2,
            Some("xz") => InputCompression::Xz,
            Some("lz4") => InputCompression::Lz4,
            // It has no magic number.
            Some("snappy") => InputCompression::Snappy,
            _ => InputCompression::None,
        };
        let refused = |name: &str| {
            let reason = format!("it is compressed with {name}, which is not read: decompress it");
            Err(io::Error::new(io::ErrorKind::Unsupported, reason))
        };
        match &magic[..known] {
            [0x1f, 0x8b, ..] => Ok(InputCompression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(InputCompression::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Ok(InputCompression::Bzip2),
            b"\xfd7zXZ\0" => Ok(InputCompression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Ok(InputCompression::Lz4),
            [b'P', b'K', 3, 4, ..] => refused("zip"),
            _ => Ok(by_name),
        }
    }
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
            InputCompression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                READ_BYTES, file,
            ))),
            InputCompression::Bzip2 => Box::new(MultiBzDecoder::new(BufReader::with_capacity(
                READ_BYTES, file,
            ))),
            InputCompression::Snappy => Box::new(SnappyReader::new(BufReader::with_capacity(
                READ_BYTES, file,
            ))),
            InputCompression::Xz => Box::new(XzDecoder::new_stream(
                BufReader::with_capacity(READ_BYTES, file),
                XzStream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?,
            )),
            InputCompression::Lz4 => {
                Box::new(Lz4Reader::new(BufReader::with_capacity(READ_BYTES, file)))
            }
            InputCompression::Zstd => Box::new(zstd::Decoder::with_buffer(
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
            _ => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_error_or_other_bytes(
            name in prop::sample::select(&["a.gz", "a.bz2", "a.zst"][..]),
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
        fn any_bytes_are_read_or_refused(
            name in prop::sample::select(&["a.gz", "a.bz2", "a.zst", "a.snappy", "a"][..]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            content(name, &bytes);
        }
    }
}
