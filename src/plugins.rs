//! The plugins that are built in: a new connector is one more line here.

use std::sync::Arc;

use pseidon_logs::{Log, MysqlLogs};
use pseidon_plugin::registry::Registry;

/// All of them.
pub(crate) fn registry() -> Registry {
    registry_with(Arc::new(MysqlLogs::new(Arc::new(sample_log()))))
}

/// A log as most are.
pub(crate) fn sample_log() -> Log {
    Log::unread(&pseidon_logs::sample()).expect("the sample is a row that can be run")
}

/// All of them, with `logs` for the log that a template is planned for.
pub(crate) fn registry_with(logs: Arc<MysqlLogs>) -> Registry {
    Registry {
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
    }
}
