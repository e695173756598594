//! The columns of Hive tables, as Arrow fields: the schema of a topic's typed files (Parquet,
//! Avro).
//!
//! Hive stores the columns in its metastore. They are requested from the metastore's Thrift service
//! ([`HiveEndpoint::Metastore`]) or from a HiveServer2 ([`HiveEndpoint::Server`]), or read from the metastore's
//! own database ([`HiveEndpoint::Database`]). A folder with schema files ([`read_file`]) needs no Hive.
//!
//! | Hive | Arrow |
//! |---|---|
//! | `tinyint` `smallint` `int` `bigint` | `int8` `int16` `int32` `int64` |
//! | `float` `double` `decimal(p,s)` | `float32` `float64` `decimal128(p,s)` |
//! | `string` `varchar(n)` `char(n)` | `utf8` |
//! | `boolean` `binary` `date` | `boolean` `binary` `date32` |
//! | `timestamp`, also `with local time zone` | `timestamp_us` in UTC |
//! | `array<t>` `map<k,v>` `struct<name:t>` | list, map, struct |
//!
//! All functions block, with time limits. Do not call them from async code.

#![forbid(unsafe_code)]

mod columns;
mod connection;
mod database;
mod endpoint;
mod file;
mod message;
mod metastore;
mod server;
mod table;
mod types;

use pseidon_delivery::Reason;

pub use columns::columns;
pub use endpoint::HiveEndpoint;
pub use file::read_file;
pub use server::Server;

/// Why the columns of a table are not available.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HiveError {
    /// The server is unreachable or cannot respond now. The error is transient, or an operator must
    /// fix the server.
    #[error(transparent)]
    Unreachable(Reason),
    /// The error persists until a setting or the table is changed.
    #[error(transparent)]
    Refused(Reason),
}
