//! Writing to a file that may be a terminal, a pipe or a full disk, without being stuck in it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use pseidon_plugin::Stop;
use pseidon_plugin::metrics::Metrics;

use crate::poll;

/// How often a writer that waits looks whether the run is left.
const PATIENCE: Duration = Duration::from_millis(250);
/// The wait before a full disk is tried again.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// What is written in one go: as much as a pipe holds.
const PIECE: usize = 64 << 10;

/// Waits while its file takes nothing, until the run is left; then every write fails.
pub(super) struct Outlet {
    file: File,
    stage: String,
    stop: Stop,
    metrics: Metrics,
    disk_full: bool,
}

impl Outlet {
    pub(super) fn new(file: File, stage: &str, stop: Stop, metrics: &Metrics) -> Outlet {
        let file = non_blocking(&file).unwrap_or(file);
        Outlet {
            file,
            stage: stage.to_owned(),
            stop,
            metrics: metrics.clone(),
            disk_full: false,
        }
    }

    /// Whether the file is a pipe that nobody will ever read from.
    pub(super) fn reader_left(&self) -> io::Result<bool> {
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
                "standard output goes to a full disk; it is tried again every second"
            );
        } else {
            tracing::info!(stage = self.stage, "standard output can be written again");
        }
    }
}

/// The same pipe, opened anew so that writing to it does not wait for its reader: the mode of the
/// file as it was given is shared with other processes and not ours to change. `None` if the file
/// is no pipe or the system has no way to do it; then a write may wait.
fn non_blocking(file: &File) -> Option<File> {
    if !file.metadata().ok()?.file_type().is_fifo() {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        loop {
            if self.stop.leaving_now() {
                return Err(io::Error::other("the run is left"));
            }
            if !poll::writable(&self.file, PATIENCE)? {
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
