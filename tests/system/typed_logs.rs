//! Logs with columns: Parquet and Avro files, with the columns of a schema file or of the Hive
//! metastore.

use std::collections::BTreeMap;

use pseidon_mysql::database::Database;

use crate::harness::mysql::LogTable;
use crate::harness::output::{columns, files, lines, rows};
use crate::harness::topics::produce;
use crate::harness::{Site, brokers, server, wait_until};
use crate::log_table::Template;

const VISITS: &str = r#"{:id :int64 :count :int32 :price "decimal(10,2)" :at :timestamp_ms :day :date32 :ratio :float64 :ok :boolean :name :utf8}"#;

/// A row as [`rows`] returns it.
type Values = BTreeMap<String, String>;

fn template(site: &Site, table: &LogTable, more: &str) -> String {
    Template {
        brokers: &brokers(),
        redis: None,
        port: None,
        more,
    }
    .text(site, table)
}

/// The rows of all files of a log by their column `id`. The names of the files must end with
/// `ending`.
fn by_id(site: &Site, log: &str, ending: &str) -> BTreeMap<i64, Values> {
    let mut found = BTreeMap::new();
    for file in files(&site.path("out").join(log)) {
        assert!(
            file.to_string_lossy().ends_with(ending),
            "{}",
            file.display()
        );
        for row in rows(&file) {
            let id = row["id"].parse().expect("a number");
            assert_eq!(found.insert(id, row), None, "{id} occurs twice");
        }
    }
    found
}

fn row(values: &[(&str, &str)]) -> Values {
    values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The quarantined records in a folder, each with its reason.
fn quarantined(site: &Site, folder: &str) -> Vec<(String, String)> {
    let text = |line: &String| -> (String, String) {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line of json");
        let text = |field: &str| {
            value[field]
                .as_str()
                .unwrap_or_else(|| panic!("{field} in {value}"))
                .to_owned()
        };
        (text("record"), text("reason"))
    };
    let mut found: Vec<_> = files(&site.path(folder))
        .iter()
        .flat_map(|file| lines(file))
        .map(|line| text(&line))
        .collect();
    found.sort();
    found
}

/// The columnar outputs. Each test of a schema file has a log for each.
const OUTPUTS: [&str; 2] = ["parquet", "avro"];

fn log_of(site: &Site, output: &str) -> String {
    format!("{}-{output}", site.name)
}

/// Runs a log for each of [`OUTPUTS`] over the same records, until this number of rows of each is
/// visible.
fn run_logs(site: &Site, format: &str, hive_table: &str, records: &[String], count: usize) {
    let table = LogTable::new(site);
    for output in OUTPUTS {
        let log = log_of(site, output);
        produce(&log, 0, records);
        let quarantine = site.path(&format!("bad-{output}")).display().to_string();
        let row = [
            ("format", format),
            ("output_format", output),
            ("hive_table_name", hive_table),
            ("quarantine", &quarantine),
        ];
        table.insert(&log, &row);
    }
    site.write(
        "pipeline.edn",
        template(site, &table, ":schemas \"schemas\""),
    );
    let mut pseidon = site.run("pipeline.edn");
    for output in OUTPUTS {
        let log = log_of(site, output);
        wait_until(&format!("{log} is read"), 60, || {
            by_id(site, &log, output).len() == count || !pseidon.is_running()
        });
    }
    pseidon.stop(40);
}

/// Records with every column.
fn visits() -> impl Iterator<Item = String> {
    (0..50).map(|id| {
        format!(
            "1700000000000;{id};{};{id}.{:02};2023-11-14T22:13:{:02}Z;2023-11-{:02};0.5;true;visitor {id}",
            id * 7,
            id,
            id,
            id % 28 + 1
        )
    })
}

/// Missing fields at the end are null; a timestamp may be a number; a decimal may be negative and
/// have fewer digits.
const ODD_VISITS: [&str; 2] = [
    "1700000000000;100;-2147483648;-3.5;1700000000000",
    "1700000000000;101;1;2;2023-11-15T00:13:20.250+01:00;2024-02-29;-1e3;false;überall ✓;more;of it",
];

/// Invalid records, each with the column that the reason names.
const BAD_VISITS: [(&str, &str); 8] = [
    ("1700000000000;many;1;1;1700000000000", "id"),
    ("1700000000000;200;2147483648;1;1700000000000", "count"),
    ("1700000000000;201;1;123456789.00;1700000000000", "price"),
    ("1700000000000;202;1;1;yesterday", "at"),
    ("1700000000000;203;1;1;1700000000000;2023-02-30", "day"),
    (
        "1700000000000;204;1;1;1700000000000;2023-02-03;half",
        "ratio",
    ),
    (
        "1700000000000;205;1;1;1700000000000;2023-02-03;0.5;perhaps",
        "ok",
    ),
    ("no time;206", "ts"),
];

const VISIT_7: [(&str, &str); 8] = [
    ("id", "7"),
    ("count", "49"),
    ("price", "7.07"),
    ("at", "2023-11-14T22:13:07Z"),
    ("day", "2023-11-08"),
    ("ratio", "0.5"),
    ("ok", "true"),
    ("name", "visitor 7"),
];
const VISIT_100: [(&str, &str); 4] = [
    ("id", "100"),
    ("count", "-2147483648"),
    ("price", "-3.50"),
    ("at", "2023-11-14T22:13:20Z"),
];
const VISIT_101: [(&str, &str); 8] = [
    ("id", "101"),
    ("count", "1"),
    ("price", "2.00"),
    ("at", "2023-11-14T23:13:20.250Z"),
    ("day", "2024-02-29"),
    ("ratio", "-1000.0"),
    ("ok", "false"),
    ("name", "überall ✓"),
];

/// Strings are converted to the types of the columns; a string that cannot be converted makes only
/// its own record invalid.
#[test]
fn text_fields_become_columns() {
    let site = Site::new("typed-txt");
    site.write("schemas/web.visits.edn", VISITS);
    let odd = ODD_VISITS.map(str::to_owned);
    let bad = BAD_VISITS.map(|(record, _)| record.to_owned());
    let records: Vec<String> = visits().chain(odd).chain(bad).collect();
    let format = "txt:sep=semicolon;ts=0;msg=1:9";
    run_logs(&site, format, "web.visits", &records, 52);

    for output in OUTPUTS {
        let log = log_of(&site, output);
        let found = by_id(&site, &log, &format!(".{output}"));
        assert_eq!(found.len(), 52);
        assert_eq!(found[&7], row(&VISIT_7), "{output}");
        assert_eq!(found[&100], row(&VISIT_100), "{output}");
        assert_eq!(found[&101], row(&VISIT_101), "{output}");
        let quarantined = quarantined(&site, &format!("bad-{output}"));
        for (record, column) in BAD_VISITS {
            let reason = quarantined
                .iter()
                .find(|(found, _)| found == record)
                .map(|(_, reason)| reason);
            assert!(
                reason.is_some_and(|reason| reason.contains(&format!("`{column}`"))),
                "{record}: {reason:?}"
            );
        }
        assert_eq!(quarantined.len(), BAD_VISITS.len());
        let shown = columns(&files(&site.path("out").join(&log))[0]);
        let names: Vec<&str> = shown
            .iter()
            .filter_map(|column| column.split(' ').next())
            .collect();
        assert_eq!(
            names,
            ["id", "count", "price", "at", "day", "ratio", "ok", "name"],
            "{output}: the event time is not written"
        );
    }
}

/// Nested fields, lists and a nested event time.
#[test]
fn json_becomes_columns() {
    let site = Site::new("typed-json");
    let schema = r#"{:id :int64 :user {:name :utf8 :age :int32} :tags [:utf8] :price "decimal(8,3)" :at :timestamp_ms}"#;
    site.write("schemas/visits.edn", schema);
    let good = (0..20).map(|id| {
        format!(
            r#"{{"event":{{"at":{}}},"id":{id},"user":{{"name":"u{id}","age":{id},"more":1}},"tags":["a","b{id}"],"price":{id}.125,"at":1700000000123,"other":[1]}}"#,
            1_700_000_000 + id
        )
    });
    let sparse = r#"{"event":{"at":1700000000},"id":50,"user":null}"#.to_owned();
    let mut bad = [
        r#"{"event":{"at":1700000000},"id":"x"}"#,
        r#"{"event":{"at":1700000000},"id":60,"user":{"age":3000000000}}"#,
        r#"{"event":{"at":"then"},"id":61}"#,
        r#"{"event":{"at":1700000000},"id":62"#,
    ];
    bad.sort_unstable();
    let records: Vec<String> = good.chain([sparse]).chain(bad.map(str::to_owned)).collect();
    run_logs(&site, "json:ts_sec=event.at", "visits", &records, 21);

    for output in OUTPUTS {
        let log = log_of(&site, output);
        let found = by_id(&site, &log, &format!(".{output}"));
        let expected = [
            ("id", "7"),
            ("user", "{name: u7, age: 7}"),
            ("tags", "[a, b7]"),
            ("price", "7.125"),
            ("at", "2023-11-14T22:13:20.123Z"),
        ];
        assert_eq!(found[&7], row(&expected), "{output}");
        assert_eq!(found[&50], row(&[("id", "50")]), "{output}");
        let quarantined = quarantined(&site, &format!("bad-{output}"));
        let quarantined: Vec<&str> = quarantined
            .iter()
            .map(|(record, _)| record.as_str())
            .collect();
        assert_eq!(quarantined, bad);
        // All records are of the same hour.
        for file in files(&site.path("out").join(&log)) {
            assert!(
                file.to_string_lossy().contains("/2023-11-14-22/"),
                "{}",
                file.display()
            );
        }
    }
}

/// The tables of a metastore that are queried.
const METASTORE: [&str; 9] = [
    "create table DBS (DB_ID bigint not null primary key, NAME varchar(128))",
    "create table TBLS (TBL_ID bigint not null primary key, DB_ID bigint, SD_ID bigint, TBL_NAME varchar(256), TBL_TYPE varchar(128))",
    "create table SDS (SD_ID bigint not null primary key, CD_ID bigint)",
    "create table COLUMNS_V2 (CD_ID bigint not null, COMMENT varchar(256), COLUMN_NAME varchar(700) not null, TYPE_NAME mediumtext,
       INTEGER_IDX int not null, primary key (CD_ID, COLUMN_NAME)) default charset=latin1",
    "create table PARTITION_KEYS (TBL_ID bigint not null, PKEY_NAME varchar(128) not null, PKEY_TYPE varchar(700), INTEGER_IDX int not null)",
    "insert into DBS values (1, 'default'), (2, 'web')",
    "insert into TBLS values (10, 2, 100, 'visits', 'EXTERNAL_TABLE')",
    "insert into SDS values (100, 1000)",
    "insert into COLUMNS_V2 values (1000, null, 'Name', 'string', 1), (1000, null, 'ID', 'bigint', 0), (1000, null, 'price', 'decimal(6,2)', 2),
       (1000, null, 'hr', 'int', 3), (1000, null, 'at', 'timestamp', 4)",
];

/// Creates the database of a metastore, and returns its URL.
fn create_metastore(site: &Site) -> String {
    let server = server("PSEIDON_TEST_MYSQL");
    let name = format!("{}_metastore", site.name.replace('-', "_"));
    let connect = |url: &str| Database::new(url, None, None).expect("the url is right");
    connect(&server)
        .execute(&format!("create database {name}"), &[])
        .expect("a database can be made");
    let url = format!("{server}/{name}");
    let database = connect(&url);
    METASTORE
        .iter()
        .for_each(|statement| drop(database.execute(statement, &[]).expect(statement)));
    url
}

/// Columns from the database of a Hive metastore. A log whose table does not exist waits until its
/// row is fixed.
#[test]
fn columns_come_from_the_metastore() {
    let site = Site::new("typed-hive");
    let table = LogTable::new(&site);
    let metastore = create_metastore(&site);
    let at = 1_700_000_000_000_u64;
    let records: Vec<String> = (0..40)
        .map(|id| format!("{at}|{id}|name {id}|{id}.5|2023-11-14 22:13:20.000{id:03}"))
        .collect();
    let [found, lost] = ["found", "lost"].map(|name| format!("{}-{name}", site.name));
    for (log, table_name) in [(&found, "web.visits"), (&lost, "web.vistis")] {
        produce(log, 0, &records);
        table.insert(
            log,
            &[
                ("format", "txt:sep=pipe;ts=0;msg=1:"),
                ("output_format", "parquet"),
                ("hive_table_name", table_name),
            ],
        );
    }
    site.write(
        "pipeline.edn",
        template(&site, &table, &format!(":metastore \"{metastore}\"")),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it is read", 60, || {
        by_id(&site, &found, ".parquet").len() == 40 || !pseidon.is_running()
    });
    let rows = by_id(&site, &found, ".parquet");
    assert_eq!(
        rows[&7],
        row(&[
            ("id", "7"),
            ("name", "name 7"),
            ("price", "7.50"),
            ("at", "2023-11-14T22:13:20.000007Z")
        ])
    );
    let shown = columns(&files(&site.path("out").join(&found))[0]);
    let expected = [
        "id Int64",
        "name Utf8",
        "price Decimal128(6, 2)",
        "at Timestamp(µs, \"UTC\")",
    ];
    assert_eq!(
        shown, expected,
        "in lower case, and without partition columns"
    );

    let expected =
        format!("log `{lost}`: hive_table_name `web.vistis`: hive table web.vistis not found");
    wait_until("the log says why the other one does not start", 60, || {
        pseidon.log().contains(&expected)
    });
    table.insert(
        &lost,
        &[
            ("format", "txt:sep=pipe;ts=0;msg=1:"),
            ("output_format", "avro"),
            ("hive_table_name", "WEB.Visits"),
        ],
    );
    wait_until("the other one is read", 60, || {
        by_id(&site, &lost, ".avro").len() == 40 || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert_eq!(by_id(&site, &lost, ".avro"), rows);
    assert_eq!(quarantined(&site, "quarantine"), []);
}
