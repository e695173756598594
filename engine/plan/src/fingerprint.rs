//! A digest of everything that determines lanes and their contents.
//!
//! After a crash, the commit records refer to lanes of the plan that wrote them. A plan that would
//! write records to other lanes, or write different records, must not continue from there. The
//! digest covers the flow and every expression, template and string, except for the options that a
//! plugin declares free, such as a broker's address. It does not cover numbers, sizes, durations
//! and nested maps (rollover, levels, properties): changing these is always safe.

use std::fmt::Write;

use pseidon_dsl::document::Pattern;
use pseidon_dsl::expr::Expr;
use pseidon_plugin::options::kinds::describe_item;
use pseidon_plugin::stage::StageOptions;
use sha2::{Digest, Sha256};

use crate::resolve::{ResolvedSource, ResolvedStep, ResolvedStepKind};

/// The SHA-256 digest of a resolved flow, in hexadecimal digits.
pub fn compute(flow: &[ResolvedSource]) -> String {
    let mut text = String::new();
    for source in flow {
        describe_stage(&mut text, &source.stage, &source.source.options);
        describe_chain(&mut text, &source.chain);
    }
    hex(&Sha256::digest(text.as_bytes()))
}

/// The first digits of a digest of a resolved flow and the text of its file; see
/// [`Plan::version`](crate::Plan::version).
pub fn version(flow: &[ResolvedSource], text: &str) -> String {
    let parts = format!("{}\0{text}", compute(flow));
    hex(&Sha256::digest(parts.as_bytes())[..8])
}

fn hex(digest: &[u8]) -> String {
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
            ResolvedStepKind::Edit(edits) => {
                push(text, &["edit"]);
                for edit in edits {
                    push(text, &edit.describe().each_ref().map(String::as_str));
                }
            }
            ResolvedStepKind::Unnest(list) => push(text, &["unnest", &list.to_string()]),
            ResolvedStepKind::Lookup(key, table) => {
                push(text, &["lookup", &key.to_string()]);
                push(text, &table.identity());
            }
            ResolvedStepKind::Sample(share, by) => {
                let by = by.as_ref().map(Expr::to_string).unwrap_or_default();
                push(text, &["sample", &share.to_string(), &by]);
            }
            // They decide when records are delivered, and not where to.
            ResolvedStepKind::Limit(_) | ResolvedStepKind::Throttle(_) => {}
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
            ResolvedStepKind::Route {
                branches,
                otherwise,
            } => {
                push(text, &["route"]);
                for (condition, branch) in branches {
                    push(text, &[&condition.to_string()]);
                    describe_chain(text, branch);
                }
                otherwise
                    .iter()
                    .for_each(|branch| describe_chain(text, branch));
            }
            ResolvedStepKind::Sink(sink) => describe_stage(text, &step.stage, &sink.options),
        }
    }
    text.push(')');
}

fn describe_stage(text: &mut String, stage: &str, options: &StageOptions) {
    push(text, &[stage, options.spec.name]);
    for (name, value) in &options.identity {
        push(text, &[name, value]);
    }
}

fn push(text: &mut String, words: &[&str]) {
    for word in words {
        text.push_str(word);
        text.push('\0');
    }
}
