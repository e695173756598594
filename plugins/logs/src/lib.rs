//! The source `mysql-logs`: reads Kafka topics, each according to its row in a MySQL table.
//!
//! A pipeline with this source is a template. Every row of the table is a log: it fills in
//! `${log:…}`, and the resulting pipeline is planned and run independently. This crate handles one
//! log at a time ([`Log`]) and the options of the stage ([`LogsSettings`]); the caller starts and stops
//! logs as rows come and go. One consumer reads all logs.

#![forbid(unsafe_code)]

mod log;
mod settings;

use std::sync::{Arc, OnceLock};

use pseidon_dsl::Diagnostic;
use pseidon_plugin::Payloads;
use pseidon_plugin::options::OnError;
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourcePlugin, SourceRun,
    SourceSetup,
};
use pseidon_plugin::spec::PluginSpec;

pub use log::{Log, LogError, sample};
pub use settings::LogsSettings;

use settings::LogsOptions;

/// The source plugin `mysql-logs`.
pub struct MysqlLogs {
    /// The log for which the pipeline is planned.
    log: Arc<Log>,
    settings: OnceLock<LogsSettings>,
}

impl MysqlLogs {
    /// Creates the plugin for planning the pipeline of this log.
    pub fn new(log: Arc<Log>) -> MysqlLogs {
        MysqlLogs {
            log,
            settings: OnceLock::new(),
        }
    }

    /// The options of the stage; `None` before a pipeline with it has been planned.
    pub fn into_settings(self) -> Option<LogsSettings> {
        self.settings.into_inner()
    }
}

impl SourcePlugin for MysqlLogs {
    type Options = LogsOptions;

    fn spec(&self) -> &'static PluginSpec {
        &settings::SPEC
    }

    fn on_error(&self, options: &LogsOptions) -> OnError {
        options.on_error.clone().unwrap_or_default()
    }

    fn prepare(&self, options: &LogsOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let settings = LogsSettings::new(options)?;
        // A pipeline may use the stage at several places; its options are the same.
        let _ = self.settings.set(settings);
        Ok(Arc::new(LogSource(self.log.clone())))
    }
}

/// One log as a source.
struct LogSource(Arc<Log>);

impl Source for LogSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.0.format().clone(),
            format_span: None,
            schema: self.0.schema().cloned(),
            infer: None,
            splits_bytes: false,
            reads_columns: false,
            reread: Reread::Exact,
            finite: false,
            topic_may_change: false,
        }
    }

    fn sample(&self, _setup: &SourceSetup, _count: usize) -> Result<Vec<Payloads>, SourceError> {
        Err(SourceError::Fatal(
            "the fields of logs come from their rows and tables; remove :schema".into(),
        ))
    }

    fn run(&self, _setup: &SourceSetup, _handle: SourceHandle) -> Result<(), SourceExit> {
        Err(SourceExit::fatal("only `pseidon run` can read mysql-logs"))
    }

    fn attach(&self, setup: &SourceSetup, reading: SourceRun) -> Result<(), SourceRun> {
        self.0.attach(setup, reading)
    }
}
