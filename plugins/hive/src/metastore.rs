//! A client of the metastore's Thrift service. It uses one call, `get_fields` of
//! `ThriftHiveMetastore`, in Thrift's binary protocol without frames, which is what a metastore
//! speaks unless it requires Kerberos, with TLS or without. A table's partition columns are not among its fields.

use std::io::{BufReader, BufWriter};
use std::time::Duration;

use pseidon_delivery::{Reason, WithCauses};
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::{ApplicationError, ApplicationErrorKind, Error};
use url::Url;

use crate::HiveError;
use crate::connection::{self, Connection, Encryption};
use crate::message::{ThriftClient, ThriftStruct, ThriftValue};
use crate::table::{HiveColumn, TableName};

/// The time limit of the call, including the last byte of the response.
const CALL_LIMIT: Duration = Duration::from_secs(5);

const UNSUPPORTED: &str = "if the metastore requires tls, write thrifts:// in its url; metastores \
    that require kerberos or frames are not supported";

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

/// One metastore.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metastore {
    /// `HOST:PORT`
    address: String,
    encryption: Encryption,
}

impl Metastore {
    /// Parses `thrift://HOST:PORT`, or `thrifts://HOST:PORT` for TLS, which `?sslCa=PATH` may
    /// follow. `None` if the URL is invalid.
    fn read(url: &str) -> Option<Metastore> {
        let url = Url::parse(url.trim()).ok()?;
        let (host, port) = (url.host_str().filter(|host| !host.is_empty())?, url.port()?);
        let ca = url.query_pairs().next();
        let encryption = match (url.scheme(), ca) {
            ("thrift", None) => Encryption::None,
            ("thrifts", None) => Encryption::tls(None).ok()?,
            ("thrifts", Some((name, path))) if name == "sslCa" => {
                Encryption::tls(Some(&path)).ok()?
            }
            _ => return None,
        };
        let is_plain = matches!(url.path(), "" | "/")
            && url.username().is_empty()
            && url.query_pairs().count() <= 1;
        is_plain.then(|| Metastore {
            address: format!("{host}:{port}"),
            encryption,
        })
    }
}

/// The metastores of a URL such as `thrift://a:9083,thrift://b:9083`; `None` if the URL is invalid.
pub(crate) fn metastores(url: &str) -> Option<Vec<Metastore>> {
    url.split(',').map(Metastore::read).collect()
}

/// Returns the table's columns, in order, from the first metastore that responds.
pub(crate) fn columns(url: &str, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let metastores = metastores(url).ok_or_else(|| {
        HiveError::Refused("invalid metastore url; expected thrift://HOST:PORT".into())
    })?;
    let mut unreachable = Vec::new();
    for metastore in &metastores {
        match query(metastore, table) {
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

fn query(metastore: &Metastore, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let Metastore {
        address,
        encryption,
    } = metastore;
    let server = format!("hive metastore {address}");
    let connection = Connection::open(address, encryption, CALL_LIMIT, &server)?;
    match call(connection, table)
        .map_err(|error| connection::classify(&server, UNSUPPORTED, error))?
    {
        LookupResult::Columns(columns) => Ok(columns),
        LookupResult::Unknown => Err(HiveError::Refused(
            format!("hive table {table} not found ({server})").into(),
        )),
        LookupResult::Failed(message) => Err(HiveError::Unreachable(
            format!("{server} cannot return the columns of {table}: {message}").into(),
        )),
    }
}

fn call(connection: Connection, table: &TableName) -> thrift::Result<LookupResult> {
    let input = TBinaryInputProtocol::new(BufReader::new(connection.clone()), true);
    let output = TBinaryOutputProtocol::new(BufWriter::new(connection), true);
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
            ("thrift://host:9083", "host:9083"),
            ("thrift://a:1/, thrift://b:2", "a:1 b:2"),
            ("thrift://[::1]:9083", "[::1]:9083"),
            ("thrifts://host:9083", "host:9083 tls"),
            (
                "thrifts://host:9083?sslCa=/etc/ca.pem",
                "host:9083 tls /etc/ca.pem",
            ),
            ("thrift://a:1,thrifts://b:2/", "a:1 b:2 tls"),
            ("thrifts://host:9083?sslCa=ca.pem", "invalid"),
            ("thrifts://host:9083?sslCa=/a&sslCa=/b", "invalid"),
            ("thrifts://host:9083?ca=/a", "invalid"),
            ("thrift://host:9083?sslCa=/etc/ca.pem", "invalid"),
            ("thrift://host", "invalid"),
            ("thrift://:9083", "invalid"),
            ("thrift://user@host:9083", "invalid"),
            ("thrift://host:9083?a=b", "invalid"),
            ("http://host:9083", "invalid"),
            ("thrift://a:1,", "invalid"),
            ("", "invalid"),
        ] {
            let shown = |metastore: &Metastore| match &metastore.encryption {
                Encryption::None => metastore.address.clone(),
                Encryption::Tls { ca: None } => format!("{} tls", metastore.address),
                Encryption::Tls { ca: Some(ca) } => {
                    format!("{} tls {}", metastore.address, ca.display())
                }
            };
            let shown = metastores(url).map(|metastores| {
                let all: Vec<_> = metastores.iter().map(shown).collect();
                all.join(" ")
            });
            assert_eq!(shown.as_deref().unwrap_or("invalid"), expected, "{url}");
        }
    }
}
