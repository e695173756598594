//! `pseidon replay`: feeds quarantined records through the repaired pipeline, each of them once.
//!
//! 1. [`files`] finds the files of the quarantine, and [`record`] and [`reader`] read them.
//! 2. [`selection`] decides which of them are replayed.
//! 3. In the plan of the pipeline, the sources are replaced: for each stage with quarantined
//!    records by a [`source`] that reads them, with the part of the flow that they have to pass
//!    ([`pseidon_plan::replay`]).
//! 4. This plan runs as any other. Its name, and so its state, is not that of the pipeline: a
//!    replay does not disturb a run.
//!
//! [`dry_run`] passes the records through the flow without a run.

mod dry_run;
mod files;
mod reader;
mod record;
mod selection;
mod source;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use indicatif::{HumanCount, ProgressBar};
use pseidon_delivery::{GroupCommit, WithCauses};
use pseidon_dsl::printable::printable_lines;
use pseidon_dsl::{Document, nearest};
use pseidon_exec::Run;
use pseidon_plan::Plan;
use pseidon_plan::chain::PlannedSource;
use pseidon_plugin::format::Format;
use pseidon_plugin::source::Source;
use pseidon_service::runs::{EntryState, LiveRun, RunRegistry};

use self::dry_run::DryRun;
use self::files::QuarantineFile;
use self::selection::{ReplayRequest, ReplayedFiles, Selection};
use self::source::QuarantineSource;
use super::run::{
    failed, inferred, open_state, previous, prints_records, raise_open_file_limit, report,
    start_pools,
};
use crate::cli::{Exit, FileArgs, ReplayArgs};
use crate::counted::counted;
use crate::load::{self, PipelineText};
use crate::output;
use crate::progress::{self, ProgressDisplay};
use crate::{core_dumps, interrupts, sandbox, state};

/// What follows the name of the pipeline in that of its replays.
const REPLAY: &str = "/replay";

/// Replays the records. `bar` is the progress line, if there is a terminal.
pub(crate) fn replay(args: &ReplayArgs, bar: Option<ProgressBar>) -> Exit {
    match try_replay(args, bar) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_replay(args: &ReplayArgs, bar: Option<ProgressBar>) -> Result<Exit, Exit> {
    let text = load::text(&FileArgs {
        file: Some(args.file.clone()),
        expression: None,
        parameters: args.parameters.clone(),
    })?;
    let document = text.document()?;
    if load::is_template(&document) {
        return Err(failed(
            &"the quarantined records of a template cannot be replayed",
        ));
    }
    let state_folder = state::folder(&text.base);
    if !args.dry_run {
        sandbox::enter(&document, &text.base, &state_folder)?;
    }
    let plan = planned(&text, &document)?;
    let found = find(args, &plan)?;
    if args.dry_run {
        return try_without_writing(args, plan, found);
    }
    raise_open_file_limit();
    core_dumps::forbid();
    let store = open_state(&plan, &state_folder)?;
    let plan = match args.previous {
        true => {
            let previous = previous(&text, &*store)?;
            let earlier = planned(&previous.text, &previous.text.document()?)?;
            previous.check(&earlier, &plan)?;
            earlier
        }
        false => plan,
    };
    let known = ReplayedFiles::read(&plan, &*store).map_err(|error| failed(&WithCauses(&error)))?;
    let selection = select(args, found, &plan, &known)?;
    let (files, left_out) = (selection.files(), selection.left_out());
    let plan = with_sources(plan, selection.by_stage, &args.file)?;
    if files > 0 {
        let exit = run(args, bar, plan, store)?;
        left_out.lines().for_each(progress::say);
        return Ok(exit);
    }
    progress::say("nothing is new");
    left_out.lines().for_each(progress::say);
    Ok(Exit::Done)
}

/// Prints how many of the records would be valid.
fn try_without_writing(args: &ReplayArgs, plan: Plan, found: Vec<PathBuf>) -> Result<Exit, Exit> {
    let view = state::view(&plan, &state::folder(&plan.base));
    let known = match view.map_err(|error| failed(&WithCauses(&error)))? {
        Some(view) => {
            ReplayedFiles::read(&plan, &*view.store).map_err(|error| failed(&WithCauses(&error)))?
        }
        None => ReplayedFiles::none(),
    };
    let selection = select(args, found, &plan, &known)?;
    let stages = selection.by_stage.keys().cloned();
    let without_files = stages.map(|stage| (stage, Vec::new())).collect::<Vec<_>>();
    let plan = with_sources(plan, without_files, &args.file)?;
    let outcome = DryRun::of(&plan, &selection, &known).map_err(|error| failed(&error))?;
    let outcome = outcome.describe(selection.files());
    let outcome = format!("{outcome}{}", selection.left_out());
    Ok(output::print(&printable_lines(&outcome)))
}

/// The plan of the pipeline under the name of its replay. It opens no port, and the sources have
/// the schemas that they have in a run.
fn planned(text: &PipelineText, document: &Document) -> Result<Plan, Exit> {
    let is_inferred = Cell::new(false);
    let mut plan = text.plan_with(document, &|_, source, format| {
        is_inferred.set(true);
        load::infer(source, format, &text.base)
    })?;
    if is_inferred.get() {
        let view = state::view(&plan, &state::folder(&text.base));
        let view = view.map_err(|error| failed(&WithCauses(&error)))?;
        let infer = |stage: &str, source: &dyn Source, format: &dyn Format| {
            let known: Result<Option<SchemaRef>, String> = match &view {
                Some(view) => inferred(stage, &*view.store),
                None => Ok(None),
            };
            known?.map_or_else(|| load::infer(source, format, &text.base), Ok)
        };
        plan = text.plan_with(document, &infer)?;
    }
    // Names of pipelines do not contain a slash, so the name is unique.
    plan.name.push_str(REPLAY);
    let settings = &mut plan.settings;
    (settings.monitor_port, settings.repl_port) = (None, None);
    (settings.fatal_errors, settings.max_invalid) = (None, None);
    Ok(plan)
}

/// The files that the arguments name, or those where the pipeline quarantines records.
fn find(args: &ReplayArgs, plan: &Plan) -> Result<Vec<PathBuf>, Exit> {
    if !args.quarantine.is_empty() {
        return files::find(&args.quarantine).map_err(|error| failed(&error));
    }
    let quarantines = plan.sinks.iter().filter(|sink| sink.is_quarantine);
    let mut folders: Vec<&String> = quarantines.flat_map(|sink| &sink.folder).collect();
    folders.sort();
    folders.dedup();
    let paths = folders.iter().map(|folder| plan.base.join(folder));
    let paths: Vec<PathBuf> = paths.filter(|path| path.exists()).collect();
    if !paths.is_empty() {
        return files::find(&paths).map_err(|error| failed(&error));
    }
    let folders: Vec<&str> = folders.into_iter().map(String::as_str).collect();
    let file = args.file.display();
    Err(failed(&match folders.is_empty() {
        true => format!("no stage of {file} quarantines records"),
        false => format!(
            "there are no quarantined records in {}\n  help: if they are elsewhere, name the \
             folder: pseidon replay {file} FOLDER",
            folders.join(", ")
        ),
    }))
}

fn select(
    args: &ReplayArgs,
    found: Vec<PathBuf>,
    plan: &Plan,
    known: &ReplayedFiles,
) -> Result<Selection, Exit> {
    let is_unknown = |stage: &&String| plan.source_of(stage).is_none();
    if let Some(stage) = args.stages.iter().find(is_unknown) {
        let file = args.file.display();
        let near = nearest(stage, plan.stages());
        let help = near.map(|near| format!("\n  help: did you mean `{near}`?"));
        let help = help.unwrap_or_default();
        return Err(failed(&format!("`{stage}` is not a stage of {file}{help}")));
    }
    let named = args.quarantine.iter();
    let named: Vec<PathBuf> = named.filter_map(|path| path.canonicalize().ok()).collect();
    let request = ReplayRequest {
        stages: &args.stages,
        pipeline: plan.name.strip_suffix(REPLAY).unwrap_or(&plan.name),
        named: &named,
        again: args.again,
    };
    Selection::of(found, plan, known, request).map_err(|error| failed(&error))
}

/// The plan with a source for each of these stages in place of its own.
fn with_sources(
    mut plan: Plan,
    by_stage: impl IntoIterator<Item = (String, Vec<QuarantineFile>)>,
    file: &Path,
) -> Result<Plan, Exit> {
    let mut sources = Vec::new();
    for (stage, files) in by_stage {
        files
            .iter()
            .try_for_each(|file| check_source(&plan, file))
            .map_err(|error| failed(&error))?;
        let source = Arc::new(QuarantineSource::new(files));
        let planned = plan.replay(&stage, source).map_err(|reason| {
            let file = file.display();
            failed(&format!(
                "the records of stage `{stage}` cannot be replayed: it {reason}\n  help: replay \
                 those of another stage: pseidon replay {file} --stage STAGE"
            ))
        })?;
        sources.push(planned);
    }
    plan.sources = sources;
    Ok(plan)
}

/// An error if the records were read by another source than the one that leads to their stage now:
/// stages behind several sources have numbers, which change if a source is added.
fn check_source(plan: &Plan, file: &QuarantineFile) -> Result<(), String> {
    let Some(planned) = plan.source_of(&file.stage) else {
        return Ok(());
    };
    let has_read = |source: &&PlannedSource| {
        let name = file.first_split.split_once(':').map(|(name, _)| name);
        name == Some(&source.stage)
    };
    match plan.sources.iter().find(has_read) {
        Some(other) if other.stage != planned.stage => Err(format!(
            "the records of {} were read by `{}`, and stage `{}` is now behind `{}`: restore the \
             order of the sources in the flow",
            file.path.display(),
            other.stage,
            file.stage,
            planned.stage
        )),
        _ => Ok(()),
    }
}

/// Runs the plan until its records are replayed, or until it is stopped.
fn run(
    args: &ReplayArgs,
    bar: Option<ProgressBar>,
    plan: Plan,
    store: Arc<GroupCommit>,
) -> Result<Exit, Exit> {
    let plan = Arc::new(plan);
    let pools = start_pools(&plan)?;
    let runs = Arc::new(RunRegistry::new(plan.clone(), pools.clone(), None));
    let entry = runs.entry(&plan.name);
    let (control, controls) =
        interrupts::listen(plan.settings.shutdown_grace).map_err(|error| failed(&error))?;
    let display = bar
        .filter(|_| !prints_records(&plan))
        .map(|bar| ProgressDisplay::start(bar, &runs));
    entry.set_live(Some(LiveRun {
        plan: plan.clone(),
        control: control.clone(),
        since: Instant::now(),
    }));
    entry.set_state(EntryState::Running);
    let run = Run {
        plan: plan.clone(),
        pools,
        store,
        metrics: entry.metrics.clone(),
        accept_changed_plan: args.accept_changed_plan,
        catch_up: None,
        was_open: false,
        control: controls,
        view: entry.view.clone(),
    };
    let outcome = run.run();
    drop((display, control));
    let file = args.file.display().to_string();
    let exit = report(outcome, &plan, ("replay", &file), &runs);
    if let Exit::Failed = exit {
        return Ok(exit);
    }
    let (records, invalid) = (
        progress::records_read(&runs),
        progress::invalid_records(&runs),
    );
    progress::say(&format!(
        "replayed {}: {} valid, {} invalid again",
        counted(records, "record"),
        HumanCount(records.saturating_sub(invalid)),
        HumanCount(invalid)
    ));
    Ok(exit)
}

#[cfg(test)]
mod tests;
