//! `pseidon.edn`, the configuration of pseidon-etl.
//!
//! The file configures the table of logs, Kafka, Redis, and how files are written. The topics to
//! read, and how to read them, are rows of the table. So the file corresponds to one pipeline: a
//! `mysql-logs` source and `disk-writer`, a `files` sink. The flow between them is the value of
//! `:plugins`, in the syntax of pseidon-plugin. Its default is `(-> disk-writer)`.
//!
//! Pseidon accepts additional keys in such a file: `:schema-registry`, `:hive-metastore` and
//! `:schemas` (sources of types), `:move-files` (moves closed files to where pseidon-hdfs moved
//! them), `:state`, `:memory`, `:monitor-host`,
//! `:monitor-names`, `:token` and `:fatal-errors`.

mod address;
mod plugins;
mod settings;
mod source;
mod writer;

use pseidon_dsl::{Diagnostic, Node, NodeKind, Span, document, edn, print};

use crate::ConvertedFile;
use crate::build::{entry, text};
use crate::read::Findings;
use plugins::Plugins;

/// Keys that occur only in a `pseidon.edn`: one of them identifies it. Other keys, such as
/// `:etl-threads`, are not listed because they can be misplaced in a pipeline file.
const MARKER_KEYS: [&str; 9] = [
    "etl-db-host",
    "etl-db-user",
    "etl-db-pwd",
    "etl-group",
    "kafka-brokers",
    "kafka-use-earliest",
    "redis-conf",
    "data-dir",
    "writer",
];

/// Keys that occur only in a pipeline file.
const PIPELINE_FILE_KEYS: [&str; 3] = ["name", "settings", "tests"];

/// The default group: of rows in the table, and of the Kafka consumer.
const GROUP: &str = "etl";

/// Keys that no longer have an effect.
const WITHOUT_EFFECT: [(&str, &str); 6] = [
    (
        "consume-step",
        "records are read in batches, limited by size in bytes and by :memory",
    ),
    ("work-calculate-freq", "Kafka assigns the partitions"),
    (
        "kafka-msg-ch-buffer-size",
        "records in flight are bounded by :memory",
    ),
    ("pool", "there is one queue, bounded by :memory"),
    (
        "metrics",
        "metrics are not written to Redis; they are served at /metrics on :monitor-port",
    ),
    (
        "jaas",
        "there is no JVM; set :tls and :sasl in the :kafka map of the pipeline file that \
            `pseidon import` prints",
    ),
];

/// The comment above a converted pipeline that contains a password.
const PASSWORD_COMMENT: &str = "; To keep a password out of this file, write \
    \"${env:ETL_DB_PWD}\" or \"${file:/run/secrets/etl-db-pwd}\".\n";

/// Whether `text` is a `pseidon.edn`, or a pseidon-plugin pipeline alone, which belongs in one.
pub fn is_config(text: &str) -> bool {
    let (Some(node), _) = edn::recover(text) else {
        return false;
    };
    let NodeKind::Map(entries) = &node.kind else {
        return false;
    };
    let keywords: Vec<String> = entries
        .iter()
        .filter_map(|(key, _)| keyword_name(key))
        .collect();
    if keywords
        .iter()
        .any(|name| PIPELINE_FILE_KEYS.contains(&name.as_str()))
    {
        return false;
    }
    keywords
        .iter()
        .any(|name| MARKER_KEYS.contains(&name.as_str()))
        || (keywords.is_empty() && plugins::is_standalone(entries))
}

/// Converts a `pseidon.edn` to a pipeline file.
///
/// # Errors
/// All errors, in source order: invalid values, missing keys, and plugins that are Java or Clojure
/// classes.
pub fn convert(text: &str) -> Result<ConvertedFile, Vec<Diagnostic>> {
    let node = edn::read(text)?;
    let NodeKind::Map(entries) = &node.kind else {
        return Err(vec![Diagnostic::new(
            node.span,
            "pseidon.edn must be a map",
            format!("expected {{ … }}, found {}", node.describe()),
        )]);
    };
    let mut findings = Findings::default();
    // A missing key is reported at the opening brace, so that not the whole map is underlined.
    let opening = Span {
        end: node.span.start + 1,
        ..node.span
    };
    let pipeline = pipeline(&mut findings, entries, opening);
    findings.notes.sort_by_key(|note| note.span);
    let mut errors = findings.errors;
    match pipeline {
        Some(pipeline) if errors.is_empty() => {
            let text = with_comments(&pipeline);
            match document::from_edn(&text) {
                Ok(_) => Ok(ConvertedFile {
                    text,
                    notes: findings.notes,
                }),
                // Every part was checked at its own position. Only the nesting of the whole can
                // still exceed the limit.
                Err(_) => Err(vec![Diagnostic::new(
                    opening,
                    "nested too deeply",
                    "the converted pipeline has more than 128 levels",
                )]),
            }
        }
        _ => {
            errors.sort_by_key(|error| error.span);
            errors.dedup();
            Err(errors)
        }
    }
}

fn with_comments(pipeline: &Pipeline) -> String {
    let password_comment = if pipeline.holds_password {
        PASSWORD_COMMENT
    } else {
        ""
    };
    format!(
        "; Converted from a pseidon.edn.\n{password_comment}{}\n",
        print::pretty(&pipeline.node)
    )
}

fn keyword_name(node: &Node) -> Option<String> {
    match &node.kind {
        NodeKind::Keyword(name) => Some(name.to_string()),
        _ => None,
    }
}

struct Pipeline {
    node: Node,
    /// Whether it contains a password in plain text.
    holds_password: bool,
}

/// The pipeline of a file. `None` if a required key is missing or invalid. Other errors are only
/// added to the findings. A missing key is reported at `opening`.
fn pipeline(findings: &mut Findings, entries: &[(Node, Node)], opening: Span) -> Option<Pipeline> {
    let (symbols, keywords): (Vec<_>, Vec<_>) = entries
        .iter()
        .partition(|(key, _)| matches!(key.kind, NodeKind::Symbol(_)));
    let is_alone = keywords.is_empty() && !symbols.is_empty();
    let mut keys = findings.keys_of(keywords, String::new());
    let plugins = Plugins::read(findings, &symbols, &mut keys);
    if is_alone {
        findings.errors.push(error_without_source(opening));
        return None;
    }
    let (writers, default_format) = writer::read(
        findings,
        &mut keys,
        plugins.uses_disk_writer().then_some(opening),
    );
    let redis = keys
        .take("redis-conf")
        .and_then(|given| address::redis(findings, &given));
    let source = source::read(findings, &mut keys, opening, default_format, redis.as_ref());
    let settings = settings::read(findings, &mut keys, redis);
    for (name, sentence) in WITHOUT_EFFECT {
        findings.no_effect(&mut keys, name, sentence);
    }
    findings.finish(keys);
    let source = source?;
    let name = entry("name", text(pipeline_name(&source.group)));
    let mut entries: Vec<(Node, Node)> = name
        .into_iter()
        .chain(entry("settings", settings.node))
        .collect();
    entries.extend(plugins.pipeline(source.node, writers));
    let holds_password = source.holds_password || settings.holds_password;
    Some(Pipeline {
        node: Node {
            kind: NodeKind::Map(entries),
            span: Span::default(),
        },
        holds_password,
    })
}

/// The error for a pseidon-plugin pipeline that is not part of a `pseidon.edn`.
fn error_without_source(opening: Span) -> Diagnostic {
    Diagnostic::new(
        opening,
        "a pseidon-plugin pipeline has no source",
        "expected keys such as :etl-db-host, :kafka-brokers and :data-dir",
    )
    .with_help("move the map to pseidon.edn as `:plugins {…}`, or begin the flow with a source")
}

/// The name of the pipeline: the group, with each character that is not valid in a name replaced by
/// `-`. Instances of one group share their work, so they must have the same pipeline name.
fn pipeline_name(group: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let name: String = group
        .trim_start_matches('.')
        .chars()
        .map(plain)
        .take(100)
        .collect();
    if name.is_empty() {
        GROUP.to_owned()
    } else {
        name
    }
}
