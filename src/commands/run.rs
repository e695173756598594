//! `pseidon run`: runs a pipeline, or a template with one run for each row of its table.

pub(crate) mod earlier;
mod plans;

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use indicatif::ProgressBar;
use parking_lot::Mutex;
use pseidon_delivery::{GroupCommit, StateStore, WithCauses};
use pseidon_dsl::Document;
use pseidon_exec::{Control, Finished, Pools, RunError};
use pseidon_formats::json_lines;
use pseidon_plan::{Plan, Settings};
use pseidon_plugin::format::Format;
use pseidon_plugin::options::{print_schema, read_schema};
use pseidon_plugin::source::Source;
use pseidon_service::runs::{EntryState, RunRegistry};
use pseidon_service::{Service, ServiceConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) use self::earlier::previous;
use self::plans::PlanSequence;
use crate::cli::{Exit, RunArgs};
use crate::counted::counted;
use crate::load::{self, PipelineText, TextKind, kept};
use crate::progress::ProgressDisplay;
use crate::stderr_line;
use crate::supervisor::{self, LogTemplate};
use crate::systemd::{Notifier, NotifySocket};
use crate::{core_dumps, fatal, interrupts, last_run, pipeline_file, progress, sandbox, state};

/// Runs a pipeline until it ends or is stopped. `bar` is the progress line, if there is a terminal.
pub(crate) fn run(args: &RunArgs, bar: Option<ProgressBar>) -> Exit {
    match try_run(args, bar) {
        Ok(exit) | Err(exit) => exit,
    }
}

/// Raises the limit of open files as far as the system allows: each log of a table uses some, and
/// the default limit of a shell is low.
pub(super) fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the current limit applies.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// Notifies systemd of the status of this process until the result is dropped; `None` if it was not
/// started by systemd.
fn notify(runs: &Arc<RunRegistry>) -> Result<Option<Notifier>, Exit> {
    let Some(socket) = NotifySocket::from_environment() else {
        return Ok(None);
    };
    let (alive, progressing) = (runs.clone(), runs.clone());
    let progress = move || progress::progress(&progressing);
    Notifier::start(&socket, move || alive.is_alive(), progress)
        .map(Some)
        .map_err(|error| failed(&error))
}

/// Appends the reason why the process exits to the file of `:fatal-errors`, if it is set.
fn append_fatal(plan: &Plan, reason: &dyn std::fmt::Display) {
    if let Some(path) = &plan.settings.fatal_errors {
        fatal::append(&plan.base.join(path), &plan.name, &reason.to_string());
    }
}

/// Appends unhandled panics to the file of `:fatal-errors`, if it is set.
fn append_panics(plan: &Plan) {
    if let Some(path) = &plan.settings.fatal_errors {
        fatal::append_panics(plan.base.join(path), plan.name.clone());
    }
}

fn try_run(args: &RunArgs, bar: Option<ProgressBar>) -> Result<Exit, Exit> {
    raise_open_file_limit();
    if !args.allow_debugging {
        core_dumps::forbid();
    }
    let text = load::text(&args.from)?;
    let document = text.document()?;
    outlive_hangups(&document, &text.base)?;
    // The state of `-e` is temporary: its folder is removed when this function returns.
    let temporary = (text.kind == TextKind::Flow)
        .then(tempfile::tempdir)
        .transpose()
        .map_err(|error| failed(&error))?;
    let state_folder = temporary.as_ref().map_or_else(
        || state::folder(&text.base),
        |folder| folder.path().to_owned(),
    );
    sandbox::enter(&document, &text.base, &state_folder)?;
    if load::is_template(&document) {
        return run_template(args, bar, text, &document, &state_folder);
    }
    run_pipeline(args, bar, text, &document, &state_folder)
}

/// From now on SIGHUP does not end a process whose service has files that it will read again: it may
/// wait for the state for long. What is wrong with the settings is reported when the pipeline is
/// planned.
fn outlive_hangups(document: &Document, base: &Path) -> Result<(), Exit> {
    let Ok(settings) = Settings::from_document(document) else {
        return Ok(());
    };
    // Whatever the path of a socket is.
    match ServiceConfig::of(&settings, base, PathBuf::new()).has_files() {
        true => interrupts::outlive_hangups().map_err(|error| failed(&error)),
        false => Ok(()),
    }
}

/// Starts the service, if the plan has a port or a socket for it. Its files are read again on
/// SIGHUP; without such files, SIGHUP ends the process, as it does when a terminal is closed.
fn serve(plan: &Plan, runs: &Arc<RunRegistry>, state_folder: &Path) -> Result<Service, Exit> {
    let socket = state_folder.join(format!("{}.sock", plan.name));
    let config = ServiceConfig::of(&plan.settings, &plan.base, socket);
    let service = pseidon_service::serve(&config, runs.clone(), json_lines)
        .map_err(|error| failed(&WithCauses(&error)))?;
    if let Some(files) = service.files() {
        interrupts::on_hangup(move || files.reload()).map_err(|error| failed(&error))?;
    }
    Ok(service)
}

/// How a run is observed and controlled while this is alive: by the service, signals, the progress
/// line, systemd and the file of `:fatal-errors`.
struct Interfaces {
    control: Sender<Control>,
    controls: Receiver<Control>,
    _service: Service,
    _display: Option<ProgressDisplay>,
    _notifier: Option<Notifier>,
}

impl Interfaces {
    /// Starts them. `bar` is the progress line, if there is a terminal.
    fn start(
        plan: &Plan,
        runs: &Arc<RunRegistry>,
        bar: Option<ProgressBar>,
        state_folder: &Path,
    ) -> Result<Interfaces, Exit> {
        append_panics(plan);
        let service = serve(plan, runs, state_folder)?;
        let (control, controls) =
            interrupts::listen(plan.settings.shutdown_grace).map_err(|error| failed(&error))?;
        Ok(Interfaces {
            control,
            controls,
            _service: service,
            _display: bar
                .filter(|_| !prints_records(plan))
                .map(|bar| ProgressDisplay::start(bar, runs)),
            _notifier: notify(runs)?,
        })
    }
}

/// Opens the state of a plan.
pub(super) fn open_state(plan: &Plan, folder: &Path) -> Result<Arc<GroupCommit>, Exit> {
    state::open(plan, folder).map_err(|error| failed(&WithCauses(&error)))
}

/// Starts the threads of a plan.
pub(super) fn start_pools(plan: &Plan) -> Result<Arc<Pools>, Exit> {
    Pools::start(&plan.settings)
        .map(Arc::new)
        .map_err(|error| failed(&error))
}

/// Runs one pipeline, which is not a template.
fn run_pipeline(
    args: &RunArgs,
    bar: Option<ProgressBar>,
    text: PipelineText,
    document: &Document,
    state_folder: &Path,
) -> Result<Exit, Exit> {
    let opened = text.plan(document)?;
    let store = open_state(&opened, state_folder)?;
    if text.kind != TextKind::Flow {
        pipeline_file::note_start(&opened, &*store, Path::new(&text.name));
    }
    let previous = match args.previous {
        true => Some(previous(&text, store.as_ref())?),
        false => None,
    };
    let text = previous
        .as_ref()
        .map_or(text, |earlier| earlier.text.clone());
    // The pipeline is planned again now that the state is open: it holds the schemas that were
    // inferred by an earlier run, and a restart must use the same types.
    let infer = |stage: &str, source: &dyn Source, format: &dyn Format| {
        infer_once(stage, source, format, &text.base, store.as_ref())
    };
    let plan = Arc::new(text.plan_with(&text.document()?, &infer)?);
    if let Some(previous) = &previous {
        previous.check(&plan, &opened)?;
    }
    let pools = start_pools(&plan)?;
    let runs = Arc::new(RunRegistry::new(plan.clone(), pools.clone(), None));
    let entry = runs.entry(&plan.name);
    let interfaces = Interfaces::start(&plan, &runs, bar, state_folder)?;
    tracing::debug!(
        pipeline = plan.name,
        fingerprint = plan.fingerprint,
        "starting"
    );
    entry.set_state(EntryState::Running);
    let outcome = PlanSequence {
        text: &text,
        store: &store,
        pools: &pools,
        entry: &entry,
        interfaces: &interfaces,
        accept_changed_plan: args.accept_changed_plan,
        replaced: RefCell::default(),
        was_open: Cell::new(false),
    }
    .run(plan.clone());
    drop(interfaces);
    let has_read_all = matches!(outcome, Ok(Finished::Complete));
    let exit = report(outcome, &plan, ("run", &text.name), &runs);
    let place = state::place(&plan, state_folder);
    let records = progress::records_read(&runs);
    if has_read_all || records > 0 {
        let said = last_run::note_end(&plan, &*store, records, (&place, &text.name));
        said.iter().for_each(|said| progress::say(said));
    }
    Ok(exit)
}

/// Prints the summary of a pipeline's run, and its error if it failed. The help names the command
/// and the pipeline file.
pub(super) fn report(
    outcome: Result<Finished, RunError>,
    plan: &Plan,
    (command, file): (&str, &str),
    runs: &RunRegistry,
) -> Exit {
    match outcome {
        Ok(finished) => {
            let (how, exit) = match finished {
                Finished::Complete | Finished::CaughtUp => ("done", Exit::Done),
                Finished::Stopped | Finished::Reloading => ("stopped", Exit::Done),
                Finished::Left => ("exited before everything was committed", Exit::Failed),
            };
            progress::summary(runs, how);
            checked(exit, runs)
        }
        Err(error) => {
            append_fatal(plan, &WithCauses(&error));
            let exit = failed(&WithCauses(&error));
            if let RunError::PlanChanged(_) = error {
                if command != "run" {
                    stderr_line!(
                        "  help: finish that run with its own version: pseidon {command} --previous {file}"
                    );
                }
                stderr_line!(
                    "  help: to start this version anyway: pseidon {command} --accept-changed-plan {file}"
                );
            }
            progress::summary(runs, "failed");
            exit
        }
    }
}

/// Runs a template: one run for each row of its table.
fn run_template(
    args: &RunArgs,
    bar: Option<ProgressBar>,
    text: PipelineText,
    document: &Document,
    state_folder: &Path,
) -> Result<Exit, Exit> {
    if args.previous {
        return Err(failed(
            &"--previous does not apply to a template: \
              a log that crashed is finished with its own version automatically",
        ));
    }
    let (plan, settings) = text.template(document)?;
    let plan = Arc::new(plan);
    let store = open_state(&plan, state_folder)?;
    for weakness in store
        .weaknesses()
        .map_err(|error| failed(&WithCauses(&error)))?
    {
        tracing::warn!(
            "the configuration of the state store does not guarantee exactly-once: {weakness}"
        );
    }
    let (reload, reloads) = bounded(1);
    let pools = start_pools(&plan)?;
    let runs = Arc::new(RunRegistry::new(plan.clone(), pools, Some(reload)));
    let interfaces = Interfaces::start(&plan, &runs, bar, state_folder)?;
    let template = LogTemplate {
        text,
        plan: plan.clone(),
        settings: Arc::new(settings),
        store,
        accept_changed_plan: args.accept_changed_plan,
        tables: Mutex::new(kept::tables_of(&plan, |_| true)),
    };
    let outcome = supervisor::run(template, runs.clone(), &interfaces.controls, &reloads);
    drop(interfaces);
    let (how, exit) = match outcome {
        Ok(true) => ("stopped", Exit::Done),
        Ok(false) => ("exited before everything was committed", Exit::Failed),
        Err(reason) => {
            append_fatal(&plan, &WithCauses(&reason));
            ("failed", failed(&WithCauses(&reason)))
        }
    };
    progress::summary(&runs, how);
    Ok(checked(exit, &runs))
}

/// The exit code of a run that would have this one, if all its files are in their places and not
/// too many records were invalid.
fn checked(exit: Exit, runs: &RunRegistry) -> Exit {
    let entries = runs.entries();
    let misplaced: u64 = entries
        .iter()
        .map(|entry| entry.metrics.misplaced_files())
        .sum();
    if matches!(exit, Exit::Done) && misplaced > 0 {
        let files = counted(misplaced, "committed file");
        return failed(&format!(
            "{files} could not be brought to the place where readers look, for the reasons in the \
             log; the next run tries again"
        ));
    }
    let too_many = progress::too_many_invalid(runs);
    match (exit, too_many) {
        (Exit::Done, Some(reason)) => {
            stderr_line!("error: {reason}");
            Exit::ManyInvalid
        }
        (exit, _) => exit,
    }
}

/// Prints an error, and returns the exit code for it.
pub(super) fn failed(error: &dyn std::fmt::Display) -> Exit {
    stderr_line!("error: {error}");
    Exit::Failed
}

/// The schema that `:schema :infer` found when the stage ran for the first time. It is kept in the
/// state.
fn infer_once(
    stage: &str,
    source: &dyn Source,
    format: &dyn Format,
    base: &Path,
    store: &dyn StateStore,
) -> Result<SchemaRef, String> {
    if let Some(known) = inferred(stage, store)? {
        return Ok(known);
    }
    let schema = load::infer(source, format, base)?;
    let printed = print_schema(&schema);
    tracing::info!(
        stage,
        schema = printed,
        "inferred the schema from the first records; later runs use it too"
    );
    store
        .set_note(&schema_note(stage), &printed)
        .map_err(|error| WithCauses(&error).to_string())?;
    Ok(schema)
}

/// The schema that was inferred for the stage when it ran for the first time, if it was.
pub(super) fn inferred(stage: &str, store: &dyn StateStore) -> Result<Option<SchemaRef>, String> {
    let known = store.note(&schema_note(stage));
    let known = known.map_err(|error| WithCauses(&error).to_string())?;
    known.map(|known| read_schema(&known)).transpose()
}

/// The name of the note with the inferred schema of a stage.
fn schema_note(stage: &str) -> String {
    format!("schema:{stage}")
}

/// Whether records are printed where the progress line is, or may be: on a terminal, or into a pipe
/// whose reader prints them.
pub(super) fn prints_records(plan: &Plan) -> bool {
    let is_file = || {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok::<bool, std::io::Error>(std::fs::File::from(stdout).metadata()?.is_file())
    };
    plan.sinks
        .iter()
        .any(|sink| sink.prepared.writes_to_stdout())
        && !is_file().unwrap_or(false)
}

#[cfg(test)]
mod tests;
