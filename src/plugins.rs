//! The plugins that are built in: a new connector is one more line here.

use std::sync::Arc;

use pseidon_plugin::registry::Registry;

/// All of them.
pub(crate) fn registry() -> Registry {
    Registry {
        sources: vec![
            Arc::new(pseidon_kafka::KafkaSourcePlugin),
            Arc::new(pseidon_files::FilesSource),
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
