//! `group`: aggregate functions over the records of a run, each of which counts once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::harness::output::all_lines;
use crate::harness::topics::{create, produce};
use crate::harness::{Site, brokers};

const FILES: u64 = 8;
const RECORDS: u64 = 20_000;
const USERS: u64 = 30_011;

/// The records of a file: users have one or a few of them.
fn records(file: u64) -> String {
    let record = |id| {
        let id = file * RECORDS + id;
        format!("{{\"id\":{id},\"user\":\"u{}\"}}\n", id % USERS)
    };
    (0..RECORDS).map(record).collect()
}

/// For each user of the first files: how many records there are, and the sum of their ids.
fn expected(files: std::ops::Range<u64>) -> Vec<String> {
    let mut users: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for id in files.start * RECORDS..files.end * RECORDS {
        let (count, sum) = users.entry(format!("u{}", id % USERS)).or_default();
        (*count, *sum) = (*count + 1, *sum + id);
    }
    let line =
        |(user, (count, sum))| format!("{{\"user\":\"{user}\",\"n\":{count},\"ids\":{sum}}}");
    users.into_iter().map(line).collect()
}

/// The steps of a group, which [`a_kill_at_each_step`] tries.
pub(crate) const STEPS_OF_GROUPS: &[&str] = &["groups-committed", "groups-removed"];

const GROUP: &str = r#"(group "user" "count(*) as n, sum(id) as ids")"#;
const OUT: &str =
    r#"(files {:path "out" :codec :json :check-freq "10ms" :rollover {:records 90}})"#;

fn pipeline(flow: &str) -> String {
    format!(
        r#"{{:name "grouped" :settings {{:commit-interval "20ms" :memory "32MB"}}
            in (files {{:path "in/*.ndjson"}})
            pipeline (-> in {flow})}}"#
    )
}

/// A folder with the pipeline and these files.
fn site(test: &str, flow: &str, files: std::ops::Range<u64>) -> Site {
    let site = Site::new(test);
    files.for_each(|file| add(&site, file));
    site.write("pipeline.edn", pipeline(flow));
    site
}

fn add(site: &Site, file: u64) {
    site.write(&format!("in/{file}.ndjson"), records(file));
}

fn sorted(site: &Site, folder: &str) -> Vec<String> {
    let mut lines = all_lines(&site.path(folder));
    lines.sort_unstable();
    lines
}

/// Runs the pipeline until it is killed at a step.
fn kill_at(site: &Site, step: &str) {
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FAIL", step);
    site.start(command).expect_death(step, 90);
}

/// The results of two runs, in one order.
fn both(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    let mut both = [one, other].concat();
    both.sort_unstable();
    both
}

/// Whichever step of the protocol of a source, a group or a sink is interrupted, each record is in its
/// group once, and each result is written once.
#[test]
fn a_kill_at_each_step() {
    let steps = [
        "begun:1",
        "groups-committed:1",
        "flushed:1",
        "released:1",
        "taken:2",
        "begun:2",
        "committed:1",
        "committed:3",
        "published:1",
        "released:2",
        "groups-removed:1",
    ];
    for step in STEPS_OF_GROUPS {
        let is_tried = steps.iter().any(|tried| tried.starts_with(step));
        assert!(is_tried, "{step}");
    }
    for step in steps {
        let name = step.replace(':', "-");
        let flow = format!("{GROUP} {OUT}");
        let site = site(&format!("group-{name}"), &flow, 0..3);
        kill_at(&site, step);
        site.finish("pipeline.edn", 120);
        assert!(sorted(&site, "out") == expected(0..3), "killed at {step}");
    }
}

/// Kills while records are added: a part of the groups is committed each time.
#[test]
fn many_kills() {
    let flow = format!("{GROUP} {OUT}");
    let site = site("group-kills", &flow, 0..FILES);
    let mut kills = 0;
    while kills < 4 {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", "groups-committed:2");
        if !site.start(command).died(60) {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0, "nothing was killed");
    site.finish("pipeline.edn", 120);
    assert!(sorted(&site, "out") == expected(0..FILES));
}

/// A sum that does not fit into its type makes the record of its group invalid, and no other.
#[test]
fn sums_that_are_too_large() {
    let site = Site::new("group-large-sums");
    let most = i64::MAX;
    let records = format!(
        "{{\"k\":\"a\",\"n\":{most},\"x\":1e308}}\n{{\"k\":\"a\",\"n\":{most},\"x\":1e308}}\n\
         {{\"k\":\"b\",\"n\":1,\"x\":0.5}}\n"
    );
    site.write("in/0.ndjson", records);
    let pipeline = r#"{:name "sums"
        in (files {:path "in/*.ndjson" :schema {:k :utf8 :n :int64 :x :json}})
        pipeline (-> in (all
            (-> (group "k" "sum(n) as n") (files {:path "typed/good" :codec :json}))
            (-> (group "k" "sum(to_json(n)) as n, sum(x) as x")
                (files {:path "untyped" :codec :json}))))}"#;
    site.write("pipeline.edn", pipeline);
    site.finish("pipeline.edn", 60);
    assert_eq!(sorted(&site, "typed/good"), [r#"{"k":"b","n":1}"#]);
    let [bad] = &sorted(&site, "typed/quarantine")[..] else {
        panic!("expected one quarantined group");
    };
    assert!(bad.contains("18446744073709551614"), "{bad}");
    let untyped = [
        r#"{"k":"a","n":18446744073709551614,"x":null}"#,
        r#"{"k":"b","n":1,"x":0.5}"#,
    ];
    assert_eq!(sorted(&site, "untyped"), untyped);
}

#[test]
fn a_later_run_groups_what_was_added() {
    let flow = format!("{GROUP} {OUT}");
    let site = site("group-later", &flow, 0..1);
    site.finish("pipeline.edn", 60);
    assert!(sorted(&site, "out") == expected(0..1));
    site.finish("pipeline.edn", 60);
    assert!(sorted(&site, "out") == expected(0..1), "nothing was added");
    add(&site, 1);
    site.finish("pipeline.edn", 60);
    assert!(sorted(&site, "out") == both(expected(0..1), expected(1..2)));
}

/// The results of one generation are being written when the process is killed, and new records come
/// before it continues: both have their results.
#[test]
fn records_that_come_while_results_are_written() {
    let flow = format!("{GROUP} {OUT}");
    let site = site("group-between", &flow, 0..1);
    kill_at(&site, "committed:3");
    add(&site, 1);
    site.finish("pipeline.edn", 60);
    assert!(sorted(&site, "out") == both(expected(0..1), expected(1..2)));
}

/// A group of groups, and a branch beside it with the records themselves.
#[test]
fn groups_of_groups_and_branches() {
    let flow = format!(
        r#"(all (-> {GROUP} (where "n > 1") (group "n" "count(*) as users, max(user) as last") {OUT})
               (-> (where "id % 1000 = 0") (files {{:path "some" :codec :json}})))"#
    );
    let site = site("group-twice", &flow, 0..2);
    kill_at(&site, "groups-removed:1");
    site.finish("pipeline.edn", 60);
    let mut counts: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for line in expected(0..2) {
        let record: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let (n, user) = (
            record["n"].as_u64().unwrap(),
            record["user"].as_str().unwrap(),
        );
        if n > 1 {
            let entry = counts.entry(n).or_default();
            entry.0 += 1;
            entry.1 = entry.1.clone().max(user.to_owned());
        }
    }
    let mut wanted: Vec<String> = counts
        .into_iter()
        .map(|(n, (users, last))| format!("{{\"n\":{n},\"users\":{users},\"last\":\"{last}\"}}"))
        .collect();
    wanted.sort_unstable();
    assert_eq!(sorted(&site, "out"), wanted);
    assert_eq!(sorted(&site, "some").len(), 40);
}

/// More groups than a transaction may hold, so each group is in several of them.
#[test]
fn more_groups_than_memory() {
    const KEYS: u64 = 70_000;
    let key = format!("lpad((id % {KEYS})::text, 120, '-') as k");
    let flow = format!(r#"(group "{key}" "count(*) as n, sum(id) as ids") {OUT}"#);
    let site = site("group-spill", &flow.replace("90", "100000"), 0..FILES);
    kill_at(&site, "groups-committed:2");
    site.finish("pipeline.edn", 240);
    let expected = (0..KEYS).map(|key| {
        let ids = (key..FILES * RECORDS).step_by(KEYS as usize);
        let (count, sum) = (ids.clone().count(), ids.sum::<u64>());
        format!("{{\"k\":\"{key:->120}\",\"n\":{count},\"ids\":{sum}}}")
    });
    let mut expected: Vec<String> = expected.collect();
    expected.sort_unstable();
    assert!(sorted(&site, "out") == expected);
}

#[test]
fn a_changed_group_does_not_continue_the_old_one() {
    let flow = format!("{GROUP} {OUT}");
    let site = site("group-changed", &flow, 0..2);
    kill_at(&site, "released:1");
    for (part, other) in [
        ("sum(id)", "max(id)"),
        ("\"user\"", "\"upper(user) as user\""),
    ] {
        site.write("other.edn", pipeline(&flow.replace(part, other)));
        let mut command = site.command("other.edn");
        command.arg("--accept-changed-plan");
        let mut run = site.start(command);
        run.expect_exit(1, 60);
        let log = run.log();
        let reason = "has the unfinished groups of another version of `group`";
        assert!(log.contains(reason), "{log}");
    }
    site.finish("pipeline.edn", 60);
    assert!(sorted(&site, "out") == expected(0..2));
}

/// A version that changes what comes before and after a group is started after a crash while the
/// group collects. The version that crashed is finished first, and its groups are not closed by
/// that: each key has one result, whichever of the versions writes it.
#[test]
fn a_group_is_not_closed_by_a_change_of_the_pipeline() {
    let flow = |folder: &str| {
        let all = r#"(all (files {:path "copy" :codec :json :check-freq "10ms" :rollover {:records 90}}))"#;
        // The version that crashed is finished long before everything has been read.
        let slow = "(throttle \"6000/s\")";
        format!("{slow} {all} {GROUP} {}", OUT.replace("out", folder))
    };
    for step in ["committed:40", "groups-committed:1", "groups-removed:1"] {
        let site = site(
            &format!("group-changes-{}", step.replace(':', "-")),
            &flow("out/old"),
            0..2,
        );
        kill_at(&site, step);
        site.write("pipeline.edn", pipeline(&flow("out/new")));
        site.finish("pipeline.edn", 240);
        assert!(sorted(&site, "out") == expected(0..2), "killed at {step}");
        let copies = sorted(&site, "copy");
        assert_eq!(copies.len() as u64, 2 * RECORDS, "killed at {step}");
        let distinct: HashSet<&String> = copies.iter().collect();
        assert_eq!(distinct.len(), copies.len(), "killed at {step}");
    }
}

/// Two topics up to their ends, with kills; then what was produced since.
#[test]
fn topics_up_to_their_ends() {
    let site = Site::new("group-topics");
    let topics = ["a", "b"].map(|name| format!("{}-{name}", site.name));
    let lines = |file: u64| records(file).lines().map(str::to_owned).collect::<Vec<_>>();
    for (topic, file) in topics.iter().zip(0..) {
        create(topic, &[]);
        produce(topic, 0, lines(file));
    }
    let [a, b] = &topics;
    let group =
        r#"(group "user" "count(*) as n, sum(id) as ids, count(distinct @topic) as topics")"#;
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "{}" in (kafka {{:brokers "{}" :topics ["{a}" "{b}"] :until :latest}})
                pipeline (-> in {group} (where "topics > 0") (select "* except (topics)") {OUT})}}"#,
            site.name,
            brokers()
        ),
    );
    for step in ["groups-committed:1", "committed:2"] {
        kill_at(&site, step);
    }
    site.finish("pipeline.edn", 90);
    assert!(sorted(&site, "out") == expected(0..2));
    produce(a, 0, lines(2));
    site.finish("pipeline.edn", 90);
    assert!(sorted(&site, "out") == both(expected(0..2), expected(2..3)));
}

/// Records of many files with equal keys: one of each is written, as it was, whatever is killed.
#[test]
fn one_record_of_each_key() {
    let flow =
        r#"(dedupe "user") (files {:path "out" :check-freq "10ms" :rollover {:records 900}})"#;
    let site = site("dedupe", flow, 0..4);
    for step in ["groups-committed:1", "committed:2", "groups-removed:1"] {
        kill_at(&site, step);
    }
    site.finish("pipeline.edn", 60);
    let all: HashSet<String> = (0..4)
        .flat_map(|file| records(file).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let kept = sorted(&site, "out");
    assert!(
        kept.iter().all(|line| all.contains(line)),
        "a record was changed"
    );
    let user = |line: &String| line.rsplit_once("\"user\":").expect("a user").1.to_owned();
    let users: BTreeSet<String> = kept.iter().map(user).collect();
    assert_eq!((kept.len() as u64, users.len() as u64), (USERS, USERS));
}

/// Without state, nothing is left behind.
#[test]
fn a_flow_of_one_line() {
    let site = Site::new("group-line");
    site.write(
        "a.ndjson",
        "{\"s\":200,\"b\":5}\n{\"s\":404}\n{\"s\":200,\"b\":1.5}\n{\"b\":2}\n",
    );
    let flow = r#"(-> (files "a.ndjson") (group "s" "count(*) as n, sum(b) as b") (stdout))"#;
    let output = site.pseidon().args(["run", "-e", flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = "{\"s\":null,\"n\":1,\"b\":2}\n{\"s\":200,\"n\":2,\"b\":6.5}\n{\"s\":404,\"n\":1,\"b\":null}\n";
    assert_eq!(printed, wanted, "{log}");
    assert!(
        log.contains("records_in=4") && log.contains("records_out=3"),
        "{log}"
    );
    assert!(!site.path(".pseidon").exists());
}
