//! Writing to a file that may be a terminal, a pipe or a full disk, without being stuck in it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use pseidon_plugin::Stop;
use pseidon_plugin::metrics::Metrics;

use crate::poll;

/// How often a writer that waits looks whether the run is left.
const PATIENCE: Duration = Duration::from_millis(250);
/// The wait before a full disk is tried again.
const DISK_WAIT: Duration = Duration::from_secs(1);
/// What is written in one go: as much as a pipe holds, so that a slow reader holds the thread for one such piece at most.
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
        Outlet { file, stage: stage.to_owned(), stop, metrics: metrics.clone(), disk_full: false }
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
        self.metrics.sink_blocked.with_label_values(&[&self.stage]).set(full.into());
        if full {
            tracing::warn!(stage = self.stage, "standard output goes to a full disk; it is tried again every second");
        } else {
            tracing::info!(stage = self.stage, "standard output can be written again");
        }
    }
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
                    self.metrics.bytes_out.with_label_values(&[&self.stage]).inc_by(count as u64);
                    return Ok(count);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
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
