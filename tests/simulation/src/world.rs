//! Everything that is outside the instances: the store, the network, the disks, the topics and the consumer group, and what the simulation
//! knows about them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use pseidon_delivery::{Commit, Position, SplitId};
use pseidon_plugin::Stop;

use crate::disk::{Disk, Disks};
use crate::network::Network;
use crate::process::ProcessId;
use crate::scenario::{Kind, Kinds};
use crate::store::Content;

/// A partition of the topic.
pub(crate) struct Partition {
    /// The records in order: their positions, and their keys unless they are filtered out.
    pub(crate) records: Vec<(Position, Option<u8>)>,
    /// The first position after all records.
    pub(crate) end: Position,
    /// The instance that the group has given it to.
    pub(crate) assigned: Option<ProcessId>,
    /// What the group has committed.
    pub(crate) committed: Option<Position>,
    /// Where reading was begun.
    pub(crate) begun: Option<Position>,
}

/// What the scheduler tells a process.
#[derive(Default)]
pub(crate) struct Control {
    /// To stop gracefully.
    pub(crate) is_stopping: bool,
    /// What ends the attempt that is at work, if any.
    pub(crate) stop: Option<Stop>,
}

/// The world of one run.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) kinds: Kinds,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// A process is being killed: it must not do anything any more.
    pub(crate) is_dying: bool,
    pub(crate) store: Content,
    pub(crate) network: Network,
    pub(crate) disks: Disks,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) controls: BTreeMap<ProcessId, Control>,
    /// What must not be.
    /// Who has the lock under which folders of a disk are made and cleaned up.
    pub(crate) registries: BTreeMap<Disk, ProcessId>,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) step: u64,
    names: u64,
}

/// The world, as the scheduler and the processes share it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

/// What a process does next.
pub(crate) enum Order {
    Take(Vec<usize>),
    Release(Vec<usize>),
    Lost(usize),
    Read(usize, usize),
    Flush(Option<Vec<usize>>),
    Idle,
    Tell,
    Fail,
    Finish,
    Nothing,
}

/// The split of a partition.
pub(crate) fn split_id(partition: usize) -> SplitId {
    SplitId::from(format!("in:clicks/{partition}"))
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    /// Lets the scheduler go on.
    pub(crate) fn switch(&self) {
        generator::co_yield_with(());
    }

    /// Does what needs the lock of the disk's hidden folders. All processes share a thread, which must not block in it.
    pub(crate) fn with_registry<T>(&self, process: ProcessId, work: impl FnOnce() -> T) -> T {
        loop {
            let mut world = self.lock();
            let disk = world.disks.mounted[process.machine];
            if *world.registries.entry(disk).or_insert(process) == process {
                break;
            }
            drop(world);
            self.switch();
        }
        let done = work();
        self.lock().registries.retain(|_, holder| *holder != process);
        done
    }

    /// Lets the scheduler go on, or not.
    pub(crate) fn maybe_switch(&self) {
        let switches = {
            let mut world = self.lock();
            !world.is_calm && world.rng.u32(0..4) == 0
        };
        if switches {
            self.switch();
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, kinds: Kinds, dir: PathBuf, traced: bool) -> World {
        let mut rng = Rng::with_seed(seed);
        let machines = rng.usize(1..3);
        let disks = if kinds.has(Kind::Disks) && rng.u32(0..4) > 0 { machines } else { 1 };
        let partitions = (0..rng.usize(1..4)).map(|_| Partition::new(&mut rng)).collect();
        World {
            kinds,
            is_calm: false,
            is_dying: false,
            store: Content::default(),
            network: Network::default(),
            disks: Disks::new(dir, machines, disks),
            partitions,
            controls: BTreeMap::new(),
            registries: BTreeMap::new(),
            violations: Vec::new(),
            trace: traced.then(Vec::new),
            step: 0,
            names: 0,
            rng,
        }
    }

    pub(crate) fn share(self) -> Shared {
        Shared(Arc::new(Mutex::new(self)))
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

    /// A name that no other run of a process has.
    pub(crate) fn owner_name(&mut self, process: ProcessId) -> String {
        self.names += 1;
        format!("{process}-{}", self.names)
    }

    /// A step of the store was applied.
    pub(crate) fn note_committed(&mut self, commit: &Commit) {
        for step in commit.splits.iter().filter(|step| step.sequence == 0) {
            let partition = (0..self.partitions.len()).find(|partition| split_id(*partition) == step.split);
            if let Some(partition) = partition {
                self.partitions[partition].begun.get_or_insert(step.low);
            }
        }
    }

    /// What the process does next, which holds these partitions and has read them up to these positions.
    pub(crate) fn next_order(&mut self, process: ProcessId, held: &BTreeMap<usize, Position>) -> Order {
        let is_mine = |partition: usize, world: &World| world.partitions[partition].assigned == Some(process);
        let gone: Vec<usize> = held.keys().copied().filter(|partition| !is_mine(*partition, self)).collect();
        if let Some(first) = gone.first() {
            return if !self.is_calm && self.rng.u32(0..3) == 0 { Order::Lost(*first) } else { Order::Release(gone) };
        }
        let fresh: Vec<usize> =
            (0..self.partitions.len()).filter(|partition| is_mine(*partition, self) && !held.contains_key(partition)).collect();
        if !fresh.is_empty() {
            return Order::Take(fresh);
        }
        if self.controls.get(&process).is_some_and(|control| control.is_stopping) {
            return Order::Finish;
        }
        let unread: Vec<usize> = held.iter().filter(|(partition, at)| self.partitions[**partition].end > **at).map(|(at, _)| *at).collect();
        if self.is_calm {
            return unread.first().map_or(Order::Finish, |partition| Order::Read(*partition, usize::MAX));
        }
        match self.rng.u32(0..20) {
            0..11 => match self.rng.choice(unread) {
                Some(partition) => Order::Read(partition, self.rng.usize(1..8)),
                None => Order::Idle,
            },
            11..14 => Order::Flush(None),
            14 if !held.is_empty() => {
                let some = held.keys().copied().filter(|_| self.rng.bool()).collect();
                Order::Flush(Some(some))
            }
            15..17 => Order::Idle,
            17..19 => Order::Tell,
            19 if self.rng.u32(0..4) == 0 => Order::Fail,
            _ => Order::Nothing,
        }
    }

    /// The records of a partition from a position on, at most so many.
    pub(crate) fn read(&self, partition: usize, from: Position, count: usize) -> Vec<(Position, Option<u8>)> {
        let records = &self.partitions[partition].records;
        let first = records.partition_point(|(position, _)| *position < from);
        records[first..].iter().take(count).copied().collect()
    }
}

impl Partition {
    fn new(rng: &mut Rng) -> Partition {
        let mut partition = Partition { records: Vec::new(), end: 0, assigned: None, committed: None, begun: None };
        let count = rng.usize(0..12);
        partition.produce(rng, count);
        partition
    }

    /// Adds records. Some positions have none.
    pub(crate) fn produce(&mut self, rng: &mut Rng, count: usize) {
        for _ in 0..count {
            let gap = if rng.u32(0..5) == 0 { rng.u64(1..4) } else { 0 };
            let key = (rng.u32(0..10) < 7).then(|| rng.u8(0..3));
            self.records.push((self.end + gap, key));
            self.end += gap + 1;
        }
    }
}
