//! The end of a run: all faults are repaired, and what is left is read.

use super::{LONGEST_STEP, Scheduler};
use crate::disk::Disk;
use crate::fixture::PLANS;

/// How many steps a process may need at the end, when there are no more faults.
const PATIENCE: u32 = 10_000;
impl Scheduler {
    /// Kills all processes and repairs all faults. On each machine one process after another reads
    /// everything and stops gracefully.
    pub(super) fn finish(&mut self) {
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
            self.finish_what_is_left(machine);
            let plan = self.any_plan();
            self.finish_on(machine, plan);
            // That process was refused if its own take-over has completed a late transaction of the
            // target. No other process publishes what is on this disk.
            self.finish_what_is_left(machine);
        }
    }

    /// Lets the same version of the pipeline finish the work that a version has left.
    fn finish_what_is_left(&mut self, machine: usize) {
        for _ in 0..PLANS {
            if let Some(plan) = self.plan_left() {
                self.finish_on(machine, plan);
            }
        }
    }

    /// The version of the pipeline that has left work unfinished, if one has. After an alarm
    /// nothing is finished any more.
    fn plan_left(&self) -> Option<usize> {
        let world = self.world.lock();
        if world.is_alarmed {
            return None;
        }
        (0..world.partitions.len()).find_map(|partition| world.version_that_left(partition))
    }

    /// One process finishes what can be finished on this machine and with this version of the
    /// pipeline.
    fn finish_on(&mut self, machine: usize, plan: usize) {
        let id = self.start(machine, plan);
        {
            let mut world = self.world.lock();
            for partition in 0..world.partitions.len() {
                let may_continue = world.may_continue(partition, plan);
                world.partitions[partition].assigned = may_continue.then_some(id);
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
