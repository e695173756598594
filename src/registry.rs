//! The registry of the built-in plugins. A new connector is one more line here.

use std::sync::Arc;

use pseidon_logs::{Log, MysqlLogs};
use pseidon_plugin::registry::PluginRegistry;

/// All plugins, with [`sample_log`] as the row for which a template is planned.
pub(crate) fn registry() -> PluginRegistry {
    registry_with(Arc::new(MysqlLogs::new(Arc::new(sample_log()))))
}

/// A typical row of the table of logs. A template is checked against it when no row is known.
pub(crate) fn sample_log() -> Log {
    Log::without_consumer(&pseidon_logs::sample()).expect("the sample row is valid")
}

/// Names that other tools have for these plugins.
const SYNONYMS: [(&str, &str); 15] = [
    ("blackhole", "drop"),
    ("console", "stdout"),
    ("csv", "files"),
    ("demo_logs", "generate"),
    ("file", "files"),
    ("json", "files"),
    ("ndjson", "files"),
    ("null", "drop"),
    ("output", "files"),
    ("parquet", "files"),
    ("print", "stdout"),
    ("read", "files"),
    ("stdio", "stdin"),
    ("tail", "files"),
    ("write", "files"),
];

/// All plugins, with `logs` for the row for which a template is planned.
pub(crate) fn registry_with(logs: Arc<MysqlLogs>) -> PluginRegistry {
    PluginRegistry {
        sources: vec![
            Arc::new(pseidon_kafka::KafkaSourcePlugin),
            Arc::new(pseidon_files::FilesSource),
            logs,
            Arc::new(pseidon_synthetic::GeneratePlugin),
            Arc::new(pseidon_stdio::StdinPlugin),
        ],
        sinks: vec![
            Arc::new(pseidon_kafka::KafkaSinkPlugin),
            Arc::new(pseidon_files::FilesSink),
            Arc::new(pseidon_stdio::StdoutPlugin),
            Arc::new(pseidon_synthetic::DropPlugin),
        ],
        formats: pseidon_formats::formats(),
        quarantine: pseidon_files::sink::quarantine,
        group: pseidon_group::group,
        synonyms: &SYNONYMS,
    }
}
