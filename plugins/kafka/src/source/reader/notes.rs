//! With `:start :latest`: asks the state of each run for its note about first subscriptions, and
//! stores what is new ([`FirstSubscriptions`]).
//!
//! The state is asked when the run's topics have been looked up, since another instance may store a
//! note meanwhile. The consumer's thread waits for neither answer; the run's partitions wait for
//! both.

use std::sync::Arc;

use pseidon_plugin::source::{Pending, Stopped};

use super::super::first_subscriptions::FirstSubscriptions;
use super::super::outlet::Outlet;
use super::super::start::StartOption;
use super::Reader;

/// The note of a run, until it is known and stored.
pub(super) struct PendingNote {
    outlet: Arc<Outlet>,
    /// The names and patterns that the run reads.
    subscription: Vec<String>,
    step: Step,
}

/// What a note waits for.
enum Step {
    /// That the topics are looked up.
    Lookup,
    /// The state's answer, to a question that was asked in this generation of the lookup.
    Answer(Pending<Option<String>>, u64),
    /// That the new note is stored.
    Storage(Pending<()>),
}

impl PendingNote {
    /// Whether it waits for the state.
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self.step, Step::Lookup)
    }
}

impl Reader<'_> {
    /// Requests the note of a run that reads these names and patterns.
    pub(super) fn request_note(&mut self, outlet: &Arc<Outlet>, subscription: &[String]) {
        if self.source.start == StartOption::Latest {
            self.notes.push(PendingNote {
                outlet: outlet.clone(),
                subscription: subscription.to_vec(),
                step: Step::Lookup,
            });
        }
    }

    /// Advances each note by a step. Drops those of runs that have stopped.
    pub(super) fn advance_notes(&mut self) {
        for note in std::mem::take(&mut self.notes) {
            if !note.outlet.outbox.handle().is_stopped() {
                let left = self.advance_note(note);
                self.notes.extend(left.ok().flatten());
            }
        }
    }

    /// Returns the note if it still waits.
    fn advance_note(&self, note: PendingNote) -> Result<Option<PendingNote>, Stopped> {
        let looked_up = &self.membership.looked_up;
        let outbox = &note.outlet.outbox;
        let next = match &note.step {
            Step::Lookup if looked_up.have(&note.subscription) => {
                Step::Answer(outbox.note()?, looked_up.generation)
            }
            Step::Answer(pending, generation) => match pending.poll()? {
                None => return Ok(Some(note)),
                // What was looked up before the question may be gone, or newer than the answer.
                Some(_) if looked_up.generation != *generation => Step::Lookup,
                Some(answer) => {
                    let mut first = FirstSubscriptions::of_note(answer.as_deref());
                    let is_new = first.add(&note.subscription, &looked_up.partitions);
                    let printed = first.print();
                    *note.outlet.first_subscriptions.lock() = Some(first);
                    if !is_new {
                        return Ok(None);
                    }
                    // The engine handles events in order, so it is stored before a partition is begun.
                    Step::Storage(outbox.set_note(printed)?)
                }
            },
            Step::Storage(pending) if pending.poll()?.is_some() => return Ok(None),
            Step::Lookup | Step::Storage(_) => return Ok(Some(note)),
        };
        Ok(Some(PendingNote { step: next, ..note }))
    }

    /// Whether partitions of the run wait for its note.
    pub(super) fn waits_for_note(&self, outlet: &Outlet) -> bool {
        self.source.start == StartOption::Latest && outlet.first_subscriptions.lock().is_none()
    }
}
