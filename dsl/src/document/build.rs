//! From the top-level map to a [`Document`], or to a [`Fragment`] of one.

use super::flow::{call, flow, is_flow, is_form};
use super::{Call, Document, Flow, Fragment, Include, NamedExpression, NamedFlow, Stage, Test};
use crate::{Diagnostic, Name, Node, NodeKind, Span, nearest, print};

/// The keywords of the top-level map.
const KEYWORDS: [&str; 5] = ["name", "settings", "include", "expressions", "tests"];

/// The keywords of an entry of `:tests`.
const TEST_KEYWORDS: [&str; 4] = ["name", "at", "input", "output"];

/// Builds the document from the top-level map. The errors are in source order.
pub(super) fn document(node: Node) -> Result<Document, Vec<Diagnostic>> {
    match partial(node) {
        (Some(document), errors) if errors.is_empty() => Ok(document),
        (_, errors) => Err(errors),
    }
}

/// Builds what can be built, and returns the errors too, in source order. There is a document if all
/// stages, flows and expressions are in it, so that the rest of it can be checked.
pub(super) fn partial(node: Node) -> (Option<Document>, Vec<Diagnostic>) {
    let span = node.span;
    let mut builder = Builder::default();
    let entries = match entries(node, "a pipeline file") {
        Ok(entries) => entries,
        Err(errors) => return (None, errors),
    };
    for (key, value) in entries {
        let is_needed = matches!(key.kind, NodeKind::Symbol(_))
            || matches!(&key.kind, NodeKind::Keyword(name) if NEEDED.contains(&name.name.as_str()));
        let before = builder.errors.len();
        builder.entry(&key, value);
        builder.is_incomplete |= is_needed && builder.errors.len() > before;
    }
    if builder.pipeline.is_none() && builder.errors.is_empty() {
        return (None, vec![missing_pipeline(span, &builder)]);
    }
    let errors = in_order(std::mem::take(&mut builder.errors));
    (builder.finish(), errors)
}

/// The keywords without whose values nothing else can be checked.
const NEEDED: [&str; 2] = ["include", "expressions"];

/// Builds an included file from its top-level map. The errors are in source order.
pub(super) fn fragment(node: Node) -> Result<Fragment, Vec<Diagnostic>> {
    let mut builder = Builder::default();
    for (key, value) in entries(node, "an included file")? {
        match foreign_key(&key) {
            Some(error) => builder.errors.push(error),
            None => builder.entry(&key, value),
        }
    }
    if !builder.errors.is_empty() {
        return Err(in_order(builder.errors));
    }
    Ok(Fragment {
        stages: builder.stages,
        flows: builder.flows,
        expressions: builder.expressions,
        includes: builder.includes,
    })
}

/// The entries of a file's top-level map. `what` names the file in the error.
fn entries(node: Node, what: &str) -> Result<Vec<(Node, Node)>, Vec<Diagnostic>> {
    let found = node.describe();
    match node.kind {
        NodeKind::Map(entries) => Ok(entries),
        kind => {
            let span = node.span;
            let label = format!("expected {{ … }}, found {found}");
            let error = Diagnostic::new(span, format!("{what} must be a map"), label);
            let is_flow = is_flow(&Node {
                kind: kind.clone(),
                span,
            });
            Err(vec![match kind {
                NodeKind::List(stages) if is_flow => {
                    error.with_help(format!("write {{pipeline {}}}", print::list(stages)))
                }
                _ => error,
            }])
        }
    }
}

fn in_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span);
    errors
}

/// The error for a key that only a pipeline file has.
fn foreign_key(key: &Node) -> Option<Diagnostic> {
    let name = match &key.kind {
        NodeKind::Keyword(name) if ["name", "settings", "tests"].contains(&name.name.as_str()) => {
            format!(":{name}")
        }
        NodeKind::Symbol(name) if name.to_string() == "pipeline" => name.to_string(),
        _ => return None,
    };
    let error = Diagnostic::new(
        key.span,
        format!("an included file cannot have `{name}`"),
        "expected stages, named flows, :expressions and :include",
    );
    Some(error.with_help(format!("move `{name}` to the pipeline file")))
}

/// The error for a file without `pipeline`. The help connects the stages in source order, which is
/// right for most files.
fn missing_pipeline(file: Span, builder: &Builder) -> Diagnostic {
    let misspelled = builder.flows.iter().find_map(|named| {
        let name = named.name.to_string();
        nearest(&name, ["pipeline"]).map(|_| (name, named.name_span))
    });
    if let Some((name, span)) = misspelled {
        let label = format!("`{name}` is a named flow");
        return Diagnostic::new(span, "this file has no `pipeline`", label)
            .with_help("did you mean `pipeline`?");
    }
    let flow = match (builder.flows.as_slice(), builder.stages.as_slice()) {
        ([], [only]) => format!("(-> {} (stdout))", only.name),
        ([only], _) => only.name.to_string(),
        (_, []) => "(-> source sink)".to_owned(),
        (_, stages) => {
            let names: Vec<String> = stages.iter().map(|stage| stage.name.to_string()).collect();
            format!("(-> {})", names.join(" "))
        }
    };
    let begin = Span {
        end: file.start.saturating_add(1).min(file.end),
        ..file
    };
    Diagnostic::new(
        begin,
        "this file has no `pipeline`",
        "expected a key `pipeline` with a flow",
    )
    .with_help(format!("add `pipeline {flow}`"))
}

#[derive(Default)]
pub(super) struct Builder {
    name: Option<(String, Span)>,
    settings: Vec<(Name, Span, Node)>,
    stages: Vec<Stage>,
    flows: Vec<NamedFlow>,
    pub(super) expressions: Vec<NamedExpression>,
    includes: Vec<Include>,
    pipeline: Option<Flow>,
    tests: Vec<Test>,
    errors: Vec<Diagnostic>,
    /// Whether a stage, a flow or an expression could not be built.
    is_incomplete: bool,
}

impl Builder {
    /// The document; `None` if a part of it is missing to which the rest may refer.
    fn finish(self) -> Option<Document> {
        if self.is_incomplete {
            return None;
        }
        Some(Document {
            name: self.name,
            settings: self.settings,
            stages: self.stages,
            flows: self.flows,
            expressions: self.expressions,
            includes: self.includes,
            pipeline: self.pipeline?,
            tests: self.tests,
            substituted: Vec::new(),
        })
    }

    pub(super) fn report(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.errors.push(Diagnostic::new(span, message, label));
    }

    fn entry(&mut self, key: &Node, value: Node) {
        match &key.kind {
            NodeKind::Keyword(keyword) => match keyword.to_string().as_str() {
                "name" => {
                    self.name = self
                        .text(&value, "the pipeline name")
                        .map(|name| (name, value.span))
                }
                "settings" => self.settings(value),
                "include" => self.includes(value),
                "expressions" => self.expressions(value),
                "tests" => self.tests(value),
                unknown => self.unknown_keyword(unknown, key.span, &KEYWORDS),
            },
            NodeKind::Symbol(name) if name.to_string() == "pipeline" => {
                self.pipeline = flow(&value, &mut self.errors)
            }
            NodeKind::Symbol(name) => self.stage(name, key.span, value),
            _ => {
                let label = "expected a symbol (a stage name or `pipeline`) or a keyword";
                self.report(
                    key.span,
                    format!("{} cannot be a key in a pipeline file", key.describe()),
                    label,
                );
            }
        }
    }

    fn unknown_keyword(&mut self, unknown: &str, span: Span, known: &[&'static str]) {
        let listed: Vec<String> = known.iter().map(|name| format!(":{name}")).collect();
        let error = Diagnostic::new(
            span,
            format!("unknown key `:{unknown}`"),
            format!("expected one of {}", listed.join(", ")),
        );
        let help =
            nearest(unknown, known.iter().copied()).map(|near| format!("did you mean `:{near}`?"));
        self.errors.push(Diagnostic { help, ..error });
    }

    /// The value of a non-empty string. `what` names it in errors.
    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.kind {
            NodeKind::Str(text) if !text.value.trim().is_empty() => {
                return Some(text.value.clone());
            }
            NodeKind::Str(_) => self.report(
                node.span,
                format!("{what} is empty"),
                "expected a non-empty string",
            ),
            _ => self.report(
                node.span,
                format!("{what} must be a string"),
                format!("expected a string, found {}", node.describe()),
            ),
        }
        None
    }

    fn settings(&mut self, value: Node) {
        let found = value.describe();
        let NodeKind::Map(entries) = value.kind else {
            self.report(
                value.span,
                "`:settings` must be a map",
                format!("expected {{ … }}, found {found}"),
            );
            return;
        };
        for (key, value) in entries {
            match key.kind {
                NodeKind::Keyword(name) => self.settings.push((name, key.span, value)),
                _ => self.report(
                    key.span,
                    format!("{} cannot name a setting", key.describe()),
                    "expected a keyword such as :etl-threads",
                ),
            }
        }
    }

    /// The paths of `:include`: one, or a vector of them.
    fn includes(&mut self, value: Node) {
        let paths = match value.kind {
            NodeKind::Vector(paths) | NodeKind::List(paths) => paths,
            _ => vec![value],
        };
        for node in paths {
            if let Some(path) = self.text(&node, "a path of `:include`") {
                let span = node.span;
                self.includes.push(Include { path, span });
            }
        }
    }

    /// The error for a name that another stage or flow has. The reader of EDN finds keys that are
    /// equal, but in TOML stages and flows have two tables.
    fn defined_twice(&self, name: &Name, span: Span) -> Option<Diagnostic> {
        let stages = self.stages.iter();
        let stages = stages.map(|stage| (&stage.name, stage.name_span));
        let flows = self.flows.iter();
        let flows = flows.map(|named| (&named.name, named.name_span));
        let (_, first) = stages.chain(flows).find(|(known, _)| *known == name)?;
        let label = "another stage or flow has this name";
        let error = Diagnostic::new(span, format!("`{name}` is defined twice"), label);
        Some(Diagnostic {
            first: Some(Box::new(first)),
            ..error
        })
    }

    /// A named stage, or a named flow.
    fn stage(&mut self, name: &Name, name_span: Span, value: Node) {
        if is_form(name) {
            self.report(
                name_span,
                format!("`{name}` is reserved and cannot name a stage"),
                "this word combines stages",
            );
            return;
        }
        if let Some(error) = self.defined_twice(name, name_span) {
            self.errors.push(error);
            return;
        }
        if is_flow(&value) {
            if let Some(flow) = flow(&value, &mut self.errors) {
                self.flows.push(NamedFlow {
                    name: name.clone(),
                    name_span,
                    flow,
                    included: false,
                });
            }
            return;
        }
        let call = match &value.kind {
            NodeKind::List(_) => call(&value, &mut self.errors),
            NodeKind::Symbol(plugin) if !is_form(plugin) => Some(Call {
                plugin: plugin.clone(),
                plugin_span: value.span,
                args: Vec::new(),
                span: value.span,
            }),
            NodeKind::Symbol(form) => {
                let message = format!("`{form}` combines stages and is not itself a stage");
                self.report(
                    value.span,
                    message,
                    format!("expected a plugin, or ({form} …)"),
                );
                None
            }
            _ => {
                let label = format!("expected (plugin …) or (-> …), found {}", value.describe());
                let message = format!("`{name}` must be a stage or a flow");
                self.report(value.span, message, label);
                None
            }
        };
        if let Some(call) = call {
            self.stages.push(Stage {
                name: name.clone(),
                name_span,
                call,
                included: false,
            });
        }
    }

    fn tests(&mut self, value: Node) {
        let found = value.describe();
        let (NodeKind::Vector(entries) | NodeKind::List(entries)) = value.kind else {
            self.report(
                value.span,
                "`:tests` must be a vector of maps",
                format!("expected [ … ], found {found}"),
            );
            return;
        };
        for entry in entries {
            if let Some(test) = self.test(entry) {
                self.tests.push(test);
            }
        }
    }

    fn test(&mut self, entry: Node) -> Option<Test> {
        let (span, found) = (entry.span, entry.describe());
        let NodeKind::Map(entries) = entry.kind else {
            self.report(
                span,
                "a test must be a map",
                format!("expected {{:name … :at … :input […] :output […]}}, found {found}"),
            );
            return None;
        };
        let before = self.errors.len();
        let (mut name, mut at, mut input, mut output) = (None, None, None, None);
        let mut given = Vec::new();
        for (key, value) in entries {
            let NodeKind::Keyword(keyword) = &key.kind else {
                self.report(
                    key.span,
                    format!("{} cannot be a key of a test", key.describe()),
                    "expected a keyword",
                );
                continue;
            };
            let keyword = keyword.to_string();
            match keyword.as_str() {
                "name" => name = self.text(&value, "the test name"),
                "at" => at = self.stage_name(&value),
                "input" => input = self.records(value, ":input"),
                "output" => output = self.records(value, ":output"),
                unknown => self.unknown_keyword(unknown, key.span, &TEST_KEYWORDS),
            }
            given.push(keyword);
        }
        for missing in TEST_KEYWORDS
            .iter()
            .filter(|keyword| !given.iter().any(|given| given == *keyword))
        {
            self.report(
                span,
                format!("missing required key `:{missing}`"),
                "a test requires :name, :at, :input and :output",
            );
        }
        if self.errors.len() > before {
            return None;
        }
        Some(Test {
            name: name?,
            at: at?,
            input: input?,
            output: output?,
            span,
        })
    }

    /// The name of a stage: a symbol, or in TOML a string.
    fn stage_name(&mut self, value: &Node) -> Option<(Name, Span)> {
        match &value.kind {
            NodeKind::Symbol(name) => Some((name.clone(), value.span)),
            NodeKind::Str(text) => Some((Name::plain(&text.value), value.span)),
            _ => {
                self.report(
                    value.span,
                    "`:at` must name a stage",
                    format!("expected a symbol, found {}", value.describe()),
                );
                None
            }
        }
    }

    fn records(&mut self, value: Node, key: &str) -> Option<Vec<Node>> {
        let found = value.describe();
        match value.kind {
            NodeKind::Vector(records) | NodeKind::List(records) => Some(records),
            _ => {
                self.report(
                    value.span,
                    format!("`{key}` must be a vector of records"),
                    format!("expected [ … ], found {found}"),
                );
                None
            }
        }
    }
}
