//! The `:settings` of a converted file: threads, memory, the state store and the ports.

use pseidon_dsl::{Node, NodeKind, units};

use super::address::Redis;
use crate::NoteKind;
use crate::build::{entry, int, map, text, texts};
use crate::read::{Findings, KeyValue, Keys, is_plain_secret};

/// The default for `:fatal-errors`.
const FATAL_ERRORS: &str = "/tmp/fatalerrors";

/// The settings of a converted file.
pub(super) struct Settings {
    pub(super) node: Node,
    /// Whether they contain a password in plain text.
    pub(super) holds_password: bool,
}

/// Reads the settings. The state store is `redis`, unless `:state` is set.
pub(super) fn read(findings: &mut Findings, keys: &mut Keys<'_>, redis: Option<Redis>) -> Settings {
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
    let monitor_names = findings.texts(keys, "monitor-names");
    let token = findings.text(keys, "token");
    let monitor_port = monitor_port.and_then(|given| port(findings, &given));
    let repl_port = keys
        .take("repl-port")
        .and_then(|given| port(findings, &given));
    let fatal_errors = findings.text(keys, "fatal-errors").unwrap_or(FATAL_ERRORS);
    let holds_password = token.is_some_and(is_plain_secret)
        || state.is_none() && redis.as_ref().is_some_and(|redis| redis.holds_password);
    let node = map([
        entry("etl-threads", etl_threads.map(int)),
        entry("io-threads", io_threads.map(int)),
        entry("memory", memory.map(|given| given.value.clone())),
        entry("state", state.or(redis.map(|redis| redis.url)).map(text)),
        entry("monitor-port", monitor_port.map(int)),
        entry("monitor-host", monitor_host.map(text)),
        entry("monitor-names", monitor_names.as_deref().map(texts)),
        entry("token", token.map(text)),
        entry("repl-port", repl_port.map(int)),
        entry("fatal-errors", text(fatal_errors)),
    ]);
    Settings {
        node,
        holds_password,
    }
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
