//! A running attempt: its sources and their intakes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, never, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::{InstanceId, Position, Reason, SplitId, UnfinishedSplit};
use pseidon_plan::{PerSink, Plan, PlannedSource, SourceIndex};
use pseidon_plugin::source::{SourceEndCallback, SourceExit, SourceHandle, SourceRun, SourceSetup};
use pseidon_plugin::stop::{Pause, Stop};

use crate::actor::Actor;
use crate::attempt::{Attempt, AttemptId, AttemptSink, DropNotifier};
use crate::catch_up::CatchUp;
use crate::failure::{Failure, Failures, PlanChanged, guarded};
use crate::intake::{Intake, IntakeTask};
use crate::limits::Limits;
use crate::outcome::Finished;
use crate::resources::Resources;
use crate::setup::RunSetup;
use crate::sharing::Sharing;
use crate::throttles::Throttles;

/// For each split, keyed with its source: the position after the last record that was read.
pub(crate) type ReadPositions = HashMap<(SourceIndex, SplitId), Position>;

/// An attempt that reads, and the channels on which its parts report.
pub(crate) struct RunningAttempt {
    pub(crate) attempt: Arc<Attempt>,
    instance: InstanceId,
    intakes: Vec<Arc<Actor>>,
    pub(crate) failures: Receiver<Failure>,
    /// Receives a message for each source whose records are all durable; disconnected when the
    /// sources' threads and intakes have ended.
    pub(crate) done: Receiver<()>,
    /// Receives a message when the last reference to the attempt is dropped.
    is_over: Receiver<()>,
    /// The phase of the sources that are read.
    phase: usize,
    /// The number of sources of this phase that have not ended.
    pub(crate) left: usize,
    /// Set if another version of the pipeline has left work that only it can finish.
    pub(crate) other_plan: Option<PlanChanged>,
}

impl RunningAttempt {
    /// Creates an attempt with these sinks. No source is started yet.
    pub(crate) fn open(
        run: &RunSetup,
        sinks: PerSink<AttemptSink>,
        stop: Stop,
        instance: InstanceId,
    ) -> RunningAttempt {
        let (report, failures) = unbounded();
        let (over, is_over) = bounded(1);
        let attempt = Arc::new(Attempt {
            id: AttemptId::new(),
            plan: run.plan.clone(),
            sinks,
            stop,
            failures: Failures(report),
            metrics: run.metrics.clone(),
            tap: run.view.tap.clone(),
            bad_records: run.view.bad_records.clone(),
            seen_fields: run.view.seen_fields.clone(),
            seen_additions: run.view.seen_additions.clone(),
            limits: Limits::of(&run.plan),
            throttles: Throttles::of(&run.plan, Instant::now()),
            catch_up: run
                .catch_up
                .as_deref()
                .map(|left| catch_up(&run.plan, left)),
            source_stops: Mutex::default(),
            read: Mutex::default(),
            _over: DropNotifier(over),
        });
        run.view.show(&attempt);
        run.resources.open(&attempt);
        RunningAttempt {
            attempt,
            instance,
            intakes: Vec::new(),
            failures,
            done: never(),
            is_over,
            phase: 0,
            left: 0,
            other_plan: None,
        }
    }

    /// Starts the sources of the current phase. If this fails for some of them, the attempt must be
    /// closed.
    pub(crate) fn start_sources(
        &mut self,
        run: &RunSetup,
        store_id: &str,
        pause: &Pause,
    ) -> Result<(), Failure> {
        let (done, ended) = unbounded();
        self.done = ended;
        let phase = self.phase;
        let of_phase = move |source: &(SourceIndex, &PlannedSource)| source.1.phase == phase;
        for (source, planned) in run.plan.indexed_sources().filter(of_phase) {
            self.left += 1;
            let reading = self.start_intake(run, source, pause, &done);
            let setup = source_setup(run, planned, store_id, &self.instance);
            if let Err(reading) = planned.source.attach(&setup, reading) {
                self.spawn_source(planned, setup, reading, done.clone())?;
            }
        }
        Ok(())
    }

    /// Starts the sources of the next phase, after those of the current one have ended. Returns
    /// whether there are any.
    pub(crate) fn start_next_phase(
        &mut self,
        run: &RunSetup,
        store_id: &str,
        pause: &Pause,
    ) -> Result<bool, Failure> {
        self.phase += 1;
        self.start_sources(run, store_id, pause)?;
        Ok(self.left > 0)
    }

    /// Starts the intake of a source. Returns the source's side.
    fn start_intake(
        &mut self,
        run: &RunSetup,
        source: SourceIndex,
        pause: &Pause,
        done: &Sender<()>,
    ) -> SourceRun {
        let (attempt, planned) = (&self.attempt, run.plan.source(source));
        let durable = Arc::new(Mutex::default());
        let stop = attempt.stop.child();
        attempt.source_stops.lock().insert(source, stop.clone());
        let (handle, events) = SourceHandle::new(
            run.resources.budget().clone(),
            stop,
            pause.clone(),
            durable.clone(),
        );
        let (well, ended_well) = bounded(1);
        let sharing = Sharing::new(
            run.store.clone(),
            planned.stage.clone(),
            self.instance.clone(),
            run.plan.settings.lease.get(),
        );
        let intake = Actor::new(run.resources.blocking().clone(), |wake| {
            let (queue, writers) = (
                run.resources.queue().clone(),
                run.resources.writers().clone(),
            );
            let (attempt, done) = (attempt.clone(), done.clone());
            let intake = Intake {
                attempt,
                source,
                queue,
                writers,
                durable,
                events,
                ended_well,
                done,
                wake,
            };
            let mut task = IntakeTask::new(intake, sharing);
            move || task.step()
        });
        let wake = intake.waker();
        let handle = handle.with_wake(move || wake());
        let (failures, stage) = (attempt.failures.clone(), planned.stage.clone());
        let ended: SourceEndCallback = Box::new(move |outcome| match outcome {
            // If the intake has ended before, that was reported.
            Ok(()) => _ = well.send(()),
            Err(error) => failures.report(Failure::of_source(&stage, error)),
        });
        self.intakes.push(intake);
        SourceRun { handle, ended }
    }

    /// Runs a source on a thread of its own.
    fn spawn_source(
        &self,
        planned: &PlannedSource,
        setup: SourceSetup,
        reading: SourceRun,
        done: Sender<()>,
    ) -> Result<(), Failure> {
        let (source, failures) = (planned.source.clone(), self.attempt.failures.clone());
        let work = move || {
            let SourceRun { handle, ended } = reading;
            match guarded(|| Ok(source.run(&setup, handle))) {
                Ok(outcome) => ended(SourceExit::outcome(outcome)),
                Err(panicked) => failures.report(panicked),
            }
            drop((source, setup));
            drop(done);
        };
        std::thread::Builder::new()
            .name(format!("source-{}", planned.stage))
            .spawn(work)
            .map_err(|error| Failure::Fatal(Reason::caused_by("cannot start a thread", error)))?;
        Ok(())
    }

    /// Whether this run only finishes the work of an earlier version, and has done so.
    pub(crate) fn has_caught_up(&self, now: Instant) -> bool {
        let Some(left) = &self.attempt.catch_up else {
            return false;
        };
        // What is left of later phases has not come yet.
        let sources = &self.attempt.plan.sources;
        let is_last_phase = sources.iter().all(|source| source.phase <= self.phase);
        left.is_complete() || is_last_phase && left.gives_up(now)
    }

    /// How the attempt ends: with `finished`, unless another version of the pipeline has left work.
    /// A stop that was requested counts more: that work waits in the state, and a caller that
    /// continued with it would not know that the request was already taken from its channel.
    pub(crate) fn outcome(
        &mut self,
        finished: Finished,
        stop_requested: bool,
    ) -> Result<Finished, Failure> {
        match self.other_plan.take() {
            Some(changed) if !stop_requested => Err(Failure::OtherPlan(changed)),
            _ => Ok(finished),
        }
    }

    /// Wakes all intakes, so that they do what is due by time.
    pub(crate) fn wake(&self) {
        self.intakes.iter().for_each(Actor::wake);
    }

    /// Makes all threads abandon the attempt now.
    pub(crate) fn leave_now(&self) {
        self.attempt.stop.leave_now();
        self.wake();
    }

    /// Discards the open work of the attempt, after its sources have ended. Returns how far they
    /// had read, and the same for those splits that are not completely committed. Blocks until
    /// nothing of the attempt is left.
    pub(crate) fn close(self, resources: &Resources) -> (ReadPositions, ReadPositions) {
        let RunningAttempt {
            attempt,
            intakes,
            done,
            is_over,
            ..
        } = self;
        while done.recv().is_ok() {}
        drop(intakes);
        let (uncommitted, read) = (
            attempt.uncommitted(),
            std::mem::take(&mut *attempt.read.lock()),
        );
        resources.close(attempt.id);
        drop(attempt);
        // ETL threads may still hold batches of it.
        let _ = is_over.recv();
        (read, uncommitted)
    }
}

/// What is left for a run of this plan that only finishes these splits.
fn catch_up(plan: &Plan, left: &[UnfinishedSplit]) -> CatchUp {
    let first = plan.sources.iter().filter(|source| source.phase == 0);
    let has_groups = plan.sources.iter().any(|source| source.group.is_some());
    CatchUp::new(left, first.count(), has_groups, plan.settings.lease.get())
}

/// The context of a source.
fn source_setup(
    run: &RunSetup,
    planned: &PlannedSource,
    store_id: &str,
    instance: &InstanceId,
) -> SourceSetup {
    let settings = &run.plan.settings;
    SourceSetup {
        pipeline: run.plan.name.clone(),
        stage: planned.stage.clone(),
        base: run.plan.base.clone(),
        wanted: planned.columns.meta,
        fields: planned.columns.names(),
        takes_new_fields: planned.columns.all_of.is_some() && planned.facts.infer.is_some(),
        bounds: planned.bounds.clone(),
        framing: planned.format.framing(&planned.format_settings),
        io_threads: settings.io_threads.get(),
        memory: settings.memory.bytes() / 4 / run.plan.sources.len().max(1),
        instance: instance.clone(),
        state: run.state_name(store_id, planned),
        keeps_state: run.plan.keeps_state,
        metrics: run.metrics.clone(),
    }
}
