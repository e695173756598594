//! The number of writer threads.
//!
//! A thread whose job takes long is away: nothing else is done on it, whatever it waits for.
//! Another thread takes its place, so that as many as are wanted are always present. When it comes
//! back and is surplus, it exits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A job that takes longer than this counts its thread as away.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Counts the threads that are present, to decide how many to start and which must exit.
pub(super) struct Crew {
    wanted: usize,
    /// The number of threads that are not away.
    present: usize,
    jobs: HashMap<JobId, RunningJob>,
    begun: u64,
}

/// The identity of a job in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobId(u64);

struct RunningJob {
    began: Instant,
    is_away: bool,
}

impl Crew {
    /// Creates a crew without threads.
    pub(super) fn new(wanted: usize) -> Crew {
        Crew {
            wanted,
            present: 0,
            jobs: HashMap::new(),
            begun: 0,
        }
    }

    /// A thread begins a job.
    pub(super) fn begin(&mut self, now: Instant) -> JobId {
        let id = JobId(self.begun);
        self.begun += 1;
        self.jobs.insert(
            id,
            RunningJob {
                began: now,
                is_away: false,
            },
        );
        id
    }

    /// A thread is about to wait in its job.
    pub(super) fn wait(&mut self, job: JobId) {
        if let Some(since) = self.jobs.get_mut(&job)
            && !since.is_away
        {
            since.is_away = true;
            self.present -= 1;
        }
    }

    /// Checks which jobs take long.
    pub(super) fn look(&mut self, now: Instant) {
        let late = |since: &RunningJob| {
            !since.is_away && now.saturating_duration_since(since.began) >= PATIENCE
        };
        let late: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, since)| late(since))
            .map(|(job, _)| *job)
            .collect();
        late.into_iter().for_each(|job| self.wait(job));
    }

    /// A thread has done its job. Returns whether it is surplus now and must exit.
    pub(super) fn end(&mut self, job: JobId) -> bool {
        let was_away = self.jobs.remove(&job).is_some_and(|since| since.is_away);
        if was_away && self.present >= self.wanted {
            return true;
        }
        self.present += usize::from(was_away);
        false
    }

    /// How many threads must be started. They count as present from now on.
    pub(super) fn call_in(&mut self) -> usize {
        let missing = self.wanted.saturating_sub(self.present);
        self.present += missing;
        missing
    }

    /// A thread that was called in could not be started.
    pub(super) fn start_failed(&mut self) {
        self.present -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_as_wanted_are_present() {
        let mut crew = Crew::new(2);
        let now = Instant::now();
        assert_eq!((crew.call_in(), crew.call_in()), (2, 0));
        let (one, two) = (crew.begin(now), crew.begin(now + PATIENCE / 2));
        crew.look(now + PATIENCE / 2);
        assert_eq!(crew.call_in(), 0, "no job takes long");
        crew.look(now + PATIENCE);
        crew.look(now + PATIENCE);
        assert_eq!(
            (crew.call_in(), crew.call_in()),
            (1, 0),
            "one job takes long"
        );
        crew.wait(two);
        crew.look(now + PATIENCE * 2);
        assert_eq!(crew.call_in(), 1, "the other job waits");
        let three = crew.begin(now + PATIENCE * 2);
        assert!(crew.end(one), "its place is taken");
        assert!(!crew.end(three), "it was never away");
        assert!(crew.end(two));
        assert_eq!(crew.call_in(), 0);
    }

    #[test]
    fn a_returning_thread_takes_its_place_while_it_is_free() {
        let mut crew = Crew::new(1);
        let now = Instant::now();
        assert_eq!(crew.call_in(), 1);
        let job = crew.begin(now);
        crew.wait(job);
        assert_eq!(crew.call_in(), 1);
        crew.start_failed();
        assert!(!crew.end(job));
        assert_eq!(crew.call_in(), 0);
    }
}
