//! Messages between the instances and the state store.
//!
//! A call is a message that is applied once, twice or never, at once or much later, perhaps after
//! its sender has given up or died. The answer arrives, arrives late, or is lost. An instance that
//! gets none finds the store unavailable, as after a timeout.

use std::collections::BTreeSet;
use std::time::Duration;

use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, SinkId, SplitCommit, SplitId,
    StagedEntry, StateStore, StoreError, StoredPlan,
};

use crate::process::ProcessId;
use crate::scenario::{Kind, Mutation};
use crate::source::generation_of;
use crate::store::StoreContent;
use crate::world::{SharedWorld, SinkKind, World, split_id};

/// A request to the store.
#[derive(Clone, Debug)]
pub(crate) enum StoreRequest {
    Take {
        sink: SinkId,
        splits: Vec<SplitId>,
        claimant: Claimant,
    },
    SetOwner {
        sink: SinkId,
        splits: Vec<(SplitId, u64)>,
        owner: Option<String>,
    },
    Fence {
        sink: SinkId,
        owner: String,
    },
    Owners {
        sink: SinkId,
    },
    Commit {
        sink: SinkId,
        commit: Commit,
    },
    Staged {
        sink: SinkId,
    },
    Claim {
        owner: String,
        lease: Duration,
        held: Vec<SplitId>,
        wanted: Vec<SplitId>,
        total: usize,
    },
    Unclaim {
        splits: Vec<SplitId>,
        owner: String,
        leaves: bool,
    },
}

/// The answer of the store.
#[derive(Debug)]
pub(crate) enum StoreAnswer {
    Done,
    Taken(Result<Vec<CommitRecord>, CommitError>),
    Owners(BTreeSet<String>),
    Committed(Result<(), CommitError>),
    Staged(Vec<StagedEntry>),
    Claimed(Claims),
}

impl StoreRequest {
    /// Applies the request when the store's clock shows `now`.
    fn apply(&self, content: &mut StoreContent, now: u64) -> StoreAnswer {
        match self {
            StoreRequest::Take {
                sink,
                splits,
                claimant,
            } => StoreAnswer::Taken(content.take(sink, splits, claimant)),
            StoreRequest::SetOwner {
                sink,
                splits,
                owner,
            } => {
                content.set_owner(sink, splits, owner.as_deref());
                StoreAnswer::Done
            }
            StoreRequest::Fence { sink, owner } => {
                content.fence(sink, owner);
                StoreAnswer::Done
            }
            StoreRequest::Owners { sink } => StoreAnswer::Owners(content.owners(sink)),
            StoreRequest::Commit { sink, commit } => {
                StoreAnswer::Committed(content.commit(sink, commit))
            }
            StoreRequest::Staged { sink } => StoreAnswer::Staged(content.staged(sink)),
            StoreRequest::Claim {
                owner,
                lease,
                held,
                wanted,
                total,
            } => StoreAnswer::Claimed(content.shared().claim(
                &ClaimRound {
                    owner,
                    lease: *lease,
                    held,
                    wanted,
                    total: *total,
                },
                now,
            )),
            StoreRequest::Unclaim {
                splits,
                owner,
                leaves,
            } => {
                content.shared().unclaim(splits, owner, *leaves);
                StoreAnswer::Done
            }
        }
    }

    /// One line for the trace.
    fn describe(&self) -> String {
        match self {
            StoreRequest::Take {
                sink,
                splits,
                claimant,
            } => format!(
                "take {sink} {splits:?} for {} with {}",
                claimant.owner, claimant.plan
            ),
            StoreRequest::SetOwner {
                sink,
                splits,
                owner,
            } => format!(
                "owner {sink} {splits:?} = {}",
                owner.as_deref().unwrap_or("none")
            ),
            StoreRequest::Fence { sink, owner } => format!("fence {sink} {owner}"),
            StoreRequest::Owners { sink } => format!("owners {sink}"),
            StoreRequest::Commit { sink, commit } => {
                let steps: Vec<String> = commit.splits.iter().map(describe_step).collect();
                let staged: Vec<&str> = commit
                    .staged
                    .iter()
                    .map(|entry| entry.id.as_str())
                    .collect();
                format!(
                    "commit {sink} [{}] staged {staged:?} published {:?}",
                    steps.join(", "),
                    commit.published
                )
            }
            StoreRequest::Staged { sink } => format!("staged {sink}"),
            StoreRequest::Claim {
                owner,
                held,
                wanted,
                ..
            } => format!("claim for {owner}: holds {held:?}, wants {wanted:?}"),
            StoreRequest::Unclaim {
                splits,
                owner,
                leaves,
            } => {
                format!(
                    "unclaim {splits:?} of {owner}{}",
                    if *leaves { ", which leaves" } else { "" }
                )
            }
        }
    }
}

impl StoreAnswer {
    /// One line for the trace.
    fn describe(&self) -> String {
        match self {
            StoreAnswer::Done => "done".into(),
            StoreAnswer::Taken(Ok(records)) => records
                .iter()
                .map(describe_record)
                .collect::<Vec<_>>()
                .join(", "),
            StoreAnswer::Owners(owners) => format!("{owners:?}"),
            StoreAnswer::Committed(Ok(())) => "committed".into(),
            StoreAnswer::Taken(Err(error)) | StoreAnswer::Committed(Err(error)) => {
                error.to_string()
            }
            StoreAnswer::Claimed(claims) => {
                format!(
                    "granted {:?}, lost {:?}, fair share {}",
                    claims.granted, claims.lost, claims.fair_share
                )
            }
            StoreAnswer::Staged(entries) => format!(
                "{:?}",
                entries
                    .iter()
                    .map(|entry| entry.id.as_str())
                    .collect::<Vec<_>>()
            ),
        }
    }
}

fn describe_record(record: &CommitRecord) -> String {
    let mut ahead: Vec<_> = record.ahead.iter().collect();
    ahead.sort();
    let low = record.low.map_or("none".into(), |low| low.to_string());
    let plan = record.plan.as_deref().unwrap_or("no plan");
    format!(
        "epoch {} commit {} low {low} ahead {ahead:?} owners {:?} {plan}",
        record.epoch, record.sequence, record.owners
    )
}

fn describe_step(step: &SplitCommit) -> String {
    let mut ahead = step.ahead.clone();
    ahead.sort();
    format!(
        "{} epoch {} commit {} low {} ahead {ahead:?}",
        step.split, step.epoch, step.sequence, step.low
    )
}

/// A message on its way to the store.
struct Message {
    /// The call that waits for its answer.
    call: u64,
    sender: ProcessId,
    request: StoreRequest,
}

/// The messages in flight.
#[derive(Default)]
pub(crate) struct Network {
    messages: Vec<Message>,
    /// Calls that wait, with the answer once it has arrived. `Err` means that the caller has timed
    /// out.
    waiting: Vec<WaitingCall>,
    calls: u64,
}

struct WaitingCall {
    call: u64,
    caller: ProcessId,
    answer: Option<Result<StoreAnswer, ()>>,
}

/// The fate of a call.
enum Fate {
    /// It is applied and answered at once.
    Prompt,
    /// It is never applied, and not answered.
    Unheard,
    /// It is applied, but not answered.
    AnswerLost,
    /// It is not answered, and applied some time later.
    Delayed,
    /// The caller waits until the message is applied, or gives up before.
    Slow,
}

impl World {
    fn fate(&mut self) -> Fate {
        if self.is_calm {
            return Fate::Prompt;
        }
        match self.rng.u32(0..100) {
            0..4 => Fate::Unheard,
            4..9 => Fate::AnswerLost,
            9..13 if self.kinds.has(Kind::LateMessages) => Fate::Delayed,
            13..25 if self.kinds.has(Kind::LateMessages) => Fate::Slow,
            _ => Fate::Prompt,
        }
    }

    fn apply(&mut self, request: &StoreRequest) -> StoreAnswer {
        let now = self.time.wall;
        match (request, self.mutation) {
            (StoreRequest::Fence { .. }, Some(Mutation::UnfencedOwners)) => {
                return StoreAnswer::Done;
            }
            (StoreRequest::Take { claimant, .. }, Some(Mutation::ForgottenPlans)) => {
                let mut answer = request.apply(&mut self.store, now);
                if let StoreAnswer::Taken(Ok(records)) = &mut answer {
                    records
                        .iter_mut()
                        .for_each(|record| record.plan = Some(claimant.plan.clone()));
                }
                return answer;
            }
            (StoreRequest::Commit { sink, commit }, Some(Mutation::UncheckedTarget))
                if self.holds_positions(sink) =>
            {
                let mut commit = commit.clone();
                for step in commit.splits.iter_mut().filter(|step| step.sequence > 0) {
                    step.low = self.store.record(sink, &step.split).low.unwrap_or_default();
                }
                self.note_begun(&commit);
                return StoreAnswer::Committed(self.store.commit(sink, &commit));
            }
            (StoreRequest::Commit { sink, commit }, Some(Mutation::ForgottenMoves)) => {
                let own = format!("{}/", commit.owner);
                let staged = self
                    .store
                    .staged(sink)
                    .into_iter()
                    .map(|entry| entry.id)
                    .filter(|id| id.starts_with(&own));
                let commit = Commit {
                    published: staged.chain(commit.published.clone()).collect(),
                    ..commit.clone()
                };
                return StoreAnswer::Committed(self.store.commit(sink, &commit));
            }
            (StoreRequest::Commit { sink, commit }, Some(Mutation::TrustedClaims))
                if self.is_shared =>
            {
                let shared = self.store.shared();
                let is_lost =
                    |step: &&SplitCommit| !shared.is_free_for(&commit.owner, &step.split, now);
                if let Some(lost) = commit.splits.iter().find(is_lost) {
                    return StoreAnswer::Committed(Err(CommitError::Fenced(vec![
                        lost.split.clone(),
                    ])));
                }
                let mut commit = commit.clone();
                for step in &mut commit.splits {
                    let record = self.store.record(sink, &step.split);
                    (step.epoch, step.sequence) = (record.epoch, record.sequence);
                }
                return StoreAnswer::Committed(self.store.commit(sink, &commit));
            }
            _ => {}
        }
        let answer = request.apply(&mut self.store, now);
        if let (StoreRequest::Commit { commit, .. }, StoreAnswer::Committed(Ok(()))) =
            (request, &answer)
        {
            self.note_begun(commit);
        }
        answer
    }

    /// Whether the sink's target holds the positions.
    fn holds_positions(&self, sink: &SinkId) -> bool {
        self.sinks.contains(&(sink.clone(), SinkKind::Target))
    }

    /// Remembers where splits are begun.
    fn note_begun(&mut self, commit: &Commit) {
        for step in commit.splits.iter().filter(|step| step.sequence == 0) {
            let partition =
                (0..self.partitions.len()).find(|partition| split_id(*partition) == step.split);
            if let Some(partition) = partition {
                let generation = step.resume.as_ref().map_or(1, generation_of);
                self.partitions[partition]
                    .begun
                    .get_or_insert((generation, step.low));
            }
        }
    }

    /// Loses everything in flight.
    pub(crate) fn drop_messages(&mut self) {
        self.network.messages.clear();
    }

    /// Whether any message is in flight.
    pub(crate) fn has_messages(&self) -> bool {
        !self.network.messages.is_empty()
    }

    /// Whether the process waits for an answer that has not arrived.
    pub(crate) fn waits(&self, process: ProcessId) -> bool {
        self.network
            .waiting
            .iter()
            .any(|waiting| waiting.caller == process && waiting.answer.is_none())
    }

    /// Applies a message, drops it, or applies it and keeps it for another time.
    pub(crate) fn move_a_message(&mut self) {
        if self.network.messages.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.network.messages.len());
        match self.rng.u32(0..10) {
            0 => {
                let message = self.network.messages.remove(at);
                self.note(|| {
                    format!(
                        "net  dropped: {} of {}",
                        message.request.describe(),
                        message.sender
                    )
                });
            }
            1 => {
                let request = self.network.messages[at].request.clone();
                let answer = self.apply(&request);
                self.note(|| {
                    format!(
                        "net  delivered, and once more later: {} -> {}",
                        request.describe(),
                        answer.describe()
                    )
                });
                self.answer(at, answer);
            }
            _ => {
                let request = self.network.messages[at].request.clone();
                let sender = self.network.messages[at].sender;
                let answer = self.apply(&request);
                self.note(|| {
                    format!(
                        "net  delivered late: {} of {sender} -> {}",
                        request.describe(),
                        answer.describe()
                    )
                });
                self.answer(at, answer);
                self.network.messages.remove(at);
            }
        }
    }

    fn answer(&mut self, message: usize, answer: StoreAnswer) {
        let call = self.network.messages[message].call;
        let is_lost = !self.is_calm && self.rng.u32(0..10) == 0;
        if let Some(waiting) = self
            .network
            .waiting
            .iter_mut()
            .find(|waiting| waiting.call == call && waiting.answer.is_none())
        {
            waiting.answer = Some(if is_lost { Err(()) } else { Ok(answer) });
        }
    }

    /// A caller times out.
    pub(crate) fn time_out(&mut self) {
        let unanswered: Vec<usize> = (0..self.network.waiting.len())
            .filter(|at| self.network.waiting[*at].answer.is_none())
            .collect();
        if let Some(at) = self.rng.choice(unanswered) {
            self.network.waiting[at].answer = Some(Err(()));
            let caller = self.network.waiting[at].caller;
            self.note(|| format!("net  {caller} times out"));
        }
    }

    /// Called when the process is dead. Its messages stay in flight.
    pub(crate) fn forget_caller(&mut self, process: ProcessId) {
        self.network
            .waiting
            .retain(|waiting| waiting.caller != process);
    }

    /// Delivers or loses everything in flight.
    pub(crate) fn settle_network(&mut self) {
        while self.has_messages() {
            self.move_a_message();
        }
        for waiting in &mut self.network.waiting {
            waiting.answer.get_or_insert(Err(()));
        }
    }
}

/// A process's connection to the store.
pub(crate) struct Client {
    pub(crate) world: SharedWorld,
    pub(crate) process: ProcessId,
}

impl Client {
    fn call(&self, request: StoreRequest) -> Result<StoreAnswer, StoreError> {
        if self.world.lock().is_dying {
            return Err(unavailable());
        }
        // Other processes may run before the request arrives.
        self.world.maybe_switch();
        let call = {
            let mut world = self.world.lock();
            let fate = world.fate();
            let process = self.process;
            let answer = match fate {
                Fate::Prompt => {
                    let answer = world.apply(&request);
                    world.note(|| {
                        format!("{process}  {} -> {}", request.describe(), answer.describe())
                    });
                    Some(Ok(answer))
                }
                Fate::Unheard => {
                    world.note(|| format!("{process}  {} -> lost on its way", request.describe()));
                    Some(Err(()))
                }
                Fate::AnswerLost => {
                    let answer = world.apply(&request);
                    world.note(|| {
                        format!(
                            "{process}  {} -> {}, but the answer is lost",
                            request.describe(),
                            answer.describe()
                        )
                    });
                    Some(Err(()))
                }
                Fate::Delayed | Fate::Slow => None,
            };
            if let Some(answer) = answer {
                drop(world);
                self.world.maybe_switch();
                return answer.map_err(|()| unavailable());
            }
            world.network.calls += 1;
            let call = world.network.calls;
            world.note(|| format!("{process}  {} -> on its way", request.describe()));
            world.network.messages.push(Message {
                call,
                sender: process,
                request,
            });
            let answer = matches!(fate, Fate::Delayed).then_some(Err(()));
            world.network.waiting.push(WaitingCall {
                call,
                caller: process,
                answer,
            });
            call
        };
        loop {
            self.world.switch_in_step();
            let mut world = self.world.lock();
            let Some(at) = world
                .network
                .waiting
                .iter()
                .position(|waiting| waiting.call == call)
            else {
                return Err(unavailable());
            };
            if world.network.waiting[at].answer.is_some() {
                let answer = world.network.waiting.swap_remove(at).answer;
                return answer.unwrap_or(Err(())).map_err(|()| unavailable());
            }
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("no answer".into())
}

fn unexpected(answer: &StoreAnswer) -> StoreError {
    StoreError::Failed(format!(
        "the simulated store answered another request: {answer:?}"
    ))
}

impl StateStore for Client {
    fn identity(&self) -> Result<String, StoreError> {
        Ok("simulated".into())
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        claimant: &Claimant,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        match self.call(StoreRequest::Take {
            sink: sink.clone(),
            splits: splits.to_vec(),
            claimant: claimant.clone(),
        })? {
            StoreAnswer::Taken(taken) => taken,
            other => Err(unexpected(&other).into()),
        }
    }

    fn set_owner(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        owner: Option<&str>,
    ) -> Result<(), StoreError> {
        self.call(StoreRequest::SetOwner {
            sink: sink.clone(),
            splits: splits.to_vec(),
            owner: owner.map(str::to_owned),
        })
        .map(|_| ())
    }

    fn fence(&self, sink: &SinkId, owner: &str) -> Result<(), StoreError> {
        self.call(StoreRequest::Fence {
            sink: sink.clone(),
            owner: owner.to_owned(),
        })
        .map(|_| ())
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<String>, StoreError> {
        match self.call(StoreRequest::Owners { sink: sink.clone() })? {
            StoreAnswer::Owners(owners) => Ok(owners),
            other => Err(unexpected(&other)),
        }
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let commit = |sink: &SinkId, commit: &Commit| match self.call(StoreRequest::Commit {
            sink: sink.clone(),
            commit: commit.clone(),
        })? {
            StoreAnswer::Committed(outcome) => outcome,
            other => Err(unexpected(&other).into()),
        };
        steps
            .iter()
            .map(|(sink, step)| commit(sink, step))
            .collect()
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        match self.call(StoreRequest::Staged { sink: sink.clone() })? {
            StoreAnswer::Staged(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    fn claim(&self, _: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        let ClaimRound {
            owner,
            lease,
            held,
            wanted,
            total,
        } = *round;
        match self.call(StoreRequest::Claim {
            owner: owner.to_owned(),
            lease,
            held: held.to_vec(),
            wanted: wanted.to_vec(),
            total,
        })? {
            StoreAnswer::Claimed(claims) => Ok(claims),
            other => Err(unexpected(&other)),
        }
    }

    fn unclaim(
        &self,
        _: &str,
        splits: &[SplitId],
        owner: &str,
        leaves: bool,
    ) -> Result<(), StoreError> {
        self.call(StoreRequest::Unclaim {
            splits: splits.to_vec(),
            owner: owner.to_owned(),
            leaves,
        })
        .map(|_| ())
    }

    fn forget(&self, _: &SinkId, _: &[String]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn records(&self, _: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        not_simulated()
    }

    fn forget_splits(&self, _: &SinkId, _: &[SplitId]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        not_simulated()
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        not_simulated()
    }

    fn plan(&self, _: &str) -> Result<Option<String>, StoreError> {
        not_simulated()
    }

    fn add_plan(&self, _: &StoredPlan) -> Result<(), StoreError> {
        not_simulated()
    }

    fn forget_plans(&self, _: &[String]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn note(&self, _: &str) -> Result<Option<String>, StoreError> {
        not_simulated()
    }

    fn set_note(&self, _: &str, _: &str) -> Result<(), StoreError> {
        not_simulated()
    }
}

/// Neither a committer nor a sink makes this call.
fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed(
        "the simulation has no message for this call".into(),
    ))
}
