//! The `mysql-logs` source: the table of logs, and the brokers that have their topics.

use pseidon_dsl::{Node, NodeKind, Span};

use super::GROUP;
use super::address::{self, Database, Redis};
use crate::build::{entry, int, keyword, list, map, millis, symbol, text};
use crate::read::{Findings, Keys, is_plain_secret};

/// The default interval in milliseconds at which the table is read.
const REFRESH: u64 = 10_000;
/// The default for `:etl-error-threshold`.
const ERROR_THRESHOLD: i64 = 100;

/// The source of a converted file.
pub(super) struct Source {
    pub(super) node: Node,
    /// The group: of rows in the table, and of the Kafka consumer.
    pub(super) group: String,
    /// Whether it contains a password in plain text.
    pub(super) holds_password: bool,
}

/// The values of the keys that configure the source. A required value is `None` if its key is
/// missing or invalid, which has been reported.
struct Values<'a> {
    database: Option<Database>,
    user: Option<String>,
    password: Option<String>,
    group: String,
    refresh: u64,
    threshold: i64,
    brokers: Option<String>,
    earliest: bool,
    registry: Option<&'a str>,
    metastore: Option<&'a str>,
    schemas: Option<&'a str>,
}

/// Reads the source. `None` if a required key is missing or invalid; a missing one is reported at
/// `opening`. `default_format` is the output format of rows without their own.
pub(super) fn read(
    findings: &mut Findings,
    keys: &mut Keys<'_>,
    opening: Span,
    default_format: Option<&str>,
    redis: Option<&Redis>,
) -> Option<Source> {
    Values::read(findings, keys, opening).source(default_format, redis)
}

impl<'a> Values<'a> {
    /// Reads all keys even if one is missing, so that every error is reported.
    fn read(findings: &mut Findings, keys: &mut Keys<'a>, opening: Span) -> Values<'a> {
        let database = findings
            .required(keys, "etl-db-host", "\"//localhost:3306/mydb\"", opening)
            .and_then(|given| address::database(findings, &given));
        let user = findings.text(keys, "etl-db-user").map(str::to_owned);
        // Unlike other strings, a password may be empty or blank.
        let password = password(findings, keys, "etl-db-pwd");
        let group = findings.text(keys, "etl-group").unwrap_or(GROUP).to_owned();
        let refresh = findings
            .millis(keys, "topic-refresh-freq-ms")
            .unwrap_or(REFRESH);
        let threshold = findings
            .count(keys, "etl-error-threshold", 0..=i64::MAX)
            .unwrap_or(ERROR_THRESHOLD);
        let example = "[{:host \"broker1\" :port 9092}]";
        let brokers = findings
            .required(keys, "kafka-brokers", example, opening)
            .and_then(|given| address::brokers(findings, &given));
        let earliest = findings.flag(keys, "kafka-use-earliest").unwrap_or(false);
        let registry = either(
            findings,
            keys,
            "schema-registry",
            "avro-schema-registry-url",
        );
        let metastore = findings.text(keys, "hive-metastore");
        let schemas = findings.text(keys, "schemas");
        Values {
            database,
            user,
            password,
            group,
            refresh,
            threshold,
            brokers,
            earliest,
            registry,
            metastore,
            schemas,
        }
    }

    /// `None` if a required value is missing.
    fn source(self, default_format: Option<&str>, redis: Option<&Redis>) -> Option<Source> {
        let database = self.database?;
        let brokers = self.brokers?;
        let group = self.group;
        let user = self.user.or(database.user);
        let password = self.password.or(database.password);
        let holds_password = password.as_deref().is_some_and(is_plain_secret);
        let options = map([
            entry("url", text(database.url)),
            entry("user", user.map(text)),
            entry("password", password.map(text)),
            entry("group", text(&group)),
            entry("refresh", millis(self.refresh)),
            entry("error-threshold", int(self.threshold)),
            entry("output-format", default_format.map(keyword)),
            entry("registry", self.registry.map(text)),
            entry("metastore", self.metastore.map(text)),
            entry("schemas", self.schemas.map(text)),
            // If pseidon-etl ran before, its offsets are in Redis.
            entry("offsets-of", redis.map(|redis| offsets_of(redis, &group))),
            entry(
                "on-error",
                map([entry("quarantine", text("${log:quarantine}"))]),
            ),
            entry("kafka", kafka(brokers, &group, self.earliest)),
        ]);
        Some(Source {
            node: list(vec![symbol("mysql-logs"), options]),
            group,
            holds_password,
        })
    }
}

fn offsets_of(redis: &Redis, group: &str) -> Node {
    map([
        entry("redis", text(&redis.url)),
        entry("group", text(group)),
    ])
}

fn kafka(brokers: String, group: &str, earliest: bool) -> Node {
    let start = if earliest { "earliest" } else { "latest" };
    map([
        entry("brokers", text(brokers)),
        entry("group", text(group)),
        entry("start", keyword(start)),
    ])
}

/// A key with two names. The first takes precedence.
fn either<'a>(
    findings: &mut Findings,
    keys: &mut Keys<'a>,
    name: &str,
    other: &str,
) -> Option<&'a str> {
    let (first, second) = (findings.text(keys, name), findings.text(keys, other));
    first.or(second)
}

/// A password: any string.
fn password(findings: &mut Findings, keys: &mut Keys<'_>, name: &str) -> Option<String> {
    let given = keys.take(name)?;
    match &given.value.kind {
        NodeKind::Str(text) => Some(text.value.clone()),
        _ => {
            findings.invalid(&given, "a string");
            None
        }
    }
}
