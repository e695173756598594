//! Records because of which an encoder panics: they are found, and go to the error policy of the
//! sink, exactly once.

use std::process::Command;

use crate::fail_points::{STEPS_OF_SINGLE_RECORDS, STEPS_TO_FILES};
use crate::harness::Site;
use crate::harness::output::{all_lines, hidden};

const RECORDS: usize = 3000;
/// The records that cannot be written, two of them in one lane.
const SPOILED: [usize; 3] = [7, 1234, 1240];

fn line(n: usize) -> String {
    match SPOILED.contains(&n) {
        true => format!("{{\"n\":{n},\"spoiled\":true}}"),
        false => format!("{{\"n\":{n}}}"),
    }
}

/// Until the end the other sink has nothing, so each attempt reads everything again, also what `out`
/// has passed.
fn pipeline(options: &str) -> String {
    format!(
        r#"{{:name "unwritable"
            in (files {{:path "in/*.json" :schema {{:n :int64}}}})
            out (files {{:path "out/good/{{n % 3}}" :codec :json :rollover {{:records 400}} {options}}})
            slow (files {{:path "slow" :codec :json :rollover {{:idle "1h"}}}})
            pipeline (-> in (all out slow))}}"#
    )
}

fn site(name: &str, options: &str) -> Site {
    let site = Site::new(name);
    let lines: String = (0..RECORDS).map(|n| line(n) + "\n").collect();
    site.write("in/a.json", lines);
    site.write("pipeline.edn", pipeline(options));
    site
}

/// A run in which an encoder panics when it gets one of the records.
fn command(site: &Site) -> Command {
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_SPOIL", "out:spoiled");
    command
}

/// The good records, and the numbers of those in the quarantine.
fn check(site: &Site) {
    let good: Vec<String> = (0..RECORDS)
        .filter(|n| !SPOILED.contains(n))
        .map(line)
        .collect();
    let mut found = all_lines(&site.path("out/good"));
    found.sort_by_key(|line| (line.len(), line.clone()));
    assert!(found == good, "{} of {} lines", found.len(), good.len());
    let quarantined = all_lines(&site.path("out/quarantine"));
    let mut records: Vec<String> = Vec::new();
    for line in &quarantined {
        let line: serde_json::Value = serde_json::from_str(line).expect("json");
        assert_eq!(line["stage"], "out", "{line}");
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("PSEIDON_SPOIL"), "{line}");
        records.push(line["record"].as_str().expect("the record").to_owned());
    }
    records.sort_by_key(|line| (line.len(), line.clone()));
    assert_eq!(records, SPOILED.map(line));
    assert_eq!(hidden(&site.path("out")), Vec::<std::path::PathBuf>::new());
    assert_eq!(all_lines(&site.path("slow")).len(), RECORDS);
}

#[test]
fn a_record_that_cannot_be_written_is_found_and_quarantined() {
    let site = site("unwritable", "");
    let mut run = site.start(command(&site));
    run.expect_exit(0, 60);
    let log = run.log();
    let found = log.matches("found a record that cannot be written").count();
    assert_eq!(found, SPOILED.len(), "{log}");
    let searched = log.matches("fewer of them at once").count();
    assert!(searched < 9 * SPOILED.len(), "{searched} restarts: {log}");
    check(&site);
}

#[test]
fn it_goes_to_the_policy_of_the_sink() {
    let site = site("unwritable-dropped", ":on-error :noop");
    let mut run = site.start(command(&site));
    run.expect_exit(0, 60);
    assert_eq!(
        all_lines(&site.path("out/quarantine")),
        Vec::<String>::new()
    );
    assert_eq!(all_lines(&site.path("out")).len(), RECORDS - SPOILED.len());

    site.write("pipeline.edn", pipeline(":on-error :throw"));
    site.write("in/b.json", line(7) + "\n");
    let mut run = site.start(command(&site));
    run.expect_exit(1, 60);
    let reason = "stage `out` cannot process the record at position 0";
    assert!(run.log().contains(reason), "{}", run.log());
}

/// Nothing is known of the records after a crash. They are found again, and nothing is lost or
/// doubled.
#[test]
fn a_crash_at_any_step_of_the_search_loses_and_doubles_nothing() {
    for step in [STEPS_TO_FILES, STEPS_OF_SINGLE_RECORDS].concat() {
        let site = site(&format!("unwritable-{step}"), "");
        for count in [1, 2, 3, 5, 8, 13, 21] {
            let mut command = command(&site);
            command.env("PSEIDON_FAIL", format!("{step}:{count}"));
            let mut run = site.start(command);
            if !run.died(60) {
                assert!(count > 1, "{step} is never reached");
                break;
            }
        }
        let mut run = site.start(command(&site));
        run.expect_exit(0, 60);
        check(&site);
    }
}
