//! The addresses of servers: MySQL as a JDBC URL, Kafka brokers, Redis.

use pseidon_dsl::{Node, NodeKind};

use crate::NoteKind;
use crate::read::{Findings, KeyValue, as_text, is_plain_secret, items};

/// The value of `:etl-db-host`.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// The value of `:redis-conf`.
pub(super) struct Redis {
    pub(super) url: String,
    pub(super) holds_password: bool,
}

const KAFKA_PORT: u16 = 9092;
const REDIS_PORT: u16 = 6379;

/// Parses `//localhost:3306/mydb?autoReconnect=true`, with or without the prefixes `jdbc:` and
/// `mysql:`.
pub(super) fn database(findings: &mut Findings, given: &KeyValue<'_>) -> Option<Database> {
    let expected = "a host and a database such as \"//localhost:3306/mydb\"";
    let Some(text) = as_text(given.value) else {
        findings.invalid(given, expected);
        return None;
    };
    let text = text.trim();
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let text = text
        .strip_prefix("mysql:")
        .or_else(|| text.strip_prefix("mariadb:"))
        .unwrap_or(text);
    let text = text.strip_prefix("//").unwrap_or(text);
    let (place, properties) = text.split_once('?').unwrap_or((text, ""));
    let Some((host, database)) = place
        .split_once('/')
        .filter(|(_, database)| !database.is_empty() && !database.contains('/'))
    else {
        findings.invalid(given, expected);
        return None;
    };
    let first = host.split(',').next().unwrap_or_default();
    if first != host {
        findings.note(
            given,
            NoteKind::Changed,
            "only the first of several servers is used",
        );
    }
    let first = if first.is_empty() { "localhost" } else { first };
    let mut found = Database {
        url: format!("mysql://{first}/{database}"),
        user: None,
        password: None,
    };
    for property in properties
        .split('&')
        .filter(|property| !property.is_empty())
    {
        let (name, value) = property.split_once('=').unwrap_or((property, ""));
        match name {
            "user" => found.user = Some(value.to_owned()),
            "password" => found.password = Some(value.to_owned()),
            _ => findings.note(
                &KeyValue {
                    path: format!("{} {name}", given.path),
                    ..given.clone()
                },
                property_kind(name),
                property_sentence(name),
            ),
        }
    }
    Some(found)
}

fn is_about_tls(property: &str) -> bool {
    let property = property.to_lowercase();
    property.contains("ssl") || property.contains("tls") || property.contains("certificate")
}

fn property_kind(property: &str) -> NoteKind {
    if is_about_tls(property) {
        NoteKind::Changed
    } else {
        NoteKind::NoEffect
    }
}

fn property_sentence(property: &str) -> &'static str {
    match property {
        "autoReconnect" => "lost connections are always reopened",
        _ if is_about_tls(property) => "TLS properties of the JDBC driver are not converted",
        _ => "this is a property of the JDBC driver",
    }
}

/// Parses `[{:host "broker1" :port 9092} …]`, or strings in place of the maps: `broker1:9092,…`.
pub(super) fn brokers(findings: &mut Findings, given: &KeyValue<'_>) -> Option<String> {
    let addresses = addresses(findings, given, KAFKA_PORT)?;
    Some(addresses.join(","))
}

/// Parses `{:host "redis:6379"}`. Several hosts are a cluster.
pub(super) fn redis(findings: &mut Findings, given: &KeyValue<'_>) -> Option<Redis> {
    let mut keys = findings.keys(given)?;
    let port = port(findings, keys.take("port")).unwrap_or(REDIS_PORT);
    let hosts = match keys.take("host") {
        Some(host) => addresses(findings, &host, port),
        None => {
            findings.invalid(given, "a map with a :host");
            None
        }
    };
    let password = findings.text(&mut keys, "password").map(str::to_owned);
    let db = findings.count(&mut keys, "db", 0..=i64::MAX).unwrap_or(0);
    for (name, sentence) in [
        ("heart-beat", "Kafka detects which instances are alive"),
        ("group-name", "the group is :etl-group"),
        (
            "max-active",
            "each thread that needs a connection opens one",
        ),
        ("timeout", "requests to Redis are retried until it answers"),
    ] {
        findings.no_effect(&mut keys, name, sentence);
    }
    findings.finish(keys);
    let hosts = hosts?;
    let login = password
        .as_deref()
        .map(|password| format!(":{}@", percent_encoded(password)))
        .unwrap_or_default();
    let holds_password = password.as_deref().is_some_and(is_plain_secret);
    let url = match hosts.as_slice() {
        [host] if db > 0 => format!("redis://{login}{host}/{db}"),
        [host] => format!("redis://{login}{host}"),
        hosts => format!("redis-cluster://{login}{}", hosts.join(",")),
    };
    Some(Redis {
        url,
        holds_password,
    })
}

/// Parses addresses: a string (separated by commas), a map, or a vector of these. Each address gets
/// a port.
fn addresses(
    findings: &mut Findings,
    given: &KeyValue<'_>,
    default_port: u16,
) -> Option<Vec<String>> {
    let nodes = items(given.value).unwrap_or(std::slice::from_ref(given.value));
    let errors_before = findings.errors.len();
    let mut found = Vec::new();
    for node in nodes {
        match &node.kind {
            NodeKind::Map(_) => found.extend(address_map(
                findings,
                &KeyValue {
                    value: node,
                    ..given.clone()
                },
                default_port,
            )),
            _ => {
                found.extend(address_text(findings, given, node, default_port).unwrap_or_default())
            }
        }
    }
    if found.is_empty() && findings.errors.len() == errors_before {
        findings.invalid(given, "at least one host");
    }
    (findings.errors.len() == errors_before).then_some(found)
}

/// Parses `{:host "broker1" :port 9092}`.
fn address_map(findings: &mut Findings, given: &KeyValue<'_>, default_port: u16) -> Option<String> {
    let mut keys = findings.keys(given)?;
    let port = port(findings, keys.take("port")).unwrap_or(default_port);
    let host = keys.take("host");
    findings.finish(keys);
    let Some(host) = host else {
        findings.invalid_at(given.value, &given.path, "a map with a :host");
        return None;
    };
    let mut found = address_text(findings, &host, host.value, port)?;
    if found.len() != 1 {
        findings.invalid(&host, "a single host");
        return None;
    }
    found.pop()
}

/// Parses the addresses in a string, separated by commas.
fn address_text(
    findings: &mut Findings,
    given: &KeyValue<'_>,
    node: &Node,
    default_port: u16,
) -> Option<Vec<String>> {
    let addresses: Option<Vec<String>> = as_text(node)
        .map(|text| {
            text.split(',')
                .map(|part| with_port(part.trim(), default_port))
                .collect()
        })
        .unwrap_or_default();
    if addresses.is_none() {
        findings.invalid_at(
            node,
            &given.path,
            "a host such as \"host1\" or \"host1:1234\"",
        );
    }
    addresses
}

/// The address with a port. `None` if it is invalid. An address that contains `${…}` is not
/// changed.
fn with_port(address: &str, default_port: u16) -> Option<String> {
    if address.contains("${") {
        return Some(address.to_owned());
    }
    let is_odd =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '#' | '?');
    if address.is_empty() || address.contains(is_odd) {
        return None;
    }
    let is_bare_v6 = address.matches(':').count() > 1 && !address.starts_with('[');
    if is_bare_v6 {
        return Some(format!("[{address}]:{default_port}"));
    }
    let port_at = address
        .rfind(':')
        .filter(|at| !address.get(*at..).unwrap_or_default().contains(']'));
    match port_at.map(|at| address.split_at(at)) {
        None => Some(format!("{address}:{default_port}")),
        Some((host, port)) => {
            let port: u16 = port.trim_start_matches(':').parse().ok()?;
            (!host.is_empty() && port > 0).then(|| address.to_owned())
        }
    }
}

/// Parses a port: a number or a string.
fn port(findings: &mut Findings, given: Option<KeyValue<'_>>) -> Option<u16> {
    let given = given?;
    let port = match &given.value.kind {
        NodeKind::Int(port) => u16::try_from(*port).ok(),
        NodeKind::Str(text) => text.value.trim().parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port > 0);
    if port.is_none() {
        findings.invalid(&given, "a port from 1 to 65535");
    }
    port
}

/// A password, percent-encoded for a URL. A password that contains `${…}` is not changed, because
/// its value is not known here.
fn percent_encoded(password: &str) -> String {
    if password.contains("${") {
        return password.to_owned();
    }
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    password
        .bytes()
        .map(|byte| {
            if plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
