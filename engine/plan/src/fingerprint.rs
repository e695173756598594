//! A digest of everything that determines lanes and their contents.
//!
//! After a crash, the commit records refer to lanes of the plan that wrote them. A plan that would
//! write records to other lanes, or write different records, must not continue from there. The
//! digest covers the flow and every expression, template and string, except for the options that a
//! plugin declares free, such as a broker's address. It does not cover numbers, sizes, durations
//! and nested maps (rollover, levels, properties): changing these is always safe.

use std::fmt::Write;

use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::SelectItem;
use pseidon_dsl::template::TemplatePart;
use pseidon_plugin::options::{OptionValue, Options, SchemaOption};
use pseidon_plugin::spec::PluginSpec;
use sha2::{Digest, Sha256};

use crate::resolve::{ResolvedSource, ResolvedStep, ResolvedStepKind};

/// The SHA-256 digest of a resolved flow, in hexadecimal digits.
pub fn compute(flow: &[ResolvedSource]) -> String {
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
            ResolvedStepKind::Where(condition) => push(text, &["where", &condition.to_string()]),
            ResolvedStepKind::Select(items) => {
                push(text, &["select"]);
                items
                    .iter()
                    .for_each(|item| push(text, &[&describe_item(item)]));
            }
            ResolvedStepKind::All(branches) => {
                push(text, &["all"]);
                branches
                    .iter()
                    .for_each(|branch| describe_chain(text, branch));
            }
            ResolvedStepKind::Match {
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
            ResolvedStepKind::Sink(plugin, options) => {
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
            OptionValue::String(value) | OptionValue::Regex(value) => value.clone(),
            OptionValue::Strings(values) => values.join("\u{1}"),
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
            | OptionValue::Integer(_)
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

fn describe_part(part: &TemplatePart) -> String {
    match part {
        TemplatePart::Literal(text) => format!("\u{1}{text}"),
        TemplatePart::Value { expr, format, .. } => {
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
