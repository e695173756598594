//! The delivery protocol as a pure state machine: several instances with their own committers over one store, in every order of steps that
//! chance gives. Whatever happens on the way, what readers see in the end is every record once, in order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use pseidon_delivery::committer::{Abandon, Begin, Positions};
use pseidon_delivery::store::{SplitVersion, refusal};
use pseidon_delivery::{
    Claimant, Commit, CommitError, CommitRecord, Committer, LaneCommit, LaneId, Position, SinkId, SplitCommit, SplitId, Staged, StateStore,
    StoreError, StoredPlan, conformance,
};

// ---- a store in memory ----------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Content {
    identity: Option<String>,
    records: BTreeMap<(SinkId, SplitId), CommitRecord>,
    staged: BTreeMap<(SinkId, String), String>,
    fenced: BTreeSet<(SinkId, String)>,
    plans: HashMap<String, String>,
    notes: HashMap<String, String>,
}

/// What becomes of the next answers to a commit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    /// The question does not arrive.
    Unheard,
    /// It is done, but nobody learns of it.
    AnswerLost,
}

#[derive(Clone, Default)]
struct Memory {
    content: Arc<Mutex<Content>>,
    fates: Arc<Mutex<Vec<Fate>>>,
}

impl Content {
    fn is_fenced(&self, sink: &SinkId, owner: &str) -> bool {
        self.fenced.contains(&(sink.clone(), owner.to_owned()))
    }

    fn apply(&mut self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let record = |split: &SplitId| self.records.get(&(sink.clone(), split.clone())).cloned().unwrap_or_default();
        let shown = |step: &SplitCommit| SplitVersion { epoch: record(&step.split).epoch, sequence: record(&step.split).sequence };
        let shown: Vec<SplitVersion> = commit.splits.iter().map(shown).collect();
        if let Some(refused) = refusal(&commit.owner, self.is_fenced(sink, &commit.owner), &commit.splits, &shown) {
            return Err(refused);
        }
        for step in &commit.splits {
            let record = self.records.entry((sink.clone(), step.split.clone())).or_default();
            record.sequence += 1;
            record.low = Some(step.low);
            record.ahead.extend(step.ahead.iter().cloned());
            for lane in &step.caught_up {
                record.ahead.remove(lane);
            }
            record.finished = step.finished;
            record.resume = step.resume.clone().or(record.resume.take());
        }
        for id in &commit.published {
            self.staged.remove(&(sink.clone(), id.clone()));
        }
        self.staged.extend(commit.staged.iter().map(|entry| ((sink.clone(), entry.id.clone()), entry.detail.clone())));
        Ok(())
    }
}

impl Memory {
    fn commit_one(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let fate = self.fates.lock().pop().unwrap_or(Fate::Answered);
        let unanswered = || {
            // The committer is not to wait for the store to come back.
            std::thread::current().unpark();
            Err(StoreError::Unavailable("no answer".into()).into())
        };
        if fate == Fate::Unheard {
            return unanswered();
        }
        let answer = self.content.lock().apply(sink, commit);
        if fate == Fate::AnswerLost { unanswered() } else { answer }
    }
}

impl StateStore for Memory {
    fn identity(&self) -> Result<String, StoreError> {
        let mut content = self.content.lock();
        if content.identity.is_none() {
            content.identity = Some(pseidon_delivery::store::new_identity()?);
        }
        Ok(content.identity.clone().unwrap_or_default())
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["nothing survives the process".into()])
    }

    fn take(&self, sink: &SinkId, splits: &[SplitId], claimant: &Claimant) -> Result<Vec<CommitRecord>, CommitError> {
        let mut content = self.content.lock();
        if content.is_fenced(sink, &claimant.owner) {
            return Err(CommitError::OwnerFenced(claimant.owner.clone()));
        }
        let take = |split: &SplitId| {
            let record = content.records.entry((sink.clone(), split.clone())).or_default();
            record.epoch += 1;
            record.owners.retain(|other| *other != claimant.owner);
            let before = record.clone();
            record.owners.push(claimant.owner.clone());
            if record.ahead.is_empty() || claimant.accepts_other_plans {
                record.plan = Some(claimant.plan.clone());
            }
            before
        };
        Ok(splits.iter().map(take).collect())
    }

    fn fence(&self, sink: &SinkId, owner: &str) -> Result<(), StoreError> {
        let owners = self.owners(sink)?;
        let mut content = self.content.lock();
        content.fenced.retain(|(of, other)| of != sink || owners.contains(other));
        content.fenced.insert((sink.clone(), owner.to_owned()));
        Ok(())
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<String>, StoreError> {
        let content = self.content.lock();
        Ok(content.records.iter().filter(|((of, _), _)| of == sink).flat_map(|(_, record)| record.owners.clone()).collect())
    }

    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError> {
        let mut content = self.content.lock();
        for (split, epoch) in splits {
            if let Some(record) = content.records.get_mut(&(sink.clone(), split.clone()))
                && record.epoch == *epoch
            {
                record.owners = owner.iter().map(|owner| (*owner).to_owned()).collect();
            }
        }
        Ok(())
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        steps.iter().map(|(sink, commit)| self.commit_one(sink, commit)).collect()
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError> {
        let content = self.content.lock();
        let of_sink = content.staged.iter().filter(|((of, _), _)| of == sink);
        Ok(of_sink.map(|((_, id), detail)| Staged { id: id.clone(), detail: detail.clone() }).collect())
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        self.content.lock().staged.retain(|(of, id), _| of != sink || !ids.contains(id));
        Ok(())
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let content = self.content.lock();
        let of_sink = content.records.iter().filter(|((of, _), _)| of == sink);
        Ok(of_sink.map(|((_, split), record)| (split.clone(), record.clone())).collect())
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let sinks: BTreeSet<SinkId> = self.content.lock().records.keys().map(|(sink, _)| sink.clone()).collect();
        Ok(sinks.into_iter().collect())
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        let is_over = |record: &CommitRecord| record.finished.is_some() && record.owners.is_empty() && record.ahead.is_empty();
        self.content.lock().records.retain(|(of, split), record| of != sink || !splits.contains(split) || !is_over(record));
        Ok(())
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.content.lock().plans.keys().cloned().collect())
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        Ok(self.content.lock().plans.get(fingerprint).cloned())
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.content.lock().plans.insert(plan.fingerprint.clone(), plan.text.clone());
        Ok(())
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        self.content.lock().plans.retain(|fingerprint, _| !fingerprints.contains(fingerprint));
        Ok(())
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.content.lock().notes.get(key).cloned())
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.content.lock().notes.insert(key.into(), value.into());
        Ok(())
    }
}

#[test]
fn the_store_of_these_tests_does_what_every_store_does() {
    let stores: Mutex<HashMap<String, Memory>> = Mutex::default();
    conformance::check(&|pipeline| Box::new(stores.lock().entry(pipeline.into()).or_default().clone()));
}

// ---- the world ------------------------------------------------------------------------------------------------------------------------

/// A split's records in order: the position of each, and the lane that it belongs to unless it is filtered out.
type Input = Vec<(Position, Option<u8>)>;

#[derive(Clone, Debug)]
struct File {
    owner: String,
    machine: usize,
    lane: LaneId,
    records: Vec<(usize, Position)>,
    visible: bool,
}

/// A process that reads splits and writes files.
struct Instance {
    owner: String,
    committer: Committer,
    abandoned: Arc<AtomicBool>,
    /// The splits it believes to hold, each with how many records of it were read.
    read: BTreeMap<usize, usize>,
    /// The files of each lane that are not committed yet, oldest first; what is read goes to the last one, unless that is rolled.
    lanes: BTreeMap<LaneId, VecDeque<LaneFile>>,
    /// Committed and not yet published.
    to_publish: Vec<String>,
    /// Owners whose hidden files it is about to remove.
    dead: HashSet<String>,
    live_staged: HashSet<String>,
}

struct LaneFile {
    file: String,
    upto: BTreeMap<usize, Position>,
    rolled: bool,
}

struct World {
    inputs: Vec<Input>,
    store: Memory,
    /// Where each split was begun.
    starts: BTreeMap<usize, Position>,
    files: BTreeMap<String, File>,
    instances: Vec<Option<Instance>>,
    made: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Take { by: usize, splits: u8, start: Position },
    Read { by: usize, split: usize, records: usize },
    Roll { by: usize, lanes: u8 },
    Commit { by: usize, lanes: u8, files: usize, fates: Vec<Fate>, leave: bool },
    Idle { by: usize, fates: Vec<Fate> },
    Publish { by: usize, count: usize },
    Release { by: usize, splits: u8 },
    LookForDead { by: usize },
    RemoveDead { by: usize },
    Crash { by: usize },
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
    fn new(inputs: Vec<Input>) -> World {
        let (store, starts, files) = Default::default();
        World { inputs, store, starts, files, instances: (0..3).map(|_| None).collect(), made: 0 }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Take { by, splits, start } => self.take(*by, chosen(*splits, self.inputs.len()).collect(), *start),
            Step::Read { by, split, records } => self.read(*by, split % self.inputs.len(), *records),
            Step::Roll { by, lanes } => self.roll(*by, *lanes),
            Step::Commit { by, lanes, files, fates, leave } => self.commit(*by, *lanes, *files, fates, *leave),
            Step::Idle { by, fates } => self.idle(*by, fates),
            Step::Publish { by, count } => self.publish(*by, *count),
            Step::Release { by, splits } => self.release(*by, *splits),
            Step::LookForDead { by } => self.look_for_dead(*by),
            Step::RemoveDead { by } => self.remove_dead(*by),
            // Nothing of it is left but its files.
            Step::Crash { by } => self.instances[*by] = None,
        }
    }

    /// Takes splits over from whoever has them, who does not learn of it. `start` is what "the latest" means at the moment.
    fn take(&mut self, by: usize, splits: Vec<usize>, start: Position) {
        if self.instances[by].is_none() {
            let owner = self.name("owner");
            let abandoned = Arc::new(AtomicBool::new(false));
            let claimant = Claimant { owner: owner.clone(), plan: "p".into(), accepts_other_plans: false };
            let committer = Committer::new(sink(), Arc::new(self.store.clone()), claimant, Positions::InStore, abandoned.clone());
            let (read, lanes, to_publish) = Default::default();
            let (dead, live_staged) = Default::default();
            self.instances[by] = Some(Instance { owner, committer, abandoned, read, lanes, to_publish, dead, live_staged });
        }
        let Some(instance) = &mut self.instances[by] else { return };
        let fresh: Vec<usize> = splits.into_iter().filter(|split| !instance.read.contains_key(split)).collect();
        let ids: Vec<SplitId> = fresh.iter().map(|split| split_id(*split)).collect();
        let records = instance.committer.take(&ids).unwrap();
        for (split, record) in fresh.iter().zip(records) {
            let from = record.low.unwrap_or(start);
            self.starts.entry(*split).or_insert(from);
            instance.committer.begin(vec![Begin { split: split_id(*split), record, start, resume: None }]).unwrap();
            instance.read.insert(*split, self.inputs[*split].partition_point(|(position, _)| *position < from));
        }
        // What is committed is published by whoever comes first and can see it.
        for entry in self.store.staged(&sink()).unwrap() {
            if entry.detail == machine(by).to_string() {
                show(&mut self.files, &entry.id);
                instance.committer.published([entry.id]);
            }
        }
    }

    fn read(&mut self, by: usize, split: usize, count: usize) {
        let Some(instance) = &mut self.instances[by] else { return };
        let Some(&from) = instance.read.get(&split) else { return };
        let unit = &self.inputs[split][from..(from + count).min(self.inputs[split].len())];
        let Some((last, _)) = unit.last() else { return };
        let id = split_id(split);
        let mut ledger = instance.committer.ledger();
        for (position, lane) in unit.iter().filter_map(|(position, lane)| Some((*position, (*lane)?))) {
            let lane = LaneId::from(format!("lane{lane}"));
            if position < ledger.already_held(&id, &lane) {
                continue;
            }
            ledger.dispatch(&id, &lane, position, position);
            let files = instance.lanes.entry(lane.clone()).or_default();
            if files.back().is_none_or(|last| last.rolled) {
                self.made += 1;
                let file = format!("file{}", self.made);
                let (owner, machine) = (instance.owner.clone(), machine(by));
                self.files.insert(file.clone(), File { owner, machine, lane, records: vec![], visible: false });
                files.push_back(LaneFile { file, upto: BTreeMap::new(), rolled: false });
            }
            let Some(open) = files.back_mut() else { continue };
            open.upto.insert(split, position + 1);
            // Somebody may have removed the file already, if we were fenced and do not know it yet.
            if let Some(file) = self.files.get_mut(&open.file) {
                file.records.push((split, position));
            }
        }
        ledger.advance(&id, last + 1, None);
        drop(ledger);
        instance.read.insert(split, from + unit.len());
    }

    /// What comes from now on goes to another file.
    fn roll(&mut self, by: usize, lanes: u8) {
        let Some(instance) = &mut self.instances[by] else { return };
        for lane in chosen(lanes, instance.lanes.len()).filter_map(|at| instance.lanes.keys().nth(at).cloned()).collect::<Vec<_>>() {
            if let Some(open) = instance.lanes.get_mut(&lane).and_then(VecDeque::back_mut) {
                open.rolled = true;
            }
        }
    }

    /// Commits up to so many files of each lane, oldest first.
    fn commit(&mut self, by: usize, lanes: u8, files: usize, fates: &[Fate], leave: bool) {
        let Some(instance) = &mut self.instances[by] else { return };
        let open: Vec<LaneId> = instance.lanes.keys().cloned().collect();
        let mut commits = Vec::new();
        let mut committed = Vec::new();
        for lane in chosen(lanes, open.len()).map(|at| open[at].clone()) {
            let Some(of_lane) = instance.lanes.get_mut(&lane) else { continue };
            for closed in of_lane.drain(..files.min(of_lane.len())) {
                let splits = closed.upto.iter().map(|(split, upto)| (split_id(*split), *upto)).collect();
                commits.push(LaneCommit { lane: lane.clone(), splits });
                committed.push(closed.file);
            }
        }
        if commits.is_empty() {
            return;
        }
        instance.lanes.retain(|_, files| !files.is_empty());
        let files = committed;
        let staged = files.iter().map(|file| Staged { id: file.clone(), detail: machine(by).to_string() }).collect();
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
        let Some(instance) = &self.instances[by] else { return };
        instance.abandoned.store(false, Ordering::Relaxed);
        self.store.fates.lock().clone_from(&fates.to_vec());
        let outcome = instance.committer.commit_idle();
        self.store.fates.lock().clear();
        if let Err(abandon) = outcome {
            self.give_up(by, &abandon);
        }
    }

    /// A fenced instance throws its lanes away and starts anew; one that is stopped leaves its files to others.
    fn give_up(&mut self, by: usize, abandon: &Abandon) {
        let Some(instance) = self.instances[by].take() else { return };
        match abandon {
            Abandon::Fatal(_) | Abandon::OtherPlan { .. } => panic!("{abandon}"),
            Abandon::Stopped => {}
            Abandon::Fenced(_) => {
                // A commit whose answer was lost may have been applied: what is staged now is not ours to remove.
                let staged: HashSet<String> = self.store.staged(&sink()).unwrap().into_iter().map(|entry| entry.id).collect();
                self.files.retain(|id, file| file.visible || file.owner != instance.owner || staged.contains(id));
            }
        }
    }

    fn publish(&mut self, by: usize, count: usize) {
        let Some(instance) = &mut self.instances[by] else { return };
        let count = count.min(instance.to_publish.len());
        for id in instance.to_publish.drain(..count) {
            show(&mut self.files, &id);
            instance.committer.published([id]);
        }
    }

    /// Gives splits back as a graceful stop or a rebalance does.
    fn release(&mut self, by: usize, splits: u8) {
        self.commit(by, u8::MAX, usize::MAX, &[], false);
        self.publish(by, usize::MAX);
        let Some(instance) = &mut self.instances[by] else { return };
        let held: Vec<usize> = chosen(splits, self.inputs.len()).filter(|split| instance.read.contains_key(split)).collect();
        let ids: Vec<SplitId> = held.iter().map(|split| split_id(*split)).collect();
        match instance.committer.release(&ids) {
            Ok(()) => instance.read.retain(|split, _| !held.contains(split)),
            Err(abandon) => self.give_up(by, &abandon),
        }
    }

    /// The files of an instance that is gone are not locked any more. It is fenced first and what is staged is read second: the other way
    /// round a commit of it could be applied in between, and leave something staged that is not known here.
    fn look_for_dead(&mut self, by: usize) {
        let alive: HashSet<String> = self.instances.iter().flatten().map(|instance| instance.owner.clone()).collect();
        let Some(instance) = &mut self.instances[by] else { return };
        let of_machine = self.files.values().filter(|file| file.machine == machine(by)).map(|file| file.owner.clone());
        instance.dead = of_machine.filter(|owner| !alive.contains(owner)).collect();
        instance.dead.iter().for_each(|owner| instance.committer.fence(owner).unwrap());
        instance.live_staged = self.store.staged(&sink()).unwrap().into_iter().map(|entry| entry.id).collect();
    }

    fn remove_dead(&mut self, by: usize) {
        let Some(instance) = &mut self.instances[by] else { return };
        let dead = |file: &File| file.machine == machine(by) && instance.dead.contains(&file.owner);
        self.files.retain(|id, file| file.visible || !dead(file) || instance.live_staged.contains(id));
    }

    /// The first instance is left; it takes everything, reads to the end and stops gracefully. Then the other machine is started once more,
    /// where what others left can only be published and cleared away.
    fn finish(&mut self) {
        for by in 1..self.instances.len() {
            self.instances[by] = None;
        }
        let all: Vec<usize> = (0..self.inputs.len()).collect();
        // What it believes to hold it may have lost long ago: then it notices now, and starts anew.
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

    fn check(&self) {
        let hidden: Vec<_> = self.files.iter().filter(|(_, file)| !file.visible).collect();
        assert!(hidden.is_empty(), "hidden files are left: {hidden:?}");
        assert_eq!(self.store.staged(&sink()).unwrap(), [], "something is left in the store");

        let mut seen: BTreeMap<(LaneId, usize), Vec<Vec<Position>>> = BTreeMap::new();
        for file in self.files.values() {
            let mut of_split: BTreeMap<usize, Vec<Position>> = BTreeMap::new();
            for (split, position) in &file.records {
                of_split.entry(*split).or_default().push(*position);
            }
            for (split, positions) in of_split {
                seen.entry((file.lane.clone(), split)).or_default().push(positions);
            }
        }
        let mut expected: BTreeMap<(LaneId, usize), Vec<Position>> = BTreeMap::new();
        for (split, input) in self.inputs.iter().enumerate() {
            let from = self.starts.get(&split).copied().unwrap_or(0);
            let begun = input.iter().filter(|(position, _)| *position >= from);
            for (position, lane) in begun.filter_map(|(position, lane)| Some((*position, (*lane)?))) {
                expected.entry((LaneId::from(format!("lane{lane}")), split)).or_default().push(position);
            }
        }
        // Files in the order of their first position, laid end to end, are the split's records of that lane: none is missing, none is
        // there twice, and no file's range reaches into another's.
        let seen: BTreeMap<_, Vec<Position>> = seen
            .into_iter()
            .map(|(key, mut files)| {
                files.sort_by_key(|positions| positions[0]);
                (key, files.concat())
            })
            .collect();
        assert_eq!(seen, expected);

        for (split, record) in self.store.records(&sink()).unwrap() {
            assert!(record.ahead.is_empty(), "a graceful stop leaves nothing ahead in {split}: {record:?}");
            assert!(record.owners.is_empty());
        }
    }
}

/// Publishing can be repeated, and comes too late for a file that somebody else has published already.
fn show(files: &mut BTreeMap<String, File>, id: &str) {
    files.get_mut(id).unwrap_or_else(|| panic!("{id} is committed, and it was removed")).visible = true;
}

// ---- by hand --------------------------------------------------------------------------------------------------------------------------

/// What chance seldom finds, each with the mistake that it would show.
#[test]
fn the_rare_cases() {
    use Step::{Commit, Crash, Idle, LookForDead, Publish, Read, RemoveDead, Roll, Take};
    let take = |by, splits| Take { by, splits, start: 0 };
    let read = |by, split, records| Read { by, split, records };
    let commit = |by, files, fates: &[Fate], leave| Commit { by, lanes: u8::MAX, files, fates: fates.to_vec(), leave };
    let roll = |by| Roll { by, lanes: u8::MAX };
    let idle = |by| Idle { by, fates: vec![] };
    let publish = |by| Publish { by, count: 9 };
    let one_lane: Vec<Input> = vec![(0..12).map(|position| (position, Some(0))).collect()];
    let two_splits: Vec<Input> = vec![one_lane[0].clone(), one_lane[0].clone()];
    let filtered: Vec<Input> = vec![vec![(0, Some(0)), (1, None), (2, Some(1)), (3, None)]];
    let cases: Vec<(&str, &[Input], Vec<Step>)> = vec![
        (
            "what waits behind a committed file holds the low position back",
            &one_lane,
            vec![take(0, 1), read(0, 0, 3), roll(0), read(0, 0, 3), commit(0, 1, &[], false), idle(0), publish(0), Crash { by: 0 }],
        ),
        (
            "the same with a third file",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 1),
                roll(0),
                read(0, 0, 4),
                roll(0),
                read(0, 0, 4),
                commit(0, 1, &[], false),
                idle(0),
                Crash { by: 0 },
                take(1, 1),
                read(1, 0, 2),
                commit(1, 1, &[], false),
            ],
        ),
        (
            "a committed file of a dead owner stays, though nobody here has published it",
            &two_splits,
            vec![
                take(1, 2),
                take(0, 1),
                read(0, 0, 5),
                commit(0, 1, &[], false),
                Crash { by: 0 },
                take(2, 1),
                LookForDead { by: 1 },
                RemoveDead { by: 1 },
            ],
        ),
        (
            "a fenced instance leaves alone what it committed without learning of it",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 5),
                commit(0, 1, &[Fate::AnswerLost], true),
                take(2, 1),
                take(0, 1),
                read(0, 0, 5),
                take(2, 1),
                commit(0, 1, &[], false),
            ],
        ),
        (
            "an answer lost between others is recognised, and the next step follows it",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 2),
                commit(0, 1, &[Fate::Unheard, Fate::AnswerLost, Fate::Unheard], false),
                read(0, 0, 2),
                commit(0, 1, &[Fate::AnswerLost], false),
            ],
        ),
        (
            "a lane of two splits is lost as a whole when one of them is",
            &two_splits,
            vec![take(0, 3), read(0, 0, 3), read(0, 1, 3), take(1, 1), commit(0, 1, &[], false), take(0, 2), read(1, 0, 9)],
        ),
        (
            "filtered records move the low position, and not past those that wait",
            &filtered,
            vec![
                take(0, 1),
                read(0, 0, 2),
                idle(0),
                read(0, 0, 2),
                idle(0),
                Crash { by: 0 },
                take(1, 1),
                read(1, 0, 4),
                idle(1),
                Crash { by: 1 },
            ],
        ),
        (
            "where a split begins is decided once",
            &one_lane,
            vec![Take { by: 0, splits: 1, start: 3 }, read(0, 0, 2), Crash { by: 0 }, Take { by: 0, splits: 1, start: 8 }],
        ),
    ];
    for (name, inputs, steps) in cases {
        println!("{name}");
        let mut world = World::new(inputs.to_vec());
        steps.iter().for_each(|step| world.act(step));
        world.finish();
        world.check();
    }
}

// ---- chance ---------------------------------------------------------------------------------------------------------------------------

fn input() -> impl Strategy<Value = Input> {
    let record = (1u64..4, proptest::option::weighted(0.7, 0u8..4));
    proptest::collection::vec(record, 0..30).prop_map(|records| {
        let mut next = 0;
        let place = |(gap, lane)| {
            next += gap;
            (next - 1, lane)
        };
        records.into_iter().map(place).collect()
    })
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![Just(Fate::Answered), Just(Fate::Unheard), Just(Fate::AnswerLost)];
    prop_oneof![3 => Just(Vec::new()), 2 => proptest::collection::vec(fate, 1..4)]
}

fn step() -> impl Strategy<Value = Step> {
    // Most of it happens to one instance, so that what it began has a chance to go on.
    let by = || prop_oneof![5 => Just(0usize), 2 => Just(1), 1 => Just(2)];
    prop_oneof![
        3 => (by(), any::<u8>(), prop_oneof![3 => Just(0), 1 => 0u64..20]).prop_map(|(by, splits, start)| Step::Take { by, splits, start }),
        9 => (by(), 0usize..4, 1usize..9).prop_map(|(by, split, records)| Step::Read { by, split, records }),
        3 => (by(), any::<u8>()).prop_map(|(by, lanes)| Step::Roll { by, lanes }),
        6 => (by(), any::<u8>(), 1usize..3, fates(), proptest::bool::weighted(0.2))
            .prop_map(|(by, lanes, files, fates, leave)| Step::Commit { by, lanes, files, fates, leave }),
        3 => (by(), fates()).prop_map(|(by, fates)| Step::Idle { by, fates }),
        3 => (by(), 1usize..4).prop_map(|(by, count)| Step::Publish { by, count }),
        1 => (by(), any::<u8>()).prop_map(|(by, splits)| Step::Release { by, splits }),
        1 => by().prop_map(|by| Step::LookForDead { by }),
        1 => by().prop_map(|by| Step::RemoveDead { by }),
        1 => by().prop_map(|by| Step::Crash { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_seen_once_and_in_order(
        inputs in proptest::collection::vec(input(), 1..4),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(inputs);
        for step in &steps {
            world.act(step);
        }
        world.finish();
        world.check();
    }
}
