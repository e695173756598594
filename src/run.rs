//! `pseidon run`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use crossbeam_channel::bounded;
use indicatif::ProgressBar;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{GroupCommit, StateStore, StoreError};
use pseidon_dsl::Document;
use pseidon_exec::{Finished, Pools, Run, RunError};
use pseidon_plan::Plan;
use pseidon_plugin::format::Format;
use pseidon_plugin::options::{print_schema, read_schema};
use pseidon_plugin::source::Source;
use pseidon_redis::RedisStore;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::board::{Board, Live, State};
use crate::load::{self, Kind, Text};
use crate::logs::Template;
use crate::progress::Shown;
use crate::service::Face;
use crate::systemd::{Asked, Notifying};
use crate::{Exit, RunArgs, fatal, interrupts, logs, progress, service};

/// How long to wait before a server that does not answer is tried again.
const CONNECT_AGAIN: Duration = Duration::from_millis(500);

/// Runs a pipeline.
pub(crate) fn run(args: &RunArgs, bar: Option<ProgressBar>) -> Exit {
    match try_run(args, bar) {
        Ok(exit) | Err(exit) => exit,
    }
}

/// Uses as many file descriptors as the system allows: each log of a table holds some, and shells
/// give a process few unless it asks.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, what there is has to do.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// Whoever starts and watches services hears how this one is getting on, as long as what comes back
/// lives.
fn notify(board: &Arc<Board>) -> Result<Option<Notifying>, Exit> {
    let Some(asked) = Asked::from_environment() else {
        return Ok(None);
    };
    let (alive, progressing) = (board.clone(), board.clone());
    let progress = move || progress::progress(&progressing);
    Notifying::start(&asked, move || alive.is_alive(), progress)
        .map(Some)
        .map_err(|error| failed(&error))
}

/// Writes down why the process ends, where the pipeline wants that.
fn note_fatal(plan: &Plan, reason: &dyn std::fmt::Display) {
    if let Some(path) = &plan.settings.fatal_errors {
        fatal::append(&plan.base.join(path), &plan.name, &reason.to_string());
    }
}

fn watch_for_panics(plan: &Plan) {
    if let Some(path) = &plan.settings.fatal_errors {
        fatal::append_panics(plan.base.join(path), plan.name.clone());
    }
}

fn try_run(args: &RunArgs, bar: Option<ProgressBar>) -> Result<Exit, Exit> {
    allow_open_files();
    let text = load::text(&args.from)?;
    let document = text.document()?;
    // What `-e` remembers goes with it; the folder is removed when this function ends.
    let passing = (text.kind == Kind::Flow)
        .then(tempfile::tempdir)
        .transpose()
        .map_err(|error| failed(&error))?;
    let state_folder = passing.as_ref().map_or_else(
        || text.base.join(".pseidon"),
        |folder| folder.path().to_owned(),
    );
    if load::is_template(&document) {
        return run_template(args, bar, text, &document, &state_folder);
    }
    run_pipeline(args, bar, text, &document, &state_folder)
}

/// Runs one pipeline.
fn run_pipeline(
    args: &RunArgs,
    bar: Option<ProgressBar>,
    text: Text,
    document: &Document,
    state_folder: &Path,
) -> Result<Exit, Exit> {
    let first_plan = text.plan(document)?;
    let store = open_store(&first_plan, state_folder).map_err(|error| failed(&error))?;
    let text = if args.previous {
        previous(text, store.as_ref())?
    } else {
        text
    };
    // Only now that the state is at hand is it known what was inferred before; a restart must see
    // the same types.
    let infer = |stage: &str, source: &dyn Source, format: &dyn Format| {
        infer_once(stage, source, format, &text.base, store.as_ref())
    };
    let plan = Arc::new(text.plan_with(&text.document()?, &infer)?);
    let pools = Arc::new(Pools::start(&plan.settings).map_err(|error| failed(&error))?);
    let board = Arc::new(Board::new(plan.clone(), pools.clone(), None));
    watch_for_panics(&plan);
    let entry = board.entry(&plan.name);
    service::serve(&Face::of(&plan.settings), board.clone()).map_err(|error| failed(&error))?;
    tracing::debug!(
        pipeline = plan.name,
        fingerprint = plan.fingerprint,
        "starting"
    );
    let (control, said) =
        interrupts::listen(plan.settings.shutdown_grace).map_err(|error| failed(&error))?;
    entry.set_live(Some(Live {
        plan: plan.clone(),
        control,
        since: Instant::now(),
    }));
    entry.set_state(State::Running);
    let shown = bar
        .filter(|_| !prints_to_terminal(&plan))
        .map(|bar| Shown::start(bar, &board));
    let run = Run {
        plan: plan.clone(),
        pools: pools.clone(),
        store,
        metrics: entry.metrics.clone(),
        accept_changed_plan: args.accept_changed_plan,
        control: said,
        view: entry.view.clone(),
    };
    let notifying = notify(&board)?;
    let outcome = run.run();
    drop(shown);
    drop(notifying);
    match outcome {
        Ok(finished) => {
            let (how, exit) = match finished {
                Finished::Complete => ("done", Exit::Done),
                Finished::Stopped => ("stopped", Exit::Done),
                Finished::Left => ("left before everything was committed", Exit::Failed),
            };
            progress::summary(&board, how);
            Ok(exit)
        }
        Err(error) => {
            note_fatal(&plan, &error);
            let exit = failed(&error);
            if let RunError::PlanChanged(_) = error {
                eprintln!(
                    "  to finish that run with the pipeline as it was:  pseidon run --previous {}",
                    text.name
                );
                eprintln!(
                    "  to go on with this one all the same:             pseidon run --accept-changed-plan {}",
                    text.name
                );
            }
            progress::summary(&board, "failed");
            Ok(exit)
        }
    }
}

/// Runs a template, once for each log of its table.
fn run_template(
    args: &RunArgs,
    bar: Option<ProgressBar>,
    text: Text,
    document: &Document,
    state_folder: &Path,
) -> Result<Exit, Exit> {
    if args.previous {
        return Err(failed(
            &"--previous is not needed here: each log that crashed is finished as it was by itself",
        ));
    }
    let (plan, settings) = text.template(document)?;
    let plan = Arc::new(plan);
    let store = open_store(&plan, state_folder).map_err(|error| failed(&error))?;
    for weakness in store.weaknesses().map_err(|error| failed(&error))? {
        tracing::warn!("the state store is weaker than exactly-once needs: {weakness}");
    }
    let pools = Arc::new(Pools::start(&plan.settings).map_err(|error| failed(&error))?);
    let (reload, reloads) = bounded(1);
    let board = Arc::new(Board::new(plan.clone(), pools, Some(reload)));
    watch_for_panics(&plan);
    service::serve(&Face::of(&plan.settings), board.clone()).map_err(|error| failed(&error))?;
    let (_, said) =
        interrupts::listen(plan.settings.shutdown_grace).map_err(|error| failed(&error))?;
    let shown = bar
        .filter(|_| !prints_to_terminal(&plan))
        .map(|bar| Shown::start(bar, &board));
    let settings = Arc::new(settings);
    let notifying = notify(&board)?;
    let template = Template {
        text,
        plan: plan.clone(),
        settings,
        store,
        accept_changed_plan: args.accept_changed_plan,
    };
    let outcome = logs::run(template, board.clone(), &said, &reloads);
    drop(shown);
    drop(notifying);
    let (how, exit) = match outcome {
        Ok(true) => ("stopped", Exit::Done),
        Ok(false) => ("left before everything was committed", Exit::Failed),
        Err(reason) => {
            note_fatal(&plan, &reason);
            ("failed", failed(&reason))
        }
    };
    progress::summary(&board, how);
    Ok(exit)
}

fn failed(error: &dyn std::fmt::Display) -> Exit {
    eprintln!("error: {error}");
    Exit::Failed
}

fn open_store(plan: &Plan, folder: &Path) -> Result<Arc<dyn StateStore>, StoreError> {
    match &plan.settings.state {
        Some(url) => Ok(Arc::new(GroupCommit::new(Arc::new(connect(url, plan)?)))),
        None => Ok(Arc::new(GroupCommit::new(Arc::new(EmbeddedStore::open(
            folder, &plan.name,
        )?)))),
    }
}

/// Waits for a server that does not answer: where machines start together, Redis may be the last to
/// be ready.
fn connect(url: &str, plan: &Plan) -> Result<RedisStore, StoreError> {
    let mut said = false;
    loop {
        let opened = RedisStore::connect(url, &plan.settings.namespace, &plan.name)
            .and_then(|store| store.identity().map(|_| store));
        let Err(StoreError::Unavailable(reason)) = opened else {
            return opened;
        };
        if !said {
            tracing::warn!(reason, "state store does not answer; waiting for it");
            said = true;
        }
        std::thread::sleep(CONNECT_AGAIN);
    }
}

/// What `:schema :infer` found when the stage ran first.
fn infer_once(
    stage: &str,
    source: &dyn Source,
    format: &dyn Format,
    base: &Path,
    store: &dyn StateStore,
) -> Result<SchemaRef, String> {
    let key = format!("schema:{stage}");
    if let Some(known) = store.note(&key).map_err(|error| error.to_string())? {
        return read_schema(&known);
    }
    let schema = load::infer(source, format, base)?;
    let printed = print_schema(&schema);
    tracing::info!(
        stage,
        schema = printed,
        "these fields were found in the first records; from now on they hold"
    );
    store
        .set_note(&key, &printed)
        .map_err(|error| error.to_string())?;
    Ok(schema)
}

/// The version of the pipeline that has left work in the state, as the state keeps it.
fn previous(text: Text, store: &dyn StateStore) -> Result<Text, Exit> {
    match unfinished_plan(store).map_err(|error| failed(&error))? {
        Some(stored) => Ok(Text {
            name: format!("{} (as it ran)", text.name),
            text: stored,
            ..text
        }),
        None => Err(failed(&format!(
            "no earlier version of {} has left anything to finish: run it without --previous",
            text.name
        ))),
    }
}

/// The text of a plan that has lanes ahead, or else staged files.
fn unfinished_plan(store: &dyn StateStore) -> Result<Option<String>, StoreError> {
    let mut with_staged = None;
    for sink in store.sinks()? {
        let records = store.records(&sink)?;
        let ahead = records
            .iter()
            .find(|(_, record)| !record.ahead.is_empty())
            .and_then(|(_, record)| record.plan.clone());
        if let Some(plan) = ahead {
            return store.plan(&plan);
        }
        if with_staged.is_none() && !store.staged(&sink)?.is_empty() {
            with_staged = records.into_iter().find_map(|(_, record)| record.plan);
        }
    }
    with_staged.map_or(Ok(None), |plan| store.plan(&plan))
}

/// A progress line would be torn by records that are printed on the same terminal.
fn prints_to_terminal(plan: &Plan) -> bool {
    std::io::stdout().is_terminal() && plan.sinks.iter().any(|sink| sink.plugin == "stdout")
}

#[cfg(test)]
mod tests;
