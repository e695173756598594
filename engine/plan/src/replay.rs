//! The part of a flow that quarantined records pass when they are replayed.
//!
//! A record is quarantined at one stage. Until there it may have been delivered to other sinks: by
//! another branch of an `all`, or by a sink in front of the stage. A replay must not deliver it
//! there again. So a quarantined record enters the flow at its source, passes the steps in front of
//! its stage, and reaches only the sinks behind the stage.
//!
//! All that is in front of the stage gets the stage's name. A record that is found invalid there is
//! quarantined at the same stage again, and its next replay reaches the same sinks.

use std::sync::Arc;

use pseidon_plugin::source::{Reread, Source, SourceFacts};

use crate::chain::{Chain, ChainStep, Operator, PlannedSource, Policy};
use crate::index::SinkIndex;
use crate::plan::Plan;

/// The name of the plugin of sources that read quarantined records.
const PLUGIN: &str = "quarantine";

impl Plan {
    /// The source whose records pass the stage, or the source of this name. `None` if the
    /// stage is not in the flow.
    pub fn source_of(&self, stage: &str) -> Option<&PlannedSource> {
        let has_it =
            |source: &&PlannedSource| source.stage == stage || source.chain.has_stage(stage);
        self.sources.iter().find(has_it)
    }

    /// The names of the sources and of the stages of their flows.
    pub fn stages(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for source in &self.sources {
            found.push(source.stage.as_str());
            source.chain.collect_stages(&mut found);
        }
        found
    }

    /// The source that replays the records that were quarantined at the stage, read by `source`. It
    /// has the name of the stage.
    ///
    /// # Errors
    /// The records of the stage cannot be replayed. The reason follows the name of the stage.
    pub fn replay(&self, stage: &str, source: Arc<dyn Source>) -> Result<PlannedSource, String> {
        let planned = self
            .source_of(stage)
            .ok_or("is not a stage of the pipeline")?;
        if planned.group.is_some() {
            return Err("is behind a `group`, whose results are not read again".to_owned());
        }
        if !planned.format.has_bytes() {
            let format = planned.format.name();
            return Err(format!("reads `{format}`, whose records have no bytes"));
        }
        let mut chain = planned.chain.clone();
        // A limit is one of the records that a run reads. It is not in a branch.
        let is_limit = |step: &ChainStep| matches!(step.operator, Operator::Limit(..));
        chain.steps.retain(|step| !is_limit(step));
        if planned.stage != stage {
            chain.begin_at(stage)?;
        }
        let sinks = reached(&chain, planned.policy, &planned.sinks);
        if sinks.iter().any(|sink| self.sinks[*sink].is_group) {
            return Err("is in front of a `group`, which has groups of its own".to_owned());
        }
        let facts = SourceFacts {
            finite: true,
            reread: Reread::Exact,
            splits_bytes: false,
            topic_may_change: false,
            ..planned.facts.clone()
        };
        Ok(PlannedSource {
            stage: stage.to_owned(),
            plugin: PLUGIN,
            source,
            facts,
            chain,
            sinks,
            ..planned.clone()
        })
    }
}

/// The sinks that records of the chain can reach, in their order.
fn reached(chain: &Chain, policy: Policy, sinks: &[SinkIndex]) -> Vec<SinkIndex> {
    let mut found = Vec::new();
    found.extend(quarantine(policy));
    collect_sinks(chain, &mut found);
    let mut sinks = sinks.to_vec();
    sinks.retain(|sink| found.contains(sink));
    sinks
}

fn quarantine(policy: Policy) -> Option<SinkIndex> {
    match policy {
        Policy::Quarantine(sink) => Some(sink),
        Policy::Throw | Policy::Noop => None,
    }
}

fn collect_sinks(chain: &Chain, found: &mut Vec<SinkIndex>) {
    for step in &chain.steps {
        found.extend(quarantine(step.policy));
        if let Operator::Sink(sink) = step.operator {
            found.push(sink);
        }
        let chains = step.operator.chains();
        chains.iter().for_each(|chain| collect_sinks(chain, found));
    }
}

impl Chain {
    /// Whether the stage is a step of the chain, or of a branch in it.
    pub fn has_stage(&self, stage: &str) -> bool {
        self.steps.iter().any(|step| step.has_stage(stage))
    }

    fn collect_stages<'c>(&'c self, found: &mut Vec<&'c str>) {
        for step in &self.steps {
            found.push(&step.stage);
            let chains = step.operator.chains().into_iter();
            chains.for_each(|chain| chain.collect_stages(found));
        }
    }

    /// Removes the sinks that do not receive the records of this stage, which is in the chain. An
    /// error says why that cannot be told.
    fn begin_at(&mut self, stage: &str) -> Result<(), String> {
        let Some(at) = self.steps.iter().position(|step| step.has_stage(stage)) else {
            return Ok(());
        };
        let behind = self.steps.split_off(at + 1);
        let Some(mut step) = self.steps.pop() else {
            return Ok(());
        };
        self.deliver_nothing();
        self.steps
            .iter_mut()
            .try_for_each(|step| step.pass_on(stage))?;
        let passes_on = if step.stage == stage {
            // A sink passes on the records that it refuses.
            !matches!(step.operator, Operator::Sink(_))
        } else {
            step.begin_inside(stage)?
        };
        self.steps.push(step);
        if passes_on {
            self.steps.extend(behind);
        } else {
            // What follows a branch has received the record too.
            self.passes_on = false;
        }
        Ok(())
    }

    /// Removes the steps that write records and pass them on.
    fn deliver_nothing(&mut self) {
        let writes =
            |step: &ChainStep| matches!(step.operator, Operator::Sink(_) | Operator::All(_));
        self.steps.retain(|step| !writes(step));
    }
}

impl ChainStep {
    fn has_stage(&self, stage: &str) -> bool {
        let mut chains = self.operator.chains().into_iter();
        self.stage == stage || chains.any(|chain| chain.has_stage(stage))
    }

    /// Makes this a step in front of the stage: it delivers nothing of what it passes on.
    fn pass_on(&mut self, stage: &str) -> Result<(), String> {
        self.stage = stage.to_owned();
        match &mut self.operator {
            // Other rows of the same record have passed the stage.
            Operator::Unnest(..) => {
                Err("is behind an `unnest`: other rows of the same record may \
                 have been delivered"
                    .to_owned())
            }
            Operator::Match {
                branches,
                otherwise,
            } => {
                let chains = branches.iter_mut().map(|(_, chain)| chain);
                // A record that was passed on was not in the other branches.
                for chain in chains.chain(otherwise).filter(|chain| chain.passes_on) {
                    chain.deliver_nothing();
                    let mut steps = chain.steps.iter_mut();
                    steps.try_for_each(|step| step.pass_on(stage))?;
                }
                Ok(())
            }
            // A record that was passed on was in none of the branches of a `route`.
            _ => Ok(()),
        }
    }

    /// Begins at the stage, which is in a branch of this step. Returns whether records that leave
    /// the step are those of the stage, or were not delivered before.
    fn begin_inside(&mut self, stage: &str) -> Result<bool, String> {
        self.stage = stage.to_owned();
        match &mut self.operator {
            // Each branch had the record, and so had what follows.
            Operator::All(chains) => {
                chains.retain(|chain| chain.has_stage(stage));
                let mut chains = chains.iter_mut();
                chains.try_for_each(|chain| chain.begin_at(stage))?;
                Ok(false)
            }
            // Only one branch had the record. With the repaired flow it may go to another one.
            Operator::Match {
                branches,
                otherwise,
            } => begin_in_one(branches, otherwise, stage),
            Operator::Route {
                branches,
                otherwise,
            } => begin_in_one(branches, otherwise, stage),
            _ => Ok(true),
        }
    }
}

/// Begins at the stage in each of the branches of which a record passes only one.
fn begin_in_one<M>(
    branches: &mut [(M, Chain)],
    otherwise: &mut Option<Chain>,
    stage: &str,
) -> Result<bool, String> {
    let mut chains = branches.iter_mut().map(|(_, chain)| chain).chain(otherwise);
    chains.try_for_each(|chain| chain.begin_at(stage))?;
    Ok(true)
}
