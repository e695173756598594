//! Writes to a file that may be a terminal, a pipe or on a full disk, without blocking
//! indefinitely.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use pseidon_plugin::Stop;
use pseidon_plugin::metrics::Metrics;
use rustix::fs::OFlags;

use crate::poll;

/// How often a waiting writer checks whether the run has been abandoned.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The wait before a full disk is tried again.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// The most bytes per write: the capacity of a pipe.
const MAX_WRITE: usize = 64 << 10;

/// A writer that waits while its file is not writable. Once the run has been abandoned, every write
/// fails.
pub(super) struct InterruptibleWriter {
    file: File,
    stage: String,
    stop: Stop,
    metrics: Metrics,
    disk_full: bool,
}

impl InterruptibleWriter {
    pub(super) fn new(
        file: File,
        stage: &str,
        stop: Stop,
        metrics: &Metrics,
    ) -> InterruptibleWriter {
        let file = non_blocking(&file).unwrap_or(file);
        InterruptibleWriter {
            file,
            stage: stage.to_owned(),
            stop,
            metrics: metrics.clone(),
            disk_full: false,
        }
    }

    /// Whether the file is a pipe whose reader has closed it.
    pub(super) fn is_reader_gone(&self) -> io::Result<bool> {
        poll::broken(&self.file)
    }

    fn set_disk_full(&mut self, full: bool) {
        if self.disk_full == full {
            return;
        }
        self.disk_full = full;
        self.metrics
            .sink_blocked
            .with_label_values(&[&self.stage])
            .set(full.into());
        if full {
            tracing::warn!(
                stage = self.stage,
                "the disk of standard output is full; retrying every second"
            );
        } else {
            tracing::info!(stage = self.stage, "standard output is writable again");
        }
    }
}

/// Opens the same pipe again in non-blocking mode. The mode of the given descriptor is shared with
/// other processes, so it is not changed. Returns `None` if the file is not a pipe or the system
/// does not support this; then a write may block.
fn non_blocking(file: &File) -> Option<File> {
    if !file.metadata().ok()?.file_type().is_fifo() {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .ok()
}

impl Write for InterruptibleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_WRITE)];
        loop {
            if self.stop.leaving_now() {
                return Err(io::Error::other("the run was abandoned"));
            }
            if !poll::writable(&self.file, POLL_INTERVAL)? {
                continue;
            }
            match self.file.write(piece) {
                Ok(count) => {
                    self.set_disk_full(false);
                    self.metrics
                        .bytes_out
                        .with_label_values(&[&self.stage])
                        .inc_by(count as u64);
                    return Ok(count);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                    ) =>
                {
                    self.set_disk_full(true);
                    std::thread::sleep(DISK_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
