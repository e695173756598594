//! Files as streams of plain bytes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rustix::buffer::spare_capacity;

/// How much of a compressed file is read at once.
const READ: usize = 128 << 10;
/// How much is decoded at once.
const DECODE: usize = 64 << 10;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

impl Compression {
    /// How this file is compressed: its first bytes say it, and for a file that is too short its
    /// name.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<Compression> {
        let mut magic = [0; 4];
        let known = file.read_at(&mut magic, 0)?;
        let by_name = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        };
        Ok(match &magic[..known] {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => by_name,
        })
    }
}

/// A file's plain bytes, one after the other.
pub(super) enum Stream {
    /// A file as it is; it may grow while it is read.
    Plain {
        /// The file.
        file: File,
        /// The next byte.
        offset: u64,
    },
    /// A file that is decompressed while it is read.
    Decoded(Box<dyn Read + Send>),
}

impl Stream {
    /// The plain bytes of `file` from `position` on. A compressed file is decoded up to there; an
    /// error of the kind `UnexpectedEof` says that it ends before.
    pub(super) fn open(file: File, compression: Compression, position: u64) -> io::Result<Stream> {
        let mut decoded: Box<dyn Read + Send> = match compression {
            Compression::None => {
                return Ok(Stream::Plain {
                    file,
                    offset: position,
                });
            }
            Compression::Gzip => {
                Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ, file)))
            }
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(BufReader::with_capacity(
                READ, file,
            ))?),
        };
        let skipped = io::copy(&mut (&mut decoded).take(position), &mut io::sink())?;
        if skipped < position {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends at byte {skipped} of its content"),
            ));
        }
        Ok(Stream::Decoded(decoded))
    }

    /// Reads all the rest.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        let mut piece = Vec::with_capacity(DECODE);
        while self.read(&mut piece)? > 0 {
            piece.clear();
        }
        Ok(())
    }

    /// Appends what is there to `buffer`, but no more than it has room for. Gives how much that
    /// was: 0 at the end, or when there is no room.
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
                Stream::Decoded(decoder) => read_into(decoder, buffer, room.min(DECODE)),
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
