//! A file's life in the sink: open, closed, visible.
//!
//! Each state holds just what there is in it. An [`OpenFile`] takes rows in; a [`ClosedFile`] is
//! complete, and waits to be committed together with others; from then on only its entry in the
//! state store counts, a [`Move`]. Dropping an open or a closed file deletes it: none of its
//! records is committed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use pseidon_delivery::{LaneId, Position, Staged};
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
        Ok(OpenFile {
            lane,
            encoder: codec.open(file)?,
            hidden,
            destination,
            held: Vec::new(),
            records: 0,
        })
    }

    /// Adds rows of one batch. The file may be blocked afterwards.
    pub(super) fn write(&mut self, rows: &Rows) -> Result<(), EncodeError> {
        let Some(last) = rows.len().checked_sub(1) else {
            return Ok(());
        };
        self.encoder.write(rows)?;
        let split = &rows.batch().split;
        let (first, upto) = (rows.position(0), rows.position(last) + 1);
        match self.held.iter_mut().find(|held| held.split.id == split.id) {
            Some(held) => held.upto = held.upto.max(upto),
            None => self.held.push(Held {
                split: split.clone(),
                first,
                upto,
            }),
        }
        self.records += rows.len() as u64;
        Ok(())
    }

    /// Tries again to get bytes to the disk that did not get there. Why they still do not, if they
    /// do not.
    pub(super) fn still_blocked(&mut self) -> Option<&io::Error> {
        if self.encoder.blocked().is_some() {
            self.encoder.resume();
        }
        self.encoder.blocked()
    }

    /// Writes out what it buffers. The file may be blocked afterwards.
    pub(super) fn shed(&mut self) -> Result<(), EncodeError> {
        self.encoder.shed()
    }

    /// The bytes that it buffers.
    pub(super) fn memory(&self) -> usize {
        self.encoder.memory()
    }

    /// The bytes on disk so far, with an estimate of what is buffered.
    pub(super) fn bytes(&self) -> u64 {
        self.encoder.file_bytes()
    }

    /// Ends the file. What comes back may be blocked.
    pub(super) fn close(self, writing: &Writing<'_>) -> Result<ClosingFile, EncodeError> {
        let positions = positions(&self.held);
        let metadata = [
            (PIPELINE_KEY.to_owned(), writing.pipeline.to_owned()),
            (SINK_KEY.to_owned(), writing.sink.to_owned()),
            (
                POSITIONS_KEY.to_owned(),
                Value::Object(positions.clone()).to_string(),
            ),
        ];
        let (folder, name) = folder_and_name(&self.lane);
        let name = match self.held.first() {
            Some(held) => {
                let naming = Naming {
                    name,
                    tells_topic: writing.tells_topic,
                    place: writing.place,
                };
                file_name(&held.split, held.first, naming)
            }
            None => "empty".to_owned(),
        };
        let file = format!("{name}.{}", writing.extension);
        let visible = folder.map_or_else(|| file.clone(), |folder| format!("{folder}/{file}"));
        let has_follow_up = writing.has_hook || self.destination.is_some();
        let follow_up = has_follow_up.then_some(FollowUp {
            records: self.records,
            positions,
            destination: self.destination,
        });
        let moving = self.hidden.to_move(visible, writing.extension, follow_up);
        Ok(ClosingFile {
            writer: self.encoder.finish(&metadata)?,
            rest: Closed {
                hidden: self.hidden,
                moving,
            },
        })
    }
}

/// `{"clicks/3": {"first": 10, "upto": 20}}`
fn positions(held: &[Held]) -> Map<String, Value> {
    held.iter()
        .map(|held| {
            (
                held.split.id.to_string(),
                json!({ "first": held.first, "upto": held.upto }),
            )
        })
        .collect()
}

/// A file whose last bytes are on their way to the disk.
pub(super) struct ClosingFile {
    writer: RetryWriter<File>,
    rest: Closed,
}

struct Closed {
    hidden: Hidden,
    moving: Move,
}

impl ClosingFile {
    /// Tries again to get them there. Why they still do not, if they do not.
    pub(super) fn still_blocked(&mut self) -> Option<&io::Error> {
        if self.writer.blocked().is_some() {
            self.writer.resume();
        }
        self.writer.blocked()
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
    /// Makes its content lasting.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The hidden file.
    pub(super) fn hidden(&self) -> &Hidden {
        &self.rest.hidden
    }

    /// It is about to be committed: whatever the answer is, or if there is none, only the store can
    /// say from now on whether the file counts. Returns the entry, so that every process can
    /// publish it.
    pub(super) fn hand_over(mut self) -> Staged {
        self.rest.hidden.keep();
        Staged {
            id: self.rest.hidden.id(),
            detail: self.rest.moving.to_detail(),
        }
    }
}
