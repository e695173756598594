//! Tests of the table on a real server, whose URL is in the environment. Each test has its own
//! database; the one that kills a server starts its own server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use pseidon_delivery::WithCauses;
use pseidon_mysql::database::Database;
use pseidon_mysql::{LogRow, LogTable, TableError, TableSettings};

/// The table as documented for pseidon-etl.
const DOCUMENTED: &str = "create table `pseidon_logs` (
  `log` varchar(100) NOT NULL,
  `format` varchar(200) DEFAULT NULL,
  `output_format` varchar(200) DEFAULT NULL,
  `base_partition` varchar(200) DEFAULT NULL,
  `log_partition` varchar(200) DEFAULT NULL,
  `hive_table_name` varchar(200) DEFAULT NULL,
  `hive_url` varchar(255),
  `hive_user` varchar(200) DEFAULT NULL,
  `hive_password` varchar(200) DEFAULT NULL,
  `quarantine` varchar(200) DEFAULT \"/tmp/pseidon-quarantine\",
  `log_group` varchar(100) DEFAULT 'default',
  `enabled`  tinyint(1) DEFAULT '1',
  PRIMARY KEY (`log`)
) ENGINE=MyISAM DEFAULT CHARSET=latin1";

fn server_url() -> String {
    std::env::var("PSEIDON_TEST_MYSQL").unwrap_or_else(|_| {
        panic!(
            "PSEIDON_TEST_MYSQL is not set: start the servers and set their URLs \
             with: eval \"$(scripts/local-up)\""
        )
    })
}

/// A database that no other test, and no earlier run, has used.
struct TestDatabase {
    url: String,
    database: Database,
}

impl TestDatabase {
    fn on(server: &str) -> TestDatabase {
        static USED: AtomicU32 = AtomicU32::new(0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let name = format!(
            "test_{}_{now}_{}",
            std::process::id(),
            USED.fetch_add(1, Ordering::Relaxed)
        );
        Database::new(server, None, None)
            .unwrap()
            .execute(&format!("create database {name}"), &[])
            .unwrap();
        let url = format!("{server}/{name}");
        TestDatabase {
            database: Database::new(&url, None, None).unwrap(),
            url,
        }
    }

    /// A database with the documented table.
    fn with_logs(server: &str) -> TestDatabase {
        let fresh = TestDatabase::on(server);
        fresh.run(DOCUMENTED);
        fresh
    }

    fn run(&self, statement: &str) {
        self.database.execute(statement, &[]).unwrap();
    }

    fn settings(&self) -> TableSettings {
        TableSettings {
            url: self.url.clone(),
            user: None,
            password: None,
            table: "pseidon_logs".to_owned(),
            group: "etl".to_owned(),
        }
    }

    fn logs(&self) -> LogTable {
        LogTable::new(&self.settings()).unwrap()
    }

    fn refused(&self, settings: TableSettings) -> String {
        match LogTable::new(&settings).unwrap().rows() {
            Err(TableError::Refused(reason)) => WithCauses(&reason).to_string(),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A test that failed because its server is gone has already reported that.
        let name = self.database.name().unwrap_or_default();
        let _ = self.database.execute(&format!("drop database {name}"), &[]);
    }
}

fn names(rows: &[LogRow]) -> Vec<&str> {
    rows.iter().map(LogRow::log).collect()
}

#[test]
fn only_the_enabled_rows_of_the_group_are_read() {
    let fresh = TestDatabase::with_logs(&server_url());
    let logs = fresh.logs();
    assert!(logs.rows().unwrap().is_empty());
    fresh.run(
        "insert into pseidon_logs (log, log_group, enabled) values
         ('b', 'etl', 1), ('a', 'etl', 1), ('off', 'etl', 0), ('none', 'etl', null), ('other', 'other', 1), ('lost', null, 1)",
    );
    fresh.run("insert into pseidon_logs (log) values ('standard')");
    assert_eq!(names(&logs.rows().unwrap()), ["a", "b"]);
    let default = LogTable::new(&TableSettings {
        group: "default".to_owned(),
        ..fresh.settings()
    })
    .unwrap();
    assert_eq!(names(&default.rows().unwrap()), ["standard"]);
    let odd = LogTable::new(&TableSettings {
        group: "x' or '1'='1".to_owned(),
        ..fresh.settings()
    })
    .unwrap();
    assert!(odd.rows().unwrap().is_empty());
}

#[test]
fn every_column_of_the_table_is_read() {
    let fresh = TestDatabase::with_logs(&server_url());
    let logs = fresh.logs();
    fresh.run(
        "insert into pseidon_logs (log, format, hive_url, log_group) values ('clicks', \
         'txt:ts=0;msg=1', '', 'etl')",
    );
    let before = logs.rows().unwrap().remove(0);
    assert_eq!(before.columns().len(), 12);
    assert_eq!(before.column("format"), Some("txt:ts=0;msg=1"));
    assert_eq!(before.column("output_format"), None);
    assert_eq!(before.column("hive_url"), Some(""));
    assert_eq!(before.column("quarantine"), Some("/tmp/pseidon-quarantine"));
    assert_eq!(before.column("enabled"), Some("1"));
    assert_eq!(
        logs.rows().unwrap(),
        std::slice::from_ref(&before),
        "what did not change is equal"
    );
    assert_eq!(LogRow::from_text(&before.to_text()).unwrap(), before);

    // The connection that has read the old table reads the new one.
    fresh.run(
        "alter table pseidon_logs drop column hive_user, add column `Date_Format` varchar(20) default 'datehour',
         add column price decimal(6,2) default 1.5, add column ratio double default 0.25,
         add column `at` datetime default '2024-02-29 01:02:03', add column `day` date default '2024-02-29',
         add column span time default '-01:02:03', add column big bigint unsigned default 18446744073709551615,
         add column raw varbinary(9) default x'ff41'",
    );
    let after = logs.rows().unwrap().remove(0);
    assert_ne!(after, before);
    assert_eq!(after.columns().len(), 19);
    for (name, value) in [
        ("date_format", "datehour"),
        ("price", "1.50"),
        ("ratio", "0.25"),
        ("at", "2024-02-29 01:02:03"),
        ("day", "2024-02-29"),
        ("span", "-001:02:03"),
        ("big", "18446744073709551615"),
        ("raw", "\u{fffd}A"),
    ] {
        assert_eq!(after.column(name), Some(value), "{name}");
    }
    fresh.run("update pseidon_logs set format = null");
    assert_ne!(logs.rows().unwrap(), [after]);
}

#[test]
fn latin1_is_decoded() {
    let fresh = TestDatabase::with_logs(&server_url());
    fresh
        .database
        .execute(
            "insert into pseidon_logs (log, base_partition, log_group) values (?, ?, 'étl')",
            &["ü", "/straße"],
        )
        .unwrap();
    let bytes = fresh
        .database
        .execute(
            "select hex(base_partition) as stored from pseidon_logs",
            &[],
        )
        .unwrap();
    assert_eq!(
        bytes[0]["stored"].as_deref(),
        Some("2F73747261DF65"),
        "the table is latin1"
    );
    let logs = LogTable::new(&TableSettings {
        group: "étl".to_owned(),
        ..fresh.settings()
    })
    .unwrap();
    let rows = logs.rows().unwrap();
    assert_eq!(
        (rows[0].log(), rows[0].column("base_partition")),
        ("ü", Some("/straße"))
    );
    logs.switch_off("ü").unwrap();
    assert!(logs.rows().unwrap().is_empty());
}

#[test]
fn a_log_is_switched_off_in_its_own_group_only() {
    let fresh = TestDatabase::with_logs(&server_url());
    let logs = fresh.logs();
    fresh.run(
        "insert into pseidon_logs (log, log_group) values ('a', 'etl'), ('b', 'etl'), ('c', \
         'other')",
    );
    logs.switch_off("a").unwrap();
    assert_eq!(names(&logs.rows().unwrap()), ["b"]);
    logs.switch_off("c").unwrap();
    logs.switch_off("unknown' or '1'='1").unwrap();
    let on = fresh
        .database
        .execute(
            "select log from pseidon_logs where enabled = 1 order by log",
            &[],
        )
        .unwrap();
    assert_eq!(
        on.iter()
            .map(|row| row["log"].as_deref().unwrap())
            .collect::<Vec<_>>(),
        ["b", "c"]
    );
}

#[test]
fn a_table_without_a_key_returns_each_log_once() {
    let fresh = TestDatabase::on(&server_url());
    fresh.run("create table pseidon_logs (log text, log_group text, enabled int)");
    fresh.run(
        "insert into pseidon_logs values ('a', 'etl', 1), ('a', 'etl', 1), ('b', 'etl', 1), (null, \
         'etl', 1)",
    );
    assert_eq!(names(&fresh.logs().rows().unwrap()), ["", "a", "b"]);
}

#[test]
fn the_table_may_be_in_another_database() {
    let (here, there) = (
        TestDatabase::on(&server_url()),
        TestDatabase::with_logs(&server_url()),
    );
    there.run("insert into pseidon_logs (log, log_group) values ('a', 'etl')");
    let table = format!("{}.pseidon_logs", there.database.name().unwrap());
    let logs = LogTable::new(&TableSettings {
        table,
        ..here.settings()
    })
    .unwrap();
    assert_eq!(names(&logs.rows().unwrap()), ["a"]);
}

#[test]
fn jdbc_urls_of_older_settings_work() {
    let fresh = TestDatabase::with_logs(&server_url());
    fresh.run("insert into pseidon_logs (log, log_group) values ('a', 'etl')");
    let rest = fresh.url.strip_prefix("mysql://root@").unwrap();
    let settings = TableSettings {
        url: format!("//{rest}?autoReconnect=true&useSSL=true"),
        user: Some("root".to_owned()),
        password: Some(String::new()),
        ..fresh.settings()
    };
    assert_eq!(
        names(&LogTable::new(&settings).unwrap().rows().unwrap()),
        ["a"]
    );
}

#[test]
fn errors_that_waiting_cannot_resolve_are_refused() {
    let fresh = TestDatabase::on(&server_url());
    let missing = fresh.refused(fresh.settings());
    assert!(
        missing.contains("pseidon_logs") && missing.contains("1146"),
        "{missing}"
    );
    let password = fresh.refused(TableSettings {
        password: Some("geheim".to_owned()),
        ..fresh.settings()
    });
    assert!(
        password.contains("Access denied") && !password.contains("geheim"),
        "{password}"
    );
    let database = fresh.refused(TableSettings {
        url: format!("{}/no_such_database", server_url()),
        ..fresh.settings()
    });
    assert!(database.contains("no_such_database"), "{database}");
    fresh.run("create table pseidon_logs (log text, enabled int)");
    let column = fresh.refused(fresh.settings());
    assert!(column.contains("log_group"), "{column}");
}

#[test]
fn a_user_who_may_only_read_cannot_switch_off() {
    let fresh = TestDatabase::with_logs(&server_url());
    let name = fresh.database.name().unwrap().to_owned();
    let user = format!("reader_{}", std::process::id());
    fresh.run(&format!(
        "create or replace user {user} identified by 'pass/w@rd'"
    ));
    fresh.run(&format!("grant select on {name}.* to {user}"));
    fresh.run("insert into pseidon_logs (log, log_group) values ('a', 'etl')");
    let settings = TableSettings {
        user: Some(user.clone()),
        password: Some("pass/w@rd".to_owned()),
        ..fresh.settings()
    };
    let logs = LogTable::new(&settings).unwrap();
    assert_eq!(names(&logs.rows().unwrap()), ["a"]);
    let denied = logs.switch_off("a").unwrap_err();
    assert!(
        matches!(&denied, TableError::Refused(reason) if reason.to_string().contains("UPDATE command denied")),
        "{denied:?}"
    );
    assert_eq!(
        names(&logs.rows().unwrap()),
        ["a"],
        "the connection is still good"
    );
    fresh.run(&format!("drop user {user}"));
}

#[test]
fn a_connection_that_the_server_has_closed_is_replaced() {
    let fresh = TestDatabase::with_logs(&server_url());
    fresh.run("insert into pseidon_logs (log, log_group) values ('a', 'etl')");
    let connection = |database: &Database| {
        database
            .execute("select connection_id() as id", &[])
            .unwrap()[0]["id"]
            .clone()
            .unwrap()
    };
    let other = Database::new(&fresh.url, None, None).unwrap();
    let first = connection(&other);
    assert_eq!(connection(&other), first, "one connection is cached");
    fresh.run(&format!("kill {first}"));
    assert_ne!(connection(&other), first);
}

#[test]
fn a_statement_that_hangs_times_out() {
    let fresh = TestDatabase::with_logs(&server_url());
    let hung = fresh.database.execute("select sleep(60)", &[]).unwrap_err();
    assert!(
        matches!(&hung, TableError::Unreachable(reason) if reason.to_string().contains("more than 5 s")),
        "{hung:?}"
    );
    assert!(fresh.logs().rows().unwrap().is_empty());
    fresh.run("select 1");
}

#[test]
fn a_server_that_never_answers_times_out() {
    // The kernel accepts the connection, but nothing answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let database = Database::new(&format!("mysql://root@127.0.0.1:{port}/db"), None, None).unwrap();
    let error = database.execute("select 1", &[]).unwrap_err();
    assert!(
        matches!(&error, TableError::Unreachable(reason) if reason.to_string().contains("connecting took more than")),
        "{error:?}"
    );
}

#[test]
fn a_crash_of_the_server_is_survived() {
    let own = TestServer::start();
    let fresh = TestDatabase::with_logs(&own.url);
    fresh.run("insert into pseidon_logs (log, log_group) values ('a', 'etl'), ('b', 'etl')");
    let logs = fresh.logs();
    let before = logs.rows().unwrap();
    logs.switch_off("b").unwrap();
    for _ in 0..2 {
        own.script("local-kill");
        for outcome in [logs.rows().map(drop), logs.switch_off("a")] {
            assert!(
                matches!(&outcome, Err(TableError::Unreachable(_))),
                "{outcome:?}"
            );
        }
        own.script("local-restart");
        assert_eq!(
            logs.rows().unwrap(),
            before[..1],
            "the first request works, and the data is there"
        );
    }
    // No request was made while the server was down.
    own.script("local-restart");
    assert_eq!(logs.rows().unwrap(), before[..1]);
}

/// A server that belongs to one test.
struct TestServer {
    url: String,
    dir: tempfile::TempDir,
}

impl TestServer {
    fn start() -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(script("local-up"))
            .arg("--dir")
            .arg(dir.path())
            .arg("mariadb")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "local-up: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let env = String::from_utf8(output.stdout).unwrap();
        let line = env
            .lines()
            .find_map(|line| line.strip_prefix("export PSEIDON_TEST_MYSQL="))
            .unwrap();
        TestServer {
            url: line.trim_matches('\'').to_owned(),
            dir,
        }
    }

    fn script(&self, name: &str) {
        let status = Command::new(script(name))
            .arg("--dir")
            .arg(self.dir.path())
            .arg("mariadb")
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = Command::new(script("local-down"))
            .arg("--dir")
            .arg(self.dir.path())
            .status();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../scripts")
        .join(name)
}
