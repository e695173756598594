//! `--dry-run`: the records pass the flow, and nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use indicatif::HumanCount;
use pseidon_delivery::WithCauses;
use pseidon_exec::process::{BadRecord, ProcessOutcome, Processor, RowReceiver};
use pseidon_plan::chain::{ChainStep, PlannedSource};
use pseidon_plan::{Plan, SinkIndex};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::rows::{BadRow, Rows};

use super::files::QuarantineFile;
use super::selection::{ReplayedFiles, Selection};
use crate::counted::counted;

/// How many reasons are shown.
const MAX_SHOWN: usize = 5;
/// How many reasons are counted by themselves.
const MAX_REASONS: usize = 1000;
/// How many bytes the flow may produce at once.
const LARGEST: usize = 8 << 20;

/// How many of the records would be valid.
#[derive(Default)]
pub(super) struct DryRun {
    records: u64,
    invalid: u64,
    /// How many are invalid, by stage and reason.
    reasons: BTreeMap<(String, String), u64>,
    /// How many are invalid for reasons that are not counted by themselves.
    others: u64,
}

impl DryRun {
    /// Passes the records of the selected files through the sources of a plan, which are named by
    /// the stages of the files.
    pub(super) fn of(
        plan: &Plan,
        selection: &Selection,
        known: &ReplayedFiles,
    ) -> Result<DryRun, String> {
        let mut outcome = DryRun::default();
        for source in &plan.sources {
            let mut processor = Processor::new(source, LARGEST)?;
            for file in selection.by_stage.get(&source.stage).into_iter().flatten() {
                outcome.file(source, &mut processor, file, known)?;
            }
        }
        Ok(outcome)
    }

    fn file(
        &mut self,
        source: &PlannedSource,
        processor: &mut Processor,
        file: &QuarantineFile,
        known: &ReplayedFiles,
    ) -> Result<(), String> {
        let from = known.position(&file.split);
        let mut reader = file.open(from)?;
        while let Some(batch) = reader.batch(&file.split, source.columns.meta)? {
            self.batch(source, processor, Arc::new(batch))?;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        source: &PlannedSource,
        processor: &mut Processor,
        batch: Arc<Batch>,
    ) -> Result<(), String> {
        let mut done = 0;
        while done < batch.len() {
            let upto = done.saturating_add(processor.at_once()).min(batch.len());
            processor
                .prepare(&batch, done..upto)
                .map_err(|reason| WithCauses(&reason).to_string())?;
            let passed = processor.process(source, &batch, done..upto, &mut NoSinks);
            match passed.map_err(|thrown| thrown.to_string())? {
                ProcessOutcome::All(bad) => {
                    self.note(upto - done, bad);
                    done = upto;
                }
                ProcessOutcome::TooMany => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, records: usize, mut bad: Vec<BadRecord>) {
        self.records += records as u64;
        for bad in &bad {
            let kind = (bad.stage.clone(), bad.reason.clone());
            if self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&kind) {
                *self.reasons.entry(kind).or_default() += 1;
            } else {
                self.others += 1;
            }
        }
        bad.dedup_by_key(|bad| bad.number);
        self.invalid += bad.len() as u64;
    }

    /// What would be replayed, as lines.
    pub(super) fn describe(&self, files: u64) -> String {
        let mut text = format!(
            "would replay {} of {}: {} valid, {} invalid again\n",
            counted(self.records, "record"),
            counted(files, "file"),
            HumanCount(self.records - self.invalid),
            HumanCount(self.invalid)
        );
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((stage, reason), count) in reasons.iter().take(MAX_SHOWN) {
            text.push_str(&format!("  {} at {stage}: {reason}\n", HumanCount(**count)));
        }
        let others: u64 = reasons
            .iter()
            .skip(MAX_SHOWN)
            .map(|(_, count)| **count)
            .sum::<u64>()
            + self.others;
        if others > 0 {
            text.push_str(&format!("  {} for other reasons\n", HumanCount(others)));
        }
        text.push_str("nothing was written; a sink may refuse more records\n");
        text
    }
}

/// Drops what arrives at sinks.
struct NoSinks;

impl RowReceiver for NoSinks {
    fn decoded(&mut self, _: &PlannedSource, _: &Rows) {}

    fn arrive(&mut self, _: SinkIndex, _: Rows) -> Vec<BadRow> {
        Vec::new()
    }

    fn passed(&mut self, _: &ChainStep, _: &Rows) {}
}
