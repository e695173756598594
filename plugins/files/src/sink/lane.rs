//! The lane of the sink: one file, and the steps by which it becomes visible.
//!
//! A test can kill the process at each of these points:
//!
//! 1. `opened`: a hidden file was created; `written`: rows were added to a file; `finished`: a file
//!    is complete.
//! 2. `synced`: all files of a step of the engine and their names are on disk.
//! 3. `committed`: the state store has the step: the records count as delivered.
//! 4. `renamed`: the first file is visible; `published`: all files are durably visible. The
//!    engine's next step removes them from the store.
//!
//! Files that are moved or reported afterwards are handed over to
//! [`follow_ups`](super::follow_ups), and stay in the store until that is done.

use std::io;
use std::path::Path;
use std::sync::Arc;

use pseidon_delivery::{LaneId, Reason, failpoint};
use pseidon_formats::EncodeError;
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Completion, Lane, LaneProgress, Room, SealOutcome};
use pseidon_plugin::sink::SinkError;
use rustix::io::Errno;

use super::RunContext;
use super::follow_ups::MAX_WAITING;
use super::lane_name::folder_and_name;
use super::open_file::{ClosedFile, ClosingFile, OpenFile};
use super::place::unusable;

/// An open lane of the sink.
pub(super) struct FileLane {
    shared: Arc<RunContext>,
    lane: LaneId,
    /// `None` before the first rows.
    file: Option<OpenFile>,
}

impl FileLane {
    /// Creates a lane; its file is created by the first write.
    pub(super) fn new(shared: Arc<RunContext>, lane: LaneId) -> FileLane {
        FileLane {
            shared,
            lane,
            file: None,
        }
    }

    /// Creates the file, whose first record is the first of these rows.
    fn open(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        let shared = &self.shared;
        // Each file that waits is an entry in the state store.
        if shared.follow_ups.is_full() && !shared.setup.stop.reading_stopped() {
            return Ok(Room::Blocked(format!(
                "{MAX_WAITING} committed files wait to be published, moved or reported"
            )));
        }
        let (file, hidden) = match shared.staging.create() {
            Ok(made) => made,
            Err(error) if is_open_file_limit(&error) => {
                return Ok(Room::TooManyOpen(error.to_string()));
            }
            Err(error) => return Ok(Room::Blocked(error.to_string())),
        };
        let folder = folder_and_name(&self.lane).0.unwrap_or_default();
        if let Some(reason) = unusable(hidden.base(), Path::new(folder)) {
            return Err(SinkError::Fatal(reason.into()));
        }
        let destination = shared.destination(rows, &hidden)?;
        let file = OpenFile::new(
            self.lane.clone(),
            destination,
            &shared.settings.codec,
            file,
            hidden,
        )
        .map_err(|error| SinkError::Fatal(Reason::of(error)))?;
        self.file = Some(file);
        shared.open_files.inc();
        failpoint::reach("opened");
        Ok(Room::Ready)
    }
}

impl Lane for FileLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        if self.file.is_none() {
            let room = self.open(rows)?;
            if room != Room::Ready {
                return Ok(room);
            }
        }
        let Some(file) = &mut self.file else {
            return Ok(Room::Full);
        };
        if let Some(error) = file.still_blocked() {
            return Ok(Room::Blocked(error.to_string()));
        }
        let rows = self
            .shared
            .settings
            .router
            .without_carried_columns(rows.clone())
            .map_err(|error| SinkError::Fatal(Reason::of(error)))?;
        failpoint::spoil(self.shared.setup.committer.sink(), || {
            (0..rows.len()).filter_map(|row| rows.payload(row))
        });
        file.write(&rows).map_err(cannot_encode)?;
        failpoint::reach("written");
        Ok(Room::Ready)
    }

    fn bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, OpenFile::bytes)
    }

    fn memory(&self) -> usize {
        self.file.as_ref().map_or(0, OpenFile::memory)
    }

    fn shed(&mut self) -> Result<Room, SinkError> {
        let Some(file) = &mut self.file else {
            return Ok(Room::Ready);
        };
        file.shed().map_err(cannot_encode)?;
        Ok(file
            .still_blocked()
            .map_or(Room::Ready, |error| Room::Blocked(error.to_string())))
    }

    fn seal(mut self: Box<Self>) -> Result<SealOutcome, SinkError> {
        let Some(file) = self.file.take() else {
            return Ok(SealOutcome::Durable);
        };
        let shared = self.shared.clone();
        shared.open_files.dec();
        let closing = file.close(&shared.close_context()).map_err(cannot_encode)?;
        Ok(SealOutcome::Pending(Box::new(FileCompletion(Some(
            closing,
        )))))
    }
}

impl Drop for FileLane {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.shared.open_files.dec();
        }
    }
}

/// Writes the last bytes of a sealed file to the disk; `None` when they are written.
struct FileCompletion(Option<ClosingFile>);

impl Completion for FileCompletion {
    fn advance(&mut self) -> Result<LaneProgress, SinkError> {
        while let Some(mut closing) = self.0.take() {
            if let Some(error) = closing.still_blocked() {
                let reason = error.to_string();
                self.0 = Some(closing);
                return Ok(LaneProgress::Blocked(reason));
            }
            match closing.into_closed() {
                Ok(closed) => {
                    failpoint::reach("finished");
                    make_durable(&closed)?;
                    return Ok(LaneProgress::Durable(vec![closed.hand_over()]));
                }
                Err(still_closing) => self.0 = Some(*still_closing),
            }
        }
        Ok(LaneProgress::Pending)
    }
}

/// Makes a file and its hidden name durable.
pub(super) fn make_durable(file: &ClosedFile) -> Result<(), SinkError> {
    let dir = file.hidden().dir();
    // After a failed sync the kernel may have discarded the data, so retrying with this file is
    // useless.
    file.sync()
        .map_err(|error| SinkError::Transient(Reason::caused_by("cannot sync a file", error)))?;
    file.hidden().sync_name().map_err(|error| {
        SinkError::Transient(Reason::caused_by(
            format!("cannot sync {}", dir.display()),
            error,
        ))
    })?;
    if file.hidden().is_there() {
        Ok(())
    } else {
        Err(SinkError::Transient(
            format!(
                "an open file in {} was deleted by another program",
                dir.display()
            )
            .into(),
        ))
    }
}

/// Whether the process or the machine has reached its limit of open files.
fn is_open_file_limit(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The disk is not a reason: the encoder keeps what it does not accept.
fn cannot_encode(error: EncodeError) -> SinkError {
    SinkError::Unwritable(Reason::of(error))
}
