//! The table of logs.

use std::collections::BTreeSet;

use crate::database::Database;
use crate::{LogRow, TableError};

/// The address of the table, and the group whose rows are used.
#[derive(Clone)]
pub struct TableSettings {
    /// `mysql://HOST:PORT/DATABASE`, which may have `USER:PASSWORD@`, or one of JDBC's forms of it.
    pub url: String,
    /// Overrides the user of the URL.
    pub user: Option<String>,
    /// Overrides the password of the URL.
    pub password: Option<String>,
    /// `TABLE` or `DATABASE.TABLE`, of letters, digits, `_` and `$`.
    pub table: String,
    /// Only rows with this `log_group` are used.
    pub group: String,
}

/// The rows of one group of the table. Its methods block, so they must not be called from async
/// code.
pub struct LogTable {
    database: Database,
    /// The table's name, quoted for use in a statement.
    table: String,
    group: String,
}

impl LogTable {
    /// Checks the settings. Connects with the first statement.
    ///
    /// # Errors
    ///
    /// [`TableError::Refused`] with the invalid setting.
    pub fn new(settings: &TableSettings) -> Result<LogTable, TableError> {
        let table = quoted(&settings.table).map_err(|reason| TableError::Refused(reason.into()))?;
        let database = Database::new(
            &settings.url,
            settings.user.as_deref(),
            settings.password.as_deref(),
        )?;
        if database.name().is_none() && !settings.table.contains('.') {
            return Err(TableError::Refused(
                "the url of the logs' table names no database: expected mysql://HOST:PORT/DATABASE"
                    .into(),
            ));
        }
        Ok(LogTable {
            database,
            table,
            group: settings.group.clone(),
        })
    }

    /// The group's rows with `enabled = 1`, by name. Of two rows of one log, which the key of the
    /// documented table rules out, only the first is returned.
    ///
    /// # Errors
    ///
    /// [`TableError::Unreachable`] if a retry may succeed, [`TableError::Refused`] if it cannot: a
    /// wrong password, or a missing table or column.
    pub fn rows(&self) -> Result<Vec<LogRow>, TableError> {
        let statement = format!(
            "select * from {} where log_group = ? and enabled = 1 order by log",
            self.table
        );
        let mut rows = self
            .database
            .execute(&statement, &[&self.group])?
            .into_iter()
            .map(LogRow::new)
            .collect::<Vec<_>>();
        let mut seen = BTreeSet::new();
        rows.retain(|row| {
            let is_new = seen.insert(row.log().to_owned());
            if !is_new {
                tracing::warn!(
                    log = row.log(),
                    table = self.table,
                    "the log has two rows; using the first"
                );
            }
            is_new
        });
        Ok(rows)
    }

    /// Sets the log's `enabled` to 0. A log without a row does not run, so that is not an error.
    ///
    /// # Errors
    ///
    /// As for [`LogTable::rows`], and [`TableError::Refused`] if the user may not change the table.
    pub fn switch_off(&self, log: &str) -> Result<(), TableError> {
        let statement = format!(
            "update {} set enabled = 0 where log = ? and log_group = ?",
            self.table
        );
        self.database
            .execute(&statement, &[log, &self.group])
            .map(drop)
    }
}

/// The table's name in back quotes. A name cannot be bound as a parameter, so only plain names are
/// accepted.
fn quoted(table: &str) -> Result<String, String> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
    };
    let parts: Vec<&str> = table.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) {
        return Err(format!(
            "invalid name of the logs' table `{table}`: expected TABLE or DATABASE.TABLE, of \
             letters, digits, _ and $"
        ));
    }
    Ok(format!("`{}`", parts.join("`.`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_table_names_are_accepted() {
        assert_eq!(quoted("pseidon_logs").unwrap(), "`pseidon_logs`");
        assert_eq!(quoted("my$db.Logs2").unwrap(), "`my$db`.`Logs2`");
        for wrong in [
            "", ".", "a.", ".a", "a.b.c", "a b", "a`b", "a;drop", "a-b", "ä", "a'b", "a\"b", "a\\",
        ] {
            let reason = quoted(wrong).unwrap_err();
            assert!(
                reason.contains("TABLE or DATABASE.TABLE"),
                "{wrong}: {reason}"
            );
        }
    }

    #[test]
    fn settings_are_checked_without_a_connection() {
        let new = |url: &str, table: &str| {
            let (url, table) = (url.to_owned(), table.to_owned());
            LogTable::new(&TableSettings {
                url,
                user: None,
                password: None,
                table,
                group: "etl".to_owned(),
            })
        };
        let refused = |url: &str, table: &str| match new(url, table) {
            Err(TableError::Refused(reason)) => reason.to_string(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{url} and {table} are accepted"),
        };
        assert!(new("mysql://localhost/db", "pseidon_logs").is_ok());
        assert!(new("mysql://localhost", "db.pseidon_logs").is_ok());
        assert!(refused("mysql://localhost", "pseidon_logs").contains("names no database"));
        assert!(refused("localhost", "pseidon_logs").contains("expected mysql://"));
        assert!(refused("mysql://localhost/db", "a b").contains("table `a b`"));
    }
}
