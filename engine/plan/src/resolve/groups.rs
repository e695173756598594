//! `group` in a flow: the sink ends a chain, and the source begins another one.

use std::sync::Arc;

use pseidon_dsl::{Diagnostic, Flow, Span};
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
        let found = rest
            .iter()
            .find_map(|flow| Some((flow, self.group_in(flow)?)));
        let Some((flow, name)) = found else {
            return;
        };
        let message = format!("records of several sources reach a `{name}`");
        let label = "each source would have its own groups";
        let error = Diagnostic::new(flow.span(), message, label);
        let help = "read all files with one source, such as (files {:path [\"a/*\" \"b/*\"]}), or \
                    group the records of each source";
        self.errors.push(error.with_help(help));
    }

    /// The transform of the first stage of a flow that groups.
    fn group_in(&self, flow: &Flow) -> Option<&'static str> {
        if let Some(named) = self.flows.get(flow) {
            return self.group_in(&named.flow);
        }
        let call = match flow {
            Flow::Inline(call) => Some(call),
            Flow::Named(stage, _) => self.stages.get(stage).map(|stage| &stage.call),
            _ => None,
        };
        let Some(call) = call else {
            return flow
                .parts()
                .into_iter()
                .find_map(|part| self.group_in(part));
        };
        let transform = Transform::named(&call.plugin.to_string())?;
        let groups = matches!(transform, Transform::Group | Transform::Dedupe);
        groups.then_some(transform.spec().name)
    }
}
