//! What to write instead of a name that is not a plugin, or at the ends of a flow.

use pseidon_dsl::{Call, Diagnostic, Name, Node, NodeKind, class, nearest, print};

use super::{Resolver, discards};
use crate::transforms::Transform;

/// Names that other tools have for a transform here.
const TRANSFORM_SYNONYMS: [(&str, &str); 40] = [
    ("add", "set"),
    ("aggregate", "group"),
    ("assign", "set"),
    ("branch", "route"),
    ("case", "route"),
    ("cast", "set"),
    ("count", "group"),
    ("deduplicate", "dedupe"),
    ("del", "remove"),
    ("delete", "remove"),
    ("distinct", "dedupe"),
    ("enrich", "lookup"),
    ("enrichment", "lookup"),
    ("explode", "unnest"),
    ("filter", "where"),
    ("flatten", "unnest"),
    ("grok", "parse"),
    ("group-by", "group"),
    ("group_by", "group"),
    ("head", "limit"),
    ("if", "route"),
    ("join", "lookup"),
    ("map", "select"),
    ("mapping", "set"),
    ("move", "rename"),
    ("mutate", "set"),
    ("parse-regex", "parse"),
    ("parse_json", "parse"),
    ("parse_regex", "parse"),
    ("project", "select"),
    ("rate_limit", "throttle"),
    ("ratelimit", "throttle"),
    ("reduce", "group"),
    ("remap", "set"),
    ("sleep", "throttle"),
    ("switch", "route"),
    ("take", "limit"),
    ("top", "limit"),
    ("unique", "dedupe"),
    ("window", "group"),
];

/// The error for a flow that begins with the name of a stage: `(events (where …) out)`.
fn stage_before_parenthesis(name: &str, call: &Call) -> Diagnostic {
    let message = format!("`{name}` is a stage, and not a plugin");
    let error = Diagnostic::new(
        call.plugin_span,
        message,
        "a parenthesis begins with a plugin",
    );
    let is_arrow = |node: &&Node| match &node.kind {
        NodeKind::Symbol(symbol) => !ARROWS.contains(&symbol.to_string().as_str()),
        _ => true,
    };
    let symbol = |name: &str| Node {
        kind: NodeKind::Symbol(Name::plain(name)),
        span: call.plugin_span,
    };
    let stages: Vec<Node> = call.args.iter().filter(is_arrow).cloned().collect();
    if stages.is_empty() {
        return error.with_help(format!("write `{name}` without the parentheses"));
    }
    let flow = [symbol("->"), symbol(name)].into_iter().chain(stages);
    error.with_help(format!("write {}", print::list(flow.collect())))
}

/// Systems that other tools have plugins for, and what to do instead.
const MISSING: [(&[&str], &str); 4] = [
    (
        &["s3", "gcs", "gs", "aws_s3", "azure_blob", "hdfs"],
        "use `files` with a local folder, and copy its files with another program",
    ),
    (
        &[
            "http",
            "http_server",
            "http_client",
            "https",
            "rest",
            "webhook",
        ],
        "a program can write to `stdin` or to files; a sink `files` can call a URL with :on-close",
    ),
    (
        &[
            "mysql",
            "postgres",
            "postgresql",
            "sql",
            "jdbc",
            "clickhouse",
            "mongodb",
            "bigquery",
        ],
        "use `files`, with what the database exports or loads, for example CSV or Parquet",
    ),
    (
        &[
            "elasticsearch",
            "opensearch",
            "loki",
            "splunk",
            "syslog",
            "socket",
            "tcp",
            "nats",
            "rabbitmq",
            "amqp",
            "kinesis",
            "sqs",
            "pulsar",
            "redis",
            "mqtt",
        ],
        "use Kafka or files, and another program that moves the records",
    ),
];

/// What is written between stages elsewhere.
const ARROWS: [&str; 5] = ["->", "->>", "|", "|>", "=>"];

impl Resolver<'_> {
    pub(super) fn sources_help(&self) -> String {
        let sources = self.registry.sources.iter();
        let names: Vec<&str> = sources.map(|source| source.spec().name).collect();
        format!(
            "begin the flow with one of the sources {}",
            names.join(", ")
        )
    }

    pub(super) fn sinks_help(&self) -> String {
        let sinks = || self.registry.sinks.iter();
        let names: Vec<&str> = sinks().map(|sink| sink.spec().name).collect();
        let help = format!("end the flow with one of the sinks {}", names.join(", "));
        match sinks().find(|sink| discards(sink)) {
            Some(sink) => format!("{help}; to discard the records, use ({})", sink.spec().name),
            None => help,
        }
    }

    pub(super) fn unknown_plugin(&self, call: &Call) -> Diagnostic {
        if class::names_class(&call.plugin) {
            return class::class_error(&call.plugin, call.plugin_span, "not a plugin");
        }
        let name = call.plugin.to_string();
        if self.stages.contains_key(&call.plugin) || self.flows.names().any(|flow| flow == name) {
            return stage_before_parenthesis(&name, call);
        }
        let error = Diagnostic::new(
            call.plugin_span,
            format!("unknown plugin `{name}`"),
            "not a plugin",
        );
        let mut missing = MISSING.iter();
        if let Some((_, instead)) = missing.find(|(names, _)| names.contains(&name.as_str())) {
            return error.with_help(format!("Pseidon has no plugin for this: {instead}"));
        }
        if name.starts_with("->") || ["|>", "pipe", "pipeline"].contains(&name.as_str()) {
            return error.with_help("stages that follow one another are written (-> first second)");
        }
        self.with_nearest(error, &name)
    }

    /// The error for a name in a flow that is not a stage.
    pub(super) fn unknown_stage(&self, error: Diagnostic, name: &str) -> Diagnostic {
        match ARROWS.contains(&name) {
            true => error.with_help(format!(
                "leave out the `{name}`: in (-> first second), each stage gets the records of the \
                 one before it"
            )),
            false => self.with_nearest(error, name),
        }
    }

    pub(super) fn with_nearest(&self, error: Diagnostic, name: &str) -> Diagnostic {
        let stages = self.stages.keys().map(|stage| stage.to_string());
        let named: Vec<String> = stages.chain(self.flows.names()).collect();
        let plugins = self
            .registry
            .specs()
            .map(|spec| spec.name)
            .chain(Transform::ALL.map(|transform| transform.spec().name));
        let mut synonyms = TRANSFORM_SYNONYMS.iter().chain(self.registry.synonyms);
        let synonym = synonyms.find(|(other, _)| *other == name);
        let known = named.iter().map(String::as_str).chain(plugins);
        match synonym.map(|(_, ours)| *ours).or(nearest(name, known)) {
            Some(near) => error.with_help(format!("did you mean `{near}`?")),
            None => error.with_help(self.all_plugins()),
        }
    }

    pub(super) fn all_plugins(&self) -> String {
        let list = |names: Vec<&str>| names.join(", ");
        let sources = list(
            self.registry
                .sources
                .iter()
                .map(|one| one.spec().name)
                .collect(),
        );
        let sinks = list(
            self.registry
                .sinks
                .iter()
                .map(|one| one.spec().name)
                .collect(),
        );
        let transforms = list(Transform::ALL.map(|one| one.spec().name).to_vec());
        format!("sources: {sources}; transforms: {transforms}; sinks: {sinks}")
    }
}
