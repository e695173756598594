//! `pseidon staged`: the committed files that are not visible because their disk is not mounted.
//!
//! Their records count as delivered. If their disk is lost, nothing can publish them any more, and
//! an operator decides that the state forgets them. The same holds for entries that no run publishes,
//! since another program may have written them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use pseidon_delivery::{SinkId, StagedEntry, StagedId, StateStore, StoreError, WithCauses};
use pseidon_dsl::printable;
use pseidon_dsl::printable::printable_lines;
use pseidon_plan::Plan;
use pseidon_plugin::sink::{StagedFile, StateOrigin};

use crate::cli::{Exit, StagedArgs};
use crate::counted::counted;
use crate::{load, state};
use crate::{output, stderr_line};

/// The name of the disk of files whose entries do not identify it.
const UNKNOWN: &str = "unknown";
/// In place of a disk: entries that no run publishes.
const REFUSED: &str = "refused";
/// How many files of a disk are listed.
const MAX_LISTED: usize = 10;

/// Lists the files, or forgets those of one disk.
pub(crate) fn staged(args: &StagedArgs) -> Exit {
    match try_staged(args) {
        Ok(text) => output::print(&printable_lines(&text)),
        Err(exit) => exit,
    }
}

fn try_staged(args: &StagedArgs) -> Result<String, Exit> {
    let (text, _, plan) = load::planned(&args.file, &args.parameters)?;
    let folder = state::folder(&text.base);
    let failed = |error: StoreError| print_error(&WithCauses(&error).to_string());
    let name = args.file.display().to_string();
    // Opening would create a state file.
    let store = state::may_exist(&plan, &folder)
        .then(|| state::open_staged(&plan, &folder))
        .transpose()
        .map_err(failed)?;
    let files = match &store {
        Some(store) => StagedFiles::read(&plan, store).map_err(failed)?,
        None => StagedFiles::default(),
    };
    let Some(disk) = &args.forget else {
        return Ok(files.describe(&name));
    };
    let on_disk = files
        .on(disk, &name)
        .map_err(|reason| print_error(&reason))?;
    for SinkFiles { sink, files } in &on_disk {
        let ids: Vec<StagedId> = files.iter().map(|(id, _)| id.clone()).collect();
        if let Some(store) = &store {
            store.forget(sink, &ids).map_err(failed)?;
        }
    }
    let count: usize = on_disk.iter().map(|found| found.files.len()).sum();
    let count = counted(count as u64, "file");
    Ok(match disk.as_str() {
        REFUSED => format!("forgot {count} that were refused\n"),
        disk => format!("forgot {count} of disk {disk}\n"),
    })
}

fn print_error(reason: &str) -> Exit {
    stderr_line!("error: {reason}");
    Exit::Failed
}

/// The staged files with their ids, by sink and disk.
#[derive(Default)]
struct StagedFiles(BTreeMap<(SinkId, String), Vec<(StagedId, StagedFile)>>);

/// The staged files of a sink on one disk, with their ids.
#[derive(Debug)]
struct SinkFiles<'f> {
    sink: &'f SinkId,
    files: &'f [(StagedId, StagedFile)],
}

impl StagedFiles {
    fn read(plan: &Plan, store: &dyn StateStore) -> Result<StagedFiles, StoreError> {
        let mut files = StagedFiles::default();
        let store_id = store.identity()?;
        for sink in store.sinks()? {
            let origin = StateOrigin {
                pipeline: &plan.name,
                base: &plan.base,
                sink: &sink,
                store: &store_id,
            };
            for entry in store.staged(&sink)? {
                let mut file = describe_entry(plan, &entry);
                let mut disk = file.disk.clone().unwrap_or_else(|| UNKNOWN.to_owned());
                if let Some(reason) = refusal(plan, &entry, &origin) {
                    let path = file.path.display();
                    file = StagedFile {
                        path: format!("{path}: {reason}").into(),
                        is_here: false,
                        ..file
                    };
                    REFUSED.clone_into(&mut disk);
                }
                let on_disk = files.0.entry((sink.clone(), disk)).or_default();
                on_disk.push((entry.id, file));
            }
        }
        for files in files.0.values_mut() {
            files.sort_by(|(_, one), (_, other)| one.path.cmp(&other.path));
        }
        Ok(files)
    }

    fn describe(&self, pipeline: &str) -> String {
        let mut text = String::new();
        for ((sink, disk), files) in &self.0 {
            if disk == REFUSED {
                text.push_str(&describe_refused(sink, files, pipeline));
                continue;
            }
            let is_here = files.iter().any(|(_, file)| file.is_here);
            let machines = machines(files);
            let place = if is_here {
                "mounted here"
            } else {
                "not mounted here"
            };
            let count = counted(files.len() as u64, "file");
            let _ = writeln!(
                text,
                "{sink}: {count} on disk {disk}, written by {machines}, {place}"
            );
            text.push_str(&list(files));
            let help = if is_here {
                format!("publish them: pseidon run {pipeline}")
            } else {
                format!(
                    "mount the disk and run the pipeline; or, if the disk is lost: \
                     pseidon staged {pipeline} --forget {disk}"
                )
            };
            let _ = writeln!(text, "  help: {help}");
        }
        if text.is_empty() {
            text.push_str("every committed file is visible\n");
        }
        text
    }

    /// The files on a disk that is not mounted here, by sink. The error says why there are none.
    fn on(&self, disk: &str, pipeline: &str) -> Result<Vec<SinkFiles<'_>>, String> {
        let found: Vec<SinkFiles<'_>> = self
            .0
            .iter()
            .filter(|((_, on), _)| on == disk)
            .map(|((sink, _), files)| SinkFiles { sink, files })
            .collect();
        if found.is_empty() {
            return Err(format!(
                "no committed file waits for disk {disk}\n  \
                 help: list the files: pseidon staged {pipeline}"
            ));
        }
        let mut files = found.iter().flat_map(|found| found.files);
        match files.find(|(_, file)| file.is_here) {
            None => Ok(found),
            Some((_, file)) => Err(format!(
                "disk {disk} is mounted here, with {}\n  \
                 help: publish its files: pseidon run {pipeline}",
                file.path.display()
            )),
        }
    }
}

/// The first of these files, a line for each.
fn list(files: &[(StagedId, StagedFile)]) -> String {
    let mut text = String::new();
    for (_, file) in files.iter().take(MAX_LISTED) {
        let path = file.path.to_string_lossy();
        let _ = writeln!(text, "  {}", printable(&path));
    }
    if files.len() > MAX_LISTED {
        let _ = writeln!(text, "  … and {} more", files.len() - MAX_LISTED);
    }
    text
}

fn describe_refused(sink: &SinkId, files: &[(StagedId, StagedFile)], pipeline: &str) -> String {
    let count = counted(files.len() as u64, "file");
    format!(
        "{sink}: {count} refused, since other programs can write to the state\n{}  help: if the \
         pipeline wrote the entry before its folders were changed, run it once with the earlier \
         folders; if another program wrote it, forget it: \
         pseidon staged {pipeline} --forget {REFUSED}\n",
        list(files)
    )
}

/// Why the sink does not publish an entry that another program may have written.
fn refusal(plan: &Plan, entry: &StagedEntry, origin: &StateOrigin<'_>) -> Option<String> {
    let mut sinks = plan.sinks.iter().filter(|_| !plan.settings.trusts_state());
    let sink = sinks.find(|sink| sink.id == *origin.sink)?;
    sink.prepared.refused_entry(&entry.detail, origin)
}

/// Describes an entry. Several sinks can describe it, each with its own folders. The entry of a
/// plugin that the pipeline does not use any more is named by its id.
fn describe_entry(plan: &Plan, entry: &StagedEntry) -> StagedFile {
    plan.sinks
        .iter()
        .filter_map(|sink| sink.prepared.staged_file(&entry.detail, &plan.base))
        .max_by_key(|file| file.is_here)
        .unwrap_or_else(|| StagedFile {
            path: PathBuf::from(entry.id.as_str()),
            disk: None,
            machine: UNKNOWN.to_owned(),
            is_here: false,
        })
}

fn machines(files: &[(StagedId, StagedFile)]) -> String {
    let mut names: Vec<&str> = files
        .iter()
        .map(|(_, file)| file.machine.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests;
