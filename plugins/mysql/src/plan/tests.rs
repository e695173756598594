use proptest::prelude::*;

use super::*;

/// A row with these columns, which override those of a valid row.
fn row(columns: &[(&str, Option<&str>)]) -> LogRow {
    let right = [
        ("log", Some("clicks")),
        ("format", Some("txt:ts=0;msg=1")),
        ("hive_table_name", Some("db.clicks")),
    ];
    LogRow::new(
        right
            .iter()
            .chain(columns)
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect(),
    )
}

fn variables(columns: &[(&str, Option<&str>)], names: &[&str]) -> Vec<String> {
    let plan = row(columns).plan().unwrap();
    names
        .iter()
        .map(|name| plan.variables[*name].clone())
        .collect()
}

#[test]
fn debug_output_hides_the_password() {
    let plan = row(&[("hive_password", Some("secret"))]).plan().unwrap();
    assert_eq!(plan.variables["hive_password"], "secret");
    let shown = format!("{plan:?}");
    assert!(shown.contains("hive_password"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn output_formats_set_codec_and_compression() {
    for (output, of_txt, of_json) in [
        (None, ["txt", "gzip"], ["json", "gzip"]),
        (Some(""), ["txt", "gzip"], ["json", "gzip"]),
        (Some("txt"), ["txt", "none"], ["json", "none"]),
        (Some("gzip"), ["txt", "gzip"], ["json", "gzip"]),
        (Some("json"), ["txt", "gzip"], ["json", "gzip"]),
        (Some("snappy"), ["txt", "snappy"], ["json", "snappy"]),
        (Some("bzip2"), ["txt", "bzip2"], ["json", "bzip2"]),
        (
            Some("parquet"),
            ["parquet", "snappy"],
            ["parquet", "snappy"],
        ),
        (Some("avro"), ["avro", "snappy"], ["avro", "snappy"]),
        (
            Some(" Parquet "),
            ["parquet", "snappy"],
            ["parquet", "snappy"],
        ),
    ] {
        let names = ["codec", "compression"];
        assert_eq!(
            variables(&[("output_format", output)], &names),
            of_txt,
            "{output:?}"
        );
        assert_eq!(
            variables(
                &[("output_format", output), ("format", Some("avro-txt:ts=0"))],
                &names
            ),
            of_txt,
            "{output:?}"
        );
        assert_eq!(
            variables(
                &[("output_format", output), ("format", Some("json"))],
                &names
            ),
            of_json,
            "{output:?}"
        );
    }
    // A table without the column.
    assert_eq!(variables(&[], &["codec", "compression"]), ["txt", "gzip"]);
}

#[test]
fn formats_set_the_time_and_the_select_list() {
    for (format, time, lines, columns) in [
        ("txt:ts=0;msg=1", "ts", "msg", "* except (ts, msg)"),
        ("txt:ts_ms=3;msg=:", "ts", "msg", "* except (ts, msg)"),
        ("txt:sep=tab;ts_sec=3", "ts", "msg", "* except (ts, msg)"),
        (
            "txt:ts=-1;msg=0:3",
            "@timestamp",
            "msg",
            "* except (ts, msg)",
        ),
        ("txt:ts_sec=-1", "@timestamp", "msg", "* except (ts, msg)"),
        (
            "txt:ts=0;fields=ts,msg",
            "event_ts",
            "event_msg",
            "* except (event_ts, event_msg)",
        ),
        ("avro-txt:ts=2;msg=-1", "ts", "msg", "* except (ts, msg)"),
        (
            "avro-txt:ts_ms=-1;msg=0",
            "@timestamp",
            "msg",
            "* except (ts, msg)",
        ),
        ("json", "@timestamp", "", "*"),
        ("json:ts=-1", "@timestamp", "", "*"),
        ("json:ts=seen", "to_timestamp_millis(seen)", "", "*"),
        (
            "json:ts_ms=user.seen",
            "to_timestamp_millis(user.seen)",
            "",
            "*",
        ),
        (
            "json:ts_sec=user.seen",
            "to_timestamp_seconds(user.seen)",
            "",
            "*",
        ),
    ] {
        let names = ["time", "write"];
        assert_eq!(
            variables(&[("format", Some(format))], &names),
            [time, lines],
            "{format}"
        );
        assert_eq!(
            variables(
                &[("format", Some(format)), ("output_format", Some("avro"))],
                &names
            ),
            [time, columns],
            "{format}"
        );
    }
}

#[test]
fn date_formats_set_the_path() {
    for (format, expected) in [
        (Some("datehour"), "date=%Y%m%d/hour=%Y%m%d%H"),
        (Some("date"), "date=%Y%m%d"),
        (Some("whatever"), "date=%Y%m%d"),
        (Some(""), "date=%Y%m%d"),
        (None, "date=%Y%m%d"),
    ] {
        assert_eq!(
            variables(&[("date_format", format)], &["date"]),
            [expected],
            "{format:?}"
        );
    }
    assert_eq!(variables(&[], &["date"]), ["date=%Y%m%d"]);
}

#[test]
fn every_column_is_a_variable_unless_a_derived_value_overrides_it() {
    let plan = row(&[
        ("base_partition", Some("/data")),
        ("quarantine", None),
        ("anything", Some("x")),
        ("time", Some("y")),
    ])
    .plan()
    .unwrap();
    assert_eq!(
        (
            plan.topic.as_str(),
            plan.layout.to_string().as_str(),
            plan.typed
        ),
        ("clicks", "txt:sep=byte1;ts=0;msg=1", false)
    );
    for (name, value) in [
        ("log", "clicks"),
        ("format", "txt:ts=0;msg=1"),
        ("base_partition", "/data"),
        ("quarantine", ""),
        ("anything", "x"),
        ("time", "ts"),
    ] {
        assert_eq!(plan.variables[name], value, "{name}");
    }
    assert_eq!(plan.variables.len(), 7 + 4);
}

/// The columns of an invalid row, and a part of its error.
type InvalidRow = (
    &'static [(&'static str, Option<&'static str>)],
    &'static str,
);

const INVALID_ROWS: &[InvalidRow] = &[
    (
        &[("format", None)],
        "log `clicks`: format is NULL: expected `txt:",
    ),
    (
        &[("format", Some(""))],
        "log `clicks`: format is ``: expected `txt:",
    ),
    (
        &[("format", Some(" "))],
        "log `clicks`: format is ` `: expected `txt:",
    ),
    (
        &[("format", Some("txt"))],
        "format is `txt`: missing setting `ts`",
    ),
    (
        &[("format", Some("txt:sep=tab"))],
        "format is `txt:sep=tab`: missing setting `ts`",
    ),
    (
        &[("format", Some("avro-txt"))],
        "format is `avro-txt`: missing setting `ts`",
    ),
    (
        &[("format", Some("raw"))],
        "format is `raw`: expected `txt:",
    ),
    (&[("format", Some("jsn"))], "did you mean `json`?"),
    (&[("format", Some("txt:ts=a"))], "invalid `ts` value `a`"),
    (
        &[("format", Some("txt:ts=0;sep=tap"))],
        "did you mean `tab`?",
    ),
    (
        &[("output_format", Some("parket"))],
        "log `clicks`: output_format is `parket`: did you mean `parquet`?",
    ),
    (
        &[("output_format", Some("lzo"))],
        "output_format is `lzo`: expected txt, gzip, json, snappy, bzip2, parquet or avro",
    ),
    (
        &[("output_format", Some("avro")), ("hive_table_name", None)],
        "hive_table_name is NULL: output_format needs columns",
    ),
    (
        &[
            ("output_format", Some("parquet")),
            ("hive_table_name", Some(" ")),
        ],
        "hive_table_name is ` `: output_format needs columns",
    ),
    (
        &[("log", None)],
        "log ``: log is NULL: expected the name of a topic",
    ),
    (
        &[("log", Some(""))],
        "log is ``: expected the name of a topic",
    ),
    (
        &[("log", Some("."))],
        "log is `.`: expected the name of a topic",
    ),
    (
        &[("log", Some(".."))],
        "log is `..`: expected the name of a topic",
    ),
    (
        &[("log", Some("a/b"))],
        "log is `a/b`: expected the name of a topic",
    ),
    (
        &[("log", Some("ü"))],
        "log is `ü`: expected the name of a topic",
    ),
];

#[test]
fn errors_name_log_column_and_value() {
    for (columns, expected) in INVALID_ROWS {
        let error = row(columns).plan().unwrap_err().to_string();
        assert!(error.contains(expected), "{columns:?}: {error}");
    }
}

#[test]
fn a_topic_has_at_most_249_characters() {
    let long = "a".repeat(250);
    let error = row(&[("log", Some(&long))]).plan().unwrap_err().to_string();
    assert!(error.contains("expected the name of a topic"), "{error}");
    let longest = "a".repeat(249);
    assert_eq!(
        row(&[("log", Some(&longest))]).plan().unwrap().topic,
        longest
    );
}

proptest! {
    #[test]
    fn no_row_panics(format in ".*", output in ".*", log in "[a-z./]*", date in ".*") {
        let columns = [("format", format), ("output_format", output), ("log", log), ("date_format", date)];
        let columns: Vec<_> = columns.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
        let _ = row(&columns).plan();
    }
}
