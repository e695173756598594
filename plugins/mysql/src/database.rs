//! A blocking client with timeouts, which keeps one connection and reopens it when it breaks.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{
    Conn, DriverError, Error, IoError, Opts, OptsBuilder, ServerError, SslOpts, Value,
};
use parking_lot::Mutex;
use pseidon_delivery::Reason;
use pseidon_plugin::unchecked::{CERTIFICATE, warn_unchecked};
use tokio::runtime::{Builder, Runtime};

use crate::address;
use crate::ssl_mode::SslMode;

/// The timeout of opening a connection, including the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a statement failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TableError {
    /// The server cannot be reached or cannot answer now. A retry may succeed, possibly only after
    /// maintenance of the server.
    #[error(transparent)]
    Unreachable(Reason),
    /// The statement fails until a setting, a privilege or the table is changed.
    #[error(transparent)]
    Refused(Reason),
}

/// One row of a result: the columns by their names in lower case, as strings. NULL is `None`.
pub type Row = BTreeMap<String, Option<String>>;

/// One server and, unless the URL named none, one database on it. Its methods block, so they must
/// not be called from async code.
pub struct Database {
    opts: Opts,
    /// The options without TLS, if the server may have none.
    plain: Option<Opts>,
    place: String,
    runtime: Runtime,
    connection: Mutex<Option<Conn>>,
}

/// The error of a statement or of opening a connection.
enum StatementError {
    Client(Error),
    TooLong(&'static str, Duration),
}

impl Database {
    /// Parses the URL (`mysql://HOST:PORT/DATABASE` or a JDBC form of it); `user` and `password`
    /// override those in it. Connects with the first statement.
    ///
    /// # Errors
    ///
    /// [`TableError::Refused`] if the URL is invalid. The message does not repeat it.
    pub fn new(
        url: &str,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Database, TableError> {
        let address = address::parse(url, user, password)
            .map_err(|reason| TableError::Refused(reason.into()))?;
        let mode = address.encryption.mode;
        if mode != SslMode::Disabled && !address.encryption.checks_certificate() {
            warn_unchecked(&address.place, "sslMode or useSSL", CERTIFICATE);
        }
        let without_tls = || OptsBuilder::from_opts(address.opts.clone()).ssl_opts(None::<SslOpts>);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                let what = format!(
                    "mysql {}: cannot start a runtime for the connection",
                    address.place
                );
                TableError::Refused(Reason::caused_by(what, error))
            })?;
        Ok(Database {
            plain: (mode == SslMode::Preferred).then(|| without_tls().into()),
            opts: address.opts,
            place: address.place,
            runtime,
            connection: Mutex::new(None),
        })
    }

    /// The database of the URL, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.opts.db_name()
    }

    /// Executes one statement, with `parameters` bound to its `?`, and returns its rows. If the
    /// cached connection has broken, it is replaced and the statement is sent again, so the
    /// statement must be safe to repeat. Takes up to ten seconds, or fifteen if the connection is
    /// replaced.
    ///
    /// Binary values are decoded as UTF-8, with U+FFFD for invalid bytes.
    ///
    /// # Errors
    ///
    /// The server's error, or why there is no answer; the message names host, port and database.
    pub fn execute(&self, statement: &str, parameters: &[&str]) -> Result<Vec<Row>, TableError> {
        let mut cached = self.connection.lock();
        self.runtime
            .block_on(self.execute_on(&mut cached, statement, parameters))
            .map_err(|failure| failure.classified(&self.place))
    }

    async fn execute_on(
        &self,
        cached: &mut Option<Conn>,
        statement: &str,
        parameters: &[&str],
    ) -> Result<Vec<Row>, StatementError> {
        if let Some(mut connection) = cached.take() {
            match run(&mut connection, statement, parameters).await {
                // The connection may have broken earlier without being noticed.
                Err(StatementError::Client(error)) if is_transient(&error) => {}
                answer => return self.cache_after(answer, connection, cached),
            }
        }
        let mut connection = limited("connecting", CONNECT_TIMEOUT, self.connect()).await?;
        let answer = run(&mut connection, statement, parameters).await;
        self.cache_after(answer, connection, cached)
    }

    /// Connects with TLS as the URL requests it. A server without TLS is accepted if the URL only
    /// prefers it.
    async fn connect(&self) -> Result<Conn, Error> {
        match (Conn::new(self.opts.clone()).await, &self.plain) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => {
                let consequence = "the server has no TLS: anyone in between can read and change \
                                   what is sent";
                warn_unchecked(&self.place, "sslMode=PREFERRED", consequence);
                Conn::new(plain.clone()).await
            }
            (connection, _) => connection,
        }
    }

    /// Caches the connection for the next statement, unless the answer shows that it may not be
    /// usable.
    fn cache_after<T>(
        &self,
        answer: Result<T, StatementError>,
        connection: Conn,
        cached: &mut Option<Conn>,
    ) -> Result<T, StatementError> {
        let usable = match &answer {
            Ok(_) => true,
            Err(StatementError::Client(error)) => {
                matches!(error, Error::Server(_)) && !is_transient(error)
            }
            Err(StatementError::TooLong(..)) => false,
        };
        if usable {
            *cached = Some(connection);
        }
        answer
    }
}

async fn run(
    connection: &mut Conn,
    statement: &str,
    parameters: &[&str],
) -> Result<Vec<Row>, StatementError> {
    let parameters: Vec<Value> = parameters.iter().map(Value::from).collect();
    let rows: Vec<mysql_async::Row> = limited(
        "a statement",
        STATEMENT_TIMEOUT,
        connection.exec(statement, parameters),
    )
    .await?;
    Ok(rows.iter().map(texts).collect())
}

async fn limited<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, StatementError> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(StatementError::Client),
        Err(_) => Err(StatementError::TooLong(what, limit)),
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

/// A value as a string, in MySQL's notation; `None` for NULL.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        // A number, or a time in quotes.
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// The codes of server errors that pass by themselves or after maintenance of the server: too many
/// connections (1040, 1129, 1203, 1226), a full disk (1021), a shutdown (1053, 1079, 1080, 1927,
/// 4031), network errors (1152 to 1161), a table that needs repair after a crash (1030, 1034, 1035,
/// 1194, 1195), locks (1205, 1213), and interrupted statements (1317, 1969, 3024).
const TRANSIENT_CODES: [u16; 30] = [
    1021, 1030, 1034, 1035, 1040, 1053, 1079, 1080, 1129, 1152, 1153, 1154, 1155, 1156, 1157, 1158,
    1159, 1160, 1161, 1194, 1195, 1203, 1205, 1213, 1226, 1317, 1927, 1969, 3024, 4031,
];

fn is_transient(error: &Error) -> bool {
    match error {
        Error::Server(ServerError { code, .. }) => TRANSIENT_CODES.contains(code),
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

impl StatementError {
    fn classified(self, place: &str) -> TableError {
        let error = match self {
            StatementError::TooLong(what, limit) => {
                let seconds = limit.as_secs();
                let what = format!("mysql {place}: {what} took more than {seconds} s");
                return TableError::Unreachable(what.into());
            }
            StatementError::Client(error) => error,
        };
        let may_pass = is_transient(&error);
        let what = format!("mysql {place}");
        let reason = match error {
            Error::Server(server) => {
                format!("{what}: {} (error {})", server.message, server.code).into()
            }
            Error::Io(io @ IoError::Tls(_)) => Reason::caused_by(what, io)
                .followed_by("; `sslMode=DISABLED` in the URL connects without TLS"),
            Error::Io(io) => Reason::caused_by(what, io),
            Error::Driver(driver) => Reason::caused_by(what, driver),
            other => Reason::caused_by(what, other),
        };
        if may_pass {
            TableError::Unreachable(reason)
        } else {
            TableError::Refused(reason)
        }
    }
}
