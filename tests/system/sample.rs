//! `sample`: a share of the records, the same ones when they are read again.

use std::collections::BTreeMap;

use crate::harness::Site;
use crate::harness::output::all_lines;

const RECORDS: u64 = 20_000;

/// Ten records of each user, and some without one.
fn records() -> String {
    let user = |id: u64| match id % 20 {
        0 => "null".to_owned(),
        _ => (id / 10).to_string(),
    };
    let record = |id| format!("{{\"id\":{id},\"user\":{}}}\n", user(id));
    (0..RECORDS).map(record).collect()
}

const OUT: &str = r#"(files {:path "out" :codec :json})"#;

fn pipeline(flow: &str) -> String {
    format!(
        r#"{{:name "sampled" :settings {{:commit-interval "20ms"}}
            in (files {{:path "in/*.ndjson" :format "json"}})
            pipeline (-> in {flow})}}"#
    )
}

/// The output of a run, sorted.
fn sampled(site: &Site, flow: &str) -> Vec<String> {
    site.write("in/a.ndjson", records());
    site.write("pipeline.edn", pipeline(flow));
    site.finish("pipeline.edn", 120);
    sorted(site, "out")
}

fn sorted(site: &Site, folder: &str) -> Vec<String> {
    let mut lines = all_lines(&site.path(folder));
    lines.sort_unstable();
    lines
}

/// Two sinks whose files end at different records: what each has written when the process is killed
/// differs, and in the end they have the same records.
#[test]
fn records_are_chosen_once_and_for_all() {
    let site = Site::new("sample-kills");
    for file in 0..12 {
        site.write(&format!("in/{file}.ndjson"), records());
    }
    let sink = |folder: &str, records| {
        format!(
            r#"(sample "5%") (files {{:path "{folder}" :codec :json :check-freq "10ms" :rollover {{:records {records}}}}})"#
        )
    };
    let (one, other) = (sink("one", 90), sink("other", 250));
    let flow = format!("(all (-> {one}) (-> {other}))");
    site.write("pipeline.edn", pipeline(&flow));
    for _ in 0..3 {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", "committed:1");
        site.start(command).expect_death("committed", 60);
    }
    site.finish("pipeline.edn", 120);
    let lines = sorted(&site, "one");
    assert!((11_000..13_000).contains(&lines.len()), "{}", lines.len());
    assert!(
        lines == sorted(&site, "other"),
        "the sinks have different records"
    );
}

#[test]
fn all_and_none() {
    let [all, none] = ["100%", "0%"].map(|share| {
        let site = Site::new("sample-all");
        sampled(&site, &format!("(sample \"{share}\") {OUT}")).len()
    });
    assert_eq!((all, none), (20_000, 0));
}

#[test]
fn all_records_of_a_key_or_none() {
    let sample = r#"(sample "20%" {:by "user"})"#;
    let lines = sampled(&Site::new("sample-key"), &format!("{sample} {OUT}"));
    let mut of_users: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        let (_, user) = line.split_once("\"user\":").expect("a user");
        *of_users.entry(user.to_owned()).or_default() += 1;
    }
    let without = of_users.remove("null}").unwrap_or_default();
    assert!(
        (140..260).contains(&without),
        "{without} of 1000 without a user"
    );
    assert!(
        (320..480).contains(&of_users.len()),
        "{} of 2000 users",
        of_users.len()
    );
    for (user, count) in &of_users {
        let number: u64 = user.trim_end_matches('}').parse().expect("a number");
        let expected = 10 - u64::from(number.is_multiple_of(2));
        assert_eq!(*count, expected, "{user}");
    }
    // Another pipeline chooses the same users.
    let flow = format!(r#"(where "id >= 0") {sample} {OUT}"#);
    let again = sampled(&Site::new("sample-again"), &flow);
    let with_user = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter().filter(|line| !line.ends_with("null}"));
        lines.cloned().collect()
    };
    assert_eq!(with_user(&lines), with_user(&again));
}

#[test]
fn a_share_is_a_percentage() {
    let site = Site::new("sample-errors");
    site.write(
        "pipeline.edn",
        pipeline(&format!("(sample \"1/100\") {OUT}")),
    );
    let output = site.pseidon().args(["check", "pipeline.edn"]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("`1/100` is not a share"), "{log}");
    assert!(log.contains("expected a share such as \"1%\""), "{log}");
}
