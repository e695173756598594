//! The columns of Hive's tables, as Arrow's fields: what typed files (Parquet, Avro) of a log are
//! made of.
//!
//! Hive keeps them in its metastore. They are asked of the metastore's Thrift service
//! ([`Place::Metastore`]) or of a HiveServer2 ([`Place::Server`]), or read in the database that the
//! metastore itself keeps its tables in ([`Place::Database`]); a folder with schema files
//! ([`read_file`]) does without Hive.
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
//! Nothing here may be called from async code: whoever calls waits, with time limits.

mod columns;
mod connection;
mod database;
mod file;
mod message;
mod metastore;
mod place;
mod server;
mod table;
mod types;

pub use columns::columns;
pub use file::read_file;
pub use place::Place;
pub use server::Server;

/// Why there are no columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HiveError {
    /// Who knows them cannot be reached or cannot answer now. It passes by itself, or when somebody
    /// has looked after the server.
    #[error("{0}")]
    Unreachable(String),
    /// It will not work until a setting or the table is changed.
    #[error("{0}")]
    Refused(String),
}
