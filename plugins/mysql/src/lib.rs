//! The table `pseidon_logs` in MySQL or MariaDB, which defines the logs to run.
//!
//! [`database`] is a blocking client with timeouts that reopens a broken connection. [`LogTable`]
//! reads the rows of a group and disables a log. A [`LogRow`] holds the columns of a row, and
//! [`LogRow::plan`] interprets them or returns the first error.
//!
//! All calls block, so none may be made from async code.

#![forbid(unsafe_code)]

mod address;
pub mod database;
mod plan;
mod row;
mod ssl_mode;
mod table;

pub use database::TableError;
pub use plan::{LogPlan, RowError};
pub use row::LogRow;
pub use table::{LogTable, TableSettings};
