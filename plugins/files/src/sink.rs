//! The sink `files`: files that roll by size, records, idle time, age and the clock, each exactly once.
//!
//! A record's way, in the order of the modules:
//!
//! - [`options`]: what the user says, checked.
//! - [`route`] finds each row's bucket, whose path [`lane_name`] keeps inside the base directory. A bucket is a lane.
//! - [`writer`] holds the open files ([`open_file`]) of a writer thread and closes them by the rules in [`rollover`] and [`cron`]; when the
//!   disk does not take more, it waits ([`blocked`]).
//! - [`staging`] has the hidden folders in which files are written, and cleans up after processes that died; [`place`] gives a committed file
//!   its visible name.

mod blocked;
mod cron;
mod lane_name;
mod open_file;
mod options;
mod place;
mod rollover;
mod route;
mod staging;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use pseidon_delivery::{SplitId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::sink::{
    PreparedSink, Protocol, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin, SinkSetup, TakenOver, Writer,
};
use pseidon_plugin::spec::PluginSpec;
use pseidon_plugin::{Options, Rows};

use self::options::Settings;
use self::place::Host;
use self::staging::Staging;
use self::writer::FileWriter;

/// The sink `files`.
pub struct FilesSink;

impl SinkPlugin for FilesSink {
    fn spec(&self) -> &'static PluginSpec {
        &options::SPEC
    }

    fn facts(&self, options: &Options) -> SinkFacts {
        SinkFacts { typed: options.text("codec") == Some("parquet"), protocol: Protocol::Staged, folder: options::folder(options) }
    }

    fn prepare(&self, options: &Options, input: &SinkInput) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(Files { settings: Arc::new(Settings::new(options, input)?) }))
    }
}

struct Files {
    settings: Arc<Settings>,
}

impl PreparedSink for Files {
    fn nondeterminism(&self) -> Option<String> {
        self.settings.nondeterminism.clone()
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        let settings = self.settings.clone();
        let absolute = |dir: &PathBuf| {
            let dir = std::path::absolute(setup.base.join(dir))
                .map_err(|error| SinkError::Fatal(format!("no folder {}: {error}", dir.display())))?;
            match dir.to_str() {
                // It is written down in the state store, which holds texts.
                None => Err(SinkError::Fatal(format!("the folder {} has a name that is not UTF-8", dir.display()))),
                Some(_) => Ok(dir),
            }
        };
        let bases = settings.base_dirs.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
        let staging = Arc::new(Staging::open(&bases, &setup)?);
        let sink = setup.committer.sink().to_string();
        let (stage, place) = match sink.split_once('#') {
            Some((stage, place)) => (stage.to_owned(), Some(place.to_owned())),
            None => (sink.clone(), None),
        };
        let shared = Shared {
            open_files: setup.metrics.open_files.with_label_values(&[&stage]),
            files: setup.metrics.files.with_label_values(&[&stage]),
            bytes_out: setup.metrics.bytes_out.with_label_values(&[&stage]),
            extension: settings.codec.extension(),
            host: Host::this(),
            staging,
            settings,
            stage,
            place,
            setup,
        };
        Ok(Arc::new(OpenSink(Arc::new(shared))))
    }
}

/// What the writers of a run share.
struct Shared {
    settings: Arc<Settings>,
    setup: SinkSetup,
    staging: Arc<Staging>,
    host: Host,
    /// The sink stage's name.
    stage: String,
    /// Which of the stage's places in the flow this is, if not the first.
    place: Option<String>,
    extension: String,
    open_files: IntGauge,
    files: IntCounter,
    bytes_out: IntCounter,
}

struct OpenSink(Arc<Shared>);

impl Sink for OpenSink {
    fn single_writer(&self) -> bool {
        false
    }

    fn take_over(&self, splits: &[(SplitId, Vec<String>)], staged: &[Staged]) -> Result<TakenOver, SinkError> {
        let is_other = |owner: &String| *owner != self.0.setup.instance;
        if splits.iter().any(|(_, owners)| owners.iter().any(is_other)) {
            self.0.staging.clean_up_all()?;
        }
        Ok(TakenOver { published: self.0.staging.publish(staged)?, positions: Vec::new() })
    }

    fn route(&self, rows: Rows) -> Routed {
        let settings = &self.0.settings;
        settings.router.route(rows, |rows| settings.codec.check(rows))
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        Ok(Box::new(FileWriter::new(self.0.clone())))
    }
}

#[cfg(test)]
mod tests;
