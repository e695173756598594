//! `:on-broken-file`: files that cannot be read further, with kills while they are quarantined.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::arrow::write_arrow;
use crate::column_files::{FIELDS, place, record, records, written};
use crate::fail_points::STEPS_TO_FILES;
use crate::harness::output::{all_lines, hidden};
use crate::harness::{Pseidon, Site, wait_until};
use crate::logs::gzip;

fn set_mode(site: &Site, name: &str, mode: u32) {
    fs::set_permissions(site.path(name), Permissions::from_mode(mode)).expect("permissions");
}

fn text(options: &str) -> String {
    format!(
        r#"{{:name "broken" in (files {{:path "in/*" :format "json" {options}}})
            pipeline (-> in (files {{:path "out" :codec :json :rollover {{:idle "50ms"}}
                                     :check-freq "10ms"}}))}}"#
    )
}

/// Records with these numbers, as lines.
fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// A file that is whole, one that is truncated, and one that may not be read. Returns the second
/// one as it should be.
fn with_broken_files(site: &Site) -> Vec<u8> {
    let whole = gzip(&lines(1..50_000));
    site.write("in/a.ndjson", lines(0..1));
    site.write("in/b.ndjson.gz", &whole[..whole.len() - 100]);
    site.write("in/c.ndjson", lines(50_000..50_001));
    set_mode(site, "in/c.ndjson", 0o000);
    set_mode(site, "", 0o777);
    whole
}

/// Whether each record was delivered once.
fn expect_all(site: &Site) {
    let mut expected: Vec<String> = lines(0..50_001).lines().map(str::to_owned).collect();
    expected.sort();
    let found = all_lines(&site.path("out"));
    assert!(found == expected, "{} records", found.len());
    assert!(hidden(&site.path("out")).is_empty());
}

fn quarantined(site: &Site) -> Vec<Value> {
    let lines = all_lines(&site.path("quarantine"));
    let object = |line: &String| serde_json::from_str(line).expect("JSON");
    let mut objects: Vec<Value> = lines.iter().map(object).collect();
    objects.sort_by_key(|object| object["topic"].to_string());
    objects
}

/// Whether the quarantine has one object for each of the two files.
fn expect_objects(objects: &[Value]) {
    assert_eq!(objects.len(), 2, "{objects:?}");
    for (object, topic) in objects.iter().zip(["in/b.ndjson.gz", "in/c.ndjson"]) {
        assert_eq!(object["stage"], "in");
        assert_eq!(object["topic"], topic);
        assert_eq!(object["record"], Value::Null);
        assert_eq!(object["record_base64"], Value::Null);
    }
    let reason = |number: usize| objects[number]["reason"].as_str().unwrap_or_default();
    assert!(reason(0).contains("it is truncated"), "{objects:?}");
    assert!(
        objects[0]["position"].as_u64() > Some(10_000),
        "{objects:?}"
    );
    assert!(reason(1).contains("Permission denied"), "{objects:?}");
    assert_eq!(objects[1]["position"], 0);
}

#[test]
fn files_are_reported_skipped_or_quarantined() {
    for (option, code, objects) in [("report", 1, 0), ("skip", 0, 0), ("quarantine", 0, 2)] {
        let site = Site::new(&format!("broken-{option}"));
        site.write("pipeline.edn", text(&format!(":on-broken-file :{option}")));
        let whole = with_broken_files(&site);
        let run = |code| {
            let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
            pseidon.expect_exit(code, 60);
            pseidon.log()
        };
        for _ in 0..2 {
            let log = run(code);
            let summary =
                r#"files were not read to their end count=2 files="in/b.ndjson.gz, in/c.ndjson""#;
            assert!(log.contains(summary), "{log}");
            assert_eq!(log.contains("it is left behind"), code == 0, "{log}");
            let found = quarantined(&site);
            assert_eq!(found.len(), objects, "{option}: {found:?}");
            let delivered = all_lines(&site.path("out"));
            assert!((10_000..49_999).contains(&delivered.len()));
        }
        if objects > 0 {
            expect_objects(&quarantined(&site));
        }
        site.write("in/b.ndjson.gz", whole);
        set_mode(&site, "in/c.ndjson", 0o644);
        let log = run(0);
        assert!(!log.contains("not read to their end"), "{log}");
        expect_all(&site);
        assert_eq!(quarantined(&site).len(), objects);
    }
}

#[test]
fn a_file_stops_the_run_and_what_was_read_is_delivered() {
    let site = Site::new("broken-stop");
    site.write("pipeline.edn", text(":on-broken-file :stop"));
    let whole = with_broken_files(&site);
    fs::remove_file(site.path("in/c.ndjson")).expect("removed");
    for _ in 0..2 {
        let mut pseidon = site.run("pipeline.edn");
        pseidon.expect_exit(1, 60);
        let log = pseidon.log();
        let error = "error: source `in`: cannot read in/b.ndjson.gz: it is truncated";
        assert!(log.contains(error), "{log}");
        assert!(all_lines(&site.path("out")).len() > 10_000);
        assert!(hidden(&site.path("out")).is_empty());
    }
    site.write("in/b.ndjson.gz", whole);
    site.write("in/c.ndjson", lines(50_000..50_001));
    site.finish("pipeline.edn", 60);
    expect_all(&site);
}

#[test]
fn a_followed_file_is_quarantined_and_read_when_it_can_be() {
    let site = Site::new("broken-follow");
    let options = ":on-broken-file :quarantine :follow true :poll \"20ms\"";
    site.write("pipeline.edn", text(options));
    with_broken_files(&site);
    // A file that ends early may still be being written. This one is damaged.
    let (first, second) = (gzip(&lines(1..30_000)), gzip(&lines(30_000..50_000)));
    let garbage = vec![0xee; second.len()];
    site.write("in/b.ndjson.gz", [first.as_slice(), &garbage].concat());
    let start = || site.start(site.unprivileged("pipeline.edn"));
    let mut pseidon = start();
    wait_until("both are quarantined", 60, || quarantined(&site).len() == 2);
    pseidon.stop(30);
    let log = pseidon.log();
    assert!(
        log.contains("files were not read to their end count=2"),
        "{log}"
    );

    site.write("in/b.ndjson.gz", [first, second].concat());
    let mut pseidon = start();
    set_mode(&site, "in/c.ndjson", 0o644);
    wait_until("everything is visible", 60, || {
        all_lines(&site.path("out")).len() >= 50_001
    });
    pseidon.stop(30);
    expect_all(&site);
    assert_eq!(quarantined(&site).len(), 2);

    let options = options.replace(":quarantine", ":stop");
    site.write("pipeline.edn", text(&options));
    set_mode(&site, "in/c.ndjson", 0o000);
    let mut pseidon = start();
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    let error = "error: source `in`: cannot read in/c.ndjson: Permission denied";
    assert!(log.contains(error), "{log}");
}

/// Files of columns are continued at the row at which they were damaged.
#[test]
fn files_of_columns_are_continued_when_they_are_repaired() {
    const COUNT: u64 = 60_000;
    let all = records(0..COUNT);
    let write_as = |site: &Site, path: &str, options: &str| {
        place(site, written(site, FIELDS, &all, options), path);
    };
    for (extension, option) in [
        ("parquet", "skip"),
        ("parquet", "quarantine"),
        ("avro", "quarantine"),
        ("arrow", "quarantine"),
    ] {
        let site = Site::new(&format!("broken-{extension}-{option}"));
        let path = format!("in/b.{extension}");
        match extension {
            "parquet" => write_as(&site, &path, r#":codec :parquet :row-group "16KB""#),
            "avro" => write_as(&site, &path, ":codec :avro :compression :none"),
            _ => write_arrow(&site, &path, FIELDS, &all, None),
        }
        let whole = fs::read(site.path(&path)).expect("a file");
        let mut broken = whole.clone();
        let (from, to) = (whole.len() / 2, whole.len() * 5 / 8);
        broken[from..to].fill(0xee);
        site.write(&path, broken);
        // Its fields are those of the first file that can be read.
        let cut = format!("in/a.{extension}");
        site.write(&cut, &whole[..100]);
        site.write(
            "pipeline.edn",
            format!(
                r#"{{:name "broken"
                    in (files {{:path "in/*.{extension}" :on-broken-file :{option}}})
                    pipeline (-> in (files {{:path "out" :codec :json}}))}}"#
            ),
        );
        let objects = if option == "quarantine" { 2 } else { 0 };
        let mut read = 0;
        for _ in 0..2 {
            site.finish("pipeline.edn", 60);
            read = all_lines(&site.path("out")).len();
            assert!(
                (1000..COUNT as usize).contains(&read),
                "{extension}: {read}"
            );
            assert_eq!(quarantined(&site).len(), objects);
        }
        for (object, position) in quarantined(&site).iter().zip([0, read]) {
            assert_eq!(object["position"], position, "{object}");
        }
        fs::remove_file(site.path(&cut)).expect("removed");
        site.write(&path, whole);
        site.finish("pipeline.edn", 60);
        let mut expected: Vec<String> = (0..COUNT)
            .map(|number| record(number).trim_end().to_owned())
            .collect();
        if extension == "arrow" {
            // All of its content identifies it: it is read from its start.
            expected.extend_from_within(..read);
        }
        expected.sort();
        let found = all_lines(&site.path("out"));
        assert!(found == expected, "{extension}: {} records", found.len());
        assert_eq!(quarantined(&site).len(), objects);
    }
}

/// How often a run passes a step at most.
const MAX_PASSES: u32 = 40;

#[test]
fn a_file_is_quarantined_once_in_spite_of_kills() {
    let steps = ["taken", "recovered", "begun", "flushed", "released"];
    for step in steps.iter().chain(STEPS_TO_FILES) {
        let site = Site::new(&format!("broken-kills-{step}"));
        site.write("pipeline.edn", text(":on-broken-file :quarantine"));
        let whole = with_broken_files(&site);
        let run = |pass: u32| -> Pseidon {
            let mut command = site.unprivileged("pipeline.edn");
            command.env("PSEIDON_FAIL", format!("{step}:{pass}"));
            site.start(command)
        };
        let mut kills = 0;
        for pass in 1..MAX_PASSES {
            let mut pseidon = run(pass);
            if pseidon.wait_exit(60).success() {
                break;
            }
            kills += 1;
        }
        assert!(
            (1..MAX_PASSES - 1).contains(&kills),
            "{step}: {kills} kills"
        );
        expect_objects(&quarantined(&site));
        site.write("in/b.ndjson.gz", whole);
        set_mode(&site, "in/c.ndjson", 0o644);
        let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
        pseidon.expect_exit(0, 60);
        expect_all(&site);
        assert_eq!(quarantined(&site).len(), 2);
    }
}
