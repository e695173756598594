//! A view of a run for observers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::rows::Rows;
use pseidon_plugin::stop::Pause;

use crate::attempt::{Attempt, AttemptSink};
use crate::bad_records::{BadRecordHistory, BadRecordReasons, RecentBadRecord};
use crate::fields::added::{AddedFields, SeenAdditions};
use crate::fields::{MissingField, SeenFields};
use crate::lanes::LaneStatus;
use crate::tap::{Tap, TapRequest};

/// A liveness signal: the working thread beats regularly, and an observer sees how long ago the
/// last beat was.
pub struct Pulse {
    began: Instant,
    /// Milliseconds from `began` to the last beat.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Signals that all is well.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// The time since the last beat.
    pub fn silent_for(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// What observers can see of a run. One view lives as long as its run, over all of its attempts, and
/// over the runs of other plans that follow in the same process.
/// Observing costs the run nothing measurable.
#[derive(Default)]
pub struct View {
    /// Beats as long as the run makes progress, including while it waits for servers and between
    /// attempts.
    pub pulse: Pulse,
    attempt: Mutex<Weak<Attempt>>,
    /// Whether sources may read. A run that continues with another plan stays paused.
    pub(crate) pause: Pause,
    pub(crate) tap: Arc<Tap>,
    pub(crate) bad_records: Arc<BadRecordHistory>,
    pub(crate) seen_fields: Arc<SeenFields>,
    pub(crate) seen_additions: Arc<SeenAdditions>,
}

/// The positions of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPositions {
    /// The name of the sink in the state store.
    pub sink: String,
    /// Each split with the position below which all of its records are durable in the sink, ordered
    /// by name.
    pub splits: Vec<(SplitId, Position)>,
}

impl View {
    /// The positions of every sink; empty between two attempts.
    pub fn positions(&self) -> Vec<SinkPositions> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &AttemptSink| {
            let mut splits: Vec<_> = sink.committer.ledger().lows().into_iter().collect();
            splits.sort();
            SinkPositions {
                sink: sink.stage.clone(),
                splits,
            }
        };
        attempt.sinks.iter().map(of_sink).collect()
    }

    /// The open lanes of every sink: the sink's name, and its lanes ordered by name.
    pub fn open_lanes(&self) -> Vec<(String, Vec<LaneStatus>)> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &AttemptSink| {
            let lanes = sink.shown.list();
            (!lanes.is_empty()).then(|| (sink.stage.clone(), lanes))
        };
        attempt.sinks.iter().filter_map(of_sink).collect()
    }

    /// The last invalid records, the newest last.
    pub fn last_bad(&self) -> Vec<RecentBadRecord> {
        self.bad_records.list()
    }

    /// How many records were invalid for each reason.
    pub fn bad_record_reasons(&self) -> BadRecordReasons {
        self.bad_records.reasons()
    }

    /// The fields that the pipeline uses and that no record had so far.
    pub fn missing_fields(&self) -> Vec<MissingField> {
        self.seen_fields.missing()
    }

    /// The records with fields that an inferred schema does not have, so far.
    pub fn added_fields(&self) -> Vec<AddedFields> {
        self.seen_additions.list()
    }

    /// Returns up to `count` of the next rows that pass a stage; `None` if none pass within
    /// `patience`.
    pub fn rows(&self, stage: &str, count: usize, patience: Duration) -> Option<Rows> {
        let (reply, rows) = bounded(1);
        self.tap.open(TapRequest {
            stage: stage.to_owned(),
            count,
            reply,
        });
        rows.recv_timeout(patience).ok()
    }

    /// Whether sources read nothing because the user has paused the run.
    pub fn is_paused(&self) -> bool {
        self.pause.is_set()
    }

    /// Ends a pause, before a run that does not continue another one.
    pub fn resume(&self) {
        self.pause.set(false);
    }

    pub(crate) fn show(&self, attempt: &Arc<Attempt>) {
        *self.attempt.lock() = Arc::downgrade(attempt);
    }
}
