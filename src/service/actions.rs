//! What the process can be told: the same over HTTP and in the REPL.

use pseidon_exec::Control;

use crate::board::{Board, Entry};

/// Something to be done with one log, or with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pause,
    Resume,
    Roll,
    Reload,
    ResetErrors,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The logs that were told.
    pub(crate) logs: Vec<String>,
    /// Those that do not run, so that nobody could be told.
    pub(crate) not_running: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownLog(String),
    NotRunning,
    NoTable,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::UnknownLog(log) => write!(f, "there is no log `{log}`; /logs names them"),
            Refusal::NotRunning => f.write_str("nothing runs that could be told"),
            Refusal::NoTable => {
                f.write_str("this pipeline has no table of logs that could be read again")
            }
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

    /// The last part of its address.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Roll => "roll",
            Action::Reload => "reload",
            Action::ResetErrors => "reset-errors",
        }
    }

    /// What it does, for those who look at the list.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Action::Pause => "read nothing more for now",
            Action::Resume => "read on",
            Action::Roll => "commit and publish what is open",
            Action::Reload => "read the table of logs again, now",
            Action::ResetErrors => "count errors from zero again",
        }
    }

    /// Does it with the log of this name, or with all.
    pub(crate) fn take(self, board: &Board, log: Option<&str>) -> Result<Done, Refusal> {
        let entries = match log {
            Some(log) => vec![
                board
                    .find(log)
                    .ok_or_else(|| Refusal::UnknownLog(log.to_owned()))?,
            ],
            None => board.entries(),
        };
        let tell = |entry: &Entry| match self {
            Action::Pause => entry.tell(Control::Pause),
            Action::Resume => entry.tell(Control::Resume),
            Action::Roll => entry.tell(Control::Roll),
            Action::Reload => true,
            Action::ResetErrors => {
                entry.reset_errors();
                true
            }
        };
        // The table is read as a whole, whichever log it is for.
        if self == Action::Reload && !board.reload() {
            return Err(Refusal::NoTable);
        }
        let (told, idle): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| tell(entry));
        if told.is_empty() && self != Action::Reload {
            return Err(Refusal::NotRunning);
        }
        let names = |entries: Vec<std::sync::Arc<Entry>>| {
            entries.iter().map(|entry| entry.name.clone()).collect()
        };
        Ok(Done {
            logs: names(told),
            not_running: names(idle),
        })
    }
}
