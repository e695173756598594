//! `group` in a flow: the sink ends a chain, and the source begins another one.

use std::sync::Arc;

use pseidon_dsl::{Call, Diagnostic, Flow, Span};
use pseidon_plugin::options::OnError;

use super::{ResolvedSource, ResolvedStep, ResolvedStepKind, Resolver};
use crate::group::GroupSteps;
use crate::transforms::Transform;

/// The groups in a flow.
#[derive(Default)]
pub(super) struct Groups {
    /// The sources behind the groups of the source that is being resolved, each after the one whose
    /// records it groups.
    pub(super) behind: Vec<ResolvedSource>,
    /// The positions of the groups that the records of this source reach.
    pub(super) reached: Vec<Span>,
    /// How many groups are in front of the flow that is being resolved.
    phase: usize,
}

/// What a stage of a flow is.
pub(super) enum StageSteps {
    /// Steps of the chain.
    Steps(Vec<ResolvedStep>),
    /// A `group`.
    Group(NamedGroup),
}

/// A `group` with the name of its stage.
pub(super) struct NamedGroup {
    stage: String,
    steps: Box<GroupSteps>,
    on_error: OnError,
}

impl NamedGroup {
    pub(super) fn new(stage: String, steps: Box<GroupSteps>, on_error: OnError) -> NamedGroup {
        NamedGroup {
            stage,
            steps,
            on_error,
        }
    }
}

impl<'a> Resolver<'a> {
    /// The steps in front of a group, which is followed by `rest`.
    pub(super) fn group(
        &mut self,
        flow: &'a Flow,
        group: NamedGroup,
        rest: &[&'a Flow],
    ) -> Vec<ResolvedStep> {
        let NamedGroup {
            stage,
            steps,
            on_error,
        } = group;
        let (sink, source) = (self.registry.group)(&steps.stage);
        let step = |kind| ResolvedStep {
            stage: stage.clone(),
            span: flow.span(),
            kind,
            on_error: on_error.clone(),
        };
        self.groups.reached.push(flow.span());
        let place = self.groups.behind.len();
        self.groups.phase += 1;
        let phase = self.groups.phase;
        let (followers, groups) = self.whole_chain(flow, rest);
        self.groups.phase -= 1;
        let select = |columns| step(ResolvedStepKind::Select(columns));
        let mut chain: Vec<ResolvedStep> = steps.output.map(select).into_iter().collect();
        chain.extend(followers);
        let behind = ResolvedSource {
            stage: stage.clone(),
            span: flow.span(),
            source,
            chain,
            group: Some(steps.stage),
            phase,
            groups,
        };
        self.groups.behind.insert(place, behind);
        let sink = step(ResolvedStepKind::Sink(Arc::new(sink)));
        steps.input.map(select).into_iter().chain([sink]).collect()
    }

    /// Checks that the records of several sources do not meet in a group, since each source has a
    /// chain of its own.
    pub(super) fn check_one_source(&mut self, branches: &[Flow], rest: &[&'a Flow]) {
        if branches.len() < 2 {
            return;
        }
        let Some(flow) = rest.iter().find(|flow| self.has_group(flow)) else {
            return;
        };
        let message = "records of several sources reach a `group`";
        let error = Diagnostic::new(
            flow.span(),
            message,
            "each source would have its own groups",
        );
        let help = "read all files with one source, such as (files {:path [\"a/*\" \"b/*\"]}), or \
                    group the records of each source";
        self.errors.push(error.with_help(help));
    }

    fn has_group(&self, flow: &Flow) -> bool {
        let is_group = |call: &Call| {
            let name = call.plugin.to_string();
            matches!(
                Transform::named(&name),
                Some(Transform::Group | Transform::Dedupe)
            )
        };
        match flow {
            Flow::Thread(flows, _) | Flow::All(flows, _) => {
                flows.iter().any(|flow| self.has_group(flow))
            }
            Flow::Match {
                branches,
                otherwise,
                ..
            } => {
                let mut flows = branches.iter().map(|branch| &branch.flow);
                flows.any(|flow| self.has_group(flow))
                    || otherwise.iter().any(|flow| self.has_group(flow))
            }
            Flow::Route {
                branches,
                otherwise,
                ..
            } => {
                let mut flows = branches.iter().map(|branch| &branch.flow);
                flows.any(|flow| self.has_group(flow))
                    || otherwise.iter().any(|flow| self.has_group(flow))
            }
            Flow::Named(stage, _) => {
                let stage = self.stages.get(stage);
                stage.is_some_and(|stage| is_group(&stage.call))
            }
            Flow::Inline(call) => is_group(call),
        }
    }
}
