//! The runs of a consumer: those of a shared one attach and detach while it reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, never};
use pseidon_plugin::source::{SourceExit, Stopped};

use super::super::outlet::{Outlet, Outlets};
use super::Reader;
use crate::native::TopicPartition;

/// A command to the consumer's thread, which applies it between two fetches.
pub(in super::super) enum Command {
    /// Read these topics.
    Subscribe(Vec<String>),
    /// Read a topic for this run, until its handle reports that it has stopped.
    Attach(String, Arc<Outlet>),
}

/// The runs that are attached, and the partitions that wait for a run.
pub(super) struct Runs {
    pub(super) outlets: Outlets,
    commands: Receiver<Command>,
    /// Partitions that the group has assigned while no run is attached for their records.
    unattended: BTreeSet<TopicPartition>,
}

impl Runs {
    pub(super) fn new(outlets: Outlets) -> Runs {
        Runs {
            outlets,
            commands: never(),
            unattended: BTreeSet::new(),
        }
    }

    /// Whether a run has stopped or attached, and that is not handled yet.
    pub(super) fn have_changed(&self) -> bool {
        let is_stopped = |outlet: &Arc<Outlet>| outlet.outbox.handle().is_stopped();
        !self.commands.is_empty()
            || self.outlets.is_stopped()
            || self.outlets.iter().any(is_stopped)
    }

    /// Whether this run is attached for the topic.
    pub(super) fn is_attended_by(&self, topic: &str, outlet: &Arc<Outlet>) -> bool {
        self.outlets
            .outlet_of(topic)
            .is_some_and(|known| Arc::ptr_eq(known, outlet))
    }

    /// Handles a run that accepts no more batches because it has ended. Reading continues for the
    /// other runs, if there can be any.
    pub(super) fn continue_without(&self, _: Stopped) -> Result<(), SourceExit> {
        match self.outlets {
            Outlets::One(_) => Err(SourceExit::Stopped),
            Outlets::ByTopic { .. } => Ok(()),
        }
    }

    /// Keeps partitions until a run is attached for their records.
    pub(super) fn wait_for_run(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.unattended.extend(partitions);
    }

    /// Forgets the partitions without a run that the group took away.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&TopicPartition) -> bool) {
        self.unattended.retain(|at| !is_gone(at));
    }

    /// Removes the partitions for which a run is attached now, unless they are still leaving an
    /// earlier run, and returns them.
    fn take_attended(
        &mut self,
        is_leaving: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<TopicPartition> {
        let is_attended =
            |at: &TopicPartition| self.outlets.outlet_of(&at.topic).is_some() && !is_leaving(at);
        self.unattended
            .extract_if(.., |at| is_attended(at))
            .collect()
    }

    /// Detaches and returns the topic's run, if the consumer is shared and has one for the topic.
    pub(super) fn detach(&mut self, topic: &str) -> Option<Arc<Outlet>> {
        match &mut self.outlets {
            Outlets::One(_) => None,
            Outlets::ByTopic { topics, .. } => topics.remove(topic),
        }
    }

    /// The topics of a shared consumer whose runs have stopped.
    fn stopped_topics(&self) -> Vec<String> {
        let Outlets::ByTopic { topics, .. } = &self.outlets else {
            return Vec::new();
        };
        let stopped = topics
            .iter()
            .filter(|(_, outlet)| outlet.outbox.handle().is_stopped());
        stopped.map(|(topic, _)| topic.clone()).collect()
    }
}

impl Reader<'_> {
    /// Reads for runs that attach and detach, until reading ends.
    pub(in super::super) fn read_for_many(
        &mut self,
        commands: Receiver<Command>,
    ) -> Result<(), SourceExit> {
        self.runs.commands = commands;
        self.read()
    }

    /// Applies the commands since the last call. Of several subscriptions the last one counts, and
    /// all runs that attached are served together.
    pub(super) fn run_commands(&mut self) -> Result<(), SourceExit> {
        let mut subscription = None;
        while let Ok(command) = self.runs.commands.try_recv() {
            match command {
                Command::Subscribe(topics) => subscription = Some(topics),
                Command::Attach(topic, outlet) => self.attach(topic, outlet)?,
            }
        }
        if let Some(topics) = subscription {
            self.subscribe(&topics)?;
        }
        // While the group waits for an answer to a revocation, partitions that are still to be
        // given up may be among them.
        if self.departures.owes_answer() {
            return Ok(());
        }
        let attended = self.runs.take_attended(|at| self.departures.contains(at));
        if attended.is_empty() {
            Ok(())
        } else {
            self.take_over(attended)
        }
    }

    /// Attaches a run to a topic. An earlier run of the topic has ended, even if that was not
    /// observed yet.
    pub(in super::super) fn attach(
        &mut self,
        topic: String,
        outlet: Arc<Outlet>,
    ) -> Result<(), SourceExit> {
        self.detach(&topic)?;
        self.request_note(&outlet, std::slice::from_ref(&topic));
        if let Outlets::ByTopic { topics, .. } = &mut self.runs.outlets {
            topics.insert(topic, outlet);
            self.topics.refresh_soon();
        }
        Ok(())
    }

    /// Stops reading for runs that have stopped.
    pub(super) fn detach_stopped(&mut self) -> Result<(), SourceExit> {
        let stopped = self.runs.stopped_topics();
        stopped.iter().try_for_each(|topic| self.detach(topic))
    }
}
