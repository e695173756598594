//! What happens to processes, machines, topics and the store from outside.

use super::Scheduler;
use crate::disk::Disk;
use crate::names::{ProcessId, split_id};
use crate::scenario::Kind;
use crate::store::StoreContent;

/// The maximum jump of the wall clock, in milliseconds.
const LONGEST_JUMP: u64 = 20_000;

impl Scheduler {
    /// A disturbance that the processes have not caused.
    pub(super) fn disturb(&mut self) {
        let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
        let is_for_versions = {
            let mut world = self.world.lock();
            world.is_routed && world.rng.u32(0..8) > 0
        };
        if is_for_versions {
            return self.let_versions_meet(&ids);
        }
        let (what, any) = {
            let mut world = self.world.lock();
            (world.rng.u32(0..29), world.rng.choice(&ids).copied())
        };
        match (what, any) {
            (0..5, _) => self.start_any(),
            (5..8, Some(id)) => self.crash_one(id),
            (8..11, Some(id)) => self.freeze_or_wake(id),
            (11, Some(id)) => self.request_stop(id),
            (12, Some(id)) => self.request_leave(id),
            (13..16, Some(id)) => self.assign_to(id),
            (16..18, _) => self.produce(),
            (18, _) => self.take_a_file(),
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

    /// Two versions of the pipeline must take the same partition at the same time, while nothing of
    /// it is unfinished and there is something to read. Where data is lost otherwise, no
    /// check sees what they lose, so the other disturbances are rare.
    fn let_versions_meet(&mut self, processes: &[ProcessId]) {
        let (what, any) = {
            let mut world = self.world.lock();
            (world.rng.u32(0..20), world.rng.choice(processes).copied())
        };
        match (what, any) {
            (0..13, _) => self.world.lock().move_to_another_version(processes),
            (13..17, _) => self.produce(),
            (17, Some(id)) => self.crash_one(id),
            _ => self.start_any(),
        }
    }

    /// Kills this process, or one that is inside a step.
    fn crash_one(&mut self, id: ProcessId) {
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

    fn request_stop(&mut self, id: ProcessId) {
        let mut world = self.world.lock();
        world.note(|| format!("{id}  is requested to stop"));
        world.controls.entry(id).or_default().is_stopping = true;
    }

    fn request_leave(&mut self, id: ProcessId) {
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

    /// The group assigns a partition to another member, unless instances share the partitions.
    fn assign_to(&mut self, id: ProcessId) {
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

    fn produce(&mut self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let partition = world.rng.usize(0..world.partitions.len());
        let count = world.rng.usize(1..6);
        world.partitions[partition].produce(&mut world.rng, count);
    }

    fn take_a_file(&mut self) {
        let mut world = self.world.lock();
        let world = &mut *world;
        let rng = &mut world.rng;
        let name = world.disks.read_one(|count| rng.usize(0..count));
        if let Some(name) = name {
            world.note(|| format!("reader takes {name}"));
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
}
