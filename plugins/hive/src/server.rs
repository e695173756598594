//! A client of HiveServer2. It opens a session, runs the statement `describe` and fetches its rows,
//! through the Thrift service `TCLIService` as `jdbc:hive2` uses it: after a login with SASL's
//! PLAIN mechanism, or without a login if the URL has `auth=noSasl`.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use thrift::Error;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::transport::{TFramedReadTransport, TFramedWriteTransport};

use crate::HiveError;
use crate::columns::Column;
use crate::connection::{self, DeadlineReader};
use crate::message::{ThriftClient, ThriftStruct, ThriftValue};
use crate::table::{DEFAULT_DATABASE, TableName};

/// The time limit of all requests together. The server may have to start an engine for the session,
/// although it is not needed here.
const TIME_LIMIT: Duration = Duration::from_secs(30);
const DEFAULT_PORT: u16 = 10_000;
/// The user and password of Hive's own driver if the URL names no user.
const ANONYMOUS: &str = "anonymous";

const UNSUPPORTED: &str = "if hive.server2.authentication is NOSASL, add ;auth=noSasl to the url; \
    servers that require kerberos or tls are not supported";

/// `HIVE_CLI_SERVICE_PROTOCOL_V6`, of Hive 0.13: the first version that returns rows by columns.
const PROTOCOL: i32 = 5;
const FETCH_NEXT: i32 = 0;
const ROWS_AT_ONCE: i64 = 1000;

/// Hive's error codes for an unknown table and an unknown database. Retrying does not help.
const UNKNOWN: [i32; 2] = [10001, 10072];

/// The address of a HiveServer2, and the login.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    address: String,
    pub(crate) database: String,
    user: Option<String>,
    password: Option<String>,
    login: bool,
}

/// Why a request failed.
enum RequestError {
    Thrift(Error),
    /// The server responded with an error.
    Status {
        code: i32,
        message: String,
    },
}

impl From<Error> for RequestError {
    fn from(error: Error) -> RequestError {
        RequestError::Thrift(error)
    }
}

impl Server {
    /// Parses the rest of a URL after `jdbc:hive2:` as Hive's own driver does:
    /// `//HOST:PORT/DATABASE;NAME=VALUE;…`. The error says what is invalid or not supported.
    pub(crate) fn read(url: &str) -> Result<Server, String> {
        let rest = url.strip_prefix("//").ok_or("missing //HOST:PORT")?;
        // Hive's settings and variables follow `?` and `#`; none of them is needed here.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let mut parts = rest.split(';');
        let (host, database) = match parts.next().unwrap_or_default().split_once('/') {
            Some((host, database)) if !database.is_empty() => (host, database),
            Some((host, _)) => (host, DEFAULT_DATABASE),
            None => (rest.split(';').next().unwrap_or_default(), DEFAULT_DATABASE),
        };
        let mut server = Server {
            address: address(host)?,
            database: database.to_lowercase(),
            user: None,
            password: None,
            login: true,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            server.set(name.trim(), value.trim())?;
        }
        Ok(server)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name.to_lowercase().as_str(), value.to_lowercase().as_str()) {
            ("user", _) => self.user = Some(value.to_owned()),
            ("password", _) => self.password = Some(value.to_owned()),
            ("auth", "nosasl") => self.login = false,
            ("auth", _) => {
                return Err(
                    "unsupported `auth`; expected noSasl, or a user and password".to_owned(),
                );
            }
            ("principal", _) => return Err("kerberos is not supported".to_owned()),
            ("ssl", "true") => return Err("tls is not supported".to_owned()),
            ("transportmode" | "hive.server2.transport.mode", "http") => {
                return Err("http transport is not supported".to_owned());
            }
            ("servicediscoverymode", _) => {
                return Err("zookeeper discovery is not supported; name one server".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the login if the URL has none.
    pub(crate) fn with_login(mut self, user: Option<&str>, password: Option<&str>) -> Server {
        if self.user.is_none() {
            self.user = user.map(str::to_owned);
            self.password = self.password.or(password.map(str::to_owned));
        }
        self
    }
}

fn address(host: &str) -> Result<String, String> {
    if host.contains(',') {
        return Err("several hosts are not supported; name one server".to_owned());
    }
    let name = host.rsplit_once(']').map_or(host, |(_, after)| after);
    match name.split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => Err("invalid port".to_owned()),
        _ if host.is_empty() || host.starts_with(':') => Err("missing host".to_owned()),
        Some(_) => Ok(host.to_owned()),
        None => Ok(format!("{host}:{DEFAULT_PORT}")),
    }
}

/// Returns the table's columns, in order.
pub(crate) fn columns(server: &Server, table: &TableName) -> Result<Vec<Column>, HiveError> {
    let name = format!("hiveserver2 {}", server.address);
    let stream = connection::connect(&server.address)
        .map_err(|error| HiveError::Unreachable(format!("{name}: {error}")))?;
    query(server, stream, table).map_err(|error| match error {
        RequestError::Thrift(error) => connection::classify(&name, UNSUPPORTED, error),
        RequestError::Status { code, message } if UNKNOWN.contains(&code) => {
            HiveError::Refused(format!("hive table {table} not found ({name}: {message})"))
        }
        RequestError::Status { message, .. } => HiveError::Unreachable(format!(
            "{name} cannot return the columns of {table}: {message}"
        )),
    })
}

fn query(
    server: &Server,
    stream: TcpStream,
    table: &TableName,
) -> Result<Vec<Column>, RequestError> {
    let user = server.user.as_deref().unwrap_or(ANONYMOUS);
    let password = server.password.as_deref().unwrap_or(ANONYMOUS);
    let mut input = DeadlineReader::new(&stream, TIME_LIMIT).map_err(Error::from)?;
    let mut client = if server.login {
        log_in(&mut input, &stream, user, password)?;
        let input = TBinaryInputProtocol::new(TFramedReadTransport::new(input), true);
        ThriftClient::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(
                TFramedWriteTransport::new(stream),
                true,
            )),
        )
    } else {
        let input = TBinaryInputProtocol::new(BufReader::new(input), true);
        ThriftClient::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(BufWriter::new(stream), true)),
        )
    };
    let login = ThriftStruct::default()
        .with(1, ThriftValue::I32(PROTOCOL))
        .with_text(2, user)
        .with_text(3, password);
    let session = handle(&request(&mut client, "OpenSession", login)?, 3)?;
    let columns = describe(&mut client, &session, table);
    // Best effort: the server also closes the session when the connection is closed.
    let _ = request(
        &mut client,
        "CloseSession",
        ThriftStruct::default().with(1, session),
    );
    columns
}

fn describe(
    client: &mut ThriftClient,
    session: &ThriftValue,
    table: &TableName,
) -> Result<Vec<Column>, RequestError> {
    let statement = format!("describe `{}`.`{}`", table.database, table.table);
    let execute = ThriftStruct::default()
        .with(1, session.clone())
        .with_text(2, &statement);
    let operation = handle(&request(client, "ExecuteStatement", execute)?, 2)?;
    let fetch = ThriftStruct::default()
        .with(1, operation)
        .with(2, ThriftValue::I32(FETCH_NEXT))
        .with(3, ThriftValue::I64(ROWS_AT_ONCE));
    let mut rows = Vec::new();
    loop {
        let batch = rows_of(&request(client, "FetchResults", fetch.clone())?);
        if batch.is_empty() {
            return Ok(without_partitions(rows));
        }
        rows.extend(batch);
    }
}

/// Sends a call whose argument is one request, and returns the response. Its field 1 is a
/// `TStatus`.
fn request(
    client: &mut ThriftClient,
    call: &str,
    request: ThriftStruct,
) -> Result<ThriftStruct, RequestError> {
    let result = client.call(
        call,
        &ThriftStruct::default().with(1, ThriftValue::Struct(request)),
    )?;
    let response = result.structure(0).cloned().unwrap_or_default();
    match response.structure(1) {
        // SUCCESS_STATUS and SUCCESS_WITH_INFO_STATUS
        Some(status) if matches!(status.number(1), Some(0 | 1)) => Ok(response),
        Some(status) => Err(RequestError::Status {
            code: status.number(4).unwrap_or_default(),
            message: status.text(5).unwrap_or_default(),
        }),
        None => Err(RequestError::Thrift(Error::User(
            format!("the response to {call} is empty").into(),
        ))),
    }
}

/// The handle of a session or an operation, which is sent back unchanged.
fn handle(response: &ThriftStruct, id: i16) -> Result<ThriftValue, RequestError> {
    let missing = || RequestError::Thrift(Error::User("the response has no handle".into()));
    response.get(id).cloned().ok_or_else(missing)
}

/// The name and type in each row: the first two columns of the `TRowSet` in field 3. Each is a
/// `TStringColumn`, whose field 1 has the values.
fn rows_of(response: &ThriftStruct) -> Vec<Column> {
    let columns = response
        .structure(3)
        .and_then(|rows| rows.list(3))
        .unwrap_or_default();
    let texts = |index: usize| {
        let strings = columns
            .get(index)
            .and_then(ThriftValue::structure)
            .and_then(|column| column.structure(7));
        let values = strings
            .and_then(|strings| strings.list(1))
            .unwrap_or_default();
        values
            .iter()
            .map(|value| value.text().unwrap_or_default().trim().to_owned())
    };
    texts(0)
        .zip(texts(1))
        .map(|(name, hive_type)| Column { name, hive_type })
        .collect()
}

/// Removes the partition columns. `describe` lists them among the others, and again in a section of
/// their own after them.
fn without_partitions(rows: Vec<Column>) -> Vec<Column> {
    let is_end = |row: &Column| row.name.is_empty() || row.name.starts_with('#');
    let end = rows.iter().position(is_end).unwrap_or(rows.len());
    let mut columns = rows;
    let more = columns.split_off(end);
    let partitions: Vec<Column> = more
        .into_iter()
        .skip_while(|row| row.name != "# Partition Information")
        .skip(1)
        .take_while(|row| !row.name.starts_with('#') || row.name == "# col_name")
        .filter(|row| !is_end(row))
        .collect();
    columns.retain(|column| {
        !partitions
            .iter()
            .any(|partition| partition.name == column.name)
    });
    columns
}

/// The status of a login message.
mod status {
    pub(super) const START: u8 = 1;
    pub(super) const OK: u8 = 2;
    pub(super) const BAD: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const COMPLETE: u8 = 5;
}

/// A longer message is not part of a login. In bytes.
const MAX_LOGIN_MESSAGE: u32 = 1 << 16;

/// Logs in with SASL PLAIN (RFC 4616). Thrift's login messages are a status, a length of 4 bytes
/// and the content. After the login, every message is preceded by its length.
fn log_in(
    input: &mut dyn Read,
    mut output: &TcpStream,
    user: &str,
    password: &str,
) -> thrift::Result<()> {
    let mut message = Vec::new();
    for (status, content) in [
        (status::START, "PLAIN"),
        (status::COMPLETE, &format!("\0{user}\0{password}")),
    ] {
        message.push(status);
        message.extend(
            u32::try_from(content.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        message.extend(content.as_bytes());
    }
    output.write_all(&message)?;
    loop {
        let mut header = [0; 5];
        input.read_exact(&mut header)?;
        let [status, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        if !matches!(
            status,
            status::OK | status::BAD | status::ERROR | status::COMPLETE
        ) || length > MAX_LOGIN_MESSAGE
        {
            return Err(Error::User(
                format!("unexpected response to the login; {UNSUPPORTED}").into(),
            ));
        }
        let mut content = vec![0; length as usize];
        input.read_exact(&mut content)?;
        match status {
            status::COMPLETE => return Ok(()),
            status::OK => {}
            _ => {
                return Err(Error::User(
                    format!(
                        "login of {user} refused: {}",
                        String::from_utf8_lossy(&content)
                    )
                    .into(),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Server::read(url) {
            Ok(Server {
                address,
                database,
                user,
                password,
                login,
            }) => {
                format!(
                    "{address}/{database} {}:{}{}",
                    user.unwrap_or_default(),
                    password.unwrap_or_default(),
                    if login { "" } else { " raw" }
                )
            }
            Err(reason) => reason,
        }
    }

    #[test]
    fn urls_are_parsed_as_by_hives_driver() {
        for (url, expected) in [
            ("//host:10001/Web", "host:10001/web :"),
            ("//host", "host:10000/default :"),
            ("//host/", "host:10000/default :"),
            ("//[::1]/db", "[::1]:10000/db :"),
            ("//[::1]:1/db", "[::1]:1/db :"),
            ("//host;auth=noSasl", "host:10000/default : raw"),
            (
                "//host/db;user=u;password=p?hive.exec.parallel=true#a=b",
                "host:10000/db u:p",
            ),
            (
                "//host/db;ssl=false;transportMode=binary;x",
                "host:10000/db :",
            ),
            ("host", "missing //HOST:PORT"),
            ("//", "missing host"),
            ("//:1/db", "missing host"),
            ("//host:x/db", "invalid port"),
            (
                "//a:2181,b:2181/;serviceDiscoveryMode=zooKeeper",
                "several hosts are not supported; name one server",
            ),
            (
                "//host/db;principal=hive/_HOST@REALM",
                "kerberos is not supported",
            ),
            ("//host/db;ssl=true", "tls is not supported"),
            (
                "//host/db;transportMode=http",
                "http transport is not supported",
            ),
            (
                "//host/db;serviceDiscoveryMode=zooKeeper",
                "zookeeper discovery is not supported; name one server",
            ),
            (
                "//host/db;auth=delegationToken",
                "unsupported `auth`; expected noSasl, or a user and password",
            ),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn the_login_of_the_url_takes_precedence() {
        let login = |url: &str| {
            let server = Server::read(url)
                .unwrap()
                .with_login(Some("row"), Some("word"));
            (
                server.user.unwrap_or_default(),
                server.password.unwrap_or_default(),
            )
        };
        assert_eq!(login("//host"), ("row".to_owned(), "word".to_owned()));
        assert_eq!(
            login("//host/db;user=u;password=p"),
            ("u".to_owned(), "p".to_owned())
        );
        assert_eq!(login("//host/db;user=u"), ("u".to_owned(), String::new()));
    }

    #[test]
    fn partition_columns_are_removed() {
        let names = |rows: &[&str]| {
            let rows = rows
                .iter()
                .map(|name| Column {
                    name: (*name).to_owned(),
                    hive_type: "string".to_owned(),
                })
                .collect();
            without_partitions(rows)
                .into_iter()
                .map(|column| column.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["a", "b"]), ["a", "b"]);
        assert_eq!(
            names(&[
                "a",
                "dt",
                "b",
                "",
                "# Partition Information",
                "# col_name",
                "",
                "dt"
            ]),
            ["a", "b"]
        );
        assert_eq!(
            names(&["a", "dt", "# Partition Information", "# col_name", "dt"]),
            ["a"]
        );
        assert_eq!(
            names(&[
                "a",
                "b",
                "",
                "# Partition Transform Information",
                "# col_name",
                "b"
            ]),
            ["a", "b"]
        );
        assert_eq!(
            names(&[
                "a",
                "b",
                "",
                "# Partition Information",
                "# col_name",
                "b",
                "",
                "# Other",
                "a"
            ]),
            ["a"]
        );
        assert!(names(&[]).is_empty());
    }
}
