//! The commands of the REPL.

use std::sync::Arc;
use std::time::Instant;

use pseidon_dsl::nearest;

use super::rows::{self, RecordLines};
use super::target::{no_stage, plan_of, target};
use super::{CommandResult, split_word};
use crate::actions::Action;
use crate::counts::Counts;
use crate::runs::{RunEntry, RunRegistry};
use crate::stages::{source_of, stages};
use crate::status_pages::StatusPages;
use crate::tokens::Role;

/// The default number of rows.
const DEFAULT_ROWS: usize = 10;
/// The most rows that a command shows.
const MAX_ROWS: usize = 1000;

/// The name of the command that lists the others.
const HELP: &str = "help";

/// A command: its name, its line in the reply to `help`, and what executes it.
pub(super) struct Command {
    name: &'static str,
    arguments: &'static str,
    /// Empty for `help` itself, which is not listed.
    help: &'static str,
    pub(super) handler: Handler,
}

/// What executes a command.
pub(super) enum Handler {
    /// A function of what follows the name.
    Reply(fn(&View, &str) -> CommandResult),
    /// The same, for a command that shows records.
    ShowRecords(fn(&StatusPages, &str) -> CommandResult),
    /// An action on the log that follows the name, or on all logs.
    Act(Action),
    /// Checks the token. Executed by the session, also before authentication.
    Authenticate,
    /// Closes the connection. Executed by the session.
    Quit,
}

use Handler::{Act, Authenticate, Quit, Reply, ShowRecords};

/// What a command that shows something may show.
pub(super) struct View<'a> {
    pages: &'a StatusPages,
    /// Whether values of records are shown.
    shows_records: bool,
}

/// All commands, in the order of `help`.
static COMMANDS: [Command; 15] = [
    Command::new(HELP, "", "", Reply(|_, _| Ok(help()))),
    Command::new(
        "logs",
        "",
        "status of each log",
        Reply(|view, _| Ok(logs(view))),
    ),
    Command::new(
        "stages",
        "[LOG]",
        "stages and their columns",
        Reply(|view, name| show_stages(&view.pages.runs, name)),
    ),
    Command::new(
        "positions",
        "[LOG]",
        "durable position of each split, by sink",
        Reply(|view, name| each(&view.pages.runs, name, positions)),
    ),
    Command::new(
        "files",
        "[LOG]",
        "open and published files by stage, and each open file",
        Reply(|view, name| each(&view.pages.runs, name, files)),
    ),
    Command::new(
        "errors",
        "[LOG]",
        "invalid records by stage, problems, last invalid records",
        Reply(|view, name| {
            each(&view.pages.runs, name, |entry| {
                errors(entry, view.shows_records)
            })
        }),
    ),
    Command::new(
        "last",
        "[LOG] STAGE [N]",
        "next records through a stage, as JSON",
        ShowRecords(last),
    ),
    Command::new(
        "eval",
        "[LOG] STAGE EXPRESSION",
        "SQL expression on the next records of a stage",
        ShowRecords(eval),
    ),
    Command::new("pause", "[LOG]", "stop reading", Act(Action::Pause)),
    Command::new("resume", "[LOG]", "continue reading", Act(Action::Resume)),
    Command::new(
        "roll",
        "[LOG]",
        "commit and publish open files",
        Act(Action::Roll),
    ),
    Command::new(
        "reload",
        "",
        "read the table of logs now",
        Act(Action::Reload),
    ),
    Command::new(
        "reset",
        "[LOG]",
        "reset the error count to zero",
        Act(Action::ResetErrors),
    ),
    Command::new(
        "auth",
        "TOKEN",
        "authenticate, if a token is set",
        Authenticate,
    ),
    Command::new("quit", "", "close the connection", Quit),
];

impl Command {
    const fn new(
        name: &'static str,
        arguments: &'static str,
        help: &'static str,
        handler: Handler,
    ) -> Command {
        Command {
            name,
            arguments,
            help,
            handler,
        }
    }

    pub(super) fn named(name: &str) -> Option<&'static Command> {
        COMMANDS.iter().find(|command| command.name == name)
    }

    /// The role that is needed to execute it, if one is.
    fn role(&self) -> Option<Role> {
        match self.handler {
            Reply(_) => (self.name != HELP).then_some(Role::Read),
            ShowRecords(_) => Some(Role::Records),
            Act(_) => Some(Role::Operate),
            Authenticate | Quit => None,
        }
    }
}

/// The role that is needed to execute a line; `None` if it shows nothing of what runs.
pub(super) fn role_of(line: &str) -> Option<Role> {
    let (name, _) = split_word(line);
    Command::named(name).and_then(Command::role)
}

/// Executes a line: a command and its arguments. An empty line has no output. Without
/// `shows_records`, no values of records are shown.
pub(super) fn execute(pages: &StatusPages, line: &str, shows_records: bool) -> CommandResult {
    let (name, rest) = split_word(line);
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let view = View {
        pages,
        shows_records,
    };
    match Command::named(name).map(|command| &command.handler) {
        Some(Reply(reply)) => reply(&view, rest),
        Some(ShowRecords(reply)) => reply(pages, rest),
        Some(Act(action)) => act(&pages.runs, *action, rest),
        Some(Authenticate | Quit) | None => Err(vec![unknown(name)]),
    }
}

fn unknown(name: &str) -> String {
    match nearest(name, COMMANDS.iter().map(|command| command.name)) {
        Some(near) => format!("unknown command `{name}`; did you mean `{near}`?"),
        None => format!("unknown command `{name}`; try help"),
    }
}

fn help() -> Vec<String> {
    let listed = COMMANDS.iter().filter(|command| !command.help.is_empty());
    listed
        .map(|command| {
            let usage = format!("{} {}", command.name, command.arguments);
            format!("{usage:<30}{}", command.help)
        })
        .collect()
}

/// The entry of this name, or all entries if the name is empty.
fn entries(runs: &RunRegistry, name: &str) -> Result<Vec<Arc<RunEntry>>, Vec<String>> {
    if name.is_empty() {
        Ok(runs.entries())
    } else {
        find(runs, name).map(|entry| vec![entry])
    }
}

fn find(runs: &RunRegistry, name: &str) -> Result<Arc<RunEntry>, Vec<String>> {
    runs.find(name)
        .ok_or_else(|| vec![format!("unknown log `{name}`; try logs")])
}

/// The lines for each entry. For a template, each line starts with the name of the log.
fn each(runs: &RunRegistry, name: &str, lines: impl Fn(&RunEntry) -> Vec<String>) -> CommandResult {
    let with_name = |entry: &Arc<RunEntry>| {
        let name = if runs.is_template {
            format!("{} ", entry.name)
        } else {
            String::new()
        };
        lines(entry)
            .into_iter()
            .map(|line| format!("{name}{line}"))
            .collect::<Vec<_>>()
    };
    Ok(entries(runs, name)?.iter().flat_map(with_name).collect())
}

fn logs(view: &View) -> Vec<String> {
    let entries = view.pages.runs.entries();
    entries.iter().map(|entry| log(view, entry)).collect()
}

fn log(view: &View, entry: &RunEntry) -> String {
    let (state, counts) = (entry.state(), Counts::of(&entry.metrics));
    let rate = view.pages.rate(&entry.name).one;
    let reason = state
        .reason(view.shows_records)
        .map(|reason| format!(": {}", one_line(reason)))
        .unwrap_or_default();
    let (name, lag, errors, open) = (&entry.name, counts.lag, entry.errors(), counts.open_files);
    format!(
        "{name} {} lag={lag} rate={rate:.1} errors={errors} open-files={open}{reason}",
        state.as_str()
    )
}

fn show_stages(runs: &RunRegistry, name: &str) -> CommandResult {
    let plan = if name.is_empty() {
        runs.plan.clone()
    } else {
        plan_of(runs, &*find(runs, name)?)
    };
    Ok(stages(&plan)
        .iter()
        .map(|stage| {
            format!(
                "{}{}: {}",
                "  ".repeat(stage.depth),
                stage.name,
                one_line(&stage.description)
            )
        })
        .collect())
}

fn positions(entry: &RunEntry) -> Vec<String> {
    let of_sink = |of_sink: pseidon_exec::SinkPositions| {
        let line = |(split, position): &(pseidon_delivery::SplitId, u64)| {
            format!("{} {split} {position}", of_sink.sink)
        };
        of_sink.splits.iter().map(line).collect::<Vec<_>>()
    };
    entry
        .view
        .positions()
        .into_iter()
        .flat_map(of_sink)
        .collect()
}

fn files(entry: &RunEntry) -> Vec<String> {
    let counts = Counts::by_stage(&entry.metrics)
        .into_iter()
        .filter(|(_, counts)| counts.open_files != 0 || counts.files > 0);
    let mut lines: Vec<_> = counts
        .map(|(stage, counts)| {
            format!(
                "{stage} open={} published={}",
                counts.open_files, counts.files
            )
        })
        .collect();
    for (stage, lanes) in entry.view.open_lanes() {
        let line = |lane: &pseidon_exec::lanes::LaneStatus| {
            let age = lane.opened.elapsed().as_secs();
            format!(
                "{stage} {} bytes={} records={} seconds={age}",
                one_line(lane.lane.as_str()),
                lane.bytes,
                lane.records
            )
        };
        lines.extend(lanes.iter().map(line));
    }
    lines
}

fn errors(entry: &RunEntry, shows_records: bool) -> Vec<String> {
    let stages = Counts::by_stage(&entry.metrics)
        .into_iter()
        .filter(|(_, counts)| counts.quarantined + counts.dropped > 0);
    let mut lines: Vec<_> = stages
        .map(|(stage, counts)| {
            format!(
                "{stage} quarantined={} dropped={}",
                counts.quarantined, counts.dropped
            )
        })
        .collect();
    lines.extend(entry.state().reason(shows_records).map(one_line));
    lines.extend(
        entry
            .metrics
            .troubles(shows_records)
            .iter()
            .map(|trouble| one_line(trouble)),
    );
    let bad = entry.view.last_bad().into_iter();
    lines.extend(bad.map(|bad| {
        let reason = if shows_records {
            one_line(&bad.reason)
        } else {
            "the reason requires the role `records`".to_owned()
        };
        format!("{} {}@{}: {reason}", bad.stage, bad.split, bad.position)
    }));
    lines
}

fn last(pages: &StatusPages, text: &str) -> CommandResult {
    let target = target(&pages.runs, text)?;
    let count = match target.rest {
        "" => DEFAULT_ROWS,
        count => match count.parse() {
            Ok(count @ 1..=MAX_ROWS) => count,
            _ => {
                return Err(vec![format!(
                    "invalid count `{count}`; expected 1 to {MAX_ROWS}"
                )]);
            }
        },
    };
    let source = source_of(&target.plan, target.stage)
        .ok_or_else(|| no_stage(&target.plan, target.stage))?;
    let mut lines = RecordLines::default();
    for rows in target.rows(count)? {
        rows::show(&rows, source, pages.json, &mut lines).map_err(|reason| vec![reason])?;
    }
    Ok(lines.into_lines())
}

fn eval(pages: &StatusPages, text: &str) -> CommandResult {
    let target = target(&pages.runs, text)?;
    if target.rest.is_empty() {
        return Err(vec!["missing expression".to_owned()]);
    }
    let source = source_of(&target.plan, target.stage)
        .ok_or_else(|| no_stage(&target.plan, target.stage))?;
    // An error in the expression is reported even if there are no records.
    let expr = rows::parse(target.rest)?;
    let Some(_evaluation) = pages.evaluation.try_lock() else {
        return Err(vec![
            "another expression is being evaluated; try again".to_owned(),
        ]);
    };
    let batches = target.rows(DEFAULT_ROWS)?;
    let deadline = Instant::now() + pages.limits.evaluation;
    let mut lines = RecordLines::default();
    for rows in batches {
        rows::evaluate(&expr, &rows, source, pages.json, deadline, &mut lines)?;
    }
    Ok(lines.into_lines())
}

fn act(runs: &RunRegistry, action: Action, name: &str) -> CommandResult {
    let report = action
        .execute(runs, (!name.is_empty()).then_some(name))
        .map_err(|error| vec![error.to_string()])?;
    let done = report
        .logs
        .iter()
        .map(|log| format!("{log} {}", action.as_str()));
    Ok(done
        .chain(
            report
                .not_running
                .iter()
                .map(|log| format!("{log} is not running")),
        )
        .collect())
}

/// The lines of a text as one.
pub(super) fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
}
