//! `pseidon.edn`, the configuration of pseidon-etl.
//!
//! The file says where the table of logs is, where Kafka and Redis are, and how files are written;
//! which topics are read, and how, stands in the table. So it means one pipeline: a `mysql-logs`
//! source, and `disk-writer`, a `files` sink. Between and beside them stands what its `:plugins`
//! say, the flow of pseidon-plugin, which is `(-> disk-writer)` where nothing is said.
//!
//! Keys of our own that may be added to such a file: `:schema-registry`, `:hive-metastore` and
//! `:schemas` (where types come from), `:move-files` (closed files go where pseidon-hdfs would have
//! moved them), `:state`, `:memory`, `:monitor-host` and `:fatal-errors`.

mod address;
mod plugins;
mod writer;

use super::build::{entry, int, keyword, list, map, millis, symbol, text};
use super::read::{Findings, Given, Keys};
use super::{Converted, NoteKind};
use crate::{Diagnostic, Name, Node, NodeKind, Span, document, edn, print, units};
use address::{Database, Redis};
use plugins::Plugins;

/// Keys that only such a file has: one of them is enough to know it. (Others, such as
/// `:etl-threads`, may be a slip in a pipeline file.)
const SIGNS: [&str; 9] = [
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

/// Keys that only a pipeline file has.
const OTHER_SIGNS: [&str; 3] = ["name", "settings", "tests"];

/// What a row belongs to, and who reads Kafka, where the file does not say it.
const GROUP: &str = "etl";
const REFRESH: u64 = 10_000;
const ERROR_THRESHOLD: i64 = 100;
const FATAL_ERRORS: &str = "/tmp/fatalerrors";

/// Said before a converted pipeline with a password in it.
const ABOUT_PASSWORDS: &str = "; A password need not stand in this file: write \"${env:ETL_DB_PWD}\" or \"${file:/run/secrets/etl-db-pwd}\".\n";

/// Whether `text` is a `pseidon.edn`, or a pipeline of pseidon-plugin by itself, which needs one.
pub fn is_one(text: &str) -> bool {
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
        .any(|name| OTHER_SIGNS.contains(&name.as_str()))
    {
        return false;
    }
    keywords.iter().any(|name| SIGNS.contains(&name.as_str()))
        || (keywords.is_empty() && plugins::stands_alone(entries))
}

/// The pipeline file that a `pseidon.edn` means.
///
/// # Errors
/// All mistakes, in the order of the file: values that cannot be right, keys that are missing,
/// plugins that were classes.
pub fn convert(text: &str) -> Result<Converted, Vec<Diagnostic>> {
    let node = edn::read(text)?;
    let NodeKind::Map(entries) = &node.kind else {
        return Err(vec![Diagnostic::new(
            node.span,
            "pseidon.edn is a map",
            format!("expected {{ … }}, found {}", node.describe()),
        )]);
    };
    let mut findings = Findings::default();
    // The whole map would be underlined, so what is missing is said of its first brace.
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
    let mut mistakes = findings.mistakes;
    match pipeline {
        Some(pipeline) if mistakes.is_empty() => {
            let text = with_comments(&pipeline);
            match document::from_edn(&text) {
                Ok(_) => Ok(Converted {
                    text,
                    notes: findings.notes,
                }),
                // Every piece was checked at its own place, except that together they may nest too
                // deeply.
                Err(_) => Err(vec![Diagnostic::new(
                    opening,
                    "this nests too deeply",
                    "as a pipeline it has more than 128 levels",
                )]),
            }
        }
        _ => {
            mistakes.sort_by_key(|mistake| mistake.span);
            mistakes.dedup();
            Err(mistakes)
        }
    }
}

fn with_comments(pipeline: &Pipeline) -> String {
    let about_passwords = if pipeline.holds_password {
        ABOUT_PASSWORDS
    } else {
        ""
    };
    format!(
        "; What a pseidon.edn means, as a pipeline file.\n{about_passwords}{}\n",
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
    /// Whether a password stands in it in plain text.
    holds_password: bool,
}

struct Conversion<'f> {
    findings: &'f mut Findings,
    /// Where a missing key is reported.
    opening: Span,
}

impl Conversion<'_> {
    /// None if a key is missing; other mistakes may be there all the same.
    fn file(&mut self, entries: &[(Node, Node)]) -> Option<Pipeline> {
        let (symbols, keywords): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|(key, _)| matches!(key.kind, NodeKind::Symbol(_)));
        let is_alone = keywords.is_empty() && !symbols.is_empty();
        let mut keys = self.findings.keys_of(keywords, String::new());
        let plugins = Plugins::read(self.findings, &symbols, &mut keys);
        if is_alone {
            let label = "there is no key such as :etl-db-host, :kafka-brokers or :data-dir here";
            let mistake = Diagnostic::new(
                self.opening,
                "a pipeline of pseidon-plugin has no source of its own",
                label,
            );
            self.findings.mistakes.push(mistake.with_help(
                "put the map into pseidon.edn, as `:plugins {…}`, or begin the flow with a source",
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
        self.without_meaning(&mut keys);
        self.findings.finish(keys);
        let source = source?;
        let name = entry("name", text(plain_name(&source.group)));
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

    /// The `mysql-logs` source. All of its keys are read, also when one is missing.
    fn source(
        &mut self,
        keys: &mut Keys<'_>,
        default_format: Option<&str>,
        redis: Option<&Redis>,
    ) -> Option<Source> {
        let database = self
            .needed(keys, "etl-db-host", "\"//localhost:3306/mydb\"")
            .and_then(|given| address::database(self.findings, &given));
        let user = self.findings.text(keys, "etl-db-user").map(str::to_owned);
        // A password may be empty or blank, unlike any other text.
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
        let brokers = self.needed(keys, "kafka-brokers", "[{:host \"broker1\" :port 9092}]");
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
            // Where pseidon-etl has run before, it has left its offsets there.
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
            findings.wrong(given, "a size such as \"4GB\"");
        }
        let state = findings.text(keys, "state").map(str::to_owned);
        let monitor_port = keys.take("monitor-port");
        let monitor_host = findings.text(keys, "monitor-host");
        if let Some(given) = monitor_port.as_ref().filter(|_| monitor_host.is_none()) {
            let sentence = "it is served on 127.0.0.1 only, where pseidon-etl served it on every address; for that, add :monitor-host \"0.0.0.0\"";
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

    fn without_meaning(&mut self, keys: &mut Keys<'_>) {
        for (name, sentence) in [
            (
                "consume-step",
                "records are taken in batches, cut by their bytes and by :memory",
            ),
            (
                "work-calculate-freq",
                "Kafka itself shares the partitions out",
            ),
            (
                "kafka-msg-ch-buffer-size",
                "what waits between Kafka and the threads is bounded by :memory",
            ),
            (
                "pool",
                "there is one queue, and what waits in it is bounded by :memory",
            ),
            (
                "metrics",
                "they are not written to Redis; they are served at /metrics on :monitor-port",
            ),
            (
                "jaas",
                "there is no JVM; say :tls and :sasl in the :kafka of the pipeline file that `pseidon import` prints",
            ),
        ] {
            self.findings.no_meaning(keys, name, sentence);
        }
    }

    /// A key without which nothing can run.
    fn needed<'a>(&mut self, keys: &mut Keys<'a>, name: &str, example: &str) -> Option<Given<'a>> {
        let given = keys.take(name);
        if given.is_none() {
            let mistake = Diagnostic::new(
                self.opening,
                format!("there is no `:{name}`"),
                "missing in this map",
            );
            self.findings
                .mistakes
                .push(mistake.with_help(format!("add, for example, :{name} {example}")));
        }
        given
    }

    /// Two names of one thing; the first wins.
    fn either<'a>(&mut self, keys: &mut Keys<'a>, name: &str, other: &str) -> Option<&'a str> {
        let (first, second) = (
            self.findings.text(keys, name),
            self.findings.text(keys, other),
        );
        first.or(second)
    }

    fn password(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<String> {
        let given = keys.take(name)?;
        match &given.value.kind {
            NodeKind::Str(text) => Some(text.value.clone()),
            _ => {
                self.findings.wrong(&given, "a text");
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

/// Whether a password stands in the file itself.
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

fn port(findings: &mut Findings, given: &Given<'_>) -> Option<i64> {
    match given.value.kind {
        NodeKind::Int(port @ 1..=65535) => Some(port),
        _ => {
            findings.wrong(given, "a port: a whole number from 1 to 65535");
            None
        }
    }
}

/// The pipeline is called after the group, as far as its letters can be part of a name: instances
/// of one group share their work.
fn plain_name(group: &str) -> String {
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

/// A name that nothing in `taken` has.
fn fresh(wanted: &str, taken: &[Name]) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other.to_string() == name);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| wanted.to_owned())
}
