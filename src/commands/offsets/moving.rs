//! Moving positions: which splits, where to, and what that does to the records.
//!
//! The same is computed twice: from a copy of the state to print it, and from the state itself, which
//! no run has open, to do it. What the source has published elsewhere is withdrawn before the state
//! changes: if it is not there any more, it proves nothing.

use pseidon_delivery::failpoint::reach;
use pseidon_delivery::store::SplitVersion;
use pseidon_delivery::{
    OperatorError, OperatorStore, Position, ResumeToken, SinkId, SplitId, SplitMove, StoreError,
    WithCauses,
};
use pseidon_dsl::nearest;
use pseidon_kafka::tools::StartPosition;
use pseidon_plan::{Plan, PlannedSource, SinkIndex};
use pseidon_plugin::source::{KnownSplit, MoveTo, NewPlace, Resumption, SplitTarget};

use super::failed;
use crate::aligned::aligned;
use crate::cli::{Exit, OffsetsArgs};
use crate::counted::counted;
use crate::load::PipelineText;
use crate::splits::{PipelineState, SplitState, setup_of};
use crate::state::{self, StateView};
use crate::stderr_line;

/// The splits that are moved.
struct Moving<'p> {
    /// The sources, each with its splits and their new places.
    sources: Vec<(&'p PlannedSource, Vec<MovedSplit>)>,
}

/// A split with its new place.
struct MovedSplit {
    split: SplitId,
    name: String,
    before: Option<Resumption>,
    /// The position after the last record that exists now, if it is known.
    end: Option<Position>,
    /// Where each sink is. One that has committed less is at a lower position.
    in_sinks: Vec<(SinkId, Option<SinkPosition>)>,
    place: NewPlace,
    moves: Vec<SplitMove>,
}

/// Prints what would be moved, or moves it.
pub(super) fn move_splits(
    args: &OffsetsArgs,
    to: StartPosition,
    text: &PipelineText,
    plan: &Plan,
) -> Result<String, Exit> {
    let folder = state::folder(&text.base);
    let file = args.file.display().to_string();
    let in_store = |error: StoreError| failed(&WithCauses(&error));
    let to = match to {
        StartPosition::Earliest => MoveTo::Earliest,
        StartPosition::Latest => MoveTo::Latest,
        StartPosition::Offset(position) => MoveTo::Position(position),
        StartPosition::Time(millis) => MoveTo::Time(millis),
    };
    let no_state = || {
        let what = format!(
            "{file} has no state: it has not run yet\n  help: set where it starts with `:start`"
        );
        failed(&what)
    };
    if args.execute {
        let store = state::open_to_change(plan, &folder).map_err(in_store)?;
        let store = store.ok_or_else(no_state)?;
        let view = StateView::of(store.clone());
        let state = PipelineState::read(plan, view, false).map_err(in_store)?;
        let moving = Moving::find(args, to, plan, &state)?;
        moving.execute(plan, &*store, &file)?;
        return Ok(moving.describe("moved"));
    }
    let view = state::view(plan, &folder).map_err(in_store)?;
    let view = view.ok_or_else(no_state)?;
    if view.is_in_use {
        return Err(failed(&format!(
            "a running process has {} open\n  help: stop it first",
            view.place
        )));
    }
    let state = PipelineState::read(plan, view, false).map_err(in_store)?;
    let moving = Moving::find(args, to, plan, &state)?;
    Ok(moving.describe("nothing was changed; to change it, add --execute"))
}

impl<'p> Moving<'p> {
    /// Finds the splits that the arguments select, and their new places. Errors are printed.
    fn find(
        args: &OffsetsArgs,
        to: MoveTo,
        plan: &'p Plan,
        state: &PipelineState,
    ) -> Result<Moving<'p>, Exit> {
        let mut sources = Vec::new();
        let mut errors = Vec::new();
        let mut names = Vec::new();
        for source in selected(args, plan)? {
            refuse_source(args, plan, source, state)?;
            let splits: Vec<&SplitState> = state
                .splits
                .iter()
                .filter(|split| split.source == source.stage)
                .collect();
            let mut known: Vec<KnownSplit> =
                splits.iter().filter_map(|split| split.known()).collect();
            known.extend(state.hidden.iter().cloned());
            let found = source
                .source
                .find_places(&setup_of(plan, source), &known, to);
            let found = found.map_err(|error| {
                failed(&format!(
                    "source `{}`: {}",
                    source.stage,
                    WithCauses(&error)
                ))
            })?;
            names.extend(found.iter().map(|target| target.name.clone()));
            let is_wanted =
                |target: &SplitTarget| args.splits.is_empty() || args.splits.contains(&target.name);
            let mut moved = Vec::new();
            for target in found.into_iter().filter(is_wanted) {
                let known = splits
                    .iter()
                    .find(|split| split.status.split == target.split);
                if let Some(error) = known.and_then(|split| unfinished(split, state)) {
                    return Err(failed(&with_help(&error, &args.file.display().to_string())));
                }
                match target.place {
                    Err(reason) => errors.push(format!("{}: {reason}", target.name)),
                    Ok(place) => moved.push(MovedSplit {
                        moves: moves(plan, source, &target.split, known.copied(), &place),
                        before: known.and_then(|split| split.at.clone()),
                        end: known.and_then(|split| split.status.end),
                        in_sinks: in_sinks(plan, source, known.copied()),
                        split: target.split,
                        name: target.name,
                        place,
                    }),
                }
            }
            sources.push((source, moved));
        }
        for split in args.splits.iter().filter(|split| !names.contains(split)) {
            let near = nearest(split, names.iter().map(String::as_str));
            let help = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            errors.push(format!(
                "unknown split `{split}`, or it has nothing to move{help}"
            ));
        }
        if errors.is_empty() {
            return Ok(Moving { sources });
        }
        errors
            .iter()
            .for_each(|error| stderr_line!("error: {error}"));
        Err(Exit::WrongFile)
    }

    /// The splits with their positions before and after, what that means, and what was done.
    fn describe(&self, done: &str) -> String {
        let head = ["SOURCE", "SPLIT", "POSITION", "NEW", "EFFECT"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (source, splits) in &self.sources {
            rows.extend(splits.iter().map(|split| {
                vec![
                    source.stage.clone(),
                    split.name.clone(),
                    split
                        .before
                        .as_ref()
                        .map_or("-".to_owned(), |before| before.position.to_string()),
                    split.place.position.to_string(),
                    split.effect(),
                ]
            }));
        }
        if rows.len() == 1 {
            return "no split has to be moved\n".to_owned();
        }
        let table = aligned(&rows);
        format!(
            "{table}records that are re-read are delivered again, to every sink; records that are \
             skipped are never delivered\n{done}\n"
        )
    }

    /// Moves the splits in one step.
    fn execute(&self, plan: &Plan, store: &dyn OperatorStore, file: &str) -> Result<(), Exit> {
        let mut moves = Vec::new();
        for (source, splits) in &self.sources {
            let ids: Vec<SplitId> = splits.iter().map(|split| split.split.clone()).collect();
            let withdrawn = source.source.withdraw(&setup_of(plan, source), &ids);
            withdrawn.map_err(|error| failed(&WithCauses(&error)))?;
            moves.extend(splits.iter().flat_map(|split| split.moves.iter().cloned()));
        }
        reach("offsets-withdrawn");
        if moves.is_empty() {
            return Ok(());
        }
        store
            .move_splits(&moves)
            .map_err(|error| failed(&with_help(&error, file)))?;
        reach("offsets-moved");
        Ok(())
    }
}

/// How far a split is delivered to a sink.
struct SinkPosition {
    position: Position,
    resume: Option<ResumeToken>,
    is_finished: bool,
}

impl MovedSplit {
    /// What the move does: once if it is the same for all sinks, else for each of them.
    fn effect(&self) -> String {
        let effects = self
            .in_sinks
            .iter()
            .map(|(_, before)| self.effect_in(before.as_ref()));
        let effects: Vec<String> = effects.collect();
        match effects.first() {
            Some(first) if effects.iter().all(|effect| effect == first) => first.clone(),
            _ => {
                let of_sinks = self.in_sinks.iter().zip(&effects);
                let each: Vec<String> = of_sinks
                    .map(|((sink, _), effect)| format!("{sink}: {effect}"))
                    .collect();
                each.join("; ")
            }
        }
    }

    fn effect_in(&self, before: Option<&SinkPosition>) -> String {
        let (to, ends) = (self.place.position, self.place.is_finished);
        let Some(before) = before else {
            return match ends {
                true => "all is skipped".to_owned(),
                false => format!("begins at {to}"),
            };
        };
        let positions = |count| counted(count, "position");
        // A split that became shorter has no more than this to read again.
        let from = self
            .end
            .map_or(before.position, |end| before.position.min(end));
        let is_at_end = before.is_finished && before.resume == self.place.resume;
        match from {
            from if to < from => format!("{} re-read", positions(from - to)),
            from if to > from => format!("{} skipped", positions(to - from)),
            _ if ends && !is_at_end => "the rest is skipped".to_owned(),
            _ => "none".to_owned(),
        }
    }
}

/// How far a split is delivered to each sink of its source.
fn in_sinks(
    plan: &Plan,
    source: &PlannedSource,
    known: Option<&SplitState>,
) -> Vec<(SinkId, Option<SinkPosition>)> {
    let records = known
        .map(|known| known.sinks.as_slice())
        .unwrap_or_default();
    let of_sink = |index: &SinkIndex| {
        let sink = &plan.sinks[*index].id;
        let record = records.iter().find(|(of, _)| of == sink);
        let position = record.and_then(|(_, record)| {
            Some(SinkPosition {
                position: record.low?,
                resume: record.resume.clone(),
                is_finished: record.finished.is_some(),
            })
        });
        (sink.clone(), position)
    };
    source.sinks.iter().map(of_sink).collect()
}

/// The sources whose positions are moved.
fn selected<'p>(args: &OffsetsArgs, plan: &'p Plan) -> Result<Vec<&'p PlannedSource>, Exit> {
    let sources = plan.sources.iter().filter(|source| source.group.is_none());
    let Some(name) = &args.source else {
        return Ok(sources.collect());
    };
    if let Some(source) = sources.clone().find(|source| source.stage == *name) {
        return Ok(vec![source]);
    }
    let near = nearest(name, sources.map(|source| source.stage.as_str()));
    let help = near.map_or(String::new(), |near| {
        format!("\n  help: did you mean `{near}`?")
    });
    stderr_line!("error: unknown source `{name}`{help}");
    Err(Exit::WrongFile)
}

/// Refuses sources whose positions are in targets.
fn refuse_source(
    args: &OffsetsArgs,
    plan: &Plan,
    source: &PlannedSource,
    state: &PipelineState,
) -> Result<(), Exit> {
    let file = args.file.display();
    for index in &source.sinks {
        let sink = &plan.sinks[*index].id;
        if state.groups.contains(sink) {
            return Err(failed(&format!(
                "`{sink}` has counted what was read of `{}` already\n  help: to re-read everything: \
                 pseidon reset {file}",
                source.stage
            )));
        }
        if state.in_target.contains(sink) {
            return Err(failed(&format!(
                "`{sink}` holds its positions in its target, where they cannot be moved\n  help: \
                 rename the stage, so that it starts without positions, and set where the source \
                 starts"
            )));
        }
    }
    Ok(())
}

/// Why a split cannot be moved now: another instance may have it, or work was not finished.
fn unfinished(split: &SplitState, state: &PipelineState) -> Option<OperatorError> {
    let id = &split.status.split;
    if state.is_held(split) {
        return Some(OperatorError::Held(id.clone()));
    }
    let mut sinks = split.sinks.iter().map(|(sink, _)| sink);
    let staged = sinks.find(|sink| state.staged.iter().any(|(staged, _)| staged == *sink));
    if let Some(sink) = staged {
        return Some(OperatorError::Staged(sink.clone()));
    }
    (split.ahead() > 0).then(|| OperatorError::Ahead(id.clone()))
}

/// The error with what to do.
pub(crate) fn with_help(error: &OperatorError, file: &str) -> String {
    let help = match error {
        OperatorError::Held(_) => {
            format!("stop the instance; if it has crashed, run {file} and stop it gracefully")
        }
        OperatorError::Ahead(_) => format!("finish it first: pseidon run {file}"),
        OperatorError::Staged(_) => {
            format!("publish them first: pseidon run {file}, or see: pseidon staged {file}")
        }
        OperatorError::Changed => "look again: the positions were read before".to_owned(),
        OperatorError::Store(_) => return WithCauses(error).to_string(),
    };
    format!("{error}\n  help: {help}")
}

/// The changes of a split's records in all sinks of its source.
fn moves(
    plan: &Plan,
    source: &PlannedSource,
    split: &SplitId,
    known: Option<&SplitState>,
    place: &NewPlace,
) -> Vec<SplitMove> {
    let finished = place
        .is_finished
        .then(|| chrono::Utc::now().timestamp().unsigned_abs());
    let of_sink = |index: &SinkIndex| {
        let sink = &plan.sinks[*index].id;
        let records = known
            .map(|known| known.sinks.as_slice())
            .unwrap_or_default();
        let record = records.iter().find(|(of, _)| of == sink);
        SplitMove {
            sink: sink.clone(),
            split: split.clone(),
            seen: record.map_or_else(SplitVersion::default, |(_, record)| SplitVersion {
                epoch: record.epoch,
                sequence: record.sequence,
            }),
            to: place.position,
            resume: place.resume.clone(),
            finished,
        }
    };
    source.sinks.iter().map(of_sink).collect()
}
