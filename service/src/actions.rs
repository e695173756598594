//! Control actions, which are the same over HTTP and in the REPL.

use pseidon_exec::Control;

use crate::runs::{RunEntry, RunRegistry};

/// An action on one log, or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pause,
    Resume,
    Roll,
    Reload,
    ResetErrors,
}

/// The result of an action.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActionReport {
    /// The logs on which the action was executed.
    pub(crate) logs: Vec<String>,
    /// The logs that were skipped because they are not running.
    pub(crate) not_running: Vec<String>,
}

/// Why no action was executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ActionError {
    UnknownLog(String),
    NotRunning,
    NoTable,
}

impl std::fmt::Display for ActionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ActionError::UnknownLog(log) => write!(f, "unknown log `{log}`; see /logs"),
            ActionError::NotRunning => f.write_str("nothing is running"),
            ActionError::NoTable => f.write_str("this pipeline has no table of logs to reload"),
        }
    }
}

impl Action {
    pub(crate) const ALL: [Action; 5] = [
        Action::Pause,
        Action::Resume,
        Action::Roll,
        Action::Reload,
        Action::ResetErrors,
    ];

    /// The name of the action, which is also its path.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Roll => "roll",
            Action::Reload => "reload",
            Action::ResetErrors => "reset-errors",
        }
    }

    /// A description for the list of endpoints.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Action::Pause => "stop reading",
            Action::Resume => "continue reading",
            Action::Roll => "commit and publish open files",
            Action::Reload => "read the table of logs now",
            Action::ResetErrors => "reset the error count to zero",
        }
    }

    /// Executes the action on the log of this name, or on all logs.
    pub(crate) fn execute(
        self,
        runs: &RunRegistry,
        log: Option<&str>,
    ) -> Result<ActionReport, ActionError> {
        let entries = match log {
            Some(log) => vec![
                runs.find(log)
                    .ok_or_else(|| ActionError::UnknownLog(log.to_owned()))?,
            ],
            None => runs.entries(),
        };
        let execute_on = |entry: &RunEntry| match self {
            Action::Pause => entry.send(Control::Pause),
            Action::Resume => entry.send(Control::Resume),
            Action::Roll => entry.send(Control::Roll),
            Action::Reload => true,
            Action::ResetErrors => {
                entry.reset_errors();
                true
            }
        };
        // The whole table is read, even if a log is named.
        if self == Action::Reload && !runs.reload() {
            return Err(ActionError::NoTable);
        }
        let (done, idle): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| execute_on(entry));
        if done.is_empty() && self != Action::Reload {
            return Err(ActionError::NotRunning);
        }
        let names = |entries: Vec<std::sync::Arc<RunEntry>>| {
            entries.iter().map(|entry| entry.name.clone()).collect()
        };
        Ok(ActionReport {
            logs: names(done),
            not_running: names(idle),
        })
    }
}
