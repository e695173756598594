//! The stages of a plan as a list.

use pseidon_dsl::expr::{Path, Step as PathStep};
use pseidon_expr::types::field_type_name;
use pseidon_expr::{Column, Scope};
use pseidon_plan::Plan;
use pseidon_plan::chain::{Chain, Operator, PlannedSource, Step};
use pseidon_plugin::rows::Rows;

/// A stage's name, what it is, and how deep it lies in the flow.
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) depth: usize,
}

/// All stages, in the order of the flow.
pub(crate) fn stages(plan: &Plan) -> Vec<Stage> {
    let mut stages = Vec::new();
    for source in &plan.sources {
        let columns: Vec<String> = source
            .schema
            .fields()
            .iter()
            .map(|field| typed(field))
            .collect();
        let decoded = if columns.is_empty() {
            "nothing is decoded".to_owned()
        } else {
            format!("decodes {}", columns.join(", "))
        };
        stages.push(Stage {
            name: source.stage.clone(),
            what: format!("source, format {}, {decoded}", source.facts.format),
            depth: 0,
        });
        walk(&source.chain, 1, &mut |step, depth| {
            stages.push(Stage {
                name: step.stage.clone(),
                what: what(plan, step),
                depth,
            });
        });
    }
    stages
}

/// The source whose records come through a stage.
pub(crate) fn source_of<'a>(plan: &'a Plan, stage: &str) -> Option<&'a PlannedSource> {
    plan.sources.iter().find(|source| {
        let mut found = source.stage == stage;
        walk(&source.chain, 1, &mut |step, _| {
            found |= step.stage == stage
        });
        found
    })
}

/// What expressions can name in rows of a source.
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

fn walk(chain: &Chain, depth: usize, visit: &mut dyn FnMut(&Step, usize)) {
    for step in &chain.steps {
        visit(step, depth);
        match &step.operator {
            Operator::All(chains) => chains
                .iter()
                .for_each(|chain| walk(chain, depth + 1, visit)),
            Operator::Match {
                branches,
                otherwise,
            } => {
                branches
                    .iter()
                    .map(|(_, chain)| chain)
                    .chain(otherwise)
                    .for_each(|chain| walk(chain, depth + 1, visit));
            }
            Operator::Where(_) | Operator::Select(..) | Operator::Sink(_) => {}
        }
    }
}

fn what(plan: &Plan, step: &Step) -> String {
    match &step.operator {
        Operator::Where(condition) => format!("where {}", condition.field().name()),
        Operator::Select(_, schema) => {
            format!(
                "select {}",
                schema
                    .fields()
                    .iter()
                    .map(|field| typed(field))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        Operator::All(chains) => format!("all, {} branches", chains.len()),
        Operator::Match { branches, .. } => format!("match, {} branches", branches.len()),
        Operator::Sink(number) => format!(
            "sink {}",
            plan.sinks.get(*number).map_or("", |sink| sink.plugin)
        ),
    }
}

fn typed(field: &arrow::datatypes::Field) -> String {
    format!("{} {}", field.name(), field_type_name(field))
}
