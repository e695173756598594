use clap::{CommandFactory, Parser};

use super::*;

#[derive(Parser)]
struct TestCli {
    #[command(flatten)]
    args: ProduceArgs,
}

fn args(more: &[&str]) -> Result<ProduceArgs, String> {
    let line = ["produce", "--brokers", "b:9092", "--topic", "t"]
        .iter()
        .chain(more);
    TestCli::try_parse_from(line)
        .map(|line| line.args)
        .map_err(|error| error.to_string())
}

fn values(expr: &str, numbers: &[u64]) -> Vec<Option<String>> {
    let compiled = expression("--value", expr).unwrap_or_else(|_| panic!("{expr}"));
    let bytes = bytes_of(&compiled.evaluate(numbers).unwrap()).unwrap();
    bytes
        .iter()
        .map(|value| value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        .collect()
}

#[test]
fn the_command_line_is_parsed() {
    TestCli::command().debug_assert();
    let read = args(&[
        "-n",
        "7",
        "--rate",
        "0.5",
        "--property",
        "a.b=c=d",
        "--property",
        " x = ",
    ])
    .unwrap();
    assert_eq!((read.number, read.threads), (Some(7), 4));
    assert_eq!(
        read.properties,
        [
            ("a.b".to_owned(), "c=d".to_owned()),
            ("x".to_owned(), " ".to_owned())
        ]
    );
    for (wrong, expected) in [
        (&["--rate", "0"][..], "a number above 0"),
        (&["--rate", "fast"], "a number above 0"),
        (&["--property", "compression"], "NAME=VALUE"),
        (&["--property", "=x"], "NAME=VALUE"),
        (&["--threads", "0"], "1..=256"),
        (&["--value", "n", "--file", "f"], "cannot be used with"),
    ] {
        let error = args(wrong)
            .err()
            .unwrap_or_else(|| panic!("{wrong:?} is accepted"));
        assert!(error.contains(expected), "{wrong:?}: {error}");
    }
}

#[test]
fn values_of_expressions_are_converted_to_strings() {
    for (expr, zero, seven) in [
        ("n", Some("0"), Some("7")),
        ("'line ' || n", Some("line 0"), Some("line 7")),
        ("n / 2.0", Some("0.0"), Some("3.5")),
        ("n > 3", Some("false"), Some("true")),
        ("case when n > 3 then 'x' end", None, Some("x")),
        (
            "to_timestamp_millis(n)",
            Some("1970-01-01T00:00:00Z"),
            Some("1970-01-01T00:00:00.007Z"),
        ),
        ("null", None, None),
    ] {
        assert_eq!(
            values(expr, &[0, 7]),
            [zero.map(str::to_owned), seven.map(str::to_owned)],
            "{expr}"
        );
    }
}

#[test]
fn invalid_expressions_are_refused() {
    for wrong in ["m + 1", "@offset", "n +", "n / 0"] {
        assert!(
            matches!(expression("--value", wrong), Err(Exit::WrongFile)),
            "{wrong}"
        );
    }
}

#[test]
fn the_default_record_is_json() {
    for value in values(&default_value(), &[0, 1, 999_999]) {
        let value: serde_json::Value = serde_json::from_str(&value.unwrap()).unwrap();
        assert!(
            value["id"].is_u64()
                && value["ts"].is_u64()
                && value["user"].is_string()
                && value["status"].is_u64(),
            "{value}"
        );
    }
}

#[test]
fn the_lines_of_a_file_start_over_at_its_end() {
    let lines = FileLines::of(b"one\ntwo\r\n\nfour".to_vec()).unwrap();
    let all: Vec<_> = (0..5)
        .map(|number| String::from_utf8_lossy(lines.get(number)).into_owned())
        .collect();
    assert_eq!(all, ["one", "two", "", "four", "one"]);
    assert!(FileLines::of(Vec::new()).is_none());
    assert_eq!(FileLines::of(b"\n".to_vec()).unwrap().get(9), b"");
}

#[test]
fn every_number_is_allocated_once_and_not_before_it_is_due() {
    let allocator = |count, rate: Option<f64>| NumberAllocator {
        next: Mutex::new(0),
        count,
        pace: rate.map(|rate| Pace::new(rate).unwrap()),
        began: Instant::now(),
        stop: Arc::default(),
    };
    let all = allocator(CHUNK + 1, None);
    assert_eq!(all.allocate(Duration::ZERO), Allocation::Numbers(0..CHUNK));
    assert_eq!(
        all.allocate(Duration::ZERO),
        Allocation::Numbers(CHUNK..CHUNK + 1)
    );
    assert_eq!(all.allocate(Duration::ZERO), Allocation::Finished);

    let paced = allocator(5, Some(2.0));
    assert_eq!(paced.allocate(Duration::ZERO), Allocation::Numbers(0..1));
    assert_eq!(
        paced.allocate(Duration::from_millis(100)),
        Allocation::Wait(Duration::from_millis(400))
    );
    assert_eq!(
        paced.allocate(Duration::from_millis(1_000)),
        Allocation::Numbers(1..3)
    );
    assert_eq!(
        paced.allocate(Duration::from_secs(60)),
        Allocation::Numbers(3..5)
    );
    assert_eq!(
        paced.allocate(Duration::from_secs(60)),
        Allocation::Finished
    );

    let stopped = allocator(5, None);
    stopped.stop.store(true, Ordering::Relaxed);
    assert_eq!(stopped.next(), None);
}
