//! The way to a server: one connection, which is made anew when it breaks, behind a blocking face
//! with time limits.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, Opts, ServerError, Value};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::address;

/// How long making a connection may take, with the login.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a statement may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// Why a statement was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The server cannot be reached or cannot answer now. It passes by itself, or when somebody has
    /// looked after the server.
    #[error("{0}")]
    Unreachable(String),
    /// It will not work until a setting, a privilege or the table is changed.
    #[error("{0}")]
    Refused(String),
}

/// One row of an answer: the columns by their names in lower case, as text. NULL is `None`.
pub type Row = BTreeMap<String, Option<String>>;

/// One server and, unless the URL named none, one database on it. Its methods block, so they must
/// not be called from async code.
pub struct Database {
    opts: Opts,
    place: String,
    runtime: Runtime,
    connection: Mutex<Option<Conn>>,
}

/// What went wrong with a statement or with making a connection.
enum Failure {
    Client(Error),
    TooLong(&'static str, Duration),
}

impl Database {
    /// Reads the URL (`mysql://HOST:PORT/DATABASE` or a JDBC form of it); `user` and `password` win
    /// over those in it. Connects later.
    ///
    /// # Errors
    ///
    /// [`TableError::Refused`] when the URL is wrong. The message does not repeat it.
    pub fn new(
        url: &str,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Database, TableError> {
        let address = address::parse(url, user, password).map_err(TableError::Refused)?;
        for parameter in &address.ignored {
            tracing::warn!(
                database = address.place,
                "connections to mysql are not encrypted: {parameter} is ignored"
            );
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                TableError::Refused(format!(
                    "mysql {}: no runtime for the connection: {error}",
                    address.place
                ))
            })?;
        Ok(Database {
            opts: address.opts,
            place: address.place,
            runtime,
            connection: Mutex::new(None),
        })
    }

    /// The name of the database that the URL names.
    pub fn name(&self) -> Option<&str> {
        self.opts.db_name()
    }

    /// Executes one statement, whose `?` are bound to `parameters`, and returns the rows that it
    /// gives. A kept connection that has broken is replaced and the statement sent again, so it
    /// must be one that may be executed twice. Takes up to ten seconds, fifteen when a kept
    /// connection has to be replaced.
    ///
    /// Binary values that are not UTF-8 have U+FFFD for what is not.
    ///
    /// # Errors
    ///
    /// What the server says, or why there is no answer from it; the message names host, port and
    /// database.
    pub fn execute(&self, statement: &str, parameters: &[&str]) -> Result<Vec<Row>, TableError> {
        let mut kept = self.connection.lock();
        self.runtime
            .block_on(self.ask(&mut kept, statement, parameters))
            .map_err(|failure| failure.classified(&self.place))
    }

    async fn ask(
        &self,
        kept: &mut Option<Conn>,
        statement: &str,
        parameters: &[&str],
    ) -> Result<Vec<Row>, Failure> {
        if let Some(mut connection) = kept.take() {
            match run(&mut connection, statement, parameters).await {
                // It may have broken long ago, unnoticed.
                Err(Failure::Client(error)) if passes(&error) => {}
                answer => return self.keep_after(answer, connection, kept),
            }
        }
        let mut connection =
            limited("connecting", CONNECT_LIMIT, Conn::new(self.opts.clone())).await?;
        let answer = run(&mut connection, statement, parameters).await;
        self.keep_after(answer, connection, kept)
    }

    /// Keeps the connection for the next statement, unless the answer says that it may not be
    /// usable.
    fn keep_after<T>(
        &self,
        answer: Result<T, Failure>,
        connection: Conn,
        kept: &mut Option<Conn>,
    ) -> Result<T, Failure> {
        let usable = match &answer {
            Ok(_) => true,
            Err(Failure::Client(error)) => matches!(error, Error::Server(_)) && !passes(error),
            Err(Failure::TooLong(..)) => false,
        };
        if usable {
            *kept = Some(connection);
        }
        answer
    }
}

async fn run(
    connection: &mut Conn,
    statement: &str,
    parameters: &[&str],
) -> Result<Vec<Row>, Failure> {
    let parameters: Vec<Value> = parameters.iter().map(Value::from).collect();
    let rows: Vec<mysql_async::Row> = limited(
        "a statement",
        STATEMENT_LIMIT,
        connection.exec(statement, parameters),
    )
    .await?;
    Ok(rows.iter().map(texts).collect())
}

async fn limited<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(Failure::Client),
        Err(_) => Err(Failure::TooLong(what, limit)),
    }
}

fn texts(row: &mysql_async::Row) -> Row {
    let columns = row.columns_ref().iter().enumerate();
    columns
        .map(|(index, column)| {
            (
                column.name_str().to_lowercase(),
                row.as_ref(index).and_then(text),
            )
        })
        .collect()
}

/// A value as MySQL prints it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        // A number or, in quotes, a time.
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// Servers' errors that pass by themselves, or when somebody has looked after the server: too many
/// connections (1040, 1129, 1203, 1226), a full disk (1021), a shutdown (1053, 1079, 1080, 1927,
/// 4031), trouble with the network (1152 to 1161), a table that needs its repair after a crash
/// (1030, 1034, 1035, 1194, 1195), locks (1205, 1213), and statements that were stopped (1317,
/// 1969, 3024).
const PASSING: [u16; 30] = [
    1021, 1030, 1034, 1035, 1040, 1053, 1079, 1080, 1129, 1152, 1153, 1154, 1155, 1156, 1157, 1158,
    1159, 1160, 1161, 1194, 1195, 1203, 1205, 1213, 1226, 1317, 1927, 1969, 3024, 4031,
];

fn passes(error: &Error) -> bool {
    match error {
        Error::Server(ServerError { code, .. }) => PASSING.contains(code),
        Error::Driver(error) => !matches!(
            error,
            DriverError::UnknownAuthPlugin { .. }
                | DriverError::MysqlOldPasswordDisabled
                | DriverError::CleartextPluginDisabled
                | DriverError::NoClientSslFlagFromServer
                | DriverError::StmtParamsMismatch { .. }
        ),
        Error::Io(_) | Error::Other(_) => true,
        Error::Url(_) => false,
    }
}

impl Failure {
    fn classified(self, place: &str) -> TableError {
        let error = match self {
            Failure::TooLong(what, limit) => {
                return TableError::Unreachable(format!(
                    "mysql {place}: {what} took more than {} s",
                    limit.as_secs()
                ));
            }
            Failure::Client(error) => error,
        };
        let text = match &error {
            Error::Server(server) => {
                format!("mysql {place}: {} (error {})", server.message, server.code)
            }
            Error::Io(io) => format!("mysql {place}: {io}"),
            Error::Driver(driver) => format!("mysql {place}: {driver}"),
            other => format!("mysql {place}: {other}"),
        };
        if passes(&error) {
            TableError::Unreachable(text)
        } else {
            TableError::Refused(text)
        }
    }
}
