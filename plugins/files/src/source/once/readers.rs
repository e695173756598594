//! The threads that read files.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender};
use pseidon_delivery::ResumePoint;
use pseidon_plugin::source::{SourceHandle, SourceSetup, Stopped};
use pseidon_plugin::{Batch, Split};

use super::super::Config;
use super::super::compression::InputCompression;
use super::super::progress::{end_of, read_to_end};
use super::super::read_error::ReadError;
use super::super::reader::{FileReader, Records};
use super::super::skipped::report_skipped;
use super::super::snapshot::Snapshot;
use super::super::stat::Stat;
use super::super::tail::Tail;
use super::ROOM_POLL;
use super::failures::FileFailures;
use super::last_line::WaitingLines;
use super::queue::ReadJob;

/// What the reader threads share.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) config: &'a Config,
    pub(super) setup: &'a SourceSetup,
    pub(super) handle: &'a SourceHandle,
    pub(super) failures: &'a FileFailures<'a>,
    pub(super) waiting: &'a WaitingLines,
}

/// The reader of a job, with its file.
struct JobReader<'a> {
    job: &'a ReadJob,
    file: File,
    compression: InputCompression,
    /// What it was on disk when it was opened, if it is not plain.
    snapshot: Option<Snapshot>,
    stat: Stat,
    reader: FileReader,
}

impl Reading<'_> {
    /// Reads the files of jobs, until there are no more or the run is stopped.
    pub(super) fn read_files(self, jobs: &Receiver<ReadJob>, ended: &Sender<Arc<Split>>) {
        for job in jobs {
            let outcome = match self.read_file(&job) {
                Ok(Ok(())) => Ok(()),
                Ok(Err((error, before))) => self.leave(&job, error, before),
                Err(Stopped) => Err(Stopped),
            };
            if outcome.is_err() {
                return;
            }
            if ended.send(job.split).is_err() {
                return;
            }
        }
    }

    /// Reads a file to its end. An error comes with what was read before the place where reading
    /// failed.
    fn read_file(self, job: &ReadJob) -> Result<Result<(), (ReadError, Tail)>, Stopped> {
        let mut open = match self.open(job) {
            Ok(Some(open)) => open,
            Ok(None) => {
                tracing::warn!(
                    stage = self.setup.stage,
                    file = job.file.display_path,
                    "file was replaced after it was found; the next run reads it"
                );
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err((error, Tail::unknown(job.from)))),
        };
        if let Some(line) = &job.file.identity.unended {
            match open.has_grown(line) {
                // It may have another identity now. The next run reads it.
                Ok(true) => return Ok(Ok(())),
                Ok(false) => {}
                Err(error) => return Ok(Err((error, open.reader.before()))),
            }
        }
        loop {
            while !self.handle.wait_for_room(ROOM_POLL)? {}
            if self.failures.stops() {
                return Ok(Ok(()));
            }
            let records = match self.next(&mut open) {
                Ok(Some(records)) => records,
                Ok(None) => break,
                Err(error) => return Ok(Err((error, open.reader.before()))),
            };
            self.report_skipped(&mut open);
            records
                .batches(&job.split)
                .try_for_each(|batch| self.handle.emit(batch))?;
        }
        self.report_skipped(&mut open);
        let (split, position) = (job.split.clone(), open.reader.position());
        let resume = match open.snapshot {
            // A file that grows is read from there later.
            None => open.reader.before().mark().at_end(&open.stat).to_resume(),
            Some(snapshot) => read_to_end(snapshot),
        };
        self.handle.emit(end_of(split, position, resume))?;
        Ok(Ok(()))
    }

    /// Handles a file that cannot be read further.
    fn leave(self, job: &ReadJob, error: ReadError, before: Tail) -> Result<(), Stopped> {
        let (split, position) = (&job.split, before.upto());
        let Some(reason) = self.failures.add(&split.topic, error) else {
            return Ok(());
        };
        // Nothing more of it is read, unless it is changed.
        let mut end = Batch::end_of(split.clone(), position);
        end.resume = before.known_mark().map(|mark| ResumePoint {
            position,
            resume: mark.to_resume(),
        });
        self.handle.emit(end)?;
        self.failures
            .quarantine(self.handle, split, position, &reason)
    }

    fn report_skipped(self, open: &mut JobReader<'_>) {
        let skipped = open.reader.take_skipped();
        report_skipped(self.setup, &open.job.split.topic, &skipped);
    }

    /// Opens the file of a job; `None` if it is not the file that was found.
    fn open<'j>(self, job: &'j ReadJob) -> Result<Option<JobReader<'j>>, ReadError> {
        let Some(file) = job.file.open_as_found()? else {
            return Ok(None);
        };
        let now = SystemTime::now();
        let stat = Stat::of(&file.metadata()?, now);
        let compression = self.config.compression_of(&file, &job.file.path)?;
        let snapshot = match compression {
            InputCompression::None => None,
            _ => Some(Snapshot::of(&file, compression)?),
        };
        let reader = self
            .config
            .open(file.try_clone()?, &job.file.path, job.from)?;
        Ok(Some(JobReader {
            job,
            file,
            compression,
            snapshot,
            stat,
            reader,
        }))
    }

    /// The next records, and at the end of the file a last line without a line end, if it is taken.
    fn next(self, open: &mut JobReader<'_>) -> Result<Option<Records>, ReadError> {
        if open.job.file.identity.unended.is_some() {
            return open.reader.last_line();
        }
        if let Some(records) = open.reader.next()? {
            return Ok(Some(records));
        }
        let is_taken = open.compression != InputCompression::None || {
            let metadata = open.file.metadata()?;
            let (framing, last_line) = (&self.config.framing, self.config.last_line);
            let rest = open.reader.lines().and_then(|lines| lines.rest());
            rest.is_some_and(|rest| last_line.takes(rest, framing, &metadata))
        };
        if is_taken {
            return open.reader.last_line();
        }
        let bytes = open.reader.read_to() - open.reader.position();
        self.waiting.add(&open.job.split.topic, bytes);
        Ok(None)
    }
}

impl JobReader<'_> {
    /// Whether the file has more than the line that was its only one, without an end, when it was
    /// found. This reads it, so nothing of the file may be read after that if it has.
    fn has_grown(&mut self, line: &[u8]) -> Result<bool, ReadError> {
        let is_other = self.reader.next()?.is_some() || {
            let rest = self.reader.lines().and_then(|lines| lines.rest());
            rest.is_some_and(|rest| !line.ends_with(rest))
        };
        Ok(is_other || self.reader.read_to() != line.len() as u64)
    }
}
