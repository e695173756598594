//! The pipeline file of the last run: two files with one `:name` in one folder share one state, and
//! each continues where the other one stopped.
//!
//! The path is a note in the state, which is only for a warning. A state in Redis may be shared by
//! hosts that have the file at different paths, so a path that does not exist here says nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path};

use pseidon_delivery::{StateStore, StoreError, WithCauses};
use pseidon_plan::Plan;

/// The note with the absolute path.
const NOTE: &str = "pipeline-file";

/// Notes the pipeline file of a run that begins. Logs a warning if the last run was one of another
/// file that still exists.
pub(crate) fn note_start(plan: &Plan, store: &dyn StateStore, file: &Path) {
    if !plan.keeps_state {
        return;
    }
    match other_file(store, file) {
        Ok(None) => {}
        Ok(Some(other)) => tracing::warn!(
            pipeline = plan.name,
            file = %file.display(),
            other,
            "the last run of this pipeline was one of another file with the same name: each \
             continues where the other one has stopped; give one of them another :name"
        ),
        Err(error) => {
            let error = WithCauses(&error).to_string();
            tracing::debug!(error, "cannot note the pipeline file");
        }
    }
}

/// The file of the last run, if it is another one that exists. Notes this one in its place.
fn other_file(store: &dyn StateStore, file: &Path) -> Result<Option<String>, StoreError> {
    let absolute = path::absolute(file).ok();
    let Some(this) = absolute.as_deref().and_then(Path::to_str) else {
        return Ok(None);
    };
    let last = store.note(NOTE)?;
    if last.as_deref() == Some(this) {
        return Ok(None);
    }
    store.set_note(NOTE, this)?;
    let is_other = |last: &String| match (identity(Path::new(last)), identity(file)) {
        (Some(last), Some(this)) => last != this,
        _ => false,
    };
    Ok(last.filter(is_other))
}

/// The device and the inode of a file; `None` if it does not exist.
fn identity(file: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
