//! Compressed files of several members, frames or streams that follow each other.
//!
//! Each is decoded by a decoder of its own, so what follows the last one is seen: nothing, zeros,
//! with which tapes and preallocated files are padded and which count as nothing, or other bytes,
//! which are an error.

use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;

/// Decodes a file member by member.
pub(super) struct Members<D: Member> {
    /// `None` at the end of the file, and after an error.
    decoder: Option<D>,
    /// Whether a member was read to its end.
    has_any: bool,
    /// Whether something was read of the current one.
    is_begun: bool,
}

/// The decoder of one member.
pub(super) trait Member: Read + Sized {
    type Input: BufRead;

    /// Creates a decoder for the member that begins here.
    fn begin(input: Self::Input) -> io::Result<Self>;

    /// The input after the member.
    fn end(self) -> Self::Input;
}

impl<R: BufRead> Member for GzDecoder<R> {
    type Input = R;

    fn begin(input: R) -> io::Result<Self> {
        Ok(GzDecoder::new(input))
    }

    fn end(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Member for BzDecoder<R> {
    type Input = R;

    fn begin(input: R) -> io::Result<Self> {
        Ok(BzDecoder::new(input))
    }

    fn end(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Member for zstd::Decoder<'static, R> {
    type Input = R;

    fn begin(input: R) -> io::Result<Self> {
        Ok(zstd::Decoder::with_buffer(input)?.single_frame())
    }

    fn end(self) -> R {
        self.finish()
    }
}

impl<D: Member> Members<D> {
    pub(super) fn new(input: D::Input) -> io::Result<Self> {
        Ok(Members {
            decoder: Some(D::begin(input)?),
            has_any: false,
            is_begun: false,
        })
    }

    /// The error of the current member, with what it means behind the last one.
    fn explained(&self, error: io::Error) -> io::Error {
        let is_garbage = self.has_any && !self.is_begun;
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::Interrupted => error,
            kind if is_garbage && error.raw_os_error().is_none() => {
                let what = "the bytes after its last complete part are not another one";
                io::Error::new(kind, format!("{what}: {error}"))
            }
            _ => error,
        }
    }
}

impl<D: Member> Read for Members<D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(out).map_err(|error| self.explained(error))?;
            self.is_begun |= read > 0;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let Some(decoder) = self.decoder.take() else {
                break;
            };
            let mut input = decoder.end();
            (self.has_any, self.is_begun) = (true, false);
            if !is_at_end(&mut input)? {
                self.decoder = Some(D::begin(input)?);
            }
        }
        Ok(0)
    }
}

/// Whether nothing or only zeros follow. No member begins with a zero.
pub(super) fn is_at_end(input: &mut impl BufRead) -> io::Result<bool> {
    if input.fill_buf()?.first().is_some_and(|first| *first != 0) {
        return Ok(false);
    }
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            let what = "other bytes follow the zeros behind its last complete part";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let zeros = bytes.len();
        input.consume(zeros);
    }
}
