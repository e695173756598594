//! A digest of what decides lanes and their contents.
//!
//! After a crash the commit records name lanes of the plan that wrote them. A plan that would put
//! records elsewhere, or write other records, must not go on from there. What decides is the flow,
//! every expression, template and text, but for the texts that a plugin declares free (a broker's
//! address). Numbers, sizes, times and nested maps (roll-over, levels, properties) do not decide:
//! changing them is always safe.

use std::fmt::Write;

use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::SelectItem;
use pseidon_dsl::template::Part;
use pseidon_plugin::options::{OptionValue, Options, SchemaOption};
use pseidon_plugin::spec::PluginSpec;
use sha2::{Digest, Sha256};

use crate::resolve::{Resolved, ResolvedStep, StepKind};

/// The digest of a resolved flow, in hexadecimal digits.
pub fn of(flow: &[Resolved]) -> String {
    let mut text = String::new();
    for source in flow {
        describe_call(
            &mut text,
            &source.stage,
            source.plugin.spec(),
            &source.options,
        );
        describe_chain(&mut text, &source.chain);
    }
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn describe_chain(text: &mut String, chain: &[ResolvedStep]) {
    text.push('(');
    for step in chain {
        match &step.kind {
            StepKind::Where(condition) => push(text, &["where", &condition.to_string()]),
            StepKind::Select(items) => {
                push(text, &["select"]);
                items
                    .iter()
                    .for_each(|item| push(text, &[&describe_item(item)]));
            }
            StepKind::All(branches) => {
                push(text, &["all"]);
                branches
                    .iter()
                    .for_each(|branch| describe_chain(text, branch));
            }
            StepKind::Match {
                branches,
                otherwise,
            } => {
                push(text, &["match"]);
                for (pattern, branch) in branches {
                    match pattern {
                        Pattern::Text(equal) => push(text, &["text", equal]),
                        Pattern::Regex(regex) => push(text, &["regex", &regex.value]),
                    }
                    describe_chain(text, branch);
                }
                otherwise
                    .iter()
                    .for_each(|branch| describe_chain(text, branch));
            }
            StepKind::Sink(plugin, options) => {
                describe_call(text, &step.stage, plugin.spec(), options)
            }
        }
    }
    text.push(')');
}

fn describe_call(text: &mut String, stage: &str, plugin: &PluginSpec, options: &Options) {
    push(text, &[stage, plugin.name]);
    for (name, value) in options
        .iter()
        .filter(|(name, _)| !plugin.free_options.contains(name))
    {
        let described = match value {
            OptionValue::Text(value) | OptionValue::Regex(value) => value.clone(),
            OptionValue::Texts(values) => values.join("\u{1}"),
            OptionValue::Expr(expr) => expr.to_string(),
            OptionValue::Exprs(exprs) => exprs
                .iter()
                .map(|(name, expr)| format!("{name}\u{1}{expr}\u{1}"))
                .collect(),
            OptionValue::Select(items) => items.iter().map(describe_item).collect(),
            OptionValue::Template(template) => template.parts.iter().map(describe_part).collect(),
            OptionValue::Schema(SchemaOption::Fields(schema)) => format!("{schema:?}"),
            OptionValue::Schema(SchemaOption::Infer) => "infer".to_owned(),
            OptionValue::Bool(_)
            | OptionValue::Count(_)
            | OptionValue::Number(_)
            | OptionValue::Duration(_)
            | OptionValue::Properties(_)
            | OptionValue::Map(_)
            | OptionValue::OnError(_) => continue,
        };
        push(text, &[name, &described]);
    }
}

fn describe_item(item: &SelectItem) -> String {
    match item {
        SelectItem::All { except, .. } => format!(
            "*{}",
            except
                .iter()
                .map(|(path, _)| format!("\u{1}{path}"))
                .collect::<String>()
        ),
        SelectItem::Column { expr, name } => {
            format!("{expr}\u{1}{}", name.as_ref().map_or("", |(name, _)| name))
        }
    }
}

fn describe_part(part: &Part) -> String {
    match part {
        Part::Literal(text) => format!("\u{1}{text}"),
        Part::Value { expr, format, .. } => {
            format!("\u{2}{expr}\u{1}{}", format.as_deref().unwrap_or_default())
        }
    }
}

fn push(text: &mut String, words: &[&str]) {
    for word in words {
        text.push_str(word);
        text.push('\0');
    }
}
