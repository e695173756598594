//! A file's life in the sink: open, closed, visible.
//!
//! Each state holds just what there is in it. An [`OpenFile`] takes rows in; a [`ClosedFile`] is complete, and waits to be committed together
//! with others; after the commit only its [`Move`] is left. Dropping an open or a closed file deletes it: none of its records is committed.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use pseidon_delivery::{LaneCommit, LaneId, Position, SplitId, Staged};
use pseidon_formats::{EncodeError, FileCodec, FileEncoder, RetryWriter};
use pseidon_plugin::{Rows, Split};
use serde_json::{Map, Value, json};

use super::follow_up::{Destination, FollowUp};
use super::lane_name::{Naming, file_name, folder_and_name};
use super::place::Move;
use super::staging::Hidden;

/// The key under which a Parquet file says which positions it holds.
const POSITIONS_KEY: &str = "pseidon.positions";
const PIPELINE_KEY: &str = "pseidon.pipeline";
const SINK_KEY: &str = "pseidon.sink";

/// A file that takes rows in.
pub(super) struct OpenFile {
    lane: LaneId,
    /// Dropped before the hidden file, which it writes.
    encoder: FileEncoder,
    hidden: Hidden,
    /// Where it is moved when it is published.
    destination: Option<Destination>,
    /// The splits whose records it holds, in the order in which they came.
    held: Vec<Held>,
    records: u64,
    opened: Instant,
    written: Instant,
    /// As the encoder said after the last rows.
    memory: usize,
}

/// What a file holds of a split.
struct Held {
    split: Arc<Split>,
    first: Position,
    upto: Position,
}

/// Who writes a file.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pub(super) pipeline: &'a str,
    pub(super) sink: &'a str,
    /// Tells apart the places of a flow that share a stage.
    pub(super) place: Option<&'a str>,
    /// Whether what the files' names begin with tells the topic.
    pub(super) tells_topic: bool,
    pub(super) extension: &'a str,
    /// Whether something follows for every file, moved or not.
    pub(super) has_hook: bool,
}

impl OpenFile {
    /// A file for a lane.
    pub(super) fn new(
        lane: LaneId,
        destination: Option<Destination>,
        codec: &FileCodec,
        file: File,
        hidden: Hidden,
    ) -> Result<OpenFile, EncodeError> {
        let (encoder, now) = (codec.open(file)?, Instant::now());
        let memory = encoder.memory();
        Ok(OpenFile { lane, encoder, hidden, destination, held: Vec::new(), records: 0, opened: now, written: now, memory })
    }

    /// Adds rows of one batch. The file may be blocked afterwards.
    pub(super) fn write(&mut self, rows: &Rows) -> Result<(), EncodeError> {
        let Some(last) = rows.len().checked_sub(1) else { return Ok(()) };
        self.encoder.write(rows)?;
        let split = &rows.batch().split;
        let (first, upto) = (rows.position(0), rows.position(last) + 1);
        match self.held.iter_mut().find(|held| held.split.id == split.id) {
            Some(held) => held.upto = held.upto.max(upto),
            None => self.held.push(Held { split: split.clone(), first, upto }),
        }
        self.records += rows.len() as u64;
        self.written = Instant::now();
        self.memory = self.encoder.memory();
        Ok(())
    }

    /// Why bytes do not get to the disk, if they do not.
    pub(super) fn blocked(&self) -> Option<&io::Error> {
        self.encoder.blocked()
    }

    /// Tries again to get them there.
    pub(super) fn resume(&mut self) {
        self.encoder.resume();
        self.memory = self.encoder.memory();
    }

    /// Writes out what it buffers.
    pub(super) fn shed(&mut self) -> Result<(), EncodeError> {
        self.encoder.shed()?;
        self.memory = self.encoder.memory();
        Ok(())
    }

    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn bytes(&self) -> u64 {
        self.encoder.file_bytes()
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// When rows were written last.
    pub(super) fn written(&self) -> Instant {
        self.written
    }

    /// Whether it holds records of one of these splits.
    pub(super) fn holds(&self, splits: &[SplitId]) -> bool {
        self.held.iter().any(|held| splits.contains(&held.split.id))
    }

    /// Ends the file. What comes back may be blocked.
    pub(super) fn close(self, writing: &Writing<'_>) -> Result<ClosingFile, EncodeError> {
        let positions = positions(&self.held);
        let metadata = [
            (PIPELINE_KEY.to_owned(), writing.pipeline.to_owned()),
            (SINK_KEY.to_owned(), writing.sink.to_owned()),
            (POSITIONS_KEY.to_owned(), Value::Object(positions.clone()).to_string()),
        ];
        let (folder, name) = folder_and_name(&self.lane);
        let name = match self.held.first() {
            Some(held) => {
                let naming = Naming { name, tells_topic: writing.tells_topic, place: writing.place };
                file_name(&held.split, held.first, naming)
            }
            None => "empty".to_owned(),
        };
        let file = format!("{name}.{}", writing.extension);
        let visible = folder.map_or_else(|| file.clone(), |folder| format!("{folder}/{file}"));
        let has_follow_up = writing.has_hook || self.destination.is_some();
        let follow_up = has_follow_up.then_some(FollowUp { records: self.records, positions, destination: self.destination });
        let moving = self.hidden.to_move(visible, writing.extension, follow_up);
        let splits = self.held.into_iter().map(|held| (held.split.id.clone(), held.upto)).collect();
        let commit = LaneCommit { lane: self.lane, splits };
        Ok(ClosingFile { writer: self.encoder.finish(&metadata)?, rest: Closed { hidden: self.hidden, commit, moving } })
    }
}

/// `{"clicks/3": {"first": 10, "upto": 20}}`
fn positions(held: &[Held]) -> Map<String, Value> {
    held.iter().map(|held| (held.split.id.to_string(), json!({ "first": held.first, "upto": held.upto }))).collect()
}

/// A file whose last bytes are on their way to the disk.
pub(super) struct ClosingFile {
    writer: RetryWriter<File>,
    rest: Closed,
}

struct Closed {
    hidden: Hidden,
    commit: LaneCommit,
    moving: Move,
}

impl ClosingFile {
    /// Why they do not get there, if they do not.
    pub(super) fn blocked(&self) -> Option<&io::Error> {
        self.writer.blocked()
    }

    /// Tries again to get them there.
    pub(super) fn resume(&mut self) {
        self.writer.resume();
    }

    /// The file, if they are all there.
    pub(super) fn into_closed(self) -> Result<ClosedFile, Box<ClosingFile>> {
        let mut rest = self.rest;
        match self.writer.into_inner() {
            Ok(file) => {
                // It grows until the last byte is written.
                rest.moving.bytes = file.metadata().ok().map(|metadata| metadata.len());
                Ok(ClosedFile { file, rest })
            }
            Err(writer) => Err(Box::new(ClosingFile { writer, rest })),
        }
    }
}

/// A complete file that is not committed.
pub(super) struct ClosedFile {
    file: File,
    rest: Closed,
}

impl ClosedFile {
    /// Its size on disk.
    pub(super) fn bytes(&self) -> u64 {
        size(&self.file)
    }

    /// Makes its content lasting.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The hidden file.
    pub(super) fn hidden(&self) -> &Hidden {
        &self.rest.hidden
    }

    /// What the commit has to say of it.
    pub(super) fn lane_commit(&self) -> LaneCommit {
        self.rest.commit.clone()
    }

    /// The same, so that anybody can publish it.
    pub(super) fn staged(&self) -> Staged {
        Staged { id: self.rest.hidden.id(), detail: self.rest.moving.to_detail() }
    }

    /// It is about to be committed: from now on the store says what becomes of it. Gives its id and what publishing it takes.
    pub(super) fn hand_over(mut self) -> (String, Move) {
        self.rest.hidden.keep();
        (self.rest.hidden.id(), self.rest.moving)
    }
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}
