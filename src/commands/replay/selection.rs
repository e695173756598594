//! Which files are replayed: those that hold records that were not replayed before, of the requested
//! stages, and that another version of the pipeline has found invalid.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use pseidon_delivery::{CommitRecord, Position, SplitId, StateStore, StoreError};
use pseidon_exec::takeover::resumption;
use pseidon_plan::Plan;
use pseidon_plugin::source::Resumption;

use super::files::{self, QuarantineFile};
use crate::counted::counted;

/// What the state holds of the files.
pub(super) struct ReplayedFiles(HashMap<SplitId, ReplayedFile>);

/// What the state holds of a file.
struct ReplayedFile {
    at: Resumption,
    /// Whether a replay has it, or was killed before it had published everything of it.
    has_owner: bool,
}

impl ReplayedFiles {
    /// Nothing: there is no state.
    pub(super) fn none() -> ReplayedFiles {
        ReplayedFiles(HashMap::new())
    }

    /// Reads the state of a replay. The sinks are those of the pipeline.
    pub(super) fn read(plan: &Plan, store: &dyn StateStore) -> Result<ReplayedFiles, StoreError> {
        let mut records: HashMap<SplitId, Vec<CommitRecord>> = HashMap::new();
        for sink in &plan.sinks {
            for (split, record) in store.records(&sink.id)? {
                records.entry(split).or_default().push(record);
            }
        }
        let known = |(split, records): (SplitId, Vec<CommitRecord>)| {
            let file = ReplayedFile {
                at: resumption(&records)?,
                has_owner: records.iter().any(|record| !record.owners.is_empty()),
            };
            Some((split, file))
        };
        Ok(ReplayedFiles(
            records.into_iter().filter_map(known).collect(),
        ))
    }

    /// The first line of a file that was not replayed.
    pub(super) fn position(&self, split: &SplitId) -> Position {
        self.0.get(split).map_or(0, |known| known.at.position)
    }
}

/// What is to be replayed.
#[derive(Clone, Copy)]
pub(super) struct ReplayRequest<'a> {
    /// The stages; empty for all.
    pub(super) stages: &'a [String],
    /// The name of the pipeline.
    pub(super) pipeline: &'a str,
    /// The canonical paths that the arguments name.
    pub(super) named: &'a [PathBuf],
    /// Whether records are wanted that this version of the pipeline itself has found invalid.
    pub(super) again: bool,
}

/// The files that are replayed, and what is left out.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The files with records to replay, by stage.
    pub(super) by_stage: BTreeMap<String, Vec<QuarantineFile>>,
    /// The number of files that were replayed before.
    replayed: u64,
    /// The number of records that this version of the pipeline has found invalid.
    unchanged: u64,
}

impl Selection {
    /// Selects from these files. An error names a file that is not of a quarantine.
    pub(super) fn of(
        found: Vec<PathBuf>,
        plan: &Plan,
        known: &ReplayedFiles,
        request: ReplayRequest<'_>,
    ) -> Result<Selection, String> {
        let has_tombstones = |stage: &str| {
            let source = plan.source_of(stage);
            source.is_none_or(|source| !source.facts.splits_bytes)
        };
        let mut selection = Selection::default();
        for path in found {
            let split = files::split_of(&path, &plan.base);
            let known = known.0.get(&split);
            if let Some(known) = known.filter(|known| known.at.is_finished && !known.has_owner) {
                let token = known.at.resume.as_ref();
                token.map_or(Ok(()), |token| files::check_replayed(&path, token))?;
                selection.replayed += 1;
                continue;
            }
            let Some(file) = QuarantineFile::read(&path, split, has_tombstones)? else {
                continue;
            };
            if !request.stages.is_empty() && !request.stages.contains(&file.stage) {
                continue;
            }
            if !request.named.contains(&file.path) {
                files::check_pipeline(&file, request.pipeline)?;
            }
            // A replay that was interrupted is finished.
            let is_unchanged = file.version.as_ref() == Some(&plan.version);
            if is_unchanged && !request.again && known.is_none() {
                selection.unchanged += file.records;
                continue;
            }
            let of_stage = selection.by_stage.entry(file.stage.clone());
            of_stage.or_default().push(file);
        }
        Ok(selection)
    }

    /// The number of files.
    pub(super) fn files(&self) -> u64 {
        self.by_stage.values().map(|files| files.len() as u64).sum()
    }

    /// What is left out, as lines.
    pub(super) fn left_out(&self) -> String {
        let mut text = String::new();
        if self.replayed > 0 {
            let files = counted(self.replayed, "file");
            text.push_str(&format!("already replayed: {files}\n"));
        }
        if self.unchanged > 0 {
            let records = counted(self.unchanged, "record");
            text.push_str(&format!(
                "not replayed: {records} that this version of the pipeline has found invalid; \
                 --again replays them\n"
            ));
        }
        text
    }
}
