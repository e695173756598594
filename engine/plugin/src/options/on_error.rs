//! Error policies: what happens to an invalid record.

use std::time::Duration;

use pseidon_dsl::{Diagnostic, Node, NodeKind, nearest, units};

use super::local_path::check_local_path;
use super::value::{Argument, OptionValue, ParseResult, scalar, word};
use crate::spec::OptionKind;

/// A stage's error policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The run stops with an error.
    Throw,
    /// The record is counted and dropped.
    Noop,
    /// The failed step is retried `times` times with `interval` between; then `then` applies.
    Retry {
        /// The number of retries.
        times: u64,
        /// The wait before each retry.
        interval: Duration,
        /// The policy after the last retry: one of the others.
        then: Box<OnError>,
    },
    /// The record is quarantined with the reason, its position and its original bytes.
    Quarantine {
        /// The quarantine folder; `None` for the one beside the output.
        path: Option<String>,
    },
}

/// A quarantine beside the output.
impl Default for OnError {
    fn default() -> OnError {
        OnError::Quarantine { path: None }
    }
}

impl OptionValue for OnError {
    const KIND: OptionKind = OptionKind::OnError;

    fn parse(argument: &Argument<'_>) -> ParseResult<OnError> {
        OnError::from_node(argument.node())
    }
}

const WORDS: [&str; 4] = ["throw", "noop", "retry", "quarantine"];

impl OnError {
    fn from_node(node: &Node) -> Result<OnError, Vec<Diagnostic>> {
        if let Some(word) = word(node) {
            return match word {
                "throw" => Ok(OnError::Throw),
                "noop" => Ok(OnError::Noop),
                "quarantine" => Ok(OnError::Quarantine { path: None }),
                "retry" => Ok(OnError::Retry {
                    times: 10,
                    interval: Duration::from_secs(60),
                    then: Box::new(OnError::Throw),
                }),
                other => Err(vec![unknown(node, other)]),
            };
        }
        let NodeKind::Map(entries) = &node.kind else {
            return Err(vec![Diagnostic::new(
                node.span,
                "this is not an error policy",
                "expected :throw, :noop, {:retry …} or {:quarantine …}",
            )]);
        };
        let [(key, value)] = entries.as_slice() else {
            return Err(vec![Diagnostic::new(
                node.span,
                "an error policy has exactly one entry",
                "expected {:retry …} or {:quarantine …}",
            )]);
        };
        match word(key) {
            Some("quarantine") => parse_quarantine(value),
            Some("retry") => parse_retry(value),
            Some(other) => Err(vec![unknown(key, other)]),
            None => Err(vec![Diagnostic::new(
                key.span,
                "this is not an error policy",
                "expected :retry or :quarantine",
            )]),
        }
    }
}

fn unknown(node: &Node, word: &str) -> Diagnostic {
    let error = Diagnostic::new(
        node.span,
        format!("unknown error policy `{word}`"),
        "expected :throw, :noop, :retry or :quarantine",
    );
    match nearest(word, WORDS) {
        Some(near) => error.with_help(format!("did you mean `:{near}`?")),
        None => error,
    }
}

fn parse_quarantine(value: &Node) -> Result<OnError, Vec<Diagnostic>> {
    match &value.kind {
        NodeKind::Bool(true) | NodeKind::Nil => Ok(OnError::Quarantine { path: None }),
        NodeKind::Str(path) => {
            check_local_path(&path.value, value.span).map_err(|error| vec![error])?;
            Ok(OnError::Quarantine {
                path: Some(path.value.clone()),
            })
        }
        NodeKind::Map(entries) if entries.is_empty() => Ok(OnError::Quarantine { path: None }),
        NodeKind::Map(entries) => match entries.as_slice() {
            [
                (
                    key,
                    Node {
                        kind: NodeKind::Str(path),
                        ..
                    },
                ),
            ] if word(key) == Some("path") => Ok(OnError::Quarantine {
                path: Some(path.value.clone()),
            }),
            _ => Err(vec![Diagnostic::new(
                value.span,
                "`:quarantine` accepts only `:path`",
                "expected {:path \"folder\"}",
            )]),
        },
        _ => Err(vec![Diagnostic::new(
            value.span,
            "`:quarantine` expects a folder",
            "expected a string or {:path \"folder\"}",
        )]),
    }
}

fn parse_retry(value: &Node) -> Result<OnError, Vec<Diagnostic>> {
    let (mut times, mut interval, mut then) = (10, Duration::from_secs(60), OnError::Throw);
    let entries: &[(Node, Node)] = match &value.kind {
        NodeKind::Bool(true) | NodeKind::Nil => &[],
        NodeKind::Map(entries) => entries,
        _ => {
            return Err(vec![Diagnostic::new(
                value.span,
                "`:retry` expects a map",
                "expected {:times 10 :interval \"60s\" :then :throw}",
            )]);
        }
    };
    let mut errors = Vec::new();
    for (key, value) in entries {
        match word(key) {
            Some("times") => match &value.kind {
                NodeKind::Int(number) if *number >= 0 => times = *number as u64,
                _ => errors.push(Diagnostic::new(
                    value.span,
                    "`:times` is not an integer",
                    "expected an integer such as 10",
                )),
            },
            Some("interval") => match scalar(value).and_then(|text| units::duration(&text).ok()) {
                Some(time) => interval = time,
                None => errors.push(Diagnostic::new(
                    value.span,
                    "`:interval` is not a duration",
                    "expected a duration such as \"60s\"",
                )),
            },
            Some("then") => match OnError::from_node(value) {
                Ok(OnError::Retry { .. }) => {
                    errors.push(Diagnostic::new(
                        value.span,
                        "`:then` cannot be another `:retry`",
                        "expected :throw, :noop or {:quarantine …}",
                    ));
                }
                Ok(policy) => then = policy,
                Err(more) => errors.extend(more),
            },
            _ => errors.push(Diagnostic::new(
                key.span,
                "unknown option of `:retry`",
                "expected :times, :interval or :then",
            )),
        }
    }
    if errors.is_empty() {
        Ok(OnError::Retry {
            times,
            interval,
            then: Box::new(then),
        })
    } else {
        Err(errors)
    }
}
