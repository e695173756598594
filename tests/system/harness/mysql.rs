//! A table of logs for one test, on the tests' MariaDB.

use std::collections::BTreeMap;
use std::time::Duration;

use pseidon_mysql::database::{Database, Row};

use super::{Site, server, wait_until};

/// The page that documents the table.
const PAGE: &str = include_str!("../../../docs/logs.md");

/// The documented definition of the table, as a MyISAM table in latin1, which pseidon-etl's is.
fn definition() -> String {
    let (_, block) = PAGE
        .split_once("```sql table\n")
        .expect("the page has the table");
    let (definition, _) = block.split_once(";\n```").expect("the block ends");
    format!("{definition} engine=MyISAM default charset=latin1")
}

/// The table.
pub(crate) struct LogTable {
    database: Database,
    url: String,
    quarantine: String,
}

impl LogTable {
    /// An empty table in a new database.
    pub(crate) fn new(site: &Site) -> LogTable {
        LogTable::at(
            site,
            &server("PSEIDON_TEST_MYSQL"),
            &server("PSEIDON_TEST_MYSQL"),
        )
    }

    /// The same, while pipelines connect to the server at the address `seen_at`.
    pub(crate) fn at(site: &Site, server: &str, seen_at: &str) -> LogTable {
        let name = site.name.replace('-', "_");
        let connect = |url: &str| Database::new(url, None, None).expect("the url is right");
        connect(server)
            .execute(&format!("create database {name}"), &[])
            .expect("a database can be made");
        let database = connect(&format!("{server}/{name}"));
        database
            .execute(&definition(), &[])
            .expect("the table can be made");
        let quarantine = site.path("quarantine").display().to_string();
        LogTable {
            database,
            url: format!("{seen_at}/{name}"),
            quarantine,
        }
    }

    /// The URL of the table's database for pipelines.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sets the row of a log, and enables it.
    pub(crate) fn set(&self, log: &str, format: &str, output_format: &str) {
        self.insert(log, &[("format", format), ("output_format", output_format)]);
    }

    /// Sets columns of the row of a log. Unless they say otherwise, it is enabled, in the group
    /// `etl`, and has a quarantine.
    pub(crate) fn insert(&self, log: &str, columns: &[(&str, &str)]) {
        let mut values = BTreeMap::from([
            ("log", log),
            ("quarantine", &self.quarantine),
            ("log_group", "etl"),
            ("enabled", "1"),
        ]);
        values.extend(columns.iter().copied());
        let names = values.keys().copied().collect::<Vec<_>>().join(", ");
        let places = vec!["?"; values.len()].join(", ");
        let values: Vec<&str> = values.into_values().collect();
        self.change(
            &format!("replace into pseidon_logs ({names}) values ({places})"),
            &values,
        );
    }

    /// Adds the column that some tables have.
    pub(crate) fn add_date_format(&self) {
        self.change(
            "alter table pseidon_logs add date_format varchar(100) default null",
            &[],
        );
    }

    /// Sets the group of all logs.
    pub(crate) fn regroup(&self, group: &str) {
        self.change("update pseidon_logs set log_group = ?", &[group]);
    }

    /// Disables a log.
    pub(crate) fn disable(&self, log: &str) {
        self.change("update pseidon_logs set enabled = 0 where log = ?", &[log]);
    }

    /// Deletes the row of a log.
    pub(crate) fn delete(&self, log: &str) {
        self.change("delete from pseidon_logs where log = ?", &[log]);
    }

    /// Whether a log is enabled.
    pub(crate) fn is_enabled(&self, log: &str) -> bool {
        !self
            .query(
                "select log from pseidon_logs where log = ? and enabled = 1",
                &[log],
            )
            .is_empty()
    }

    /// Retries an idempotent statement until it succeeds: the server may be down.
    fn change(&self, statement: &str, parameters: &[&str]) {
        wait_until("mysql executes the statement", 60, || {
            let done = self.database.execute(statement, parameters).is_ok();
            if !done {
                std::thread::sleep(Duration::from_millis(100));
            }
            done
        });
    }

    fn query(&self, statement: &str, parameters: &[&str]) -> Vec<Row> {
        self.database
            .execute(statement, parameters)
            .expect("mysql answers")
    }
}
