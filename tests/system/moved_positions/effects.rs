//! What a move does in each sink and to each kind of file, and what does not prevent it.

use std::fs::OpenOptions;
use std::io::Write;

use super::{LINES, TO_EARLIEST, counts, done, pseidon};
use crate::harness::output::{all_lines, files};
use crate::harness::{Site, wait_until};
use crate::logs::gzip;
use crate::positions::{positions, split};

/// Waits until the state holds no committed file that may not be visible.
fn nothing_is_staged(site: &Site) {
    wait_until("no file is staged", 30, || {
        positions(site)["staged"] == serde_json::json!({})
    });
}

/// Whether blocks that are appended later were skipped could not be told without the number of rows.
#[test]
fn a_file_of_avro_may_grow_and_moves_to_its_beginning_only() {
    let site = Site::new("move-avro");
    let write = r#"(-> (generate {:count 3 :record {:n "n"}}) (select "n::int64 as n") (files {:path "in" :codec :avro}))"#;
    done(&site, &["run", "-e", write]);
    site.write(
        "pipeline.edn",
        r#"{:name "shop" in (files "in/*.avro")
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    site.finish("pipeline.edn", 30);
    for to in ["latest", "1"] {
        let said = pseidon(&site, &["offsets", "pipeline.edn", "--to", to, "--execute"]);
        assert_eq!(said.status.code(), Some(2), "{said:?}");
        let said = String::from_utf8(said.stderr).expect("text");
        assert!(said.contains("Avro") || said.contains("columns"), "{said}");
    }
    done(&site, TO_EARLIEST);
    site.finish("pipeline.edn", 30);
    assert!(counts(&site).iter().all(|(_, count)| *count == 2));
    assert_eq!(counts(&site).len(), 3);
}

/// A line end may be inside a field.
#[test]
fn a_file_of_csv_moves_to_its_beginning_only() {
    let site = Site::new("move-csv");
    site.write(
        "pipeline.edn",
        r#"{:name "shop" in (files {:path "in/*.csv" :schema {:id :int64 :note :utf8}})
            pipeline (-> in (select "id, note") (files {:path "out" :codec :json}))}"#,
    );
    site.write("in/a.csv", "id,note\n1,x\n2,\"open\nstill");
    site.finish("pipeline.edn", 30);
    for to in ["latest", "20"] {
        let said = pseidon(&site, &["offsets", "pipeline.edn", "--to", to, "--execute"]);
        assert_eq!(said.status.code(), Some(2), "{said:?}");
        let said = String::from_utf8(said.stderr).expect("text");
        assert!(
            said.contains("only earliest is a place in a file of CSV"),
            "{said}"
        );
    }
    done(&site, TO_EARLIEST);
}

/// What a move does depends on how far each sink is, and a last record without a line end that was
/// read is not read a second time.
#[test]
fn the_effect_in_each_sink_is_shown() {
    let site = Site::new("move-sinks");
    site.write(
        "pipeline.edn",
        r#"{:name "shop" in (files "in/*" {:follow true})
            one (files {:path "one" :codec :txt :rollover {:records 2}})
            two (files {:path "two" :codec :txt :rollover {:age "1h" :idle "1h"}})
            pipeline (-> in (all one two))}"#,
    );
    site.write("in/a.log", "a1\na2\na3\na4\n");
    let mut running = site.run("pipeline.edn");
    wait_until("the first sink has committed all records", 30, || {
        all_lines(&site.path("one")).len() == 4
    });
    nothing_is_staged(&site);
    running.kill();
    let said = pseidon(&site, &["offsets", "pipeline.edn", "--to", "6"]);
    let said = format!("{said:?}");
    assert!(
        said.contains("one: 6 positions re-read; two: 6 positions skipped"),
        "{said}"
    );

    let site = Site::new("move-unended");
    site.write(
        "pipeline.edn",
        LINES.replace(":txt", ":json").replace("in/*", "in/*.json"),
    );
    site.write("in/x.json", "{\"a\":1}\n{\"a\":2}");
    site.finish("pipeline.edn", 30);
    let to_latest = ["offsets", "pipeline.edn", "--to", "latest", "--execute"];
    done(&site, &to_latest);
    site.finish("pipeline.edn", 30);
    assert_eq!(counts(&site).len(), 2);
    assert!(counts(&site).iter().all(|(_, count)| *count == 1));
}

/// What was left by a crash in one split does not keep an operator from moving another one.
#[test]
fn a_split_that_is_gone_does_not_keep_others() {
    let site = Site::new("move-beside-gone");
    site.write(
        "pipeline.edn",
        r#"{:name "shop" in (files "in/*.json" {:follow true})
            pipeline (-> in (files {:path "out/{k}" :codec :json
                                    :rollover {:records 2 :idle "1h" :age "1h"}}))}"#,
    );
    // The lane of `y` stays open, so that of `x` is ahead.
    site.write("in/a.json", "{\"k\":\"y\"}\n{\"k\":\"x\"}\n{\"k\":\"x\"}\n");
    site.write("in/b.json", "{\"k\":\"z\"}\n{\"k\":\"z\"}\n");
    let mut running = site.run("pipeline.edn");
    wait_until("two lanes are committed", 30, || {
        files(&site.path("out")).len() == 2
    });
    nothing_is_staged(&site);
    running.kill();
    std::fs::remove_file(site.path("in/a.json")).expect("removed");
    let shown = positions(&site);
    let splits = shown["splits"].as_array().expect("a list");
    assert!(
        splits.iter().any(|split| split["sinks"][1]["ahead"] == 1),
        "{shown}"
    );
    let to_start = [
        "offsets",
        "pipeline.edn",
        "--to",
        "0",
        "--split",
        "in/b.json",
        "--execute",
    ];
    done(&site, &to_start);
}

fn append(site: &Site, name: &str, content: &str) {
    let file = OpenOptions::new().append(true).open(site.path(name));
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
    written.expect("the file can be written");
}

/// A file of which nothing was read begins at its end, unless it is moved to its beginning.
#[test]
fn a_source_that_begins_at_the_end_is_moved_to_the_beginning() {
    let site = Site::new("move-latest");
    let text = LINES
        .replace(
            "\"in/*\"",
            "{:path \"in/*\" :follow true :start :latest :poll \"10ms\"}",
        )
        .replace(
            ":txt",
            ":txt :rollover {:idle \"50ms\"} :check-freq \"10ms\"",
        );
    site.write("pipeline.edn", text);
    site.write("in/empty.log", "");
    let until_it_reads = |position: u64| {
        let pseidon = site.run("pipeline.edn");
        wait_until("it reads the file", 60, || {
            split(&positions(&site), "in/a.log")["position"] == position
        });
        pseidon
    };
    let delivered = || counts(&site).into_iter().map(|(line, _)| line);
    // The state exists, and knows nothing of the file.
    site.write("in/b.log", "b1\n");
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it reads the other file", 60, || {
        let shown = positions(&site);
        let splits = shown["splits"].as_array();
        splits.is_some_and(|splits| splits.iter().any(|split| split["position"] == 3))
    });
    pseidon.stop(30);
    done(&site, &["reset", "pipeline.edn", "--execute"]);
    site.write("in/a.log", "a1\na2\n");
    done(&site, TO_EARLIEST);
    let mut pseidon = until_it_reads(6);
    wait_until("everything is delivered", 60, || delivered().count() == 3);
    pseidon.stop(30);
    assert_eq!(delivered().collect::<Vec<_>>(), ["a1", "a2", "b1"]);

    // The first run after a reset is like the first one.
    done(&site, &["reset", "pipeline.edn", "--execute"]);
    let mut pseidon = until_it_reads(6);
    append(&site, "in/a.log", "a3\n");
    wait_until("it delivers what is added", 60, || {
        delivered().any(|line| line == "a3")
    });
    pseidon.stop(30);
    assert!(counts(&site).iter().all(|(_, count)| *count == 1));

    // A file that was read is moved too.
    done(&site, TO_EARLIEST);
    let mut pseidon = until_it_reads(9);
    wait_until("it delivers all again", 60, || {
        counts(&site).iter().all(|(_, count)| *count == 2)
    });
    pseidon.stop(30);
}

#[test]
fn a_file_that_became_shorter_is_shown_as_it_is_read() {
    let site = Site::new("move-shorter");
    site.write("pipeline.edn", LINES);
    site.write("in/a.log", "a1\na2\na3\n");
    site.finish("pipeline.edn", 30);
    site.write("in/a.log", "a1\na2\n");
    let to = |place: &str| {
        let said = pseidon(&site, &["offsets", "pipeline.edn", "--to", place]);
        String::from_utf8(said.stdout).expect("text")
    };
    // A run reads it from its start, whether it follows files or not.
    let following = LINES
        .replace("\"in/*\"", "{:path \"in/*\" :follow true :poll \"10ms\"}")
        .replace(
            ":txt",
            ":txt :rollover {:idle \"50ms\"} :check-freq \"10ms\"",
        );
    for text in [LINES, &following] {
        site.write("pipeline.edn", text);
        let shown = positions(&site);
        let file = split(&shown, "in/a.log");
        assert_eq!(file["position"], serde_json::Value::Null);
        assert_eq!((&file["end"], &file["lag"]), (&6.into(), &6.into()));
        assert!(to("latest").contains("begins at 6"), "{}", to("latest"));
        assert!(to("earliest").contains("no split has to be moved"));
    }
    done(
        &site,
        &["offsets", "pipeline.edn", "--to", "latest", "--execute"],
    );
    let mut running = site.run("pipeline.edn");
    append(&site, "in/a.log", "new\n");
    wait_until("it reads what is added", 60, || {
        split(&positions(&site), "in/a.log")["position"] == 10
    });
    running.stop(30);
    assert_eq!(counts(&site).len(), 4);
    assert!(counts(&site).iter().all(|(_, count)| *count == 1));
}

#[test]
fn what_was_appended_to_a_compressed_file_is_skipped() {
    let site = Site::new("move-grown");
    site.write("pipeline.edn", LINES);
    site.write("in/a.log.gz", gzip("a1\n"));
    site.finish("pipeline.edn", 30);
    let to_latest = ["offsets", "pipeline.edn", "--to", "latest"];
    let effect = || {
        let said = pseidon(&site, &to_latest);
        let text = String::from_utf8(said.stdout).expect("text");
        text.lines().nth(1).unwrap_or_default().to_owned()
    };
    assert!(effect().ends_with("none"), "{}", effect());
    site.write("in/a.log.gz", [gzip("a1\n"), gzip("a2\n")].concat());
    assert!(effect().ends_with("the rest is skipped"), "{}", effect());
    site.run("pipeline.edn").expect_exit(1, 30);
    done(&site, &[&to_latest[..], &["--execute"]].concat());
    site.finish("pipeline.edn", 30);
    assert_eq!(counts(&site), [("a1".to_owned(), 1)]);
    assert!(effect().ends_with("none"), "{}", effect());
}
