//! The threads that read files.

use std::fs::File;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use pseidon_plugin::source::{SourceHandle, Stopped};
use pseidon_plugin::{Batch, Split};

use super::super::Config;
use super::super::compression::InputCompression;
use super::super::lines::{Block, LineReader};
use super::super::progress::{end_of, read_to_end};
use super::super::read_error::ReadError;
use super::ROOM_POLL;
use super::failures::FileFailures;
use super::queue::ReadJob;

/// Reads the files of jobs, until there are no more or the run is stopped.
pub(super) fn read_files(
    config: &Config,
    handle: &SourceHandle,
    jobs: &Receiver<ReadJob>,
    ended: &Sender<Arc<Split>>,
    failures: &FileFailures,
) {
    for job in jobs {
        match read_file(config, handle, &job) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.add(&job.split.topic, error),
            Err(Stopped) => return,
        }
        if ended.send(job.split).is_err() {
            return;
        }
    }
}

fn read_file(
    config: &Config,
    handle: &SourceHandle,
    job: &ReadJob,
) -> Result<Result<(), ReadError>, Stopped> {
    let open = || -> Result<_, ReadError> {
        let file = File::open(&job.file.path)?;
        let size = file.metadata()?.len();
        let compression = config.compression_of(&file, &job.file.path)?;
        let reader = config.open(file, &job.file.path, job.from)?;
        Ok((reader, size, compression))
    };
    let (mut reader, size, compression) = match open() {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        while !handle.wait_for_room(ROOM_POLL)? {}
        let block = match next(&mut reader) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        block
            .batches(&job.split)
            .try_for_each(|batch| handle.emit(batch))?;
    }
    handle.emit(match compression {
        // A file that grows is read from there later.
        InputCompression::None => Batch::end_of(job.split.clone(), reader.position()),
        _ => end_of(job.split.clone(), reader.position(), read_to_end(size)),
    })?;
    Ok(Ok(()))
}

/// The next lines, and at the end of the file a last line without a line end.
fn next(reader: &mut LineReader) -> Result<Option<Block>, ReadError> {
    match reader.next_block()? {
        Some(block) => Ok(Some(block)),
        None => reader.last_line(),
    }
}
