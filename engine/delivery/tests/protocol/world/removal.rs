//! Removing hidden files: those of an instance that gives up, and those of dead instances.

use std::collections::HashSet;

use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{InstanceId, StagedId, StateStore};

use super::{File, World, machine, sink};

impl World {
    /// A fenced instance discards its lanes and restarts; a stopped one leaves its files to others.
    pub(super) fn give_up(&mut self, by: usize, abandon: &CommitterError) {
        let Some(instance) = self.instances[by].take() else {
            return;
        };
        match abandon {
            CommitterError::Fatal(_) | CommitterError::OtherPlan { .. } => panic!("{abandon}"),
            CommitterError::Stopped => {}
            CommitterError::Fenced(_) => {
                // A commit whose answer was lost may have been applied: this instance must not
                // remove what is staged now.
                let staged: HashSet<StagedId> = self
                    .store
                    .staged(&sink())
                    .unwrap()
                    .into_iter()
                    .map(|entry| entry.id)
                    .collect();
                self.files.retain(|id, file| {
                    file.visible || file.owner != instance.owner || staged.contains(id)
                });
            }
        }
    }

    /// The files of a dead instance are not locked any more. The instance is fenced first and the
    /// staged entries are read second: in the other order one of its commits could be applied in
    /// between, and leave an entry staged that is not known here.
    pub(super) fn look_for_dead(&mut self, by: usize) {
        let alive: HashSet<InstanceId> = self
            .instances
            .iter()
            .flatten()
            .map(|instance| instance.owner.clone())
            .collect();
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let of_machine = self
            .files
            .values()
            .filter(|file| file.machine == machine(by))
            .map(|file| file.owner.clone());
        instance.dead = of_machine.filter(|owner| !alive.contains(owner)).collect();
        instance
            .dead
            .iter()
            .for_each(|owner| instance.committer.fence(owner).unwrap());
        instance.live_staged = self
            .store
            .staged(&sink())
            .unwrap()
            .into_iter()
            .map(|entry| entry.id)
            .collect();
    }

    pub(super) fn remove_dead(&mut self, by: usize) {
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let dead = |file: &File| file.machine == machine(by) && instance.dead.contains(&file.owner);
        self.files
            .retain(|id, file| file.visible || !dead(file) || instance.live_staged.contains(id));
    }
}
