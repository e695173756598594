//! Files as streams of decompressed bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use pseidon_formats::ColumnFormat;
use rustix::buffer::spare_capacity;

use super::snappy::SnappyReader;

/// How many bytes of a compressed file are read at once.
const READ_BYTES: usize = 128 << 10;
/// How many bytes are decoded at once.
const DECODE_BYTES: usize = 64 << 10;

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
            b"\xfd7zXZ\0" => refused("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => refused("lz4"),
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
        let room = buffer.capacity() - buffer.len();
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
