//! The scheduler: the order of all steps of a run, determined by its seed.

mod disturbances;
mod finish;

use std::collections::BTreeMap;
use std::path::PathBuf;

use generator::{Generator, Gn};
use pseidon_plugin::threads::{Coroutines, simulate_threads};

use crate::Settings;
use crate::fixture::PLANS;
use crate::names::ProcessId;
use crate::process;
use crate::scenario::Kind;
use crate::system;
use crate::world::{SharedWorld, World};

/// The size of a process's stack in words.
const STACK: usize = 64 << 10;
/// The maximum number of processes on a machine.
const MAX_PROCESSES: usize = 2;

/// The maximum duration of a step, in milliseconds.
const LONGEST_STEP: u64 = 200;
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
        let steps = {
            let mut world = self.world.lock();
            if world.is_routed {
                world.note(|| "each record belongs to one of the sinks".into());
            }
            let steps = world.rng.usize(20..220);
            if world.is_routed { 3 * steps } else { steps }
        };
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

    /// A version of the pipeline for an instance that is started.
    fn any_plan(&self) -> usize {
        let mut world = self.world.lock();
        if world.kinds.has(Kind::Plans) {
            world.rng.usize(0..PLANS)
        } else {
            0
        }
    }
}
