//! Chains: what is done with a source's records, compiled.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pseidon_delivery::SinkId;
use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::{Expr, ExprKind, Path, SelectItem, Step as PathStep};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::{Column, Compiled, Scope, compile};
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::options::{OnError, Options};
use pseidon_plugin::registry::Registry;
use pseidon_plugin::sink::{PreparedSink, Protocol, RecordShape, SinkInput, SinkPlugin};
use pseidon_plugin::source::{Source, SourceFacts};
use regex::Regex;

use crate::columns::{
    SourceColumns, column_name, fields_except, names_field, names_topic, unknown_fields,
};
use crate::quarantine;
use crate::resolve::{Resolved, ResolvedStep, StepKind, on_error_of};

/// A source with its chain.
pub struct PlannedSource {
    /// The stage's name.
    pub stage: String,
    /// Its declaration's name: `kafka`.
    pub plugin: &'static str,
    /// The source.
    pub source: Arc<dyn Source>,
    /// What it is like.
    pub facts: SourceFacts,
    /// The format of its records.
    pub format: Arc<dyn Format>,
    /// The settings in the format's text.
    pub format_settings: String,
    /// What is decoded, and which metadata is read.
    pub columns: SourceColumns,
    /// The decoded columns as a schema.
    pub schema: SchemaRef,
    /// What happens to records that cannot be decoded.
    pub policy: Policy,
    /// What its records go through.
    pub chain: Chain,
    /// The sinks they reach, as numbers in [`Plan::sinks`](crate::Plan::sinks); the quarantine too.
    pub sinks: Vec<usize>,
}

/// Steps that rows go through one after another.
#[derive(Default)]
pub struct Chain {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step.
pub struct Step {
    /// The stage's name.
    pub stage: String,
    /// What it does.
    pub operator: Operator,
    /// What happens to rows that are bad here.
    pub policy: Policy,
    /// The record after it, where the step gave it columns.
    pub shape: Option<SchemaRef>,
}

/// What a step does.
pub enum Operator {
    /// Lets rows pass for which this is true.
    Where(Compiled),
    /// Makes the record anew.
    Select(Vec<Compiled>, SchemaRef),
    /// Each chain gets the same rows; they go on.
    All(Vec<Chain>),
    /// The first chain whose matcher fits takes the rows.
    Match {
        /// Matchers and chains.
        branches: Vec<(Matcher, Chain)>,
        /// What takes the rest.
        otherwise: Option<Chain>,
    },
    /// Rows leave here, and go on.
    Sink(usize),
}

/// What `match` asks of a topic.
pub enum Matcher {
    /// Equal.
    Text(String),
    /// Found in it.
    Regex(Regex),
}

impl Matcher {
    /// Whether it fits.
    pub fn fits(&self, topic: &str) -> bool {
        match self {
            Matcher::Text(text) => text == topic,
            Matcher::Regex(regex) => regex.is_match(topic),
        }
    }
}

/// What happens to bad rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The run ends.
    Throw,
    /// They are counted and dropped.
    Noop,
    /// They go to this sink.
    Quarantine(usize),
}

/// A sink at one place of the flow.
pub struct PlannedSink {
    /// Its lasting name.
    pub id: SinkId,
    /// Its declaration's name: `files`.
    pub plugin: &'static str,
    /// The sink.
    pub prepared: Arc<dyn PreparedSink>,
    /// How it makes lanes durable.
    pub protocol: Protocol,
    /// Whether it takes bad rows.
    pub is_quarantine: bool,
    /// How often and after which wait a failure that may pass is tried again; `None` is without
    /// end.
    pub retry: Option<(u64, std::time::Duration)>,
}

/// The record's shape at a point of the flow.
#[derive(Clone)]
enum Shape {
    /// As it came; the scope has the decoded paths.
    AsCame,
    /// The columns of a `select`.
    Columns(SchemaRef),
}

/// Compiles the chain of one source after another.
pub(crate) struct Compiler<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) pipeline: &'a str,
    pub(crate) sinks: Vec<PlannedSink>,
    /// For each sink: the expressions before and in it that do not always give the same.
    pub(crate) nondeterminism: Vec<Vec<String>>,
    pub(crate) mistakes: Vec<Diagnostic>,
}

/// What holds for a whole chain while it is compiled.
struct Flow<'s> {
    format: String,
    schema: Option<&'s SchemaRef>,
    wanted: &'s [WantedColumn],
    /// Folders where bad rows go, each with its sink.
    quarantines: Vec<(String, usize)>,
    default_quarantine: String,
    source: String,
    topic_may_change: bool,
    sinks: Vec<usize>,
}

impl Compiler<'_> {
    pub(crate) fn source(
        &mut self,
        resolved: &Resolved,
        source: Arc<dyn Source>,
        facts: SourceFacts,
        format: Arc<dyn Format>,
        schema: Option<&SchemaRef>,
        columns: SourceColumns,
    ) -> Option<PlannedSource> {
        let (format_name, format_settings) = split_format(&facts.format);
        let mut flow = Flow {
            format: format_name.to_owned(),
            schema,
            wanted: &columns.wanted,
            quarantines: Vec::new(),
            default_quarantine: quarantine::folder(&resolved.chain),
            source: resolved.stage.clone(),
            topic_may_change: facts.topic_may_change,
            sinks: Vec::new(),
        };
        let policy = self.policy(&on_error_of(&resolved.options), &mut flow);
        let (chain, _) = self.chain(&resolved.chain, Shape::AsCame, &[], &mut flow);
        let schema = Arc::new(Schema::new(
            columns
                .wanted
                .iter()
                .map(|column| column.field.clone())
                .collect::<Vec<_>>(),
        ));
        let sinks = flow.sinks;
        let format_settings = format_settings.to_owned();
        Some(PlannedSource {
            stage: resolved.stage.clone(),
            plugin: resolved.plugin.spec().name,
            source,
            facts,
            format,
            format_settings,
            schema,
            policy: policy?,
            chain,
            sinks,
            columns,
        })
    }

    fn chain(
        &mut self,
        steps: &[ResolvedStep],
        mut shape: Shape,
        before: &[String],
        flow: &mut Flow<'_>,
    ) -> (Chain, Shape) {
        let mut chain = Chain::default();
        let mut before = before.to_vec();
        for (at, step) in steps.iter().enumerate() {
            let last = at + 1 == steps.len();
            match self.step(step, shape.clone(), &mut before, last, flow) {
                Some((compiled, next)) => {
                    shape = next;
                    chain.steps.extend(compiled);
                }
                // What comes after a step that is wrong can be checked only if it is known which
                // columns it leaves.
                None if matches!(step.kind, StepKind::Where(_) | StepKind::Sink(..)) => {}
                None => break,
            }
        }
        (chain, shape)
    }

    fn step(
        &mut self,
        step: &ResolvedStep,
        shape: Shape,
        before: &mut Vec<String>,
        last: bool,
        flow: &mut Flow<'_>,
    ) -> Option<(Vec<Step>, Shape)> {
        let scope = scope_of(&shape, flow.wanted);
        match &step.kind {
            StepKind::Where(condition) => {
                let compiled = self.compile(condition, &scope, before)?;
                note_topic(condition, flow, before);
                if !matches!(
                    compiled.field().data_type(),
                    arrow::datatypes::DataType::Boolean
                ) {
                    let label = format!(
                        "this is {}",
                        pseidon_expr::types::field_type_name(compiled.field())
                    );
                    self.mistakes.push(Diagnostic::new(
                        condition.span,
                        "a condition must be true or false",
                        label,
                    ));
                    return None;
                }
                let policy = self.policy(&step.on_error, flow)?;
                let step = Step {
                    stage: step.stage.clone(),
                    operator: Operator::Where(compiled),
                    policy,
                    shape: None,
                };
                Some((vec![step], shape))
            }
            StepKind::Select(items) => {
                let (compiled, schema) = self.select(items, &shape, &scope, before, flow)?;
                let policy = self.policy(&step.on_error, flow)?;
                let operator = Operator::Select(compiled, schema.clone());
                let step = Step {
                    stage: step.stage.clone(),
                    operator,
                    policy,
                    shape: Some(schema.clone()),
                };
                Some((vec![step], Shape::Columns(schema)))
            }
            StepKind::All(branches) => {
                let chains = branches
                    .iter()
                    .map(|branch| self.chain(branch, shape.clone(), before, flow).0)
                    .collect();
                let step = Step {
                    stage: step.stage.clone(),
                    operator: Operator::All(chains),
                    policy: Policy::Throw,
                    shape: None,
                };
                Some((vec![step], shape))
            }
            StepKind::Match {
                branches,
                otherwise,
            } => {
                if flow.topic_may_change {
                    before.push("@topic".to_owned());
                }
                let mut ends = Vec::new();
                let mut compile = |compiler: &mut Self, chain: &[ResolvedStep]| {
                    let (compiled, end) = compiler.chain(chain, shape.clone(), before, flow);
                    if !ends_in_sink(chain) {
                        ends.push(end);
                    }
                    compiled
                };
                let mut compiled = Vec::new();
                for (pattern, chain) in branches {
                    compiled.push((matcher(pattern), compile(self, chain)));
                }
                let otherwise_compiled = otherwise.as_ref().map(|chain| compile(self, chain));
                if otherwise.is_none() {
                    ends.push(shape.clone());
                }
                let end = ends.first().cloned().unwrap_or_else(|| shape.clone());
                if !last && !ends.iter().all(|other| same_shape(&end, other)) {
                    let mistake = Diagnostic::new(
                        step.span,
                        "the records that leave this `match` differ in their columns",
                        "what follows cannot read both",
                    );
                    self.mistakes.push(mistake.with_help(
                        "end the branches in sinks, or let each branch select the same columns",
                    ));
                    return None;
                }
                let branches = compiled
                    .into_iter()
                    .map(|(matcher, chain)| matcher.map(|matcher| (matcher, chain)))
                    .collect::<Option<_>>()?;
                let operator = Operator::Match {
                    branches,
                    otherwise: otherwise_compiled,
                };
                Some((
                    vec![Step {
                        stage: step.stage.clone(),
                        operator,
                        policy: Policy::Throw,
                        shape: None,
                    }],
                    end,
                ))
            }
            StepKind::Sink(plugin, options) => {
                self.sink_step(step, plugin, options, shape, before, flow)
            }
        }
    }

    fn sink_step(
        &mut self,
        step: &ResolvedStep,
        plugin: &Arc<dyn SinkPlugin>,
        options: &Options,
        shape: Shape,
        before: &[String],
        flow: &mut Flow<'_>,
    ) -> Option<(Vec<Step>, Shape)> {
        let facts = plugin.facts(options);
        // A sink that needs typed columns gets all fields of the record, in an `all` of its own so
        // that the record goes on as it came.
        if facts.typed && matches!(shape, Shape::AsCame) {
            let every_field = [SelectItem::All {
                except: Vec::new(),
                span: step.span,
            }];
            let scope = scope_of(&shape, flow.wanted);
            let (compiled, schema) =
                self.select(&every_field, &shape, &scope, &mut Vec::new(), flow)?;
            let fields = Shape::Columns(schema.clone());
            let policy = self.policy(&step.on_error, flow)?;
            let select = Step {
                stage: step.stage.clone(),
                operator: Operator::Select(compiled, schema.clone()),
                policy,
                shape: Some(schema),
            };
            let (mut steps, _) = self.sink_step(step, plugin, options, fields, before, flow)?;
            steps.insert(0, select);
            let operator = Operator::All(vec![Chain { steps }]);
            return Some((
                vec![Step {
                    stage: step.stage.clone(),
                    operator,
                    policy,
                    shape: None,
                }],
                shape,
            ));
        }
        let record = match &shape {
            Shape::AsCame => RecordShape::AsCame {
                format: flow.format.clone(),
            },
            Shape::Columns(schema) => RecordShape::Columns(schema.clone()),
        };
        let input = SinkInput {
            scope: scope_of(&shape, flow.wanted),
            record,
        };
        let prepared = match plugin.prepare(options, &input) {
            Ok(prepared) => prepared,
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                return None;
            }
        };
        let mut nondeterminism = before.to_vec();
        nondeterminism.extend(prepared.nondeterminism());
        if flow.topic_may_change && options.exprs().into_iter().any(names_topic) {
            nondeterminism.push("@topic".to_owned());
        }
        let policy = self.policy(&step.on_error, flow)?;
        let retry = match &step.on_error {
            OnError::Retry {
                times, interval, ..
            } => Some((*times, *interval)),
            _ => None,
        };
        let number = self.add_sink(PlannedSink {
            id: SinkId::from(step.stage.as_str()),
            plugin: plugin.spec().name,
            prepared,
            protocol: facts.protocol,
            is_quarantine: false,
            retry,
        });
        self.nondeterminism[number] = nondeterminism;
        flow.sinks.push(number);
        Some((
            vec![Step {
                stage: step.stage.clone(),
                operator: Operator::Sink(number),
                policy,
                shape: None,
            }],
            shape,
        ))
    }

    fn add_sink(&mut self, sink: PlannedSink) -> usize {
        self.sinks.push(sink);
        self.nondeterminism.push(Vec::new());
        self.sinks.len() - 1
    }

    fn select(
        &mut self,
        items: &[SelectItem],
        shape: &Shape,
        scope: &Scope,
        before: &mut Vec<String>,
        flow: &Flow<'_>,
    ) -> Option<(Vec<Compiled>, SchemaRef)> {
        let mut compiled = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut complete = true;
        for item in items {
            let (exprs, span): (Vec<(Expr, String)>, Span) = match item {
                SelectItem::Column { expr, name } => (
                    vec![(expr.clone(), column_name(expr, name.as_ref()))],
                    expr.span,
                ),
                SelectItem::All { except, span } => {
                    let schema = match shape {
                        Shape::Columns(schema) => Some(schema),
                        Shape::AsCame => flow.schema,
                    };
                    let Some(schema) = schema else {
                        self.mistakes.push(unknown_fields(*span));
                        return None;
                    };
                    self.check_except(except, schema);
                    let column = |field: &FieldRef| {
                        let path = Path(vec![PathStep::Field(field.name().clone())]);
                        (
                            Expr {
                                kind: ExprKind::Path(path),
                                span: *span,
                            },
                            field.name().clone(),
                        )
                    };
                    (
                        fields_except(schema, except).iter().map(column).collect(),
                        *span,
                    )
                }
            };
            for (expr, name) in exprs {
                note_topic(&expr, flow, before);
                let Some(value) = self.compile(&expr, scope, before) else {
                    complete = false;
                    continue;
                };
                if fields.iter().any(|field| *field.name() == name) {
                    let mistake = Diagnostic::new(
                        span,
                        format!("two columns are called `{name}`"),
                        "the second one",
                    );
                    self.mistakes
                        .push(mistake.with_help("give one of them another name with `as`"));
                    complete = false;
                    continue;
                }
                fields.push(Arc::new(
                    value
                        .field()
                        .as_ref()
                        .clone()
                        .with_name(name)
                        .with_nullable(true),
                ));
                compiled.push(value);
            }
        }
        complete.then(|| (compiled, Arc::new(Schema::new(fields))))
    }

    fn check_except(&mut self, except: &[(Path, Span)], schema: &SchemaRef) {
        for (path, span) in except {
            let name = path.to_string();
            if schema
                .fields()
                .iter()
                .any(|field| names_field(path, field.name()))
            {
                continue;
            }
            let mistake = Diagnostic::new(
                *span,
                format!("there is no field `{name}` to leave out"),
                "no such field",
            );
            self.mistakes.push(
                match pseidon_dsl::nearest(
                    &name,
                    schema.fields().iter().map(|field| field.name().as_str()),
                ) {
                    Some(near) => mistake.with_help(format!("did you mean `{near}`?")),
                    None => mistake,
                },
            );
        }
    }

    fn compile(
        &mut self,
        expr: &Expr,
        scope: &Scope,
        before: &mut Vec<String>,
    ) -> Option<Compiled> {
        match compile(expr, scope) {
            Ok(compiled) => {
                if !compiled.is_deterministic() {
                    before.push(expr.to_string());
                }
                Some(compiled)
            }
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                None
            }
        }
    }

    fn policy(&mut self, on_error: &OnError, flow: &mut Flow<'_>) -> Option<Policy> {
        match on_error {
            OnError::Throw => Some(Policy::Throw),
            OnError::Noop => Some(Policy::Noop),
            OnError::Retry { then, .. } => self.policy(then, flow),
            OnError::Quarantine { path } => {
                let folder = path
                    .clone()
                    .unwrap_or_else(|| flow.default_quarantine.clone());
                if let Some((_, number)) =
                    flow.quarantines.iter().find(|(known, _)| *known == folder)
                {
                    return Some(Policy::Quarantine(*number));
                }
                let number = self.add_quarantine(&folder, flow)?;
                flow.quarantines.push((folder, number));
                Some(Policy::Quarantine(number))
            }
        }
    }

    /// Bad rows are written by the `files` sink, as one JSON object each.
    fn add_quarantine(&mut self, folder: &str, flow: &mut Flow<'_>) -> Option<usize> {
        let Some(plugin) = self.registry.sink("files").cloned() else {
            let mistake = Diagnostic::new(
                Span::default(),
                "bad records cannot be put aside",
                "this build has no sink `files`",
            );
            self.mistakes
                .push(mistake.with_help("say :on-error :noop or :throw"));
            return None;
        };
        let schema = quarantine::schema();
        let options = match quarantine::options(plugin.as_ref(), folder, self.pipeline) {
            Ok(options) => options,
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                return None;
            }
        };
        let input = SinkInput {
            scope: scope_of(&Shape::Columns(schema.clone()), &[]),
            record: RecordShape::Columns(schema),
        };
        let prepared = match plugin.prepare(&options, &input) {
            Ok(prepared) => prepared,
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                return None;
            }
        };
        let count = flow.quarantines.len();
        let id = if count == 0 {
            format!("{}.quarantine", flow.source)
        } else {
            format!("{}.quarantine#{}", flow.source, count + 1)
        };
        let number = self.add_sink(PlannedSink {
            id: SinkId::from(id),
            plugin: plugin.spec().name,
            prepared,
            protocol: plugin.facts(&options).protocol,
            is_quarantine: true,
            retry: None,
        });
        flow.sinks.push(number);
        Some(number)
    }
}

/// `json` and the text after the colon, if there is one.
pub(crate) fn split_format(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// Where a topic may be another one at the next reading, what is made of it may be too.
fn note_topic(expr: &Expr, flow: &Flow<'_>, before: &mut Vec<String>) {
    if flow.topic_may_change && names_topic(expr) {
        before.push("@topic".to_owned());
    }
}

fn scope_of(shape: &Shape, wanted: &[WantedColumn]) -> Scope {
    let columns = match shape {
        Shape::AsCame => wanted
            .iter()
            .map(|column| Column {
                path: column.path.clone(),
                field: column.field.clone(),
            })
            .collect(),
        Shape::Columns(schema) => {
            let column = |field: &FieldRef| Column {
                path: Path(vec![PathStep::Field(field.name().clone())]),
                field: field.clone(),
            };
            schema.fields().iter().map(column).collect()
        }
    };
    Scope { columns }
}

fn same_shape(one: &Shape, other: &Shape) -> bool {
    match (one, other) {
        (Shape::AsCame, Shape::AsCame) => true,
        (Shape::Columns(one), Shape::Columns(other)) => one == other,
        _ => false,
    }
}

fn ends_in_sink(chain: &[ResolvedStep]) -> bool {
    matches!(
        chain.last().map(|step| &step.kind),
        Some(StepKind::Sink(..))
    )
}

fn matcher(pattern: &Pattern) -> Option<Matcher> {
    match pattern {
        Pattern::Text(text) => Some(Matcher::Text(text.clone())),
        // The reader of the file has checked it.
        Pattern::Regex(text) => Regex::new(&text.value).ok().map(Matcher::Regex),
    }
}
