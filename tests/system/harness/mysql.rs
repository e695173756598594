//! A table of logs of the test's own, on the test's MariaDB.

use std::collections::BTreeMap;
use std::time::Duration;

use pseidon_mysql::database::{Database, Row};

use super::{Site, server, wait_until};

/// The table as it is documented.
const TABLE: &str = "create table pseidon_logs (
  log varchar(100) not null, format varchar(200) default null, output_format varchar(200) default null,
  base_partition varchar(200) default null, log_partition varchar(200) default null, hive_table_name varchar(200) default null,
  hive_url varchar(255), hive_user varchar(200) default null, hive_password varchar(200) default null,
  quarantine varchar(200) default '/tmp/pseidon-quarantine', log_group varchar(100) default 'default',
  enabled tinyint(1) default '1', primary key (log)
) engine=MyISAM default charset=latin1";

/// The table.
pub(crate) struct LogTable {
    database: Database,
    url: String,
    quarantine: String,
}

impl LogTable {
    /// An empty one, in a database of its own.
    pub(crate) fn new(site: &Site) -> LogTable {
        LogTable::at(
            site,
            &server("PSEIDON_TEST_MYSQL"),
            &server("PSEIDON_TEST_MYSQL"),
        )
    }

    /// The same, while pipelines reach the server at another address.
    pub(crate) fn at(site: &Site, server: &str, seen_at: &str) -> LogTable {
        let name = site.name.replace('-', "_");
        let connect = |url: &str| Database::new(url, None, None).expect("the url is right");
        connect(server)
            .execute(&format!("create database {name}"), &[])
            .expect("a database can be made");
        let database = connect(&format!("{server}/{name}"));
        database.execute(TABLE, &[]).expect("the table can be made");
        let quarantine = site.path("quarantine").display().to_string();
        LogTable {
            database,
            url: format!("{seen_at}/{name}"),
            quarantine,
        }
    }

    /// Where pipelines find it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sets a log's row, and enables it.
    pub(crate) fn set(&self, log: &str, format: &str, output_format: &str) {
        self.insert(log, &[("format", format), ("output_format", output_format)]);
    }

    /// Sets these columns of a log's row. It is enabled, in the group `etl` and with a place for
    /// what is bad, unless they say otherwise.
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

    /// Puts all logs into another group.
    pub(crate) fn regroup(&self, group: &str) {
        self.change("update pseidon_logs set log_group = ?", &[group]);
    }

    /// Disables a log.
    pub(crate) fn disable(&self, log: &str) {
        self.change("update pseidon_logs set enabled = 0 where log = ?", &[log]);
    }

    /// Takes a log's row away.
    pub(crate) fn delete(&self, log: &str) {
        self.change("delete from pseidon_logs where log = ?", &[log]);
    }

    /// Whether a log is enabled.
    pub(crate) fn is_enabled(&self, log: &str) -> bool {
        !self
            .ask(
                "select log from pseidon_logs where log = ? and enabled = 1",
                &[log],
            )
            .is_empty()
    }

    /// Does something that may be done again, until the server has done it: it may be away just
    /// now.
    fn change(&self, statement: &str, parameters: &[&str]) {
        wait_until("mysql does what it is told", 60, || {
            let done = self.database.execute(statement, parameters).is_ok();
            if !done {
                std::thread::sleep(Duration::from_millis(100));
            }
            done
        });
    }

    fn ask(&self, statement: &str, parameters: &[&str]) -> Vec<Row> {
        self.database
            .execute(statement, parameters)
            .expect("mysql answers")
    }
}
