//! Compilation of chains: expressions are compiled, and each sink is prepared for the records that
//! reach it.
//!
//! The compiler follows the flow from a source and keeps what is known of the records at each
//! [point](flow_point): their columns, and the nondeterministic expressions before. A step uses
//! what is known before it, and moves the point behind it. [`select`] computes the columns of a
//! new record, [`edit`] changes fields of one, [`joint`] joins such changes, [`lookup`] adds the row
//! of a table, [`sink`] prepares a sink, and [`policy`] adds the quarantines for invalid records.

mod edit;
mod flow_point;
mod habits;
mod joint;
mod lookup;
mod policy;
mod select;
mod sink;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::{Expr, SelectItem, Substitutions};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::bounds::Bounds;
use pseidon_expr::types::field_type_name;
use pseidon_expr::unnest::element;
use pseidon_expr::{Column, CompiledExpr, compile};
use pseidon_plugin::format::Format;
use pseidon_plugin::registry::QuarantineFactory;

use self::flow_point::FlowPoint;
use self::habits::habit;
use self::joint::join_edits;
use self::select::Selection;
use crate::chain::{Chain, ChainStep, Matcher, Operator, PlannedSink, PlannedSource, Policy};
use crate::columns::{SourceColumns, uses_topic};
use crate::edits::field;
use crate::errors::Errors;
use crate::index::{PerSink, SinkIndex};
use crate::percent::Percent;
use crate::prepare::PreparedSource;
use crate::quarantine;
use crate::resolve::{ResolvedStep, ResolvedStepKind};
use crate::sample::Sample;
use crate::unnest::ELEMENT;

/// The nondeterminism of a record's topic, if it can change when the record is re-read.
const TOPIC: &str = "@topic";

/// Compiles the chains of all sources, and collects their sinks and errors.
pub(crate) struct Compiler<'a> {
    pub(crate) quarantine: QuarantineFactory,
    pub(crate) pipeline: &'a str,
    /// The substituted values, which are not shown.
    pub(crate) substituted: Substitutions,
    /// Whether invalid records are quarantined beside the output by default.
    pub(crate) has_default_quarantine: bool,
    pub(crate) sinks: PerSink<PlannedSink>,
    pub(crate) errors: Errors,
}

impl Compiler<'_> {
    /// Compiles the chain of a source. `None` if an error was added. Some errors leave a chain with
    /// fewer steps.
    pub(crate) fn source(&mut self, prepared: PreparedSource<'_>) -> Option<PlannedSource> {
        let resolved = prepared.resolved;
        let columns = prepared.columns;
        let mut compiler = ChainCompiler {
            quarantine: self.quarantine,
            pipeline: self.pipeline,
            substituted: &self.substituted,
            stage: &resolved.stage,
            format: &*prepared.format,
            topic_may_change: prepared.facts.topic_may_change,
            default_quarantine: self
                .has_default_quarantine
                .then(|| quarantine::folder(&prepared.chain)),
            quarantines: Vec::new(),
            reached: Vec::new(),
            sinks: &mut self.sinks,
            errors: &mut self.errors,
        };
        let policy = compiler.policy(&resolved.source.options.on_error);
        let (format, schema) = (&*prepared.format, prepared.schema.clone());
        let mut point = FlowPoint::after_source(format, &columns.wanted, schema);
        let chain = compiler.chain(&prepared.chain, &mut point, false);
        let sinks = compiler.reached;
        let decoded = columns.wanted.iter().map(|column| column.field.clone());
        Some(PlannedSource {
            stage: resolved.stage.clone(),
            plugin: resolved.source.options.spec.name,
            source: prepared.source,
            facts: prepared.facts,
            format: prepared.format,
            format_settings: prepared.format_settings,
            schema: Arc::new(Schema::new(decoded.collect::<Vec<_>>())),
            bounds: Arc::new(bounds(&prepared.chain, &columns)),
            policy: policy?,
            chain,
            sinks,
            columns,
            group: resolved.group.clone(),
            phase: resolved.phase,
        })
    }
}

/// What the conditions at the beginning of a chain require of the columns of the source.
fn bounds(chain: &[ResolvedStep], columns: &SourceColumns) -> Bounds {
    let conditions = chain.iter().map_while(|step| match &step.kind {
        ResolvedStepKind::Where(condition) => Some(condition),
        _ => None,
    });
    let conditions: Vec<&Expr> = conditions.collect();
    let columns = columns.wanted.iter().map(|column| Column {
        path: column.path.clone(),
        field: column.field.clone(),
    });
    Bounds::of(&conditions, &columns.collect::<Vec<_>>())
}

/// Compiles the chain of one source.
struct ChainCompiler<'c> {
    quarantine: QuarantineFactory,
    pipeline: &'c str,
    substituted: &'c Substitutions,
    /// The stage of the source.
    stage: &'c str,
    /// The format of the source's records.
    format: &'c dyn Format,
    topic_may_change: bool,
    /// The folder for invalid records if `:on-error` names none. Without one, they are dropped.
    default_quarantine: Option<String>,
    /// The folders of the source's quarantines, each with its sink.
    quarantines: Vec<(String, SinkIndex)>,
    /// The sinks that the source's records can reach.
    reached: Vec<SinkIndex>,
    /// The sinks of all sources.
    sinks: &'c mut PerSink<PlannedSink>,
    errors: &'c mut Errors,
}

impl ChainCompiler<'_> {
    /// Compiles steps and moves the point behind them. `is_followed` says whether another step
    /// receives the records that pass all of these steps. The chain does not pass on its rows.
    fn chain(&mut self, steps: &[ResolvedStep], point: &mut FlowPoint, is_followed: bool) -> Chain {
        let mut chain = Chain::default();
        for (at, step) in steps.iter().enumerate() {
            let is_followed = is_followed || at + 1 < steps.len();
            match self.step(step, point, is_followed) {
                Some(compiled) => chain.steps.push(compiled),
                // The steps after an invalid step can be checked only if the columns after it are
                // known.
                None if can_change_columns(step) => break,
                None => {}
            }
        }
        join_edits(&mut chain.steps, self.format);
        chain
    }

    /// Compiles a step and moves the point behind it. `None` if an error was added.
    fn step(
        &mut self,
        step: &ResolvedStep,
        point: &mut FlowPoint,
        is_followed: bool,
    ) -> Option<ChainStep> {
        match &step.kind {
            ResolvedStepKind::Where(condition) => self.where_step(step, condition, point),
            ResolvedStepKind::Select(items) => self.select_step(step, items, point),
            ResolvedStepKind::Edit(edits) => self.edit_step(step, edits, point),
            ResolvedStepKind::Unnest(list) => self.unnest_step(step, list, point),
            ResolvedStepKind::Lookup(key, table) => self.lookup_step(step, key, table, point),
            ResolvedStepKind::Sample(share, by) => {
                self.sample_step(step, *share, by.as_ref(), point)
            }
            ResolvedStepKind::Limit(records) => {
                let operator = Operator::Limit(*records, step.span);
                Some(chain_step(step, operator, Policy::Noop))
            }
            ResolvedStepKind::Throttle(rate) => {
                let operator = Operator::Throttle(*rate, step.span);
                Some(chain_step(step, operator, Policy::Noop))
            }
            ResolvedStepKind::All(branches) => {
                let mut chain =
                    |steps: &Vec<ResolvedStep>| self.chain(steps, &mut point.clone(), false);
                let chains = branches.iter().map(&mut chain).collect();
                Some(chain_step(step, Operator::All(chains), Policy::Throw))
            }
            ResolvedStepKind::Match {
                branches,
                otherwise,
            } => self.match_step(step, branches, otherwise.as_deref(), point, is_followed),
            ResolvedStepKind::Route {
                branches,
                otherwise,
            } => self.route_step(step, branches, otherwise.as_deref(), point),
            ResolvedStepKind::Sink(sink) => self.sink(step, sink, point),
        }
    }

    fn where_step(
        &mut self,
        step: &ResolvedStep,
        condition: &Expr,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let compiled = self.condition("where", condition, point)?;
        let policy = self.policy(&step.on_error)?;
        Some(chain_step(step, Operator::Where(compiled), policy))
    }

    fn route_step(
        &mut self,
        step: &ResolvedStep,
        branches: &[(Expr, Vec<ResolvedStep>)],
        otherwise: Option<&[ResolvedStep]>,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let mut compiled = Vec::new();
        for (condition, steps) in branches {
            // What decides about a branch decides about those after it too.
            let condition = self.condition("route", condition, point);
            let chain = self.chain(steps, &mut point.clone(), false);
            compiled.extend(condition.map(|condition| (condition, chain)));
        }
        let otherwise = otherwise.map(|steps| self.chain(steps, &mut point.clone(), false));
        let policy = self.policy(&step.on_error)?;
        let operator = Operator::Route {
            branches: compiled,
            otherwise,
        };
        Some(chain_step(step, operator, policy))
    }

    /// Compiles a condition of this form. `None` if an error was added.
    fn condition(
        &mut self,
        form: &str,
        condition: &Expr,
        point: &mut FlowPoint,
    ) -> Option<CompiledExpr> {
        if let Some(error) = habit(condition, self.substituted) {
            self.errors.add(error);
            return None;
        }
        let compiled = self.expr(condition, point)?;
        let checked = check_condition(form, compiled.field(), condition.span);
        self.errors.value(checked)?;
        Some(compiled)
    }

    fn unnest_step(
        &mut self,
        step: &ResolvedStep,
        list: &Expr,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let compiled = self.expr(list, point)?;
        let Some(element) = element(compiled.field(), ELEMENT) else {
            let label = format!("this is {}", field_type_name(compiled.field()));
            let error = Diagnostic::new(list.span, "`unnest` requires a list", label);
            self.errors.add(error);
            return None;
        };
        let policy = self.policy(&step.on_error)?;
        point.add_column(field(ELEMENT), element);
        let operator = Operator::Unnest(compiled, point.columns());
        Some(chain_step(step, operator, policy))
    }

    fn sample_step(
        &mut self,
        step: &ResolvedStep,
        share: Percent,
        by: Option<&Expr>,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let by = match by {
            Some(by) => Some(self.expr(by, point)?),
            None => None,
        };
        let policy = self.policy(&step.on_error)?;
        let operator = Operator::Sample(Sample { share, by });
        Some(chain_step(step, operator, policy))
    }

    fn select_step(
        &mut self,
        step: &ResolvedStep,
        items: &[SelectItem],
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let selection = self.select(items, point)?;
        self.selected(step, selection, point)
    }

    /// The step that builds records from these columns. Moves the point behind it.
    fn selected(
        &mut self,
        step: &ResolvedStep,
        selection: Selection,
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let schema = selection.schema();
        let policy = self.policy(&step.on_error)?;
        point.select(schema.clone());
        let operator = Operator::Select(selection.exprs, schema.clone());
        Some(ChainStep {
            shape: Some(schema),
            ..chain_step(step, operator, policy)
        })
    }

    fn match_step(
        &mut self,
        step: &ResolvedStep,
        branches: &[(Pattern, Vec<ResolvedStep>)],
        otherwise: Option<&[ResolvedStep]>,
        point: &mut FlowPoint,
        is_followed: bool,
    ) -> Option<ChainStep> {
        if self.topic_may_change {
            point.nondeterminism.push(TOPIC.to_owned());
        }
        // The ends of the ways through the step.
        let mut ends = Vec::new();
        let mut compile_branch = |steps: &[ResolvedStep]| {
            let mut end = point.clone();
            let mut chain = self.chain(steps, &mut end, is_followed);
            chain.passes_on = !ends_in_sink(steps);
            if chain.passes_on {
                ends.push(end);
            }
            chain
        };
        let mut compiled: Vec<_> = branches
            .iter()
            .map(|(pattern, steps)| (pattern, compile_branch(steps)))
            .collect();
        let mut compiled_otherwise = otherwise.map(&mut compile_branch);
        if otherwise.is_none() {
            ends.push(point.clone());
        }
        if is_followed {
            self.errors.value(check_ends(&ends, step.span))?;
        }
        let common = common_columns(&ends);
        let mut chains: Vec<&mut Chain> = compiled.iter_mut().map(|(_, chain)| chain).collect();
        chains.extend(&mut compiled_otherwise);
        chains.retain(|chain| chain.passes_on);
        for (chain, end) in chains.into_iter().zip(&ends) {
            keep_columns(chain, step, end, &common);
        }
        if otherwise.is_none() {
            let mut unchanged = Chain {
                passes_on: true,
                ..Chain::default()
            };
            keep_columns(&mut unchanged, step, point, &common);
            compiled_otherwise = Some(unchanged).filter(|chain| !chain.steps.is_empty());
        }
        point.join(&ends, common);
        let branches: Result<Vec<_>, Diagnostic> = compiled
            .into_iter()
            .map(|(pattern, branch)| Ok((matcher(pattern)?, branch)))
            .collect();
        let operator = Operator::Match {
            branches: self.errors.value(branches)?,
            otherwise: compiled_otherwise,
        };
        Some(chain_step(step, operator, Policy::Throw))
    }

    /// Compiles an expression at this point, and notes its nondeterminism. `None` if an error was
    /// added.
    fn expr(&mut self, expr: &Expr, point: &mut FlowPoint) -> Option<CompiledExpr> {
        let compiled = self.errors.value(compile(expr, &point.input.scope))?;
        if !compiled.is_deterministic() {
            point.nondeterminism.push(self.substituted.shown(expr));
        }
        if self.topic_may_change && uses_topic(expr) {
            point.nondeterminism.push(TOPIC.to_owned());
        }
        if self.substituted.is_in(expr) {
            return Some(compiled.named(&self.substituted.shown(expr)));
        }
        Some(compiled)
    }

    /// Adds a sink that the source's records can reach. Returns its index.
    fn add_sink(&mut self, sink: PlannedSink) -> SinkIndex {
        let index = self.sinks.push(sink);
        self.reached.push(index);
        index
    }
}

/// The compiled form of a step that does not change the columns.
fn chain_step(step: &ResolvedStep, operator: Operator, policy: Policy) -> ChainStep {
    ChainStep {
        stage: step.stage.clone(),
        operator,
        policy,
        shape: None,
    }
}

fn can_change_columns(step: &ResolvedStep) -> bool {
    match step.kind {
        ResolvedStepKind::Where(_)
        | ResolvedStepKind::Sample(..)
        | ResolvedStepKind::Limit(_)
        | ResolvedStepKind::Throttle(_)
        | ResolvedStepKind::Route { .. }
        | ResolvedStepKind::Sink(..) => false,
        ResolvedStepKind::Select(_)
        | ResolvedStepKind::Edit(_)
        | ResolvedStepKind::Unnest(_)
        | ResolvedStepKind::Lookup(..)
        | ResolvedStepKind::All(_)
        | ResolvedStepKind::Match { .. } => true,
    }
}

/// Whether the last step is a sink. The records of such a branch of `match` are not passed on.
fn ends_in_sink(steps: &[ResolvedStep]) -> bool {
    matches!(
        steps.last().map(|step| &step.kind),
        Some(ResolvedStepKind::Sink(..))
    )
}

fn check_condition(form: &str, field: &Field, span: Span) -> Result<(), Diagnostic> {
    if *field.data_type() == DataType::Boolean {
        return Ok(());
    }
    let message = format!("the condition of `{form}` must be boolean");
    let label = format!("this is {}", field_type_name(field));
    Err(Diagnostic::new(span, message, label)
        .with_help("compare it with a value, for example: x <> 0"))
}

/// Adds the step after which rows at this end have only these columns for expressions.
fn keep_columns(chain: &mut Chain, step: &ResolvedStep, end: &FlowPoint, columns: &[Column]) {
    let keep = end.keep(columns);
    chain
        .steps
        .extend(keep.map(|keep| chain_step(step, keep, Policy::Throw)));
}

/// The columns that expressions can use on all of these ways.
fn common_columns(ends: &[FlowPoint]) -> Vec<Column> {
    let Some((first, others)) = ends.split_first() else {
        return Vec::new();
    };
    let is_common = |column: &&Column| {
        others
            .iter()
            .all(|end| end.input.scope.columns.contains(column))
    };
    first
        .input
        .scope
        .columns
        .iter()
        .filter(is_common)
        .cloned()
        .collect()
}

/// Checks that records have the same columns on all ways through a `match`.
fn check_ends(ends: &[FlowPoint], span: Span) -> Result<(), Diagnostic> {
    let mut columns = ends.iter().map(FlowPoint::selected);
    let first = columns.next();
    if columns.all(|other| Some(other) == first) {
        return Ok(());
    }
    Err(Diagnostic::new(
        span,
        "the branches of this `match` pass on records with different columns",
        "the next stage requires the same columns",
    )
    .with_help("end each branch with a sink, or select the same columns in each branch"))
}

fn matcher(pattern: &Pattern) -> Result<Matcher, Diagnostic> {
    match pattern {
        Pattern::Text(text) => Ok(Matcher::Text(text.clone())),
        Pattern::Regex(text) => text.to_regex().map(Matcher::Regex),
    }
}
