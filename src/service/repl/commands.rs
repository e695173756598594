//! What can be said in the REPL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_dsl::nearest;
use pseidon_plan::Plan;
use pseidon_plugin::rows::Rows;

use super::super::actions::Action;
use super::super::counts::Counts;
use super::super::stages::{source_of, stages};
use super::super::watched::Watched;
use super::rows;
use crate::board::{Board, Entry};

/// How long to wait for records, all together.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many rows are looked at when nobody says how many.
const ROWS: usize = 10;
/// The most rows that are shown at once.
const MAX_ROWS: usize = 1000;

const HELP: [&str; 14] = [
    "logs                          how each log is",
    "stages [LOG]                  the stages and their columns",
    "positions [LOG]               where each sink stands: everything below is durable",
    "files [LOG]                   open and published files by stage, and each file that is open",
    "errors [LOG]                  bad records by stage, what is wrong, and the last bad records",
    "last [LOG] STAGE [N]          the next records through a stage, as JSON",
    "eval [LOG] STAGE EXPRESSION   an SQL expression on the next records of a stage",
    "pause [LOG]                   read nothing more for now",
    "resume [LOG]                  read on",
    "roll [LOG]                    commit and publish what is open",
    "reload                        read the table of logs again, now",
    "reset [LOG]                   count errors from zero again",
    "auth TOKEN                    say who you are, where a token is set",
    "quit                          end this connection",
];

/// The words of [`HELP`].
const WORDS: [&str; 15] = [
    "help",
    "logs",
    "stages",
    "positions",
    "files",
    "errors",
    "last",
    "eval",
    "pause",
    "resume",
    "roll",
    "reload",
    "reset",
    "auth",
    "quit",
];

/// Lines, or reasons why there are none.
pub(super) type Lines = Result<Vec<String>, Vec<String>>;

/// The answer to a line.
pub(super) fn answer(watched: &Watched, line: &str) -> Lines {
    let (command, rest) = word(line);
    let board = &watched.board;
    match command {
        "" => Ok(Vec::new()),
        "help" => Ok(HELP.map(str::to_owned).to_vec()),
        "logs" => Ok(board
            .entries()
            .iter()
            .map(|entry| log(watched, entry))
            .collect()),
        "stages" => show_stages(board, rest),
        "positions" => each(board, rest, positions),
        "files" => each(board, rest, files),
        "errors" => each(board, rest, errors),
        "last" => last(board, rest),
        "eval" => eval(board, rest),
        "pause" => act(board, Action::Pause, rest),
        "resume" => act(board, Action::Resume, rest),
        "roll" => act(board, Action::Roll, rest),
        "reload" => act(board, Action::Reload, rest),
        "reset" => act(board, Action::ResetErrors, rest),
        unknown => Err(vec![match nearest(unknown, WORDS) {
            Some(near) => format!("`{unknown}` is not known here; did you mean `{near}`?"),
            None => format!("`{unknown}` is not known here; say help"),
        }]),
    }
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// The log of this name; all where the name is empty.
fn entries(board: &Board, name: &str) -> Result<Vec<Arc<Entry>>, Vec<String>> {
    if name.is_empty() {
        Ok(board.entries())
    } else {
        find(board, name).map(|entry| vec![entry])
    }
}

fn find(board: &Board, name: &str) -> Result<Arc<Entry>, Vec<String>> {
    board
        .find(name)
        .ok_or_else(|| vec![format!("there is no log `{name}`; say logs")])
}

/// The only entry there is, if nobody says which.
fn only(board: &Board) -> Result<Arc<Entry>, Vec<String>> {
    match board.entries().as_slice() {
        [entry] => Ok(entry.clone()),
        [] => Err(vec!["nothing has been started yet".to_owned()]),
        _ => Err(vec![
            "there are several logs: name one before the stage".to_owned(),
        ]),
    }
}

/// The plan by which it runs; where it does not, the plan by which most do.
fn plan_of(board: &Board, entry: &Entry) -> Arc<Plan> {
    entry
        .live()
        .map_or_else(|| board.plan.clone(), |live| live.plan)
}

fn each(board: &Board, name: &str, lines: impl Fn(&Entry) -> Vec<String>) -> Lines {
    let with_name = |entry: &Arc<Entry>| {
        let name = if board.is_template {
            format!("{} ", entry.name)
        } else {
            String::new()
        };
        lines(entry)
            .into_iter()
            .map(|line| format!("{name}{line}"))
            .collect::<Vec<_>>()
    };
    Ok(entries(board, name)?.iter().flat_map(with_name).collect())
}

fn log(watched: &Watched, entry: &Entry) -> String {
    let (state, counts) = (entry.state(), Counts::of(&entry.metrics));
    let rate = watched.rate(&entry.name).one;
    let reason = state
        .reason()
        .map(|reason| format!(": {}", one_line(reason)))
        .unwrap_or_default();
    let (name, lag, errors, open) = (&entry.name, counts.lag, entry.errors(), counts.open_files);
    format!(
        "{name} {} lag={lag} rate={rate:.1} errors={errors} open-files={open}{reason}",
        state.word()
    )
}

fn show_stages(board: &Board, name: &str) -> Lines {
    let plan = if name.is_empty() {
        board.plan.clone()
    } else {
        plan_of(board, &*find(board, name)?)
    };
    Ok(stages(&plan)
        .iter()
        .map(|stage| {
            format!(
                "{}{}: {}",
                "  ".repeat(stage.depth),
                stage.name,
                one_line(&stage.what)
            )
        })
        .collect())
}

fn positions(entry: &Entry) -> Vec<String> {
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

fn files(entry: &Entry) -> Vec<String> {
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
        let line = |lane: &pseidon_exec::lanes::ShownLane| {
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

fn errors(entry: &Entry) -> Vec<String> {
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
    lines.extend(entry.state().reason().map(one_line));
    lines.extend(
        entry
            .metrics
            .troubles()
            .iter()
            .map(|trouble| one_line(trouble)),
    );
    let bad = entry.view.last_bad().into_iter();
    lines.extend(bad.map(|bad| {
        format!(
            "{} {}@{}: {}",
            bad.stage,
            bad.split,
            bad.position,
            one_line(&bad.reason)
        )
    }));
    lines
}

/// A stage of a log, and what else was said.
struct Target<'a> {
    entry: Arc<Entry>,
    plan: Arc<Plan>,
    stage: &'a str,
    rest: &'a str,
}

/// Reads `[LOG] STAGE …`. The log may be left out where there is only one.
fn target<'a>(board: &Board, text: &'a str) -> Result<Target<'a>, Vec<String>> {
    let (first, rest) = word(text);
    if first.is_empty() {
        return Err(vec!["a stage is missing; say stages".to_owned()]);
    }
    let named = board.find(first).map(|entry| {
        let (stage, rest) = word(rest);
        let plan = plan_of(board, &entry);
        if source_of(&plan, stage).is_some() {
            Ok(Target {
                entry,
                plan,
                stage,
                rest,
            })
        } else {
            Err(no_stage(&plan, stage))
        }
    });
    if let Some(Ok(target)) = named {
        return Ok(target);
    }
    let entry = match (only(board), named) {
        (Err(_), Some(Err(reason))) => return Err(reason),
        (only, _) => only?,
    };
    let plan = plan_of(board, &entry);
    if source_of(&plan, first).is_none() {
        return Err(no_stage(&plan, first));
    }
    Ok(Target {
        entry,
        plan,
        stage: first,
        rest,
    })
}

fn no_stage(plan: &Plan, stage: &str) -> Vec<String> {
    let stages = stages(plan);
    vec![
        match nearest(stage, stages.iter().map(|stage| stage.name.as_str())) {
            Some(near) => format!("there is no stage `{stage}`; did you mean `{near}`?"),
            None => format!("there is no stage `{stage}`; say stages"),
        },
    ]
}

impl Target<'_> {
    /// Rows as they come, batch by batch, until there are so many or patience is lost; at least one
    /// batch.
    fn rows(&self, count: usize) -> Result<Vec<Rows>, Vec<String>> {
        if self.entry.live().is_none() {
            return Err(vec![format!("`{}` does not run", self.entry.name)]);
        }
        let deadline = Instant::now() + PATIENCE;
        let (mut batches, mut missing) = (Vec::new(), count);
        while missing > 0
            && let Some(rows) = self.entry.view.rows(
                self.stage,
                missing,
                deadline.saturating_duration_since(Instant::now()),
            )
        {
            missing -= rows.len().min(missing);
            batches.push(rows);
        }
        if batches.is_empty() {
            return Err(vec![format!(
                "no record came through `{}` within {} s",
                self.stage,
                PATIENCE.as_secs()
            )]);
        }
        Ok(batches)
    }
}

fn last(board: &Board, text: &str) -> Lines {
    let target = target(board, text)?;
    let count = match target.rest {
        "" => ROWS,
        count => match count.parse() {
            Ok(count @ 1..=MAX_ROWS) => count,
            _ => {
                return Err(vec![format!(
                    "`{count}` is not a number from 1 to {MAX_ROWS}"
                )]);
            }
        },
    };
    let source = source_of(&target.plan, target.stage)
        .ok_or_else(|| no_stage(&target.plan, target.stage))?;
    let mut lines = Vec::new();
    for rows in target.rows(count)? {
        lines.extend(rows::lines(&rows, source).map_err(|reason| vec![reason])?);
    }
    Ok(lines)
}

fn eval(board: &Board, text: &str) -> Lines {
    let target = target(board, text)?;
    if target.rest.is_empty() {
        return Err(vec!["an expression is missing".to_owned()]);
    }
    let source = source_of(&target.plan, target.stage)
        .ok_or_else(|| no_stage(&target.plan, target.stage))?;
    // A mistake in the expression is told at once, whether or not records come.
    let expr = rows::parse(target.rest)?;
    let mut lines = Vec::new();
    for rows in target.rows(ROWS)? {
        lines.extend(rows::evaluate(&expr, &rows, source)?);
    }
    Ok(lines)
}

fn act(board: &Board, action: Action, name: &str) -> Lines {
    let done = action
        .take(board, (!name.is_empty()).then_some(name))
        .map_err(|refusal| vec![refusal.to_string()])?;
    let told = done
        .logs
        .iter()
        .map(|log| format!("{log} {}", action.word()));
    Ok(told
        .chain(
            done.not_running
                .iter()
                .map(|log| format!("{log} does not run")),
        )
        .collect())
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
}
