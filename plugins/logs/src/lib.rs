//! The source `mysql-logs`: topics of Kafka, each as its row in a MySQL table says.
//!
//! A pipeline with this source is a template. Every row of the table is a log: it fills in
//! `${log:…}`, and what comes out is planned and run by itself. This crate knows one log at a time
//! ([`Log`]) and what the stage says ([`Settings`]); starting and stopping logs as rows come and go
//! is the caller's part. All logs are read by one consumer.

mod log;
mod settings;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::source::{
    Reading, Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup,
};
use pseidon_plugin::spec::PluginSpec;

pub use log::{Log, LogError, sample};
pub use settings::Settings;

/// The plugin `mysql-logs`.
pub struct MysqlLogs {
    /// The log that the pipeline is planned for.
    log: Arc<Log>,
    settings: OnceLock<Settings>,
}

impl MysqlLogs {
    /// The plugin for planning the pipeline of this log.
    pub fn new(log: Arc<Log>) -> MysqlLogs {
        MysqlLogs {
            log,
            settings: OnceLock::new(),
        }
    }

    /// What the stage says, once a pipeline with it has been planned.
    pub fn into_settings(self) -> Option<Settings> {
        self.settings.into_inner()
    }
}

impl SourcePlugin for MysqlLogs {
    fn spec(&self) -> &'static PluginSpec {
        &settings::SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let settings = Settings::new(options)?;
        // A pipeline may name the stage at several places; what it says is the same.
        let _ = self.settings.set(settings);
        Ok(Arc::new(LogSource(self.log.clone())))
    }
}

/// One log as a source.
struct LogSource(Arc<Log>);

impl Source for LogSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.0.format().to_owned(),
            schema: self.0.schema().cloned(),
            not_rereadable: None,
            finite: false,
            topic_may_change: false,
        }
    }

    fn sample(&self, _setup: &SourceSetup, _count: usize) -> Result<Vec<Bytes>, SourceError> {
        Err(SourceError::Fatal(
            "the fields of logs come from their rows and tables; leave :schema out".to_owned(),
        ))
    }

    fn run(&self, _setup: &SourceSetup, _handle: SourceHandle) -> Result<(), SourceError> {
        Err(SourceError::Fatal(
            "mysql-logs is read by `pseidon run` only".to_owned(),
        ))
    }

    fn attach(&self, setup: &SourceSetup, reading: Reading) -> Result<(), Reading> {
        self.0.attach(setup, reading)
    }
}
