//! The states of a file in the sink: open, closed, committed.
//!
//! Each state is a type of its own. An [`OpenFile`] accepts rows; a [`ClosedFile`] is complete, and
//! waits to be committed together with others; from then on only its entry in the state store
//! counts, a [`Move`]. Dropping an open or a closed file deletes it: none of its records is
//! committed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use pseidon_delivery::{LaneId, Position, StagedEntry};
use pseidon_formats::{EncodeError, FileCodec, FileEncoder, RetryWriter};
use pseidon_plugin::{Rows, Split};
use serde_json::{Map, Value, json};

use super::access::Access;
use super::entry::Move;
use super::follow_up::{Destination, FollowUp};
use super::lane_name::{NameParts, file_name, folder_and_name};
use super::staging::HiddenFile;

/// The key of a Parquet file's metadata under which the file lists the positions of its records.
const POSITIONS_KEY: &str = "pseidon.positions";
const PIPELINE_KEY: &str = "pseidon.pipeline";
const SINK_KEY: &str = "pseidon.sink";

/// A file that accepts rows.
pub(super) struct OpenFile {
    lane: LaneId,
    /// Writes the hidden file, and so is dropped before it.
    encoder: FileEncoder,
    hidden: HiddenFile,
    /// Where the file is moved after publishing; `None` if it is not moved.
    destination: Option<Destination>,
    /// The records it contains by split, in order of arrival.
    ranges: Vec<SplitRange>,
    records: u64,
}

/// The positions of one split's records in a file; `upto` is exclusive.
struct SplitRange {
    split: Arc<Split>,
    first: Position,
    upto: Position,
}

/// The properties of a sink that [`OpenFile::close`] needs.
#[derive(Debug)]
pub(super) struct CloseContext<'a> {
    pub(super) pipeline: &'a str,
    pub(super) sink: &'a str,
    /// Distinguishes the places of a flow that share a stage.
    pub(super) place: Option<&'a str>,
    /// Whether the configured beginning of the files' names contains the topic.
    pub(super) has_topic: bool,
    pub(super) extension: &'a str,
    /// Whether every file is reported, moved or not.
    pub(super) has_hook: bool,
}

impl OpenFile {
    /// Opens the encoder for a lane's file.
    pub(super) fn new(
        lane: LaneId,
        destination: Option<Destination>,
        codec: &FileCodec,
        file: File,
        hidden: HiddenFile,
    ) -> Result<OpenFile, EncodeError> {
        Ok(OpenFile {
            lane,
            encoder: codec.open(file)?,
            hidden,
            destination,
            ranges: Vec::new(),
            records: 0,
        })
    }

    /// Adds rows of one batch. The file may be blocked afterwards, see [`OpenFile::still_blocked`].
    pub(super) fn write(&mut self, rows: &Rows) -> Result<(), EncodeError> {
        let Some(last) = rows.len().checked_sub(1) else {
            return Ok(());
        };
        self.encoder.write(rows)?;
        let split = &rows.batch().split;
        let (first, upto) = (rows.position(0), rows.position(last) + 1);
        match self
            .ranges
            .iter_mut()
            .find(|range| range.split.id == split.id)
        {
            Some(range) => range.upto = range.upto.max(upto),
            None => self.ranges.push(SplitRange {
                split: split.clone(),
                first,
                upto,
            }),
        }
        self.records += rows.len() as u64;
        Ok(())
    }

    /// Retries a failed write to the disk. Returns its error if it fails again.
    pub(super) fn still_blocked(&mut self) -> Option<&io::Error> {
        if self.encoder.blocked().is_some() {
            self.encoder.resume();
        }
        self.encoder.blocked()
    }

    /// Flushes the buffered rows. The file may be blocked afterwards.
    pub(super) fn shed(&mut self) -> Result<(), EncodeError> {
        self.encoder.shed()
    }

    /// The bytes of memory that the encoder uses, including compressors.
    pub(super) fn memory(&self) -> usize {
        self.encoder.memory()
    }

    /// The bytes on disk so far, plus an estimate for the buffered rows.
    pub(super) fn bytes(&self) -> u64 {
        self.encoder.file_bytes()
    }

    /// Completes the file. The result may be blocked.
    pub(super) fn close(self, context: &CloseContext<'_>) -> Result<ClosingFile, EncodeError> {
        let positions = positions(&self.ranges);
        let metadata = [
            (PIPELINE_KEY.to_owned(), context.pipeline.to_owned()),
            (SINK_KEY.to_owned(), context.sink.to_owned()),
            (
                POSITIONS_KEY.to_owned(),
                Value::Object(positions.clone()).to_string(),
            ),
        ];
        let (folder, name) = folder_and_name(&self.lane);
        let name = match self.ranges.first() {
            Some(range) => {
                let naming = NameParts {
                    name,
                    has_topic: context.has_topic,
                    place: context.place,
                };
                file_name(&range.split, range.first, naming)
            }
            None => "empty".to_owned(),
        };
        let file = format!("{name}.{}", context.extension);
        let visible = folder.map_or_else(|| file.clone(), |folder| format!("{folder}/{file}"));
        let has_follow_up = context.has_hook || self.destination.is_some();
        let follow_up = has_follow_up.then_some(FollowUp {
            records: self.records,
            positions,
            destination: self.destination,
        });
        let moving = self.hidden.to_move(visible, context.extension, follow_up);
        Ok(ClosingFile {
            writer: self.encoder.finish(&metadata)?,
            unpublished: UnpublishedFile {
                hidden: self.hidden,
                moving,
            },
        })
    }
}

/// The positions as JSON: `{"clicks/3": {"first": 10, "upto": 20}}`.
fn positions(ranges: &[SplitRange]) -> Map<String, Value> {
    ranges
        .iter()
        .map(|range| {
            (
                range.split.id.to_string(),
                json!({ "first": range.first, "upto": range.upto }),
            )
        })
        .collect()
}

/// A file whose last bytes are being written to the disk.
pub(super) struct ClosingFile {
    writer: RetryWriter<File>,
    unpublished: UnpublishedFile,
}

/// A hidden file with the entry that publishes it.
struct UnpublishedFile {
    hidden: HiddenFile,
    moving: Move,
}

impl ClosingFile {
    /// Retries a failed write to the disk. Returns its error if it fails again.
    pub(super) fn still_blocked(&mut self) -> Option<&io::Error> {
        if self.writer.blocked().is_some() {
            self.writer.resume();
        }
        self.writer.blocked()
    }

    /// The closed file, if all bytes are written.
    pub(super) fn into_closed(self) -> Result<ClosedFile, Box<ClosingFile>> {
        let mut unpublished = self.unpublished;
        match self.writer.into_inner() {
            Ok(file) => {
                // The size is final only now.
                unpublished.moving.bytes = file.metadata().ok().map(|metadata| metadata.len());
                Ok(ClosedFile { file, unpublished })
            }
            Err(writer) => Err(Box::new(ClosingFile {
                writer,
                unpublished,
            })),
        }
    }
}

/// A complete file that is not committed yet.
pub(super) struct ClosedFile {
    file: File,
    unpublished: UnpublishedFile,
}

impl ClosedFile {
    /// Makes the file's content durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The file under its hidden name.
    pub(super) fn hidden(&self) -> &HiddenFile {
        &self.unpublished.hidden
    }

    /// Publishes the file without the state store, unless there is a file of its name.
    pub(super) fn publish_once(self, access: &Access) -> io::Result<()> {
        self.unpublished.moving.publish_once(access)
    }

    /// Hands the file over to the state store before the commit: whether the commit is confirmed,
    /// refused or unanswered, only the store decides from now on whether the file counts. Returns
    /// the staged entry, with which every process can publish the file.
    pub(super) fn hand_over(mut self) -> StagedEntry {
        self.unpublished.hidden.keep();
        StagedEntry {
            id: self.unpublished.hidden.id(),
            detail: self.unpublished.moving.to_detail(),
        }
    }
}
