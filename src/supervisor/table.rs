//! The thread that queries the table of logs, so that the supervisor never waits for MySQL.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pseidon_delivery::Reason;
use pseidon_logs::LogsSettings;
use pseidon_mysql::{LogRow, LogTable, TableError};

/// A request of the supervisor. Without requests, the table is read at the refresh interval.
pub(super) enum TableRequest {
    /// Read the table now.
    Read,
    /// Disable this log in the table. It is retried until it succeeds.
    SwitchOff(String),
}

/// A result for the supervisor.
pub(super) enum TableEvent {
    /// The enabled rows of the table.
    Rows(Result<Vec<LogRow>, TableError>),
    /// The result of one attempt to disable this log.
    SwitchedOff(String, Result<(), TableError>),
}

/// Starts the thread. It stops when the sender of requests or the receiver of events is dropped.
pub(super) fn start(
    settings: &LogsSettings,
) -> Result<(Sender<TableRequest>, Receiver<TableEvent>), Reason> {
    let table = LogTable::new(&settings.table).map_err(Reason::of)?;
    let refresh = settings.refresh;
    let (requester, requests) = unbounded();
    let (sender, events) = unbounded();
    let work = move || {
        let mut pending: Vec<String> = Vec::new();
        loop {
            // Logs that could not be switched off are retried before the table is read, so that the
            // rows are up to date.
            for log in std::mem::take(&mut pending) {
                switch_off(&table, log, &sender, &mut pending);
            }
            if sender.send(TableEvent::Rows(table.rows())).is_err() {
                return;
            }
            match requests.recv_timeout(refresh) {
                Ok(TableRequest::Read) | Err(RecvTimeoutError::Timeout) => {}
                Ok(TableRequest::SwitchOff(log)) => switch_off(&table, log, &sender, &mut pending),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    std::thread::Builder::new()
        .name("log-table".to_owned())
        .spawn(work)
        .map(|_| (requester, events))
        .map_err(|error| Reason::caused_by("cannot start a thread", error))
}

fn switch_off(
    table: &LogTable,
    log: String,
    sender: &Sender<TableEvent>,
    pending: &mut Vec<String>,
) {
    let outcome = table.switch_off(&log);
    if outcome.is_err() {
        pending.push(log.clone());
    }
    // If the supervisor is gone, the next send of rows fails and stops the thread.
    let _ = sender.send(TableEvent::SwitchedOff(log, outcome));
}
