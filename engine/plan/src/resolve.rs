//! Resolution of a document: names become plugins, arguments become checked options, and the flow
//! becomes chains of [`step`]s that each begin with a source.

mod groups;
mod limits;
mod named_flows;
mod step;
mod suggestions;
mod transform_steps;
mod unused;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pseidon_dsl::document::RouteBranch;
use pseidon_dsl::expr::{Expr, NamedExpressions, parse as parse_expr};
use pseidon_dsl::{Call, Diagnostic, Document, Flow, Name, NodeKind, Span, Stage};
use pseidon_plugin::group::GroupStage;
use pseidon_plugin::options::{OnError, ParseResult};
use pseidon_plugin::registry::PluginRegistry;
use pseidon_plugin::sink::Protocol;
use pseidon_plugin::spec::Role;
use pseidon_plugin::stage::{SinkFactory, SourceStage};

use self::groups::{Groups, NamedGroup, StageSteps};
use self::limits::misplaced_limit;
use self::named_flows::NamedFlows;
use self::step::reaches_sink;
pub use self::step::{ResolvedStep, ResolvedStepKind};
use self::transform_steps::{TransformSteps, transform_steps};
use crate::tables::TableCache;
use crate::transforms::Transform;

/// A source with the chain that processes its records.
pub struct ResolvedSource {
    /// The name of the stage.
    pub stage: String,
    /// The position in the flow.
    pub span: Span,
    /// The source with its options.
    pub source: SourceStage,
    /// The steps after the source.
    pub chain: Vec<ResolvedStep>,
    /// The `group` whose results it reads; `None` for a source of the file.
    pub group: Option<Arc<GroupStage>>,
    /// How many groups are in front of it. It is read when all sources with less have ended.
    pub phase: usize,
    /// The positions of the groups that its records reach.
    pub groups: Vec<Span>,
}

/// Resolves the flow of a document, and reads the tables of `lookup`. `names` are the named
/// expressions of the document.
///
/// Returns also all errors in names, options and tables, and unused stages. With errors, steps and
/// sources may be missing.
pub fn resolve(
    document: &Document,
    registry: &PluginRegistry,
    tables: &TableCache<'_>,
    names: &Arc<NamedExpressions>,
) -> (Vec<ResolvedSource>, Vec<Diagnostic>) {
    let flows = match NamedFlows::of(document) {
        Ok(flows) => flows,
        Err(errors) => return (Vec::new(), errors),
    };
    let stages = document
        .stages
        .iter()
        .map(|stage| (&stage.name, stage))
        .collect();
    let mut resolver = Resolver {
        registry,
        tables,
        names: (!document.expressions.is_empty()).then_some(names),
        stages,
        flows,
        used: HashSet::new(),
        places: HashMap::new(),
        groups: Groups::default(),
        errors: Vec::new(),
    };
    let resolved = resolver.source_chains(&document.pipeline, &[]);
    resolver.check_unused(document);
    (resolved, resolver.errors)
}

struct Resolver<'a> {
    registry: &'a PluginRegistry,
    tables: &'a TableCache<'a>,
    /// The named expressions; `None` if the document has none.
    names: Option<&'a Arc<NamedExpressions>>,
    stages: HashMap<&'a Name, &'a Stage>,
    flows: NamedFlows<'a>,
    /// The stages that the flow uses.
    used: HashSet<&'a Name>,
    /// How often each name was used in the flow so far.
    places: HashMap<String, usize>,
    /// The groups in the flow so far.
    groups: Groups,
    errors: Vec<Diagnostic>,
}

impl<'a> Resolver<'a> {
    /// Resolves a flow that begins with sources and is followed by `rest`: one chain for each
    /// source.
    fn source_chains(&mut self, flow: &'a Flow, rest: &[&'a Flow]) -> Vec<ResolvedSource> {
        match flow {
            Flow::Thread(items, span) => match items.split_first() {
                Some((first, following)) => {
                    let rest: Vec<&Flow> = following.iter().chain(rest.iter().copied()).collect();
                    self.source_chains(first, &rest)
                }
                None => {
                    self.errors.push(Diagnostic::new(
                        *span,
                        "empty flow",
                        "expected a source, then stages for its records",
                    ));
                    Vec::new()
                }
            },
            Flow::All(branches, _) => {
                self.check_one_source(branches, rest);
                branches
                    .iter()
                    .flat_map(|branch| self.source_chains(branch, rest))
                    .collect()
            }
            Flow::Match { span, .. } | Flow::Route { span, .. } => {
                let name = match flow {
                    Flow::Match { .. } => "match",
                    _ => "route",
                };
                let (message, label) = (
                    format!("`{name}` has no input"),
                    format!("expected a source before `{name}`"),
                );
                self.errors.push(Diagnostic::new(*span, message, label));
                Vec::new()
            }
            Flow::Named(..) | Flow::Inline(_) => {
                if let Some(named) = self.flows.expand(flow) {
                    return self.source_chains(named, rest);
                }
                let source = self.source(flow, rest);
                let behind = std::mem::take(&mut self.groups.behind);
                source.into_iter().chain(behind).collect()
            }
        }
    }

    fn source(&mut self, flow: &'a Flow, rest: &[&'a Flow]) -> Option<ResolvedSource> {
        let (name, call) = self.call(flow)?;
        let plugin = self.registry.source(&call.plugin.to_string());
        let Some(plugin) = plugin else {
            let error = self.role_error(Role::Source, &call, flow.span());
            self.errors.push(error);
            self.chain(rest);
            return None;
        };
        let source = self.checked(plugin.clone().configure(&call.args, call.span));
        let stage = self.place(&name);
        let (chain, groups) = self.whole_chain(flow, rest);
        Some(ResolvedSource {
            stage,
            span: flow.span(),
            source: source?,
            chain,
            group: None,
            phase: 0,
            groups,
        })
    }

    /// The steps of the flows after `flow`, which end with sinks, and the positions of the groups
    /// among them.
    fn whole_chain(&mut self, flow: &'a Flow, rest: &[&'a Flow]) -> (Vec<ResolvedStep>, Vec<Span>) {
        let errors_before = self.errors.len();
        let outer = std::mem::take(&mut self.groups.reached);
        let chain = self.chain(rest);
        if self.errors.len() == errors_before && !reaches_sink(&chain) {
            let end = rest.last().map_or(flow.span(), |last| last.span());
            let error = Diagnostic::new(
                end,
                "the flow ends without a sink",
                "records would be lost here",
            );
            self.errors.push(error.with_help(self.sinks_help()));
        }
        let misplaced = misplaced_limit(&chain);
        self.errors
            .extend(misplaced.filter(|error| !self.errors.contains(error)));
        (chain, std::mem::replace(&mut self.groups.reached, outer))
    }

    /// The steps of flows that follow one another. What follows a `group` is in the chain of
    /// another source.
    fn chain(&mut self, flows: &[&'a Flow]) -> Vec<ResolvedStep> {
        let mut chain = Vec::new();
        for (at, flow) in flows.iter().enumerate() {
            let rest = &flows[at + 1..];
            match flow {
                Flow::Thread(items, _) => {
                    let all: Vec<&Flow> = items.iter().chain(rest.iter().copied()).collect();
                    chain.extend(self.chain(&all));
                    return chain;
                }
                Flow::Named(..) | Flow::Inline(_) => {
                    if let Some(named) = self.flows.expand(flow) {
                        let all: Vec<&Flow> =
                            [named].into_iter().chain(rest.iter().copied()).collect();
                        chain.extend(self.chain(&all));
                        return chain;
                    }
                    match self.stage(flow) {
                        Some(StageSteps::Group(group)) => {
                            chain.extend(self.group(flow, group, rest));
                            return chain;
                        }
                        Some(StageSteps::Steps(steps)) => chain.extend(steps),
                        None => {}
                    }
                }
                Flow::All(..) | Flow::Match { .. } | Flow::Route { .. } => {
                    chain.extend(self.branches(flow));
                }
            }
        }
        chain
    }

    /// The steps of a flow with branches.
    fn branches(&mut self, flow: &'a Flow) -> Vec<ResolvedStep> {
        let form = |stage: String, kind| {
            vec![ResolvedStep {
                stage,
                span: flow.span(),
                kind,
                on_error: OnError::Throw,
            }]
        };
        match flow {
            Flow::All(branches, _) => {
                let stage = self.place("all");
                let branches = branches
                    .iter()
                    .map(|branch| self.chain(&[branch]))
                    .collect();
                form(stage, ResolvedStepKind::All(branches))
            }
            Flow::Match {
                branches,
                otherwise,
                ..
            } => {
                let stage = self.place("match");
                let branches = branches
                    .iter()
                    .map(|branch| (branch.pattern.clone(), self.chain(&[&branch.flow])))
                    .collect();
                let otherwise = otherwise.as_ref().map(|flow| self.chain(&[flow]));
                form(
                    stage,
                    ResolvedStepKind::Match {
                        branches,
                        otherwise,
                    },
                )
            }
            Flow::Route {
                branches,
                otherwise,
                ..
            } => {
                let stage = self.place("route");
                let branches = branches
                    .iter()
                    .filter_map(|branch| self.route_branch(branch));
                let branches = branches.collect();
                let otherwise = otherwise.as_ref().map(|flow| self.route_end(flow));
                vec![ResolvedStep {
                    stage,
                    span: flow.span(),
                    kind: ResolvedStepKind::Route {
                        branches,
                        otherwise,
                    },
                    on_error: OnError::default(),
                }]
            }
            Flow::Thread(..) | Flow::Named(..) | Flow::Inline(_) => Vec::new(),
        }
    }

    /// The condition and the steps of a branch of `route`. `None` if there are errors.
    fn route_branch(&mut self, branch: &'a RouteBranch) -> Option<(Expr, Vec<ResolvedStep>)> {
        let mut condition = branch.condition.clone();
        if let Some(names) = self.names {
            names.attach(&mut condition);
        }
        let condition = match &condition.kind {
            NodeKind::Str(text) | NodeKind::Regex(text) => self.checked(parse_expr(text)),
            _ => None,
        };
        let steps = self.route_end(&branch.flow);
        Some((condition?, steps))
    }

    /// The steps of a flow that ends with sinks.
    fn route_end(&mut self, flow: &'a Flow) -> Vec<ResolvedStep> {
        let errors = self.errors.len();
        let steps = self.chain(&[flow]);
        if self.errors.len() == errors && !reaches_sink(&steps) {
            let message = "a branch of `route` does not end with a sink";
            let error = Diagnostic::new(flow.span(), message, "records would be lost here");
            let help = "to give records another value instead, use `case` in a `set`";
            self.errors.push(error.with_help(help));
        }
        steps
    }

    /// The steps of a stage. `None` if there are errors.
    fn stage(&mut self, flow: &'a Flow) -> Option<StageSteps> {
        let (name, call) = self.call(flow)?;
        let plugin_name = call.plugin.to_string();
        if let Some(transform) = Transform::named(&plugin_name) {
            let options = self.checked(transform.parse(&call))?;
            let steps = self.checked(transform_steps(options, self.tables))?;
            let stage = self.place(&name);
            let (kinds, invalid) = match steps {
                TransformSteps::Chain(kinds, invalid) => (kinds, invalid),
                TransformSteps::Group(steps, invalid) => {
                    let group = NamedGroup::new(stage, steps, invalid.on_error);
                    return Some(StageSteps::Group(group));
                }
            };
            let step = |kind| ResolvedStep {
                stage: stage.clone(),
                span: flow.span(),
                kind,
                on_error: invalid.on_error.clone(),
            };
            let steps = kinds.into_iter().map(step).collect();
            return Some(StageSteps::Steps(steps));
        }
        let Some(plugin) = self.registry.sink(&plugin_name) else {
            let error = self.role_error(Role::Sink, &call, flow.span());
            self.errors.push(error);
            return None;
        };
        let sink = self.checked(plugin.clone().configure(&call.args, call.span))?;
        Some(StageSteps::Steps(vec![ResolvedStep {
            stage: self.place(&name),
            span: flow.span(),
            on_error: sink.options.on_error.clone(),
            kind: ResolvedStepKind::Sink(Arc::new(sink)),
        }]))
    }

    /// A use of a plugin, in whose arguments the named expressions are known.
    fn with_names(&self, call: &Call) -> Call {
        let mut call = call.clone();
        if let Some(names) = self.names {
            call.args.iter_mut().for_each(|arg| names.attach(arg));
        }
        call
    }

    /// The name of a stage, and the plugin that it uses. `None` if an error was reported.
    fn call(&mut self, flow: &'a Flow) -> Option<(String, Call)> {
        match flow {
            Flow::Inline(call) => Some((call.plugin.to_string(), self.with_names(call))),
            Flow::Named(name, span) => match self.stages.get(name) {
                Some(stage) => {
                    self.used.insert(name);
                    Some((name.to_string(), self.with_names(&stage.call)))
                }
                None if self.is_plugin(&name.to_string()) => {
                    let call = Call {
                        plugin: name.clone(),
                        plugin_span: *span,
                        args: Vec::new(),
                        span: *span,
                    };
                    Some((name.to_string(), call))
                }
                None => {
                    let error = Diagnostic::new(
                        *span,
                        format!("unknown stage `{name}`"),
                        "not defined in this file",
                    );
                    self.errors
                        .push(self.unknown_stage(error, &name.to_string()));
                    None
                }
            },
            Flow::Thread(..) | Flow::All(..) | Flow::Match { .. } | Flow::Route { .. } => None,
        }
    }

    fn is_plugin(&self, name: &str) -> bool {
        self.registry.specs().any(|spec| spec.name == name) || Transform::named(name).is_some()
    }

    /// The parsed options. `None` if there are errors, which are reported.
    fn checked<T>(&mut self, parsed: ParseResult<T>) -> Option<T> {
        match parsed {
            Ok(options) => Some(options),
            Err(errors) => {
                // The errors of a stage that is used twice are reported once.
                self.errors.extend(
                    errors
                        .into_iter()
                        .filter(|error| !self.errors.contains(error))
                        .collect::<Vec<_>>(),
                );
                None
            }
        }
    }

    /// The name of a stage at this place of the flow: `lake`, then `lake#2`.
    fn place(&mut self, name: &str) -> String {
        let count = self.places.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 {
            name.to_owned()
        } else {
            format!("{name}#{count}")
        }
    }

    /// The error for a plugin that does not have the role `wanted`.
    fn role_error(&self, wanted: Role, call: &Call, place: Span) -> Diagnostic {
        let name = call.plugin.to_string();
        let exists = self.is_plugin(&name);
        if exists && wanted == Role::Source {
            return Diagnostic::new(
                place,
                format!("`{name}` is not a source"),
                "a flow must begin with a source",
            )
            .with_help(self.sources_help());
        }
        if exists {
            return Diagnostic::new(
                place,
                format!("`{name}` is a source"),
                "a source must be at the beginning of a flow",
            );
        }
        self.unknown_plugin(call)
    }
}

/// Whether a sink without options discards every record.
fn discards(sink: &Arc<dyn SinkFactory>) -> bool {
    let sink = sink.clone().configure(&[], Span::default());
    sink.is_ok_and(|sink| sink.facts.protocol == Protocol::Discard)
}
