//! A lane: the file of one queue that is being written.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use pseidon_delivery::{LaneId, Reason, StagedEntry};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Completion, Lane, LaneProgress, Room, SealOutcome};
use pseidon_plugin::sink::SinkError;

use super::hidden::{HiddenFile, HiddenFolder};
use super::route::Router;

/// How many bytes a lane buffers before it writes them to its file.
const BUFFER: usize = 64 << 10;

/// The open lane of a queue. Its rows are buffered, and then written to a hidden file.
pub(super) struct SpoolLane {
    router: Arc<Router>,
    content: LaneContent,
}

/// The rows of a lane: bytes in a hidden file, and bytes that are not yet written there.
struct LaneContent {
    queue: LaneId,
    folder: Arc<HiddenFolder>,
    /// `None` until the first bytes are written.
    file: Option<(HiddenFile, File)>,
    written: u64,
    buffer: Vec<u8>,
}

impl SpoolLane {
    /// Creates a lane without a file.
    pub(super) fn new(queue: LaneId, folder: Arc<HiddenFolder>, router: Arc<Router>) -> SpoolLane {
        SpoolLane {
            router,
            content: LaneContent {
                queue,
                folder,
                file: None,
                written: 0,
                buffer: Vec::new(),
            },
        }
    }
}

impl Lane for SpoolLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        if self.content.buffer.len() >= BUFFER {
            let room = self.shed()?;
            if room != Room::Ready {
                return Ok(room);
            }
        }
        // A buffer accepts all rows; what the disk does not accept now stays in it.
        let encoder = &self.router.encoder;
        encoder
            .write_lines(rows, &mut self.content.buffer)
            .map_err(|error| SinkError::Fatal(Reason::caused_by("cannot encode records", error)))?;
        Ok(Room::Ready)
    }

    fn bytes(&self) -> u64 {
        self.content.written + self.content.buffer.len() as u64
    }

    fn memory(&self) -> usize {
        self.content.buffer.capacity()
    }

    fn shed(&mut self) -> Result<Room, SinkError> {
        Ok(match self.content.write_buffer() {
            Ok(()) => Room::Ready,
            Err(error) => Room::Blocked(error.to_string()),
        })
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Pending(Box::new(SealedFile {
            content: self.content,
        })))
    }
}

impl LaneContent {
    /// Writes the buffer to the file. Bytes that were written leave the buffer, even if others
    /// could not be written.
    fn write_buffer(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.folder.create()?);
        }
        let Some((_, file)) = &mut self.file else {
            return Ok(());
        };
        while !self.buffer.is_empty() {
            let count = match file.write(&self.buffer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.buffer.drain(..count);
            self.written += count as u64;
        }
        // Lanes that wait to be sealed need no memory.
        self.buffer = Vec::new();
        Ok(())
    }
}

/// A sealed lane, which becomes durable by writing the rest of its file and syncing it.
struct SealedFile {
    content: LaneContent,
}

impl Completion for SealedFile {
    fn advance(&mut self) -> Result<LaneProgress, SinkError> {
        if let Err(error) = self.content.write_buffer() {
            return Ok(LaneProgress::Blocked(error.to_string()));
        }
        let Some((hidden, file)) = mem::take(&mut self.content.file) else {
            return Ok(LaneProgress::Durable(Vec::new()));
        };
        // After a failed sync the kernel may have discarded the data, so the file is lost.
        file.sync_all()
            .and_then(|()| self.content.folder.sync())
            .map_err(|error| {
                SinkError::Transient(Reason::caused_by("cannot sync a file", error))
            })?;
        Ok(LaneProgress::Durable(vec![StagedEntry {
            id: hidden.hand_over().into(),
            detail: self.content.queue.to_string(),
        }]))
    }
}
