//! The lanes of one writer of a sink: rows are written to them, and what is complete is made
//! durable, committed and published.
//!
//! A lane passes these states:
//!
//! ```text
//! open ──seal──▶ sealed ──durable──▶ committed ──publish──▶ forgotten
//!   takes rows     fsync, upload       in the store           by the next step
//! ```
//!
//! A target that holds the positions itself goes from sealed to committed in one transaction, and
//! nothing is published.
//!
//! Sealed lanes are committed in the order in which they were sealed, as many at once as are
//! durable. A lane is sealed only at the end of a position: rows that were derived from one record
//! share its position and may come in several batches, and a commit in between would say that the
//! record is delivered while a part of it is not.
//!
//! Nothing here waits for a target. Rows that a lane has no room for wait in front of it, in order,
//! while other lanes continue; they are offered again when the lane's waker is called or a
//! [`Backoff`] has elapsed. The protocol simulation runs this code too.
//!
//! If an encoder panics or refuses its records, the lane has [failed], and the next attempt finds
//! the record because of which it did ([`suspects`]).

mod backoff;
mod failed;
mod flush;
mod memory;
mod open_lane;
mod sealed;
mod suspects;
#[cfg(all(test, not(feature = "model")))]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use chrono::Utc;
use prometheus::IntGauge;
use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{Committer, LaneCommit, LaneId, Position};
use pseidon_plugin::Rows;
use pseidon_plugin::budget::{LaneMemory, LaneUse};
use pseidon_plugin::lane::{LaneRules, Room, SealOutcome, Transaction};
use pseidon_plugin::rollover::CronAlarm;
use pseidon_plugin::sink::{Chunk, Sink, SinkError, SinkSetup};

use self::backoff::Backoff;
use self::failed::without_panic;
use self::flush::PendingFlush;
use self::open_lane::OpenLane;
pub use self::open_lane::{LaneStatus, LaneStatuses};
use self::sealed::SealedLanes;
pub(crate) use self::suspects::Finding;
pub use self::suspects::Suspects;
use self::suspects::{FailedLane, PositionRange};
use crate::sync::now;

/// When too many lanes are open, one in this many is sealed in one step.
const SEALED_AT_ONCE: usize = 8;
/// How often a target that holds the positions gets those that moved without records.
const IDLE_COMMIT: Duration = Duration::from_secs(5);

/// The context of a writer of a sink.
pub struct LanesSetup {
    /// The sink to write to.
    pub sink: Arc<dyn Sink>,
    /// Commits the sink's lanes.
    pub committer: Arc<Committer>,
    /// How many writers the sink has.
    pub writers: usize,
    /// The memory that the open lanes of all sinks may use for buffers.
    pub memory: Arc<LaneMemory>,
    /// Counts the sink's writers that are blocked.
    pub blocked: IntGauge,
    /// Called when a lane has something to do: the owner must then call [`Lanes::resume`].
    pub waker: Waker,
    /// Where the status of open lanes is shown.
    pub shown: LaneStatuses,
    /// What is known of records because of which lanes of the sink have failed; `None` if the sink
    /// has no error policy for them.
    pub suspects: Option<Arc<Suspects>>,
}

/// The lanes of one writer. Dropping it discards what is open and what was never passed to a
/// commit.
pub struct Lanes {
    setup: LanesSetup,
    rules: LaneRules,
    alarm: Option<CronAlarm>,
    open: HashMap<LaneId, OpenLane>,
    /// Rows that found no room in their lane, in order.
    waiting: HashMap<LaneId, VecDeque<WaitingChunk>>,
    sealed: SealedLanes,
    flushes: Vec<PendingFlush>,
    backoff: Backoff,
    /// The bytes that the open lanes buffer.
    memory: usize,
    /// The same, as counted together with all writers of all sinks.
    share: LaneUse,
    /// When the last transaction was committed.
    last_commit: Instant,
    /// The lane that has failed because of its records, if one has.
    failed: Option<FailedLane>,
}

/// Rows that wait for room, with what is held for them.
struct WaitingChunk {
    chunk: Chunk,
    held: Box<dyn Send>,
}

impl Lanes {
    /// Creates a writer's lanes; none is open.
    pub fn new(setup: LanesSetup) -> Lanes {
        let rules = setup.sink.rules();
        Lanes {
            alarm: rules
                .rollover
                .cron
                .clone()
                .map(|cron| CronAlarm::new(cron, Utc::now())),
            rules: LaneRules {
                most_open: (rules.most_open / setup.writers.max(1)).max(1),
                ..rules
            },
            open: HashMap::new(),
            waiting: HashMap::new(),
            sealed: SealedLanes::default(),
            flushes: Vec::new(),
            backoff: Backoff::new(setup.committer.sink().to_string(), setup.blocked.clone()),
            memory: 0,
            share: LaneUse::new(&setup.memory),
            last_commit: now(),
            failed: None,
            setup,
        }
    }

    /// The lanes of a sink that has one writer, for a caller that checks [`Lanes::resume_at`]
    /// itself, such as the protocol simulation.
    pub fn of_one_writer(sink: Arc<dyn Sink>, setup: &SinkSetup) -> Lanes {
        let stage = setup.committer.sink().stage_and_place().0;
        Lanes::new(LanesSetup {
            sink,
            committer: setup.committer.clone(),
            writers: 1,
            memory: setup.memory.clone(),
            blocked: setup.metrics.sink_blocked.with_label_values(&[stage]),
            waker: Waker::noop().clone(),
            shown: LaneStatuses::default(),
            suspects: None,
        })
    }

    /// How often [`Lanes::tick`] must be called.
    pub fn check_every(&self) -> Duration {
        self.rules.check_every
    }

    /// When [`Lanes::resume`] must be called, if the target is blocked.
    pub fn resume_at(&self) -> Option<Instant> {
        self.backoff.until()
    }

    /// Accepts rows for a lane. Rows of one split must come in order of their positions. `held` is
    /// dropped when the lane has accepted the rows.
    pub fn write(&mut self, chunk: Chunk, held: impl Send + 'static) -> Result<(), SinkError> {
        if let Some(waiting) = self.waiting.get_mut(&chunk.lane) {
            waiting.push_back(WaitingChunk {
                chunk,
                held: Box::new(held),
            });
            return Ok(());
        }
        if let Some(chunk) = self.fill(chunk)? {
            let waiting = WaitingChunk {
                chunk,
                held: Box::new(held),
            };
            self.waiting
                .entry(waiting.chunk.lane.clone())
                .or_default()
                .push_back(waiting);
        }
        self.free_memory()?;
        self.finish_flushes()
    }

    /// Seals and commits what is due by time.
    pub fn tick(&mut self) -> Result<(), SinkError> {
        self.open
            .values_mut()
            .try_for_each(|open| open.lane.tick())?;
        if self.open.is_empty() {
            self.setup.sink.tick()?;
        }
        let rings = self
            .alarm
            .as_mut()
            .is_some_and(|alarm| alarm.rings(Utc::now()));
        let (now, rollover) = (now(), &self.rules.rollover);
        for lane in self.open.values_mut() {
            lane.is_due |= rings || lane.is_full(rollover) || lane.is_over(rollover, now);
        }
        self.seal_where(|lane| lane.is_due)?;
        // Other writers may need the memory of lanes that are idle here.
        self.free_memory()?;
        self.commit()?;
        if self.open.is_empty() && self.last_commit.elapsed() >= IDLE_COMMIT {
            self.commit_moved_positions()?;
        }
        self.finish_flushes()
    }

    /// Retries the rows that found no room.
    pub fn resume(&mut self) -> Result<(), SinkError> {
        self.backoff.end_wait();
        self.commit()?;
        let lanes: Vec<LaneId> = self.waiting.keys().cloned().collect();
        lanes
            .iter()
            .try_for_each(|lane| self.fill_with_waiting(lane))?;
        self.commit_if_many()?;
        self.finish_flushes()?;
        self.backoff.settle();
        Ok(())
    }

    /// Writes a chunk into its lane, which is opened if necessary. Returns the rows that there was
    /// no room for.
    fn fill(&mut self, chunk: Chunk) -> Result<Option<Chunk>, SinkError> {
        let mut rows = chunk.rows.clone();
        while !rows.is_empty() {
            if let Some(open) = self.open.get_mut(&chunk.lane) {
                open.expect(&rows);
            }
            self.seal_full(&chunk.lane)?;
            self.seal_other_part(&chunk.lane, &rows)?;
            self.commit_if_many()?;
            if self.sealed.are_stuck() {
                return Ok(Some(chunk.with_rows(rows)));
            }
            let fitting = self.fitting(&chunk.lane, &rows);
            let end = (fitting == rows.len()).then_some(chunk.next);
            let room = self.offer(&chunk.lane, &rows.slice(0, fitting), end)?;
            match room {
                Room::Ready => rows = rows.slice(fitting, rows.len() - fitting),
                Room::Closed => return Ok(None),
                Room::Full => return Ok(Some(chunk.with_rows(rows))),
                Room::TooManyOpen(_) if self.seal_oldest(1, Some(&chunk.lane))? => self.commit()?,
                Room::TooManyOpen(reason) | Room::Blocked(reason) => {
                    self.backoff.block(&reason);
                    return Ok(Some(chunk.with_rows(rows)));
                }
            }
            self.seal_full(&chunk.lane)?;
            self.commit_if_many()?;
        }
        Ok(None)
    }

    fn fill_with_waiting(&mut self, lane: &LaneId) -> Result<(), SinkError> {
        while let Some(WaitingChunk { chunk, held }) =
            self.waiting.get_mut(lane).and_then(VecDeque::pop_front)
        {
            if let Some(chunk) = self.fill(chunk)? {
                self.waiting
                    .entry(lane.clone())
                    .or_default()
                    .push_front(WaitingChunk { chunk, held });
                return Ok(());
            }
        }
        self.waiting.remove(lane);
        Ok(())
    }

    /// Offers rows to their lane, which accepts all or none. `end` is the chunk's [`Chunk::next`]
    /// if they are the last of it.
    fn offer(
        &mut self,
        lane: &LaneId,
        rows: &Rows,
        end: Option<Position>,
    ) -> Result<Room, SinkError> {
        if !self.open.contains_key(lane) {
            if self.open.len() >= self.rules.most_open {
                self.seal_oldest((self.rules.most_open / SEALED_AT_ONCE).max(1), Some(lane))?;
            }
            let opened = OpenLane::new(self.setup.sink.lane(lane, &self.setup.waker)?);
            self.memory += opened.memory;
            self.open.insert(lane.clone(), opened);
        }
        let Some(open) = self.open.get_mut(lane) else {
            return Ok(Room::Full);
        };
        let room = match without_panic(|| open.lane.write(rows)) {
            Ok(room) => room,
            Err(error) => {
                let accepted = open.ranges();
                return Err(self.note_failed(lane, accepted, PositionRange::of(rows), error));
            }
        };
        self.memory -= open.memory;
        open.memory = open.lane.memory();
        self.memory += open.memory;
        match room {
            Room::Ready => {
                open.note(rows, end);
                self.setup.shown.show(lane, open);
            }
            // It is opened again when there is room.
            _ if open.is_empty() => {
                self.memory -= open.memory;
                self.open.remove(lane);
            }
            _ => {}
        }
        Ok(room)
    }

    /// How many of the rows the lane still accepts, so that it gets no more records than the
    /// rollover says, and those of one part of what has failed. Rows of one position stay together.
    fn fitting(&self, lane: &LaneId, rows: &Rows) -> usize {
        let rollover = &self.rules.rollover;
        let room = self
            .open
            .get(lane)
            .map_or(rollover.records.unwrap_or(u64::MAX), |open| {
                open.room(rollover)
            })
            .max(1);
        let mut fitting = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(self.rows_of_part(lane, rows));
        while fitting < rows.len() && rows.position(fitting) == rows.position(fitting - 1) {
            fitting += 1;
        }
        fitting
    }

    /// Seals the lane if it is full.
    fn seal_full(&mut self, lane: &LaneId) -> Result<(), SinkError> {
        match self.open.get(lane) {
            Some(open) if open.is_full(&self.rules.rollover) => {
                self.seal(std::slice::from_ref(lane))
            }
            _ => Ok(()),
        }
    }

    /// Seals the lanes whose last write is the oldest, except `but`. Returns whether there was one.
    fn seal_oldest(&mut self, count: usize, but: Option<&LaneId>) -> Result<bool, SinkError> {
        let before = self.open.len();
        let others = self.open.iter().filter(|(lane, _)| Some(*lane) != but);
        let mut by_use: Vec<(Instant, LaneId)> = others
            .map(|(lane, open)| (open.written(), lane.clone()))
            .collect();
        by_use.sort();
        let oldest: Vec<LaneId> = by_use
            .into_iter()
            .take(count)
            .map(|(_, lane)| lane)
            .collect();
        self.seal(&oldest)?;
        Ok(self.open.len() < before)
    }

    fn seal_where(&mut self, is_meant: impl Fn(&OpenLane) -> bool) -> Result<(), SinkError> {
        let meant: Vec<LaneId> = self
            .open
            .iter()
            .filter(|(_, open)| is_meant(open))
            .map(|(lane, _)| lane.clone())
            .collect();
        self.seal(&meant)
    }

    /// Seals these lanes, except those that hold a part of a position.
    fn seal(&mut self, lanes: &[LaneId]) -> Result<(), SinkError> {
        for lane in lanes {
            let is_whole = |open: &OpenLane| {
                open.cut_split(lane, &self.setup.committer.ledger())
                    .is_none()
            };
            let Some(open) = self
                .open
                .get(lane)
                .is_some_and(is_whole)
                .then(|| self.open.remove(lane))
                .flatten()
            else {
                continue;
            };
            self.memory -= open.memory;
            self.setup.shown.hide(lane);
            let accepted = open.ranges();
            let (commit, open) = open.into_commit(lane.clone());
            let sealed = without_panic(|| open.seal())
                .map_err(|error| self.note_failed(lane, accepted, None, error))?;
            match sealed {
                SealOutcome::Durable => self.sealed.push(commit, None),
                SealOutcome::Pending(completion) => self.sealed.push(commit, Some(completion)),
                SealOutcome::Transaction(transaction) => {
                    self.commit_transaction(&[commit], transaction)?
                }
            }
        }
        Ok(())
    }

    fn commit_if_many(&mut self) -> Result<(), SinkError> {
        if self.sealed.are_many() {
            self.commit()
        } else {
            Ok(())
        }
    }

    /// Commits what is durable, and publishes it.
    fn commit(&mut self) -> Result<(), SinkError> {
        self.sealed
            .advance(&*self.setup.sink, &self.setup.committer, &mut self.backoff)
    }

    fn commit_transaction(
        &mut self,
        lanes: &[LaneCommit],
        mut transaction: Box<dyn Transaction>,
    ) -> Result<(), SinkError> {
        let mut failure = None;
        let outcome = self.setup.committer.commit_through(lanes, |splits| {
            transaction.commit(splits).map_err(|error| {
                failure = Some(error);
                CommitterError::Stopped
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        outcome?;
        self.last_commit = now();
        transaction.committed()
    }

    /// Has a target that holds the positions write those that moved without records. No lane may be
    /// open.
    fn commit_moved_positions(&mut self) -> Result<(), SinkError> {
        match self.setup.sink.transaction_without_records() {
            Some(transaction) => self.commit_transaction(&[], transaction),
            None => Ok(()),
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.open
            .keys()
            .for_each(|lane| self.setup.shown.hide(lane));
    }
}
