//! A writer that loses nothing when the disk is full.
//!
//! Encoders cannot go back: once a compressor or Parquet's writer has seen rows, their bytes exist
//! only on the way to the file. So what stands below an encoder never fails. When the file takes no
//! more, the rest is held here, the error is kept for whoever asks, and the same bytes go out when
//! [`RetryWriter::resume`] finds that the file takes them again.

use std::io::{self, ErrorKind, Write};

/// Writes in large pieces, and holds what cannot be written.
pub struct RetryWriter<W> {
    inner: W,
    /// What is not written yet, behind the first `done` bytes.
    held: Vec<u8>,
    done: usize,
    written: u64,
    error: Option<io::Error>,
}

/// So much is gathered before it is written.
const GATHER: usize = 64 << 10;

impl<W: Write> RetryWriter<W> {
    /// A writer onto `inner`.
    pub fn new(inner: W) -> Self {
        RetryWriter {
            inner,
            held: Vec::new(),
            done: 0,
            written: 0,
            error: None,
        }
    }

    /// Why bytes do not get out, if they do not. What is written meanwhile stays in memory.
    pub fn blocked(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Tries again to write all that is held; [`RetryWriter::blocked`] then says whether that
    /// worked.
    pub fn resume(&mut self) {
        self.error = None;
        self.push_held();
    }

    /// The bytes that reached `inner`.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The bytes that are held.
    pub fn held(&self) -> usize {
        self.held.len() - self.done
    }

    /// The memory that is kept for them.
    pub fn memory(&self) -> usize {
        self.held.capacity()
    }

    /// The writer underneath with all bytes, or `self` if it is blocked.
    pub fn into_inner(mut self) -> Result<W, Self> {
        if self.error.is_none() {
            self.push_held();
        }
        match self.error {
            Some(_) => Err(self),
            None => Ok(self.inner),
        }
    }

    fn push_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        self.done += self.put(&held[self.done..]);
        if self.done == held.len() {
            self.done = 0;
            held.clear();
            held.shrink_to(GATHER);
        }
        self.held = held;
    }

    /// Writes what `inner` takes, and gives how much that is; less than all only with an error.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut put = 0;
        while put < bytes.len() {
            match self.inner.write(&bytes[put..]) {
                Ok(0) => {
                    self.error = Some(ErrorKind::WriteZero.into());
                    break;
                }
                Ok(count) => put += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        self.written += put as u64;
        put
    }
}

/// Never fails, and always takes all. A flush tries to write what is held, and gives its memory
/// back.
impl<W: Write> Write for RetryWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() && self.held() + bytes.len() >= GATHER {
            self.push_held();
        }
        let put = match self.error {
            None if bytes.len() >= GATHER => self.put(bytes),
            _ => 0,
        };
        self.held.extend_from_slice(&bytes[put..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.error.is_none() {
            self.push_held();
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};

    use proptest::prelude::*;

    use super::{GATHER, RetryWriter};

    /// Takes a part of each write, or fails, as `steps` say; then takes all.
    struct Flaky {
        taken: Vec<u8>,
        steps: Vec<Step>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Interrupted,
        Full,
    }

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.steps.pop() {
                None => bytes.len(),
                Some(Step::Take(most)) => most.min(bytes.len()),
                Some(Step::Interrupted) => return Err(ErrorKind::Interrupted.into()),
                Some(Step::Full) => return Err(ErrorKind::StorageFull.into()),
            };
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..2 * GATHER).prop_map(Step::Take),
            Just(Step::Interrupted),
            Just(Step::Full)
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
                prop_assert_eq!(writer.written() as usize + writer.held(), expected.len());
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
    fn a_full_disk_is_recognizable() {
        let mut writer = RetryWriter::new(Flaky {
            taken: Vec::new(),
            steps: vec![Step::Full],
        });
        writer.write_all(b"abc").unwrap();
        assert!(writer.blocked().is_none());
        writer.flush().unwrap();
        assert_eq!(
            writer.blocked().map(io::Error::kind),
            Some(ErrorKind::StorageFull)
        );
        assert_eq!((writer.written(), writer.held()), (0, 3));
        writer.resume();
        assert!(writer.blocked().is_none());
        assert_eq!((writer.written(), writer.held()), (3, 0));
    }
}
