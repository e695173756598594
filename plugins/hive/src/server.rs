//! HiveServer2: a session, the statement `describe`, and its rows, by the Thrift service
//! `TCLIService` as `jdbc:hive2` speaks it: behind a login by SASL's mechanism PLAIN, or without
//! one where the URL says `auth=noSasl`.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use thrift::Error;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::transport::{TFramedReadTransport, TFramedWriteTransport};

use crate::HiveError;
use crate::columns::Column;
use crate::connection::{self, Limited};
use crate::message::{Client, Struct, Value};
use crate::table::{STANDARD_DATABASE, TableName};

/// How long everything may take. A session may have to be made ready for work that it will never
/// do.
const LIMIT: Duration = Duration::from_secs(30);
const STANDARD_PORT: u16 = 10_000;
/// Whom Hive's own driver logs in as, and with which password, when nobody is named.
const NOBODY: &str = "anonymous";

const OTHERWISE: &str = "where hive.server2.authentication is NOSASL, the url needs ;auth=noSasl; a server that asks for kerberos or tls cannot be read";

/// `HIVE_CLI_SERVICE_PROTOCOL_V6`, of Hive 0.13: the first version whose rows come by columns.
const PROTOCOL: i32 = 5;
const FETCH_NEXT: i32 = 0;
const ROWS_AT_ONCE: i64 = 1000;

/// Hive's errors that no waiting cures: there is no such table, or no such database.
const UNKNOWN: [i32; 2] = [10001, 10072];

/// Where a HiveServer2 is, and who asks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    address: String,
    pub(crate) database: String,
    user: Option<String>,
    password: Option<String>,
    login: bool,
}

/// Why there is no answer.
enum Failure {
    Thrift(Error),
    /// What the server says.
    Status {
        code: i32,
        message: String,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Thrift(error)
    }
}

impl Server {
    /// Reads what follows `jdbc:hive2:`, as Hive's own driver does:
    /// `//HOST:PORT/DATABASE;NAME=VALUE;…`. An error says what cannot be read.
    pub(crate) fn read(url: &str) -> Result<Server, String> {
        let rest = url.strip_prefix("//").ok_or("it lacks //HOST:PORT")?;
        // Hive's settings and variables follow ? and #; none of them matters here.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let mut parts = rest.split(';');
        let (host, database) = match parts.next().unwrap_or_default().split_once('/') {
            Some((host, database)) if !database.is_empty() => (host, database),
            Some((host, _)) => (host, STANDARD_DATABASE),
            None => (
                rest.split(';').next().unwrap_or_default(),
                STANDARD_DATABASE,
            ),
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
                    "of the kinds of `auth`, only noSasl and a login with a password are spoken"
                        .to_owned(),
                );
            }
            ("principal", _) => return Err("it asks for kerberos".to_owned()),
            ("ssl", "true") => return Err("it asks for tls".to_owned()),
            ("transportmode" | "hive.server2.transport.mode", "http") => {
                return Err("it asks for http".to_owned());
            }
            ("servicediscoverymode", _) => {
                return Err("it asks zookeeper for the server; name a server itself".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// Who asks, where the URL does not say it.
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
        return Err("it names several hosts; name one of the servers".to_owned());
    }
    let name = host.rsplit_once(']').map_or(host, |(_, after)| after);
    match name.split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => {
            Err("the port is not a number".to_owned())
        }
        _ if host.is_empty() || host.starts_with(':') => Err("it names no host".to_owned()),
        Some(_) => Ok(host.to_owned()),
        None => Ok(format!("{host}:{STANDARD_PORT}")),
    }
}

/// The table's columns, in order.
pub(crate) fn columns(server: &Server, table: &TableName) -> Result<Vec<Column>, HiveError> {
    let who = format!("hiveserver2 {}", server.address);
    let stream = connection::connect(&server.address)
        .map_err(|error| HiveError::Unreachable(format!("{who}: {error}")))?;
    ask(server, stream, table).map_err(|failure| match failure {
        Failure::Thrift(error) => connection::classified(&who, OTHERWISE, error),
        Failure::Status { code, message } if UNKNOWN.contains(&code) => {
            HiveError::Refused(format!("there is no hive table {table} ({who}: {message})"))
        }
        Failure::Status { message, .. } => HiveError::Unreachable(format!(
            "{who} cannot tell the columns of {table}: {message}"
        )),
    })
}

fn ask(server: &Server, stream: TcpStream, table: &TableName) -> Result<Vec<Column>, Failure> {
    let user = server.user.as_deref().unwrap_or(NOBODY);
    let password = server.password.as_deref().unwrap_or(NOBODY);
    let mut input = Limited::new(&stream, LIMIT).map_err(Error::from)?;
    let mut client = if server.login {
        log_in(&mut input, &stream, user, password)?;
        let input = TBinaryInputProtocol::new(TFramedReadTransport::new(input), true);
        Client::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(
                TFramedWriteTransport::new(stream),
                true,
            )),
        )
    } else {
        let input = TBinaryInputProtocol::new(BufReader::new(input), true);
        Client::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(BufWriter::new(stream), true)),
        )
    };
    let login = Struct::default()
        .with(1, Value::I32(PROTOCOL))
        .with_text(2, user)
        .with_text(3, password);
    let session = handle(&request(&mut client, "OpenSession", login)?, 3)?;
    let columns = describe(&mut client, &session, table);
    // The server would also notice that the connection is closed.
    let _ = request(
        &mut client,
        "CloseSession",
        Struct::default().with(1, session),
    );
    columns
}

fn describe(
    client: &mut Client,
    session: &Value,
    table: &TableName,
) -> Result<Vec<Column>, Failure> {
    let statement = format!("describe `{}`.`{}`", table.database, table.table);
    let execute = Struct::default()
        .with(1, session.clone())
        .with_text(2, &statement);
    let operation = handle(&request(client, "ExecuteStatement", execute)?, 2)?;
    let fetch = Struct::default()
        .with(1, operation)
        .with(2, Value::I32(FETCH_NEXT))
        .with(3, Value::I64(ROWS_AT_ONCE));
    let mut rows = Vec::new();
    loop {
        let batch = rows_of(&request(client, "FetchResults", fetch.clone())?);
        if batch.is_empty() {
            return Ok(without_partitions(rows));
        }
        rows.extend(batch);
    }
}

/// Makes a call whose argument is one request, and returns the response: its field 1 is a
/// `TStatus`.
fn request(client: &mut Client, call: &str, request: Struct) -> Result<Struct, Failure> {
    let result = client.call(call, &Struct::default().with(1, Value::Struct(request)))?;
    let response = result.structure(0).cloned().unwrap_or_default();
    match response.structure(1) {
        // SUCCESS_STATUS and SUCCESS_WITH_INFO_STATUS
        Some(status) if matches!(status.number(1), Some(0 | 1)) => Ok(response),
        Some(status) => Err(Failure::Status {
            code: status.number(4).unwrap_or_default(),
            message: status.text(5).unwrap_or_default(),
        }),
        None => Err(Failure::Thrift(Error::User(
            format!("the answer to {call} is empty").into(),
        ))),
    }
}

/// What the server knows a session or an operation by, to be sent back as it is.
fn handle(response: &Struct, id: i16) -> Result<Value, Failure> {
    let missing = || {
        Failure::Thrift(Error::User(
            "the answer lacks what is to be sent back".into(),
        ))
    };
    response.get(id).cloned().ok_or_else(missing)
}

/// Name and type of each row: the first two columns of the `TRowSet` in field 3, each a
/// `TStringColumn`, whose field 1 holds the values.
fn rows_of(response: &Struct) -> Vec<Column> {
    let columns = response
        .structure(3)
        .and_then(|rows| rows.list(3))
        .unwrap_or_default();
    let texts = |index: usize| {
        let strings = columns
            .get(index)
            .and_then(Value::structure)
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

/// `describe` names the partitions' columns with the others, and again in a part of its own behind
/// them.
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

/// What a message of the login says.
mod status {
    pub(super) const START: u8 = 1;
    pub(super) const OK: u8 = 2;
    pub(super) const BAD: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const COMPLETE: u8 = 5;
}

/// Longer messages than these are none of a login's.
const LONGEST_MESSAGE: u32 = 1 << 16;

/// Logs in by SASL PLAIN (RFC 4616). Thrift's messages of the login are a status, a length of four
/// bytes and a content; after it, all that is sent has a length before it.
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
        let mut head = [0; 5];
        input.read_exact(&mut head)?;
        let [status, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        if !matches!(
            status,
            status::OK | status::BAD | status::ERROR | status::COMPLETE
        ) || length > LONGEST_MESSAGE
        {
            return Err(Error::User(
                format!("this is no answer to a login; {OTHERWISE}").into(),
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
                        "the login of {user} is refused: {}",
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
    fn urls_are_read_as_hives_driver_does() {
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
            ("host", "it lacks //HOST:PORT"),
            ("//", "it names no host"),
            ("//:1/db", "it names no host"),
            ("//host:x/db", "the port is not a number"),
            (
                "//a:2181,b:2181/;serviceDiscoveryMode=zooKeeper",
                "it names several hosts; name one of the servers",
            ),
            (
                "//host/db;principal=hive/_HOST@REALM",
                "it asks for kerberos",
            ),
            ("//host/db;ssl=true", "it asks for tls"),
            ("//host/db;transportMode=http", "it asks for http"),
            (
                "//host/db;serviceDiscoveryMode=zooKeeper",
                "it asks zookeeper for the server; name a server itself",
            ),
            (
                "//host/db;auth=delegationToken",
                "of the kinds of `auth`, only noSasl and a login with a password are spoken",
            ),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn the_urls_login_wins() {
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
    fn partitions_are_not_among_the_columns() {
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
