//! The stages of a plan as a flat list.

use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::{Column, Scope};
use pseidon_plan::Plan;
use pseidon_plan::chain::{Chain, ChainStep, Operator, PlannedSource, columns};
use pseidon_plugin::rows::Rows;

/// A stage of a plan.
pub(crate) struct StageDescription {
    pub(crate) name: String,
    /// Its kind and its columns, in words.
    pub(crate) description: String,
    /// The nesting depth in the flow; 0 for a source.
    pub(crate) depth: usize,
}

/// All stages, in the order of the flow.
pub(crate) fn stages(plan: &Plan) -> Vec<StageDescription> {
    let mut stages = Vec::new();
    for source in &plan.sources {
        let decoded = if source.schema.fields().is_empty() {
            "no fields are decoded".to_owned()
        } else {
            format!("decodes {}", columns(&source.schema))
        };
        stages.push(StageDescription {
            name: source.stage.clone(),
            description: match source.group {
                Some(_) => format!("results, {}", columns(&source.schema)),
                None => format!("source, format {}, {decoded}", source.facts.format),
            },
            depth: 0,
        });
        walk(&source.chain, 1, &mut |step, depth| {
            stages.push(StageDescription {
                name: step.stage.clone(),
                description: describe(plan, step),
                depth,
            });
        });
    }
    stages
}

/// The source whose records pass through a stage; `None` if the stage is unknown.
pub(crate) fn source_of<'a>(plan: &'a Plan, stage: &str) -> Option<&'a PlannedSource> {
    plan.sources.iter().find(|source| {
        let mut found = source.stage == stage;
        walk(&source.chain, 1, &mut |step, _| {
            found |= step.stage == stage
        });
        found
    })
}

/// The columns that an expression can use in rows of a source.
pub(crate) fn scope_of(rows: &Rows, source: &PlannedSource) -> Scope {
    let columns = if rows.is_changed() {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            path: Path(vec![PathStep::Field(field.name().clone())]),
            field: field.clone(),
        };
        rows.columns()
            .schema_ref()
            .fields()
            .iter()
            .map(column)
            .collect()
    } else {
        source
            .columns
            .wanted
            .iter()
            .map(|column| Column {
                path: column.path.clone(),
                field: column.field.clone(),
            })
            .collect()
    };
    Scope { columns }
}

/// Visits the steps of a chain and of its branches, each with its depth. Steps that no stage of the
/// file corresponds to are left out.
fn walk(chain: &Chain, depth: usize, visit: &mut dyn FnMut(&ChainStep, usize)) {
    let is_shown = |step: &&ChainStep| !matches!(step.operator, Operator::Keep(..));
    for step in chain.steps.iter().filter(is_shown) {
        visit(step, depth);
        let chains = step.operator.chains().into_iter();
        chains.for_each(|chain| walk(chain, depth + 1, visit));
    }
}

fn describe(plan: &Plan, step: &ChainStep) -> String {
    match &step.operator {
        Operator::All(chains) => format!("all, {}", branches(chains.len())),
        Operator::Match { branches: all, .. } => format!("match, {}", branches(all.len())),
        Operator::Route { branches: all, .. } => format!("route, {}", branches(all.len())),
        Operator::Sink(sink) => format!("sink {}", plan.sinks[*sink].plugin),
        other => other.describe(),
    }
}

fn branches(count: usize) -> String {
    match count {
        1 => "1 branch".to_owned(),
        count => format!("{count} branches"),
    }
}
