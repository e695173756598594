//! Messages between the instances and the state store.
//!
//! A call is a message that is applied once, twice or never, at once or much later, perhaps after
//! its sender has given up or died. The answer arrives, arrives late, or is lost. An instance that
//! gets none finds the store unavailable, as after a timeout.

use pseidon_delivery::Commit;

use super::World;
use super::requests::{StoreAnswer, StoreRequest};
use super::source::generation_of;
use crate::names::{ProcessId, split_id};
use crate::scenario::Kind;

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

/// What has become of a call when it was sent.
pub(crate) enum SentCall {
    /// It is answered, or its caller times out at once.
    Ended(Result<StoreAnswer, ()>),
    /// The caller waits for the answer to the call with this number.
    Waits(u64),
}

impl World {
    /// Sends a request to the store.
    pub(crate) fn send(&mut self, sender: ProcessId, request: StoreRequest) -> SentCall {
        match self.fate(&request) {
            Fate::Prompt => {
                let answer = self.apply(sender, &request);
                self.note(|| format!("{sender}  {} -> {}", request.describe(), answer.describe()));
                SentCall::Ended(Ok(answer))
            }
            Fate::Unheard => {
                self.note(|| format!("{sender}  {} -> lost on its way", request.describe()));
                SentCall::Ended(Err(()))
            }
            Fate::AnswerLost => {
                let answer = self.apply(sender, &request);
                self.note(|| {
                    format!(
                        "{sender}  {} -> {}, but the answer is lost",
                        request.describe(),
                        answer.describe()
                    )
                });
                SentCall::Ended(Err(()))
            }
            Fate::Delayed => self.put_on_its_way(sender, request, Some(Err(()))),
            Fate::Slow => self.put_on_its_way(sender, request, None),
        }
    }

    fn put_on_its_way(
        &mut self,
        sender: ProcessId,
        request: StoreRequest,
        answer: Option<Result<StoreAnswer, ()>>,
    ) -> SentCall {
        self.network.calls += 1;
        let call = self.network.calls;
        self.note(|| format!("{sender}  {} -> on its way", request.describe()));
        self.network.messages.push(Message {
            call,
            sender,
            request,
        });
        self.network.waiting.push(WaitingCall {
            call,
            caller: sender,
            answer,
        });
        SentCall::Waits(call)
    }

    /// The answer to a call, which then no longer waits; `None` if there is none yet.
    pub(crate) fn take_answer(&mut self, call: u64) -> Option<Result<StoreAnswer, ()>> {
        let waiting = &mut self.network.waiting;
        let Some(at) = waiting.iter().position(|waiting| waiting.call == call) else {
            return Some(Err(()));
        };
        if waiting[at].answer.is_some() {
            waiting.swap_remove(at).answer
        } else {
            None
        }
    }

    fn fate(&mut self, request: &StoreRequest) -> Fate {
        if self.is_calm {
            return Fate::Prompt;
        }
        let is_take = matches!(request, StoreRequest::Take { .. });
        if is_take && self.has_slow_takes() && self.rng.bool() {
            return Fate::Slow;
        }
        match self.rng.u32(0..100) {
            0..4 => Fate::Unheard,
            4..9 => Fate::AnswerLost,
            9..13 if self.kinds.has(Kind::LateMessages) => Fate::Delayed,
            13..25 if self.kinds.has(Kind::LateMessages) => Fate::Slow,
            _ => Fate::Prompt,
        }
    }

    fn apply(&mut self, sender: ProcessId, request: &StoreRequest) -> StoreAnswer {
        let now = self.time.wall;
        if let Some(answer) = self.apply_without_safeguard(sender, request, now) {
            return answer;
        }
        let answer = request.apply(&mut self.store, now);
        if let (StoreRequest::Commit { commit, .. }, StoreAnswer::Committed(Ok(()))) =
            (request, &answer)
        {
            self.note_begun(commit);
        }
        answer
    }

    /// Remembers where splits are begun.
    pub(super) fn note_begun(&mut self, commit: &Commit) {
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
                let sender = self.network.messages[at].sender;
                let answer = self.apply(sender, &request);
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
                let answer = self.apply(sender, &request);
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
