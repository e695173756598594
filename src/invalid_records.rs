//! Why records were invalid and where they are, for the summary of a run.

use std::collections::BTreeSet;

use crate::stderr_line;
use indicatif::HumanCount;
use pseidon_dsl::printable;
use pseidon_exec::{BadRecordExample, BadRecordReason};
use pseidon_plan::Plan;
use pseidon_service::runs::RunRegistry;

/// How many reasons the summary shows.
const MAX_SHOWN: usize = 5;

/// The invalid records of all runs of the process.
pub(crate) struct InvalidRecords {
    /// The reasons, the most frequent first, each with the first record.
    reasons: Vec<(BadRecordReason, FirstRecord)>,
    /// How many records had other reasons.
    others: u64,
    /// The folders that contain the quarantined ones. Empty for a template, whose logs may have
    /// different ones.
    folders: BTreeSet<String>,
}

/// The first record that was invalid for a reason.
struct FirstRecord {
    /// Where it is; `None` for one that is the result of a group.
    place: Option<String>,
    /// Its beginning, if no quarantine has it.
    text: Option<String>,
}

impl FirstRecord {
    fn of(plan: &Plan, example: &BadRecordExample) -> FirstRecord {
        let mut sources = plan.sources.iter();
        let source = sources.find(|source| source.stage == example.source);
        let source = source.filter(|source| source.group.is_none());
        FirstRecord {
            place: source.map(|source| {
                printable(&source.source.place_of(&plan.base, &example.place)).into_owned()
            }),
            text: match plan.keeps_state {
                true => None,
                false => example
                    .beginning
                    .as_deref()
                    .map(|text| printable(text).into_owned()),
            },
        }
    }
}

impl InvalidRecords {
    /// Those of all runs so far.
    pub(crate) fn of(runs: &RunRegistry) -> InvalidRecords {
        let mut reasons: Vec<BadRecordReason> = Vec::new();
        let mut others = 0;
        for entry in runs.entries() {
            let of_run = entry.view.bad_record_reasons();
            others += of_run.others;
            for reason in of_run.reasons {
                let known = reasons
                    .iter_mut()
                    .find(|known| known.stage == reason.stage && known.reason == reason.reason);
                match known {
                    Some(known) => known.count += reason.count,
                    None => reasons.push(reason),
                }
            }
        }
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        others += reasons
            .iter()
            .skip(MAX_SHOWN)
            .map(|reason| reason.count)
            .sum::<u64>();
        reasons.truncate(MAX_SHOWN);
        let quarantines = runs.plan.sinks.iter().filter(|sink| sink.is_quarantine);
        let folders = match runs.is_template() {
            true => BTreeSet::new(),
            false => quarantines.filter_map(|sink| sink.folder.clone()).collect(),
        };
        let with_first = |reason: BadRecordReason| {
            let first = FirstRecord::of(&runs.plan, &reason.first);
            (reason, first)
        };
        InvalidRecords {
            reasons: reasons.into_iter().map(with_first).collect(),
            others,
            folders,
        }
    }

    /// Logs a warning for each reason. `quarantined` is how many were quarantined.
    pub(crate) fn log(&self, quarantined: u64) {
        for (reason, first) in &self.reasons {
            tracing::warn!(
                stage = reason.stage,
                count = reason.count,
                reason = reason.reason,
                first = first.place,
                record = first.text,
                "invalid records"
            );
        }
        if self.others > 0 {
            tracing::warn!(count = self.others, "invalid records for other reasons");
        }
        if quarantined > 0 && !self.folders.is_empty() {
            tracing::warn!(folder = self.folders(), "invalid records were quarantined");
        }
    }

    /// Prints how many were quarantined and dropped, and a line for each reason.
    pub(crate) fn print(&self, quarantined: u64, dropped: u64) {
        let place = match quarantined > 0 && !self.folders.is_empty() {
            true => format!(" in {}", self.folders()),
            false => String::new(),
        };
        stderr_line!(
            "  invalid  {} quarantined{place}, {} dropped",
            HumanCount(quarantined),
            HumanCount(dropped)
        );
        for (reason, first) in &self.reasons {
            let (count, stage, reason) = (HumanCount(reason.count), &reason.stage, &reason.reason);
            stderr_line!("    {count} at {stage}: {}", printable(reason));
            if let Some(place) = &first.place {
                stderr_line!("      first: {place}");
            }
            if let Some(text) = &first.text {
                stderr_line!("      record: {text}");
            }
        }
        if self.others > 0 {
            stderr_line!("    {} for other reasons", HumanCount(self.others));
        }
    }

    fn folders(&self) -> String {
        let folders: Vec<&str> = self.folders.iter().map(String::as_str).collect();
        folders.join(", ")
    }
}
