//! An attempt: the real committers and sinks, under the steps that the engine's threads take
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pseidon_delivery::committer::{AcknowledgedVersions, CommitterError, Positions, SplitToBegin};
use pseidon_delivery::{Claimant, Committer, InstanceId, Position, ResumePoint, SinkId, SplitId};
use pseidon_exec::dispatch::{BatchOutput, enter};
use pseidon_exec::lanes::Lanes;
use pseidon_exec::sharing::Sharing;
use pseidon_exec::takeover::{TakeoverSink, resumption, take_over};
use pseidon_plan::{PerSink, SinkIndex};
use pseidon_plugin::Stop;
use pseidon_plugin::sink::{Sink, SinkError, SinkSetup};

use crate::client::Client;
use crate::failure::Failure;
use crate::fixture::{FIXTURE, rows};
use crate::names::{ProcessId, SinkKind, plan_name, split_id};
use crate::target_sink::TargetSink;
use crate::world::plans::is_sent_to;
use crate::world::source::{PartitionProgress, ReadRows};
use crate::world::{ProcessAction, SharedWorld};

/// The lease of claims: some thirty steps of the scheduler.
const LEASE: Duration = Duration::from_secs(3);

/// A sink with its committer and its writer.
struct AttemptSink {
    kind: SinkKind,
    committer: Arc<Committer>,
    sink: Arc<dyn Sink>,
    lanes: Lanes,
}

struct Attempt<'a> {
    world: &'a SharedWorld,
    id: ProcessId,
    stop: Stop,
    sinks: PerSink<AttemptSink>,
    /// The attempt's claims, if instances share the partitions.
    sharing: Sharing,
    /// The partitions that it holds, each with the position from which it continues to read and the
    /// generation of the topic that it reads.
    held: BTreeMap<usize, PartitionProgress>,
}

/// Works until it must finish, or fails. `seen` is what the process knows of each sink's state.
pub(crate) fn run(
    world: &SharedWorld,
    id: ProcessId,
    seen: &[Arc<AcknowledgedVersions>],
) -> Result<(), Failure> {
    let stop = Stop::new();
    let (owner, sinks) = {
        let mut locked = world.lock();
        locked.controls.entry(id).or_default().stop = Some(stop.clone());
        (locked.owner_name(id), locked.sinks.clone())
    };
    let store = Arc::new(Client {
        world: world.clone(),
        process: id,
    });
    let sharing = Sharing::new(store, "in".to_owned(), owner.clone(), LEASE);
    let mut attempt = Attempt {
        world,
        id,
        stop: stop.clone(),
        sinks: PerSink::default(),
        sharing,
        held: BTreeMap::new(),
    };
    for ((sink, kind), seen) in sinks.into_iter().zip(seen) {
        attempt
            .sinks
            .push(open(world, id, &owner, &stop, &sink, kind, seen)?);
    }
    attempt.work()
}

fn open(
    world: &SharedWorld,
    id: ProcessId,
    owner: &InstanceId,
    stop: &Stop,
    sink_id: &SinkId,
    kind: SinkKind,
    seen: &Arc<AcknowledgedVersions>,
) -> Result<AttemptSink, Failure> {
    let store = Arc::new(Client {
        world: world.clone(),
        process: id,
    });
    let claimant = Claimant {
        owner: owner.clone(),
        plan: plan_name(id.plan),
        accepts_other_plans: false,
    };
    let positions = match kind {
        SinkKind::Files => Positions::InStore,
        SinkKind::Target => Positions::InTarget,
    };
    let (base, are_moved) = {
        let world = world.lock();
        (world.disks.dir().to_owned(), world.are_moved)
    };
    let switching = world.clone();
    let committer = Committer::new(
        sink_id.clone(),
        store,
        claimant,
        positions,
        stop.abandoned(),
    );
    let committer = Arc::new(
        committer
            .with_acknowledged(seen.clone())
            .with_wait(move |_| switching.switch_in_step()),
    );
    let setup = SinkSetup {
        pipeline: "clicks".into(),
        base,
        instance: owner.clone(),
        store: "simulated".into(),
        trusts_state: false,
        keeps_state: true,
        committer: committer.clone(),
        memory: FIXTURE.memory.clone(),
        stop: stop.clone(),
        metrics: FIXTURE.metrics.clone(),
    };
    let sink: Arc<dyn Sink> = match kind {
        SinkKind::Files => FIXTURE.files(id.plan, are_moved).open(setup.clone())?,
        SinkKind::Target => Arc::new(TargetSink {
            world: world.clone(),
            process: id,
            committer: committer.clone(),
        }),
    };
    // What is blocked is retried with every flush.
    let lanes = Lanes::of_one_writer(sink.clone(), &setup);
    Ok(AttemptSink {
        kind,
        committer,
        sink,
        lanes,
    })
}

impl Attempt<'_> {
    fn work(&mut self) -> Result<(), Failure> {
        loop {
            self.world.switch();
            let order = self.world.lock().next_action(self.id, &self.held);
            match order {
                ProcessAction::Take(partitions) => self.take(&partitions)?,
                ProcessAction::Share(partitions) => self.share(&partitions)?,
                ProcessAction::Renew => self.sharing.renew()?,
                ProcessAction::Release(partitions) => self.release(&partitions)?,
                ProcessAction::Lost(partition) => {
                    return Err(Failure::Fenced(format!(
                        "the group has taken partition {partition} away"
                    )));
                }
                ProcessAction::Read(partition, count) => self.read(partition, count)?,
                ProcessAction::Flush(partitions) => self.flush(partitions.as_deref())?,
                ProcessAction::Tick => self.tick()?,
                ProcessAction::Idle => self.commit_idle()?,
                ProcessAction::Tell => self.commit_group_offsets(),
                ProcessAction::Fail => {
                    return Err(Failure::Transient("a temporary failure".into()));
                }
                ProcessAction::Finish => {
                    let all: Vec<usize> = self.held.keys().copied().collect();
                    return self.release(&all);
                }
                ProcessAction::Nothing => {}
            }
        }
    }

    /// Claims free ones of these partitions, and releases what exceeds the fair share.
    fn share(&mut self, partitions: &[usize]) -> Result<(), Failure> {
        let share = self.sharing.share(&ids(partitions))?;
        let granted: Vec<usize> = partitions
            .iter()
            .copied()
            .filter(|number| share.granted.contains(&split_id(*number)))
            .collect();
        if !granted.is_empty() {
            self.take(&granted)?;
        }
        let excess: Vec<usize> = self.held.keys().copied().take(share.excess).collect();
        if excess.is_empty() {
            Ok(())
        } else {
            self.release(&excess)
        }
    }

    /// Takes partitions over in every sink, and begins them at the lowest position of all sinks.
    fn take(&mut self, partitions: &[usize]) -> Result<(), Failure> {
        let ids = ids(partitions);
        // Read before the state: what the group has now the state has at least as early, unless it
        // has lost data.
        let committed: Vec<Option<Position>> = {
            let world = self.world.lock();
            partitions
                .iter()
                .map(|partition| world.partitions[*partition].committed)
                .collect()
        };
        let sinks = self.sinks.iter().map(|open| TakeoverSink {
            committer: &open.committer,
            sink: &*open.sink,
        });
        let records = take_over(&sinks.collect::<Vec<_>>(), &ids, |_| true)?;
        let mut begun: Vec<Vec<SplitToBegin>> = self.sinks.iter().map(|_| Vec::new()).collect();
        for ((partition, records), committed) in partitions.iter().zip(records).zip(committed) {
            let known = resumption(&records).map(|known| (known.position, known.resume));
            let mut world = self.world.lock();
            let held = world
                .start_of(*partition, committed, known)
                .map_err(Failure::Evidence)?;
            let resume = world.partitions[*partition].resume(held.position, held.generation);
            self.held.insert(*partition, held);
            for (begun, record) in begun.iter_mut().zip(records) {
                begun.push(SplitToBegin {
                    split: split_id(*partition),
                    record,
                    start: held.position,
                    resume: Some(resume.clone()),
                });
            }
        }
        for (open, begun) in self.sinks.iter().zip(begun) {
            open.committer.begin(begun)?;
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[usize]) -> Result<(), Failure> {
        self.flush(Some(partitions))?;
        self.commit_idle()?;
        self.commit_group_offsets();
        let ids = ids(partitions);
        for open in &self.sinks {
            open.committer.release(&ids)?;
        }
        self.sharing.release(&ids);
        self.held
            .retain(|partition, _| !partitions.contains(partition));
        Ok(())
    }

    fn read(&mut self, partition: usize, count: usize) -> Result<(), Failure> {
        let may_end_inside = self.world.lock().rng.bool();
        self.read_on(partition, count, may_end_inside)
    }

    /// Reads this many records, or, if the batch may end inside a position, some of the rows that
    /// are derived from them.
    fn read_on(
        &mut self,
        partition: usize,
        count: usize,
        may_end_inside: bool,
    ) -> Result<(), Failure> {
        let Some(held) = self.held.get_mut(&partition) else {
            return Ok(());
        };
        let from = held.position;
        let read = self
            .world
            .lock()
            .read_rows(partition, *held, count, may_end_inside)
            .map_err(Failure::Evidence)?;
        let Some(read) = read else {
            return Ok(());
        };
        *held = read.progress;
        let next = read.next;
        self.world.lock().note(|| {
            let id = split_id(partition);
            format!("{}  reads {id} {from}..{next}", self.id)
        });
        self.dispatch(partition, read)
    }

    /// Enters rows that were read into the ledgers, and hands them to the writers.
    fn dispatch(&mut self, partition: usize, read: ReadRows) -> Result<(), Failure> {
        let ReadRows {
            rows: read,
            progress,
            next,
            resume,
        } = read;
        let wanted: Vec<_> = read
            .iter()
            .filter_map(|(position, key)| Some((*position, (*key)?)))
            .collect();
        let mut chunks = Vec::new();
        for (sink, open) in self.sinks.enumerate() {
            let wanted = self.wanted_by(open.kind, &wanted);
            if wanted.is_empty() {
                continue;
            }
            let routed = open
                .sink
                .route(rows(partition, progress.generation, &wanted, next));
            chunks.extend(routed.chunks.into_iter().map(|chunk| (sink, chunk)));
        }
        let sinks: Vec<SinkIndex> = self.sinks.indexes().collect();
        let resume = Some(ResumePoint {
            position: next,
            resume,
        });
        let outcome = BatchOutput {
            next,
            resume,
            end: None,
            chunks,
        };
        for (sink, chunk) in enter(
            &|sink| &*self.sinks[sink].committer,
            &sinks,
            &split_id(partition),
            outcome,
        ) {
            self.sinks[sink].lanes.write(chunk, ())?;
        }
        Ok(())
    }

    /// Those of the rows that belong to a sink of this kind.
    fn wanted_by(&self, kind: SinkKind, rows: &[(Position, u8)]) -> Vec<(Position, u8)> {
        let is_routed = self.world.lock().is_routed;
        let belongs =
            |(_, key): &&(Position, u8)| !is_routed || is_sent_to(kind, self.id.plan, *key);
        rows.iter().filter(belongs).copied().collect()
    }

    /// Does what is due by time, and retries what was blocked.
    fn tick(&mut self) -> Result<(), Failure> {
        for open in &mut self.sinks {
            open.lanes.tick()?;
            open.lanes.resume()?;
        }
        Ok(())
    }

    fn flush(&mut self, partitions: Option<&[usize]>) -> Result<(), Failure> {
        for partition in partitions.unwrap_or_default() {
            // A split is not released inside a position.
            if self.held.get(partition).is_some_and(|held| held.rows > 0) {
                self.read_on(*partition, 1, false)?;
            }
            if self.held.get(partition).is_some_and(|held| held.rows > 0) {
                return Err(Failure::Transient(
                    "the rest of a position no longer exists".into(),
                ));
            }
        }
        let ids = partitions.map(ids);
        for open in &mut self.sinks {
            let is_done = Arc::new(AtomicBool::new(false));
            let done = is_done.clone();
            open.lanes
                .flush(ids.as_deref(), move || done.store(true, Ordering::Relaxed))?;
            while !is_done.load(Ordering::Relaxed) {
                if self.stop.leaving_now() {
                    return Err(SinkError::from(CommitterError::Stopped).into());
                }
                self.world.switch_in_step();
                open.lanes.resume()?;
            }
        }
        Ok(())
    }

    fn commit_idle(&self) -> Result<(), Failure> {
        for open in &self.sinks {
            open.committer.commit_idle()?;
        }
        Ok(())
    }

    /// Commits the group's offsets: what is durable in every sink.
    fn commit_group_offsets(&self) {
        for partition in self.held.keys() {
            let low = self
                .sinks
                .iter()
                .map(|open| open.committer.ledger().low(&split_id(*partition)))
                .min()
                .flatten();
            let mut world = self.world.lock();
            let told = &mut world.partitions[*partition];
            if told.assigned == Some(self.id) && !told.is_file {
                told.committed = low.or(told.committed);
            }
        }
    }
}

fn ids(partitions: &[usize]) -> Vec<SplitId> {
    partitions
        .iter()
        .map(|partition| split_id(*partition))
        .collect()
}
