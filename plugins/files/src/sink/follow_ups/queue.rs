//! The jobs that wait, in the order in which they are due.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use pseidon_delivery::StagedId;

use super::super::entry::Move;
use super::super::follow_up::FollowUp;

/// The jobs of a sink, by the thread that runs them.
#[derive(Default)]
pub(super) struct JobQueues {
    pub(super) files: JobQueue,
    pub(super) reports: JobQueue,
    /// The ids of the files of all jobs.
    pub(super) job_ids: HashSet<StagedId>,
    /// The ids of the files that were done last, the oldest first.
    pub(super) done: VecDeque<StagedId>,
    added: u64,
    /// Until when jobs may run; `None` until the sink is closed.
    pub(super) deadline: Option<Instant>,
}

/// The jobs that one thread runs one after the other.
#[derive(Default)]
pub(super) struct JobQueue {
    /// Ordered by due time and then by arrival.
    pub(super) jobs: BTreeMap<(Instant, u64), Job>,
    pub(super) has_thread: bool,
}

/// Selects a queue, and so its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueKind {
    Files,
    Reports,
}

/// One file and the next step for it.
pub(super) struct Job {
    pub(super) id: StagedId,
    pub(super) moving: Move,
    pub(super) step: JobStep,
    pub(super) failures: u32,
    /// Whether it failed last because of a folder that a person has to repair.
    pub(super) needs_repair: bool,
}

/// What is done next for a file.
#[derive(Clone, Debug)]
pub(super) enum JobStep {
    /// The file is committed, and has to get its visible name.
    Publish,
    /// The file is published, and has to be moved to its destination.
    Relocate(FollowUp),
    /// The file is at this final path, and has to be reported.
    Report(FollowUp, PathBuf),
}

impl JobStep {
    /// The queue in which a job waits for this step.
    pub(super) fn queue(&self) -> QueueKind {
        match self {
            JobStep::Publish | JobStep::Relocate(_) => QueueKind::Files,
            JobStep::Report(..) => QueueKind::Reports,
        }
    }
}

impl JobQueues {
    /// The queue of this kind.
    pub(super) fn queue(&mut self, kind: QueueKind) -> &mut JobQueue {
        match kind {
            QueueKind::Files => &mut self.files,
            QueueKind::Reports => &mut self.reports,
        }
    }

    /// Queues a job for its next step.
    pub(super) fn push(&mut self, due: Instant, job: Job) {
        self.added += 1;
        let key = (due, self.added);
        self.queue(job.step.queue()).jobs.insert(key, job);
    }
}
