//! A client of the metastore's Thrift service. It uses one call, `get_fields` of
//! `ThriftHiveMetastore`, in Thrift's binary protocol without frames, which is what a metastore
//! speaks unless it requires Kerberos or TLS. A table's partition columns are not among its fields.

use std::io::{BufReader, BufWriter};
use std::net::TcpStream;
use std::time::Duration;

use pseidon_delivery::{Reason, WithCauses};
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::{ApplicationError, ApplicationErrorKind, Error};
use url::Url;

use crate::HiveError;
use crate::connection::{self, DeadlineReader};
use crate::message::{ThriftClient, ThriftStruct, ThriftValue};
use crate::table::{HiveColumn, TableName};

/// The time limit of the call, including the last byte of the response.
const CALL_LIMIT: Duration = Duration::from_secs(5);

const UNSUPPORTED: &str = "metastores that require kerberos, tls or frames are not supported";

/// The IDs of the result's fields: the columns, or one of the exceptions that the call may throw.
mod result {
    pub(super) const COLUMNS: i16 = 0;
    pub(super) const META_EXCEPTION: i16 = 1;
    pub(super) const UNKNOWN_TABLE: i16 = 2;
    pub(super) const UNKNOWN_DATABASE: i16 = 3;
}

/// The response of a metastore.
enum LookupResult {
    Columns(Vec<HiveColumn>),
    /// The table or its database does not exist.
    Unknown,
    /// The metastore failed with this message.
    Failed(String),
}

/// The `HOST:PORT`s of a URL such as `thrift://a:9083,thrift://b:9083`; `None` if the URL is
/// invalid.
pub(crate) fn addresses(url: &str) -> Option<Vec<String>> {
    let address = |part: &str| {
        let url = Url::parse(part.trim()).ok()?;
        let is_plain = url.scheme() == "thrift"
            && matches!(url.path(), "" | "/")
            && url.username().is_empty()
            && url.query().is_none();
        let (host, port) = (url.host_str().filter(|host| !host.is_empty())?, url.port()?);
        is_plain.then(|| format!("{host}:{port}"))
    };
    url.split(',').map(address).collect()
}

/// Returns the table's columns, in order, from the first metastore that responds.
pub(crate) fn columns(url: &str, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let addresses = addresses(url).ok_or_else(|| {
        HiveError::Refused("invalid metastore url; expected thrift://HOST:PORT".into())
    })?;
    let mut unreachable = Vec::new();
    for address in &addresses {
        match query(address, table) {
            Err(HiveError::Unreachable(reason)) => unreachable.push(reason),
            result => return result,
        }
    }
    Err(HiveError::Unreachable(all_of(unreachable)))
}

/// One reason for all of them, since each metastore may be unreachable for its own.
fn all_of(mut reasons: Vec<Reason>) -> Reason {
    if reasons.len() == 1 {
        return reasons.remove(0);
    }
    let texts: Vec<String> = reasons
        .iter()
        .map(|reason| WithCauses(reason).to_string())
        .collect();
    texts.join("; ").into()
}

fn query(address: &str, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let server = format!("hive metastore {address}");
    let stream = connection::connect(address)
        .map_err(|error| HiveError::Unreachable(Reason::caused_by(server.clone(), error)))?;
    match call(stream, table).map_err(|error| connection::classify(&server, UNSUPPORTED, error))? {
        LookupResult::Columns(columns) => Ok(columns),
        LookupResult::Unknown => Err(HiveError::Refused(
            format!("hive table {table} not found ({server})").into(),
        )),
        LookupResult::Failed(message) => Err(HiveError::Unreachable(
            format!("{server} cannot return the columns of {table}: {message}").into(),
        )),
    }
}

fn call(stream: TcpStream, table: &TableName) -> thrift::Result<LookupResult> {
    let input = TBinaryInputProtocol::new(
        BufReader::new(DeadlineReader::new(&stream, CALL_LIMIT)?),
        true,
    );
    let output = TBinaryOutputProtocol::new(BufWriter::new(stream), true);
    let arguments = ThriftStruct::default()
        .with_text(1, &table.database)
        .with_text(2, &table.table);
    let result =
        ThriftClient::new(Box::new(input), Box::new(output)).call("get_fields", &arguments)?;
    if let Some(fields) = result.list(result::COLUMNS) {
        return Ok(LookupResult::Columns(
            fields
                .iter()
                .filter_map(ThriftValue::structure)
                .map(column)
                .collect(),
        ));
    }
    if result
        .get(result::UNKNOWN_TABLE)
        .or(result.get(result::UNKNOWN_DATABASE))
        .is_some()
    {
        return Ok(LookupResult::Unknown);
    }
    match result.structure(result::META_EXCEPTION) {
        Some(exception) => Ok(LookupResult::Failed(exception.text(1).unwrap_or_default())),
        None => Err(Error::Application(ApplicationError::new(
            ApplicationErrorKind::MissingResult,
            "the response is empty",
        ))),
    }
}

/// Converts a `FieldSchema`: field 1 is the name, 2 the type, 3 the comment.
fn column(field: &ThriftStruct) -> HiveColumn {
    HiveColumn {
        name: field.text(1).unwrap_or_default(),
        hive_type: field.text(2).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_metastores() {
        for (url, expected) in [
            ("thrift://host:9083", Some(vec!["host:9083"])),
            ("thrift://a:1/, thrift://b:2", Some(vec!["a:1", "b:2"])),
            ("thrift://[::1]:9083", Some(vec!["[::1]:9083"])),
            ("thrift://host", None),
            ("thrift://:9083", None),
            ("thrift://user@host:9083", None),
            ("thrift://host:9083?a=b", None),
            ("http://host:9083", None),
            ("thrift://a:1,", None),
            ("", None),
        ] {
            let expected =
                expected.map(|addresses| addresses.into_iter().map(str::to_owned).collect());
            assert_eq!(addresses(url), expected, "{url}");
        }
    }
}
