//! Where the servers are: MySQL by JDBC's subname, Kafka's brokers, Redis.

use super::is_plain_secret;
use crate::legacy::NoteKind;
use crate::legacy::read::{Findings, Given, as_text, items};
use crate::{Node, NodeKind};

/// What `:etl-db-host` says.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// What `:redis-conf` says.
pub(super) struct Redis {
    pub(super) url: String,
    pub(super) holds_password: bool,
}

const KAFKA_PORT: u16 = 9092;
const REDIS_PORT: u16 = 6379;

/// `//localhost:3306/mydb?autoReconnect=true`, with or without `jdbc:` and `mysql:` before it.
pub(super) fn database(findings: &mut Findings, given: &Given<'_>) -> Option<Database> {
    let expected = "a host and a database such as \"//localhost:3306/mydb\"";
    let Some(text) = as_text(given.value) else {
        findings.wrong(given, expected);
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
        findings.wrong(given, expected);
        return None;
    };
    let first = host.split(',').next().unwrap_or_default();
    if first != host {
        findings.note(
            given,
            NoteKind::Changed,
            "several servers are named; only the first is asked",
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
                &Given {
                    path: format!("{} {name}", given.path),
                    ..given.clone()
                },
                kind_of(name),
                about(name),
            ),
        }
    }
    Some(found)
}

fn is_about_tls(property: &str) -> bool {
    let property = property.to_lowercase();
    property.contains("ssl") || property.contains("tls") || property.contains("certificate")
}

fn kind_of(property: &str) -> NoteKind {
    if is_about_tls(property) {
        NoteKind::Changed
    } else {
        NoteKind::NoMeaning
    }
}

fn about(property: &str) -> &'static str {
    match property {
        "autoReconnect" => "a connection that is lost is always made again",
        _ if is_about_tls(property) => "what the JDBC driver is told about TLS is not taken over",
        _ => "it is a property of the JDBC driver",
    }
}

/// `[{:host "broker1" :port 9092} …]`, or texts in place of the maps: `broker1:9092,…`.
pub(super) fn brokers(findings: &mut Findings, given: &Given<'_>) -> Option<String> {
    let addresses = addresses(findings, given, KAFKA_PORT)?;
    Some(addresses.join(","))
}

/// `{:host "redis:6379"}`. Several hosts are a cluster.
pub(super) fn redis(findings: &mut Findings, given: &Given<'_>) -> Option<Redis> {
    let mut keys = findings.keys(given)?;
    let port = port(findings, keys.take("port")).unwrap_or(REDIS_PORT);
    let hosts = match keys.take("host") {
        Some(host) => addresses(findings, &host, port),
        None => {
            findings.wrong(given, "a :host in this map");
            None
        }
    };
    let password = findings.text(&mut keys, "password").map(str::to_owned);
    let db = findings.count(&mut keys, "db", 0..=i64::MAX).unwrap_or(0);
    for (name, sentence) in [
        (
            "heart-beat",
            "Kafka itself finds out which instances are alive",
        ),
        ("group-name", "the group is that of :etl-group"),
        ("max-active", "each thread that needs a connection has one"),
        ("timeout", "Redis is asked again until it answers"),
    ] {
        findings.no_meaning(&mut keys, name, sentence);
    }
    findings.finish(keys);
    let hosts = hosts?;
    let login = password
        .as_deref()
        .map(|password| format!(":{}@", escaped(password)))
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

/// Addresses with a port each: a text (with commas), a map, or several of them.
fn addresses(findings: &mut Findings, given: &Given<'_>, default_port: u16) -> Option<Vec<String>> {
    let nodes = items(given.value).unwrap_or(std::slice::from_ref(given.value));
    let mistakes_before = findings.mistakes.len();
    let mut found = Vec::new();
    for node in nodes {
        match &node.kind {
            NodeKind::Map(_) => found.extend(address_map(
                findings,
                &Given {
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
    if found.is_empty() && findings.mistakes.len() == mistakes_before {
        findings.wrong(given, "at least one host");
    }
    (findings.mistakes.len() == mistakes_before).then_some(found)
}

/// `{:host "broker1" :port 9092}`
fn address_map(findings: &mut Findings, given: &Given<'_>, default_port: u16) -> Option<String> {
    let mut keys = findings.keys(given)?;
    let port = port(findings, keys.take("port")).unwrap_or(default_port);
    let host = keys.take("host");
    findings.finish(keys);
    let Some(host) = host else {
        findings.wrong_at(given.value, &given.path, "a :host in this map");
        return None;
    };
    let mut found = address_text(findings, &host, host.value, port)?;
    if found.len() != 1 {
        findings.wrong(&host, "one host");
        return None;
    }
    found.pop()
}

fn address_text(
    findings: &mut Findings,
    given: &Given<'_>,
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
        findings.wrong_at(
            node,
            &given.path,
            "a host such as \"host1\" or \"host1:1234\"",
        );
    }
    addresses
}

/// The address with a port, if it is one. What holds a `${…}` is taken as it is.
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

/// A port as a number or as a text.
fn port(findings: &mut Findings, given: Option<Given<'_>>) -> Option<u16> {
    let given = given?;
    let port = match &given.value.kind {
        NodeKind::Int(port) => u16::try_from(*port).ok(),
        NodeKind::Str(text) => text.value.trim().parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port > 0);
    if port.is_none() {
        findings.wrong(&given, "a port: a whole number from 1 to 65535");
    }
    port
}

/// A password as it may stand in a URL. A `${…}` is left alone: what it stands for is not known
/// here.
fn escaped(password: &str) -> String {
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
