//! The runs of a shared consumer: they attach and detach while it reads.

use std::sync::Arc;

use crossbeam_channel::Receiver;
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

impl Reader<'_> {
    /// Reads for runs that attach and detach, until reading ends.
    pub(in super::super) fn read_for_many(
        &mut self,
        commands: Receiver<Command>,
    ) -> Result<(), SourceExit> {
        self.commands = commands;
        self.read()
    }

    /// Applies the commands since the last call. Of several subscriptions the last one counts, and
    /// all runs that attached are served together.
    pub(super) fn run_commands(&mut self) -> Result<(), SourceExit> {
        let mut subscription = None;
        while let Ok(command) = self.commands.try_recv() {
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
        let is_attended = |at: &TopicPartition| {
            self.outlets.outlet_of(&at.topic).is_some() && !self.departures.contains(at)
        };
        let attended: Vec<_> = self
            .unattended
            .extract_if(.., |at| is_attended(at))
            .collect();
        if attended.is_empty() {
            Ok(())
        } else {
            self.take_over(attended)
        }
    }

    /// Attaches a run to a topic. An earlier run of the topic has ended, even if that was not
    /// observed yet.
    fn attach(&mut self, topic: String, outlet: Arc<Outlet>) -> Result<(), SourceExit> {
        self.detach(&topic)?;
        if let Outlets::ByTopic { topics, .. } = &mut self.outlets {
            topics.insert(topic, outlet);
            self.topics.refresh_soon();
        }
        Ok(())
    }

    /// Stops reading for runs that have stopped.
    pub(super) fn detach_stopped(&mut self) -> Result<(), SourceExit> {
        let Outlets::ByTopic { topics, .. } = &self.outlets else {
            return Ok(());
        };
        let stopped = topics
            .iter()
            .filter(|(_, outlet)| outlet.outbox.handle().is_stopped());
        let stopped: Vec<String> = stopped.map(|(topic, _)| topic.clone()).collect();
        stopped.iter().try_for_each(|topic| self.detach(topic))
    }

    /// Handles a run that accepts no more batches because it has ended. Reading continues for the
    /// other runs, if there are any.
    pub(super) fn run_stopped(&self, _: Stopped) -> Result<(), SourceExit> {
        match self.outlets {
            Outlets::One(_) => Err(SourceExit::Stopped),
            Outlets::ByTopic { .. } => Ok(()),
        }
    }
}
