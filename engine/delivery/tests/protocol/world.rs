//! Instances with their own committers over one store and the files of their machines.

mod check;
mod removal;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::{
    Claimant, Committer, InstanceId, LaneCommit, LaneId, Position, SinkId, SplitId, StagedEntry,
    StagedId, StateStore,
};

use crate::store::{Fate, MemoryStore};

/// A split's records in order: the position of each, and its lane unless it is filtered out.
pub(crate) type Input = Vec<(Position, Option<u8>)>;

#[derive(Clone, Debug)]
struct File {
    owner: InstanceId,
    machine: usize,
    lane: LaneId,
    records: Vec<(usize, Position)>,
    visible: bool,
}

/// A process that reads splits and writes files.
struct Instance {
    owner: InstanceId,
    committer: Committer,
    abandoned: Arc<AtomicBool>,
    /// The splits that it believes to hold, each with the number of its records that were read.
    read: BTreeMap<usize, usize>,
    /// The files of each lane that are not committed yet, oldest first; records go to the last one,
    /// unless that is rolled.
    lanes: BTreeMap<LaneId, VecDeque<LaneFile>>,
    /// Committed and not yet published.
    to_publish: Vec<StagedId>,
    /// Owners whose hidden files it is about to remove.
    dead: HashSet<InstanceId>,
    live_staged: HashSet<StagedId>,
}

struct LaneFile {
    file: StagedId,
    upto: BTreeMap<usize, Position>,
    rolled: bool,
}

pub(crate) struct World {
    inputs: Vec<Input>,
    store: MemoryStore,
    /// The position at which each split was begun.
    starts: BTreeMap<usize, Position>,
    files: BTreeMap<StagedId, File>,
    instances: Vec<Option<Instance>>,
    made: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum InstanceStep {
    Take {
        by: usize,
        splits: u8,
        start: Position,
    },
    Read {
        by: usize,
        split: usize,
        records: usize,
    },
    Roll {
        by: usize,
        lanes: u8,
    },
    Commit {
        by: usize,
        lanes: u8,
        files: usize,
        fates: Vec<Fate>,
        leave: bool,
    },
    Idle {
        by: usize,
        fates: Vec<Fate>,
    },
    Publish {
        by: usize,
        count: usize,
    },
    Release {
        by: usize,
        splits: u8,
    },
    LookForDead {
        by: usize,
    },
    RemoveDead {
        by: usize,
    },
    Crash {
        by: usize,
    },
}

fn sink() -> SinkId {
    SinkId::from("lake")
}

fn split_id(split: usize) -> SplitId {
    SplitId::from(format!("s/{split}"))
}

/// The first two instances share a machine and with it the files there.
fn machine(instance: usize) -> usize {
    instance / 2
}

fn chosen(mask: u8, count: usize) -> impl Iterator<Item = usize> {
    (0..count).filter(move |at| mask & (1 << at) != 0)
}

impl World {
    pub(crate) fn new(inputs: Vec<Input>) -> World {
        let (store, starts, files) = Default::default();
        World {
            inputs,
            store,
            starts,
            files,
            instances: (0..3).map(|_| None).collect(),
            made: 0,
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    pub(crate) fn act(&mut self, step: &InstanceStep) {
        match step {
            InstanceStep::Take { by, splits, start } => {
                self.take(*by, chosen(*splits, self.inputs.len()).collect(), *start)
            }
            InstanceStep::Read { by, split, records } => {
                self.read(*by, split % self.inputs.len(), *records)
            }
            InstanceStep::Roll { by, lanes } => self.roll(*by, *lanes),
            InstanceStep::Commit {
                by,
                lanes,
                files,
                fates,
                leave,
            } => self.commit(*by, *lanes, *files, fates, *leave),
            InstanceStep::Idle { by, fates } => self.idle(*by, fates),
            InstanceStep::Publish { by, count } => self.publish(*by, *count),
            InstanceStep::Release { by, splits } => self.release(*by, *splits),
            InstanceStep::LookForDead { by } => self.look_for_dead(*by),
            InstanceStep::RemoveDead { by } => self.remove_dead(*by),
            // Nothing of it is left but its files.
            InstanceStep::Crash { by } => self.instances[*by] = None,
        }
    }

    /// Takes splits over from their owners, which do not notice. `start` is the current meaning of
    /// "the latest".
    fn take(&mut self, by: usize, splits: Vec<usize>, start: Position) {
        if self.instances[by].is_none() {
            let owner = InstanceId::from(self.name("owner"));
            let abandoned = Arc::new(AtomicBool::new(false));
            let claimant = Claimant {
                owner: owner.clone(),
                plan: "p".into(),
                accepts_other_plans: false,
            };
            let committer = Committer::new(
                sink(),
                Arc::new(self.store.clone()),
                claimant,
                Positions::InStore,
                abandoned.clone(),
            );
            let (read, lanes, to_publish) = Default::default();
            let (dead, live_staged) = Default::default();
            self.instances[by] = Some(Instance {
                owner,
                committer,
                abandoned,
                read,
                lanes,
                to_publish,
                dead,
                live_staged,
            });
        }
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let fresh: Vec<usize> = splits
            .into_iter()
            .filter(|split| !instance.read.contains_key(split))
            .collect();
        let ids: Vec<SplitId> = fresh.iter().map(|split| split_id(*split)).collect();
        let records = instance.committer.take(&ids).unwrap();
        let epochs = records.iter().map(|record| record.epoch);
        let taken: Vec<(SplitId, u64)> = ids.iter().cloned().zip(epochs).collect();
        instance.committer.hold(&taken).unwrap();
        for (split, record) in fresh.iter().zip(records) {
            let from = record.low.unwrap_or(start);
            self.starts.entry(*split).or_insert(from);
            instance
                .committer
                .begin(vec![SplitToBegin {
                    split: split_id(*split),
                    record,
                    start,
                    resume: None,
                }])
                .unwrap();
            instance.read.insert(
                *split,
                self.inputs[*split].partition_point(|(position, _)| *position < from),
            );
        }
        // What is committed is published by the first instance that can see it.
        for entry in self.store.staged(&sink()).unwrap() {
            if entry.detail == machine(by).to_string() {
                show(&mut self.files, &entry.id);
                instance.committer.published([entry.id]);
            }
        }
    }

    fn read(&mut self, by: usize, split: usize, count: usize) {
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let Some(&from) = instance.read.get(&split) else {
            return;
        };
        let unit = &self.inputs[split][from..(from + count).min(self.inputs[split].len())];
        let Some((last, _)) = unit.last() else { return };
        let id = split_id(split);
        let mut ledger = instance.committer.ledger();
        for (position, lane) in unit
            .iter()
            .filter_map(|(position, lane)| Some((*position, (*lane)?)))
        {
            let lane = LaneId::from(format!("lane{lane}"));
            if position < ledger.already_held(&id, &lane) {
                continue;
            }
            ledger.dispatch(&id, &lane, position, position);
            let files = instance.lanes.entry(lane.clone()).or_default();
            if files.back().is_none_or(|last| last.rolled) {
                self.made += 1;
                let file = StagedId::from(format!("file{}", self.made));
                let (owner, machine) = (instance.owner.clone(), machine(by));
                self.files.insert(
                    file.clone(),
                    File {
                        owner,
                        machine,
                        lane,
                        records: vec![],
                        visible: false,
                    },
                );
                files.push_back(LaneFile {
                    file,
                    upto: BTreeMap::new(),
                    rolled: false,
                });
            }
            let Some(open) = files.back_mut() else {
                continue;
            };
            open.upto.insert(split, position + 1);
            // Another instance may have removed the file already, if this one was fenced and has
            // not noticed it yet.
            if let Some(file) = self.files.get_mut(&open.file) {
                file.records.push((split, position));
            }
        }
        ledger.advance(&id, last + 1, None);
        drop(ledger);
        instance.read.insert(split, from + unit.len());
    }

    /// Records from now on go to another file.
    fn roll(&mut self, by: usize, lanes: u8) {
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        for lane in chosen(lanes, instance.lanes.len())
            .filter_map(|at| instance.lanes.keys().nth(at).cloned())
            .collect::<Vec<_>>()
        {
            if let Some(open) = instance.lanes.get_mut(&lane).and_then(VecDeque::back_mut) {
                open.rolled = true;
            }
        }
    }

    /// Commits up to so many files of each lane, oldest first.
    fn commit(&mut self, by: usize, lanes: u8, files: usize, fates: &[Fate], leave: bool) {
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let open: Vec<LaneId> = instance.lanes.keys().cloned().collect();
        let mut commits = Vec::new();
        let mut committed = Vec::new();
        for lane in chosen(lanes, open.len()).map(|at| open[at].clone()) {
            let Some(of_lane) = instance.lanes.get_mut(&lane) else {
                continue;
            };
            for closed in of_lane.drain(..files.min(of_lane.len())) {
                let splits = closed
                    .upto
                    .iter()
                    .map(|(split, upto)| (split_id(*split), *upto))
                    .collect();
                commits.push(LaneCommit {
                    lane: lane.clone(),
                    splits,
                });
                committed.push(closed.file);
            }
        }
        if commits.is_empty() {
            return;
        }
        instance.lanes.retain(|_, files| !files.is_empty());
        let files = committed;
        let staged = files
            .iter()
            .map(|file| StagedEntry {
                id: file.clone(),
                detail: machine(by).to_string(),
            })
            .collect();
        instance.abandoned.store(leave, Ordering::Relaxed);
        self.store.fates.lock().clone_from(&fates.to_vec());
        let outcome = instance.committer.commit(&commits, staged);
        self.store.fates.lock().clear();
        match outcome {
            Ok(()) => instance.to_publish.extend(files),
            Err(abandon) => self.give_up(by, &abandon),
        }
    }

    fn idle(&mut self, by: usize, fates: &[Fate]) {
        let Some(instance) = &self.instances[by] else {
            return;
        };
        instance.abandoned.store(false, Ordering::Relaxed);
        self.store.fates.lock().clone_from(&fates.to_vec());
        let outcome = instance.committer.commit_idle();
        self.store.fates.lock().clear();
        if let Err(abandon) = outcome {
            self.give_up(by, &abandon);
        }
    }

    fn publish(&mut self, by: usize, count: usize) {
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let count = count.min(instance.to_publish.len());
        for id in instance.to_publish.drain(..count) {
            show(&mut self.files, &id);
            instance.committer.published([id]);
        }
    }

    /// Releases splits as a graceful stop or a rebalance does.
    fn release(&mut self, by: usize, splits: u8) {
        self.commit(by, u8::MAX, usize::MAX, &[], false);
        self.publish(by, usize::MAX);
        let Some(instance) = &mut self.instances[by] else {
            return;
        };
        let held: Vec<usize> = chosen(splits, self.inputs.len())
            .filter(|split| instance.read.contains_key(split))
            .collect();
        let ids: Vec<SplitId> = held.iter().map(|split| split_id(*split)).collect();
        match instance.committer.release(&ids) {
            Ok(()) => instance.read.retain(|split, _| !held.contains(split)),
            Err(abandon) => self.give_up(by, &abandon),
        }
    }

    /// The first instance is left; it takes everything, reads to the end and stops gracefully. Then
    /// the other machine is started once more, where what others left can only be published and
    /// removed.
    pub(crate) fn finish(&mut self) {
        for by in 1..self.instances.len() {
            self.instances[by] = None;
        }
        let all: Vec<usize> = (0..self.inputs.len()).collect();
        // It may have lost long ago what it believes to hold: then it notices now, and restarts.
        self.release(0, u8::MAX);
        self.take(0, all.clone(), 0);
        for split in all {
            self.read(0, split, usize::MAX / 2);
        }
        self.release(0, u8::MAX);
        for by in [0, 2] {
            self.take(by, Vec::new(), 0);
            self.idle(by, &[]);
            self.look_for_dead(by);
            self.remove_dead(by);
        }
    }
}

/// Publishing can be repeated, and comes too late for a file that another instance has published
/// already.
fn show(files: &mut BTreeMap<StagedId, File>, id: &StagedId) {
    files
        .get_mut(id)
        .unwrap_or_else(|| panic!("{id} is committed, but was removed"))
        .visible = true;
}
