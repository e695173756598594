//! Tests with the metastore's own tables in a real MariaDB, whose URL is in the environment.

use std::sync::atomic::{AtomicU32, Ordering};

use pseidon_delivery::WithCauses;
use pseidon_hive::{HiveEndpoint, HiveError, columns};
use pseidon_mysql::database::Database;

/// The metastore's tables, as created by Hive's `hive-schema-2.3.0.mysql.sql`, without the tables
/// that they reference.
const TABLES: [&str; 5] = [
    "CREATE TABLE `DBS` (`DB_ID` bigint(20) NOT NULL, `DESC` varchar(4000) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT NULL,
       `DB_LOCATION_URI` varchar(4000) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, 
       `NAME` varchar(128) CHARACTER SET latin1 COLLATE latin1_bin, `OWNER_NAME` varchar(128), `OWNER_TYPE` varchar(10),
       PRIMARY KEY (`DB_ID`)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
    "CREATE TABLE `TBLS` (`TBL_ID` bigint(20) NOT NULL, `CREATE_TIME` int(11) NOT NULL, `DB_ID` bigint(20), 
       `LAST_ACCESS_TIME` int(11) NOT NULL, `OWNER` varchar(767), `RETENTION` int(11) NOT NULL, `SD_ID` bigint(20),
       `TBL_NAME` varchar(256) CHARACTER SET latin1 COLLATE latin1_bin, `TBL_TYPE` varchar(128),
       PRIMARY KEY (`TBL_ID`)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
    "CREATE TABLE `SDS` (`SD_ID` bigint(20) NOT NULL, `CD_ID` bigint(20), `INPUT_FORMAT` varchar(4000), `IS_COMPRESSED` bit(1) NOT NULL,
       `LOCATION` varchar(4000), `NUM_BUCKETS` int(11) NOT NULL, `OUTPUT_FORMAT` varchar(4000), `SERDE_ID` bigint(20),
       PRIMARY KEY (`SD_ID`)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
    "CREATE TABLE `COLUMNS_V2` (`CD_ID` bigint(20) NOT NULL, `COMMENT` varchar(256) CHARACTER SET latin1 COLLATE latin1_bin,
       `COLUMN_NAME` varchar(767) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, `TYPE_NAME` mediumtext, `INTEGER_IDX` int(11) NOT NULL,
       PRIMARY KEY (`CD_ID`,`COLUMN_NAME`)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
    "CREATE TABLE `PARTITION_KEYS` (`TBL_ID` bigint(20) NOT NULL, `PKEY_COMMENT` varchar(4000), `PKEY_NAME` varchar(128) NOT NULL,
       `PKEY_TYPE` varchar(767) NOT NULL, `INTEGER_IDX` int(11) NOT NULL,
       PRIMARY KEY (`TBL_ID`,`PKEY_NAME`)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
];

const CONTENT: [&str; 5] = [
    "insert into DBS (DB_ID, DB_LOCATION_URI, NAME) values (1, 'hdfs://nn/warehouse', 'default'), (2, 'hdfs://nn/web', 'web')",
    "insert into TBLS (TBL_ID, CREATE_TIME, DB_ID, LAST_ACCESS_TIME, RETENTION, SD_ID, TBL_NAME) values
       (10, 0, 1, 0, 0, 100, 'clicks'), (11, 0, 2, 0, 0, 101, 'clicks'), (12, 0, 2, 0, 0, 102, 'odd'), (13, 0, 2, 0, 0, 103, 'bare')",
    "insert into SDS (SD_ID, CD_ID, IS_COMPRESSED, NUM_BUCKETS) values
       (100, 1000, 0, 1), (101, 1001, 0, 1), (102, 1002, 0, 1), (103, null, 0, 1)",
    "insert into COLUMNS_V2 (CD_ID, COLUMN_NAME, TYPE_NAME, INTEGER_IDX) values
       (1000, 'only', 'string', 0),
       (1001, 'url', 'string', 1), (1001, 'Id', 'bigint', 0), (1001, 'price', 'decimal(10,2)', 10), (1001, 'tags', 'array<string>', 2),
       (1001, 'hr', 'int', 3), (1002, 'u', 'uniontype<int,string>', 0)",
    "insert into PARTITION_KEYS values (11, null, 'dt', 'string', 0), (11, null, 'country', 'string', 1)",
];

struct Metastore {
    database: Database,
    endpoint: HiveEndpoint,
}

impl Metastore {
    fn new() -> Metastore {
        let server = std::env::var("PSEIDON_TEST_MYSQL").unwrap_or_else(|_| {
            panic!("PSEIDON_TEST_MYSQL is not set: start the servers and set their addresses: eval \"$(scripts/local-up)\"")
        });
        static USED: AtomicU32 = AtomicU32::new(0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let name = format!(
            "metastore_{}_{now}_{}",
            std::process::id(),
            USED.fetch_add(1, Ordering::Relaxed)
        );
        Database::new(&server, None, None)
            .unwrap()
            .execute(&format!("create database {name}"), &[])
            .unwrap();
        let url = format!("{server}/{name}");
        let database = Database::new(&url, None, None).unwrap();
        for statement in TABLES.iter().chain(&CONTENT) {
            database.execute(statement, &[]).unwrap();
        }
        Metastore {
            database,
            endpoint: url.parse().unwrap(),
        }
    }

    fn shown(&self, table: &str) -> String {
        let schema = columns(&self.endpoint, table).unwrap();
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn refused(&self, table: &str) -> String {
        match columns(&self.endpoint, table) {
            Err(HiveError::Refused(reason)) => WithCauses(&reason).to_string(),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Metastore {
    fn drop(&mut self) {
        // Ignored: a test that failed because its server is gone has already reported it.
        let name = self.database.name().unwrap_or_default();
        let _ = self.database.execute(&format!("drop database {name}"), &[]);
    }
}

#[test]
fn columns_are_read_in_order_without_partition_columns() {
    let metastore = Metastore::new();
    assert_eq!(
        metastore.shown("web.clicks"),
        "id Int64, url Utf8, tags List(Utf8), price Decimal128(10, 2)"
    );
    assert_eq!(
        metastore.shown("WEB.Clicks"),
        metastore.shown("web.clicks"),
        "hive names are not case-sensitive"
    );
    assert_eq!(
        metastore.shown("clicks"),
        "only Utf8",
        "a name without a database is in `default`"
    );
}

#[test]
fn unsupported_tables_are_rejected() {
    let metastore = Metastore::new();
    assert!(
        metastore
            .refused("web.nothing")
            .contains("hive table web.nothing not found")
    );
    assert!(
        metastore
            .refused("nowhere.clicks")
            .contains("hive table nowhere.clicks not found")
    );
    assert!(
        metastore
            .refused("web.odd")
            .contains("column u of type uniontype<int,string>")
    );
    assert!(metastore.refused("web.bare").contains("has no columns"));
    assert!(metastore.refused("a.b.c").contains("DATABASE.TABLE"));
    // As in a metastore with two catalogs.
    metastore
        .database
        .execute(
            "insert into DBS (DB_ID, DB_LOCATION_URI, NAME) values (3, 'hdfs://other', 'web')",
            &[],
        )
        .unwrap();
    let second = "insert into TBLS (TBL_ID, CREATE_TIME, DB_ID, LAST_ACCESS_TIME, RETENTION, SD_ID, TBL_NAME)
        values (14, 0, 3, 0, 0, 100, 'clicks')";
    metastore.database.execute(second, &[]).unwrap();
    assert!(metastore.refused("web.clicks").contains("several catalogs"));
}

#[test]
fn a_database_without_metastore_tables_is_rejected() {
    let metastore = Metastore::new();
    metastore
        .database
        .execute("drop table COLUMNS_V2", &[])
        .unwrap();
    let reason = metastore.refused("web.clicks");
    assert!(
        reason.contains("the metastore's database") && reason.contains("COLUMNS_V2"),
        "{reason}"
    );
}

#[test]
fn an_unreachable_server_is_a_transient_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint: HiveEndpoint = format!("mysql://root@127.0.0.1:{port}/metastore")
        .parse()
        .unwrap();
    assert!(matches!(
        columns(&endpoint, "web.clicks"),
        Err(HiveError::Unreachable(_))
    ));
}
