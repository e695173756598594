//! A pipeline that was changed after a run of it crashed.

use crate::harness::output::{count_gapless, files, hidden, numbers};
use crate::harness::{Site, wait_until};

/// Numbered records, in lanes of which some hardly ever fill a file. So whenever files of the others
/// are committed, these lanes are ahead.
fn counted(condition: &str) -> String {
    format!(
        r#"{{:name "counted"
            in (generate {{:record {{:n "n"}} :rate 2000}})
            pipeline (-> in (where "{condition}") (files {{:path "out/{{n % 4}}/{{n % 100 = 0}}" :codec :json :rollover {{:records 50 :idle "1h"}} :check-freq "50ms"}}))}}"#
    )
}

/// Numbered records, each in one of two sinks. One of them commits often and the other rarely, so
/// they are hardly ever at the same position. `lanes` is the name of a folder.
fn routed(to_often: &str, lanes: &str) -> String {
    format!(
        r#"{{:name "routed" :settings {{:commit-interval "20ms"}}
            in (generate {{:record {{:n "n"}} :rate 4000}})
            pipeline (-> in (all
              (-> (where "{to_often}") (files {{:path "out/often{lanes}" :codec :json :rollover {{:records 20}} :check-freq "10ms"}}))
              (-> (where "not ({to_often})") (files {{:path "out/rarely{lanes}" :codec :json :rollover {{:records 700 :idle "2s"}} :check-freq "10ms"}}))))}}"#
    )
}

fn kill_at(site: &Site, step: &str) {
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FAIL", step);
    site.start(command)
        .expect_death(step.split(':').next().unwrap_or(step), 30);
}

const CHANGED: &str = "the pipeline has changed since a run of it crashed";
const FINISHED: &str = "the earlier version has finished";

/// A killed run left lanes ahead, which only its own version of the pipeline can finish. It does so
/// before the changed version starts.
#[test]
fn the_crashed_run_is_finished_before_the_changed_version_starts() {
    let site = Site::new("changed");
    site.write("pipeline.edn", counted("n >= 0"));
    kill_at(&site, "committed:7");
    site.write("pipeline.edn", counted("n >= 0 or n < 0"));
    let mut changed = site.run("pipeline.edn");
    wait_until("the earlier version has finished", 30, || {
        changed.log().contains(FINISHED)
    });
    let before = files(&site.path("out")).len();
    wait_until("the changed version continues", 30, || {
        files(&site.path("out")).len() > before + 8
    });
    assert!(changed.log().contains(CHANGED), "{}", changed.log());
    changed.stop(20);
    count_gapless(&site.path("out"));

    // After a graceful stop nothing is left.
    site.write("pipeline.edn", counted("n >= 0 and true"));
    kill_at(&site, "committed:7");
    let mut command = site.command("pipeline.edn");
    command.arg("--previous");
    let mut previous = site.start(command);
    let before = files(&site.path("out")).len();
    wait_until("the crashed version continues", 30, || {
        files(&site.path("out")).len() > before + 8
    });
    assert!(!previous.log().contains(CHANGED), "{}", previous.log());
    previous.stop(20);
    let delivered = count_gapless(&site.path("out"));

    kill_at(&site, "committed:7");
    site.write("pipeline.edn", counted("n >= 0"));
    let mut command = site.command("pipeline.edn");
    command.arg("--accept-changed-plan");
    let mut accepted = site.start(command);
    let before = files(&site.path("out")).len();
    wait_until("the changed version continues", 30, || {
        files(&site.path("out")).len() > before + 8
    });
    assert!(!accepted.log().contains(CHANGED), "{}", accepted.log());
    accepted.stop(20);
    assert!(count_gapless(&site.path("out")) > delivered);
}

/// What the changed version cannot finish by itself is not skipped: the text of the crashed version
/// makes another plan now.
#[test]
fn a_version_that_cannot_be_made_again_is_an_error_with_help() {
    let site = Site::new("changed-table");
    let pipeline =
        |condition: &str| counted(condition).replace("n >= 0", "n >= ${env:PSEIDON_TEST_LEAST}");
    let start = |condition: &str, least: &str, step: &str| {
        site.write("pipeline.edn", pipeline(condition));
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_TEST_LEAST", least);
        if !step.is_empty() {
            command.env("PSEIDON_FAIL", step);
        }
        site.start(command)
    };
    start("n >= 0", "0", "committed:7").expect_death("committed", 30);
    let mut refused = start("n >= 0 and true", "-1", "");
    refused.expect_exit(1, 30);
    let log = refused.log();
    for said in [
        CHANGED,
        "ahead in `files`",
        "put back the environment variables",
        "--accept-changed-plan",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let mut finished = start("n >= 0 and true", "0", "");
    wait_until("the earlier version has finished", 30, || {
        finished.log().contains(FINISHED)
    });
    finished.stop(20);
    count_gapless(&site.path("out"));
}

/// A record that belongs to another sink in the changed version is neither lost nor doubled, if the
/// sinks were at different positions.
#[test]
fn no_record_is_lost_between_two_sinks() {
    let site = Site::new("changed-sinks");
    site.write("pipeline.edn", routed("n % 2 = 0", ""));
    kill_at(&site, "committed:9");
    site.write("pipeline.edn", routed("n % 2 = 1", ""));
    let mut changed = site.run("pipeline.edn");
    wait_until("the changed version continues", 30, || {
        let of_rarely = numbers(&site.path("out/rarely"));
        of_rarely.iter().filter(|n| *n % 2 == 0).count() > 700
    });
    changed.stop(20);
    count_gapless(&site.path("out"));
    assert!(hidden(&site.path("out")).is_empty());
    let log = changed.log();
    for said in [CHANGED, "is at position", FINISHED] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// Versions that send records to other sinks, and one that has other lanes, follow one another, and
/// each is killed at any time: also while it finishes what another one has left.
#[test]
fn versions_change_under_kills() {
    let site = Site::new("changed-kills");
    let versions = [
        routed("n % 2 = 0", ""),
        routed("n % 2 = 1", ""),
        routed("n % 3 = 1", "/{n % 4}"),
    ];
    let mut finished = 0;
    let mut kills = 0;
    // On a busy machine a run needs longer before it has finished what another one has left.
    while kills < 14 || (finished == 0 && kills < 60) {
        kills += 1;
        let version = site.random.of(0..versions.len() as u64) as usize;
        site.write("pipeline.edn", &versions[version]);
        let mut run = site.run("pipeline.edn");
        std::thread::sleep(site.random.millis(100..1000 + 100 * kills));
        assert!(run.is_running(), "{}", run.log());
        run.kill();
        finished += usize::from(run.log().contains(FINISHED));
    }
    let mut last = site.run("pipeline.edn");
    let before = files(&site.path("out")).len();
    wait_until("the last version continues", 60, || {
        files(&site.path("out")).len() > before + 20
    });
    last.stop(30);
    count_gapless(&site.path("out"));
    assert!(hidden(&site.path("out")).is_empty());
    assert!(
        finished > 0,
        "no version has finished what another one has left"
    );
}

/// What an operator has moved is not what a version has left unfinished, although a sink that the
/// version had is at another position.
#[test]
fn a_move_after_a_change_is_read_by_the_changed_version() {
    let site = Site::new("changed-moved");
    let lines: String = (0..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    site.write("in.ndjson", lines);
    let version = |folder: &str, second: &str| {
        format!(
            r#"{{:name "moved" in (files "in.ndjson") one (files {{:path "{folder}" :codec :json}})
                pipeline (-> in (all one {second}))}}"#
        )
    };
    let both = version("one", "(files {:path \"two\" :codec :json})");
    site.write("pipeline.edn", both);
    site.finish("pipeline.edn", 30);
    site.write("pipeline.edn", version("changed", ""));
    let moved = site
        .pseidon()
        .args(["offsets", "pipeline.edn", "--to", "earliest", "--execute"])
        .output()
        .expect("the binary starts");
    assert!(moved.status.success(), "{moved:?}");
    site.finish("pipeline.edn", 30);
    let all: Vec<u64> = (0..100).collect();
    for folder in ["one", "two", "changed"] {
        assert_eq!(numbers(&site.path(folder)), all, "{folder}");
    }
}

/// What a crashed version has read of a file cannot be finished when the file has been rewritten. The
/// file is read from its start, and the changed version goes on.
#[test]
fn a_file_that_is_rewritten_after_a_crash_holds_nothing_up() {
    // More than a batch, so that the state has a mark of what was read.
    const RECORDS: u64 = 300_000;
    let site = Site::new("changed-rewritten");
    let version = |condition: &str| {
        format!(
            r#"{{:name "rewritten" :settings {{:commit-interval "10ms"}}
                in (files "in.ndjson")
                pipeline (-> in (where "{condition}") (all
                  (files {{:path "one" :codec :json :check-freq "5ms" :rollover {{:records 1000}}}})
                  (files {{:path "two/{{n % 3 = 0}}" :codec :json :check-freq "5ms" :rollover {{:records 7000}}}})))}}"#
        )
    };
    let lines = |numbers: std::ops::Range<u64>| -> String {
        numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
    };
    site.write("in.ndjson", lines(0..RECORDS));
    site.write("pipeline.edn", version("n >= 0"));
    kill_at(&site, "committed:9");
    // The first line is the same, so it looks like the same file.
    let rewritten = lines(0..1) + &lines(RECORDS..2 * RECORDS);
    site.write("in.ndjson", rewritten);
    site.write("pipeline.edn", version("n >= 0 or n < 0"));
    site.finish("pipeline.edn", 60);
    for folder in ["one", "two"] {
        let found = numbers(&site.path(folder));
        let new = found.iter().filter(|n| **n >= RECORDS).count() as u64;
        assert_eq!(new, RECORDS, "{folder}");
        assert!(hidden(&site.path(folder)).is_empty());
    }
}

/// After a crash, a version without one of the sinks starts, whichever of the files had been read to
/// their end.
#[test]
fn a_sink_is_removed_after_a_crash() {
    const FILES: u64 = 12;
    const RECORDS: u64 = 500;
    let version = |second: &str| {
        format!(
            r#"{{:name "removed" :settings {{:commit-interval "10ms"}}
                in (files {{:path "in/*.ndjson"}})
                pipeline (-> in (all (files {{:path "one" :codec :json :check-freq "5ms" :rollover {{:records 100}}}})
                                     {second}))}}"#
        )
    };
    let both = version(
        r#"(files {:path "two/{n % 2}" :codec :json :check-freq "5ms" :rollover {:records 170}})"#,
    );
    let all: Vec<u64> = (0..FILES * RECORDS).collect();
    for step in [
        "committed:2",
        "renamed:20",
        "renamed:70",
        "flushed:1",
        "released:1",
    ] {
        let site = Site::new(&format!("removed-{}", step.replace(':', "-")));
        for (file, numbers) in all.chunks(RECORDS as usize).enumerate() {
            let lines: String = numbers.iter().map(|n| format!("{{\"n\":{n}}}\n")).collect();
            site.write(&format!("in/{file:02}.ndjson"), lines);
        }
        site.write("pipeline.edn", &both);
        kill_at(&site, step);
        site.write("pipeline.edn", version(""));
        site.finish("pipeline.edn", 60);
        assert_eq!(numbers(&site.path("one")), all, "killed at {step}");
        // What the first version had read is in both.
        let second = numbers(&site.path("two"));
        assert!(
            second.is_sorted_by(|one, next| one < next),
            "killed at {step}"
        );
        site.finish("pipeline.edn", 60);
        assert_eq!(numbers(&site.path("one")), all, "killed at {step}");
        assert!(hidden(&site.path("one")).is_empty());
    }
}
