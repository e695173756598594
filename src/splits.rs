//! The splits of a pipeline: their records in the state, and what their sources have now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use pseidon_delivery::{
    CommitRecord, InstanceId, Position, SinkId, SplitId, StateStore, StoreError, WithCauses,
};
use pseidon_exec::takeover::resumption;
use pseidon_plan::{Plan, PlannedSource};
use pseidon_plugin::sink::Protocol;
use pseidon_plugin::source::{KnownSplit, Resumption, SourceSetup, SplitStatus};

use crate::load;
use crate::state::StateView;
use crate::stderr_line;

/// Everything that is shown of a pipeline.
pub(crate) struct PipelineState {
    /// Where the state is.
    pub(crate) place: String,
    /// Whether a process has the state file open.
    pub(crate) is_in_use: bool,
    /// When the state file was last written.
    pub(crate) written: Option<SystemTime>,
    /// The splits, by source and name.
    pub(crate) splits: Vec<SplitState>,
    /// Splits that the sources do not show, such as what is left of a file that was rewritten.
    pub(crate) hidden: Vec<KnownSplit>,
    /// The sinks with committed files that are not visible yet, and how many.
    pub(crate) staged: Vec<(SinkId, usize)>,
    /// The sinks whose target holds their positions, other than groups: the state has copies.
    pub(crate) in_target: Vec<SinkId>,
    /// The sinks that collect groups.
    pub(crate) groups: Vec<SinkId>,
    /// Whether instances on other machines may use the state.
    pub(crate) is_shared: bool,
}

/// A split, with its record in each sink that its records reach.
pub(crate) struct SplitState {
    /// The stage that reads it; in a template after the log's name.
    pub(crate) source: String,
    pub(crate) status: SplitStatus,
    /// None if the state does not know the split.
    pub(crate) sinks: Vec<(SinkId, CommitRecord)>,
    /// Where a run would continue: everything below it is durable in every sink. `None` if the
    /// split was never begun.
    pub(crate) at: Option<Resumption>,
}

impl SplitState {
    /// Everything below it is durable in every sink.
    pub(crate) fn position(&self) -> Option<Position> {
        self.at.as_ref().map(|at| at.position)
    }

    /// The split as its source needs it; `None` if it was never begun.
    pub(crate) fn known(&self) -> Option<KnownSplit> {
        Some(KnownSplit {
            split: self.status.split.clone(),
            at: self.at.clone()?,
        })
    }

    /// How many positions are left to read; `None` if that is not known, or if the split is shorter
    /// than what was read of it.
    pub(crate) fn lag(&self) -> Option<u64> {
        self.status.end?.checked_sub(self.position().unwrap_or(0))
    }

    /// How many lanes are ahead of the position, over all sinks.
    pub(crate) fn ahead(&self) -> usize {
        self.sinks
            .iter()
            .map(|(_, record)| record.ahead.len())
            .sum()
    }

    /// The instances that took it and have not released it.
    pub(crate) fn owners(&self) -> BTreeSet<&InstanceId> {
        self.sinks
            .iter()
            .flat_map(|(_, record)| &record.owners)
            .collect()
    }
}

impl PipelineState {
    /// Whether an instance on another machine may have the split.
    pub(crate) fn is_held(&self, split: &SplitState) -> bool {
        self.is_shared && !split.owners().is_empty()
    }

    /// A split that an instance on another machine may have.
    pub(crate) fn held(&self) -> Option<&SplitId> {
        let held = self.splits.iter().find(|split| self.is_held(split));
        held.map(|split| &split.status.split)
    }

    /// Reads the state, and asks the sources for what they have. A source that does not answer is
    /// reported on standard error.
    pub(crate) fn read(
        plan: &Plan,
        view: StateView,
        is_template: bool,
    ) -> Result<PipelineState, StoreError> {
        let store = &*view.store;
        let sinks = store.sinks()?;
        let scopes: BTreeSet<String> = match is_template {
            true => sinks.iter().filter_map(scope_of).collect(),
            false => BTreeSet::from([String::new()]),
        };
        let (mut splits, mut hidden) = (Vec::new(), Vec::new());
        for scope in &scopes {
            // What a `group` has collected has no positions that a person could know.
            for source in plan.sources.iter().filter(|source| source.group.is_none()) {
                let (shown, others) = splits_of(plan, store, source, scope)?;
                splits.extend(shown);
                hidden.extend(others);
            }
        }
        let mut staged = Vec::new();
        for sink in &sinks {
            let count = store.staged(sink)?.len();
            if count > 0 {
                staged.push((sink.clone(), count));
            }
        }
        let is_group = |sink: &SinkId| {
            let mut results = plan.sources.iter().filter(|source| source.group.is_some());
            results.any(|source| source.stage == sink.as_str())
        };
        let in_target = plan.sinks.iter();
        let in_target = in_target
            .filter(|sink| sink.protocol == Protocol::Transactional)
            .map(|sink| sink.id.clone());
        let (groups, in_target) = in_target.partition(is_group);
        Ok(PipelineState {
            in_target,
            groups,
            is_shared: plan.settings.state.is_some(),
            place: view.place,
            is_in_use: view.is_in_use,
            written: view.written,
            splits,
            hidden,
            staged,
        })
    }
}

/// The part of a sink's name before the `/`: the log that it belongs to, with the `/`.
fn scope_of(sink: &SinkId) -> Option<String> {
    let (log, _) = sink.as_str().split_once('/')?;
    Some(format!("{log}/"))
}

/// The splits of a source, by name, and those that it does not show.
fn splits_of(
    plan: &Plan,
    store: &dyn StateStore,
    source: &PlannedSource,
    scope: &str,
) -> Result<(Vec<SplitState>, Vec<KnownSplit>), StoreError> {
    let prefix = format!("{}:", source.stage);
    let mut records: BTreeMap<SplitId, Vec<(SinkId, CommitRecord)>> = BTreeMap::new();
    for index in &source.sinks {
        let sink = SinkId::from(format!("{scope}{}", plan.sinks[*index].id));
        for (split, record) in store.records(&sink)? {
            if split.as_str().starts_with(&prefix) {
                records
                    .entry(split)
                    .or_default()
                    .push((sink.clone(), record));
            }
        }
    }
    let at = |of_sinks: &[(SinkId, CommitRecord)]| {
        let records: Vec<CommitRecord> =
            of_sinks.iter().map(|(_, record)| record.clone()).collect();
        resumption(&records)
    };
    let known = |records: &BTreeMap<SplitId, Vec<(SinkId, CommitRecord)>>| -> Vec<KnownSplit> {
        let known = records.iter().filter_map(|(split, of_sinks)| {
            let (split, at) = (split.clone(), at(of_sinks)?);
            Some(KnownSplit { split, at })
        });
        known.collect()
    };
    let name = format!("{scope}{}", source.stage);
    let mut splits: Vec<SplitState> = statuses(plan, source, &known(&records))
        .into_iter()
        .map(|status| {
            let sinks = records.remove(&status.split).unwrap_or_default();
            SplitState {
                source: name.clone(),
                at: at(&sinks),
                status,
                sinks,
            }
        })
        .collect();
    splits.sort_by(|one, other| one.status.name.cmp(&other.status.name));
    Ok((splits, known(&records)))
}

/// The setup of a source that is not run.
pub(crate) fn setup_of(plan: &Plan, source: &PlannedSource) -> SourceSetup {
    let framing = source.format.framing(&source.format_settings);
    load::source_setup(&plan.name, &source.stage, &plan.base, framing)
}

/// What the source has now, or only the ids of the splits if it does not answer.
fn statuses(plan: &Plan, source: &PlannedSource, known: &[KnownSplit]) -> Vec<SplitStatus> {
    let setup = setup_of(plan, source);
    source
        .source
        .describe_splits(&setup, known)
        .unwrap_or_else(|error| {
            stderr_line!("warning: {}", WithCauses(&error));
            let of_id = |known: &KnownSplit| SplitStatus::of_id(&source.stage, &known.split);
            known.iter().map(of_id).collect()
        })
}
