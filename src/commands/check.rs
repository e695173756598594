//! `pseidon check`: the errors of a pipeline file, or a description of its plan.

use std::fmt::Write;

use pseidon_dsl::printable::printable_lines;
use pseidon_dsl::{Document, Node, NodeKind, Span, joined};
use pseidon_plan::Plan;
use pseidon_plan::chain::{Chain, ChainStep, Matcher, Operator, PlannedSource, Policy, columns};

use crate::cli::{Exit, FileArgs};
use crate::load::{self, TextKind};
use crate::output;

/// Prints every error, or the plan: its stages with their types, and the guarantee of each path.
pub(crate) fn check(from: &FileArgs) -> Exit {
    match try_check(from) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_check(from: &FileArgs) -> Result<Exit, Exit> {
    let text = load::text(from)?;
    let document = text.document()?;
    let plan = text.plan(&document)?;
    let errors = super::test::errors(&document, &plan);
    if !errors.is_empty() {
        return Err(text.show(&errors));
    }
    for span in secret_arguments(&document) {
        let place = joined::place(&text.name, &text.text, span);
        tracing::warn!(
            place,
            "all users of this machine can see the arguments of a program; set a variable of its \
             environment with `:env`"
        );
    }
    // An inferred schema has the names of a record's fields.
    let described = describe(&plan, text.kind == TextKind::Flow);
    Ok(output::print(&printable_lines(&described)))
}

/// The arguments of programs in `:on-close` that have the value of an `${env:NAME}`.
fn secret_arguments(document: &Document) -> Vec<Span> {
    let calls = document.calls();
    let hooks = calls.iter().flat_map(|call| &call.args);
    let hooks = hooks.filter_map(|options| entry(options, "on-close"));
    let commands = hooks.filter_map(|hook| entry(hook, "command"));
    let arguments = commands.flat_map(|command| match &command.kind {
        NodeKind::Vector(items) => items.as_slice(),
        _ => &[],
    });
    arguments
        .filter_map(|argument| match &argument.kind {
            NodeKind::Str(text) => text
                .without_secrets(0..text.value.len())
                .map(|_| argument.span),
            _ => None,
        })
        .collect()
}

/// The value of a keyword in a map.
fn entry<'n>(map: &'n Node, key: &str) -> Option<&'n Node> {
    let NodeKind::Map(entries) = &map.kind else {
        return None;
    };
    let is_key = |node: &Node| matches!(&node.kind, NodeKind::Keyword(name) if name.name == key);
    let found = entries.iter().find(|(name, _)| is_key(name));
    found.map(|(_, value)| value)
}

/// Describes a plan. `is_flow` is whether it is the flow of `-e`, whose state is temporary.
pub(crate) fn describe(plan: &Plan, is_flow: bool) -> String {
    let mut text = format!("pipeline {}\n", plan.name);
    let state = match plan.settings.state {
        Some(_) => "state in Redis",
        None if is_flow => "no state is kept",
        None => "state in a file in .pseidon/ beside the pipeline file",
    };
    let _ = writeln!(
        text,
        "{state}, memory {} MB\n",
        plan.settings.memory.bytes() / 1_000_000
    );
    for source in &plan.sources {
        describe_source(&mut text, plan, source);
    }
    text.push_str("delivery guarantees\n");
    for path in &plan.guarantees {
        let _ = writeln!(
            text,
            "  {} -> {}: {}",
            path.source,
            path.sink,
            path.guarantee.as_str()
        );
        for reason in &path.reasons {
            let _ = writeln!(text, "    {reason}");
        }
    }
    text
}

fn describe_source(text: &mut String, plan: &Plan, source: &PlannedSource) {
    let ends = if source.facts.finite {
        "finite"
    } else {
        "runs until stopped"
    };
    let _ = match source.group {
        Some(_) => writeln!(
            text,
            "{} (results, after everything was read)",
            source.stage
        ),
        None => writeln!(
            text,
            "{} (format {}, {ends})",
            source.stage, source.facts.format
        ),
    };
    if source.schema.fields().is_empty() {
        let what = match source.format.has_bytes() {
            true => "no fields are decoded: records pass through as bytes",
            false => "no fields are read",
        };
        let _ = writeln!(text, "  {what}");
    } else {
        let verb = if source.group.is_some() {
            "has"
        } else {
            "decodes"
        };
        let _ = writeln!(text, "  {verb} {}", columns(&source.schema));
    }
    let _ = writeln!(text, "  invalid records: {}", policy(plan, source.policy));
    describe_chain(text, plan, &source.chain, "  ");
    text.push('\n');
}

fn describe_chain(text: &mut String, plan: &Plan, chain: &Chain, indent: &str) {
    for step in &chain.steps {
        describe_step(text, plan, step, indent);
    }
}

fn describe_step(text: &mut String, plan: &Plan, step: &ChainStep, indent: &str) {
    let deeper = format!("{indent}  ");
    match &step.operator {
        Operator::Select(_, schema) => {
            let _ = writeln!(text, "{indent}-> {}: {}", step.stage, columns(schema));
        }
        Operator::Where(_)
        | Operator::Edit(_)
        | Operator::Unnest(..)
        | Operator::Lookup(..)
        | Operator::Sample(_)
        | Operator::Limit(..)
        | Operator::Throttle(..) => {
            let _ = writeln!(
                text,
                "{indent}-> {}: {}",
                step.stage,
                step.operator.describe()
            );
        }
        // It has no effect on records.
        Operator::Keep(..) => {}
        Operator::All(chains) => {
            let _ = writeln!(text, "{indent}-> {}", step.stage);
            for (number, chain) in chains.iter().enumerate() {
                let _ = writeln!(text, "{deeper}branch {}", number + 1);
                describe_chain(text, plan, chain, &format!("{deeper}  "));
            }
        }
        Operator::Match {
            branches,
            otherwise,
        } => {
            let _ = writeln!(text, "{indent}-> {}", step.stage);
            for (matcher, chain) in branches {
                let _ = match matcher {
                    Matcher::Text(topic) => writeln!(text, "{deeper}topic {topic:?}"),
                    Matcher::Regex(regex) => writeln!(text, "{deeper}topic ~ {:?}", regex.as_str()),
                };
                describe_chain(text, plan, chain, &format!("{deeper}  "));
            }
            let others = "other topics: unchanged (dropped if the flow ends here)";
            describe_else(text, plan, otherwise.as_ref(), others, &deeper);
        }
        Operator::Route {
            branches,
            otherwise,
        } => {
            let _ = writeln!(text, "{indent}-> {}", step.stage);
            for (condition, chain) in branches {
                let _ = writeln!(text, "{deeper}{}", condition.field().name());
                describe_chain(text, plan, chain, &format!("{deeper}  "));
            }
            let others = "other records: unchanged";
            describe_else(text, plan, otherwise.as_ref(), others, &deeper);
        }
        Operator::Sink(sink) => {
            let sink = &plan.sinks[*sink];
            if sink.is_group {
                let _ = writeln!(text, "{indent}-> {}: collects groups", sink.id);
                return;
            }
            let _ = writeln!(text, "{indent}-> {} ({})", sink.id, sink.plugin);
        }
    }
}

/// Describes the chain of `:else`, or what happens without one.
fn describe_else(
    text: &mut String,
    plan: &Plan,
    otherwise: Option<&Chain>,
    others: &str,
    indent: &str,
) {
    let Some(chain) = otherwise else {
        let _ = writeln!(text, "{indent}{others}");
        return;
    };
    let _ = writeln!(text, "{indent}else");
    describe_chain(text, plan, chain, &format!("{indent}  "));
}

fn policy(plan: &Plan, policy: Policy) -> String {
    match policy {
        Policy::Throw => "stop the run".to_owned(),
        Policy::Noop => "counted and dropped".to_owned(),
        Policy::Quarantine(sink) => format!("quarantined by {}", plan.sinks[sink].id),
    }
}
