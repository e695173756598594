//! A writer that loses no data when the disk is full.
//!
//! Encoders cannot go back: once a compressor or Parquet's writer has consumed rows, their bytes
//! exist only on the way to the file. So the writer below an encoder never fails. When the file
//! accepts no more bytes, this writer buffers the rest and keeps the error for
//! [`RetryWriter::blocked`]. [`RetryWriter::resume`] writes the same bytes once the file accepts
//! them again.

use std::io::{self, ErrorKind, Write};

/// Writes in large pieces, and buffers what cannot be written.
pub struct RetryWriter<W> {
    inner: W,
    /// The bytes that are not yet written follow the first `done` bytes.
    buffer: Vec<u8>,
    done: usize,
    written: u64,
    error: Option<io::Error>,
}

/// The number of bytes that are gathered before they are written.
const GATHER: usize = 64 << 10;

impl<W: Write> RetryWriter<W> {
    /// Creates a writer to `inner`.
    pub fn new(inner: W) -> Self {
        RetryWriter {
            inner,
            buffer: Vec::new(),
            done: 0,
            written: 0,
            error: None,
        }
    }

    /// The error that blocks the writer, or `None`. Bytes that are written while it is blocked stay
    /// in memory.
    pub fn blocked(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Retries writing all buffered bytes. [`RetryWriter::blocked`] then reports whether that
    /// succeeded.
    pub fn resume(&mut self) {
        self.error = None;
        self.write_buffered();
    }

    /// The number of bytes written to `inner`.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// The number of buffered bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() - self.done
    }

    /// The capacity of the buffer in bytes.
    pub fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns the underlying writer after writing all bytes to it, or `self` if it is blocked.
    pub fn into_inner(mut self) -> Result<W, Self> {
        if self.error.is_none() {
            self.write_buffered();
        }
        match self.error {
            Some(_) => Err(self),
            None => Ok(self.inner),
        }
    }

    fn write_buffered(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.done += self.write_inner(&buffer[self.done..]);
        if self.done == buffer.len() {
            self.done = 0;
            buffer.clear();
            buffer.shrink_to(GATHER);
        }
        self.buffer = buffer;
    }

    /// Writes to `inner` and returns the number of bytes written. If that is less than all,
    /// `self.error` is set.
    fn write_inner(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.inner.write(&bytes[written..]) {
                Ok(0) => {
                    self.error = Some(ErrorKind::WriteZero.into());
                    break;
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        self.written += written as u64;
        written
    }
}

/// Never fails, and always accepts all bytes. `flush` tries to write the buffered bytes, and frees
/// the buffer if that succeeds.
impl<W: Write> Write for RetryWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() && self.buffered_bytes() + bytes.len() >= GATHER {
            self.write_buffered();
        }
        let written = match self.error {
            None if bytes.len() >= GATHER => self.write_inner(bytes),
            _ => 0,
        };
        self.buffer.extend_from_slice(&bytes[written..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.error.is_none() {
            self.write_buffered();
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};

    use proptest::prelude::*;

    use super::{GATHER, RetryWriter};

    /// Accepts a part of each write, or fails, according to `steps`; afterwards accepts everything.
    struct Flaky {
        taken: Vec<u8>,
        steps: Vec<WriteStep>,
    }

    #[derive(Clone, Debug)]
    enum WriteStep {
        Take(usize),
        Interrupted,
        Full,
    }

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.steps.pop() {
                None => bytes.len(),
                Some(WriteStep::Take(max)) => max.min(bytes.len()),
                Some(WriteStep::Interrupted) => return Err(ErrorKind::Interrupted.into()),
                Some(WriteStep::Full) => return Err(ErrorKind::StorageFull.into()),
            };
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn step() -> impl Strategy<Value = WriteStep> {
        prop_oneof![
            (0..2 * GATHER).prop_map(WriteStep::Take),
            Just(WriteStep::Interrupted),
            Just(WriteStep::Full)
        ]
    }

    #[derive(Clone, Debug)]
    enum Call {
        Write(usize),
        Flush,
        Resume,
    }

    fn call() -> impl Strategy<Value = Call> {
        prop_oneof![
            (0..3 * GATHER).prop_map(Call::Write),
            (0..100_usize).prop_map(Call::Write),
            Just(Call::Flush),
            Just(Call::Resume)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost(calls in prop::collection::vec(call(), 0..30), steps in prop::collection::vec(step(), 0..30)) {
            let mut writer = RetryWriter::new(Flaky { taken: Vec::new(), steps });
            let mut expected = Vec::new();
            for (number, call) in calls.into_iter().enumerate() {
                match call {
                    Call::Write(len) => {
                        let bytes: Vec<u8> = (0..len).map(|at| (at * 31 + number) as u8).collect();
                        writer.write_all(&bytes).unwrap();
                        expected.extend_from_slice(&bytes);
                    }
                    Call::Flush => writer.flush().unwrap(),
                    Call::Resume => writer.resume(),
                }
                prop_assert_eq!(writer.bytes_written() as usize + writer.buffered_bytes(), expected.len());
            }
            let inner = loop {
                match writer.into_inner() {
                    Ok(inner) => break inner,
                    Err(blocked) => writer = blocked,
                }
                prop_assert!(writer.blocked().is_some());
                writer.resume();
            };
            prop_assert!(inner.taken == expected);
        }
    }

    #[test]
    fn a_full_disk_is_reported() {
        let mut writer = RetryWriter::new(Flaky {
            taken: Vec::new(),
            steps: vec![WriteStep::Full],
        });
        writer.write_all(b"abc").unwrap();
        assert!(writer.blocked().is_none());
        writer.flush().unwrap();
        assert_eq!(
            writer.blocked().map(io::Error::kind),
            Some(ErrorKind::StorageFull)
        );
        assert_eq!((writer.bytes_written(), writer.buffered_bytes()), (0, 3));
        writer.resume();
        assert!(writer.blocked().is_none());
        assert_eq!((writer.bytes_written(), writer.buffered_bytes()), (3, 0));
    }
}
