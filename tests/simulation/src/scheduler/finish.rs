//! The end of a run: all faults are repaired, and what is left is read.

use super::{LONGEST_STEP, Scheduler};
use crate::disk::Disk;
use crate::fixture::PLANS;
use crate::names::{plan_name, split_id};

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
