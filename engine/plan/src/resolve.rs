//! Names become plugins, arguments become options, the flow becomes chains that each begin with a
//! source.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::{Expr, SelectItem};
use pseidon_dsl::{
    Call, Diagnostic, Document, Flow, Name, Node, NodeKind, Span, Stage, legacy, nearest,
};
use pseidon_plugin::options::{OnError, Options};
use pseidon_plugin::registry::Registry;
use pseidon_plugin::sink::SinkPlugin;
use pseidon_plugin::source::SourcePlugin;
use pseidon_plugin::spec::{PluginSpec, Role};

use crate::transforms::TRANSFORMS;

/// A source and everything that its records go through.
pub struct Resolved {
    /// The stage's name.
    pub stage: String,
    /// Where it stands in the flow.
    pub span: Span,
    /// Its plugin.
    pub plugin: Arc<dyn SourcePlugin>,
    /// Its options.
    pub options: Options,
    /// What follows.
    pub chain: Vec<ResolvedStep>,
}

/// One step of a chain.
#[derive(Clone)]
pub struct ResolvedStep {
    /// The stage's name, unique among the places of the flow (`lake`, `lake#2`).
    pub stage: String,
    /// Where it stands in the flow.
    pub span: Span,
    /// What it does.
    pub kind: StepKind,
    /// What happens to records that are bad here.
    pub on_error: OnError,
}

/// What a step does.
#[derive(Clone)]
pub enum StepKind {
    /// `where`
    Where(Expr),
    /// `select`
    Select(Vec<SelectItem>),
    /// `all`: each chain gets the same input; the input goes on.
    All(Vec<Vec<ResolvedStep>>),
    /// `match`: the first chain whose pattern fits takes the record; what no chain takes goes on,
    /// and what a chain lets through.
    Match {
        /// Patterns and chains.
        branches: Vec<(Pattern, Vec<ResolvedStep>)>,
        /// `:else`
        otherwise: Option<Vec<ResolvedStep>>,
    },
    /// A sink; its input goes on.
    Sink(Arc<dyn SinkPlugin>, Options),
}

/// Resolves the flow of a document.
pub fn resolve(document: &Document, registry: &Registry) -> Result<Vec<Resolved>, Vec<Diagnostic>> {
    let stages = document
        .stages
        .iter()
        .map(|stage| (&stage.name, stage))
        .collect();
    let mut resolver = Resolver {
        registry,
        stages,
        used: HashSet::new(),
        places: HashMap::new(),
        mistakes: Vec::new(),
    };
    let resolved = resolver.top(&document.pipeline, &[]);
    resolver.check_unused(document);
    if resolver.mistakes.is_empty() {
        Ok(resolved)
    } else {
        Err(resolver.mistakes)
    }
}

struct Resolver<'a> {
    registry: &'a Registry,
    stages: HashMap<&'a Name, &'a Stage>,
    /// The stages that the flow names.
    used: HashSet<&'a Name>,
    /// How often each name was placed in the flow.
    places: HashMap<String, usize>,
    mistakes: Vec<Diagnostic>,
}

impl<'a> Resolver<'a> {
    /// Chains of a flow that begins with sources and is followed by `rest`.
    fn top(&mut self, flow: &'a Flow, rest: &[&'a Flow]) -> Vec<Resolved> {
        match flow {
            Flow::Thread(items, span) => match items.split_first() {
                Some((first, following)) => {
                    let rest: Vec<&Flow> = following.iter().chain(rest.iter().copied()).collect();
                    self.top(first, &rest)
                }
                None => {
                    self.mistakes.push(Diagnostic::new(
                        *span,
                        "this flow is empty",
                        "expected a source, then where its records go",
                    ));
                    Vec::new()
                }
            },
            Flow::All(branches, _) => branches
                .iter()
                .flat_map(|branch| self.top(branch, rest))
                .collect(),
            Flow::Match { span, .. } => {
                self.mistakes.push(Diagnostic::new(
                    *span,
                    "`match` needs records",
                    "expected a source before it",
                ));
                Vec::new()
            }
            Flow::Named(..) | Flow::Inline(_) => self.source(flow, rest).into_iter().collect(),
        }
    }

    fn source(&mut self, flow: &'a Flow, rest: &[&'a Flow]) -> Option<Resolved> {
        let (name, call) = self.call(flow)?;
        let plugin = self.registry.source(&call.plugin.to_string()).cloned();
        let Some(plugin) = plugin else {
            let mistake = self.not_a(Role::Source, &call, flow.span());
            self.mistakes.push(mistake);
            self.chain(rest);
            return None;
        };
        let options = self.options(plugin.spec(), &call);
        let stage = self.place(&name);
        let mistakes_before = self.mistakes.len();
        let chain = self.chain(rest);
        if self.mistakes.len() == mistakes_before && !ends_in_sink(&chain) {
            let end = rest.last().map_or(flow.span(), |last| last.span());
            let mistake = Diagnostic::new(
                end,
                "records would be lost here",
                "the flow ends without a sink",
            );
            self.mistakes.push(mistake.with_help("end it with a sink such as (files {…}), (stdout) or, to lose them on purpose, (drop)"));
        }
        Some(Resolved {
            stage,
            span: flow.span(),
            plugin,
            options: options?,
            chain,
        })
    }

    fn chain(&mut self, flows: &[&'a Flow]) -> Vec<ResolvedStep> {
        flows.iter().flat_map(|flow| self.steps(flow)).collect()
    }

    fn steps(&mut self, flow: &'a Flow) -> Vec<ResolvedStep> {
        let form = |stage: String, kind| {
            vec![ResolvedStep {
                stage,
                span: flow.span(),
                kind,
                on_error: OnError::Throw,
            }]
        };
        match flow {
            Flow::Thread(items, _) => items.iter().flat_map(|item| self.steps(item)).collect(),
            Flow::All(branches, _) => {
                let stage = self.place("all");
                let branches = branches.iter().map(|branch| self.steps(branch)).collect();
                form(stage, StepKind::All(branches))
            }
            Flow::Match {
                branches,
                otherwise,
                ..
            } => {
                let stage = self.place("match");
                let branches = branches
                    .iter()
                    .map(|branch| (branch.pattern.clone(), self.steps(&branch.flow)))
                    .collect();
                let otherwise = otherwise.as_ref().map(|flow| self.steps(flow));
                form(
                    stage,
                    StepKind::Match {
                        branches,
                        otherwise,
                    },
                )
            }
            Flow::Named(..) | Flow::Inline(_) => self.stage(flow).into_iter().collect(),
        }
    }

    fn stage(&mut self, flow: &'a Flow) -> Option<ResolvedStep> {
        let (name, call) = self.call(flow)?;
        let plugin_name = call.plugin.to_string();
        if let Some(spec) = TRANSFORMS.into_iter().find(|spec| spec.name == plugin_name) {
            let options = self.options(spec, &call)?;
            let kind = match spec.name {
                "where" => StepKind::Where(options.expr("condition")?.clone()),
                _ => StepKind::Select(options.select("columns")?.to_vec()),
            };
            return Some(ResolvedStep {
                stage: self.place(&name),
                span: flow.span(),
                kind,
                on_error: on_error_of(&options),
            });
        }
        let Some(plugin) = self.registry.sink(&plugin_name).cloned() else {
            let mistake = self.not_a(Role::Sink, &call, flow.span());
            self.mistakes.push(mistake);
            return None;
        };
        let options = self.options(plugin.spec(), &call)?;
        let on_error = on_error_of(&options);
        Some(ResolvedStep {
            stage: self.place(&name),
            span: flow.span(),
            kind: StepKind::Sink(plugin, options),
            on_error,
        })
    }

    /// The stage's name and what it is.
    fn call(&mut self, flow: &'a Flow) -> Option<(String, Call)> {
        match flow {
            Flow::Inline(call) => Some((call.plugin.to_string(), call.clone())),
            Flow::Named(name, span) => match self.stages.get(name) {
                Some(stage) => {
                    self.used.insert(name);
                    Some((name.to_string(), stage.call.clone()))
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
                    let mistake = Diagnostic::new(
                        *span,
                        format!("there is no stage `{name}`"),
                        "not defined in this file",
                    );
                    self.mistakes
                        .push(self.with_nearest(mistake, &name.to_string()));
                    None
                }
            },
            Flow::Thread(..) | Flow::All(..) | Flow::Match { .. } => None,
        }
    }

    fn is_plugin(&self, name: &str) -> bool {
        self.registry.specs().any(|spec| spec.name == name)
            || TRANSFORMS.iter().any(|spec| spec.name == name)
    }

    fn options(&mut self, spec: &PluginSpec, call: &Call) -> Option<Options> {
        match Options::parse(spec, &call.args, call.span) {
            Ok(options) => Some(options),
            Err(mistakes) => {
                // A stage that is used twice is wrong once.
                self.mistakes.extend(
                    mistakes
                        .into_iter()
                        .filter(|mistake| !self.mistakes.contains(mistake))
                        .collect::<Vec<_>>(),
                );
                None
            }
        }
    }

    fn place(&mut self, name: &str) -> String {
        let count = self.places.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 {
            name.to_owned()
        } else {
            format!("{name}#{count}")
        }
    }

    fn not_a(&self, wanted: Role, call: &Call, place: Span) -> Diagnostic {
        let name = call.plugin.to_string();
        let exists = self.is_plugin(&name);
        if exists && wanted == Role::Source {
            return Diagnostic::new(
                place,
                format!("`{name}` is not a source"),
                "a flow begins with a source",
            );
        }
        if exists {
            return Diagnostic::new(
                place,
                format!("`{name}` is a source"),
                "a source can only stand at the beginning of a flow",
            );
        }
        self.no_plugin(call)
    }

    fn no_plugin(&self, call: &Call) -> Diagnostic {
        if legacy::names_class(&call.plugin) {
            return legacy::class_mistake(&call.plugin, call.plugin_span, "not a plugin");
        }
        let name = call.plugin.to_string();
        let mistake = Diagnostic::new(
            call.plugin_span,
            format!("there is no plugin `{name}`"),
            "not a plugin",
        );
        self.with_nearest(mistake, &name)
    }

    fn with_nearest(&self, mistake: Diagnostic, name: &str) -> Diagnostic {
        let stages: Vec<String> = self.stages.keys().map(|stage| stage.to_string()).collect();
        let plugins = self
            .registry
            .specs()
            .map(|spec| spec.name)
            .chain(TRANSFORMS.iter().map(|spec| spec.name));
        match nearest(name, stages.iter().map(String::as_str).chain(plugins)) {
            Some(near) => mistake.with_help(format!("did you mean `{near}`?")),
            None => mistake,
        }
    }

    /// A stage that stands nowhere in the flow is most likely a slip; its own mistakes are shown
    /// all the same.
    fn check_unused(&mut self, document: &Document) {
        let unused: Vec<&Stage> = document
            .stages
            .iter()
            .filter(|stage| !self.used.contains(&stage.name))
            .collect();
        unused
            .iter()
            .for_each(|stage| self.check_alone(&stage.call));
        for stage in unused {
            if !self.mistakes.is_empty() {
                return;
            }
            let mistake = Diagnostic::new(
                stage.name_span,
                format!("the stage `{}` is never used", stage.name),
                "not part of the pipeline",
            );
            self.mistakes
                .push(mistake.with_help("put it into `pipeline`, or take it out (#_ before the name and its value leaves both out)"));
        }
    }

    /// Checks a call of which it is not known whether a source or a sink is meant.
    fn check_alone(&mut self, call: &Call) {
        let name = call.plugin.to_string();
        let specs = self
            .registry
            .specs()
            .chain(TRANSFORMS)
            .filter(|spec| spec.name == name);
        match specs.min_by_key(|spec| unknown_options(spec, call)) {
            Some(spec) => drop(self.options(spec, call)),
            None => self.mistakes.push(self.no_plugin(call)),
        }
    }
}

/// How many of the options in a call the plugin does not have.
fn unknown_options(spec: &PluginSpec, call: &Call) -> usize {
    let keys = call.args.iter().flat_map(|arg| match &arg.kind {
        NodeKind::Map(entries) => entries.as_slice(),
        _ => &[],
    });
    let is_unknown = |key: &Node| match &key.kind {
        NodeKind::Keyword(name) => !spec.options.iter().any(|option| option.name == name.name),
        _ => true,
    };
    keys.filter(|(key, _)| is_unknown(key)).count()
}

/// The error policy that a stage says, or the default.
pub(crate) fn on_error_of(options: &Options) -> OnError {
    match options.get("on-error") {
        Some(_) => options
            .on_error("on-error")
            .cloned()
            .unwrap_or(OnError::Quarantine { path: None }),
        None => OnError::Quarantine { path: None },
    }
}

/// Whether something is kept of what goes through the chain.
fn ends_in_sink(chain: &[ResolvedStep]) -> bool {
    match chain.last().map(|step| &step.kind) {
        Some(StepKind::Sink(..)) => true,
        Some(StepKind::All(branches)) => {
            !branches.is_empty() && branches.iter().all(|branch| ends_in_sink(branch))
        }
        Some(StepKind::Match {
            branches,
            otherwise,
        }) => {
            branches.iter().all(|(_, chain)| ends_in_sink(chain))
                && otherwise.as_ref().is_none_or(|chain| ends_in_sink(chain))
        }
        Some(StepKind::Where(_) | StepKind::Select(_)) | None => false,
    }
}
