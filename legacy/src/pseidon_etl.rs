//! `pseidon.edn`, the configuration of pseidon-etl.
//!
//! The file configures the table of logs, Kafka, Redis, and how files are written. The topics to
//! read, and how to read them, are rows of the table. So the file corresponds to one pipeline: a
//! `mysql-logs` source and `disk-writer`, a `files` sink. The flow between them is the value of
//! `:plugins`, in the syntax of pseidon-plugin. Its default is `(-> disk-writer)`.
//!
//! Pseidon accepts additional keys in such a file: `:schema-registry`, `:hive-metastore` and
//! `:schemas` (sources of types), `:move-files` (moves closed files to where pseidon-hdfs moved
//! them), `:state`, `:memory`, `:monitor-host` and `:fatal-errors`.

mod address;
mod plugins;
mod writer;

use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span, document, edn, print, units};

use crate::build::{entry, int, keyword, list, map, millis, symbol, text};
use crate::read::{Findings, KeyValue, Keys};
use crate::{ConvertedFile, NoteKind};
use address::{Database, Redis};
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
/// The default interval in milliseconds at which the table is read.
const REFRESH: u64 = 10_000;
/// The default for `:etl-error-threshold`.
const ERROR_THRESHOLD: i64 = 100;
/// The default for `:fatal-errors`.
const FATAL_ERRORS: &str = "/tmp/fatalerrors";

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
    let pipeline = Conversion {
        findings: &mut findings,
        opening,
    }
    .file(entries);
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

struct Conversion<'f> {
    findings: &'f mut Findings,
    /// The position at which missing keys are reported.
    opening: Span,
}

impl Conversion<'_> {
    /// `None` if a key is missing. Other errors are only added to the findings.
    fn file(&mut self, entries: &[(Node, Node)]) -> Option<Pipeline> {
        let (symbols, keywords): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|(key, _)| matches!(key.kind, NodeKind::Symbol(_)));
        let is_alone = keywords.is_empty() && !symbols.is_empty();
        let mut keys = self.findings.keys_of(keywords, String::new());
        let plugins = Plugins::read(self.findings, &symbols, &mut keys);
        if is_alone {
            let label = "expected keys such as :etl-db-host, :kafka-brokers and :data-dir";
            let error = Diagnostic::new(
                self.opening,
                "a pseidon-plugin pipeline has no source",
                label,
            );
            self.findings.errors.push(error.with_help(
                "move the map to pseidon.edn as `:plugins {…}`, or begin the flow with a source",
            ));
            return None;
        }
        let (writers, default_format) = writer::read(
            self.findings,
            &mut keys,
            plugins.uses_disk_writer().then_some(self.opening),
        );
        let redis = keys
            .take("redis-conf")
            .and_then(|given| address::redis(self.findings, &given));
        let source = self.source(&mut keys, default_format, redis.as_ref());
        let settings = self.settings(&mut keys, redis);
        self.keys_without_effect(&mut keys);
        self.findings.finish(keys);
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

    /// The `mysql-logs` source. All of its keys are read even if one is missing, so that every
    /// error is reported.
    fn source(
        &mut self,
        keys: &mut Keys<'_>,
        default_format: Option<&str>,
        redis: Option<&Redis>,
    ) -> Option<Source> {
        let database = self
            .required(keys, "etl-db-host", "\"//localhost:3306/mydb\"")
            .and_then(|given| address::database(self.findings, &given));
        let user = self.findings.text(keys, "etl-db-user").map(str::to_owned);
        // Unlike other strings, a password may be empty or blank.
        let password = self.password(keys, "etl-db-pwd");
        let group = self
            .findings
            .text(keys, "etl-group")
            .unwrap_or(GROUP)
            .to_owned();
        let refresh = self
            .findings
            .millis(keys, "topic-refresh-freq-ms")
            .unwrap_or(REFRESH);
        let threshold = self
            .findings
            .count(keys, "etl-error-threshold", 0..=i64::MAX)
            .unwrap_or(ERROR_THRESHOLD);
        let brokers = self.required(keys, "kafka-brokers", "[{:host \"broker1\" :port 9092}]");
        let brokers = brokers.and_then(|given| address::brokers(self.findings, &given));
        let earliest = self
            .findings
            .flag(keys, "kafka-use-earliest")
            .unwrap_or(false);
        let registry = self.either(keys, "schema-registry", "avro-schema-registry-url");
        let metastore = self.findings.text(keys, "hive-metastore");
        let schemas = self.findings.text(keys, "schemas");
        let Database {
            url,
            user: url_user,
            password: url_password,
        } = database?;
        let password = password.or(url_password);
        let kafka = map([
            entry("brokers", text(brokers?)),
            entry("group", text(&group)),
            entry(
                "start",
                keyword(if earliest { "earliest" } else { "latest" }),
            ),
        ]);
        let holds_password = password.as_deref().is_some_and(is_plain_secret);
        let options = map([
            entry("url", text(url)),
            entry("user", user.or(url_user).map(text)),
            entry("password", password.map(text)),
            entry("group", text(&group)),
            entry("refresh", millis(refresh)),
            entry("error-threshold", int(threshold)),
            entry("output-format", default_format.map(keyword)),
            entry("registry", registry.map(text)),
            entry("metastore", metastore.map(text)),
            entry("schemas", schemas.map(text)),
            // If pseidon-etl ran before, its offsets are in Redis.
            entry(
                "offsets-of",
                redis.map(|redis| {
                    map([
                        entry("redis", text(&redis.url)),
                        entry("group", text(&group)),
                    ])
                }),
            ),
            entry(
                "on-error",
                map([entry("quarantine", text("${log:quarantine}"))]),
            ),
            entry("kafka", kafka),
        ]);
        Some(Source {
            node: list(vec![symbol("mysql-logs"), options]),
            group,
            holds_password,
        })
    }

    fn settings(&mut self, keys: &mut Keys<'_>, redis: Option<Redis>) -> Settings {
        let findings = &mut *self.findings;
        let etl_threads = findings.count(keys, "etl-threads", 1..=1024);
        let io_threads = findings.count(keys, "io-threads", 1..=1024);
        let memory = keys.take("memory");
        if let Some(given) = memory.as_ref().filter(|given| !is_size(given.value)) {
            findings.invalid(given, "a size such as \"4GB\"");
        }
        let state = findings.text(keys, "state").map(str::to_owned);
        let monitor_port = keys.take("monitor-port");
        let monitor_host = findings.text(keys, "monitor-host");
        if let Some(given) = monitor_port.as_ref().filter(|_| monitor_host.is_none()) {
            let sentence = "the port is opened on 127.0.0.1 only, unlike in pseidon-etl; to open \
                it on every address, add :monitor-host \"0.0.0.0\"";
            findings.note(given, NoteKind::Changed, sentence);
        }
        let monitor_port = monitor_port.and_then(|given| port(findings, &given));
        let repl_port = keys
            .take("repl-port")
            .and_then(|given| port(findings, &given));
        let fatal_errors = findings.text(keys, "fatal-errors").unwrap_or(FATAL_ERRORS);
        let holds_password =
            state.is_none() && redis.as_ref().is_some_and(|redis| redis.holds_password);
        let node = map([
            entry("etl-threads", etl_threads.map(int)),
            entry("io-threads", io_threads.map(int)),
            entry("memory", memory.map(|given| given.value.clone())),
            entry("state", state.or(redis.map(|redis| redis.url)).map(text)),
            entry("monitor-port", monitor_port.map(int)),
            entry("monitor-host", monitor_host.map(text)),
            entry("repl-port", repl_port.map(int)),
            entry("fatal-errors", text(fatal_errors)),
        ]);
        Settings {
            node,
            holds_password,
        }
    }

    fn keys_without_effect(&mut self, keys: &mut Keys<'_>) {
        for (name, sentence) in [
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
        ] {
            self.findings.no_effect(keys, name, sentence);
        }
    }

    /// A required key. If it is missing, an error is reported.
    fn required<'a>(
        &mut self,
        keys: &mut Keys<'a>,
        name: &str,
        example: &str,
    ) -> Option<KeyValue<'a>> {
        let given = keys.take(name);
        if given.is_none() {
            let error = Diagnostic::new(
                self.opening,
                format!("missing required key `:{name}`"),
                "required in this map",
            );
            self.findings
                .errors
                .push(error.with_help(format!("add, for example, :{name} {example}")));
        }
        given
    }

    /// A key with two names. The first takes precedence.
    fn either<'a>(&mut self, keys: &mut Keys<'a>, name: &str, other: &str) -> Option<&'a str> {
        let (first, second) = (
            self.findings.text(keys, name),
            self.findings.text(keys, other),
        );
        first.or(second)
    }

    /// A password: any string.
    fn password(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<String> {
        let given = keys.take(name)?;
        match &given.value.kind {
            NodeKind::Str(text) => Some(text.value.clone()),
            _ => {
                self.findings.invalid(&given, "a string");
                None
            }
        }
    }
}

struct Source {
    node: Node,
    group: String,
    holds_password: bool,
}

struct Settings {
    node: Node,
    holds_password: bool,
}

/// Whether a password is in plain text, not a `${…}` placeholder.
fn is_plain_secret(password: &str) -> bool {
    !password.is_empty() && !password.contains("${")
}

fn is_size(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Int(bytes) => *bytes > 0,
        NodeKind::Str(text) => text.value.contains("${") || units::size(&text.value).is_ok(),
        _ => false,
    }
}

fn port(findings: &mut Findings, given: &KeyValue<'_>) -> Option<i64> {
    match given.value.kind {
        NodeKind::Int(port @ 1..=65535) => Some(port),
        _ => {
            findings.invalid(given, "a port from 1 to 65535");
            None
        }
    }
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

/// `wanted`, or else `wanted` with the lowest number that makes it different from all names in
/// `taken`.
fn unique_name(wanted: &str, taken: &[Name]) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other.to_string() == name);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| wanted.to_owned())
}
