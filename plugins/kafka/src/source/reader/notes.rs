//! With `:start :latest`: asks the state of each run for its note about first subscriptions, and
//! stores what is new ([`FirstStarts`](super::super::first_start::FirstStarts)).
//!
//! That needs the state's answer and the lookup that comes before a subscription, and waits for
//! neither. Partitions of the run that arrive meanwhile wait for it.

use std::sync::Arc;

use pseidon_plugin::source::{Pending, Stopped};

use super::super::outlet::Outlet;
use super::super::start::StartOption;
use super::Reader;

/// A note that the state was asked for.
pub(super) struct PendingNote {
    outlet: Arc<Outlet>,
    /// The names and patterns that the run reads.
    subscription: Vec<String>,
    pending: Pending<Option<String>>,
    /// The answer, once it has arrived.
    answer: Option<Option<String>>,
}

impl PendingNote {
    /// Whether the answer has arrived.
    fn poll(&mut self) -> Result<bool, Stopped> {
        if self.answer.is_none() {
            self.answer = self.pending.poll()?;
        }
        match self.outlet.outbox.handle().is_stopped() {
            true => Err(Stopped),
            false => Ok(self.answer.is_some()),
        }
    }
}

impl Reader<'_> {
    /// Asks the state of a run that reads these names and patterns.
    pub(super) fn ask_for_note(&mut self, outlet: &Arc<Outlet>, subscription: &[String]) {
        if self.source.start != StartOption::Latest {
            return;
        }
        // A run that has stopped reads nothing.
        if let Ok(pending) = outlet.outbox.note() {
            self.notes.push(PendingNote {
                outlet: outlet.clone(),
                subscription: subscription.to_vec(),
                pending,
                answer: None,
            });
        }
    }

    /// Handles the notes that have arrived, of runs whose topics were looked up. The engine handles
    /// events in order, so what is new is stored before a partition is begun.
    pub(super) fn advance_notes(&mut self) {
        for mut asked in std::mem::take(&mut self.notes) {
            let is_due = match asked.poll() {
                Ok(has_arrived) => {
                    has_arrived && self.membership.looked_up.have(&asked.subscription)
                }
                Err(Stopped) => continue,
            };
            if !is_due {
                self.notes.push(asked);
                continue;
            }
            let new = asked.outlet.first_starts.lock().note(
                asked.answer.flatten().as_deref(),
                &asked.subscription,
                &self.membership.looked_up.partitions,
            );
            if let Some(new) = new {
                let _ = asked.outlet.outbox.set_note(new);
            }
        }
    }

    /// Whether partitions of the run wait for its note.
    pub(super) fn waits_for_note(&self, outlet: &Outlet) -> bool {
        self.source.start == StartOption::Latest && !outlet.first_starts.lock().are_known()
    }
}
