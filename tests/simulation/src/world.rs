//! The world outside the instances: the store, the network, the disks, the topics and the consumer
//! group, and what the simulation knows about them.

pub(crate) mod network;
pub(crate) mod plans;
pub(crate) mod requests;
pub(crate) mod source;
pub(crate) mod target;
mod without_safeguard;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use pseidon_delivery::{InstanceId, SinkId};
use pseidon_plugin::Stop;
use pseidon_plugin::threads::ThreadBody;

use self::network::Network;
use self::source::{Partition, PartitionProgress};
use self::target::Target;
use crate::Settings;
use crate::clock::{Time, set_time};
use crate::disk::{Disk, Disks};
use crate::full_disk::Fullness;
use crate::names::{ProcessId, SinkKind, split_id};
use crate::scenario::{Kind, Kinds, Mutation};
use crate::store::StoreContent;

/// What the scheduler requests from a process.
#[derive(Default)]
pub(crate) struct ProcessControl {
    /// Whether it must stop gracefully.
    pub(crate) is_stopping: bool,
    /// The failure that ends the current attempt, if any.
    pub(crate) stop: Option<Stop>,
}

/// The world of one run.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) kinds: Kinds,
    /// The safeguard that is removed.
    pub(crate) mutation: Option<Mutation>,
    /// Whether faults have ceased.
    pub(crate) is_calm: bool,
    /// Whether a process is being killed: it must not do anything any more.
    pub(crate) is_dying: bool,
    pub(crate) store: StoreContent,
    pub(crate) network: Network,
    pub(crate) disks: Disks,
    pub(crate) partitions: Vec<Partition>,
    /// Whether instances share the partitions by claims, without a consumer group.
    pub(crate) is_shared: bool,
    /// Whether files are moved after they are published.
    pub(crate) are_moved: bool,
    /// Whether each record belongs to one of the two sinks only, to another one in each version of
    /// the pipeline.
    pub(crate) is_routed: bool,
    pub(crate) controls: BTreeMap<ProcessId, ProcessControl>,
    /// The sinks of the pipeline.
    pub(crate) sinks: Vec<(SinkId, SinkKind)>,
    pub(crate) target: Target,
    /// The store as it was some time ago.
    pub(crate) older: Option<StoreContent>,
    /// Whether something has lost data, so that a process that notices it is right to give up.
    pub(crate) may_alarm: bool,
    /// Whether a process has noticed it.
    pub(crate) is_alarmed: bool,
    /// Violations of the protocol's promises.
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) step: u64,
    /// The time on the clocks of all machines and of the store.
    pub(crate) time: Time,
    /// Background work of processes that has no coroutine yet.
    pub(crate) spawned: Vec<ThreadBody>,
    /// Whether the process that has just yielded may hold locks, so that no other coroutine of it
    /// can continue before it does.
    pub(crate) holds_locks: bool,
    names: u64,
}

/// The world, shared by the scheduler and the processes.
#[derive(Clone)]
pub(crate) struct SharedWorld(Arc<Mutex<World>>);

/// The next action of a process.
pub(crate) enum ProcessAction {
    Take(Vec<usize>),
    /// Share these partitions with other instances.
    Share(Vec<usize>),
    /// Renew the claims, if it is time.
    Renew,
    Release(Vec<usize>),
    Lost(usize),
    Read(usize, usize),
    Flush(Option<Vec<usize>>),
    /// Commit what is full.
    Tick,
    Idle,
    Tell,
    Fail,
    Finish,
    Nothing,
}

impl SharedWorld {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    /// Locks the world; `None` while another coroutine or thread has the lock.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, World>> {
        self.0.try_lock()
    }

    /// Yields to the scheduler.
    pub(crate) fn switch(&self) {
        generator::co_yield_with(());
    }

    /// Yields inside a step of a committer, which holds locks meanwhile: no other coroutine of the
    /// process continues before this one.
    pub(crate) fn switch_in_step(&self) {
        self.lock().holds_locks = true;
        self.switch();
    }

    /// Yields inside a step, or not.
    pub(crate) fn maybe_switch(&self) {
        let switches = {
            let mut world = self.lock();
            !world.is_calm && world.rng.u32(0..4) == 0
        };
        if switches {
            self.switch_in_step();
        }
    }
}

impl World {
    pub(crate) fn new(settings: &Settings, dir: PathBuf) -> World {
        let (kinds, mutation) = (settings.kinds, settings.mutation);
        let mut rng = Rng::with_seed(settings.seed);
        let machines = rng.usize(1..3);
        let disks = if kinds.has(Kind::Disks) && rng.u32(0..4) > 0 {
            machines
        } else {
            1
        };
        let disks = Disks::new(dir, machines, disks, mutation == Some(Mutation::EqualDisks));
        let count = rng.usize(1..4);
        let (files, target) = (
            (SinkId::from("lake"), SinkKind::Files),
            (SinkId::from("topic"), SinkKind::Target),
        );
        let sinks = match rng.u32(0..8) {
            0 if kinds.has(Kind::Target) => vec![target],
            1 if kinds.has(Kind::Target) => vec![files, target],
            _ => vec![files],
        };
        // A target has positions before the store has what identifies files.
        let may_be_file = kinds.has(Kind::RewrittenFiles)
            && sinks.iter().all(|(_, kind)| *kind == SinkKind::Files);
        let partition = |_| {
            let is_file = may_be_file && rng.u32(0..4) == 0;
            Partition::new(&mut rng, is_file)
        };
        let partitions = (0..count).map(partition).collect();
        let is_shared = kinds.has(Kind::Leases) && rng.u32(0..4) == 0;
        let are_moved = kinds.has(Kind::Moves) && rng.u32(0..8) == 0;
        let is_routed = kinds.has(Kind::Plans) && sinks.len() > 1 && rng.bool();
        World {
            kinds,
            mutation,
            is_calm: false,
            is_dying: false,
            store: StoreContent::default(),
            network: Network::default(),
            disks,
            partitions,
            is_shared,
            are_moved,
            is_routed,
            controls: BTreeMap::new(),
            sinks,
            target: Target::default(),
            older: None,
            may_alarm: false,
            is_alarmed: false,
            violations: Vec::new(),
            trace: settings.traced.then(Vec::new),
            step: 0,
            time: Time {
                since_boot: 1_000_000,
                wall: 1_000_000_000,
            },
            spawned: Vec::new(),
            holds_locks: false,
            names: 0,
            rng,
        }
    }

    /// Lets this many milliseconds pass.
    pub(crate) fn pass_time(&mut self, milliseconds: u64) {
        self.time.since_boot += milliseconds;
        self.time.wall += milliseconds;
        set_time(self.time);
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn set_clock(&mut self, forward: u64, back: u64) {
        self.time.wall = self.time.wall + forward - back;
        set_time(self.time);
    }

    pub(crate) fn share(self) -> SharedWorld {
        SharedWorld(Arc::new(Mutex::new(self)))
    }

    /// Writes a line into the trace, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let step = self.step;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{step:>5}  {}", line()));
        }
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION  {what}"));
        self.violations.push(what);
    }

    /// A unique name for an attempt of a process.
    pub(crate) fn owner_name(&mut self, process: ProcessId) -> InstanceId {
        self.names += 1;
        let name = match self.mutation {
            // In containers every process has the same number, and their hosts may have the same
            // name.
            Some(Mutation::EqualNames) => format!("localhost-1-{}", self.time.wall / 10_000),
            _ => format!("{process}-{}", self.names),
        };
        name.into()
    }

    /// A process has found that something has lost data.
    pub(crate) fn raise_alarm(&mut self, process: ProcessId, reason: String) {
        if self.may_alarm {
            self.note(|| format!("{process}  gives up, correctly: {reason}"));
            self.is_alarmed = true;
        } else {
            self.violate(format!(
                "{process} gives up although nothing has lost data: {reason}"
            ));
        }
    }

    /// Fills a disk, or makes room on it again.
    pub(crate) fn fill_or_clear_a_disk(&mut self) {
        if !self.kinds.has(Kind::FullDisks) {
            return;
        }
        let disks: Vec<Disk> = self.disks.all().collect();
        if let Some(disk) = self.rng.choice(disks) {
            let full = Fullness::any(&mut self.rng);
            let full = self.disks.clear_or_fill(disk, full);
            self.note(|| match full {
                None => format!("disk  {disk:?} has room again"),
                Some(Fullness::Nearly) => format!("disk  {disk:?} is nearly full"),
                Some(Fullness::AtWrites) => format!("disk  {disk:?} is full"),
                Some(Fullness::AtSyncs) => {
                    format!("disk  {disk:?} is full, and reports it when it syncs")
                }
            });
        }
    }

    /// Remembers the store as it is now.
    pub(crate) fn copy_store(&mut self) {
        self.older = Some(self.store.clone());
    }

    /// Replaces the store by an older copy, if the source can notice it: some states cannot be
    /// distinguished from the last one. Returns whether it did; then no process may be left that
    /// knows a newer state.
    pub(crate) fn restore_older(&mut self) -> bool {
        let Some(older) = self.older.take() else {
            return false;
        };
        let is_noticed = |(number, partition): (usize, &Partition)| {
            let split = split_id(number);
            let is_same = |(sink, _): &(SinkId, SinkKind)| {
                let (old, new) = (older.record(sink, &split), self.store.record(sink, &split));
                // Where records are routed, the version tells which of them a position stands for.
                let is_of_same_plan = !self.is_routed || old.plan == new.plan;
                (old.low, old.ahead) == (new.low, new.ahead) && is_of_same_plan
            };
            let low = |(sink, kind): &(SinkId, SinkKind)| match kind {
                SinkKind::Files => older.record(sink, &split).low,
                SinkKind::Target => older
                    .record(sink, &split)
                    .low
                    .max(self.target.positions.get(&split).copied()),
            };
            let least = self.sinks.iter().filter_map(low).min();
            self.sinks.iter().all(is_same) || partition.committed > least
        };
        if !self.partitions.iter().enumerate().all(is_noticed) {
            return false;
        }
        self.note(|| "store  is replaced by an older copy".into());
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            // What the copy does not know was not delivered, or the group knows it.
            partition.begun = partition.begun.filter(|_| {
                self.sinks
                    .iter()
                    .any(|(sink, _)| older.record(sink, &split_id(number)).low.is_some())
            });
        }
        self.store = older;
        self.may_alarm = true;
        true
    }

    /// The next action of the process, which holds these partitions and has read them up to these
    /// positions.
    pub(crate) fn next_action(
        &mut self,
        process: ProcessId,
        held: &BTreeMap<usize, PartitionProgress>,
    ) -> ProcessAction {
        let change = if self.is_shared {
            self.next_claims(process, held)
        } else {
            self.next_assignment(process, held)
        };
        if let Some(order) = change {
            return order;
        }
        if self
            .controls
            .get(&process)
            .is_some_and(|control| control.is_stopping)
        {
            return ProcessAction::Finish;
        }
        let unread: Vec<usize> = held
            .iter()
            .filter(|(partition, at)| self.partitions[**partition].end() > at.position)
            .map(|(at, _)| *at)
            .collect();
        if self.is_calm {
            return unread.first().map_or(ProcessAction::Finish, |partition| {
                ProcessAction::Read(*partition, usize::MAX)
            });
        }
        match self.rng.u32(0..20) {
            0..10 => match self.rng.choice(unread) {
                Some(partition) => ProcessAction::Read(partition, self.rng.usize(1..8)),
                None => ProcessAction::Idle,
            },
            10..12 => ProcessAction::Flush(None),
            12..14 => ProcessAction::Tick,
            14 if !held.is_empty() => {
                let some = held.keys().copied().filter(|_| self.rng.bool()).collect();
                ProcessAction::Flush(Some(some))
            }
            15..17 => ProcessAction::Idle,
            17..19 => ProcessAction::Tell,
            19 if self.rng.u32(0..4) == 0 => ProcessAction::Fail,
            _ => ProcessAction::Nothing,
        }
    }

    fn is_assigned(&self, partition: usize, process: ProcessId) -> bool {
        self.partitions[partition].assigned == Some(process)
    }

    /// The action that the consumer group requires of the process, if any.
    fn next_assignment(
        &mut self,
        process: ProcessId,
        held: &BTreeMap<usize, PartitionProgress>,
    ) -> Option<ProcessAction> {
        let gone: Vec<usize> = held
            .keys()
            .copied()
            .filter(|partition| !self.is_assigned(*partition, process))
            .collect();
        if let Some(first) = gone.first() {
            let is_noticed_late = !self.is_calm && self.rng.u32(0..3) == 0;
            return Some(if is_noticed_late {
                ProcessAction::Lost(*first)
            } else {
                ProcessAction::Release(gone)
            });
        }
        let is_new = |partition: &usize| {
            self.is_assigned(*partition, process) && !held.contains_key(partition)
        };
        let fresh: Vec<usize> = (0..self.partitions.len()).filter(is_new).collect();
        (!fresh.is_empty()).then_some(ProcessAction::Take(fresh))
    }

    /// Whether the process handles its claims now. At the end it shares until it has everything
    /// that it must finish.
    fn next_claims(
        &mut self,
        process: ProcessId,
        held: &BTreeMap<usize, PartitionProgress>,
    ) -> Option<ProcessAction> {
        if self.is_calm {
            let found: Vec<usize> = (0..self.partitions.len())
                .filter(|partition| self.is_assigned(*partition, process))
                .collect();
            let has_all = found.iter().all(|partition| held.contains_key(partition));
            return (!has_all).then_some(ProcessAction::Share(found));
        }
        match self.rng.u32(0..8) {
            0 => Some(ProcessAction::Share((0..self.partitions.len()).collect())),
            1 if held.is_empty() => {
                Some(ProcessAction::Share((0..self.partitions.len()).collect()))
            }
            1 => Some(ProcessAction::Renew),
            _ => None,
        }
    }
}
