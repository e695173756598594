//! The scheduler: the order of all steps of a run, determined by its seed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use generator::{Generator, Gn};
use pseidon_plugin::threads::{Coroutines, simulate_threads};

use crate::Settings;
use crate::disk::Disk;
use crate::fixture::PLANS;
use crate::process::{self, ProcessId};
use crate::scenario::Kind;
use crate::store::StoreContent;
use crate::system;
use crate::world::{SharedWorld, World, plan_name, split_id};

/// How many steps a process may need at the end, when there are no more faults.
const PATIENCE: u32 = 10_000;
/// The size of a process's stack in words.
const STACK: usize = 64 << 10;
/// The maximum number of processes on a machine.
const MAX_PROCESSES: usize = 2;

/// The maximum duration of a step, in milliseconds.
const LONGEST_STEP: u64 = 200;
/// The maximum jump of the wall clock, in milliseconds.
const LONGEST_JUMP: u64 = 20_000;

type Coroutine = Generator<'static, (), ()>;

struct Process {
    /// Its threads. The process ends with the first.
    threads: Vec<Coroutine>,
    /// The thread that holds locks, so that no other can continue.
    holds_locks: Option<usize>,
    is_frozen: bool,
}

fn new_thread(work: impl FnOnce() + Send + 'static) -> Coroutine {
    let mut steps = Gn::new_opt(STACK, work);
    // Only a generator with data of its own can be left from deep inside; the data is not read.
    steps.set_local_data(std::ptr::dangling_mut());
    steps
}

/// A run.
pub(crate) struct Scheduler {
    world: SharedWorld,
    processes: BTreeMap<ProcessId, Process>,
    started: usize,
    machines: usize,
}

impl Scheduler {
    pub(crate) fn new(settings: &Settings, dir: PathBuf) -> Scheduler {
        let world = World::new(settings, dir);
        let machines = world.disks.mounted.len();
        let world = world.share();
        system::set_world(Some(world.clone()));
        let (spawning, switching) = (world.clone(), world.clone());
        simulate_threads(Coroutines {
            spawn: Box::new(move |work| spawning.lock().spawned.push(work)),
            switch: Box::new(move || {
                let may_wait = !switching.lock().is_dying;
                if may_wait {
                    switching.switch();
                }
                may_wait
            }),
        });
        Scheduler {
            world,
            processes: BTreeMap::new(),
            started: 0,
            machines,
        }
    }

    /// Runs everything from the first step to the checks. Returns the violations and the trace.
    pub(crate) fn run(mut self) -> (Vec<String>, Option<Vec<String>>) {
        let steps = self.world.lock().rng.usize(20..220);
        for _ in 0..steps {
            self.step();
        }
        self.finish();
        system::set_world(None);
        let mut world = self.world.lock();
        if world.violations.is_empty() {
            world.check_end();
        }
        (std::mem::take(&mut world.violations), world.trace.take())
    }

    fn step(&mut self) {
        let chance = {
            let mut world = self.world.lock();
            world.step += 1;
            let time = world.rng.u64(0..LONGEST_STEP);
            world.pass_time(time);
            world.rng.u32(0..100)
        };
        match chance {
            0..80 => self.resume_any(),
            80..90 => {
                let mut world = self.world.lock();
                match world.rng.u32(0..4) {
                    0 => world.time_out(),
                    1 => world.move_a_transaction(),
                    _ => world.move_a_message(),
                }
            }
            _ => self.disturb(),
        }
    }

    fn resume_any(&mut self) {
        let able: Vec<ProcessId> = {
            let world = self.world.lock();
            let able = |(id, process): (&ProcessId, &Process)| {
                (!process.is_frozen && !world.waits(*id)).then_some(*id)
            };
            self.processes.iter().filter_map(able).collect()
        };
        let chosen = self.world.lock().rng.choice(able);
        match chosen {
            Some(id) => self.resume(id),
            None if self.processes.is_empty() => self.start_any(),
            None => {}
        }
    }

    fn resume(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let at = {
            let mut world = self.world.lock();
            world.disks.mount_for(id.machine);
            process
                .holds_locks
                .unwrap_or_else(|| world.rng.usize(0..process.threads.len()))
        };
        process.threads[at].resume();
        let (spawned, holds_locks) = {
            let mut world = self.world.lock();
            let spawned = std::mem::take(&mut world.spawned);
            if !spawned.is_empty() {
                world.note(|| format!("{id}  starts a thread"));
            }
            (spawned, std::mem::take(&mut world.holds_locks))
        };
        process.holds_locks = holds_locks.then_some(at);
        process.threads.extend(spawned.into_iter().map(new_thread));
        if process.threads[0].is_done() {
            self.end(id);
        } else if process.threads[at].is_done() {
            process.threads.remove(at);
        }
    }

    fn start_any(&mut self) {
        let machine = self.world.lock().rng.usize(0..self.machines);
        if self
            .processes
            .keys()
            .filter(|id| id.machine == machine)
            .count()
            < MAX_PROCESSES
        {
            let plan = self.any_plan();
            self.start(machine, plan);
            self.rebalance();
        }
    }

    fn start(&mut self, machine: usize, plan: usize) -> ProcessId {
        self.started += 1;
        let id = ProcessId {
            machine,
            number: self.started,
            plan,
        };
        let world = self.world.clone();
        world.lock().note(|| format!("{id}  is started"));
        world.lock().controls.entry(id).or_default();
        let main = new_thread(move || process::run(&world, id));
        self.processes.insert(
            id,
            Process {
                threads: vec![main],
                holds_locks: None,
                is_frozen: false,
            },
        );
        id
    }

    /// Ends the process, and with it all its threads.
    fn end(&mut self, id: ProcessId) {
        {
            let mut world = self.world.lock();
            world.is_dying = true;
            world.disks.unmount();
        }
        self.processes.remove(&id);
        {
            let mut world = self.world.lock();
            world.is_dying = false;
            world.controls.remove(&id);
            world.forget_caller(id);
        }
        self.rebalance();
    }

    /// Kills the process: it cannot clean up anything.
    fn crash(&mut self, id: ProcessId) {
        {
            let mut world = self.world.lock();
            world.note(|| format!("{id}  crashes"));
            if let Some(stop) = world
                .controls
                .get(&id)
                .and_then(|control| control.stop.clone())
            {
                stop.leave_now();
            }
        }
        self.end(id);
    }

    /// The group assigns each partition of a dead member to another one.
    fn rebalance(&mut self) {
        let members: Vec<ProcessId> = self.processes.keys().copied().collect();
        let mut world = self.world.lock();
        if world.is_shared {
            return;
        }
        for partition in 0..world.partitions.len() {
            if world.partitions[partition]
                .assigned
                .is_none_or(|id| !members.contains(&id))
            {
                world.partitions[partition].assigned = world.rng.choice(&members).copied();
            }
        }
    }

    /// A disturbance that the processes have not caused.
    fn disturb(&mut self) {
        let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
        let (what, any) = {
            let mut world = self.world.lock();
            (world.rng.u32(0..29), world.rng.choice(&ids).copied())
        };
        match (what, any) {
            (0..5, _) => self.start_any(),
            (5..8, Some(id)) => {
                // Most faults are possible while a step is in progress.
                let in_step = self
                    .processes
                    .iter()
                    .find(|(_, process)| process.holds_locks.is_some())
                    .map(|(id, _)| *id);
                let is_wanted = self.world.lock().rng.bool();
                self.crash(in_step.filter(|_| is_wanted).unwrap_or(id));
                // The clean-up after a dead process may find room or not.
                let mut world = self.world.lock();
                if world.rng.u32(0..3) == 0 {
                    world.fill_or_clear_a_disk();
                }
            }
            (8..11, Some(id)) => self.freeze_or_wake(id),
            (11, Some(id)) => {
                let mut world = self.world.lock();
                world.note(|| format!("{id}  is requested to stop"));
                world.controls.entry(id).or_default().is_stopping = true;
            }
            (12, Some(id)) => {
                let mut world = self.world.lock();
                world.note(|| format!("{id}  is requested to leave at once"));
                if let Some(stop) = world
                    .controls
                    .get(&id)
                    .and_then(|control| control.stop.as_ref())
                {
                    stop.leave_now();
                }
            }
            (13..16, Some(id)) => {
                let mut world = self.world.lock();
                if world.is_shared {
                    return;
                }
                let partition = {
                    let count = world.partitions.len();
                    world.rng.usize(0..count)
                };
                world.note(|| format!("group  assigns partition {partition} to {id}"));
                world.partitions[partition].assigned = Some(id);
            }
            (16..18, _) => {
                let mut world = self.world.lock();
                let world = &mut *world;
                let partition = world.rng.usize(0..world.partitions.len());
                let count = world.rng.usize(1..6);
                world.partitions[partition].produce(&mut world.rng, count);
            }
            (18, _) => {
                let mut world = self.world.lock();
                let world = &mut *world;
                let rng = &mut world.rng;
                let name = world.disks.read_one(|count| rng.usize(0..count));
                if let Some(name) = name {
                    world.note(|| format!("reader takes {name}"));
                }
            }
            (19, _) => self.reboot(),
            (20, _) => self.world.lock().copy_store(),
            (21, _) => self.restore_older(),
            (22, _) => self.begin_generation(),
            (23, _) => {
                let mut world = self.world.lock();
                if world.kinds.has(Kind::Target) && world.losing_positions_is_noticed() {
                    world.lose_positions();
                }
            }
            (24, _) => {
                let mut world = self.world.lock();
                let back = world.rng.u64(0..2 * LONGEST_JUMP);
                world.set_clock(LONGEST_JUMP, back);
                world.note(|| "clock  jumps".into());
            }
            (25..28, _) => self.world.lock().fill_or_clear_a_disk(),
            _ => {}
        }
    }

    /// Restarts a machine, whose disk is swapped, or not mounted.
    fn reboot(&mut self) {
        if !self.world.lock().kinds.has(Kind::Disks) {
            return;
        }
        let machine = self.world.lock().rng.usize(0..self.machines);
        for id in self
            .processes
            .keys()
            .copied()
            .filter(|id| id.machine == machine)
            .collect::<Vec<_>>()
        {
            self.crash(id);
        }
        let mut world = self.world.lock();
        let disks: Vec<Disk> = world
            .disks
            .all()
            .filter(|disk| *disk == Disk::Root(machine) || matches!(disk, Disk::Data(_)))
            .collect();
        if let Some(disk) = world.rng.choice(disks) {
            world.disks.mounted[machine] = disk;
            world.note(|| format!("m{machine}  is restarted with {disk:?}"));
        }
    }

    fn restore_older(&mut self) {
        let mut world = self.world.lock();
        if !world.kinds.has(Kind::OlderStore) || !world.restore_older() {
            return;
        }
        // An older store does not name the instances that took splits since, so a target is not
        // asked to fence them.
        world.drop_messages();
        world.drop_transactions();
        drop(world);
        for id in self.processes.keys().copied().collect::<Vec<_>>() {
            self.crash(id);
        }
    }

    /// A topic is created again, or a file is written again.
    fn begin_generation(&mut self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let number = world.rng.usize(0..world.partitions.len());
        let kind = if world.partitions[number].is_file {
            Kind::RewrittenFiles
        } else {
            Kind::Topics
        };
        if !world.kinds.has(kind) {
            return;
        }
        // Before position 0 there are no bytes that could show it: docs/delivery.md names this as
        // not excluded.
        let is_at_its_beginning = |store: &StoreContent| {
            let id = split_id(number);
            store
                .all_records()
                .any(|(_, split, record)| *split == id && record.low == Some(0))
        };
        if kind == Kind::RewrittenFiles
            && std::iter::once(&world.store)
                .chain(&world.older)
                .any(is_at_its_beginning)
        {
            return;
        }
        let partition = &mut world.partitions[number];
        partition.begin_generation(&mut world.rng);
        world.may_alarm = true;
        world.note(|| format!("source  partition {number} begins again"));
    }

    fn freeze_or_wake(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        process.is_frozen = !process.is_frozen;
        let is_frozen = process.is_frozen;
        self.world
            .lock()
            .note(|| format!("{id}  {}", if is_frozen { "freezes" } else { "wakes up" }));
    }

    /// Kills all processes and repairs all faults. On each machine one process after another reads
    /// everything and stops gracefully.
    fn finish(&mut self) {
        self.world
            .lock()
            .note(|| "all processes are killed, all faults are repaired".into());
        for id in self.processes.keys().copied().collect::<Vec<_>>() {
            self.crash(id);
        }
        {
            let mut world = self.world.lock();
            world.is_calm = true;
            world.disks.clear_all();
            world.settle_network();
        }
        let mut disks: Vec<Disk> = self.world.lock().disks.all().collect();
        self.world.lock().rng.shuffle(&mut disks);
        let mut is_first = true;
        for disk in disks {
            let is_clear = {
                let world = self.world.lock();
                world.store.all_staged().next().is_none() && !world.disks.has_hidden(disk)
            };
            if is_clear && !is_first {
                continue;
            }
            is_first = false;
            let machine = if let Disk::Root(machine) = disk {
                machine
            } else {
                0
            };
            self.world.lock().disks.mounted[machine] = disk;
            // The work that one version of the pipeline has left must be finished by the same
            // version.
            for _ in 0..PLANS {
                if let Some(plan) = self.plan_left() {
                    self.finish_on(machine, plan);
                }
            }
            let plan = self.any_plan();
            self.finish_on(machine, plan);
        }
    }

    /// A version of the pipeline for an instance that is started.
    fn any_plan(&self) -> usize {
        let mut world = self.world.lock();
        if world.kinds.has(Kind::Plans) {
            world.rng.usize(0..PLANS)
        } else {
            0
        }
    }

    /// The version of the pipeline that has left lanes ahead, if one has. After an alarm nothing is
    /// finished any more.
    fn plan_left(&self) -> Option<usize> {
        let world = self.world.lock();
        let left = world
            .store
            .all_records()
            .find(|(_, _, record)| !record.ahead.is_empty() && !world.is_alarmed);
        let plan = left.and_then(|(_, _, record)| record.plan.clone())?;
        (0..PLANS).find(|number| plan_name(*number) == plan)
    }

    /// One process finishes what can be finished on this machine and with this version of the
    /// pipeline.
    fn finish_on(&mut self, machine: usize, plan: usize) {
        let id = self.start(machine, plan);
        {
            let mut world = self.world.lock();
            for partition in 0..world.partitions.len() {
                let is_of_other_plan = world.sinks.iter().any(|(sink, _)| {
                    let record = world.store.record(sink, &split_id(partition));
                    !record.ahead.is_empty() && record.plan != Some(plan_name(plan))
                });
                world.partitions[partition].assigned = (!is_of_other_plan).then_some(id);
            }
        }
        let mut left = PATIENCE;
        while self.processes.contains_key(&id) && left > 0 {
            {
                let mut world = self.world.lock();
                world.step += 1;
                world.pass_time(LONGEST_STEP);
            }
            self.resume(id);
            left -= 1;
        }
        if left == 0 {
            self.world.lock().violate(format!(
                "{id} does not finish although there are no more faults"
            ));
            self.crash(id);
        }
    }
}
