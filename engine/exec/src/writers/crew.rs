//! How many writer threads there are.
//!
//! A thread whose job takes long is away: nothing else is done on it, whatever it waits for.
//! Another thread takes its place, so that as many as are wanted are always present. When it comes
//! back and is one too many, it leaves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A job that takes longer than that takes its thread away from the others.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The threads.
pub(super) struct Crew {
    wanted: usize,
    /// Those that are not away.
    present: usize,
    jobs: HashMap<JobId, Since>,
    begun: u64,
}

/// Names a job in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobId(u64);

struct Since {
    began: Instant,
    is_away: bool,
}

impl Crew {
    /// No thread works yet.
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
            Since {
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

    /// Looks which jobs take long.
    pub(super) fn look(&mut self, now: Instant) {
        let late = |since: &Since| {
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

    /// A thread has done its job. Returns whether it is one too many now and has to end.
    pub(super) fn end(&mut self, job: JobId) -> bool {
        let was_away = self.jobs.remove(&job).is_some_and(|since| since.is_away);
        if was_away && self.present >= self.wanted {
            return true;
        }
        self.present += usize::from(was_away);
        false
    }

    /// How many threads have to be started. They count as present from now on.
    pub(super) fn call_in(&mut self) -> usize {
        let missing = self.wanted.saturating_sub(self.present);
        self.present += missing;
        missing
    }

    /// A thread that was called in could not be started.
    pub(super) fn did_not_come(&mut self) {
        self.present -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_are_wanted_are_present() {
        let mut crew = Crew::new(2);
        let now = Instant::now();
        assert_eq!((crew.call_in(), crew.call_in()), (2, 0));
        let (one, two) = (crew.begin(now), crew.begin(now + PATIENCE / 2));
        crew.look(now + PATIENCE / 2);
        assert_eq!(crew.call_in(), 0, "neither takes long");
        crew.look(now + PATIENCE);
        crew.look(now + PATIENCE);
        assert_eq!((crew.call_in(), crew.call_in()), (1, 0), "one takes long");
        crew.wait(two);
        crew.look(now + PATIENCE * 2);
        assert_eq!(crew.call_in(), 1, "the other one waits");
        let three = crew.begin(now + PATIENCE * 2);
        assert!(crew.end(one), "its place is taken");
        assert!(!crew.end(three), "it was never away");
        assert!(crew.end(two));
        assert_eq!(crew.call_in(), 0);
    }

    #[test]
    fn one_that_comes_back_takes_its_place_while_it_is_free() {
        let mut crew = Crew::new(1);
        let now = Instant::now();
        assert_eq!(crew.call_in(), 1);
        let job = crew.begin(now);
        crew.wait(job);
        assert_eq!(crew.call_in(), 1);
        crew.did_not_come();
        assert!(!crew.end(job));
        assert_eq!(crew.call_in(), 0);
    }
}
