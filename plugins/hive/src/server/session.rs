//! A session of a HiveServer2: it is opened, runs the statement `describe` and fetches its rows,
//! through the Thrift service `TCLIService` as `jdbc:hive2` uses it.

use std::io::{BufReader, BufWriter};
use std::time::Duration;

use thrift::Error;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::transport::{TFramedReadTransport, TFramedWriteTransport};

use super::sasl::log_in;
use super::{Server, UNSUPPORTED};
use crate::HiveError;
use crate::connection::{self, Connection};
use crate::message::{ThriftClient, ThriftStruct, ThriftValue};
use crate::table::{HiveColumn, TableName};

/// The time limit of all requests together. The server may have to start an engine for the session,
/// although it is not needed here.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The user and password of Hive's own driver if the URL names no user.
const ANONYMOUS: &str = "anonymous";

/// `HIVE_CLI_SERVICE_PROTOCOL_V6`, of Hive 0.13: the first version that returns rows by columns.
const PROTOCOL: i32 = 5;
const FETCH_NEXT: i32 = 0;
const ROWS_AT_ONCE: i64 = 1000;

/// Hive's error codes for an unknown table and an unknown database. Retrying does not help.
const UNKNOWN: [i32; 2] = [10001, 10072];

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

/// Returns the table's columns, in order.
pub(crate) fn columns(server: &Server, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let name = format!("hiveserver2 {}", server.address);
    let connection = Connection::open(&server.address, &server.encryption, TIME_LIMIT, &name)?;
    query(server, connection, table).map_err(|error| match error {
        RequestError::Thrift(error) => connection::classify(&name, UNSUPPORTED, error),
        RequestError::Status { code, message } if UNKNOWN.contains(&code) => {
            HiveError::Refused(format!("hive table {table} not found ({name}: {message})").into())
        }
        RequestError::Status { message, .. } => HiveError::Unreachable(
            format!("{name} cannot return the columns of {table}: {message}").into(),
        ),
    })
}

fn query(
    server: &Server,
    mut connection: Connection,
    table: &TableName,
) -> Result<Vec<HiveColumn>, RequestError> {
    let user = server.user.as_deref().unwrap_or(ANONYMOUS);
    let password = server.password.as_deref().unwrap_or(ANONYMOUS);
    let mut client = if server.login {
        log_in(&mut connection, user, password)?;
        let input = TFramedReadTransport::new(connection.clone());
        let input = TBinaryInputProtocol::new(input, true);
        ThriftClient::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(
                TFramedWriteTransport::new(connection),
                true,
            )),
        )
    } else {
        let input = TBinaryInputProtocol::new(BufReader::new(connection.clone()), true);
        ThriftClient::new(
            Box::new(input),
            Box::new(TBinaryOutputProtocol::new(BufWriter::new(connection), true)),
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
) -> Result<Vec<HiveColumn>, RequestError> {
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
fn rows_of(response: &ThriftStruct) -> Vec<HiveColumn> {
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
        .map(|(name, hive_type)| HiveColumn { name, hive_type })
        .collect()
}

/// Removes the partition columns. `describe` lists them among the others, and again in a section of
/// their own after them.
fn without_partitions(rows: Vec<HiveColumn>) -> Vec<HiveColumn> {
    let is_end = |row: &HiveColumn| row.name.is_empty() || row.name.starts_with('#');
    let end = rows.iter().position(is_end).unwrap_or(rows.len());
    let mut columns = rows;
    let more = columns.split_off(end);
    let partitions: Vec<HiveColumn> = more
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_columns_are_removed() {
        let names = |rows: &[&str]| {
            let rows = rows
                .iter()
                .map(|name| HiveColumn {
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
