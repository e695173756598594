//! The first records of the files, from which fields are inferred.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::{Reason, WithCauses};
use pseidon_plugin::source::{SourceError, SourceSetup};
use pseidon_plugin::{Payloads, Split};

use super::Config;
use super::options::OnBrokenFile;
use super::read_error::ReadError;
use super::reader::FileReader;

/// The samples so far.
struct Samples {
    payloads: Vec<Payloads>,
    /// How many records are missing.
    missing: usize,
    split: Arc<Split>,
}

impl Config {
    /// Up to `count` records of the files that can be read. It is an error if no file can be.
    pub(super) fn sample(
        &self,
        setup: &SourceSetup,
        count: usize,
    ) -> Result<Vec<Payloads>, SourceError> {
        let mut samples = Samples {
            payloads: Vec::new(),
            missing: count,
            split: Arc::new(Split {
                id: "sample".into(),
                topic: String::new(),
                partition: 0,
            }),
        };
        let found = self.find(setup)?;
        let mut broken = UnreadableFiles {
            stage: &setup.stage,
            stops: self.on_broken == OnBrokenFile::Stop,
            first: None,
        };
        for (shown, error) in found.refused {
            broken.add(&shown, error.into())?;
        }
        self.sample_files(found.files, &mut samples, &mut broken)?;
        match (samples.payloads.is_empty(), broken.first) {
            (false, _) => Ok(samples.payloads),
            (true, Some(error)) => Err(error),
            (true, None) => Err(SourceError::Fatal(
                format!("no records yet in {}", self.paths.join(", ")).into(),
            )),
        }
    }

    fn sample_files(
        &self,
        files: BTreeSet<(PathBuf, String)>,
        samples: &mut Samples,
        broken: &mut UnreadableFiles<'_>,
    ) -> Result<(), SourceError> {
        for (path, shown) in files {
            if samples.missing == 0 {
                break;
            }
            self.sample_file(&path, samples)
                .or_else(|error| broken.add(&shown, error))?;
        }
        Ok(())
    }

    fn sample_file(&self, path: &Path, samples: &mut Samples) -> Result<(), ReadError> {
        let mut reader = self.open(File::open(path)?, path, 0)?;
        if let FileReader::Columns(reader) = &reader {
            // A file without rows has columns too.
            samples.payloads.push(Payloads::of_columns(reader.empty()));
        }
        while samples.missing > 0 {
            let records = match reader.next()? {
                Some(records) => Some(records),
                None => reader.last_line()?,
            };
            let Some(records) = records else { break };
            // A batch of only a header has no records.
            let batches = records.batches(&samples.split);
            for batch in batches.filter(|batch| !batch.is_empty()) {
                let some = batch.payloads.part(0..batch.len().min(samples.missing));
                samples.missing -= some.len();
                samples.payloads.push(some);
            }
        }
        Ok(())
    }
}

/// The files that cannot be read.
struct UnreadableFiles<'a> {
    stage: &'a str,
    /// Whether the first one stops the run.
    stops: bool,
    first: Option<SourceError>,
}

impl UnreadableFiles<'_> {
    /// Adds a file; returns the error if it stops the run. Otherwise the run reports it.
    fn add(&mut self, shown: &str, error: ReadError) -> Result<(), SourceError> {
        let what = format!("cannot read {shown}");
        let reason = Reason::caused_by(what, error.into_cause());
        let shown = WithCauses(&reason).to_string();
        let error = SourceError::Fatal(reason);
        if self.stops {
            return Err(error);
        }
        tracing::debug!(
            stage = self.stage,
            reason = shown,
            "no fields are inferred from the rest of a file"
        );
        self.first.get_or_insert(error);
        Ok(())
    }
}
