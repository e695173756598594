//! `limit`: the first records of a run, and all of them in the end. `throttle`: all records, later.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::column_files::printed;
use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

/// Records with the field `n`.
fn records(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let record = |n| format!("{{\"n\":{n}}}");
    numbers.into_iter().map(record).collect()
}

fn pipeline(flow: &str) -> String {
    format!(
        r#"{{:name "limited" :settings {{:commit-interval "20ms"}}
            in (files {{:path "in/*.ndjson" :format "json"}})
            pipeline (-> in {flow})}}"#
    )
}

/// The numbers in the files of a folder, sorted.
fn sorted(site: &Site, folder: &str) -> Vec<u64> {
    let text = |line: &String| line.trim_matches(|c: char| !c.is_ascii_digit()).parse();
    let lines = all_lines(&site.path(folder));
    let mut found: Vec<u64> = lines
        .iter()
        .map(|line| text(line).expect("a number"))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn the_first_records_are_printed_and_the_run_ends() {
    let site = Site::new("limit-printed");
    site.write("a.ndjson", records(0..50_000));
    for (flow, expected) in [
        (r#"(limit 10)"#, lines(0..10)),
        (r#"(limit 20000)"#, lines(0..20_000)),
        (r#"(limit 60000)"#, lines(0..50_000)),
        (
            r#"(where "n % 1000 = 7") (limit 3)"#,
            lines([7, 1007, 2007]),
        ),
        (r#"(limit 3) (where "n % 2 = 1")"#, lines([1])),
    ] {
        let flow = format!(r#"(-> (files "a.ndjson") {flow} (stdout))"#);
        assert_eq!(printed(&site, &flow), expected, "{flow}");
    }
    // The records that are made of one record pass together.
    site.write(
        "lists.ndjson",
        "{\"l\":[1,2,3]}\n{\"l\":[4,5]}\n{\"l\":[6]}\n",
    );
    let flow = r#"(-> (files "lists.ndjson") (unnest "l as n") (limit 4) (stdout))"#;
    assert_eq!(printed(&site, flow), lines(1..6));
    // In front of a group and behind it, a limit ends only its own source.
    let flow = r#"(-> (files "a.ndjson") (limit 1000) (group "n % 4 as n" "count(*) as c")
        (limit 2) (stdout))"#;
    let expected = [r#"{"n":0,"c":250}"#, r#"{"n":1,"c":250}"#];
    assert_eq!(printed(&site, flow), expected);
    // Two sources have one limit.
    let flow = r#"(-> (all (files "a.ndjson") (files "a.ndjson")) (limit 100) (stdout))"#;
    assert_eq!(printed(&site, flow).len(), 100);
}

#[test]
fn a_source_that_never_ends_is_read_up_to_the_limit() {
    let site = Site::new("limit-endless");
    site.write("a.ndjson", records(0..100));
    let flow = r#"(-> (files {:path "a.ndjson" :follow true}) (limit 30) (stdout))"#;
    assert_eq!(printed(&site, flow), lines(0..30));
}

/// Every sink has the records up to the limit and no others, and the next run continues there.
#[test]
fn runs_continue_where_the_limit_was() {
    let site = Site::new("limit-continued");
    site.write("in/a.ndjson", records(0..10_000));
    let flow = r#"(files {:path "all" :codec :json}) (where "n % 3 = 0") (limit 700)
        (files {:path "some" :codec :json})"#;
    site.write("pipeline.edn", pipeline(flow));
    for run in 1..=5 {
        site.finish("pipeline.edn", 60);
        let passed = (run * 700).min(3334);
        let some: Vec<u64> = (0..passed).map(|n| n * 3).collect();
        assert_eq!(sorted(&site, "some"), some, "{run}");
        // Up to the last one that passed, or the first that did not.
        let all = sorted(&site, "all");
        let read = if run < 5 { passed * 3 } else { 10_000 };
        assert!((read - 2..=read).contains(&(all.len() as u64)), "{run}");
        assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>(), "{run}");
    }
}

#[test]
fn records_of_many_files_are_delivered_once_although_runs_are_killed() {
    let site = Site::new("limit-kills");
    let mut all = Vec::new();
    for file in 0..8 {
        let numbers = file * 20_000..file * 20_000 + 12_000;
        site.write(&format!("in/{file}.ndjson"), records(numbers.clone()));
        all.extend(numbers);
    }
    let flow = r#"(limit 9000)
        (files {:path "out" :codec :json :check-freq "10ms" :rollover {:records 200}})"#;
    site.write("pipeline.edn", pipeline(flow));
    // A run writes 45 files, and a commit has at most 16.
    for step in ["committed:1", "committed:2", "flushed:1"] {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", step);
        let name = step.split(':').next().unwrap_or(step);
        site.start(command).expect_death(name, 60);
        site.finish("pipeline.edn", 60);
    }
    let after_three = sorted(&site, "out");
    let distinct: BTreeSet<u64> = after_three.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        after_three.len(),
        "no record is there twice"
    );
    assert!(after_three.len() >= 27_000, "{}", after_three.len());
    for _ in 0..all.len() / 9000 {
        site.finish("pipeline.edn", 60);
    }
    assert_eq!(sorted(&site, "out"), all);
}

#[test]
fn a_limit_is_in_front_of_branches_and_once() {
    let site = Site::new("limit-errors");
    for (flow, error) in [
        (
            r#"(all (-> (limit 1) (stdout)) (drop))"#,
            "`limit` cannot be used in a branch",
        ),
        (
            r#"(limit 5) (limit 1) (drop)"#,
            "`limit` is used twice after a source",
        ),
        (r#"(limit 0) (drop)"#, "out of range"),
        (r#"(throttle "10") (drop)"#, "`10` is not a rate"),
        (r#"(take 5) (drop)"#, "did you mean `limit`?"),
        (r#"(rate_limit "5/s") (drop)"#, "did you mean `throttle`?"),
    ] {
        site.write("pipeline.edn", pipeline(flow));
        let output = site.pseidon().args(["check", "pipeline.edn"]).output();
        let output = output.expect("the binary can be started");
        let log = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(error), "{log}");
    }
}

#[test]
fn a_throttle_passes_on_all_records() {
    let site = Site::new("throttle-all");
    site.write("a.ndjson", records(0..5000));
    site.write("b.ndjson", records(5000..5100));
    let flow = r#"(-> (files "a.ndjson") (throttle "50000/s") (stdout))"#;
    assert_eq!(printed(&site, flow), lines(0..5000));
    let flow = r#"(-> (all (files "a.ndjson") (files "b.ndjson")) (where "n % 100 = 0")
        (all (-> (throttle "5000/s") (where "n < 0") (drop)) (-> (throttle "600000/m") (stdout))))"#;
    let mut found = printed(&site, flow);
    found.sort_unstable();
    let mut expected = lines((0..5100).step_by(100));
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_throttle_takes_its_time_on_any_machine() {
    let site = Site::new("throttle-time");
    site.write("a.ndjson", records(0..100));
    let began = Instant::now();
    let flow = r#"(-> (files "a.ndjson") (throttle "200/s") (stdout))"#;
    assert_eq!(printed(&site, flow), lines(0..100));
    // The first 20 records need not wait.
    assert!(began.elapsed() >= Duration::from_millis(300));
}

/// A run whose next record may pass in an hour ends when it is stopped, and the next run reads the
/// records that waited.
#[test]
fn a_throttled_run_ends_at_a_stop() {
    let site = Site::new("throttle-stop");
    for file in 0..3 {
        site.write(
            &format!("in/{file}.ndjson"),
            records(file * 100..file * 100 + 100),
        );
    }
    let out = r#"(files {:path "out" :codec :json :rollover {:records 1}})"#;
    let flow = format!(r#"(throttle "1/h") {out}"#);
    site.write("pipeline.edn", pipeline(&flow));
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the first record", 60, || {
        !all_lines(&site.path("out")).is_empty()
    });
    pseidon.stop(60);
    let first = sorted(&site, "out");
    // At most one of each file: they may pass at the same time.
    assert!((1..=3).contains(&first.len()), "{first:?}");
    site.write("pipeline.edn", pipeline(out));
    site.finish("pipeline.edn", 60);
    assert_eq!(sorted(&site, "out"), (0..300).collect::<Vec<_>>());
}
