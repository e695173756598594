//! The steps of a job: publish a file, move it, report it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use pseidon_delivery::{Reason, failpoint};
use serde_json::json;

use super::super::file_system::sync_dirs;
use super::super::follow_up::FollowUp;
use super::super::place::PublishOutcome;
use super::super::relocate::{Relocation, relocate, remove_note};
use super::JobRunner;
use super::queue::{Job, JobStep};

/// The label of `bad_records` for records whose file was found broken.
const IN_BROKEN_FILE: &str = "in_broken_file";

impl JobRunner {
    /// Does the next step of a job. Returns the step after it, or `None` if the job is done. An
    /// error is a message without a final period.
    pub(super) fn attempt(&self, job: &Job) -> Result<Option<JobStep>, Reason> {
        match &job.step {
            JobStep::Publish => self.publish(job),
            JobStep::Relocate(follow_up) => self.relocate(job, follow_up),
            JobStep::Report(follow_up, path) => self.report(job, follow_up, path),
        }
    }

    fn publish(&self, job: &Job) -> Result<Option<JobStep>, Reason> {
        let mut changed: BTreeSet<PathBuf> = job.moving.dirs().collect();
        let cannot = |error: io::Error| {
            Reason::caused_by(format!("cannot publish {}", job.moving.shown()), error)
        };
        let applied = job.moving.apply(&self.sink.access, &mut changed);
        if let PublishOutcome::NotHere(obstacle) = applied.map_err(cannot)? {
            let (file, reason) = (job.moving.shown(), job.moving.explain(&obstacle));
            return Err(format!("cannot publish {file}: {reason}").into());
        }
        sync_dirs(&changed).map_err(cannot)?;
        Ok(job.moving.follow_up.clone().map(JobStep::Relocate))
    }

    fn relocate(&self, job: &Job, follow_up: &FollowUp) -> Result<Option<JobStep>, Reason> {
        let place = relocate(&job.id, &job.moving, follow_up, &self.sink.access, &|| {
            self.is_over()
        })
        .map_err(|error| Reason::caused_by(format!("cannot move {}", job.moving.shown()), error))?;
        failpoint::reach("moved");
        match place {
            Relocation::Broken(path, reason) => {
                tracing::warn!(
                    file = %path.display(),
                    reason,
                    records = follow_up.records,
                    "quarantined a broken file"
                );
                let labels = [self.sink.stage.as_str(), IN_BROKEN_FILE];
                self.sink
                    .metrics
                    .bad_records
                    .with_label_values(&labels)
                    .inc_by(follow_up.records);
                Ok(None)
            }
            Relocation::Final(path) if self.sink.hook.is_some() => {
                Ok(Some(JobStep::Report(follow_up.clone(), path)))
            }
            Relocation::Final(_) => clean_up(job, follow_up),
        }
    }

    fn report(
        &self,
        job: &Job,
        follow_up: &FollowUp,
        path: &Path,
    ) -> Result<Option<JobStep>, Reason> {
        let Some(hook) = &self.sink.hook else {
            return Ok(None);
        };
        let path = path.to_string_lossy();
        let json = json!({
            "pipeline": self.sink.pipeline,
            "sink": self.sink.committer.sink().as_str(),
            "path": path,
            "records": follow_up.records,
            "bytes": job.moving.bytes,
            "positions": follow_up.positions,
        });
        hook.call(&path, &json.to_string(), &|| self.is_over())?;
        failpoint::reach("hooked");
        clean_up(job, follow_up)
    }
}

/// Removes the note of a file whose steps are all done.
fn clean_up(job: &Job, follow_up: &FollowUp) -> Result<Option<JobStep>, Reason> {
    let cleared = remove_note(&job.id, &job.moving, follow_up);
    cleared.map(|()| None).map_err(|error| {
        Reason::caused_by(
            format!("cannot clean up beside {}", job.moving.shown()),
            error,
        )
    })
}
