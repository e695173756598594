//! The table `pseidon_logs` in MySQL or MariaDB, which says which topics run and how.
//!
//! [`database`] is the way to a server: it blocks, with time limits, and makes a broken connection
//! anew. [`LogTable`] reads the rows of a group and switches a log off. A [`LogRow`] keeps what
//! stands in a row, [`LogRow::plan`] says what it means, or what is wrong with it.
//!
//! Nothing here may be called from async code: whoever calls waits.

mod address;
pub mod database;
mod plan;
mod row;
mod table;

pub use database::TableError;
pub use plan::{LogPlan, RowMistake};
pub use row::LogRow;
pub use table::{LogTable, TableSettings};
