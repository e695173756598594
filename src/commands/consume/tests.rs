use clap::{CommandFactory, Parser};
use pseidon_delivery::SplitId;
use pseidon_kafka::tools::StartPosition;
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, Split};

use super::*;

#[derive(Parser)]
struct TestCli {
    #[command(flatten)]
    args: ConsumeArgs,
}

fn args(more: &[&str]) -> Result<ConsumeArgs, String> {
    let line = ["consume", "--brokers", "b:9092", "--topic", "t"]
        .iter()
        .chain(more);
    TestCli::try_parse_from(line)
        .map(|line| line.args)
        .map_err(|error| error.to_string())
}

/// The output for these records, and how many of them are invalid.
fn printed(more: &[&str], records: &[&str]) -> (String, u64) {
    let args = args(more).unwrap();
    let plan = args
        .plan()
        .unwrap_or_else(|_| panic!("{more:?}: {} is invalid", args.flow()));
    let source = &plan.sources[0];
    let mut printer = Printer::new(source).unwrap();
    let split = Split {
        id: SplitId::from("t/3"),
        topic: "t".to_owned(),
        partition: 3,
    };
    let mut builder = BatchBuilder::new(Arc::new(split), source.columns.meta, 0);
    for (offset, record) in (70..).zip(records) {
        let meta = RecordMeta {
            timestamp: Some(1_769_817_600_000),
            key: Some(b"k"),
            headers: Some(r#"{"a":"b"}"#),
            ..RecordMeta::default()
        };
        builder.push(offset, Some(record.as_bytes()), meta);
    }
    let mut out = Vec::new();
    printer.print(builder.finish(100), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), printer.bad)
}

#[test]
fn the_command_line_is_parsed() {
    TestCli::command().debug_assert();
    for (line, from) in [
        (&[][..], StartPosition::Earliest),
        (&["--from", "latest"], StartPosition::Latest),
        (&["--from", "12"], StartPosition::Offset(12)),
        (
            &["--from", "2026-01-31T00:00:00Z"],
            StartPosition::Time(1_769_817_600_000),
        ),
    ] {
        assert_eq!(args(line).unwrap().from, from, "{line:?}");
    }
    for (wrong, expected) in [
        (&["--from", "yesterday"][..], "a time such as"),
        (&["--group", "g", "--partition", "0"], "cannot be used with"),
        (&["-n", "many"], "invalid"),
    ] {
        let error = args(wrong)
            .err()
            .unwrap_or_else(|| panic!("{wrong:?} is accepted"));
        assert!(error.contains(expected), "{wrong:?}: {error}");
    }
}

#[test]
fn arguments_are_converted_to_a_flow() {
    for (line, flow) in [
        (
            &[][..],
            r#"(-> (kafka {:brokers "b:9092", :topics ["t"], :format "json"}) (stdout :json))"#,
        ),
        (
            &["--format", "raw"],
            r#"(-> (kafka {:brokers "b:9092", :topics ["t"], :format "raw"}) (stdout :raw))"#,
        ),
        (
            &[
                "--format",
                "txt",
                "--columns",
                r#""odd name" as x, 'a\b' as y"#,
            ],
            r#"(-> (kafka {:brokers "b:9092", :topics ["t"], :format "txt"}) (select "\"odd name\" as x, 'a\\b' as y") (stdout :json))"#,
        ),
        (
            &["--format", "txt"],
            r#"(-> (kafka {:brokers "b:9092", :topics ["t"], :format "txt"}) (select "*") (stdout :json))"#,
        ),
    ] {
        assert_eq!(args(line).unwrap().flow(), flow);
    }
}

#[test]
fn records_are_printed_as_a_pipeline_decodes_them() {
    let json = [r#"{"a": 1, "b": {"c": "x"}}"#, r#"{"a": 2}"#];
    for (line, records, out) in [
        (
            &[][..],
            &json[..],
            "{\"a\": 1, \"b\": {\"c\": \"x\"}}\n{\"a\": 2}\n",
        ),
        (&["--format", "raw"], &["any", ""], "any\n\n"),
        (
            &["--format", "txt"],
            &["any", ""],
            "{\"line\":\"any\"}\n{\"line\":\"\"}\n",
        ),
        (
            &["--columns", "a, b.c as c"],
            &json,
            "{\"a\":1,\"c\":\"x\"}\n{\"a\":2,\"c\":null}\n",
        ),
        (
            &[
                "--columns",
                "@topic as t, @partition as p, @offset as o, @key as k, @timestamp as at",
                "--format",
                "raw",
            ],
            &["x"],
            "{\"t\":\"t\",\"p\":3,\"o\":70,\"k\":\"k\",\"at\":\"2026-01-31T00:00:00.000Z\"}\n",
        ),
        (
            &["--columns", "*, a + 1 as b"],
            &["{\"a\": 1}"],
            "{\"a\": 1,\"b\":2}\n",
        ),
    ] {
        assert_eq!(printed(line, records), (out.to_owned(), 0), "{line:?}");
    }
}

#[test]
fn invalid_records_are_counted_and_the_others_printed() {
    let records = [r#"{"a": 1}"#, "{", r#"{"a": "x"}"#, r#"{"a": 4}"#];
    assert_eq!(
        printed(&["--columns", "a + 1 as a"], &records),
        ("{\"a\":2}\n{\"a\":5}\n".to_owned(), 2)
    );
}

#[test]
fn invalid_arguments_are_errors_of_the_flow() {
    for wrong in [
        &["--format", "jsn"][..],
        &["--columns", "a +"],
        &["--columns", "n, n"],
    ] {
        assert!(
            matches!(args(wrong).unwrap().plan(), Err(Exit::WrongFile)),
            "{wrong:?}"
        );
    }
}
