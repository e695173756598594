//! A use of a sink in the flow.

use pseidon_delivery::SinkId;
use pseidon_dsl::expr::SelectItem;
use pseidon_plugin::options::OnError;
use pseidon_plugin::spec::Role;
use pseidon_plugin::stage::SinkStage;

use super::flow_point::FlowPoint;
use super::{ChainCompiler, TOPIC, chain_step};
use crate::chain::{Chain, ChainStep, Operator, PlannedSink};
use crate::columns::uses_topic;
use crate::resolve::ResolvedStep;

impl ChainCompiler<'_> {
    /// Compiles a sink at this point. `None` if an error was added.
    pub(super) fn sink(
        &mut self,
        step: &ResolvedStep,
        stage: &SinkStage,
        point: &FlowPoint,
    ) -> Option<ChainStep> {
        if point.needs_columns(&stage.facts) {
            return self.sink_of_every_field(step, stage, point);
        }
        let prepared = self.errors.value(stage.prepare(&point.input))?;
        let mut nondeterminism = point.nondeterminism.clone();
        nondeterminism.extend(prepared.nondeterminism());
        if self.topic_may_change && stage.options.exprs.iter().any(uses_topic) {
            nondeterminism.push(TOPIC.to_owned());
        }
        let policy = self.policy(&step.on_error)?;
        let retry = match &step.on_error {
            OnError::Retry {
                times, interval, ..
            } => Some((*times, *interval)),
            _ => None,
        };
        let sink = self.add_sink(PlannedSink {
            id: SinkId::from(step.stage.as_str()),
            plugin: stage.options.spec.name,
            prepared,
            protocol: stage.facts.protocol,
            folder: stage.facts.folder.clone(),
            is_quarantine: false,
            is_group: stage.options.spec.role == Role::Transform,
            nondeterminism,
            retry,
        });
        Some(chain_step(step, Operator::Sink(sink), policy))
    }

    /// Compiles a sink that requires typed columns, for records that have no `select`: it receives
    /// all of their fields. The `select` for it is inside an `all`, so that the original record is
    /// passed on.
    fn sink_of_every_field(
        &mut self,
        step: &ResolvedStep,
        stage: &SinkStage,
        point: &FlowPoint,
    ) -> Option<ChainStep> {
        let every_field = [SelectItem::All {
            except: Vec::new(),
            span: step.span,
        }];
        let mut selected = point.clone();
        let select = self.select_step(step, &every_field, &mut selected)?;
        let policy = select.policy;
        let sink = self.sink(step, stage, &selected)?;
        let chain = Chain {
            steps: vec![select, sink],
            passes_on: false,
        };
        Some(chain_step(step, Operator::All(vec![chain]), policy))
    }
}
