//! Chains: the compiled steps that process the records of a source.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pseidon_delivery::SinkId;
use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::{Expr, ExprKind, Path, PathStep, SelectItem};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::{Column, CompiledExpr, Scope, compile};
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::options::{OnError, Options};
use pseidon_plugin::registry::Registry;
use pseidon_plugin::sink::{PreparedSink, Protocol, RecordShape, SinkInput, SinkPlugin};
use pseidon_plugin::source::{Source, SourceFacts};
use regex::Regex;

use crate::columns::{
    SourceColumns, column_name, fields_except, is_field, unknown_fields, uses_topic,
};
use crate::quarantine;
use crate::resolve::{ResolvedSource, ResolvedStep, ResolvedStepKind, on_error_of};

/// A source with its chain.
pub struct PlannedSource {
    /// The name of the stage.
    pub stage: String,
    /// The name of the plugin, such as `kafka`.
    pub plugin: &'static str,
    /// The prepared source.
    pub source: Arc<dyn Source>,
    /// The properties of the source.
    pub facts: SourceFacts,
    /// The format of its records.
    pub format: Arc<dyn Format>,
    /// The settings of the format: the part of the option after the colon, or an empty string.
    pub format_settings: String,
    /// The columns to decode and the metadata to read.
    pub columns: SourceColumns,
    /// The decoded columns as a schema.
    pub schema: SchemaRef,
    /// The handling of records that cannot be decoded.
    pub policy: Policy,
    /// The steps that process its records.
    pub chain: Chain,
    /// The sinks that its records can reach, including quarantines, as indexes into
    /// [`Plan::sinks`](crate::Plan::sinks).
    pub sinks: Vec<usize>,
}

/// A sequence of steps.
#[derive(Default)]
pub struct Chain {
    /// The steps, in order. Empty for a chain that passes on its input.
    pub steps: Vec<ChainStep>,
}

/// A compiled step of a chain.
pub struct ChainStep {
    /// The name of the stage.
    pub stage: String,
    /// The operation of the step.
    pub operator: Operator,
    /// The handling of rows that are invalid in this step.
    pub policy: Policy,
    /// The columns of the record after this step. `None` if the step does not change the columns.
    pub shape: Option<SchemaRef>,
}

/// The operation of a step.
pub enum Operator {
    /// Passes on the rows for which this condition is true.
    Where(CompiledExpr),
    /// Builds a new record from these columns, with this schema.
    Select(Vec<CompiledExpr>, SchemaRef),
    /// Each chain receives the same rows. The rows are passed on.
    All(Vec<Chain>),
    /// A row goes to the first chain whose matcher matches its topic.
    Match {
        /// The matchers with their chains, in order.
        branches: Vec<(Matcher, Chain)>,
        /// The chain for all other rows. Without it, they are passed on.
        otherwise: Option<Chain>,
    },
    /// Writes rows to the sink with this index, and passes them on.
    Sink(usize),
}

/// A compiled pattern of `match`.
pub enum Matcher {
    /// Matches a topic that is equal to this string.
    Text(String),
    /// Matches a topic that contains a match of this regular expression.
    Regex(Regex),
}

impl Matcher {
    /// Whether the pattern matches a topic.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Matcher::Text(text) => text == topic,
            Matcher::Regex(regex) => regex.is_match(topic),
        }
    }
}

/// The handling of invalid rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The run fails.
    Throw,
    /// The rows are counted and dropped.
    Noop,
    /// The rows are written to the sink with this index.
    Quarantine(usize),
}

/// A use of a sink in the flow.
pub struct PlannedSink {
    /// Its name in the state store.
    pub id: SinkId,
    /// The name of the plugin, such as `files`.
    pub plugin: &'static str,
    /// The prepared sink.
    pub prepared: Arc<dyn PreparedSink>,
    /// The protocol by which it makes lanes durable.
    pub protocol: Protocol,
    /// Whether it is a quarantine, which receives only invalid rows.
    pub is_quarantine: bool,
    /// The number of retries after a transient failure, and the wait before each. `None` retries
    /// without a limit.
    pub retry: Option<(u64, std::time::Duration)>,
}

/// The shape of records at a point of the flow.
#[derive(Clone)]
enum Shape {
    /// The original record. Its columns are the decoded paths.
    Original,
    /// A record with the columns of a `select`.
    Columns(SchemaRef),
}

/// Compiles the chains of all sources.
pub(crate) struct Compiler<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) pipeline: &'a str,
    pub(crate) sinks: Vec<PlannedSink>,
    /// For each sink, the nondeterministic expressions before it and in it.
    pub(crate) nondeterminism: Vec<Vec<String>>,
    pub(crate) errors: Vec<Diagnostic>,
}

/// The state of the compilation of one source's chain.
struct ChainContext<'s> {
    format: String,
    schema: Option<&'s SchemaRef>,
    wanted: &'s [WantedColumn],
    /// The folders of quarantines, each with the index of its sink.
    quarantines: Vec<(String, usize)>,
    default_quarantine: String,
    source: String,
    topic_may_change: bool,
    sinks: Vec<usize>,
}

impl Compiler<'_> {
    pub(crate) fn source(
        &mut self,
        resolved: &ResolvedSource,
        source: Arc<dyn Source>,
        facts: SourceFacts,
        format: Arc<dyn Format>,
        schema: Option<&SchemaRef>,
        columns: SourceColumns,
    ) -> Option<PlannedSource> {
        let (format_name, format_settings) = split_format(&facts.format);
        let mut flow = ChainContext {
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
        let (chain, _) = self.chain(&resolved.chain, Shape::Original, &[], &mut flow);
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
        flow: &mut ChainContext<'_>,
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
                // The steps after an invalid step can be checked only if the columns after it are
                // known.
                None if matches!(
                    step.kind,
                    ResolvedStepKind::Where(_) | ResolvedStepKind::Sink(..)
                ) => {}
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
        flow: &mut ChainContext<'_>,
    ) -> Option<(Vec<ChainStep>, Shape)> {
        let scope = scope_of(&shape, flow.wanted);
        match &step.kind {
            ResolvedStepKind::Where(condition) => {
                let compiled = self.compile(condition, &scope, before)?;
                record_topic_use(condition, flow, before);
                if !matches!(
                    compiled.field().data_type(),
                    arrow::datatypes::DataType::Boolean
                ) {
                    let label = format!(
                        "this is {}",
                        pseidon_expr::types::field_type_name(compiled.field())
                    );
                    let error = Diagnostic::new(
                        condition.span,
                        "the condition of `where` must be boolean",
                        label,
                    );
                    self.errors
                        .push(error.with_help("compare it with a value, for example: x <> 0"));
                    return None;
                }
                let policy = self.policy(&step.on_error, flow)?;
                let step = ChainStep {
                    stage: step.stage.clone(),
                    operator: Operator::Where(compiled),
                    policy,
                    shape: None,
                };
                Some((vec![step], shape))
            }
            ResolvedStepKind::Select(items) => {
                let (compiled, schema) = self.select(items, &shape, &scope, before, flow)?;
                let policy = self.policy(&step.on_error, flow)?;
                let operator = Operator::Select(compiled, schema.clone());
                let step = ChainStep {
                    stage: step.stage.clone(),
                    operator,
                    policy,
                    shape: Some(schema.clone()),
                };
                Some((vec![step], Shape::Columns(schema)))
            }
            ResolvedStepKind::All(branches) => {
                let chains = branches
                    .iter()
                    .map(|branch| self.chain(branch, shape.clone(), before, flow).0)
                    .collect();
                let step = ChainStep {
                    stage: step.stage.clone(),
                    operator: Operator::All(chains),
                    policy: Policy::Throw,
                    shape: None,
                };
                Some((vec![step], shape))
            }
            ResolvedStepKind::Match {
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
                    let error = Diagnostic::new(
                        step.span,
                        "the branches of this `match` pass on records with different columns",
                        "the next stage requires the same columns",
                    );
                    self.errors.push(error.with_help(
                        "end each branch with a sink, or select the same columns in each branch",
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
                    vec![ChainStep {
                        stage: step.stage.clone(),
                        operator,
                        policy: Policy::Throw,
                        shape: None,
                    }],
                    end,
                ))
            }
            ResolvedStepKind::Sink(plugin, options) => {
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
        flow: &mut ChainContext<'_>,
    ) -> Option<(Vec<ChainStep>, Shape)> {
        let facts = plugin.facts(options);
        // A sink that requires typed columns receives all fields of the record. Its `select` is in
        // a separate `all`, so that the original record is passed on.
        if facts.typed && matches!(shape, Shape::Original) {
            let every_field = [SelectItem::All {
                except: Vec::new(),
                span: step.span,
            }];
            let scope = scope_of(&shape, flow.wanted);
            let (compiled, schema) =
                self.select(&every_field, &shape, &scope, &mut Vec::new(), flow)?;
            let fields = Shape::Columns(schema.clone());
            let policy = self.policy(&step.on_error, flow)?;
            let select = ChainStep {
                stage: step.stage.clone(),
                operator: Operator::Select(compiled, schema.clone()),
                policy,
                shape: Some(schema),
            };
            let (mut steps, _) = self.sink_step(step, plugin, options, fields, before, flow)?;
            steps.insert(0, select);
            let operator = Operator::All(vec![Chain { steps }]);
            return Some((
                vec![ChainStep {
                    stage: step.stage.clone(),
                    operator,
                    policy,
                    shape: None,
                }],
                shape,
            ));
        }
        let record = match &shape {
            Shape::Original => RecordShape::AsCame {
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
            Err(errors) => {
                self.errors.extend(errors);
                return None;
            }
        };
        let mut nondeterminism = before.to_vec();
        nondeterminism.extend(prepared.nondeterminism());
        if flow.topic_may_change && options.exprs().into_iter().any(uses_topic) {
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
            vec![ChainStep {
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
        flow: &ChainContext<'_>,
    ) -> Option<(Vec<CompiledExpr>, SchemaRef)> {
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
                        Shape::Original => flow.schema,
                    };
                    let Some(schema) = schema else {
                        self.errors.push(unknown_fields(*span));
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
                record_topic_use(&expr, flow, before);
                let Some(value) = self.compile(&expr, scope, before) else {
                    complete = false;
                    continue;
                };
                if fields.iter().any(|field| *field.name() == name) {
                    let error = Diagnostic::new(
                        span,
                        format!("duplicate column `{name}`"),
                        "second occurrence",
                    );
                    self.errors
                        .push(error.with_help("rename one of them with `as`"));
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
                .any(|field| is_field(path, field.name()))
            {
                continue;
            }
            let error = Diagnostic::new(
                *span,
                format!("the record has no field `{name}` to exclude"),
                "unknown field",
            );
            self.errors.push(
                match pseidon_dsl::nearest(
                    &name,
                    schema.fields().iter().map(|field| field.name().as_str()),
                ) {
                    Some(near) => error.with_help(format!("did you mean `{near}`?")),
                    None => error,
                },
            );
        }
    }

    fn compile(
        &mut self,
        expr: &Expr,
        scope: &Scope,
        before: &mut Vec<String>,
    ) -> Option<CompiledExpr> {
        match compile(expr, scope) {
            Ok(compiled) => {
                if !compiled.is_deterministic() {
                    before.push(expr.to_string());
                }
                Some(compiled)
            }
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn policy(&mut self, on_error: &OnError, flow: &mut ChainContext<'_>) -> Option<Policy> {
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

    /// Adds a quarantine: a `files` sink that writes each invalid row as a JSON object.
    fn add_quarantine(&mut self, folder: &str, flow: &mut ChainContext<'_>) -> Option<usize> {
        let Some(plugin) = self.registry.sink("files").cloned() else {
            let error = Diagnostic::new(
                Span::default(),
                "quarantine is not available",
                "this build has no `files` sink",
            );
            self.errors
                .push(error.with_help("set :on-error to :noop or :throw"));
            return None;
        };
        let schema = quarantine::schema();
        let options = match quarantine::options(plugin.as_ref(), folder, self.pipeline) {
            Ok(options) => options,
            Err(errors) => {
                self.errors.extend(errors);
                return None;
            }
        };
        let input = SinkInput {
            scope: scope_of(&Shape::Columns(schema.clone()), &[]),
            record: RecordShape::Columns(schema),
        };
        let prepared = match plugin.prepare(&options, &input) {
            Ok(prepared) => prepared,
            Err(errors) => {
                self.errors.extend(errors);
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

/// Splits a `:format` into the name and the settings after the colon, which are empty without a
/// colon.
pub(crate) fn split_format(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// Records that an expression is nondeterministic if it uses the topic and the topic of a record
/// can change when the record is re-read.
fn record_topic_use(expr: &Expr, flow: &ChainContext<'_>, before: &mut Vec<String>) {
    if flow.topic_may_change && uses_topic(expr) {
        before.push("@topic".to_owned());
    }
}

fn scope_of(shape: &Shape, wanted: &[WantedColumn]) -> Scope {
    let columns = match shape {
        Shape::Original => wanted
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
        (Shape::Original, Shape::Original) => true,
        (Shape::Columns(one), Shape::Columns(other)) => one == other,
        _ => false,
    }
}

/// Whether the last step is a sink. The output of such a branch of `match` is not passed on.
fn ends_in_sink(chain: &[ResolvedStep]) -> bool {
    matches!(
        chain.last().map(|step| &step.kind),
        Some(ResolvedStepKind::Sink(..))
    )
}

fn matcher(pattern: &Pattern) -> Option<Matcher> {
    match pattern {
        Pattern::Text(text) => Some(Matcher::Text(text.clone())),
        // The regular expression was validated when the file was read.
        Pattern::Regex(text) => Regex::new(&text.value).ok().map(Matcher::Regex),
    }
}
