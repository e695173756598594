//! The thread that asks the table, so that nobody else waits for MySQL.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pseidon_logs::Settings;
use pseidon_mysql::{LogRow, LogTable, TableError};

/// What it is asked beside reading the table now and then.
pub(super) enum Asked {
    /// To read it now.
    Read,
    /// To switch this log off.
    SwitchOff(String),
}

/// What it tells.
pub(super) enum Told {
    /// What the table holds.
    Rows(Result<Vec<LogRow>, TableError>),
    /// What became of switching a log off.
    SwitchedOff(String, Result<(), TableError>),
}

/// Starts it. It ends when nobody asks any more.
pub(super) fn start(settings: &Settings) -> Result<(Sender<Asked>, Receiver<Told>), String> {
    let table = LogTable::new(&settings.table).map_err(|error| error.to_string())?;
    let refresh = settings.refresh;
    let (ask, asked) = unbounded();
    let (tell, told) = unbounded();
    let work = move || {
        let mut refused: Vec<String> = Vec::new();
        loop {
            // Those that could not be switched off before are tried again first: what is read then
            // is what holds.
            for log in std::mem::take(&mut refused) {
                switch_off(&table, log, &tell, &mut refused);
            }
            if tell.send(Told::Rows(table.rows())).is_err() {
                return;
            }
            match asked.recv_timeout(refresh) {
                Ok(Asked::Read) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Asked::SwitchOff(log)) => switch_off(&table, log, &tell, &mut refused),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    std::thread::Builder::new()
        .name("log-table".to_owned())
        .spawn(work)
        .map(|_| (ask, told))
        .map_err(|error| format!("cannot start a thread: {error}"))
}

fn switch_off(table: &LogTable, log: String, tell: &Sender<Told>, refused: &mut Vec<String>) {
    let outcome = table.switch_off(&log);
    if outcome.is_err() {
        refused.push(log.clone());
    }
    // Whoever asked may have gone; that is seen at the next reading.
    let _ = tell.send(Told::SwitchedOff(log, outcome));
}
